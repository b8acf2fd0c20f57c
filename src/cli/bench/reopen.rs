//! Opening the store again and again, as a killed process would have left it.

use super::{
    Run,
    error::BenchError,
    figures::Limits,
    report::ReopenReport,
    session::{LaneOptions, Session},
    work::Work,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Times that the store is opened, at most.
const OPENS_MAX: usize = 9;
/// Records of a lane that are read and compared after each open.
const VERIFIED_PER_LANE: u64 = 500;
const VERIFY_TIME: Duration = Duration::from_secs(5);
const VERIFY_IN_FLIGHT: usize = 32;

pub(super) fn run(run: &mut Run<'_>, session: Session) -> Result<(Session, ReopenReport), BenchError> {
    // The superblock of a store that is open says so. Put back after a close, it is all that tells a store that was
    // closed from one whose process was killed when everything was durable.
    let open_superblocks = run.ground.superblocks()?;
    session.close()?;
    let mut report = ReopenReport {
        unclean_seconds: Vec::new(),
        recovery_seconds: Vec::new(),
        clean_seconds: 0.0,
        frames: 0,
        records: 0,
        bytes: 0,
        verified: 0,
    };
    let end = Instant::now() + run.args.duration();
    while report.unclean_seconds.is_empty()
        || (report.unclean_seconds.len() < OPENS_MAX && Instant::now() < end)
    {
        run.ground.put_back(&open_superblocks)?;
        let (session, seconds) = open(run)?;
        report.unclean_seconds.push(seconds);
        note(&mut report, &session);
        report.verified += verify(run, &session)?;
        session.close()?;
    }
    let (session, seconds) = open(run)?;
    report.clean_seconds = seconds;
    report.verified += verify(run, &session)?;
    Ok((session, report))
}

fn open(run: &mut Run<'_>) -> Result<(Session, f64), BenchError> {
    run.how = LaneOptions { session: run.how.session + 1, ..run.how };
    let started = Instant::now();
    let session = Session::open(&run.ground.path, run.options, run.how)?;
    Ok((session, started.elapsed().as_secs_f64()))
}

fn note(report: &mut ReopenReport, session: &Session) {
    let found = session.store.recovery();
    report.recovery_seconds.push(found.seconds);
    report.frames = found.shards.iter().map(|shard| shard.frames).sum();
    report.records = found.shards.iter().map(|shard| shard.records).sum();
    report.bytes = found.shards.iter().map(|shard| shard.bytes).sum();
}

fn verify(run: &Run<'_>, session: &Session) -> Result<u64, BenchError> {
    let limits = Limits { time: VERIFY_TIME, records: VERIFIED_PER_LANE };
    let kept = Arc::clone(&run.kept);
    let (lanes, _) = session.run(&Work::Read { limits, in_flight: VERIFY_IN_FLIGHT, kept })?;
    Ok(lanes.iter().map(|lane| lane.records).sum())
}
