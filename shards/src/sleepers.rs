//! Threads that block until a watermark moves: an event count on a futex.
//!
//! One call of the kernel wakes all whom a step concerns, where a waker of its own for each of them is a call for each; and who
//! is woken has left nothing behind that somebody must take away. Futures leave their wakers with the mark instead.
//!
//! Who waits takes the count of changes first, looks at the mark then, and sleeps only on the same count. Who moves the mark does
//! so first, counts then, and looks for sleepers last. Both have a fence between what they write and what they read of the other
//! (the store-buffer pattern), so that one of the two sees the other.

use crate::{
    device::{Instant, clock::monotonic_now},
    futex::{Bits, Futex},
    ids::FrameNumber,
    mutant::{self, Mutant},
    sync::{AtomicBool, AtomicU64, Ordering, fence},
};
use std::{num::NonZeroU32, thread::yield_now};

/// Those who block.
#[derive(Debug)]
pub(crate) struct Sleepers {
    changes: Futex,
    /// Those who sleep, or are about to.
    count: AtomicU64,
    /// Those who watch before they sleep.
    watching: AtomicU64,
    /// Writes take longer than anybody would watch.
    is_slow: AtomicBool,
}

impl Sleepers {
    pub(crate) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self { changes: Futex::default(), count: zero(), watching: zero(), is_slow: AtomicBool::new(false) }
    }

    /// To be read before the look that a sleep may follow.
    pub(crate) fn changes(&self) -> u32 {
        self.changes.load(Ordering::Acquire)
    }

    /// True if it costs CPU and gains nothing to watch.
    pub(crate) fn is_slow(&self) -> bool {
        self.is_slow.load(Ordering::Relaxed)
    }

    /// Owner: see [`Sleepers::is_slow`].
    pub(crate) fn set_slow(&self, is_slow: bool) {
        if self.is_slow() != is_slow {
            self.is_slow.store(is_slow, Ordering::Relaxed);
        }
    }

    /// Looks for a change after `seen` until there is one, or `until`, and lets others run between two looks.
    pub(crate) fn watch(&self, seen: u32, until: Instant) {
        self.watching.fetch_add(1, Ordering::Relaxed);
        while self.changes() == seen && monotonic_now() < until {
            yield_now();
        }
        self.watching.fetch_sub(1, Ordering::Relaxed);
    }

    /// So many watch.
    pub(crate) fn watching(&self) -> usize {
        self.watching.load(Ordering::Relaxed) as usize
    }

    /// Sleeps unless there was a change after `seen`, until there is one that concerns `frame`, or `until`. May return early for no reason.
    pub(crate) fn sleep(&self, seen: u32, frame: FrameNumber, until: Option<Instant>) {
        self.count.fetch_add(1, Ordering::Relaxed);
        // Pairs with the one in `wake`.
        fence(Ordering::SeqCst);
        self.changes.wait(seen, bits(frame, frame.next()), until);
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// The frames from `from` to below `to` have arrived: wakes those who wait for them; so many.
    pub(crate) fn wake(&self, from: FrameNumber, to: FrameNumber) -> usize {
        self.notify(bits(from, to))
    }

    /// Nothing will arrive any more.
    pub(crate) fn wake_all(&self) {
        self.notify(NonZeroU32::MAX);
    }

    fn notify(&self, bits: Bits) -> usize {
        let looked_early = mutant::is_active(Mutant::SleepersCountedEarly);
        let early = self.count.load(Ordering::Relaxed);
        // Release: who reads the new count sees the mark where it is now.
        self.changes.fetch_add(1, Ordering::Release);
        fence(Ordering::SeqCst);
        let count = if looked_early { early } else { self.count.load(Ordering::Relaxed) };
        if count == 0 { 0 } else { self.changes.wake(bits) }
    }
}

/// A bit for each of 32 frames; those of one that is further ahead are woken for nothing.
fn bits(from: FrameNumber, to: FrameNumber) -> Bits {
    let frames = to.0.saturating_sub(from.0).clamp(1, u64::from(u32::BITS)) as u32;
    let first = (from.0 % u64::from(u32::BITS)) as u32;
    // Never zero, for there is one frame at least.
    NonZeroU32::new((u32::MAX >> (u32::BITS - frames)).rotate_left(first)).unwrap_or(NonZeroU32::MAX)
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_a_bit_in_common_with_every_run_that_it_is_in() {
        for (from, to) in [(0, 1), (0, 32), (5, 6), (31, 33), (63, 70), (7, 1000), (u64::MAX - 1, u64::MAX)] {
            let run = bits(FrameNumber(from), FrameNumber(to)).get();
            for frame in from..to.min(from.saturating_add(100)) {
                assert_ne!(
                    run & bits(FrameNumber(frame), FrameNumber(frame + 1)).get(),
                    0,
                    "{frame} in {from}..{to}"
                );
            }
        }
        let (run, behind) = (bits(FrameNumber(31), FrameNumber(33)), bits(FrameNumber(33), FrameNumber(34)));
        assert_eq!(run.get() & behind.get(), 0, "who waits for a later frame sleeps on");
    }
}
