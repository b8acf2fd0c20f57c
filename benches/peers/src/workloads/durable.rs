//! W2: records that each wait until they are durable.

use super::{Keeper, Kept, Setup, settle_host, verify};
use crate::{
    device::{Device, Flushes},
    engine::{Engine, Ground, Load, Writer},
    error::{Fault, PeerError},
    limits::{DURABLE_RECORD_BYTES, DURABLE_ROOM_BYTES, KEPT_MAX, RATE_MAX},
    payload::{Payloads, RecordId},
};
use hdrhistogram::Histogram;
use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

/// One run's size.
#[derive(Debug, Clone, Copy)]
pub struct Durable {
    /// Acks awaited at a time.
    pub waiting: usize,
    /// By whom.
    pub load: Load,
}

/// What one run found.
#[derive(Debug, Clone, Copy)]
pub struct Acks {
    /// Acks a second.
    pub per_second: f64,
    /// Microseconds from append to ack.
    pub us_p50: f64,
    /// The same of the slowest hundredth.
    pub us_p99: f64,
    /// Flushes of the device for each group that could have waited together: below 1/2 not all acks were durable.
    pub flushes_per_group: Option<f64>,
}

/// What one thread did.
struct Lane {
    acks: u64,
    latency: Histogram<u64>,
    began: Instant,
    ended: Instant,
    kept: Vec<Kept>,
}

impl Durable {
    /// `None`: the library has no way for callers that do not know of each other.
    pub fn run<E: Engine>(self, setup: &Setup, device: &Device) -> Result<Option<Acks>, PeerError> {
        if self.load == Load::Independent && !E::SHARES_LOG {
            return Ok(None);
        }
        let of = PeerError::of(E::NAME);
        let folder = setup.ground()?;
        let payload_bytes = DURABLE_ROOM_BYTES + (setup.time.as_secs_f64() * RATE_MAX as f64) as u64;
        let writers = match self.load {
            Load::Driven => 1,
            Load::Independent => self.waiting,
        };
        let records = payload_bytes / DURABLE_RECORD_BYTES as u64;
        let ground = Ground { folder: folder.path(), writers, load: self.load, payload_bytes, records };
        let engine = E::open(&ground).map_err(&of)?;
        settle_host(folder.path())?;
        let before = device.flushes();
        let lanes = self.lanes(&engine, setup.time, writers)?;
        let flushes = device.flushes().since(before);
        engine.close().map_err(&of)?;
        let kept: Vec<Kept> = lanes.iter().flat_map(|lane| lane.kept.iter().copied()).collect();
        verify::<E>(&ground, DURABLE_RECORD_BYTES, &kept)?;
        Ok(Some(self.acks(&lanes, flushes)))
    }

    fn lanes<E: Engine>(self, engine: &E, time: Duration, writers: usize) -> Result<Vec<Lane>, PeerError> {
        let group = self.waiting / writers;
        let start = Barrier::new(writers);
        thread::scope(|scope| {
            let start = &start;
            let kept = KEPT_MAX / writers as u64;
            let lane = |number| move || lane(engine, number, group as u64, kept, time, start);
            let threads: Vec<_> = (0..writers as u16).map(|number| scope.spawn(lane(number))).collect();
            let ended = threads.into_iter().map(|thread| match thread.join() {
                Ok(lane) => lane.map_err(PeerError::of(E::NAME)),
                Err(_) => Err(PeerError::Died { engine: E::NAME }),
            });
            ended.collect::<Vec<_>>().into_iter().collect()
        })
    }

    fn acks(self, lanes: &[Lane], flushes: Flushes) -> Acks {
        let mut latency = histogram();
        for lane in lanes {
            // Same bounds and digits.
            latency += &lane.latency;
        }
        let began = lanes.iter().map(|lane| lane.began).min();
        let ended = lanes.iter().map(|lane| lane.ended).max();
        let seconds = ended.zip(began).map_or(0.0, |(ended, began)| (ended - began).as_secs_f64());
        let acks: u64 = lanes.iter().map(|lane| lane.acks).sum();
        let groups = acks as f64 / self.waiting as f64;
        let us = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
        Acks {
            per_second: acks as f64 / seconds,
            us_p50: us(0.5),
            us_p99: us(0.99),
            flushes_per_group: flushes.0.map(|flushes| flushes as f64 / groups.max(1.0)),
        }
    }
}

fn histogram() -> Histogram<u64> {
    let mut histogram = Histogram::new(3).expect("three digits are within the bounds");
    histogram.auto(true);
    histogram
}

/// Appends a group and waits for it, again and again; a caller of its own is a group of one.
fn lane<E: Engine>(
    engine: &E,
    number: u16,
    group: u64,
    kept: u64,
    time: Duration,
    start: &Barrier,
) -> Result<Lane, Fault> {
    let writer = engine.writer(number);
    let mut payloads = Payloads::new(DURABLE_RECORD_BYTES);
    // How many there will be is not known: one of so many is enough of the fastest and not too few of the slowest.
    let mut keeper = Keeper::new(KEPT_MAX * group * 8, kept);
    let mut latency = histogram();
    start.wait();
    let mut writer = writer?;
    let mut id = RecordId { writer: number, number: 0 };
    let began = Instant::now();
    let mut now = began;
    while now - began < time {
        for _ in 0..group {
            let place = writer.append(id, payloads.of(id))?;
            keeper.keep(id, place);
            id.number += 1;
        }
        writer.sync()?;
        let acked = Instant::now();
        latency.record_n((acked - now).as_nanos() as u64, group)?;
        now = acked;
    }
    Ok(Lane { acks: id.number, latency, began, ended: now, kept: keeper.into_kept() })
}
