//! Random reads of single records, a fixed number in flight, each record checked.

use crate::{
    error::{RunError, bounded},
    figures::{Figures, Latencies},
    frame::{Framer, Shape, check_record},
    limits::{READS_IN_FLIGHT_MAX, RUN_MS_MAX},
    payload::{Payload, Sequence},
    pinning::Pinning,
    ring::{BufferIndex, Done, Ring, RingError},
    space::Ground,
    workers::run_together,
};
use corelog_shards::limits::{BUFFER_BYTES_DEFAULT, SLOT_BYTES_MIN};
use rustix::fs::{Advice, fadvise};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

/// Options of the read yardstick; [`BareRead::prepare`] makes its file.
#[derive(Debug, Clone)]
pub struct BareRead {
    /// What is in it is lost.
    pub path: PathBuf,
    /// Payload of one record, in bytes.
    pub record_bytes: usize,
    /// Bytes of the file, all of them frames of records.
    pub file_bytes: u64,
    /// Where the reader runs.
    pub pinning: Pinning,
}

impl BareRead {
    /// Records of 1 KiB in a file of 2 GiB.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path, record_bytes: 1 << 10, file_bytes: 2 << 30, pinning: Pinning::From(0) }
    }

    /// Writes the file, past the page cache.
    pub fn prepare(self) -> Result<PreparedRead, RunError> {
        let shape = Shape::new(self.record_bytes, BUFFER_BYTES_DEFAULT as usize)?;
        let frame_bytes = shape.full_frame_bytes();
        bounded("file_bytes", self.file_bytes, frame_bytes..=u64::MAX)?;
        let mut ground = Ground::empty(&self.path, self.file_bytes / frame_bytes * frame_bytes)?;
        let mut payload = Payload::new(self.record_bytes, 0);
        ground.fill(frame_bytes as usize, |bytes, base| {
            let frame = base / frame_bytes;
            let mut framer = Framer::new(bytes, base);
            let first = frame * shape.records_per_frame;
            for number in first..first + shape.records_per_frame {
                framer.append(payload.stamp(number));
            }
            framer.finish(frame);
        })?;
        // The file was written past the cache; should a page of it be there for another reason, it goes. Advice.
        let _advised = fadvise(&ground.file, 0, None, Advice::DontNeed);
        Ok(PreparedRead { options: self, shape, ground, runs: 0 })
    }
}

/// The read yardstick with its file. The file stays when it is dropped.
pub struct PreparedRead {
    options: BareRead,
    shape: Shape,
    ground: Ground,
    runs: u64,
}

impl PreparedRead {
    /// Bytes of the file: whole frames, so it may be a little shorter than asked.
    #[must_use]
    pub const fn file_bytes(&self) -> u64 {
        self.ground.bytes
    }

    /// Reads random records for `duration`, `in_flight` at a time. A read covers the slots that the record touches,
    /// no more: one, or two where it crosses a boundary.
    pub fn run(&mut self, in_flight: u64, duration: Duration) -> Result<Figures, RunError> {
        bounded("in_flight", in_flight, 1..=READS_IN_FLIGHT_MAX)?;
        bounded("milliseconds", duration.as_millis() as u64, 1..=RUN_MS_MAX)?;
        self.runs += 1;
        let set_up = |_| self.reader(in_flight);
        let conclude = |reader: Reader| Ok((reader.reads, reader.device_bytes, reader.latencies.summary()));
        let work = |reader: &mut Reader| reader.run(duration);
        let (outcomes, span) = run_together(1, self.options.pinning, set_up, work, conclude)?;
        let (reads, device_bytes, latency) = outcomes.into_iter().next().unwrap_or_default();
        Ok(Figures {
            records: reads,
            payload_bytes: reads * self.options.record_bytes as u64,
            seconds: span.seconds,
            cpu_seconds: span.cpu_seconds,
            device_reads: reads,
            device_bytes,
            latency,
            ..Figures::default()
        })
    }

    fn reader(&self, in_flight: u64) -> Result<Reader, RunError> {
        let slot = SLOT_BYTES_MIN as usize;
        let covering_most = self.shape.record_with_header().next_multiple_of(slot) + slot;
        Ok(Reader {
            ring: Ring::new(&self.ground.file, in_flight as u16, covering_most)?,
            shape: self.shape,
            records: self.ground.bytes / self.shape.full_frame_bytes() * self.shape.records_per_frame,
            payload: Payload::new(self.options.record_bytes, 0),
            sequence: Sequence::new(self.runs),
            requests: vec![None; in_flight as usize],
            latencies: Latencies::new(),
            reads: 0,
            device_bytes: 0,
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct Request {
    number: u64,
    issued: Instant,
}

struct Reader {
    ring: Ring,
    shape: Shape,
    /// In the file.
    records: u64,
    payload: Payload,
    sequence: Sequence,
    /// By buffer.
    requests: Vec<Option<Request>>,
    latencies: Latencies,
    reads: u64,
    device_bytes: u64,
}

impl Reader {
    fn run(&mut self, duration: Duration) -> Result<(), RunError> {
        let deadline = Instant::now() + duration;
        for buffer in 0..self.requests.len() {
            self.issue(BufferIndex(buffer as u16), Instant::now())?;
        }
        while self.ring.in_flight() > 0 {
            self.ring.submit_and_wait(1)?;
            let now = Instant::now();
            while let Some(done) = self.ring.reap() {
                if let Done::Transfer(buffer) = done? {
                    self.take(buffer, now)?;
                    if now < deadline {
                        self.issue(buffer, now)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn issue(&mut self, buffer: BufferIndex, now: Instant) -> Result<(), RunError> {
        let number = self.sequence.below(self.records);
        let (first, end) = self.covering(number);
        self.ring.read(buffer, (end - first) as usize, first)?;
        self.device_bytes += end - first;
        self.requests[usize::from(buffer.0)] = Some(Request { number, issued: now });
        Ok(())
    }

    /// The slots of record `number`, as bytes of the file.
    fn covering(&self, number: u64) -> (u64, u64) {
        let position = self.shape.position(number);
        let end = position + self.shape.record_with_header() as u64;
        (position - position % SLOT_BYTES_MIN, end.next_multiple_of(SLOT_BYTES_MIN))
    }

    fn take(&mut self, buffer: BufferIndex, now: Instant) -> Result<(), RunError> {
        let request = self.requests[usize::from(buffer.0)].take().ok_or(RingError::Misuse)?;
        let position = self.shape.position(request.number);
        let within = (position % SLOT_BYTES_MIN) as usize;
        let bytes = self.ring.bytes_mut(buffer)?.get(within..).unwrap_or_default();
        check_record(bytes, position, self.payload.stamp(request.number))?;
        self.latencies.add(now - request.issued, 1);
        self.reads += 1;
        Ok(())
    }
}
