//! What the host can do to a whole store: fork it, shut down the file system below it.
//!
//! This file holds unsafe code.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{fs::File, io, os::fd::AsRawFd, path::Path};

/// `EXT4_IOC_SHUTDOWN`, which is `XFS_IOC_GOINGDOWN` too: `_IOR('X', 125, __u32)`.
const SHUTDOWN: libc::c_ulong = 0x8004_587d;
/// Without writing the journal: as a power cut, as far as the file system goes.
const WITHOUT_JOURNAL: u32 = 2;

/// Ends all I/O on the file system of a folder at once.
pub fn shut_down(folder: &Path) -> io::Result<()> {
    let folder = File::open(folder)?;
    let how = WITHOUT_JOURNAL;
    // SAFETY: the call reads the four bytes behind the pointer, which outlive it.
    let done = unsafe { libc::ioctl(folder.as_raw_fd(), SHUTDOWN, std::ptr::from_ref(&how)) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Runs `work` in a forked child, without ever coming back from there, and gives its exit code: 0 for true, 1 for
/// false, 101 for a panic.
pub fn in_fork(work: impl FnOnce() -> bool) -> i32 {
    // SAFETY: the child runs `work` and ends at once. It is the only thread of its process; the allocator of the host
    // is made for this, and `work` takes no lock that another thread of the parent may hold.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "{}", io::Error::last_os_error());
    if child == 0 {
        let code = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
            Ok(true) => 0,
            Ok(false) => 1,
            Err(_) => 101,
        };
        // SAFETY: it ends the child without running what the parent registered for its own end.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: the status outlives the call, and the child is ours.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child);
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -1 }
}
