//! The watermarks of a shard, and who waits for them.
//!
//! All are counted in frames and mean "every frame below this number". The owner alone moves them, over contiguous
//! runs only. A waiter that registers looks at the mark again under the list's lock, and the owner publishes before
//! it takes that lock, so no wake-up is lost. Threads that block are in [`crate::sleepers`].

use crate::{
    device::{Instant, clock::monotonic_now},
    ids::FrameNumber,
    mutant::{self, Mutant},
    sleepers::Sleepers,
    sync::{AtomicU64, Mutex, Ordering},
};
use serde::{Deserialize, Serialize};
use std::{collections::VecDeque, task::Waker};

/// How safe a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// In the shard's buffer: lost when the process dies.
    Buffered,
    /// Taken by the device: survives the process, not a power loss.
    Written,
    /// On stable media: survives a power loss on a device that honours flush.
    Durable,
}

impl std::fmt::Display for Durability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Buffered => "buffered",
            Self::Written => "written",
            Self::Durable => "durable",
        })
    }
}

/// The watermarks of one shard at one moment. `accepted >= submitted >= written >= durable`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Watermarks {
    /// Frames that take no more records.
    pub accepted: FrameNumber,
    /// Frames handed to the device.
    pub submitted: FrameNumber,
    /// Frames that the device has taken, without a hole.
    pub written: FrameNumber,
    /// Frames that the device has on stable media, without a hole.
    pub durable: FrameNumber,
}

/// One watermark and its waiters.
#[derive(Debug)]
pub struct Mark {
    /// Frames below this number have arrived. Written by the owner.
    reached: AtomicU64,
    /// Frames below this number are waited for. Raised by waiters, read by the owner.
    wanted: AtomicU64,
    waiters: Mutex<WaitList>,
    sleepers: Sleepers,
}

impl Mark {
    pub(crate) fn new(reached: FrameNumber) -> Self {
        Self {
            reached: AtomicU64::new(reached.0),
            wanted: AtomicU64::new(reached.0),
            waiters: Mutex::new(WaitList::default()),
            sleepers: Sleepers::new(),
        }
    }

    /// Frames below this number have arrived.
    #[inline]
    #[must_use]
    pub fn reached(&self) -> FrameNumber {
        // Acquire pairs with the release of `publish`.
        FrameNumber(self.reached.load(Ordering::Acquire))
    }

    /// True once `frame` has arrived.
    #[inline]
    #[must_use]
    pub fn has(&self, frame: FrameNumber) -> bool {
        self.reached() > frame
    }

    /// Asks for `frame`. The caller rings the owner's bell afterwards if this was news.
    pub fn want(&self, frame: FrameNumber) -> bool {
        // Relaxed: the bell's fence makes it visible. A load first, so that many waiters of one group do not all
        // write the line.
        self.wanted.load(Ordering::Relaxed) <= frame.0
            && self.wanted.fetch_max(frame.0 + 1, Ordering::Relaxed) <= frame.0
    }

    /// Frames below this number are waited for.
    #[inline]
    pub(crate) fn wanted(&self) -> FrameNumber {
        FrameNumber(self.wanted.load(Ordering::Relaxed))
    }

    /// Leaves `waker` to be woken once `frame` has arrived (or the shard failed). True: it has arrived already, and
    /// nothing was left.
    pub fn register(&self, frame: FrameNumber, waker: &Waker) -> bool {
        let mut waiters = lock(&self.waiters);
        if self.has(frame) && !mutant::is_active(Mutant::WaiterWithoutSecondLook) {
            return true;
        }
        waiters.push(frame, waker);
        false
    }

    /// Blocks until `frame` has arrived (true), or `is_over` says so, or `until`. `is_over` is asked before each sleep; whoever makes
    /// it true calls [`Mark::wake_all`] then.
    pub(crate) fn wait(
        &self,
        frame: FrameNumber,
        until: Option<Instant>,
        mut is_over: impl FnMut() -> bool,
    ) -> bool {
        loop {
            let seen = self.sleepers.changes();
            if self.has(frame) {
                return true;
            }
            if is_over() || until.is_some_and(|until| monotonic_now() >= until) {
                return self.has(frame);
            }
            self.sleepers.sleep(seen, frame, until);
        }
    }

    /// Owner: moves the mark and wakes whom it concerns; so many.
    pub(crate) fn publish(&self, reached: FrameNumber, woken: &mut Vec<Waker>) -> usize {
        let before = self.reached();
        debug_assert!(reached >= before, "a watermark moved back");
        // Release pairs with the acquire of `reached`; before the lock, see the head of this file.
        self.reached.store(reached.0, Ordering::Release);
        lock(&self.waiters).take_below(reached, woken);
        let count = woken.len();
        // Outside the lock: a waker may run anything.
        woken.drain(..).for_each(Waker::wake);
        count + self.sleepers.wake(before, reached)
    }

