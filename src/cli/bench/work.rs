//! The workloads of one lane.

#[cfg(feature = "yardsticks")]
mod open;

use super::{
    driver::Driver,
    error::BenchError,
    figures::{LaneRun, Limits, Meter},
    overwrite::{Choice, Index},
    payload::{Keeper, Kept, Payload, Sequence},
    tasks::{Begun, Operations, keep_in_flight},
};
use bytes::Bytes;
use corelog::{Durability, Reached, ReadError, Reading, ShardFailure, Store, Ticket};
use std::{collections::VecDeque, sync::Arc, time::Instant};

/// Appends between two looks at the clock.
const APPENDS_PER_LOOK: u64 = 64;
/// One of so many appends is timed: two looks at the clock cost as much as an append. A prime, so that the timed ones
/// fall on all places of a frame.
const APPENDS_PER_TIMED: u64 = 61;

/// What a lane is to do.
#[derive(Debug, Clone)]
pub enum Work {
    /// Append as fast as the ring takes records; wait for this durability at the end.
    Append { limits: Limits, durability: Durability },
    /// Keep so many appends waiting for durability.
    Durable { limits: Limits, in_flight: usize },
    /// Keep so many reads of random records under way, and check each.
    Read { limits: Limits, in_flight: usize, kept: Arc<Vec<Kept>> },
    /// Append when it is due, and wait until all is durable.
    #[cfg(feature = "yardsticks")]
    Open { load: corelog_yardstick::OpenLoop },
    /// Write values, over and over.
    Overwrite { limits: Limits, index: Arc<Index>, choice: Choice },
    /// Read all values, and check each.
    Check { index: Arc<Index>, in_flight: usize },
}

/// One lane: a thread with a shard of its own.
#[derive(Debug)]
pub struct Lane {
    pub(super) number: u16,
    pub(super) record_bytes: usize,
    /// The payloads of all lanes: reads cross over.
    pub(super) payloads: Vec<Payload>,
    appended: u64,
    pub(super) random: Sequence,
    /// For the next workload that keeps what it appends.
    keeper: Option<Keeper>,
}

impl Lane {
    pub fn new(number: u16, lanes: u16, record_bytes: usize, seed: u64, appended: u64) -> Self {
        let payload = |lane: u16| Payload::new(record_bytes, seed ^ u64::from(lane) << 48);
        Self {
            number,
            record_bytes,
            payloads: (0..lanes).map(payload).collect(),
            appended,
            random: Sequence::new(seed ^ u64::from(number)),
            keeper: None,
        }
    }

    /// Makes what the workload needs and is not its work.
    pub fn prepare(&mut self, work: &Work) {
        if matches!(work, Work::Append { .. } | Work::Durable { .. }) {
            self.keeper.get_or_insert_with(Keeper::new);
        }
    }

    pub fn run<D: Driver>(
        &mut self,
        work: &Work,
        store: &Store,
        driver: &mut D,
    ) -> Result<LaneRun, BenchError> {
        match work {
            Work::Append { limits, durability } => self.append(*limits, *durability, store, driver),
            Work::Durable { limits, in_flight } => self.durable(*limits, *in_flight, store, driver),
            Work::Read { limits, in_flight, kept } => self.read(*limits, *in_flight, kept, store, driver),
            #[cfg(feature = "yardsticks")]
            Work::Open { load } => self.open(*load, store, driver),
            Work::Overwrite { limits, index, choice } => {
                self.overwrite(*limits, index, *choice, store, driver)
            }
            Work::Check { index, in_flight } => self.check(index, *in_flight, store, driver),
        }
    }

