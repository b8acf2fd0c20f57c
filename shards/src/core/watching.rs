//! Watching for the end of a read, for a bounded time, before the core sleeps over it.
//!
//! Going to sleep and being woken takes more than a third of the time that a fast device needs for a read. The watch looks at
//! memory that the kernel writes and at what others may want of the core; it enters the kernel only for what there is.

use super::Core;
use std::{hint::spin_loop, time::Duration};

/// Between two looks at the device.
const PAUSES_PER_LOOK: u32 = 8;
/// One in so many of the last waits is in the mean.
const WAITS_IN_MEAN: u32 = 8;

/// Whether it is worth while to watch, by how long the last waits for reads were.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Zero: never.
    limit: Duration,
    /// Of waits with reads under way, watched or slept through.
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
        self.watch.limit = limit;
    }

    /// Watches if that is worth while, and sleeps if it is not or brought nothing; at most for `limit`. False: it slept
    /// not at all, since there is work.
    pub(super) fn rest(&mut self, limit: Option<Duration>) -> bool {
        if self.watch.limit.is_zero() || !self.reads.has_under_way() {
            return self.sleep_if_idle(limit);
        }
        let began = self.device.now();
        let has_rested = (self.watch.is_worth_it() && self.watched(limit)) || self.sleep_if_idle(limit);
        self.watch.note(self.device.now().since(began));
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
    fn watched(&mut self, limit: Option<Duration>) -> bool {
        let limit = limit.map_or(self.watch.limit, |limit| limit.min(self.watch.limit));
        let until = self.device.now().after(limit);
        loop {
            if self.poll_device() || self.has_work() {
                return true;
            }
            (0..PAUSES_PER_LOOK).for_each(|_| spin_loop());
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
