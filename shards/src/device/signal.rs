//! A signal that any thread raises and one core waits for: an eventfd behind a flag, so that raising it twice costs
//! one system call and looking whether it is raised costs none.

use crate::{
    device::Errno,
    park::Wakeup,
    sync::{AtomicBool, Ordering},
};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::{Errno as HostErrno, read, write},
};
use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

/// The eventfd holds 1 exactly while `raised` is true, but for the moment between the two steps of a raise.
#[derive(Debug)]
pub(super) struct Signal {
    raised: AtomicBool,
    /// A bell rang that [`Signal::take_ring`] has not returned yet. Apart from `raised`, because lowering the
    /// signal for completions must not lose a bell.
    rung: AtomicBool,
    eventfd: OwnedFd,
}

impl Signal {
    pub(super) fn new() -> Result<Self, Errno> {
        // Blocking: `lower` waits out the moment in which the flag is set and the eventfd is not.
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(Self { raised: AtomicBool::new(false), rung: AtomicBool::new(false), eventfd })
    }

    /// Raises it. What the sleeper is to find was published before.
    pub(super) fn raise(&self) {
        // AcqRel: release what was published before to the `lower` that takes the flag.
        if !self.raised.swap(true, Ordering::AcqRel) {
            while write(&self.eventfd, &1_u64.to_ne_bytes()) == Err(HostErrno::INTR) {}
        }
    }

    /// Lowers it; true if it was raised. Everything published before the raise is visible afterwards.
    pub(super) fn lower(&self) -> bool {
        if !self.raised.load(Ordering::Relaxed) {
            return false;
        }
        let mut count = [0_u8; 8];
        while read(&self.eventfd, &mut count) == Err(HostErrno::INTR) {}
        // Acquire: pairs with the swap in `raise`. Whoever raises after this writes the eventfd again.
        self.raised.swap(false, Ordering::AcqRel)
    }

    /// True if a bell rang since the last call.
    pub(super) fn take_ring(&self) -> bool {
        self.rung.load(Ordering::Relaxed) && self.rung.swap(false, Ordering::AcqRel)
    }

    /// Sleeps until it is raised or the time is over.
    pub(super) fn wait(&self, timeout: Option<Duration>) -> Result<(), Errno> {
        let timeout = timeout.map(timespec);
        let mut entries = [PollFd::new(&self.eventfd, PollFlags::IN)];
        match poll(&mut entries, timeout.as_ref()) {
            // An interrupted wait is one that ends early.
            Ok(_) | Err(HostErrno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

impl Wakeup for Signal {
    fn wake(&self) {
        self.rung.store(true, Ordering::Release);
        self.raise();
    }
}

/// A duration as the kernel takes it; what is too long for it is for ever in practice.
fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
