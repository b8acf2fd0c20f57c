//! An open loop: requests are due at fixed times, whatever becomes of those before them, and the latency of each runs from
//! when it was due. A closed loop, which begins the next when one has ended, asks nothing of a device that stalls and so
//! sees one slow request where its users see all that they would have made meanwhile (coordinated omission).
//!
//! The same loop drives the engine and the bare loop beside it.

use std::time::Duration;

/// Runs end at the latest after so many times their own time, and [`GRACE`].
const BEHIND_MAX: u32 = 3;
/// What a run is always given to end in.
const GRACE: Duration = Duration::from_secs(1);

/// What an open loop asks.
pub trait Service {
    /// Why it ends early.
    type Error;

    /// The time since the run began.
    fn now(&mut self) -> Duration;

    /// Begins the next request. False: not before some of those under way have ended.
    fn begin(&mut self) -> Result<bool, Self::Error>;

    /// Works, and waits if it must, for what is under way; gives how many of the oldest requests have ended. Those that
    /// are due meanwhile are begun afterwards, and have waited since they were due.
    fn work(&mut self) -> Result<u64, Self::Error>;

    /// A request has ended, so long after it was due.
    fn end(&mut self, latency: Duration);
}

/// When requests are due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OpenLoop {
    /// Requests a second, evenly apart.
    pub rate: f64,
    /// How long requests become due.
    pub time: Duration,
}

/// What became of them.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize)]
pub struct Served {
    /// Requests that were due.
    pub due: u64,
    /// Those that ended; the latencies are theirs, and what did not end is counted with its age.
    pub ended: u64,
    /// Until the last one ended.
    pub seconds: f64,
}

impl Served {
    /// The service did not keep up, or had no room for more.
    #[must_use]
    pub const fn is_behind(&self) -> bool {
        self.ended < self.due
    }
}

impl OpenLoop {
    /// Requests of a run: at least one.
    #[must_use]
    pub fn requests(&self) -> u64 {
        ((self.time.as_secs_f64() * self.rate) as u64).max(1)
    }

    /// When a request is due.
    fn due(&self, request: u64) -> Duration {
        Duration::from_secs_f64(request as f64 / self.rate)
    }

    /// Runs until every request has ended, or the service is hopelessly behind, or has no room for more although nothing
    /// is under way.
    pub fn run<S: Service>(&self, service: &mut S) -> Result<Served, S::Error> {
        let requests = self.requests();
        let give_up = self.time * BEHIND_MAX + GRACE;
        let (mut begun, mut ended) = (0, 0);
        while ended < requests {
            let (now, mut is_refused) = (service.now(), false);
            while begun < requests && !is_refused && self.due(begun) <= now {
                is_refused = !service.begin()?;
                begun += u64::from(!is_refused);
            }
            if begun > ended {
                let finished = service.work()?;
                let now = service.now();
                for request in ended..(ended + finished).min(begun) {
                    service.end(now.saturating_sub(self.due(request)));
                }
                ended = (ended + finished).min(begun);
            } else if is_refused {
                break;
            } else {
                // Not asleep: a host wakes later than it is asked to.
                std::hint::spin_loop();
            }
            if service.now() > give_up {
                break;
            }
        }
        let now = service.now();
        for request in (ended..requests).take_while(|&request| self.due(request) <= now) {
            service.end(now.saturating_sub(self.due(request)));
        }
        Ok(Served { due: requests, ended, seconds: now.as_secs_f64() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::Cell, convert::Infallible};

    const MS: Duration = Duration::from_millis(1);

    /// A device that takes 100 us for all that is under way, and stands still once; with a clock of its own.
    struct Device {
        now: Cell<Duration>,
        under_way: u64,
        stall: Option<(Duration, Duration)>,
        room: u64,
        latencies: Vec<Duration>,
    }

    impl Device {
        fn new() -> Self {
            Self {
                now: Cell::new(Duration::ZERO),
                under_way: 0,
                stall: None,
                room: u64::MAX,
                latencies: Vec::new(),
            }
        }
    }

    impl Service for Device {
        type Error = Infallible;

        fn now(&mut self) -> Duration {
            // Looking takes time, or a loop that waits would never see it pass.
            self.now.set(self.now.get() + Duration::from_nanos(50));
            self.now.get()
        }

        fn begin(&mut self) -> Result<bool, Infallible> {
            let has_room = self.room > 0;
            self.room -= u64::from(has_room);
            self.under_way += u64::from(has_room);
            Ok(has_room)
        }

        fn work(&mut self) -> Result<u64, Infallible> {
            let now = self.now.get();
            let stalled =
                self.stall.take_if(|(from, _)| *from <= now).map_or(Duration::ZERO, |(_, time)| time);
            self.now.set(now + stalled + MS / 10);
            Ok(std::mem::take(&mut self.under_way))
        }

        fn end(&mut self, latency: Duration) {
            self.latencies.push(latency);
        }
    }

    #[test]
    fn a_stall_shows_in_every_request_that_was_due_in_it() -> Result<(), Infallible> {
        let mut device = Device { stall: Some((50 * MS, 30 * MS)), ..Device::new() };
        let found = OpenLoop { rate: 10_000.0, time: 100 * MS }.run(&mut device)?;
        assert_eq!((found.due, found.ended, found.is_behind()), (1000, 1000, false));
        // 30 ms of ten requests each, of which the first waited for all of it and the last for none.
        let slow: Vec<&Duration> = device.latencies.iter().filter(|&&latency| latency > MS).collect();
        assert!((285..=300).contains(&slow.len()), "{} requests saw it", slow.len());
        let waited: Duration = slow.iter().copied().sum();
        assert!((waited / slow.len() as u32).abs_diff(15 * MS + MS / 2) < MS, "{waited:?} in all");
        assert!(slow.iter().all(|&&latency| latency <= 31 * MS));
        Ok(())
    }

    #[test]
    fn requests_are_begun_when_they_are_due_and_not_before() -> Result<(), Infallible> {
        let mut device = Device::new();
        let found = OpenLoop { rate: 1000.0, time: 100 * MS }.run(&mut device)?;
        assert_eq!((found.due, found.ended), (100, 100));
        assert!((0.099..0.101).contains(&found.seconds), "{found:?}");
        assert!(
            device.latencies.iter().all(|&latency| latency < MS / 8),
            "alone, each takes as long as the device"
        );
        Ok(())
    }

    #[test]
    fn a_service_that_cannot_keep_up_or_is_full_is_behind_and_ends() -> Result<(), Infallible> {
        let mut stuck = Device { stall: Some((Duration::ZERO, 60_000 * MS)), ..Device::new() };
        let found = OpenLoop { rate: 1000.0, time: 100 * MS }.run(&mut stuck)?;
        assert!(found.is_behind() && found.ended < 3, "{found:?}");
        assert_eq!(stuck.latencies.len(), 100, "what did not end is counted with its age");
        let mut full = Device { room: 40, ..Device::new() };
        let found = OpenLoop { rate: 1000.0, time: 100 * MS }.run(&mut full)?;
        assert_eq!((found.due, found.ended, found.is_behind()), (100, 40, true));
        Ok(())
    }
}
