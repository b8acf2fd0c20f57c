//! `corelog verify --scrub`.

use super::{
    args::{RunOptions, Verify},
    exit::Exit,
    failure::Failure,
    output::{Facts, Reader, bytes, count, duration},
    progress::Progress,
    setup,
};
use corelog::{ScanError, ScrubOptions, Store};
use corelog_shards::limits::{RING_BUFFERS_MIN, SLOT_BYTES_MAX};
use serde::Serialize;
use std::{
    num::NonZeroU64,
    time::{Duration, Instant},
};

/// What was checked, and what is wrong.
#[derive(Debug, Serialize)]
struct Report {
    store: String,
    shards: u64,
    records: u64,
    bytes: u64,
    seconds: f64,
    damage: u64,
    places: Vec<String>,
    /// What the devices say of themselves that weakens the store's promises, or its speed.
    warnings: Vec<String>,
}

/// Opens the store, which recovers it, and reads all of it through its cores.
pub fn run(args: &Verify) -> Result<(), Failure> {
    let rate = args.rate.map(|rate| {
        NonZeroU64::new(rate.0).ok_or_else(|| Failure::new(Exit::Usage, "--rate is 0; it goes from 1"))
    });
    let how = match rate.transpose()? {
        Some(bytes_per_second) => ScrubOptions { bytes_per_second },
        None => ScrubOptions::default(),
    };
    let run = RunOptions { cores: None, profile: None, sync: None, device: args.device.clone() };
    // Nothing is appended, so the smallest buffers do, which fit every store.
    let options = setup::options(&run)?.buffer_bytes(SLOT_BYTES_MAX).buffers(RING_BUFFERS_MIN);
    let store = Store::open_all(&args.device.paths(&args.store), &options)?;
    let warnings = setup::announce(&store);
    let start = Instant::now();
    let total = store.recovery().shards.iter().map(|shard| shard.bytes).sum();
    let progress = Progress::over_bytes("scrubbing", Some(total));
    let mut shown = 0;
    let scrubbed = store.scrub_with(how, &mut |report| {
        progress.advance(report.bytes - shown);
        shown = report.bytes;
        true
    });
    drop(progress);
    let closed = store.close();
    let found = scrubbed.map_err(|error: ScanError| Failure::new(Exit::Failed, error))?;
    let report = Report {
        store: store.id().to_string(),
        shards: found.shards,
        records: found.records,
        bytes: found.bytes,
        seconds: start.elapsed().as_secs_f64(),
        damage: found.damages,
        places: found.places.iter().map(ToString::to_string).collect(),
        warnings,
    };
    let reader = Reader::from_json_flag(args.json);
    reader.write(&mut std::io::stdout().lock(), &report, for_person).map_err(Failure::of_output)?;
    closed?;
    match report.damage {
        0 => Ok(()),
        places => Err(Failure::new(
            Exit::Damage,
            format!("{places} damaged places; `corelog salvage` takes out what is intact"),
        )),
    }
}

fn for_person(report: &Report) -> Facts {
    let mut facts = Facts::default();
    facts
        .fact("store", &report.store)
        .fact("shards", report.shards)
        .fact("records", count(report.records))
        .fact("read", bytes(report.bytes))
        .fact("damage", count(report.damage))
        .fact("took", duration(Duration::from_secs_f64(report.seconds)));
    for place in &report.places {
        facts.fact("damaged", place);
    }
    facts
}
