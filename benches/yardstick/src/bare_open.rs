//! Durable groups under a load that does not wait for them: all that is due goes into one durable write.

use crate::{
    bare_durable::PreparedDurable,
    error::{RunError, bounded},
    figures::{Figures, Latencies},
    frame::{Framer, Shape},
    limits::{FRAMES_READ_BACK_MAX, RUN_MS_MAX},
    open_loop::{OpenLoop, Served, Service},
    payload::Payload,
    ring::{BufferIndex, Ring, Write},
    workers::run_together,
};
use corelog_shards::limits::BUFFER_BYTES_DEFAULT;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Slowest rate of an open loop, in requests a second.
const RATE_MIN: f64 = 1.0;

impl PreparedDurable {
    /// Runs under an open loop, each group one write with `RWF_DSYNC`, and reads the last groups back. Latency runs from
    /// when each record was due.
    pub fn run_open(&mut self, load: &OpenLoop) -> Result<(Figures, Served), RunError> {
        bounded("milliseconds", load.time.as_millis() as u64, 1..=RUN_MS_MAX)?;
        let load = OpenLoop { rate: load.rate.max(RATE_MIN), ..*load };
        let shape = Shape::new(self.options.record_bytes, BUFFER_BYTES_DEFAULT as usize)?;
        // The last groups may not lie over each other.
        let needed = (FRAMES_READ_BACK_MAX + 1) * shape.full_frame_bytes();
        bounded("file_bytes", self.ground.bytes, needed..=u64::MAX)?;
        self.runs += 1;
        let payload = || Payload::new(self.options.record_bytes, self.runs);
        let set_up = |_| {
            let ring = Ring::new(&self.ground.file, 1, shape.buffer_bytes)?;
            Ok(Groups {
                ring,
                shape,
                payload: payload(),
                file_bytes: self.ground.bytes,
                base: 0,
                gathered: 0,
                groups: 0,
                device_bytes: 0,
                last: VecDeque::with_capacity(FRAMES_READ_BACK_MAX as usize),
                latencies: Latencies::new(),
                started: Instant::now(),
                served: Served::default(),
            })
        };
        let work = |groups: &mut Groups| {
            groups.started = Instant::now();
            groups.served = load.run(groups)?;
            Ok(())
        };
        let (outcomes, span) = run_together(1, self.options.pinning, set_up, work, Ok)?;
        let Some(groups) = outcomes.into_iter().next() else { return Err(RunError::Abandoned) };
        let mut payload = payload();
        for &(group, base, records) in &groups.last {
            self.ground.check_frame(&shape, group, base, records, &mut payload)?;
        }
        let figures = Figures {
            records: groups.served.ended,
            payload_bytes: groups.served.ended * self.options.record_bytes as u64,
            seconds: span.seconds,
            cpu_seconds: span.cpu_seconds,
            device_writes: groups.groups,
            device_bytes: groups.device_bytes,
            syncs: groups.groups,
            latency: groups.latencies.summary(),
            ..Figures::default()
        };
        Ok((figures, groups.served))
    }
}

struct Groups {
    ring: Ring,
    shape: Shape,
    payload: Payload,
    file_bytes: u64,
    /// Where the next group begins.
    base: u64,
    /// Records of the next group.
    gathered: u64,
    groups: u64,
    device_bytes: u64,
    /// The last groups: number, place, records.
    last: VecDeque<(u64, u64, u64)>,
    latencies: Latencies,
    started: Instant,
    served: Served,
}

impl Service for Groups {
    type Error = RunError;

    fn now(&mut self) -> Duration {
        self.started.elapsed()
    }

    fn begin(&mut self) -> Result<bool, RunError> {
        let has_room = self.gathered < self.shape.records_per_frame;
        self.gathered += u64::from(has_room);
        Ok(has_room)
    }

    /// One group, durable when it returns.
    fn work(&mut self) -> Result<u64, RunError> {
        let records = std::mem::take(&mut self.gathered);
        if self.base + self.shape.full_frame_bytes() > self.file_bytes {
            self.base = 0;
        }
        let buffer = BufferIndex(0);
        let mut framer = Framer::new(self.ring.bytes_mut(buffer)?, self.base);
        // Numbers as if every group were full, so that each is known by its group.
        let first = self.groups * self.shape.records_per_frame;
        for number in first..first + records {
            framer.append(self.payload.stamp(number));
        }
        let bytes = framer.finish(self.groups);
        self.ring.write(buffer, bytes, self.base, Write::Durable)?;
        self.ring.drain()?;
        if self.last.len() as u64 == FRAMES_READ_BACK_MAX {
            self.last.pop_front();
        }
        self.last.push_back((self.groups, self.base, records));
        self.base += bytes as u64;
        self.device_bytes += bytes as u64;
        self.groups += 1;
        Ok(records)
    }

    fn end(&mut self, latency: Duration) {
        self.latencies.add(latency, 1);
    }
}