    /// Owner: wakes everyone, because nothing will arrive any more.
    pub(crate) fn wake_all(&self) {
        let mut woken = Vec::new();
        lock(&self.waiters).take_below(FrameNumber(u64::MAX), &mut woken);
        woken.into_iter().for_each(Waker::wake);
        self.sleepers.wake_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> crate::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Wakers by frame. Frames come almost in order, and emptied lists are kept, so that the steady state allocates
/// nothing.
#[derive(Debug, Default)]
struct WaitList {
    frames: VecDeque<(FrameNumber, Vec<Waker>)>,
    emptied: Vec<Vec<Waker>>,
}

impl WaitList {
    fn push(&mut self, frame: FrameNumber, waker: &Waker) {
        let at = self.frames.partition_point(|(other, _)| *other < frame);
        if self.frames.get(at).is_none_or(|(other, _)| *other != frame) {
            self.frames.insert(at, (frame, self.emptied.pop().unwrap_or_default()));
        }
        self.frames[at].1.push(waker.clone());
    }

    fn take_below(&mut self, reached: FrameNumber, woken: &mut Vec<Waker>) {
        while self.frames.front().is_some_and(|(frame, _)| *frame < reached) {
            let Some((_, mut wakers)) = self.frames.pop_front() else { return };
            woken.append(&mut wakers);
            self.emptied.push(wakers);
        }
    }
}

/// Those who wait for room in the ring: woken by every recycled buffer.
#[derive(Debug, Default)]
pub struct RoomWaiters {
    /// Counts recycled buffers (and failures), so that a waiter can tell that something changed.
    changes: AtomicU64,
    waiters: Mutex<Vec<Waker>>,
}

impl RoomWaiters {
    /// To be read before the try to reserve that a wait may follow.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Leaves `waker` to be woken by the next change after `seen`. True: there was one already.
    pub fn register(&self, seen: u64, waker: &Waker) -> bool {
        let mut waiters = lock(&self.waiters);
        if self.changes() != seen && !mutant::is_active(Mutant::WaiterWithoutSecondLook) {
            return true;
        }
        waiters.push(waker.clone());
        false
    }

    /// Owner: there is room, or there never will be.
    pub(crate) fn publish(&self, woken: &mut Vec<Waker>) {
        let counted_early = mutant::is_active(Mutant::RoomCountedEarly);
        if counted_early {
            self.changes.fetch_add(1, Ordering::Release);
        }
        let mut waiters = lock(&self.waiters);
        // Within the lock, so that nobody is taken for a change that it has seen already: it would find nothing new, and
        // believe that its waker is still here.
        if !counted_early {
            self.changes.fetch_add(1, Ordering::Release);
        }
        woken.append(&mut waiters);
        drop(waiters);
        woken.drain(..).for_each(Waker::wake);
    }
}

#[cfg(all(test, loom))]
#[path = "watermark_loom_tests.rs"]
mod loom_tests;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::{
        sync::{Arc, atomic::AtomicU32},
        task::Wake,
    };

    #[derive(Default)]
    struct Counter(AtomicU32);
    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_mark_wakes_those_below_it_once_and_nobody_else() {
        let mark = Mark::new(FrameNumber(0));
        let counters: Vec<Arc<Counter>> = (0..4).map(|_| Arc::default()).collect();
        for (frame, counter) in [3, 0, 1, 2].into_iter().zip(&counters) {
            assert!(!mark.register(FrameNumber(frame), &Waker::from(Arc::clone(counter))));
        }
        let counts = || counters.iter().map(|c| c.0.load(Ordering::Relaxed)).collect::<Vec<_>>();
        mark.publish(FrameNumber(2), &mut Vec::new());
        assert_eq!(counts(), [0, 1, 1, 0]);
        assert!(mark.register(FrameNumber(1), Waker::noop()), "what has arrived is not waited for");
        mark.publish(FrameNumber(4), &mut Vec::new());
        assert_eq!(counts(), [1, 1, 1, 1]);
    }

    #[test]
    fn wanting_is_news_once() {
        let mark = Mark::new(FrameNumber(5));
        assert!(!mark.want(FrameNumber(4)));
        assert!(mark.want(FrameNumber(5)));
        assert!(!mark.want(FrameNumber(5)));
        assert_eq!(mark.wanted(), FrameNumber(6));
    }
}
