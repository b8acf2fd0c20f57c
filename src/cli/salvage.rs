//! `corelog salvage`.

use super::{
    args::Salvage,
    exit::Exit,
    failure::{Failure, say},
    output::{Facts, Reader, bytes, count, duration},
    setup,
};
use corelog::{
    Address, Fill, FormatOptions, LargeWriter, LossOf, Options, Route, SalvageError, SalvageReport,
    SalvagedRecord, Store, WaitError,
};
use corelog_shards::limits::{BUFFER_BYTES_MAX, RING_BUFFERS_MIN};
use serde::Serialize;
use std::{
    fs::File,
    io::{self, BufWriter, Write},
    time::{Duration, Instant},
};

/// Memory for the buffers of the new store's shards, all together; each gets what this leaves it.
const BUFFERS_BYTES: u64 = 1 << 30;

/// What was copied, and what is lost.
#[derive(Debug, Serialize)]
struct Report {
    store: String,
    new_store: String,
    #[serde(flatten)]
    found: SalvageReport,
    seconds: f64,
    /// What the devices of the new store say of themselves that weakens its promises, or its speed.
    warnings: Vec<String>,
}

/// Runs the command.
pub fn run(args: &Salvage) -> Result<(), Failure> {
    let start = Instant::now();
    let damaged =
        corelog::Salvage::open(&args.device.paths(&args.store), &setup::inspection_options(&args.device))?;
    damaged.warnings().iter().for_each(|warning| say(&format!("note: {warning}")));
    let mut map = args.map.as_deref().map(File::create).transpose().map_err(of_map)?.map(BufWriter::new);
    let format = format_options(args, &damaged);
    corelog::format(&[&args.out], &format, &mut |_, _| {})?;
    let store = Store::open(&args.out, &run_options(args, &damaged))?;
    let warnings = setup::announce(&store);
    let mut large = None;
    let copied = damaged.run(&mut |record| copy(&store, record, &mut large, map.as_mut()));
    drop(large);
    // What was copied is kept, also if the rest could not be.
    let synced = store.sync();
    let closed = store.close();
    let found = copied.map_err(|error| match error {
        SalvageError::Sink(failure) => failure,
        SalvageError::Memory(error) => Failure::new(Exit::Failed, error),
    })?;
    synced.map_err(|error: WaitError| Failure::from(error))?;
    closed?;
    map.map_or(Ok(()), |mut map| map.flush()).map_err(of_map)?;
    let report = Report {
        store: damaged.superblock().store.to_string(),
        new_store: store.id().to_string(),
        found,
        seconds: start.elapsed().as_secs_f64(),
        warnings,
    };
    let reader = Reader::from_json_flag(args.json);
    reader.write(&mut io::stdout().lock(), &report, for_person).map_err(Failure::of_output)?;
    if report.found.is_damaged() {
        let losses = report.found.losses;
        return Err(Failure::new(Exit::Damage, format!("{losses} places of loss; all else was copied")));
    }
    Ok(())
}

fn of_map(error: io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("writing the map of addresses failed: {error}"))
}

fn format_options(args: &Salvage, damaged: &corelog::Salvage) -> FormatOptions {
    let superblock = damaged.superblock();
    let of_devices = superblock.devices.iter().map(|device| device.bytes).sum();
    FormatOptions {
        size_bytes: Some(args.size.map_or(of_devices, |size| size.0)),
        shards: Some(superblock.shards.len() as u32),
        slot_bytes: superblock.geometry.slot_bytes(),
        extent_bytes: superblock.geometry.extent_bytes(),
        fill: if args.sparse { Fill::Sparse } else { Fill::Zeros },
        replace: args.force,
        allow_buffered: args.device.allow_buffered,
        restoring: false,
    }
}

/// Buffers as large as they may be, because the damaged store's records may be as long as its own allowed.
fn run_options(args: &Salvage, damaged: &corelog::Salvage) -> Options {
    let superblock = damaged.superblock();
    let room = superblock.geometry.extent_bytes() - superblock.geometry.slot_bytes();
    let share = BUFFERS_BYTES / u64::from(RING_BUFFERS_MIN) / superblock.shards.len().max(1) as u64;
    let buffer = room.min(BUFFER_BYTES_MAX).min(share.max(1 << 20));
    let buffer = buffer / superblock.geometry.slot_bytes() * superblock.geometry.slot_bytes();
    let options = setup::inspection_options(&args.device).allow_buffered(args.device.allow_buffered);
    options.buffer_bytes(buffer).buffers(RING_BUFFERS_MIN)
}

/// A large record that is being copied, as far as its parts are intact.
struct Large<'store> {
    from: Address,
    writer: LargeWriter<'store>,
}

fn copy<'store>(
    store: &'store Store,
    record: SalvagedRecord,
    large: &mut Option<Large<'store>>,
    map: Option<&mut BufWriter<File>>,
) -> Result<(), Failure> {
    let (from, ticket) = match record.part {
        None => {
            *large = None;
            (record.address, store.append_to(Route::Shard(record.shard), &record.payload)?)
        }
        Some(part) => {
            let mut copying = match large.take() {
                Some(large) if part.offset > 0 => large,
                _ => Large { from: record.address, writer: store.append_large(Route::Shard(record.shard))? },
            };
            copying.writer.append(&record.payload)?;
            if copying.writer.bytes() < part.bytes {
                *large = Some(copying);
                return Ok(());
            }
            (copying.from, copying.writer.finish()?)
        }
    };
    match map {
        Some(map) => writeln!(map, "{from} {}", ticket.address()).map_err(of_map),
        None => Ok(()),
    }
}

fn for_person(report: &Report) -> Facts {
    let mut facts = Facts::default();
    let found = &report.found;
    facts
        .fact("store", &report.store)
        .fact("new store", &report.new_store)
        .fact("copied", format!("{} records, {}", count(found.records), bytes(found.bytes)))
        .fact("of broken frames", format!("{} of these records", count(found.records_without_frame)))
        .fact("losses", count(found.losses))
        .fact("took", duration(Duration::from_secs_f64(report.seconds)));
    for loss in &found.places {
        let what = match loss.of {
            LossOf::ExtentHeader => "the extent's header".to_owned(),
            LossOf::Frames { first, count } => format!("headers of {count} frames from frame {first}"),
            LossOf::Record { frame, byte } => {
                format!("a record of frame {frame} at byte {byte} of the store")
            }
            LossOf::Slots { count } => format!("{count} slots that cannot be read"),
            LossOf::Tail { first } => {
                format!("frame {first}, which was in flight when the store went down (no loss)")
            }
        };
        let shard = loss.shard.map_or_else(|| "no shard".to_owned(), |shard| format!("shard {shard}"));
        facts.fact("lost", format!("{shard}, slot {}: {what}", loss.slot));
    }
    facts
}
