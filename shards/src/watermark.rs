//! The watermarks of a shard, and who waits for them.
//!
//! All are counted in frames and mean "every frame below this number". The owner alone moves them, over contiguous
//! runs only. A waiter that registers looks at the mark again under the list's lock, and the owner publishes before
//! it takes that lock, so no wake-up is lost. Threads that block are in `sleepers.rs`.

use crate::{
    device::clock::monotonic_now,
    ids::FrameNumber,
    mutant::{self, Mutant},
    sleepers::Sleepers,
    sync::{AtomicU64, Mutex, Ordering},
};
use serde::{Deserialize, Serialize};
use std::{collections::VecDeque, task::Waker, time::Duration};

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

/// Whom a step of a watermark told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Tasks and threads that were woken.
    pub woken: usize,
    /// Threads that watched, for this step or the next one.
    pub watching: usize,
}

impl Told {
    /// All of them.
    pub const fn all(self) -> usize {
        self.woken + self.watching
    }
}

/// How a thread waits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    /// For how long at most; `None`: without bound.
    pub limit: Option<Duration>,
    /// For how long it watches before it sleeps, where the device is that fast. Zero: not at all.
    pub watch: Duration,
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

    /// Blocks until `frame` has arrived (true), or `is_over` says so, or the patience is at its end. `is_over` is asked before each
    /// sleep; whoever makes it true calls [`Mark::wake_all`] then.
    pub(crate) fn wait(
        &self,
        frame: FrameNumber,
        patience: Patience,
        mut is_over: impl FnMut() -> bool,
    ) -> bool {
        let watches = !patience.watch.is_zero() && !self.sleepers.is_slow();
        let began = (patience.limit.is_some() || watches).then(monotonic_now);
        let until = began.zip(patience.limit).map(|(began, limit)| began.after(limit));
        let watch_until = began.filter(|_| watches).map(|began| began.after(patience.watch));
        loop {
            let seen = self.sleepers.changes();
            if self.has(frame) {
                return true;
            }
            if is_over() || until.is_some_and(|until| monotonic_now() >= until) {
                return self.has(frame);
            }
            match watch_until {
                Some(end) if monotonic_now() < end => {
                    self.sleepers.watch(seen, until.map_or(end, |until| end.min(until)));
                }
                _ => self.sleepers.sleep(seen, frame, until),
            }
        }
    }

    /// Owner: whether it takes so long that nobody should watch.
    pub(crate) fn set_slow(&self, is_slow: bool) {
        self.sleepers.set_slow(is_slow);
    }

    /// Owner: moves the mark and wakes whom it concerns.
    pub(crate) fn publish(&self, reached: FrameNumber, woken: &mut Vec<Waker>) -> Told {
        let before = self.reached();
        debug_assert!(reached >= before, "a watermark moved back");
        let watching = self.sleepers.watching();
        // Release pairs with the acquire of `reached`; before the lock, see the head of this file.
        self.reached.store(reached.0, Ordering::Release);
        lock(&self.waiters).take_below(reached, woken);
        let count = woken.len();
        // Outside the lock: a waker may run anything.
        woken.drain(..).for_each(Waker::wake);
        // Before they see the mark move.
        Told { watching, woken: count + self.sleepers.wake(before, reached) }
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

    /// Longer than any test.
    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn who_watches_is_told_without_being_woken() {
        let mark = Mark::new(FrameNumber(0));
        let patience = Patience { limit: None, watch: LONG };
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| mark.wait(FrameNumber(0), patience, || false));
            while mark.sleepers.watching() == 0 {
                std::thread::yield_now();
            }
            let told = mark.publish(FrameNumber(1), &mut Vec::new());
            assert_eq!(told, Told { woken: 0, watching: 1 });
            assert!(waits.join().expect("it does not panic"));
        });
    }

    #[test]
    fn who_waits_for_a_slow_device_sleeps_at_once_and_is_woken() {
        let mark = Mark::new(FrameNumber(0));
        mark.set_slow(true);
        let patience = Patience { limit: Some(LONG), watch: LONG };
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| mark.wait(FrameNumber(0), patience, || false));
            // Frames that nobody waits for, until it sleeps and is woken by its own.
            let mut frame = 0;
            let woken = loop {
                frame += 1;
                let told = mark.publish(FrameNumber(frame), &mut Vec::new());
                assert_eq!(told.watching, 0);
                if told.woken > 0 || waits.is_finished() {
                    break told.woken;
                }
            };
            assert!(woken <= 1 && waits.join().expect("it does not panic"));
        });
    }

    #[test]
    fn patience_ends() {
        let mark = Mark::new(FrameNumber(0));
        let soon = Some(Duration::from_millis(1));
        assert!(!mark.wait(FrameNumber(0), Patience { limit: soon, watch: Duration::ZERO }, || false));
        assert!(!mark.wait(FrameNumber(0), Patience { limit: soon, watch: LONG }, || false));
        assert!(!mark.wait(FrameNumber(0), Patience { limit: None, watch: LONG }, || true), "it is over");
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
