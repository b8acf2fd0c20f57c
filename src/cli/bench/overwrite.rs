//! Values that are written over and over while cleaning makes the room, and what that costs beside what theory says.
//!
//! First each value is written once, then values are written over until as much was written as the store holds: only
//! then is the mixture of live and dead what it stays. What is measured comes after that. At the end every value is
//! read and compared.

mod index;
mod lane;
mod theory;

use super::{
    error::BenchError,
    figures::{LaneRun, Limits, WorkloadReport},
    ground::Ground,
    report::Report,
    session::Session,
    work::Work,
};
use crate::cli::{
    args::{Bench, Skew},
    output::{bytes, count},
};
use corelog::{
    Options, RecordOwner, Stats, StoreStats,
    limits::{BUFFER_BYTES_DEFAULT, BUFFER_BYTES_MIN},
};
use corelog_shards::format::record::record_bytes;
pub use index::Index;
pub use lane::Choice;
use serde::Serialize;
use std::{fmt, sync::Arc, time::Duration};

/// Extents of a shard: many, as theory has it.
pub const EXTENTS_PER_SHARD: u64 = 128;
/// Buffers of an extent: the last one of an extent is not full, and theory knows nothing of that.
const BUFFERS_PER_EXTENT: u64 = 32;
/// Each record has an entry of 32 bytes in memory.
const RECORD_BYTES_MIN: u64 = 256;

/// What it came to.
#[derive(Debug, Serialize)]
pub struct OverwriteReport {
    /// Live records, in percent of the extents.
    pub live_percent: u8,
    pub skew: &'static str,
    pub policy: &'static str,
    /// Values, each with one live record.
    pub values: u64,
    pub extents: u64,
    pub extent_bytes: u64,
    /// While it was measured: of each shard, and of all.
    pub stats: StoreStats,
    /// Bytes written to the device for each byte of payload.
    pub write_amplification: f64,
    /// Bytes that cleaning read and wrote for each byte of payload.
    pub cleaning_cost: f64,
    /// Live share of the extents that were cleaned, headers and lists of the copies included.
    pub victims_live: f64,
    pub theory: Theory,
    /// Values that were read and compared at the end.
    pub verified: u64,
}

/// For uniform overwrites, emptiest extent first.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Theory {
    /// Extents that are full of records: without the reserve, what cleaning keeps free, and what shards have open.
    pub full_extents: f64,
    /// Live share of those.
    pub occupancy: f64,
    pub victims_live: f64,
    /// With the headers of records.
    pub write_amplification: f64,
}

/// What the store of this workload is opened with, where nothing else was said.
pub fn options(args: &Bench, options: &Options, ground: &Ground) -> Result<Options, BenchError> {
    if args.record.0 < RECORD_BYTES_MIN {
        return Err(BenchError::RecordTooSmall { bytes: args.record.0, min: RECORD_BYTES_MIN });
    }
    let largest = (ground.extent_bytes / BUFFERS_PER_EXTENT).clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_DEFAULT);
    let buffer =
        options.buffer_bytes.unwrap_or(largest.max(record_bytes(2 * args.record.0).next_power_of_two()));
    Ok(options
        .clone()
        .buffer_bytes(buffer)
        .clean_policy(args.overwrite.policy.into())
        .cold_shards(args.overwrite.cold_shards))
}

/// Runs the workload.
pub fn run(args: &Bench, ground: &Ground, session: &Session, report: &mut Report) -> Result<(), BenchError> {
    let told = args.overwrite;
    let lanes = session.lanes() as u64;
    let stride = record_bytes(args.record.0);
    let keys = ground.room / 100 * u64::from(told.live) / stride / lanes;
    let index = Arc::new(Index::new(session.lanes(), keys));
    let values = index.keys() as u64 * lanes;
    session.store.clean_with(Arc::clone(&index) as Arc<dyn RecordOwner>)?;

    let forever = |records| Limits { time: Duration::MAX, records };
    let overwrite = |limits, choice| -> Result<(Vec<LaneRun>, Duration), BenchError> {
        let work = Work::Overwrite { limits, index: Arc::clone(&index), choice };
        let (lanes, cpu) = session.run(&work)?;
        let is_full = lanes.iter().any(|lane| lane.is_full);
        if is_full { Err(BenchError::TooMuchAlive { live: told.live }) } else { Ok((lanes, cpu)) }
    };
    overwrite(forever(u64::MAX), Choice::Each)?;
    overwrite(forever(ground.room / stride / lanes), Choice::Random(told.skew))?;
    let before = session.store.stats();
    let asked = args.bytes.map_or(u64::MAX, |bytes| bytes.0.div_ceil(args.record.0) / lanes);
    let limits =
        Limits { time: if args.bytes.is_some() { Duration::MAX } else { args.duration() }, records: asked };
    let (runs, cpu) = overwrite(limits, Choice::Random(told.skew))?;
    let stats = since(&session.store.stats(), &before);
    let (checks, _) =
        session.run(&Work::Check { index: Arc::clone(&index), in_flight: args.in_flight.get() as usize })?;
    let verified = checks.iter().map(|lane| lane.records).sum();

    let what = format!("values of {}, {}", bytes(args.record.0), of_skew(told.skew));
    report.workloads.push(WorkloadReport::new("overwrite", what, &runs, cpu));
    report.overwrite = Some(of_stats(args, ground, session, stats, values, verified));
    Ok(())
}

