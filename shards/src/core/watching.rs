//! Watching for the end of a read, or of a write that somebody waits for, for a bounded time, before the core sleeps over it.
//!
//! Going to sleep and being woken takes more than a third of the time that a fast device needs for a read. The watch looks at
//! memory that the kernel writes and at what others may want of the core; it enters the kernel for what there is, and, while a
//! write has to become durable, to let others run: the kernel's worker that sends the flush may need this very CPU.

use super::Core;
use crate::{limits::SYNC_SPIN_CALLERS_MIN, shard_owner::ShardOwner};
use std::{hint::spin_loop, thread::yield_now, time::Duration};

/// Between two looks at the device.
const PAUSES_PER_LOOK: u32 = 8;
/// One in so many of the last waits is in the mean.
const WAITS_IN_MEAN: u32 = 8;

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

    /// The same while something is under way that somebody waits for to be durable. Zero, as a core is made: not at all. `is_driven`: by a
    /// thread that may wait for it itself; otherwise, and if others wait, there must be some more of them.
    pub const fn watch_syncs(&mut self, limit: Duration, is_driven: bool) {
        self.syncs_watch.limit = limit;
        self.waits_itself = is_driven;
    }

    fn is_write_worth_it(&self) -> bool {
        let is_worth_it = |told| told >= SYNC_SPIN_CALLERS_MIN || (told == 0 && self.waits_itself);
        self.shards.iter().any(|owner| is_worth_it(owner.told()) && owner.is_waited_for())
    }

    /// Watches if that is worth while, and sleeps if it is not or brought nothing; at most for `limit`. False: it slept
    /// not at all, since there is work.
    pub(super) fn rest(&mut self, limit: Option<Duration>) -> bool {
        let is_writing = self.device.in_flight() > 0 && self.shards.iter().any(ShardOwner::is_waited_for);
        let is_reading = self.reads.has_under_way() && !self.reads_watch.limit.is_zero();
        let mut watch = if is_reading { self.reads_watch } else { self.syncs_watch };
        if watch.limit.is_zero() || !(is_reading || (is_writing && self.is_write_worth_it())) {
            return self.sleep_if_idle(limit);
        }
        let began = self.device.now();
        let pause = || match is_writing {
            true => yield_now(),
            false => (0..PAUSES_PER_LOOK).for_each(|_| spin_loop()),
        };
        let watch_limit = limit.map_or(watch.limit, |limit| limit.min(watch.limit));
        let has_rested =
            (watch.is_worth_it() && self.watched(watch_limit, pause)) || self.sleep_if_idle(limit);
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
