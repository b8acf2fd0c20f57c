//! One writer per device: an exclusive lock, waited for a bounded time.
//!
//! Files take `flock`, which belongs to the open file: a second open in the same process is refused too, and the
//! lock dies with the process. It lives a few milliseconds longer while the kernel still has writes of a killed
//! process in flight, and those land until then; so the lock is waited for, and nothing is read before it is held.
//! Block devices are opened with `O_EXCL`, which also refuses a device that is mounted.

use crate::limits::LOCK_PAUSE_MS_MAX;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use std::{
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

/// Calls `attempt` until it gives something else than `busy`, or `wait` is over.
pub(super) fn retry_while<T>(
    busy: Errno,
    wait: Duration,
    mut attempt: impl FnMut() -> Result<T, Errno>,
) -> Result<T, Errno> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        let result = attempt();
        let left = wait.saturating_sub(start.elapsed());
        match result {
            Err(Errno::INTR) => {}
            Err(errno) if errno == busy && !left.is_zero() => {
                std::thread::sleep(pause.min(left));
                pause = (pause * 2).min(Duration::from_millis(LOCK_PAUSE_MS_MAX));
            }
            result => return result,
        }
    }
}

/// Takes the exclusive lock of a file; `WOULDBLOCK` if somebody held it all the time.
pub(super) fn lock_exclusive(file: BorrowedFd<'_>, wait: Duration) -> Result<(), Errno> {
    retry_while(Errno::WOULDBLOCK, wait, || flock(file, FlockOperation::NonBlockingLockExclusive))
}

/// Whether somebody has the file open for writing right now.
pub(super) fn is_locked(file: BorrowedFd<'_>) -> bool {
    // A shared lock that is kept would shut writers out for as long as somebody inspects; it is given back at once,
    // and a writer that meets it just now looks again.
    let taken = flock(file, FlockOperation::NonBlockingLockShared);
    if taken.is_ok() {
        let _released_at_close_otherwise = flock(file, FlockOperation::Unlock);
    }
    taken == Err(Errno::WOULDBLOCK)
}
