//! Durable appends of a lane under an open loop: due at fixed times, whatever becomes of those before them.

use super::{
    super::{
        driver::Driver,
        error::BenchError,
        figures::{LaneRun, Limits, Meter},
    },
    Lane,
};
use corelog::{Durability, Store, Ticket};
use corelog_yardstick::{OpenLoop, Service};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Appends that may wait to be durable; more are begun when some of them are.
const WAITING_MAX: usize = 1 << 16;

impl Lane {
    /// Appends when `load` says so. Fewer records than are due: the store did not keep up, or is full.
    pub(super) fn open<D: Driver>(
        &mut self,
        load: OpenLoop,
        store: &Store,
        driver: &mut D,
    ) -> Result<LaneRun, BenchError> {
        let limits = Limits { time: load.time, records: u64::MAX };
        let record_bytes = self.record_bytes as u64;
        let meter = Meter::start(limits, store, driver);
        let waiting = VecDeque::with_capacity(WAITING_MAX);
        let mut appends = Appends { lane: self, store, driver, meter, waiting, started: Instant::now() };
        let _seen_by_its_records = load.run(&mut appends)?;
        let Appends { meter, driver, .. } = appends;
        Ok(meter.stop(record_bytes, store, driver, Vec::new()))
    }
}

/// What the open loop asks.
struct Appends<'a, D> {
    lane: &'a mut Lane,
    store: &'a Store,
    driver: &'a mut D,
    meter: Meter,
    waiting: VecDeque<Ticket<'a>>,
    started: Instant,
}

impl<D: Driver> Appends<'_, D> {
    /// Until something has become durable, or may have.
    fn wait(&mut self) -> Result<(), BenchError> {
        let Some(oldest) = self.waiting.front() else { return Ok(()) };
        self.driver.toward_durable(*oldest)?;
        match self.store.shard(oldest.shard()).and_then(|shard| shard.failure()) {
            Some(failure) => Err(failure.into()),
            None => Ok(()),
        }
    }
}

impl<D: Driver> Service for Appends<'_, D> {
    type Error = BenchError;

    fn now(&mut self) -> Duration {
        self.started.elapsed()
    }

    fn begin(&mut self) -> Result<bool, BenchError> {
        if self.waiting.len() == WAITING_MAX || self.meter.is_full {
            return Ok(false);
        }
        let payload = self.lane.payloads[usize::from(self.lane.number)].of(self.lane.appended);
        let Some(ticket) = self.driver.append(self.store, payload)? else {
            self.meter.is_full = true;
            return Ok(false);
        };
        self.lane.appended += 1;
        if let Some(shard) = self.store.shard(ticket.shard()) {
            shard.request(ticket.frame(), Durability::Durable);
        }
        self.waiting.push_back(ticket);
        Ok(true)
    }

    fn work(&mut self) -> Result<u64, BenchError> {
        self.wait()?;
        let mut ended = 0;
        while self.waiting.front().is_some_and(|oldest| oldest.has_reached(Durability::Durable)) {
            self.waiting.pop_front();
            self.meter.count();
            ended += 1;
        }
        Ok(ended)
    }

    fn end(&mut self, latency: Duration) {
        self.meter.latency(latency);
    }
}
