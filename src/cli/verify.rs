//! `corelog verify`.

use super::{
    args::{DeviceOptions, Verify},
    exit::Exit,
    failure::{Failure, say},
    output::{Facts, Reader, bytes, count, duration},
    progress::Progress,
    setup,
};
use corelog::{Finding, FindingPlace, Inspection, OpenError, ScanError, TailKind, VerifyReport};
use corelog_shards::ids::DeviceIndex;
use serde::Serialize;
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// What was checked, and what is wrong.
#[derive(Debug, Serialize)]
struct Report {
    store: String,
    extents: u64,
    seconds: f64,
    #[serde(flatten)]
    verified: VerifyReport,
    /// What is not damage, and worth a look.
    notes: Vec<String>,
}

/// Runs the command: every superblock copy, extent header copy, frame and record.
pub fn run(args: &Verify) -> Result<(), Failure> {
    let start = Instant::now();
    let store = open(&args.store, &args.device)?;
    if let Some(shard) = args.shard {
        // Only to have a shard that is not there told before anything is read.
        let _there_is_one = store.scan(shard)?;
    }
    let verified = verify(&store, args)?;
    let report = Report {
        store: store.superblock().store.to_string(),
        extents: store.report().extents_owned,
        seconds: start.elapsed().as_secs_f64(),
        verified,
        notes: notes(&store),
    };
    let reader = Reader::from_json_flag(args.json);
    reader.write(&mut std::io::stdout().lock(), &report, for_person).map_err(Failure::of_output)?;
    match report.verified.findings_count {
        0 => Ok(()),
        1 => Err(Failure::new(Exit::Damage, "one place is damaged; restore what it held from elsewhere")),
        places => {
            let text = format!("{places} places are damaged; restore what they held from elsewhere");
            Err(Failure::new(Exit::Damage, text))
        }
    }
}

/// Opens the store as it is; damage that an open would refuse is listed instead.
fn open(path: &Path, device: &DeviceOptions) -> Result<Inspection, OpenError> {
    let options = setup::inspection_options(device);
    let store = match Inspection::open(&device.paths(path), &options) {
        Err(OpenError::Recovery(_)) => Inspection::open(&device.paths(path), &options.salvage(true))?,
        other => other?,
    };
    store.warnings().iter().for_each(|warning| say(&format!("note: {warning}")));
    Ok(store)
}

fn verify(store: &Inspection, args: &Verify) -> Result<VerifyReport, ScanError> {
    let mut bar = None;
    let mut shown = 0;
    let mut progress = |done: u64, total: u64| {
        let bar = bar.get_or_insert_with(|| Progress::over_items("verifying frames", Some(total)));
        bar.advance(done.saturating_sub(shown));
        shown = shown.max(done);
    };
    store.verify(args.shard, &mut progress).map_err(ScanError::Read)
}

fn notes(store: &Inspection) -> Vec<String> {
    let uncertain = store.report().shards.iter().filter(|shard| shard.tail.kind == TailKind::TailUncertain);
    uncertain
        .map(|shard| {
            format!(
                "shard {}: what is behind its last frame was in flight when the store went down, or is damaged: nothing tells which",
                shard.shard
            )
        })
        .collect()
}

fn for_person(report: &Report) -> String {
    let verified = &report.verified;
    let mut facts = Facts::default();
    facts
        .fact("shards", verified.shards)
        .fact("extents", count(report.extents))
        .fact("frames", count(verified.frames))
        .fact("records", format!("{} ({})", count(verified.records), bytes(verified.bytes)))
        .fact("took", duration(Duration::from_secs_f64(report.seconds)))
        .fact(
            "damage",
            match verified.findings_count {
                0 => "none".to_owned(),
                places => format!("{} places", count(places)),
            },
        );
    let mut text = facts.to_string();
    for Finding { place, problem } in &verified.findings {
        text.push_str(&format!("  {}: {problem}\n", place_for_person(place)));
    }
    let further = verified.findings_count - verified.findings.len() as u64;
    if further > 0 {
        text.push_str(&format!("  and {further} more\n"));
    }
    report.notes.iter().for_each(|note| text.push_str(&format!("note: {note}\n")));
    text
}

fn place_for_person(place: &FindingPlace) -> String {
    let on = |device: &DeviceIndex, byte: &u64| format!("{device:?}, byte {byte}");
    match place {
        FindingPlace::Superblock { device, byte } => format!("superblock copy ({})", on(device, byte)),
        FindingPlace::ExtentHeaderCopy { extent, copy } => format!("copy {copy} of the header of {extent:?}"),
        FindingPlace::ExtentHeader { extent } => format!("header of {extent:?}"),
        FindingPlace::Log { place, on_device: Some((device, byte)) } => {
            format!("{place} ({})", on(device, byte))
        }
        FindingPlace::Log { place, .. } => place.to_string(),
        other => format!("{other:?}"),
    }
}
