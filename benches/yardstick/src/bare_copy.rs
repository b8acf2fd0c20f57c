//! Frame, checksum and copy, without a device: the bound of what memory and one core give.

use crate::{
    error::{RunError, bounded},
    figures::Figures,
    frame::{Framer, Shape, check_frame},
    limits::RECORDS_MAX,
    payload::Payload,
    pinning::Pinning,
    workers::run_together,
};
use corelog_shards::{
    limits::{BUFFER_BYTES_DEFAULT, RING_BUFFERS_DEFAULT, RING_BUFFERS_MAX},
    memory::{BufferPool, PooledBuffer},
};

/// Options of the bare copy; [`BareCopy::run`] runs it.
#[derive(Debug, Clone)]
pub struct BareCopy {
    /// Payload of one record, in bytes.
    pub record_bytes: usize,
    /// Records of each thread.
    pub records: u64,
    /// Threads, each with its own buffers.
    pub threads: usize,
    /// Buffers of a thread, filled in turn.
    pub buffers: u32,
    /// Bytes of a buffer.
    pub buffer_bytes: usize,
    /// Where the threads run.
    pub pinning: Pinning,
}

impl BareCopy {
    /// One pinned thread with 8 buffers of 256 KiB, as the engine has them when nothing is said.
    #[must_use]
    pub const fn new(record_bytes: usize, records: u64, threads: usize) -> Self {
        Self {
            record_bytes,
            records,
            threads,
            buffers: RING_BUFFERS_DEFAULT,
            buffer_bytes: BUFFER_BYTES_DEFAULT as usize,
            pinning: Pinning::From(0),
        }
    }

    /// Runs once. Afterwards every record that is still in a buffer is checked.
    pub fn run(&self) -> Result<Figures, RunError> {
        let shape = Shape::new(self.record_bytes, self.buffer_bytes)?;
        bounded("records", self.records, 1..=RECORDS_MAX)?;
        bounded("buffers", u64::from(self.buffers), 1..=u64::from(RING_BUFFERS_MAX))?;
        let set_up = |thread: usize| {
            let pool = BufferPool::new(shape.buffer_bytes, self.buffers as usize)?;
            let buffers: Vec<_> = std::iter::from_fn(|| pool.take(shape.buffer_bytes)).collect();
            Ok(Copier { shape, buffers, payload: Payload::new(self.record_bytes, thread as u64) })
        };
        let work = |copier: &mut Copier| {
            copier.copy(self.records);
            Ok(())
        };
        let conclude = |mut copier: Copier| copier.check(self.records);
        let (_, span) = run_together(self.threads, self.pinning, set_up, work, conclude)?;
        let records = self.records * self.threads as u64;
        Ok(Figures {
            records,
            payload_bytes: records * self.record_bytes as u64,
            seconds: span.seconds,
            cpu_seconds: span.cpu_seconds,
            ..Figures::default()
        })
    }
}

struct Copier {
    shape: Shape,
    buffers: Vec<PooledBuffer>,
    payload: Payload,
}

impl Copier {
    fn copy(&mut self, records: u64) {
        let mut number = 0;
        for frame in 0..self.shape.frames(records) {
            let turn = frame as usize % self.buffers.len();
            let end = records.min(number + self.shape.records_per_frame);
            let buffer = self.buffers[turn].as_mut_slice();
            let mut framer = Framer::new(buffer, frame * self.shape.full_frame_bytes());
            while number < end && framer.append(self.payload.stamp(number)) {
                number += 1;
            }
            std::hint::black_box(framer.finish(frame));
        }
    }

    /// Checks the frames that the buffers still hold: the last ones.
    fn check(&mut self, records: u64) -> Result<(), RunError> {
        let frames = self.shape.frames(records);
        for frame in frames.saturating_sub(self.buffers.len() as u64)..frames {
            let buffer = self.buffers[frame as usize % self.buffers.len()].as_slice();
            let in_frame = self.shape.records_per_frame.min(records - frame * self.shape.records_per_frame);
            let base = frame * self.shape.full_frame_bytes();
            check_frame(buffer, &self.shape, frame, base, in_frame, &mut self.payload)?;
        }
        Ok(())
    }
}
