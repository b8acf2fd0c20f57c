//! Watching for the end of a read, or of a write that somebody waits for, for a bounded time, before the core sleeps over it.
//!
//! Going to sleep and being woken takes more than a third of the time that a fast device needs for a read. The watch looks at
//! memory that the kernel writes and at what others may want of the core; it enters the kernel for what there is, and, while a
//! write has to become durable, to let others run: the kernel's worker that sends the flush may need this very CPU.

use super::Core;
use crate::{
    limits::{SYNC_SPIN_CALLERS_MIN, WAIT_SPIN_TIMES},
    shard_owner::ShardOwner,
    watermark::Told,
};
use std::{hint::spin_loop, sync::atomic::Ordering, thread::yield_now, time::Duration};

/// Between two looks at the device.
const PAUSES_PER_LOOK: u32 = 8;
/// One in so many of the last waits is in the mean.
const WAITS_IN_MEAN: u32 = 8;

/// Who waits for what the core writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Callers {
    /// The thread that drives the core, or others.
    Driver,
    /// Other threads, and some CPU has no core.
    #[default]
    Beside,
    /// Other threads, which share their CPUs with the cores: those that sleep need them to wake up.
    Crowded,
}

/// Whether it is worth while to watch, by how long the last waits of its kind were.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watch {
    /// Zero: never.
    limit: Duration,
    /// Of waits, watched or slept through.
    mean: Duration,
}

impl Watch {
    /// On a device that is slower than the limit it would cost CPU and gain nothing.
    fn is_worth_it(&self) -> bool {
        self.mean <= self.limit
    }

    fn note(&mut self, waited: Duration) {
        self.mean = (self.mean * (WAITS_IN_MEAN - 1) + waited) / WAITS_IN_MEAN;
    }
}

impl Core {
    /// Has [`Core::wait`] and [`Core::turn_or_wait`] watch for so long, while reads are under way, before they sleep. Zero,
    /// as a core is made: not at all.
    pub const fn watch_reads(&mut self, limit: Duration) {
        self.reads_watch.limit = limit;
    }

    /// The same while something is under way that somebody waits for to be durable. Zero, as a core is made: not at all.
    pub const fn watch_syncs(&mut self, limit: Duration, callers: Callers) {
        self.syncs_watch.limit = limit;
        self.callers = callers;
    }

    fn is_write_worth_it(&self) -> bool {
        let is_worth_it = |told: Told| {
            told.watching > 0
                || match self.callers {
                    Callers::Driver => told.woken == 0 || told.woken >= SYNC_SPIN_CALLERS_MIN,
                    Callers::Beside => told.woken >= SYNC_SPIN_CALLERS_MIN,
                    Callers::Crowded => false,
                }
        };
        self.shards.iter().any(|owner| is_worth_it(owner.told()) && owner.is_waited_for())
    }

    /// Callers watch for longer, since the write under way may not be theirs.
    pub(super) fn is_slow_for_callers(&self) -> bool {
        self.syncs_watch.mean > WAIT_SPIN_TIMES * self.syncs_watch.limit
    }

    /// A thread that drives its core may be the one that is to come back.
    pub(super) fn gathers(&self) -> bool {
        self.callers != Callers::Driver && !self.syncs_watch.limit.is_zero()
    }

    /// Watches if that is worth while, and sleeps if it is not or brought nothing; at most for `limit`. False: it slept
    /// not at all, since there is work.
    pub(super) fn rest(&mut self, limit: Option<Duration>) -> bool {
        if self.is_closing {
            // Nobody comes back to it.
            return self.sleep_if_idle(limit);
        }
        if let Some(until) = self.shards.iter().filter_map(ShardOwner::gathers_until).min() {
            let left = until.since(self.device.now());
            return self.watched(limit.map_or(left, |limit| limit.min(left)), yield_now) || !left.is_zero();
        }
        let is_writing = self.device.in_flight() > 0 && self.shards.iter().any(ShardOwner::is_waited_for);
        let is_reading = self.reads.has_under_way() && !self.reads_watch.limit.is_zero();
        let mut watch = if is_reading { self.reads_watch } else { self.syncs_watch };
        if watch.limit.is_zero() || !(is_reading || is_writing) {
            return self.sleep_if_idle(limit);
        }
        // What is slept over counts as well, so that a device that became fast is known again.
        let is_worth_it = watch.is_worth_it() && (is_reading || self.is_write_worth_it());
        let began = self.device.now();
        let pause = || match is_writing {
            true => yield_now(),
            false => (0..PAUSES_PER_LOOK).for_each(|_| spin_loop()),
        };
        let watch_limit = limit.map_or(watch.limit, |limit| limit.min(watch.limit));
        if is_worth_it {
            self.handle.counters.watches.fetch_add(1, Ordering::Relaxed);
        }
        let has_rested = (is_worth_it && self.watched(watch_limit, pause)) || self.sleep_if_idle(limit);
        watch.note(self.device.now().since(began));
        *(if is_reading { &mut self.reads_watch } else { &mut self.syncs_watch }) = watch;
        has_rested
    }

    fn sleep_if_idle(&mut self, limit: Option<Duration>) -> bool {
        let may_sleep = self.prepare_wait();
        if may_sleep {
            self.sleep(limit);
        }
        may_sleep
    }

    /// True: something came of it, or there is work.
    fn watched(&mut self, limit: Duration, pause: impl Fn()) -> bool {
        let until = self.device.now().after(limit);
        loop {
            if self.poll_device() || self.has_work() {
                return true;
            }
            pause();
            if self.device.now() >= until {
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(waited_us: &[u64]) -> Watch {
        let mut watch = Watch { limit: Duration::from_micros(100), mean: Duration::ZERO };
        waited_us.iter().for_each(|&waited| watch.note(Duration::from_micros(waited)));
        watch
    }

    #[test]
    fn a_slow_device_is_not_watched_until_it_is_fast_again() {
        assert!(watch(&[]).is_worth_it() && watch(&[60; 100]).is_worth_it());
        assert!(watch(&[&[60; 100][..], &[300]].concat()).is_worth_it(), "one slow read says nothing");
        assert!(!watch(&[8000; 2]).is_worth_it());
        assert!(watch(&[&[8000; 2][..], &[60; 40]].concat()).is_worth_it());
    }
}
