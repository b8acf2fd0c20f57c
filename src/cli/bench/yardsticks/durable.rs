//! Appends that each wait until they are durable, against groups that a bare loop writes and syncs, and against fio's
//! DSYNC writes where fio is installed.

use super::{
    super::{
        error::BenchError,
        figures::{Limits, WorkloadReport},
        session::{LaneOptions, Session},
        work::Work,
    },
    Comparison, Files,
    verdict::{Pairs, Target, Verdicts},
};
use corelog_yardstick::{BareDurable, Figures, PreparedDurable, SyncBy, fio};

const RECORD_BYTES: usize = 256;
const WAITING: [usize; 3] = [1, 16, 128];
const FILE_BYTES: u64 = 256 << 20;
/// Of the log that one run writes at most: a slot for each group, at more groups a second than any device syncs.
const RUN_BYTES_MAX: u64 = 1 << 30;
const RATIO_MIN: f64 = 0.95;
const P99_RATIO_MAX: f64 = 1.3;
/// Of fio, for an append by another thread than the one that drives the core: there and back it is woken twice.
const HOSTED_RATIO_MIN: f64 = 0.8;
/// Bytes of fio's writes: a slot.
const FIO_BLOCK_BYTES: u64 = 4096;

pub(super) fn run(how: &Comparison<'_>, found: &mut Verdicts) -> Result<(), BenchError> {
    let runs = (how.repeats * (WAITING.len() + 1)) as u64;
    let ground = how.ground(runs * how.bytes(RUN_BYTES_MAX / 4), 1)?;
    let files = Files::beside(&ground, 1)?;
    let file_bytes = how.bytes(FILE_BYTES).clamp(1 << 20, FILE_BYTES);
    let mut bare =
        BareDurable { file_bytes, pinning: how.pinning(&ground.path), ..BareDurable::new(files.first()) }
            .prepare()?;
    let options = how.options.clone().cores(1);
    let session = Session::open(&ground.path, &options, how.lanes(&ground, RECORD_BYTES))?;
    let records = how.args.bytes.map_or(u64::MAX, |bytes| (bytes.0 / RECORD_BYTES as u64).max(1));
    let limits = Limits { time: how.time(), records };
    for waiting in WAITING {
        let (mut rate, mut p99) = (Pairs::default(), Pairs::default());
        let mut against = "bare loop";
        for _ in 0..how.repeats {
            let (lanes, cpu) = session.run(&Work::Durable { limits, in_flight: waiting })?;
            let ours = WorkloadReport::new("durable", String::new(), &lanes, cpu).total;
            let (bound, by) = bound(&mut bare, how, &files, file_bytes, waiting)?;
            against = by;
            rate.add(ours.records_per_s, bound.records_per_s());
            if let (Some(ours), Some(bound)) = (ours.latency_us, bound.latency) {
                p99.add(ours.p99, bound.us_p99);
            }
        }
        let name = format!("durable acks, {RECORD_BYTES} B, {waiting} waiting");
        found.add(name.clone(), "acks/s", against, rate, Target::AtLeast(RATIO_MIN));
        found.add(format!("{name}, p99"), "us", against, p99, Target::AtMost(P99_RATIO_MAX));
    }
    session.close()?;
    let lanes = LaneOptions { hosted: true, session: 1, ..how.lanes(&ground, RECORD_BYTES) };
    let session = Session::open(&ground.path, &options, lanes)?;
    let (mut rate, mut against) = (Pairs::default(), "bare loop");
    for _ in 0..how.repeats {
        let (lanes, cpu) = session.run(&Work::Durable { limits, in_flight: 1 })?;
        let ours = WorkloadReport::new("durable", String::new(), &lanes, cpu).total;
        let (bound, by) = bound(&mut bare, how, &files, file_bytes, 1)?;
        against = by;
        rate.add(ours.records_per_s, bound.records_per_s());
    }
    let name = format!("durable acks, {RECORD_BYTES} B, 1 waiting, hosted");
    found.add(name, "acks/s", against, rate, Target::AtLeast(HOSTED_RATIO_MIN));
    session.close()
}

/// With one waiter fio's DSYNC writes are nearer to the device than a loop through a ring; else the best of the ways to
/// sync.
fn bound(
    bare: &mut PreparedDurable,
    how: &Comparison<'_>,
    files: &Files,
    file_bytes: u64,
    waiting: usize,
) -> Result<(Figures, &'static str), BenchError> {
    if waiting == 1 {
        let (path, duration) = (files.first(), how.time());
        let job = fio::Job::Durable { path, file_bytes, block_bytes: FIO_BLOCK_BYTES, duration };
        if let Some(found) = fio::run(&job, how.pinning(&files.first()))? {
            return Ok((found, "fio, DSYNC"));
        }
    }
    let each = how.time() / SyncBy::ALL.len() as u32;
    let mut best: Option<Figures> = None;
    for sync_by in SyncBy::ALL {
        let found = bare.run(waiting as u64, sync_by, each)?;
        if best.as_ref().is_none_or(|best| found.records_per_s() > best.records_per_s()) {
            best = Some(found);
        }
    }
    Ok((best.unwrap_or_default(), "bare loop"))
}