fn since(now: &StoreStats, before: &StoreStats) -> StoreStats {
    let mut now = now.clone();
    for (shard, before) in now.shards.iter_mut().zip(&before.shards) {
        shard.stats = shard.stats.since(&before.stats);
    }
    now.total = now.total.since(&before.total);
    now.reads = now.reads.since(&before.reads);
    now
}

fn of_stats(
    args: &Bench,
    ground: &Ground,
    session: &Session,
    stats: StoreStats,
    values: u64,
    verified: u64,
) -> OverwriteReport {
    let stride = record_bytes(args.record.0);
    let extents = &session.store.directory().extents;
    let options = session.store.options();
    let room = theory::Room {
        extents: f64::from(extents.len()),
        reserve: extents.reserve() as f64,
        free: f64::from(extents.len()) * f64::from(options.clean_low_percent + options.clean_high_percent)
            / 200.0,
        shards: session.store.shards().len() as f64,
    };
    let occupancy = (values * stride) as f64 / (room.full() * ground.extent_bytes as f64);
    let total = stats.total;
    let cleaned = total.cleaning.extents.max(1) * ground.extent_bytes;
    OverwriteReport {
        live_percent: args.overwrite.live,
        skew: of_skew(args.overwrite.skew),
        policy: match args.overwrite.policy {
            crate::cli::args::Policy::Greedy => "greedy",
            crate::cli::args::Policy::CostBenefit => "cost-benefit",
            crate::cli::args::Policy::Fifo => "fifo",
        },
        values,
        extents: extents.len().into(),
        extent_bytes: ground.extent_bytes,
        write_amplification: total.write_amplification().unwrap_or(0.0),
        cleaning_cost: total.cleaning_cost().unwrap_or(0.0),
        victims_live: total.cleaning.bytes_copied as f64 / cleaned as f64,
        theory: Theory {
            full_extents: room.full(),
            occupancy,
            victims_live: theory::victims_live(occupancy),
            write_amplification: theory::write_amplification(occupancy) * stride as f64
                / args.record.0 as f64,
        },
        stats,
        verified,
    }
}

const fn of_skew(skew: Skew) -> &'static str {
    match skew {
        Skew::Uniform => "each as often as any other",
        Skew::NineToOne => "nine of ten writes to a tenth of them",
    }
}

impl fmt::Display for OverwriteReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Theory { full_extents, occupancy, victims_live, write_amplification } = self.theory;
        let Stats { payload_bytes, device_bytes, cleaning, .. } = self.stats.total;
        writeln!(
            f,
            "\n{} values live, {}% of {} extents of {}; cleaned by the policy {}",
            count(self.values),
            self.live_percent,
            count(self.extents),
            bytes(self.extent_bytes),
            self.policy
        )?;
        writeln!(
            f,
            "write amplification {:.2}: {} written for {} of payload; theory, for uniform overwrites, {write_amplification:.2} \
             ({:.1}% of {full_extents:.0} full extents live)",
            self.write_amplification,
            bytes(device_bytes),
            bytes(payload_bytes),
            occupancy * 100.0,
        )?;
        writeln!(
            f,
            "cleaning read {} and wrote {} for {} extents, {:.0}% live (theory {:.0}%), in {} steps; one append waited for {} at the most",
            bytes(cleaning.bytes_read),
            bytes(cleaning.bytes_copied),
            count(cleaning.extents),
            self.victims_live * 100.0,
            victims_live * 100.0,
            count(cleaning.steps),
            count(cleaning.longest_wait_steps),
        )?;
        writeln!(f, "{} values read back and compared", count(self.verified))
    }
}
