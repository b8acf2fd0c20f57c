//! `corelog append`: input becomes records, and is said to be appended when it is as safe as was asked.
//!
//! One thread cuts and appends, another waits: it takes pieces of the input in order, each with the last frame that
//! it reached in every shard, and acknowledges a piece when all of those frames have arrived. A piece ends when it is
//! large enough, or when the input has nothing for the moment; so a slow input is acknowledged at once, and a fast
//! one with a few flushes a second.

mod acks;
mod input;

use super::{
    args::{Append, Durability, KeyPart},
    exit::Exit,
    failure::{Failure, say},
    output::{Facts, Reader, bytes, bytes_per_second, count, duration, per_second},
    progress::Progress,
    setup,
};
use acks::{Acker, Acknowledged, Output, Piece};
use corelog::{AppendError, LargeWriter, Route, Store, Ticket};
use corelog_shards::format::checksum::crc32c;
use crossbeam_channel::{Receiver, Sender, bounded};
use input::{Input, InputError, Next};
use serde::Serialize;
use std::{
    fs::File,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Records that may wait when nothing is said.
const IN_FLIGHT_DEFAULT: u64 = 256 << 10;
/// Pieces under way at the same time: one is filled while others are waited for.
const PIECES_MAX: u64 = 8;
/// A piece ends after this much payload, so that long records are acknowledged as they go, too.
const PIECE_BYTES_MAX: u64 = 16 << 20;

/// What was appended.
#[derive(Debug, Serialize)]
struct Report {
    store: String,
    /// Records that were acknowledged: the first ones of the input.
    records: u64,
    /// Their payload.
    bytes: u64,
    durability: &'static str,
    seconds: f64,
    records_per_second: f64,
    bytes_per_second: f64,
    shards: Vec<ShardReport>,
    /// Shards that the store did not have before, and has from now on.
    shards_added: u32,
    /// What the devices say of themselves that weakens the store's promises, or its speed.
    warnings: Vec<String>,
    /// What the host did not grant to the engine, and what to do about it.
    not_granted: Vec<String>,
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct ShardReport {
    shard: u16,
    records: u64,
    bytes: u64,
}

/// Why not all of the input was appended.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error(transparent)]
    Input(#[from] InputError),
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The other thread knows why.
    #[error("nothing can be acknowledged any more")]
    NotAcknowledged,
}

/// Runs the command.
pub fn run(args: &Append) -> Result<(), Failure> {
    let options = setup::options(&args.run)?;
    let total = input_bytes(&args.files)?;
    let paths = args.run.device.paths(&args.store);
    setup::check_cores(&paths, &options)?;
    let acks = args.acks.as_deref().map(create).transpose()?;
    let store = Store::open_all(&paths, &options)?;
    let warnings = setup::announce(&store);

    let start = Instant::now();
    let output = Output::new(args.addresses, args.json, acks, Progress::over_bytes("appending", total));
    let (acknowledged, failure) = append(&store, args, output);
    let elapsed = start.elapsed();
    let not_granted = setup::not_granted(&store);
    let failure = failure.or(store.close().err().map(Failure::from));

    let shards_added = store.added_shards().total();
    let report = Report {
        shards_added,
        warnings,
        ..report(args, &acknowledged, elapsed, not_granted, failure.as_ref())
    };
    let printed = print(args, &report);
    match failure {
        Some(failure) => Err(failure),
        None => printed,
    }
}

/// The bytes of all inputs, if that can be known. What is not there is told before the store is touched.
fn input_bytes(files: &[PathBuf]) -> Result<Option<u64>, Failure> {
    let mut total = (!files.is_empty()).then_some(0);
    for path in files {
        if is_standard(path) {
            total = None;
            continue;
        }
        let failed = |why: String| Failure::new(Exit::Failed, format!("{}: {why}", path.display()));
        let about = path.metadata().map_err(|error| failed(error.to_string()))?;
        if about.is_dir() {
            return Err(failed("it is a folder; give files".to_owned()));
        }
        total = total.filter(|_| about.is_file()).map(|total: u64| total + about.len());
    }
    Ok(total)
}

fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn create(path: &Path) -> Result<File, Failure> {
    File::create(path).map_err(|error| Failure::new(Exit::Failed, format!("{}: {error}", path.display())))
}

fn append(store: &Store, args: &Append, output: Output) -> (Acknowledged, Option<Failure>) {
    let in_flight = args.in_flight.map_or(IN_FLIGHT_DEFAULT, |records| u64::from(NonZeroU32::get(records)));
    let pieces = in_flight.min(PIECES_MAX);
    let (full, to_acknowledge) = bounded(PIECES_MAX as usize);
    let (returned, free) = bounded(PIECES_MAX as usize);
    for _ in 0..pieces {
        // There is room for all of them.
        let _sent = returned.send(Piece::new(store.shards().len()));
    }
    let acker = Acker::new(store, args.durability.into(), output);
    std::thread::scope(|scope| {
        let acknowledging = scope.spawn(move || acker.run(&to_acknowledge, &returned));
        let appender = Appender {
            store,
            args,
            full,
            free,
            piece_records_max: in_flight / pieces,
            piece: None,
            large: None,
        };
        let appended = appender.run();
        let (acknowledged, failure) = match acknowledging.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        // A failed shard is told by the first that met it; the appender only if it alone did.
        let failure = failure.or_else(|| appended.err().and_then(Stopped::explained));
        let failure = failure.map(|failure| failure.and(so_far(args.durability, &acknowledged)));
        (acknowledged, failure)
    })
}

fn so_far(durability: Durability, acknowledged: &Acknowledged) -> String {
    let safety = match durability {
        Durability::Buffered => "taken",
        Durability::Written => "written",
        Durability::Durable => "durable",
    };
    match acknowledged.records {
        0 => format!("no record of the input is {safety}"),
        records => {
            let bytes = count(acknowledged.bytes);
            format!("the first {} records of the input ({bytes} bytes) are {safety}", count(records))
        }
    }
}

impl Stopped {
    fn explained(self) -> Option<Failure> {
        match self {
            Self::Input(error) => Some(Failure::new(Exit::Failed, error)),
            Self::Append(error) => Some(error.into()),
            Self::NotAcknowledged => None,
        }
    }
}

struct Appender<'a> {
    store: &'a Store,
    args: &'a Append,
    full: Sender<Piece>,
    free: Receiver<Piece>,
    piece_records_max: u64,
    /// The piece that is being filled.
    piece: Option<Piece>,
    /// The input that is being appended in parts.
    large: Option<LargeWriter<'a>>,
}

impl Appender<'_> {
    /// Appends all inputs. Whatever ends it, what was appended before is handed on to be waited for.
    fn run(mut self) -> Result<(), Stopped> {
        let done = self.inputs();
        let handed_on = self.end_piece();
        done.and(handed_on)
    }

    fn inputs(&mut self) -> Result<(), Stopped> {
        let (framing, max) = (self.args.split, self.store.record_bytes_max() as usize);
        if self.args.files.is_empty() {
            return self.input(Input::standard(framing, max)?);
        }
        for path in &self.args.files {
            let input = match is_standard(path) {
                true => Input::standard(framing, max)?,
                false => Input::file(path, framing, max)?,
            };
            self.input(input)?;
        }
        Ok(())
    }

    fn input(&mut self, mut input: Input) -> Result<(), Stopped> {
        loop {
            match input.next()? {
                Next::Record(record) => self.record(record)?,
                Next::Part(part) => self.part(part)?,
                Next::PartsEnd => self.end_parts()?,
                Next::Waiting => self.end_piece()?,
                Next::End => return Ok(()),
            }
        }
    }

    /// A part of an input that is one record. Its first part says where it goes.
    fn part(&mut self, part: &[u8]) -> Result<(), Stopped> {
        let mut large = match self.large.take() {
            Some(large) => large,
            None => self.store.append_large(self.route(part))?,
        };
        large.append(part)?;
        self.large = Some(large);
        Ok(())
    }

    fn end_parts(&mut self) -> Result<(), Stopped> {
        let Some(large) = self.large.take() else { return Ok(()) };
        self.open_piece()?;
        let bytes = large.bytes();
        let ticket = large.finish()?;
        self.add(ticket, bytes)
    }

    /// Before an append, so that never more records wait than were allowed to.
    fn open_piece(&mut self) -> Result<(), Stopped> {
        if self.piece.is_none() {
            self.piece = Some(self.free.recv().map_err(|_| Stopped::NotAcknowledged)?);
        }
        Ok(())
    }

    fn record(&mut self, record: &[u8]) -> Result<(), Stopped> {
        let route = self.route(record);
        self.open_piece()?;
        let ticket = self.store.append_to(route, record)?;
        self.add(ticket, record.len() as u64)
    }

    fn add(&mut self, ticket: Ticket<'_>, bytes: u64) -> Result<(), Stopped> {
        let Some(piece) = &mut self.piece else { return Ok(()) };
        piece.add(ticket, bytes, self.args.addresses);
        if piece.records() >= self.piece_records_max || piece.bytes() >= PIECE_BYTES_MAX {
            self.end_piece()?;
        }
        Ok(())
    }

    fn route(&self, record: &[u8]) -> Route {
        let by_key = |key: &KeyPart| Route::Key(u64::from(crc32c(key.of(record))));
        let route = &self.args.route;
        let chosen = route.shard.map(Route::Shard).or_else(|| route.key.as_ref().map(by_key));
        chosen.unwrap_or(Route::RoundRobin)
    }

    fn end_piece(&mut self) -> Result<(), Stopped> {
        let Some(piece) = self.piece.take().filter(|piece| piece.records() > 0) else { return Ok(()) };
        piece.ask(self.store, self.args.durability.into());
        self.full.send(piece).map_err(|_| Stopped::NotAcknowledged)
    }
}

