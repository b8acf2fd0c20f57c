//! `corelog trim`.

use super::{
    args::{RunOptions, Trim},
    failure::Failure,
    output::{Facts, Reader, bytes, count},
    setup,
};
use corelog::{Store, TrimTo};
use corelog_shards::limits::{RING_BUFFERS_MIN, SLOT_BYTES_MAX};
use serde::Serialize;

/// What was freed.
#[derive(Debug, Serialize)]
struct Report {
    shard: u16,
    freed_extents: u64,
    freed_bytes: u64,
    /// Extents before the address that stay: a batch or large record behind it has parts there.
    held_extents: u64,
    free_extents: u64,
    discarded: bool,
    warnings: Vec<String>,
}

/// Opens the store, frees what lies wholly before the address, and closes it.
pub fn run(args: &Trim) -> Result<(), Failure> {
    let run = RunOptions { cores: None, profile: None, sync: None, device: args.device.clone() };
    let options = setup::options(&run)?.buffer_bytes(SLOT_BYTES_MAX).buffers(RING_BUFFERS_MIN);
    let store = Store::open_all(&args.device.paths(&args.store), &options.discard(args.discard))?;
    let warnings = setup::announce(&store);
    let to = TrimTo::Address(args.before);
    let trimming = if args.past_cursors {
        store.trim(args.shard, to)
    } else {
        store.trim_behind_cursors(args.shard, to)
    };
    let trimmed = trimming.and_then(corelog::SpaceChange::wait);
    let extents = &store.directory().extents;
    let (extent_bytes, free_extents) = (extents.geometry().extent_bytes(), extents.free_count());
    let closed = store.close();
    let done = trimmed?;
    let report = Report {
        shard: args.shard.0,
        freed_extents: done.freed,
        freed_bytes: done.freed * extent_bytes,
        held_extents: done.held,
        free_extents,
        discarded: args.discard,
        warnings,
    };
    let reader = Reader::from_json_flag(args.json);
    reader.write(&mut std::io::stdout().lock(), &report, for_person).map_err(Failure::of_output)?;
    closed.map_err(Failure::from)
}

fn for_person(report: &Report) -> Facts {
    let mut facts = Facts::default();
    facts
        .fact("shard", report.shard)
        .fact("freed", format!("{} extents, {}", count(report.freed_extents), bytes(report.freed_bytes)))
        .fact("held", format!("{} extents, by batches and large records", count(report.held_extents)))
        .fact("free now", format!("{} extents", count(report.free_extents)));
    facts
}
