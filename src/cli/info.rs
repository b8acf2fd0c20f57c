//! `corelog info`.

use super::{
    args::Info,
    failure::Failure,
    output::{Align, Facts, Reader, Table, bytes, count, duration},
    read::inspect,
};
use corelog::{Address, Cursor, Inspection, RecoveredShard, RecoveryReport, TailKind};
use corelog_shards::{
    extents::ExtentUse,
    format::superblock::{FORMAT_VERSION, ShardState},
    ids::ExtentIndex,
};
use serde::Serialize;
use std::{
    fmt::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// All that a look at the store tells.
#[derive(Debug, Serialize)]
struct Report {
    path: String,
    store: String,
    format_version: u16,
    term: u64,
    sequence: u64,
    created_unix_ns: u64,
    written_unix_ns: u64,
    slot_bytes: u64,
    extent_bytes: u64,
    devices: Vec<DeviceReport>,
    shards: Vec<ShardReport>,
    extents: ExtentCounts,
    /// Each extent that was ever used; only if asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    extent_list: Vec<ExtentReport>,
    warnings: Vec<String>,
    /// What opening the store would find.
    recovery: RecoveryReport,
}

#[derive(Debug, Serialize)]
struct DeviceReport {
    path: String,
    bytes: u64,
    found_bytes: u64,
    direct: bool,
    extents: u32,
}

#[derive(Debug, Serialize)]
struct ShardReport {
    shard: u16,
    state: &'static str,
    extents: usize,
    frames: u64,
    records: u64,
    bytes: u64,
    next_frame: u64,
    /// Frames below this are known to be durable from what is stored.
    durable: u64,
    tail: TailKind,
    cut_frames: u64,
    /// Extents before this place in its sequence were trimmed.
    trimmed_extents: u64,
    /// The frame that an open begins with, by the newest checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<u64>,
    cursors: Vec<CursorReport>,
    space: SpaceReport,
}

/// What cleaning would find, as far as the log says.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct SpaceReport {
    /// Bytes of the frames in its extents, headers included.
    log_bytes: u64,
    /// Of those, what was noted as dead by the last checkpoint.
    dead_bytes: u64,
    /// Extents of which cleaning has copied a part.
    extents_being_cleaned: usize,
}

#[derive(Debug, Serialize)]
struct CursorReport {
    name: String,
    address: Address,
}

#[derive(Debug, Default, Serialize)]
struct ExtentCounts {
    total: u32,
    free: u64,
    in_use: u64,
    claimed_ahead: u64,
    bad: u64,
}

#[derive(Debug, Serialize)]
struct ExtentReport {
    extent: u32,
    state: &'static str,
    shard: Option<u16>,
    ordinal: Option<u64>,
    generation: u32,
}

/// Runs the command.
pub fn run(args: &Info) -> Result<(), Failure> {
    let store = inspect(&args.store, &args.device)?;
    let report = report(&store, args);
    let reader = Reader::from_json_flag(args.json);
    reader.write(&mut std::io::stdout().lock(), &report, for_person).map_err(Failure::of_output)
}

fn report(store: &Inspection, args: &Info) -> Report {
    let superblock = store.superblock();
    let recovery = store.report();
    let paths = superblock.devices.iter().zip(store.devices());
    Report {
        path: args.store.display().to_string(),
        store: superblock.store.to_string(),
        format_version: FORMAT_VERSION,
        term: superblock.term.0,
        sequence: superblock.sequence,
        created_unix_ns: superblock.created_unix_ns,
        written_unix_ns: superblock.written_unix_ns,
        slot_bytes: superblock.geometry.slot_bytes(),
        extent_bytes: superblock.geometry.extent_bytes(),
        devices: (0..)
            .zip(paths)
            .map(|(index, (entry, device))| DeviceReport {
                path: device.path().display().to_string(),
                bytes: entry.bytes,
                found_bytes: device.bytes(),
                direct: device.is_direct(),
                extents: superblock
                    .regions
                    .iter()
                    .filter(|region| region.device.0 == index)
                    .map(|region| region.extent_count)
                    .sum(),
            })
            .collect(),
        shards: recovery.shards.iter().map(shard_report).collect(),
        extents: ExtentCounts {
            total: superblock.extent_count(),
            free: recovery.extents_free,
            in_use: recovery.extents_owned - recovery.extents_unused,
            claimed_ahead: recovery.extents_unused,
            bad: recovery.extents_bad.len() as u64,
        },
        extent_list: if args.extents { extent_list(store) } else { Vec::new() },
        warnings: store.warnings(),
        recovery: recovery.clone(),
    }
}

fn shard_report(shard: &RecoveredShard) -> ShardReport {
    ShardReport {
        shard: shard.shard.0,
        state: match shard.state {
            ShardState::Active => "active",
            ShardState::Retired => "retired",
            ShardState::Cold(_) => "cold",
        },
        extents: shard.used_extents,
        frames: shard.frames,
        records: shard.records,
        bytes: shard.bytes,
        next_frame: shard.next_frame.0,
        durable: shard.durable_witness.0,
        tail: shard.tail.kind,
        cut_frames: shard.tail.cut_frames,
        trimmed_extents: shard.space.trim.ordinal.0,
        checkpoint: shard.began_at.map(|frame| frame.0),
        cursors: shard.space.cursors.iter().map(cursor_report).collect(),
        space: SpaceReport {
            log_bytes: shard.space.extents.iter().map(|extent| extent.bytes).sum(),
            dead_bytes: shard.space.extents.iter().map(|extent| extent.dead_bytes).sum(),
            extents_being_cleaned: shard.space.moves.len(),
        },
    }
}

fn cursor_report(cursor: &Cursor) -> CursorReport {
    CursorReport { name: cursor.name.clone(), address: cursor.address }
}

