//! Opening a store as a killed process leaves it: without a checkpoint against reading all of it, with checkpoints
//! against a fixed time.

use super::{
    super::{
        error::BenchError,
        figures::Limits,
        session::{LaneOptions, Session},
        work::Work,
    },
    Comparison, Files, RUN_MAX,
    verdict::{Pairs, Target, Verdicts},
};
use corelog::{Durability, Options, limits::CHECKPOINT_BYTES_MAX};
use corelog_yardstick::BareRead;
use std::time::Instant;

const RECORD_BYTES: usize = 1024;
/// Of the log that is opened, when nothing is said.
const BYTES: u64 = 1 << 30;
/// Reads that come near to the sequential rate of a device: long ones, several under way.
const READ_BYTES: usize = 128 << 10;
const READS_IN_FLIGHT: u64 = 8;
const RATIO_MIN: f64 = 0.9;
/// What opening may take with checkpoints, in milliseconds.
const WITH_CHECKPOINT_MS: f64 = 50.0;

pub(super) fn run(how: &Comparison<'_>, found: &mut Verdicts) -> Result<(), BenchError> {
    let bytes = how.bytes(BYTES);
    let log_bytes = bytes + bytes / 8;
    {
        let ground = how.ground(log_bytes, 1)?;
        let files = Files::beside(&ground, 1)?;
        let bare = BareRead {
            record_bytes: READ_BYTES,
            file_bytes: bytes.max(1 << 20),
            pinning: how.pinning(&ground.path),
            ..BareRead::new(files.first())
        };
        let mut bare = bare.prepare()?;
        let options = how.options.clone().checkpoint_bytes(CHECKPOINT_BYTES_MAX);
        let mut rate = Pairs::default();
        reopened(how, ground, &options, bytes, |seconds, log| {
            let bound = bare.run(READS_IN_FLIGHT, how.time())?;
            rate.add(log as f64 / seconds / 1e6, bound.device_bytes as f64 / bound.seconds / 1e6);
            Ok(())
        })?;
        let name = "reopen after a kill, no checkpoint".to_owned();
        found.add(name, "MB/s", "reads of 128 KiB", rate, Target::AtLeast(RATIO_MIN));
    }
    let ground = how.ground(log_bytes, 1)?;
    let mut time = Pairs::default();
    reopened(how, ground, how.options, bytes, |seconds, _| {
        time.add(seconds * 1e3, WITH_CHECKPOINT_MS);
        Ok(())
    })?;
    let name = "reopen after a kill, with checkpoints".to_owned();
    found.add(name, "ms", "the limit", time, Target::AtMost(1.0));
    Ok(())
}

/// Fills a store, and opens it again and again as a kill leaves it. Each is told with its seconds and the log's bytes.
fn reopened(
    how: &Comparison<'_>,
    ground: super::Ground,
    options: &Options,
    bytes: u64,
    mut each: impl FnMut(f64, u64) -> Result<(), BenchError>,
) -> Result<(), BenchError> {
    let options = options.clone().cores(1);
    let lanes = how.lanes(&ground, RECORD_BYTES);
    let session = Session::open(&ground.path, &options, lanes)?;
    let limits = Limits { time: RUN_MAX, records: (bytes / RECORD_BYTES as u64).max(1) };
    session.run(&Work::Append { limits, durability: Durability::Durable })?;
    // That of an open store: put back, it is all that tells a closed store from a killed one.
    let open = ground.superblocks()?;
    session.close()?;
    for index in 0..how.repeats {
        ground.put_back(&open)?;
        let started = Instant::now();
        let again = LaneOptions { session: index as u64 + 1, ..lanes };
        let session = Session::open(&ground.path, &options, again)?;
        let seconds = started.elapsed().as_secs_f64();
        let log = session.store.recovery().shards.iter().map(|shard| shard.bytes).sum();
        session.close()?;
        each(seconds, log)?;
    }
    Ok(())
}
