//! What a perfect shard could do: frame, checksum, copy, and each full buffer written by io_uring.

use crate::{
    error::{RunError, bounded},
    figures::Figures,
    frame::{Framer, Shape},
    limits::RECORDS_MAX,
    payload::Payload,
    pinning::Pinning,
    ring::{BufferIndex, Ring, Write},
    space::{Ground, Space},
    workers::run_together,
};
use corelog_shards::limits::{BUFFER_BYTES_DEFAULT, RING_BUFFERS_DEFAULT, RING_BUFFERS_MAX};
use std::path::PathBuf;

/// Options of the bare loop; [`BareLoop::prepare`] makes its files.
#[derive(Debug, Clone)]
pub struct BareLoop {
    /// A file for each thread. What is in them is lost.
    pub paths: Vec<PathBuf>,
    /// Payload of one record, in bytes.
    pub record_bytes: usize,
    /// Payload of all threads together, in bytes; rounded up to whole records for each.
    pub total_bytes: u64,
    /// The state of the files' space when a run begins.
    pub space: Space,
    /// Buffers of a thread.
    pub buffers: u32,
    /// Bytes of a buffer.
    pub buffer_bytes: usize,
    /// Most writes in flight in one thread.
    pub depth: u32,
    /// Where the threads run.
    pub pinning: Pinning,
}

impl BareLoop {
    /// Pinned threads with 8 buffers of 256 KiB and up to 8 writes in flight.
    #[must_use]
    pub const fn new(paths: Vec<PathBuf>, record_bytes: usize, total_bytes: u64, space: Space) -> Self {
        Self {
            paths,
            record_bytes,
            total_bytes,
            space,
            buffers: RING_BUFFERS_DEFAULT,
            buffer_bytes: BUFFER_BYTES_DEFAULT as usize,
            depth: RING_BUFFERS_DEFAULT,
            pinning: Pinning::From(0),
        }
    }

    /// Makes the files, long enough for the run.
    pub fn prepare(self) -> Result<PreparedLoop, RunError> {
        let shape = Shape::new(self.record_bytes, self.buffer_bytes)?;
        bounded("paths", self.paths.len() as u64, 1..=u64::from(u16::MAX))?;
        bounded("buffers", u64::from(self.buffers), 1..=u64::from(RING_BUFFERS_MAX))?;
        bounded("depth", u64::from(self.depth), 1..=u64::from(self.buffers))?;
        let records = self.total_bytes.div_ceil(self.paths.len() as u64).div_ceil(self.record_bytes as u64);
        bounded("records of a thread", records, 1..=RECORDS_MAX)?;
        let grounds = self
            .paths
            .iter()
            .map(|path| Ground::prepare(path, shape.log_bytes(records), self.space))
            .collect::<Result<_, _>>()?;
        Ok(PreparedLoop { options: self, shape, records, grounds, runs: 0 })
    }
}

/// A bare loop with its files. The files stay when it is dropped.
pub struct PreparedLoop {
    options: BareLoop,
    shape: Shape,
    /// Of each thread.
    records: u64,
    grounds: Vec<Ground>,
    runs: u64,
}

impl PreparedLoop {
    /// Runs once, from the start of the files, with one fdatasync of each at the end, and reads a sample back.
    pub fn run(&mut self) -> Result<Figures, RunError> {
        if self.options.space == Space::Fallocated && self.runs > 0 {
            self.grounds.iter_mut().try_for_each(Ground::allocate)?;
        }
        self.runs += 1;
        let set_up = |thread: usize| self.lane(thread);
        let (tallies, span) = run_together(
            self.grounds.len(),
            self.options.pinning,
            set_up,
            |lane| lane.append_all(self.records),
            |lane| Ok(lane.tally),
        )?;
        for (thread, ground) in self.grounds.iter().enumerate() {
            ground.check_sample(&self.shape, self.records, &mut self.payload(thread))?;
        }
        let records = self.records * self.grounds.len() as u64;
        Ok(Figures {
            records,
            payload_bytes: records * self.options.record_bytes as u64,
            seconds: span.seconds,
            cpu_seconds: span.cpu_seconds,
            device_writes: tallies.iter().map(|tally| tally.writes).sum(),
            device_bytes: tallies.iter().map(|tally| tally.bytes).sum(),
            syncs: tallies.len() as u64,
            ..Figures::default()
        })
    }

    fn payload(&self, thread: usize) -> Payload {
        Payload::new(self.options.record_bytes, (self.runs << 16) | thread as u64)
    }

    fn lane(&self, thread: usize) -> Result<Lane<'_>, RunError> {
        let ground = &self.grounds[thread];
        Ok(Lane {
            ring: Ring::new(&ground.file, self.options.buffers as u16, self.shape.buffer_bytes)?,
            depth: self.options.depth as usize,
            shape: self.shape,
            ground,
            payload: self.payload(thread),
            tally: Tally::default(),
        })
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    writes: u64,
    bytes: u64,
}

/// One thread with its file.
struct Lane<'a> {
    ring: Ring,
    depth: usize,
    shape: Shape,
    ground: &'a Ground,
    payload: Payload,
    tally: Tally,
}

impl Lane<'_> {
    fn append_all(&mut self, records: u64) -> Result<(), RunError> {
        let (mut number, mut offset) = (0, 0);
        for frame in 0..self.shape.frames(records) {
            let index = self.idle_buffer()?;
            let end = records.min(number + self.shape.records_per_frame);
            let mut framer = Framer::new(self.ring.bytes_mut(index)?, offset);
            while number < end && framer.append(self.payload.stamp(number)) {
                number += 1;
            }
            let bytes = framer.finish(frame);
            self.wait_below(self.depth)?;
            self.ring.write(index, bytes, offset, Write::Plain)?;
            self.ring.submit_and_wait(0)?;
            self.tally.bytes += bytes as u64;
            offset += bytes as u64;
        }
        self.tally.writes += self.ring.drain()?;
        self.ground.sync()
    }

    /// Whichever buffer is idle first: writes may complete in any order.
    fn idle_buffer(&mut self) -> Result<BufferIndex, RunError> {
        loop {
            if let Some(index) = self.ring.idle() {
                return Ok(index);
            }
            self.wait_below(self.ring.in_flight())?;
        }
    }

    fn wait_below(&mut self, most: usize) -> Result<(), RunError> {
        while self.ring.in_flight() >= most.max(1) {
            self.ring.submit_and_wait(1)?;
            while let Some(done) = self.ring.reap() {
                done?;
                self.tally.writes += 1;
            }
        }
        Ok(())
    }
}