fn extent_list(store: &Inspection) -> Vec<ExtentReport> {
    let all = (0..store.superblock().extent_count()).map(ExtentIndex);
    let known = all.filter_map(|index| store.extent(index).map(|(entry, ordinal)| (index, entry, ordinal)));
    known
        .filter(|(_, entry, _)| entry.generation.0 > 0 || entry.usage != ExtentUse::Free)
        .map(|(index, entry, ordinal)| {
            let is_owned = entry.usage == ExtentUse::Claimed;
            ExtentReport {
                extent: index.0,
                state: match entry.usage {
                    ExtentUse::Claimed => "claimed",
                    ExtentUse::Free => "free",
                    _ => "bad",
                },
                shard: is_owned.then_some(entry.shard.0),
                ordinal: ordinal.filter(|_| is_owned).map(|ordinal| ordinal.0),
                generation: entry.generation.0,
            }
        })
        .collect()
}

fn for_person(report: &Report) -> String {
    let mut text = facts(report).to_string();
    let mut add = |table: &dyn std::fmt::Display| {
        // A string takes everything.
        let _written = write!(text, "\n{table}");
    };
    add(&shard_table(report));
    if !report.extent_list.is_empty() {
        add(&extent_table(report));
    }
    text
}

fn facts(report: &Report) -> Facts {
    let mut facts = Facts::default();
    let extents = &report.extents;
    facts
        .fact("store", &report.store)
        .fact("format", report.format_version)
        .fact("made", ago(report.created_unix_ns))
        .fact("term", format!("{} (opened for writing as often)", report.term))
        .fact(
            "closed",
            if report.recovery.clean { "cleanly" } else { "no: open now, or ended without a close" },
        )
        .fact("slot", bytes(report.slot_bytes))
        .fact(
            "extents",
            format!(
                "{} of {}: {} in use, {} claimed ahead, {} free, {} bad",
                extents.total,
                bytes(report.extent_bytes),
                extents.in_use,
                extents.claimed_ahead,
                extents.free,
                extents.bad
            ),
        );
    for device in &report.devices {
        let way = if device.direct { "direct I/O" } else { "buffered I/O" };
        facts.fact("device", format!("{}, {}, {way}", device.path, bytes(device.bytes)));
    }
    for shard in &report.shards {
        for cursor in &shard.cursors {
            facts.fact("cursor", format!("{} of shard {}: {}", cursor.name, shard.shard, cursor.address));
        }
    }
    let space = report.shards.iter().map(|shard| shard.space).fold(SpaceReport::default(), SpaceReport::plus);
    facts.fact("cleaning", space.words());
    let bad_copies = report.recovery.bad_superblock_copies.len() + report.recovery.bad_header_copies.len();
    if bad_copies > 0 {
        facts.fact(
            "bad copies",
            format!("{bad_copies} of superblocks and extent headers; `verify` names them"),
        );
    }
    facts.fact("looked for", duration(Duration::from_secs_f64(report.recovery.seconds)));
    facts
}

impl SpaceReport {
    fn plus(self, other: Self) -> Self {
        Self {
            log_bytes: self.log_bytes + other.log_bytes,
            dead_bytes: self.dead_bytes + other.dead_bytes,
            extents_being_cleaned: self.extents_being_cleaned + other.extents_being_cleaned,
        }
    }

    /// What it has cost is not in the store.
    fn words(self) -> String {
        format!(
            "{} of {} noted as dead, {} extents half cleaned; what it costs is counted since open, by the process that runs the store",
            bytes(self.dead_bytes),
            bytes(self.log_bytes),
            self.extents_being_cleaned
        )
    }
}

fn ago(unix_ns: u64) -> String {
    let then = UNIX_EPOCH + Duration::from_nanos(unix_ns);
    match SystemTime::now().duration_since(then) {
        Ok(elapsed) => {
            let seconds = elapsed.as_secs();
            let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
            match (days, hours) {
                (0, 0) => format!("{minutes} min {} s ago", seconds % 60),
                (0, _) => format!("{hours} h {minutes} min ago"),
                _ => format!("{days} d {hours} h ago"),
            }
        }
        Err(_) => "in the future, by this host's clock".to_owned(),
    }
}

fn shard_table(report: &Report) -> Table {
    let right = |heading| (heading, Align::Right);
    let mut table = Table::new([
        right("shard"),
        right("extents"),
        right("frames"),
        right("records"),
        right("bytes"),
        right("durable below"),
        ("tail", Align::Left),
    ]);
    for shard in &report.shards {
        let tail = match shard.tail {
            TailKind::Clean => "clean".to_owned(),
            TailKind::EndOfLog => "end of log".to_owned(),
            TailKind::TornTail => format!("torn: {} frames cut off", shard.cut_frames),
            TailKind::TailUncertain => format!("uncertain: {} frames cut off", shard.cut_frames),
            TailKind::Salvaged => format!("salvaged: {} frames cut off", shard.cut_frames),
        };
        table.row([
            shard.shard.to_string(),
            shard.extents.to_string(),
            count(shard.frames),
            count(shard.records),
            bytes(shard.bytes),
            shard.durable.to_string(),
            tail,
        ]);
    }
    table
}

fn extent_table(report: &Report) -> Table {
    let right = |heading| (heading, Align::Right);
    let mut table = Table::new([
        right("extent"),
        ("state", Align::Left),
        right("shard"),
        right("ordinal"),
        right("generation"),
    ]);
    let shown = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    for extent in &report.extent_list {
        table.row([
            extent.extent.to_string(),
            extent.state.to_owned(),
            shown(extent.shard.map(u64::from)),
            shown(extent.ordinal),
            extent.generation.to_string(),
        ]);
    }
    table
}
