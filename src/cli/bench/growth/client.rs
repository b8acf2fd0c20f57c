//! The client: appends from its own thread to the shards of a store in turn, and trims what it wrote.

use super::{
    super::{error::BenchError, figures::process_cpu, payload::Payload},
    curve::Measured,
};
use corelog::{
    Durability, Route, ShardId, Store, Ticket,
    limits::{BUFFER_BYTES_DEFAULT, record_bytes_max},
};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Of what the store holds, written between two trims, as a divisor: much less than it takes to fill it.
const TRIM_PART: u64 = 8;
/// Small records between two looks at the clock.
const RECORDS_PER_LOOK: u64 = 64;
/// And the bytes that they have at the most.
const BYTES_PER_LOOK: u64 = 1 << 20;
/// Device space that a durable group takes at least.
const SLOT_BYTES: u64 = 4096;

pub struct Client<'s> {
    pub store: &'s Store,
    shards: u16,
    /// Appends so far, which number the records and choose the shard.
    appended: u64,
    /// Of each shard.
    newest: Vec<Option<Ticket<'s>>>,
    /// Device space that was used since the last trim.
    used: u64,
    room: u64,
}

/// When it was begun, and the process's CPU time then.
struct Stopwatch(Instant, Duration);

impl Stopwatch {
    fn start() -> Self {
        Self(Instant::now(), process_cpu())
    }

    fn stop(self, records: u64) -> Measured {
        let cpu = process_cpu().saturating_sub(self.1);
        Measured { records, seconds: self.0.elapsed().as_secs_f64(), cpu_seconds: cpu.as_secs_f64() }
    }
}

impl<'s> Client<'s> {
    pub fn new(store: &'s Store, shards: u32) -> Self {
        let layout = &store.directory().layout;
        let room = u64::from(layout.extents()) * layout.geometry().extent_bytes();
        Self { store, shards: shards as u16, appended: 0, newest: vec![None; shards as usize], used: 0, room }
    }

    /// So many appends, buffered when it returns.
    pub fn records(&mut self, payload: &mut Payload, records: u64) -> Result<Measured, BenchError> {
        let watch = Stopwatch::start();
        for _ in 0..records {
            self.append(payload)?;
        }
        Ok(watch.stop(records))
    }

    /// Appends for so long, all durable at the end.
    pub fn for_a_time(&mut self, payload: &mut Payload, time: Duration) -> Result<Measured, BenchError> {
        let watch = Stopwatch::start();
        let bytes = payload.of(0).len() as u64;
        let per_look = RECORDS_PER_LOOK.min(BYTES_PER_LOOK / bytes.max(1)).max(1);
        let mut records = 0;
        while watch.0.elapsed() < time {
            for _ in 0..per_look {
                self.append(payload)?;
            }
            records += per_look;
        }
        self.make_durable()?;
        Ok(watch.stop(records))
    }

    /// Keeps so many records waiting to be durable.
    pub fn durable(
        &mut self,
        payload: &mut Payload,
        waiting_max: usize,
        time: Duration,
    ) -> Result<Measured, BenchError> {
        let mut waiting: VecDeque<Ticket<'s>> = VecDeque::with_capacity(waiting_max);
        let watch = Stopwatch::start();
        let mut acknowledged = 0;
        while watch.0.elapsed() < time {
            while waiting.len() < waiting_max {
                waiting.push_back(self.append(payload)?);
            }
            self.used += SLOT_BYTES;
            // For all: the newest is asked for, and the oldest waited for.
            if let Some(newest) = waiting.back() {
                self.request(*newest);
            }
            if let Some(oldest) = waiting.front() {
                oldest.wait(Durability::Durable)?;
            }
            while waiting.front().is_some_and(|oldest| oldest.has_reached(Durability::Durable)) {
                waiting.pop_front();
                acknowledged += 1;
            }
        }
        let found = watch.stop(acknowledged);
        self.make_durable()?;
        Ok(found)
    }

    fn append(&mut self, payload: &mut Payload) -> Result<Ticket<'s>, BenchError> {
        let bytes = payload.of(self.appended);
        let shard = (self.appended % u64::from(self.shards)) as u16;
        let route = Route::Shard(ShardId(shard));
        let ticket = if bytes.len() as u64 <= record_bytes_max(BUFFER_BYTES_DEFAULT) {
            self.store.append_to(route, bytes)?
        } else {
            let mut writer = self.store.append_large(route)?;
            writer.append(bytes)?;
            writer.finish()?
        };
        self.used += bytes.len() as u64 + 16;
        self.appended += 1;
        self.newest[usize::from(shard)] = Some(ticket);
        if self.used > self.room / TRIM_PART {
            self.trim()?;
        }
        Ok(ticket)
    }

    /// Frees what lies before the newest record of each shard.
    fn trim(&mut self) -> Result<(), BenchError> {
        let asked = (0..).zip(&self.newest).filter_map(|(shard, newest)| Some((shard, (*newest)?)));
        let asked: Vec<_> =
            asked.map(|(shard, newest)| self.store.trim(ShardId(shard), newest.address())).collect();
        for change in asked {
            change?.wait()?;
        }
        self.used = 0;
        Ok(())
    }

    /// Asks for it to become durable, and does not wait.
    fn request(&self, ticket: Ticket<'_>) {
        if let Some(shard) = self.store.shard(ticket.shard()) {
            shard.request(ticket.frame(), Durability::Durable);
        }
    }

    pub fn make_durable(&mut self) -> Result<(), BenchError> {
        for newest in self.newest.iter().flatten() {
            self.request(*newest);
        }
        for newest in self.newest.iter().flatten() {
            newest.wait(Durability::Durable)?;
        }
        Ok(())
    }
}
