//! Waking a core that sleeps: once per sleep, and never too few.
//!
//! The core that wants to sleep announces it, looks once more at everything that could want it (see
//! [`Bell::may_sleep`]), and only then sleeps in the kernel. Whoever gives it work makes the work visible first and calls [`Bell::ring`]
//! after. Each side writes, fences, and then reads what the other wrote, so at least one of the two sees the other
//! (the store-buffer pattern; both fences are needed).

use crate::{
    mutant::{self, Mutant},
    sync::{AtomicBool, Mutex, Ordering, fence},
};
use std::{
    fmt,
    sync::{Arc, PoisonError},
    task::Waker,
};

/// The kernel side of a bell: an eventfd, a futex, a simulator's run queue.
pub trait Wakeup: Send + Sync {
    /// Makes the sleeper's wait return, now or when it next waits.
    fn wake(&self);
}

/// Wakes one core. Cloned through an `Arc`; any thread may ring.
pub struct Bell {
    /// Written by the core when it goes to sleep, taken by the first that rings.
    asleep: AtomicBool,
    wakeup: Arc<dyn Wakeup>,
    /// Where the core sleeps as a task of an executor: what wakes that task, instead of `wakeup`.
    waker: Mutex<Option<Waker>>,
}

impl Bell {
    /// A bell in front of `wakeup`.
    #[must_use]
    pub fn new(wakeup: Arc<dyn Wakeup>) -> Self {
        Self { asleep: AtomicBool::new(false), wakeup, waker: Mutex::new(None) }
    }

    /// Wakes the core if it sleeps or is about to. The caller has already made its work visible.
    #[inline]
    pub fn ring(&self) {
        // Pairs with the fence in `prepare_sleep`: either this load sees `asleep`, or the core's second look sees
        // the work that was published before the call.
        if !mutant::is_active(Mutant::RingWithoutFence) {
            fence(Ordering::SeqCst);
        }
        if self.asleep.load(Ordering::Relaxed) {
            self.ring_sleeper();
        }
    }

    #[cold]
    fn ring_sleeper(&self) {
        // AcqRel: of several ringers exactly one takes the flag and pays for the system call.
        if self.asleep.swap(false, Ordering::AcqRel) || mutant::is_active(Mutant::WakePerRing) {
            match self.take_waker() {
                Some(waker) => waker.wake(),
                None => self.wakeup.wake(),
            }
        }
    }

    fn take_waker(&self) -> Option<Waker> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Has the next ring wake `waker` in place of the kernel's sleeper. To be called before
    /// [`Bell::prepare_sleep`].
    pub fn leave_waker(&self, waker: &Waker) {
        let mut slot = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *slot {
            Some(left) => left.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        drop(slot);
        // Makes the store of `asleep` that follows a release one: who takes the flag finds the waker.
        fence(Ordering::Release);
    }

    /// Takes back what [`Bell::leave_waker`] left. Somebody who rings at this moment may wake either.
    pub fn forget_waker(&self) {
        drop(self.take_waker());
    }

    /// Announces sleep. Afterwards the core must look at all its sources of work again before it sleeps.
    pub fn prepare_sleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Announces sleep and looks once more. False: there is work, and the announcement is taken back.
    pub fn may_sleep(&self, has_work: impl FnOnce() -> bool) -> bool {
        self.prepare_sleep();
        if mutant::is_active(Mutant::SleepWithoutSecondLook) || !has_work() {
            return true;
        }
        self.awake();
        false
    }

    /// Takes the announcement back, after the sleep or because work was found.
    pub fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("asleep", &self.asleep.load(Ordering::Relaxed)).finish_non_exhaustive()
    }
}

#[cfg(all(test, loom))]
#[path = "park_loom_tests.rs"]
mod loom_tests;
