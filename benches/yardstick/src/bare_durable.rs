//! Durable groups: all records that wait go into one write, which is made durable before the next group begins.

use crate::{
    error::{RunError, bounded},
    figures::{Figures, Latencies},
    frame::{Framer, Shape},
    limits::{FRAMES_READ_BACK_MAX, RUN_MS_MAX, WAITERS_MAX},
    payload::Payload,
    pinning::Pinning,
    ring::{BufferIndex, Done, Ring, Write},
    space::{Ground, Space},
    workers::run_together,
};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

/// How a group is made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum SyncBy {
    /// A write and an fdatasync linked to it, both by the ring.
    LinkedFsync,
    /// A write by the ring, then fdatasync called by the thread itself.
    Fdatasync,
    /// One write with `RWF_DSYNC`.
    DsyncWrite,
}

impl SyncBy {
    /// All of them, to be compared.
    pub const ALL: [Self; 3] = [Self::LinkedFsync, Self::Fdatasync, Self::DsyncWrite];
}

/// Options of the durable yardstick; [`BareDurable::prepare`] makes its file.
#[derive(Debug, Clone)]
pub struct BareDurable {
    /// What is in it is lost.
    pub path: PathBuf,
    /// Payload of one record, in bytes.
    pub record_bytes: usize,
    /// Bytes of the file; groups begin again at its start when it is full.
    pub file_bytes: u64,
    /// The state of its space when it is prepared.
    pub space: Space,
    /// Where the issuer runs.
    pub pinning: Pinning,
}

impl BareDurable {
    /// Records of 256 bytes in 256 MiB of pre-written space.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self {
            path,
            record_bytes: 256,
            file_bytes: 256 << 20,
            space: Space::PreWritten,
            pinning: Pinning::From(0),
        }
    }

    /// Makes the file.
    pub fn prepare(self) -> Result<PreparedDurable, RunError> {
        Shape::group(self.record_bytes, 1)?;
        let ground = Ground::prepare(&self.path, self.file_bytes, self.space)?;
        Ok(PreparedDurable { options: self, ground, runs: 0 })
    }
}

/// The durable yardstick with its file. The file stays when it is dropped.
pub struct PreparedDurable {
    pub(crate) options: BareDurable,
    pub(crate) ground: Ground,
    pub(crate) runs: u64,
}

impl PreparedDurable {
    /// Runs for `duration` with `waiters` records in each group, and reads the last groups back.
    ///
    /// Latency is taken from before the first record of a group is copied until the group is durable, and counts
    /// once for each record.
    pub fn run(&mut self, waiters: u64, sync_by: SyncBy, duration: Duration) -> Result<Figures, RunError> {
        bounded("waiters", waiters, 1..=WAITERS_MAX)?;
        bounded("milliseconds", duration.as_millis() as u64, 1..=RUN_MS_MAX)?;
        let shape = Shape::group(self.options.record_bytes, waiters)?;
        bounded("file_bytes", self.ground.bytes, shape.full_frame_bytes()..=u64::MAX)?;
        self.runs += 1;
        let payload = || Payload::new(self.options.record_bytes, self.runs);
        let set_up = |_| {
            let ring = Ring::new(&self.ground.file, 1, shape.buffer_bytes)?;
            let latencies = Latencies::new();
            Ok(Issuer { ring, shape, ground: &self.ground, payload: payload(), latencies, groups: 0 })
        };
        let work = |issuer: &mut Issuer<'_>| {
            let deadline = Instant::now() + duration;
            while Instant::now() < deadline {
                issuer.group(sync_by)?;
            }
            Ok(())
        };
        let conclude = |issuer: Issuer<'_>| Ok((issuer.groups, issuer.latencies.summary()));
        let (outcomes, span) = run_together(1, self.options.pinning, set_up, work, conclude)?;
        let (groups, latency) = outcomes.into_iter().next().unwrap_or_default();
        self.check_last(&shape, groups, &mut payload())?;
        Ok(Figures {
            records: groups * waiters,
            payload_bytes: groups * waiters * self.options.record_bytes as u64,
            seconds: span.seconds,
            cpu_seconds: span.cpu_seconds,
            device_writes: groups,
            device_bytes: groups * shape.full_frame_bytes(),
            syncs: groups,
            latency,
            ..Figures::default()
        })
    }

    fn check_last(&self, shape: &Shape, groups: u64, payload: &mut Payload) -> Result<(), RunError> {
        let in_file = self.ground.bytes / shape.full_frame_bytes();
        let checked = groups.min(in_file).min(FRAMES_READ_BACK_MAX);
        for group in groups - checked..groups {
            let base = group % in_file * shape.full_frame_bytes();
            self.ground.check_frame(shape, group, base, shape.records_per_frame, payload)?;
        }
        Ok(())
    }
}

struct Issuer<'a> {
    ring: Ring,
    shape: Shape,
    ground: &'a Ground,
    payload: Payload,
    latencies: Latencies,
    groups: u64,
}

impl Issuer<'_> {
    /// One group, durable when it returns.
    fn group(&mut self, sync_by: SyncBy) -> Result<(), RunError> {
        let buffer = BufferIndex(0);
        let started = Instant::now();
        let in_file = self.ground.bytes / self.shape.full_frame_bytes();
        let base = self.groups % in_file * self.shape.full_frame_bytes();
        let mut framer = Framer::new(self.ring.bytes_mut(buffer)?, base);
        let first = self.groups * self.shape.records_per_frame;
        for number in first..first + self.shape.records_per_frame {
            framer.append(self.payload.stamp(number));
        }
        let bytes = framer.finish(self.groups);
        match sync_by {
            SyncBy::LinkedFsync => {
                self.ring.write(buffer, bytes, base, Write::Linked)?;
                self.ring.sync()?;
                self.reap_all(2)?;
            }
            SyncBy::Fdatasync => {
                self.ring.write(buffer, bytes, base, Write::Plain)?;
                self.reap_all(1)?;
                self.ground.sync()?;
            }
            SyncBy::DsyncWrite => {
                self.ring.write(buffer, bytes, base, Write::Durable)?;
                self.reap_all(1)?;
            }
        }
        self.groups += 1;
        self.latencies.add(started.elapsed(), self.shape.records_per_frame);
        Ok(())
    }

    fn reap_all(&mut self, operations: usize) -> Result<(), RunError> {
        while self.ring.in_flight() > 0 {
            self.ring.submit_and_wait(operations)?;
            while let Some(done) = self.ring.reap() {
                let (Done::Transfer(_) | Done::Sync) = done?;
            }
        }
        Ok(())
    }
}
