//! Telling a forked child that it is one.
//!
//! A child has copies of the rings and none of the threads, while the device queues and the bells are still its
//! parent's. So what a parent opened is of no use in a child: appends, reads, waits and turns say so instead of
//! disturbing the parent. A store that the child opens itself works.
//!
//! This file holds unsafe code.

use std::sync::{
    Once,
    atomic::{AtomicU64, Ordering},
};

/// Forks between the first process that watched and this one. Written in a child before it runs anything else.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// The process that something was made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Birthplace(u64);

impl Birthplace {
    /// This process. From now on its children are told apart.
    pub(crate) fn here() -> Self {
        static WATCH: Once = Once::new();
        WATCH.call_once(|| {
            // SAFETY: the handler only touches an atomic, which is allowed in a forked child; it is never unloaded,
            // being part of the program. The call fails only for want of memory, and then forks go unnoticed.
            let _unnoticed_if_it_fails = unsafe { libc::pthread_atfork(None, None, Some(note_fork)) };
        });
        Self(FORKS.load(Ordering::Relaxed))
    }

    /// True in the process that it was made in, false in a child of that.
    #[inline]
    pub(crate) fn is_here(self) -> bool {
        // Relaxed: it changes only while a process has a single thread. The line is never written otherwise, so that
        // the append path shares it without a cost.
        FORKS.load(Ordering::Relaxed) == self.0
    }
}

extern "C" fn note_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}
