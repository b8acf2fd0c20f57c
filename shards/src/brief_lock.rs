//! A lock that is held for some tens of nanoseconds, and for which nobody waits much longer than that.
//!
//! One atomic step takes it and a plain store gives it back, where those of the standard library take two and look for
//! sleepers: what is behind it can then be under way while what was in front of it is not over (decision 0027).
//!
//! This file holds unsafe code.

use crate::{
    limits::BRIEF_LOCK_LOOKS_MAX,
    mutant::{self, Mutant},
    sync::{AtomicBool, Ordering},
};
use std::{cell::UnsafeCell, fmt, hint};

/// A value that one thread at a time may touch.
pub(crate) struct BriefLock<T> {
    is_taken: AtomicBool,
    value: UnsafeCell<T>,
    /// What loom sees of the value.
    #[cfg(loom)]
    tracked: loom::cell::UnsafeCell<()>,
}

// SAFETY: only the thread that turned `is_taken` from false to true touches the value, until it turns it back; `T` may
// be touched by any thread, one after the other.
unsafe impl<T: Send> Sync for BriefLock<T> {}

impl<T> BriefLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            is_taken: AtomicBool::new(false),
            value: UnsafeCell::new(value),
            #[cfg(loom)]
            tracked: loom::cell::UnsafeCell::new(()),
        }
    }

    /// Runs `work` on the value. `None`: another thread is at it, and was not done soon. If `work` panics the value may be
    /// half changed, so that nobody gets it any more.
    #[inline]
    pub(crate) fn try_with<R>(&self, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        if !self.takes() && !self.takes_late() {
            return None;
        }
        // SAFETY: this thread turned false to true, and until the store below every other one finds true: the reference is the only
        // one. It does not outlive the call, as `R` cannot borrow from what `work` is lent.
        let done = work(unsafe { &mut *self.value.get() });
        #[cfg(loom)]
        self.tracked.with_mut(|_| ());
        let order =
            if mutant::is_active(Mutant::BriefLockRelaxed) { Ordering::Relaxed } else { Ordering::Release };
        self.is_taken.store(false, order);
        Some(done)
    }

    #[inline]
    fn takes(&self) -> bool {
        // Acquire pairs with the release above: what the last one did to the value is seen.
        self.is_taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn takes_late(&self) -> bool {
        (0..BRIEF_LOCK_LOOKS_MAX).any(|_| {
            hint::spin_loop();
            crate::sync::let_others_run();
            !self.is_taken.load(Ordering::Relaxed) && self.takes()
        })
    }
}

impl<T> fmt::Debug for BriefLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BriefLock").field("is_taken", &self.is_taken).finish_non_exhaustive()
    }
}

#[cfg(all(test, loom))]
#[path = "brief_lock_loom_tests.rs"]
mod loom_tests;

#[cfg(all(test, not(any(loom, shuttle))))]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn a_lock_that_is_held_is_given_up_and_taken_when_it_is_free() {
        let lock = BriefLock::new(1);
        assert_eq!(lock.try_with(|value| (*value, lock.try_with(|_| ()))), Some((1, None)));
        assert_eq!(lock.try_with(|value| std::mem::replace(value, 2)), Some(1));
        assert_eq!(lock.try_with(|value| *value), Some(2));
    }

    #[test]
    fn what_a_panic_may_have_left_half_changed_is_nobodys() {
        let lock = BriefLock::new(1);
        let panicked = catch_unwind(AssertUnwindSafe(|| lock.try_with(|_| panic!("half of it is done"))));
        panicked.unwrap_err();
        assert_eq!(lock.try_with(|value| *value), None);
    }

    #[test]
    fn four_threads_lose_nothing() {
        let lock = BriefLock::new(0_u64);
        let add = || (0..100_000).filter(|_| lock.try_with(|value| *value += 1).is_some()).count() as u64;
        let added: u64 = std::thread::scope(|scope| {
            let adders: Vec<_> = (0..4).map(|_| scope.spawn(add)).collect();
            adders.into_iter().map(|adder| adder.join().unwrap()).sum()
        });
        assert_eq!(lock.try_with(|value| *value), Some(added));
    }
}
