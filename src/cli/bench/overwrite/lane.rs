//! What one lane of the overwrite workload does: write its values over, and read all of them at the end.

use super::{
    super::{
        driver::Driver,
        error::BenchError,
        figures::{LaneRun, Limits, Meter},
        tasks::{Begun, Operations, keep_in_flight},
        work::Lane,
    },
    index::{Entry, Index, number},
};
use crate::cli::args::Skew;
use bytes::Bytes;
use corelog::{ReadError, Reading, SpaceError, Store};
use std::{sync::Arc, time::Instant};

/// Writes between two looks at the clock.
const WRITES_PER_LOOK: u64 = 64;

/// Which values a lane writes.
#[derive(Debug, Clone, Copy)]
pub enum Choice {
    /// Each once, in their order.
    Each,
    /// At random.
    Random(Skew),
}

impl Lane {
    pub fn overwrite<D: Driver>(
        &mut self,
        limits: Limits,
        index: &Index,
        choice: Choice,
        store: &Store,
        driver: &mut D,
    ) -> Result<LaneRun, BenchError> {
        let mut meter = Meter::start(limits, store, driver);
        let mut next = 0;
        'all: while !meter.is_over() {
            for _ in 0..WRITES_PER_LOOK {
                let key = match choice {
                    Choice::Each if next == index.keys() => break 'all,
                    Choice::Each => next,
                    Choice::Random(skew) => self.pick(skew, index.keys()),
                };
                next += 1;
                let began = Instant::now();
                if !self.write(key, index, store, driver)? {
                    meter.is_full = true;
                    break 'all;
                }
                meter.latency(began.elapsed());
                meter.count();
            }
        }
        Ok(meter.stop(self.record_bytes as u64, store, driver, Vec::new()))
    }

    fn pick(&mut self, skew: Skew, keys: usize) -> usize {
        let hot = (keys / 10).max(1);
        match skew {
            Skew::NineToOne if keys > hot && self.random.below(10) == 0 => {
                hot + self.random.below(keys - hot)
            }
            Skew::NineToOne => self.random.below(hot),
            Skew::Uniform => self.random.below(keys),
        }
    }

    /// Writes the next version of a value. False: the store is full.
    fn write<D: Driver>(
        &mut self,
        key: usize,
        index: &Index,
        store: &Store,
        driver: &mut D,
    ) -> Result<bool, BenchError> {
        let Some(mut room) = driver.reserve(store, self.record_bytes)? else { return Ok(false) };
        // From the commit on it may be asked for, so the lock comes first.
        let mut entry = index.entry(self.number, key);
        let version = entry.version.wrapping_add(1);
        let payload = self.payloads[usize::from(self.number)].of(number(self.number, key, version));
        room.payload_mut().copy_from_slice(payload);
        let ticket = room.commit();
        let old = std::mem::replace(&mut *entry, Entry { address: Some(ticket.address()), version });
        drop(entry);
        driver.committed(ticket.frame())?;
        match old.address.map(|old| store.release(old, self.record_bytes)) {
            // It was found dead and cleaned away before it was said to be.
            None | Some(Ok(()) | Err(SpaceError::Place(ReadError::Reclaimed { .. }))) => Ok(true),
            Some(Err(error)) => Err(error.into()),
        }
    }

    /// Reads each of the lane's values, and compares it with what was written last.
    pub fn check<D: Driver>(
        &mut self,
        index: &Arc<Index>,
        in_flight: usize,
        store: &Store,
        driver: &mut D,
    ) -> Result<LaneRun, BenchError> {
        let limits = Limits { time: std::time::Duration::MAX, records: u64::MAX };
        let meter = Meter::start(limits, store, driver);
        let bytes = self.record_bytes as u64;
        let mut checks = Checks { lane: self, store, index, meter, next: 0, again: Vec::new() };
        keep_in_flight(driver, in_flight, &mut checks)?;
        let Checks { meter, .. } = checks;
        Ok(meter.stop(bytes, store, driver, Vec::new()))
    }
}

/// Reads of all values.
struct Checks<'a> {
    lane: &'a mut Lane,
    store: &'a Store,
    index: &'a Index,
    meter: Meter,
    next: usize,
    /// Values that cleaning moved while they were read.
    again: Vec<usize>,
}

impl Checks<'_> {
    fn has_moved(&self, key: usize, entry: &Entry) -> bool {
        self.index.entry(self.lane.number, key).address != entry.address
    }
}

impl<D: Driver> Operations<D> for Checks<'_> {
    type Future = Reading;
    type Expected = (usize, Entry);

    fn begin(&mut self, _driver: &mut D) -> Begun<Reading, Self::Expected> {
        while let Some(key) =
            self.again.pop().or_else(|| (self.next < self.index.keys()).then_some(self.next))
        {
            self.next += usize::from(key == self.next);
            let entry = *self.index.entry(self.lane.number, key);
            let Some(address) = entry.address else { continue };
            match self.store.read_async(address) {
                Ok(reading) => return Ok(Some((reading, (key, entry)))),
                Err(ReadError::Busy { .. }) => {
                    self.again.push(key);
                    return Ok(None);
                }
                Err(ReadError::Reclaimed { .. }) if self.has_moved(key, &entry) => self.again.push(key),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    fn is_over(&mut self) -> bool {
        self.again.is_empty() && self.next == self.index.keys()
    }

    fn end(
        &mut self,
        output: Result<Bytes, ReadError>,
        (key, entry): Self::Expected,
        began: Instant,
    ) -> Result<(), BenchError> {
        let lane = self.lane.number;
        let payload = match output {
            Err(ReadError::Reclaimed { .. }) if self.has_moved(key, &entry) => {
                self.again.push(key);
                return Ok(());
            }
            output => output?,
        };
        self.meter.latency(began.elapsed());
        let number = number(lane, key, entry.version);
        if payload != self.lane.payloads[usize::from(lane)].of(number) {
            let address = entry.address.unwrap_or(corelog::Address::from_bits(0));
            return Err(BenchError::Damage { address, lane, number });
        }
        self.meter.count();
        Ok(())
    }
}