    fn append<D: Driver>(
        &mut self,
        limits: Limits,
        durability: Durability,
        store: &Store,
        driver: &mut D,
    ) -> Result<LaneRun, BenchError> {
        let mut keeper = self.keeper.take().unwrap_or_else(Keeper::new);
        let mut last = None;
        let mut meter = Meter::start(limits, store, driver);
        while !meter.is_over() {
            for _ in 0..APPENDS_PER_LOOK {
                let began = self.appended.is_multiple_of(APPENDS_PER_TIMED).then(Instant::now);
                let payload = self.payloads[usize::from(self.number)].of(self.appended);
                let Some(ticket) = driver.append(store, payload)? else {
                    meter.is_full = true;
                    break;
                };
                if let Some(began) = began {
                    meter.latency(began.elapsed());
                }
                keeper.keep(self.number, self.appended, ticket.address());
                self.appended += 1;
                meter.count();
                last = Some(ticket);
            }
        }
        if let Some(ticket) = last {
            reach(driver, ticket, durability)?;
        }
        Ok(meter.stop(self.record_bytes as u64, store, driver, keeper.into_kept()))
    }

    fn durable<D: Driver>(
        &mut self,
        limits: Limits,
        in_flight: usize,
        store: &Store,
        driver: &mut D,
    ) -> Result<LaneRun, BenchError> {
        let keeper = self.keeper.take().unwrap_or_else(Keeper::new);
        let meter = Meter::start(limits, store, driver);
        let mut appends = Appends { lane: self, store, meter, keeper, begun: 0 };
        if D::DRIVES {
            appends.by_watermark(driver, in_flight)?;
        } else {
            keep_in_flight(driver, in_flight, &mut appends)?;
        }
        let Appends { meter, keeper, .. } = appends;
        Ok(meter.stop(self.record_bytes as u64, store, driver, keeper.into_kept()))
    }

    fn read<D: Driver>(
        &mut self,
        limits: Limits,
        in_flight: usize,
        kept: &[Kept],
        store: &Store,
        driver: &mut D,
    ) -> Result<LaneRun, BenchError> {
        let meter = Meter::start(limits, store, driver);
        let mut reads = Reads { lane: self, store, meter, kept, begun: 0 };
        keep_in_flight(driver, in_flight, &mut reads)?;
        let Reads { meter, .. } = reads;
        Ok(meter.stop(self.record_bytes as u64, store, driver, Vec::new()))
    }
}

/// Turns the core until one record is as safe as asked.
fn reach<D: Driver>(driver: &mut D, ticket: Ticket<'_>, durability: Durability) -> Result<(), BenchError> {
    struct One<'store>(Option<Reached<'store>>);
    impl<'store, D: Driver> Operations<D> for One<'store> {
        type Future = Reached<'store>;
        type Expected = ();

        fn begin(&mut self, _driver: &mut D) -> Begun<Reached<'store>, ()> {
            Ok(self.0.take().map(|reached| (reached, ())))
        }

        fn is_over(&mut self) -> bool {
            self.0.is_none()
        }

        fn end(
            &mut self,
            output: Result<(), ShardFailure>,
            _expected: (),
            _began: Instant,
        ) -> Result<(), BenchError> {
            Ok(output?)
        }
    }
    keep_in_flight(driver, 1, &mut One(Some(ticket.reached(durability))))
}

/// Appends that wait until they are durable.
struct Appends<'lane, 'store> {
    lane: &'lane mut Lane,
    store: &'store Store,
    meter: Meter,
    keeper: Keeper,
    begun: u64,
}

/// An append of a lane that drives its core.
struct Waiting<'store> {
    ticket: Ticket<'store>,
    number: u64,
    began: Instant,
}

