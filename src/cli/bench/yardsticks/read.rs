//! Random reads of single records, against fio where it is installed, else against a bare loop.

use super::{
    super::{error::BenchError, figures::Limits, session::Session, work::Work},
    Comparison, Files, RUN_MAX,
    verdict::{Pairs, Target, Verdicts},
};
use corelog::Durability;
use corelog_yardstick::{BareRead, Figures, PreparedRead, fio};
use std::sync::Arc;

const RECORD_BYTES: usize = 1024;
const IN_FLIGHT: [usize; 3] = [1, 8, 32];
/// Of the log that is read from, when nothing is said.
const BYTES: u64 = 1 << 30;
const RATIO_MIN: f64 = 0.97;
const FIO_BLOCK_BYTES: u64 = 4096;

pub(super) fn run(how: &Comparison<'_>, found: &mut Verdicts) -> Result<(), BenchError> {
    let bytes = how.bytes(BYTES);
    let ground = how.ground(bytes + bytes / 8, 1)?;
    let files = Files::beside(&ground, 1)?;
    let mut bare =
        BareRead { file_bytes: bytes, pinning: how.pinning(&ground.path), ..BareRead::new(files.first()) }
            .prepare()?;
    let options = how.options.clone().cores(1);
    let session = Session::open(&ground.path, &options, how.lanes(&ground, RECORD_BYTES))?;
    let limits = Limits { time: RUN_MAX, records: (bytes / RECORD_BYTES as u64).max(1) };
    let (mut lanes, _) = session.run(&Work::Append { limits, durability: Durability::Durable })?;
    let kept = Arc::new(lanes.iter_mut().flat_map(|lane| std::mem::take(&mut lane.kept)).collect::<Vec<_>>());
    let limits = Limits { time: how.time(), records: u64::MAX };
    for in_flight in IN_FLIGHT {
        let mut rate = Pairs::default();
        let mut against = "bare loop";
        for _ in 0..how.repeats {
            let (lanes, _) = session.run(&Work::Read { limits, in_flight, kept: Arc::clone(&kept) })?;
            let ours = lanes.iter().map(|lane| lane.records as f64 / lane.seconds).sum();
            let (bound, by) = bound(&mut bare, how, &files, in_flight)?;
            against = by;
            rate.add(ours, bound.records_per_s());
        }
        let name = format!("random reads, 1 KiB, {in_flight} under way");
        found.add(name, "reads/s", against, rate, Target::AtLeast(RATIO_MIN));
    }
    session.close()
}

fn bound(
    bare: &mut PreparedRead,
    how: &Comparison<'_>,
    files: &Files,
    in_flight: usize,
) -> Result<(Figures, &'static str), BenchError> {
    let job = fio::Job::RandomRead {
        path: files.first(),
        file_bytes: bare.file_bytes(),
        block_bytes: FIO_BLOCK_BYTES,
        depth: in_flight as u32,
        duration: how.time(),
    };
    Ok(match fio::run(&job, how.pinning(&files.first()))? {
        Some(found) => (found, "fio"),
        None => (bare.run(in_flight as u64, how.time())?, "bare loop"),
    })
}
