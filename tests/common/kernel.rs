//! What the host can do to a whole store: fork it, interrupt it, shut down the file system below it.
//!
//! This file holds unsafe code.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

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

/// Sends SIGALRM to every thread of the process again and again while `work` runs, and gives how many arrived. Calls that
/// a signal interrupts are not restarted by the kernel.
pub fn in_a_storm_of_alarms<T>(work: impl FnOnce() -> T) -> (T, u64) {
    static ARRIVED: AtomicU64 = AtomicU64::new(0);
    extern "C" fn count(_signal: libc::c_int) {
        ARRIVED.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: all zeros is an action: no flags, so that calls are not restarted, and no signals blocked.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(libc::c_int) = count;
    action.sa_sigaction = handler as libc::sighandler_t;
    // SAFETY: the action outlives the call, and its handler only counts, which is safe at any moment.
    let set = unsafe { libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()) };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
    let is_over = AtomicBool::new(false);
    let before = ARRIVED.load(Ordering::Relaxed);
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                alarm_everyone();
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        is_over.store(true, Ordering::Relaxed);
        result
    });
    let arrived = ARRIVED.load(Ordering::Relaxed) - before;
    match result {
        Ok(result) => (result, arrived),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn alarm_everyone() {
    for thread in std::fs::read_dir("/proc/self/task").unwrap() {
        let Ok(thread) = thread.unwrap().file_name().to_string_lossy().parse::<libc::c_long>() else {
            continue;
        };
        let process = libc::c_long::from(std::process::id() as i32);
        // SAFETY: three numbers; a thread that has ended meanwhile is an error that nobody minds.
        let _ended =
            unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::c_long::from(libc::SIGALRM)) };
    }
}