impl<'store> Appends<'_, 'store> {
    /// Frames become durable in order, so a lane that drives its core needs no wakers: it asks, turns, and looks at the
    /// oldest.
    fn by_watermark<D: Driver>(&mut self, driver: &mut D, in_flight: usize) -> Result<(), BenchError> {
        let mut waiting: VecDeque<Waiting<'_>> = VecDeque::with_capacity(in_flight);
        loop {
            // Of the whole group, before its first record.
            let began = Instant::now();
            let is_over = self.meter.is_over();
            while !is_over && waiting.len() < in_flight && self.begun < self.meter.records_max() {
                let number = self.lane.appended;
                let Some(ticket) = self.append(driver)? else { break };
                ticket.request(Durability::Durable);
                waiting.push_back(Waiting { ticket, number, began });
            }
            if waiting.is_empty() {
                return Ok(());
            }
            // What is waited for comes from this core alone.
            driver.turn_or_sleep_for(None)?;
            if let Some(failure) = waiting.front().and_then(|first| first.failure(self.store)) {
                return Err(failure.into());
            }
            let now = Instant::now();
            while let Some(first) = waiting.front()
                && first.ticket.has_reached(Durability::Durable)
            {
                self.meter.latency(now - first.began);
                self.meter.count();
                self.keeper.keep(self.lane.number, first.number, first.ticket.address());
                waiting.pop_front();
            }
        }
    }

    fn append<D: Driver>(&mut self, driver: &mut D) -> Result<Option<Ticket<'store>>, BenchError> {
        let number = self.lane.appended;
        let payload = self.lane.payloads[usize::from(self.lane.number)].of(number);
        let Some(ticket) = driver.append(self.store, payload)? else {
            self.meter.is_full = true;
            return Ok(None);
        };
        self.lane.appended += 1;
        self.begun += 1;
        Ok(Some(ticket))
    }
}

impl Waiting<'_> {
    fn failure(&self, store: &Store) -> Option<ShardFailure> {
        store.shard(self.ticket.shard()).and_then(|shard| shard.failure())
    }
}

impl<'store, D: Driver> Operations<D> for Appends<'_, 'store> {
    type Future = Reached<'store>;
    type Expected = Kept;

    fn begin(&mut self, driver: &mut D) -> Begun<Reached<'store>, Kept> {
        let number = self.lane.appended;
        let Some(ticket) = self.append(driver)? else { return Ok(None) };
        let kept = Kept { address: ticket.address(), lane: self.lane.number, number };
        Ok(Some((ticket.reached(Durability::Durable), kept)))
    }

    fn is_over(&mut self) -> bool {
        self.meter.is_over() || self.begun >= self.meter.records_max()
    }

    fn end(
        &mut self,
        output: Result<(), ShardFailure>,
        kept: Kept,
        began: Instant,
    ) -> Result<(), BenchError> {
        output?;
        self.meter.latency(began.elapsed());
        self.meter.count();
        self.keeper.keep(kept.lane, kept.number, kept.address);
        Ok(())
    }
}

/// Reads of random records.
struct Reads<'lane, 'store> {
    lane: &'lane mut Lane,
    store: &'store Store,
    meter: Meter,
    kept: &'lane [Kept],
    begun: u64,
}

impl<D: Driver> Operations<D> for Reads<'_, '_> {
    type Future = Reading;
    type Expected = Kept;

    fn begin(&mut self, _driver: &mut D) -> Begun<Reading, Kept> {
        if self.kept.is_empty() {
            return Ok(None);
        }
        let kept = self.kept[self.lane.random.below(self.kept.len())];
        match self.store.read_async(kept.address) {
            Ok(reading) => {
                self.begun += 1;
                Ok(Some((reading, kept)))
            }
            Err(ReadError::Busy { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn is_over(&mut self) -> bool {
        self.kept.is_empty() || self.meter.is_over() || self.begun >= self.meter.records_max()
    }

    fn end(
        &mut self,
        output: Result<Bytes, ReadError>,
        kept: Kept,
        began: Instant,
    ) -> Result<(), BenchError> {
        let payload = output?;
        self.meter.latency(began.elapsed());
        let expected = self.lane.payloads[usize::from(kept.lane)].of(kept.number);
        if payload != expected {
            return Err(BenchError::Damage { address: kept.address, lane: kept.lane, number: kept.number });
        }
        self.meter.count();
        Ok(())
    }
}