fn report(
    args: &Append,
    acknowledged: &Acknowledged,
    elapsed: Duration,
    not_granted: Vec<String>,
    failure: Option<&Failure>,
) -> Report {
    let seconds = elapsed.as_secs_f64().max(1e-9);
    let parts = (0..).zip(&acknowledged.shards);
    Report {
        store: args.store.display().to_string(),
        records: acknowledged.records,
        bytes: acknowledged.bytes,
        durability: match args.durability {
            Durability::Buffered => "buffered",
            Durability::Written => "written",
            Durability::Durable => "durable",
        },
        seconds,
        records_per_second: acknowledged.records as f64 / seconds,
        bytes_per_second: acknowledged.bytes as f64 / seconds,
        shards: parts
            .map(|(shard, part)| ShardReport { shard, records: part.records, bytes: part.bytes })
            .collect(),
        shards_added: 0,
        warnings: Vec::new(),
        not_granted,
        error: failure.and_then(|failure| failure.message.clone()),
    }
}

/// Addresses have standard output for themselves, unless the reader is a program.
fn print(args: &Append, report: &Report) -> Result<(), Failure> {
    if args.addresses && !args.json {
        say(&format!(
            "{} records, {} in {} ({}, {}), {}",
            count(report.records),
            bytes(report.bytes),
            duration(Duration::from_secs_f64(report.seconds)),
            per_second(report.records_per_second),
            bytes_per_second(report.bytes_per_second),
            report.durability,
        ));
        return Ok(());
    }
    let reader = Reader::from_json_flag(args.json);
    reader.write(&mut std::io::stdout().lock(), report, for_person).map_err(Failure::of_output)
}

fn for_person(report: &Report) -> Facts {
    let mut facts = Facts::default();
    facts
        .fact("records", count(report.records))
        .fact("bytes", format!("{} ({})", count(report.bytes), bytes(report.bytes)))
        .fact("took", duration(Duration::from_secs_f64(report.seconds)))
        .fact(
            "rate",
            format!(
                "{}, {}",
                per_second(report.records_per_second),
                bytes_per_second(report.bytes_per_second)
            ),
        )
        .fact("safety", report.durability);
    for shard in report.shards.iter().filter(|shard| shard.records > 0) {
        let name = format!("shard {}", shard.shard);
        facts.fact(&name, format!("{} records, {}", count(shard.records), bytes(shard.bytes)));
    }
    report.not_granted.iter().for_each(|line| {
        facts.fact("not granted", line);
    });
    facts
}
