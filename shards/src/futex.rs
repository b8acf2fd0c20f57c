//! A word that threads sleep on, by the kernel's futex; under the models, one of a mutex and a condition that keeps the same
//! promise: nobody falls asleep on a word that has changed, and a wake-up reaches all who slept before it.

use std::num::NonZeroU32;

#[cfg(not(any(loom, shuttle)))]
pub(crate) use kernel::Futex;
#[cfg(any(loom, shuttle))]
pub(crate) use modelled::Futex;

/// Whom a wake-up is for: it reaches a sleeper if they have a bit in common.
pub(crate) type Bits = NonZeroU32;

#[cfg(not(any(loom, shuttle)))]
mod kernel {
    use super::Bits;
    use crate::device::{Instant, clock::monotonic_now};
    use rustix::{
        thread::futex::{Flags, wait_bitset, wake_bitset},
        time::{ClockId, Timespec, clock_gettime},
    };
    use std::sync::atomic::{AtomicU32, Ordering};

    const NANOS_PER_SECOND: i64 = 1_000_000_000;

    /// See the head of this file.
    #[derive(Debug, Default)]
    pub(crate) struct Futex(AtomicU32);

    impl Futex {
        pub(crate) fn load(&self, order: Ordering) -> u32 {
            self.0.load(order)
        }

        pub(crate) fn fetch_add(&self, more: u32, order: Ordering) -> u32 {
            self.0.fetch_add(more, order)
        }

        /// Sleeps if the word is `seen`, until it is woken by one of `bits`, or `until`. May return early for no reason.
        pub(crate) fn wait(&self, seen: u32, bits: Bits, until: Option<Instant>) {
            let until = until.map(of_clock);
            // A changed word, a signal and the end of the time all make the caller look again.
            let _why = wait_bitset(&self.0, Flags::PRIVATE, seen, until.as_ref(), bits);
        }

        /// Wakes all who sleep and have one of `bits`; so many.
        pub(crate) fn wake(&self, bits: Bits) -> usize {
            // No address of a live atomic is refused.
            wake_bitset(&self.0, Flags::PRIVATE, i32::MAX.unsigned_abs(), bits).unwrap_or_default()
        }
    }

    /// The kernel wants the time of its own clock.
    fn of_clock(until: Instant) -> Timespec {
        let left = until.since(monotonic_now());
        let now = clock_gettime(ClockId::Monotonic);
        let nanos = now.tv_nsec + i64::from(left.subsec_nanos());
        let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
        let seconds = now.tv_sec.saturating_add(seconds).saturating_add(nanos / NANOS_PER_SECOND);
        Timespec { tv_sec: seconds, tv_nsec: nanos % NANOS_PER_SECOND }
    }
}

#[cfg(any(loom, shuttle))]
mod modelled {
    use super::Bits;
    use crate::{
        device::Instant,
        sync::{AtomicU64, Condvar, Mutex, Ordering},
    };

    /// See the head of this file. Wakes all, whatever their bits: a sleeper looks again anyway. Time stands still.
    #[derive(Debug)]
    pub(crate) struct Futex {
        word: AtomicU64,
        asleep: Mutex<usize>,
        woken: Condvar,
    }

    impl Default for Futex {
        fn default() -> Self {
            Self { word: AtomicU64::new(0), asleep: Mutex::new(0), woken: Condvar::new() }
        }
    }

    impl Futex {
        pub(crate) fn load(&self, order: Ordering) -> u32 {
            self.word.load(order) as u32
        }

        pub(crate) fn fetch_add(&self, more: u32, order: Ordering) -> u32 {
            self.word.fetch_add(u64::from(more), order) as u32
        }

        pub(crate) fn wait(&self, seen: u32, _bits: Bits, _until: Option<Instant>) {
            let mut asleep = self.asleep.lock().unwrap();
            if self.word.load(Ordering::Relaxed) as u32 == seen {
                *asleep += 1;
                drop(self.woken.wait(asleep).unwrap());
            }
        }

        pub(crate) fn wake(&self, _bits: Bits) -> usize {
            let woken = std::mem::take(&mut *self.asleep.lock().unwrap());
            self.woken.notify_all();
            woken
        }
    }
}
