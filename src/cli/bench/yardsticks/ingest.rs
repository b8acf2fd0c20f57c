//! Appends that are durable at the end, against bare loops with the same buffers, depth and checksum.

use super::{
    super::{error::BenchError, figures::Limits, session::Session, work::Work},
    Comparison, Files, RUN_MAX, on_cores,
    verdict::{Pairs, Target, Verdicts},
};
use crate::cli::output::bytes;
use corelog::Durability;
use corelog_yardstick::{BareLoop, Space};

const RECORD_BYTES: [usize; 4] = [64, 256, 1024, 4096];
/// Payload of one run of all cores, when nothing is said.
const BYTES: u64 = 512 << 20;
/// Header and padding of a record, at most.
const RECORD_OVERHEAD: u64 = 16;
const RATIO_MIN: f64 = 0.95;
const CPU_RATIO_MAX: f64 = 1.2;

pub(super) fn run(how: &Comparison<'_>, found: &mut Verdicts) -> Result<(), BenchError> {
    for count in how.core_counts() {
        for record_bytes in RECORD_BYTES {
            pair(how, found, count, record_bytes)?;
        }
    }
    Ok(())
}

fn pair(
    how: &Comparison<'_>,
    found: &mut Verdicts,
    count: u32,
    record_bytes: usize,
) -> Result<(), BenchError> {
    let payload_bytes = how.bytes(BYTES);
    let all_records = payload_bytes / record_bytes as u64;
    let log_bytes = payload_bytes + all_records * RECORD_OVERHEAD;
    let ground = how.ground((log_bytes + log_bytes / 8) * (how.repeats as u64 + 1), count)?;
    let files = Files::beside(&ground, count)?;
    let bare = BareLoop::new(files.paths(), record_bytes, payload_bytes, Space::PreWritten);
    let mut bare = BareLoop { pinning: how.pinning(&ground.path), ..bare }.prepare()?;
    let options = how.options.clone().cores(count);
    let session = Session::open(&ground.path, &options, how.lanes(&ground, record_bytes))?;
    let records = (all_records / u64::from(count)).max(1);
    let work = Work::Append { limits: Limits { time: RUN_MAX, records }, durability: Durability::Durable };
    let (mut rate, mut cost) = (Pairs::default(), Pairs::default());
    for _ in 0..how.repeats {
        let (lanes, cpu) = session.run(&work)?;
        let seconds = lanes.iter().map(|lane| lane.seconds).fold(0.0, f64::max);
        let payload: u64 = lanes.iter().map(|lane| lane.payload_bytes).sum();
        let done: u64 = lanes.iter().map(|lane| lane.records).sum();
        let bound = bare.run()?;
        rate.add(payload as f64 / seconds / 1e6, bound.mb_per_s());
        cost.add(cpu.as_nanos() as f64 / done.max(1) as f64, bound.cpu_ns_per_record());
    }
    session.close()?;
    let name = format!("append, {}, {}", bytes(record_bytes as u64), on_cores(count));
    found.add(name.clone(), "MB/s", "bare loop", rate, Target::AtLeast(RATIO_MIN));
    found.add(format!("{name}, CPU"), "ns/record", "bare loop", cost, Target::AtMost(CPU_RATIO_MAX));
    Ok(())
}
