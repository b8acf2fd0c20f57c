//! W3: random reads of single records from a log that nothing has cached.

use super::{Keeper, Kept, Setup, settle_host};
use crate::{
    device::drop_page_cache,
    engine::{Engine, Ground, Load, Reader, Writer},
    error::PeerError,
    limits::{IN_FLIGHT, READ_RECORD_BYTES, READ_SPACING_BYTES},
    payload::{Payloads, RecordId, Sequence},
};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Reads to keep under way.
#[derive(Debug, Clone, Copy)]
pub struct InFlight<'work> {
    /// How many at a time.
    pub in_flight: usize,
    /// What to read, in this order, each once.
    pub records: &'work [Kept],
    /// Payload of each.
    pub record_bytes: usize,
    /// When to stop beginning new ones.
    pub time: Duration,
}

/// What became of them. Each was compared with what was appended.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadRun {
    /// Reads done.
    pub reads: u64,
    /// In so many seconds.
    pub seconds: f64,
}

/// Reads a second, for each of [`IN_FLIGHT`].
pub fn run<E: Engine>(setup: &Setup) -> Result<Vec<f64>, PeerError> {
    let of = PeerError::of(E::NAME);
    let folder = setup.ground()?;
    let records = (setup.size / READ_RECORD_BYTES as u64).max(1);
    let ground =
        Ground { folder: folder.path(), writers: 1, load: Load::Driven, payload_bytes: setup.size, records };
    let mut kept = fill::<E>(&ground)?;
    Sequence::new(setup.size).shuffle(&mut kept);
    let mut rates = Vec::new();
    let mut rest = kept.as_slice();
    let shares: usize = (1..=IN_FLIGHT.len()).sum();
    for (index, in_flight) in IN_FLIGHT.into_iter().enumerate() {
        // More for those that read faster; none twice, since engines have caches of their own.
        let (mine, others) = rest.split_at((kept.len() * (index + 1) / shares).min(rest.len()));
        rest = others;
        // Opened anew: what recovery read is not in anybody's cache either.
        let engine = E::open(&ground).map_err(&of)?;
        settle_host(folder.path())?;
        drop_page_cache(folder.path()).map_err(PeerError::host(folder.path()))?;
        let work = InFlight { in_flight, records: mine, record_bytes: READ_RECORD_BYTES, time: setup.time };
        let run = engine.read_in_flight(&work)?;
        rates.push(run.reads as f64 / run.seconds);
        engine.close().map_err(&of)?;
    }
    Ok(rates)
}

/// Fills a log and gives the records that are far enough from each other.
fn fill<E: Engine>(ground: &Ground<'_>) -> Result<Vec<Kept>, PeerError> {
    let of = PeerError::of(E::NAME);
    let engine = E::open(ground).map_err(&of)?;
    let spaced = ground.records.div_ceil((READ_SPACING_BYTES / READ_RECORD_BYTES) as u64);
    let kept = append_all(&engine, ground.records, spaced).map_err(&of)?;
    engine.settle().map_err(&of)?;
    engine.close().map_err(&of)?;
    Ok(kept)
}

/// Appends so many records, syncs, and gives about `most` of them.
pub fn append_all<E: Engine>(engine: &E, records: u64, most: u64) -> Result<Vec<Kept>, crate::error::Fault> {
    let mut payloads = Payloads::new(READ_RECORD_BYTES);
    let mut keeper = Keeper::new(records, most);
    let mut writer = engine.writer(0)?;
    for number in 0..records {
        let id = RecordId { writer: 0, number };
        let place = writer.append(id, payloads.of(id))?;
        keeper.keep(id, place);
    }
    writer.sync()?;
    Ok(keeper.into_kept())
}

/// A thread for each read under way.
pub fn on_threads<E: Engine>(engine: &E, work: &InFlight<'_>) -> Result<ReadRun, PeerError> {
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    let reads = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..work.in_flight).map(|_| scope.spawn(|| read_until(engine, work, &next, began))).collect();
        let ended = threads.into_iter().map(|thread| match thread.join() {
            Ok(reads) => reads,
            Err(_) => Err(PeerError::Died { engine: E::NAME }),
        });
        ended.collect::<Vec<_>>().into_iter().sum::<Result<u64, PeerError>>()
    })?;
    Ok(ReadRun { reads, seconds: began.elapsed().as_secs_f64() })
}

fn read_until<E: Engine>(
    engine: &E,
    work: &InFlight<'_>,
    next: &AtomicUsize,
    began: Instant,
) -> Result<u64, PeerError> {
    let of = PeerError::of(E::NAME);
    let mut payloads = Payloads::new(work.record_bytes);
    let mut found = Vec::with_capacity(work.record_bytes);
    let mut reader = engine.reader().map_err(&of)?;
    let mut reads = 0;
    // Only a counter: the list does not change.
    while let Some(&Kept { id, place }) = work.records.get(next.fetch_add(1, Ordering::Relaxed)) {
        if !reader.read(id, place, &mut found).map_err(&of)? || found != payloads.of(id) {
            return Err(PeerError::Lost { engine: E::NAME, id });
        }
        reads += 1;
        if began.elapsed() >= work.time {
            break;
        }
    }
    Ok(reads)
}
