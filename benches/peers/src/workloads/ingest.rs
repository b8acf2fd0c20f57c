//! W1: each thread appends as fast as it can; at the end all is durable, within the time that counts.

use super::{Keeper, Kept, Setup, settle_host, verify};
use crate::{
    engine::{Engine, Ground, Load, Writer},
    error::{Fault, PeerError},
    limits::{APPENDS_PER_LOOK, KEPT_MAX},
    payload::{Payloads, RecordId},
};
use std::{sync::Barrier, thread, time::Instant};

/// One run's size.
#[derive(Debug, Clone, Copy)]
pub struct Ingest {
    /// Payload of a record.
    pub record_bytes: usize,
    /// Threads.
    pub writers: usize,
}

/// What one thread did.
struct Lane {
    records: u64,
    began: Instant,
    ended: Instant,
    kept: Vec<Kept>,
}

impl Ingest {
    /// Megabytes of payload a second.
    pub fn run<E: Engine>(self, setup: &Setup) -> Result<f64, PeerError> {
        let of = PeerError::of(E::NAME);
        let folder = setup.ground()?;
        let records = setup.size / self.record_bytes as u64;
        let ground = Ground {
            folder: folder.path(),
            writers: self.writers,
            load: Load::Driven,
            payload_bytes: setup.size,
            records,
        };
        let engine = E::open(&ground).map_err(&of)?;
        settle_host(folder.path())?;
        let lanes = self.lanes(&engine, setup, records / self.writers as u64)?;
        engine.close().map_err(&of)?;
        let kept: Vec<Kept> = lanes.iter().flat_map(|lane| lane.kept.iter().copied()).collect();
        verify::<E>(&ground, self.record_bytes, &kept)?;
        let began = lanes.iter().map(|lane| lane.began).min();
        let ended = lanes.iter().map(|lane| lane.ended).max();
        let seconds = ended.zip(began).map_or(0.0, |(ended, began)| (ended - began).as_secs_f64());
        let done: u64 = lanes.iter().map(|lane| lane.records).sum();
        Ok((done * self.record_bytes as u64) as f64 / seconds / 1e6)
    }

    fn lanes<E: Engine>(self, engine: &E, setup: &Setup, records: u64) -> Result<Vec<Lane>, PeerError> {
        let start = Barrier::new(self.writers);
        thread::scope(|scope| {
            let start = &start;
            let lane = |number| move || self.lane(engine, setup, number, records, start);
            let threads: Vec<_> = (0..self.writers as u16).map(|number| scope.spawn(lane(number))).collect();
            let ended = threads.into_iter().map(|thread| match thread.join() {
                Ok(lane) => lane.map_err(PeerError::of(E::NAME)),
                Err(_) => Err(PeerError::Died { engine: E::NAME }),
            });
            // All are joined before the first error is told.
            ended.collect::<Vec<_>>().into_iter().collect()
        })
    }

    fn lane<E: Engine>(
        self,
        engine: &E,
        setup: &Setup,
        number: u16,
        records: u64,
        start: &Barrier,
    ) -> Result<Lane, Fault> {
        let writer = engine.writer(number);
        let mut payloads = Payloads::new(self.record_bytes);
        let mut keeper = Keeper::new(records, KEPT_MAX);
        // Whatever became of the writer: the others wait here too.
        start.wait();
        let mut writer = writer?;
        let mut id = RecordId { writer: number, number: 0 };
        let began = Instant::now();
        while id.number < records {
            for _ in 0..APPENDS_PER_LOOK.min(records - id.number) {
                let place = writer.append(id, payloads.of(id))?;
                keeper.keep(id, place);
                id.number += 1;
            }
            if began.elapsed() >= setup.time {
                break;
            }
        }
        writer.sync()?;
        Ok(Lane { records: id.number, began, ended: Instant::now(), kept: keeper.into_kept() })
    }
}
