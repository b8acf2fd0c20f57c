//! `corelog format`.

use super::{
    args::Format,
    failure::Failure,
    output::{Facts, Reader, bytes, count, duration},
    progress::Progress,
};
use corelog::{Fill, FormatOptions, limits::EXTENT_BYTES_DEFAULT};
use corelog_shards::limits::{
    BUFFER_BYTES_DEFAULT, EXTENT_BYTES_MIN, SLOT_BYTES_DEFAULT, SLOT_BYTES_MAX, SUPERBLOCK_AREA_BYTES,
};
use serde::Serialize;
use std::time::Instant;

/// Extents that a small store is cut into for each shard, so that one shard can run ahead of the others.
const EXTENTS_PER_SHARD_WANTED: u64 = 4;

/// What was made.
#[derive(Debug, Serialize)]
struct Report {
    path: String,
    store: String,
    shards: u32,
    extents: u32,
    slot_bytes: u64,
    extent_bytes: u64,
    /// What the extents hold.
    bytes: u64,
    /// Fewer extents cannot be cleaned.
    extents_to_clean: u32,
    sparse: bool,
    seconds: f64,
}

/// Runs the command.
pub fn run(args: &Format) -> Result<(), Failure> {
    let start = Instant::now();
    let options = options(args);
    let mut bar = None;
    let mut shown = 0;
    let mut progress = |done: u64, total: u64| {
        bar.get_or_insert_with(|| Progress::over_bytes("writing zeros", Some(total))).advance(done - shown);
        shown = done;
    };
    let made = corelog::format(&args.device.paths(&args.path), &options, &mut progress)?;
    drop(bar);
    let report = Report {
        path: args.path.display().to_string(),
        store: made.store.to_string(),
        shards: made.shards,
        extents: made.extents,
        slot_bytes: options.slot_bytes,
        extent_bytes: options.extent_bytes,
        bytes: made.bytes,
        extents_to_clean: made.extents_to_clean,
        sparse: args.sparse,
        seconds: start.elapsed().as_secs_f64(),
    };
    let reader = Reader::from_json_flag(args.json);
    reader.write(&mut std::io::stdout().lock(), &report, for_person).map_err(Failure::of_output)
}

/// What the arguments ask for.
pub fn options(args: &Format) -> FormatOptions {
    let slot_bytes = args.slot.map_or(SLOT_BYTES_DEFAULT, |slot| slot.0);
    let shards = args.shards.map(std::num::NonZeroU32::get);
    let extent_bytes = args.extent.map_or_else(|| extent_bytes(args, slot_bytes), |extent| extent.0);
    FormatOptions {
        size_bytes: args.size.map(|size| size.0),
        shards,
        slot_bytes,
        extent_bytes,
        fill: if args.sparse { Fill::Sparse } else { Fill::Zeros },
        replace: args.force,
        allow_buffered: args.device.allow_buffered,
        restoring: false,
    }
}

/// The default, or less for a store that would have too few of them.
fn extent_bytes(args: &Format, slot_bytes: u64) -> u64 {
    let Some(size) = args.size else { return EXTENT_BYTES_DEFAULT };
    let shards = args.shards.map_or_else(cpus, |shards| u64::from(shards.get()));
    let share = size.0.saturating_sub(SUPERBLOCK_AREA_BYTES) / (EXTENTS_PER_SHARD_WANTED * shards);
    // Flush buffers of the usual size have to fit beside the extent's header. A slot out of bounds is told later.
    let least =
        EXTENT_BYTES_MIN.max((BUFFER_BYTES_DEFAULT + slot_bytes.min(SLOT_BYTES_MAX)).next_power_of_two());
    let largest_power = if share == 0 { 0 } else { 1 << share.ilog2() };
    largest_power.clamp(least.min(EXTENT_BYTES_DEFAULT), EXTENT_BYTES_DEFAULT)
}

fn cpus() -> u64 {
    std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64)
}

fn for_person(report: &Report) -> Facts {
    let mut facts = Facts::default();
    facts
        .fact("made", &report.path)
        .fact("store", &report.store)
        .fact("shards", report.shards)
        .fact("extents", format!("{} of {}", count(report.extents.into()), bytes(report.extent_bytes)))
        .fact("slot", bytes(report.slot_bytes))
        .fact("room", bytes(report.bytes))
        .fact("filled", if report.sparse { "no (sparse)" } else { "with zeros" })
        .fact("took", duration(std::time::Duration::from_secs_f64(report.seconds)));
    if report.extents < report.extents_to_clean {
        let needed = count(report.extents_to_clean.into());
        facts.fact("cleaning", format!("not with so few extents, only trimming: it takes {needed}"));
    }
    facts
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::options;
    use crate::cli::args::{Args, Command, Format};
    use clap::Parser;

    fn parsed(line: &str) -> Format {
        match Args::try_parse_from(line.split(' ')).unwrap().command {
            Command::Format(format) => format,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_small_store_has_small_extents_and_the_check_is_the_librarys() {
        let extent = |line: &str| options(&parsed(line)).extent_bytes;
        assert_eq!(extent("corelog format x --size 8GiB --shards 2"), 64 << 20);
        assert_eq!(extent("corelog format x --size 64MiB --shards 2"), 4 << 20);
        assert_eq!(extent("corelog format x --size 1 --shards 2"), 512 << 10);
        assert_eq!(extent("corelog format x --size 64MiB --shards 2 --extent 1MiB"), 1 << 20);
        let tiny = options(&parsed("corelog format x --size 1 --shards 2"));
        assert!(tiny.check(1).is_err());
    }
}
