//! `corelog verify`.

use super::{
    args::{DeviceOptions, Verify},
    cat::no_such_shard,
    exit::Exit,
    failure::{Failure, say},
    log::{Log, LogError, Reading},
    output::{Facts, Reader, bytes, count, duration},
    progress::Progress,
    setup,
};
use corelog::{Inspection, OpenError, RecoveredShard, ShardId, TailKind};
use corelog_shards::{
    format::record::RecordKind,
    recovery::LossKind,
    scan::{OnDamage, Start, Wanted},
};
use serde::Serialize;
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// Damaged places that are listed; further ones are counted.
const PLACES_MAX: usize = 100;

/// What was checked, and what is wrong.
#[derive(Debug, Default, Serialize)]
struct Report {
    store: String,
    shards: u64,
    extents: u64,
    frames: u64,
    /// Records of the caller.
    records: u64,
    /// Their payload.
    bytes: u64,
    /// Records of the engine, void ones included.
    other_records: u64,
    seconds: f64,
    /// Damaged places, all of them.
    damage: u64,
    /// The first of them.
    places: Vec<Place>,
    /// What is not damage, and worth a look.
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Place {
    shard: Option<u16>,
    frame: Option<u64>,
    slot: Option<u64>,
    fault: String,
}

/// Runs the command: every superblock copy, extent header copy, frame and record.
pub fn run(args: &Verify) -> Result<(), Failure> {
    let start = Instant::now();
    let store = open(&args.store, args.device)?;
    let mut report = Report { store: store.superblock().store.to_string(), ..Report::default() };
    check_copies(&store, &mut report);
    let all = &store.report().shards;
    if let Some(wanted) = args.shard.filter(|wanted| usize::from(wanted.0) >= all.len()) {
        return Err(no_such_shard(wanted, all.len()));
    }
    let is_wanted = |shard: &&RecoveredShard| args.shard.is_none_or(|wanted| wanted == shard.shard);
    let shards: Vec<_> = all.iter().filter(is_wanted).collect();
    let total = shards.iter().map(|shard| shard.bytes).sum();
    let progress = Progress::over_bytes("verifying", Some(total));
    for shard in shards {
        check_shard(&store, shard, &progress, &mut report);
    }
    drop(progress);
    report.seconds = start.elapsed().as_secs_f64();
    let reader = Reader::from_json_flag(args.json);
    reader.write(&mut std::io::stdout().lock(), &report, for_person).map_err(Failure::of_output)?;
    match report.damage {
        0 => Ok(()),
        1 => Err(Failure::new(Exit::Damage, "one place is damaged; restore what it held from elsewhere")),
        places => {
            let text = format!("{places} places are damaged; restore what they held from elsewhere");
            Err(Failure::new(Exit::Damage, text))
        }
    }
}

/// Opens the store as it is; damage that an open would refuse is listed instead.
fn open(path: &Path, device: DeviceOptions) -> Result<Inspection, OpenError> {
    let options = setup::inspection_options(device);
    let store = match Inspection::open(&[path], &options) {
        Err(OpenError::Recovery(_)) => Inspection::open(&[path], &options.salvage(true))?,
        other => other?,
    };
    store.warnings().iter().for_each(|warning| say(&format!("note: {warning}")));
    Ok(store)
}

impl Report {
    fn damaged(&mut self, place: Place) {
        self.damage += 1;
        if self.places.len() < PLACES_MAX {
            self.places.push(place);
        }
    }

    fn copy_damaged(&mut self, fault: String) {
        self.damaged(Place { shard: None, frame: None, slot: None, fault });
    }
}

fn check_copies(store: &Inspection, report: &mut Report) {
    let recovery = store.report();
    for (device, byte) in &recovery.bad_superblock_copies {
        report.copy_damaged(format!("the superblock copy at byte {byte} of {device:?} is of no use"));
    }
    for bad in &recovery.bad_header_copies {
        report.copy_damaged(format!("copy {} of the header of {:?} is of no use", bad.copy, bad.extent));
    }
    for extent in &recovery.extents_bad {
        report.copy_damaged(format!("no copy of the header of {extent:?} is good"));
    }
}

fn check_shard(store: &Inspection, shard: &RecoveredShard, progress: &Progress, report: &mut Report) {
    report.shards += 1;
    report.extents += shard.extents.len() as u64;
    report.frames += shard.frames;
    // A frame whose records are damaged stays in the log, and is met again below.
    for loss in shard.losses.iter().filter(|loss| loss.kind != LossKind::BodyCorrupt) {
        let what = match loss.kind {
            LossKind::HeaderCorrupt => "the header of a durable frame is damaged",
            LossKind::BodyCorrupt => "records of a durable frame are damaged",
            LossKind::LostWrite => "a durable frame is missing",
            LossKind::Misdirected => "a durable frame was overwritten by another",
            LossKind::Unreadable => "the device cannot read a durable frame",
        };
        report.damaged(Place {
            shard: Some(shard.shard.0),
            frame: Some(loss.place.frame.0),
            slot: Some(loss.place.slot.0),
            fault: format!("{what}; what is behind it was not checked"),
        });
    }
    if shard.tail.kind == TailKind::TailUncertain {
        report.notes.push(format!(
            "shard {}: what is behind frame {} was in flight when the store went down, or is damaged: nothing tells which",
            shard.shard, shard.next_frame
        ));
    }
    let reading = Reading { start: Start::Oldest, wanted: Wanted::All, on_damage: OnDamage::Skip };
    for step in Log::new(store, shard, reading) {
        match step {
            Ok(record) if record.kind == RecordKind::DATA => {
                report.records += 1;
                report.bytes += record.payload.len() as u64;
                progress.advance(record.payload.len() as u64);
            }
            Ok(_) => report.other_records += 1,
            Err(error) => report.damaged(place_of(shard.shard, error)),
        }
    }
}

fn place_of(shard: ShardId, error: LogError) -> Place {
    match error {
        LogError::Damage(damage) => Place {
            shard: Some(shard.0),
            frame: damage.place.frame.map(|frame| frame.0),
            slot: Some(damage.place.slot.0),
            fault: damage.fault.to_string(),
        },
        LogError::Lost(_) => {
            Place { shard: Some(shard.0), frame: None, slot: None, fault: error.to_string() }
        }
    }
}

fn for_person(report: &Report) -> String {
    let mut facts = Facts::default();
    facts
        .fact("shards", report.shards)
        .fact("extents", count(report.extents))
        .fact("frames", count(report.frames))
        .fact("records", format!("{} ({})", count(report.records), bytes(report.bytes)))
        .fact("took", duration(Duration::from_secs_f64(report.seconds)))
        .fact(
            "damage",
            if report.damage == 0 { "none".to_owned() } else { count(report.damage) + " places" },
        );
    let mut text = facts.to_string();
    for place in &report.places {
        let part = |name: &str, number: Option<u64>| number.map(|number| format!("{name} {number}"));
        let parts =
            [part("shard", place.shard.map(u64::from)), part("frame", place.frame), part("slot", place.slot)];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        let colon = if parts.is_empty() { "" } else { ": " };
        text.push_str(&format!("  {}{colon}{}\n", parts.join(", "), place.fault));
    }
    let further = report.damage - report.places.len() as u64;
    if further > 0 {
        text.push_str(&format!("  and {further} more\n"));
    }
    report.notes.iter().for_each(|note| text.push_str(&format!("note: {note}\n")));
    text
}
