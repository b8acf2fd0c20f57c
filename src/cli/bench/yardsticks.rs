//! The engine beside bare loops that do the same to the bytes and nothing else, in turns, so that both meet the same
//! machine. Each figure is the median of its repeats.

use super::{
    cores,
    error::BenchError,
    figures::{Limits, thread_cpu},
    ground::{Ground, OwnFile, beside},
    report::median,
    session::{LaneOptions, Session},
    work::Work,
};
use crate::cli::{
    args::{Bench, JsonTarget},
    failure::Failure,
    output::{Align, Reader, Table},
    size::ByteSize,
};
use corelog::{Durability, Options, Turn, limits::BUFFER_BYTES_DEFAULT};
use corelog_shards::{
    device::null::NullOptions, memory::Placement, null_core::null_core, open::RingOptions,
    shard::ShardRefusal,
};
use corelog_yardstick::{BareCopy, BareLoop, Space};
use serde::Serialize;
use std::{fs, hint::black_box, path::PathBuf, time::Duration};

/// Turns of each pair.
const REPEATS: usize = 5;
const RING_RECORD_BYTES: usize = 64;
const RING_RECORDS: u64 = 4_000_000;
/// The ring may cost so many nanoseconds a record.
const RING_NS_MAX: f64 = 25.0;
const INGEST_RECORD_BYTES: usize = 1024;
/// Payload of one run of all cores, when nothing is said.
const INGEST_BYTES: u64 = 512 << 20;
/// Part of the bare loop's rate that appending has to reach.
const INGEST_RATIO_MIN: f64 = 0.8;
/// A run ends by its bytes; this only bounds it.
const RUN_MAX: Duration = Duration::from_secs(600);

/// One comparison.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    pub name: String,
    pub unit: &'static str,
    pub ours: f64,
    pub bound: f64,
    /// Ours to the bound's.
    pub ratio: f64,
    pub target: String,
    pub holds: bool,
    /// Of each repeat, for who wants to see the spread.
    pub ours_all: Vec<f64>,
    pub bound_all: Vec<f64>,
}

/// Runs all comparisons and prints them.
pub fn run(args: &Bench, options: &Options) -> Result<(), Failure> {
    let mut verdicts = vec![ring(options, ring_records(args))?];
    for count in [1, 2] {
        if count <= cores(options) {
            verdicts.push(ingest(args, options, count)?);
        }
    }
    print(args, &verdicts)
}

/// As many as the bytes that were asked for hold, if that is less.
fn ring_records(args: &Bench) -> u64 {
    let asked = args.bytes.map_or(u64::MAX, |bytes| bytes.0 / RING_RECORD_BYTES as u64);
    RING_RECORDS.min(asked).max(1)
}

fn print(args: &Bench, verdicts: &Vec<Verdict>) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let reader = Reader::from_json_flag(args.json == Some(JsonTarget::Standard));
    if let Some(JsonTarget::File(path)) = &args.json {
        let host = |error| BenchError::Host { path: path.clone(), error };
        let mut file = fs::File::create(path).map_err(host)?;
        Reader::Program.write(&mut file, verdicts, |_| "").map_err(host)?;
    }
    reader.write(&mut out, verdicts, |verdicts| table(verdicts)).map_err(Failure::of_output)
}

fn table(verdicts: &[Verdict]) -> Table {
    let figures = ["ours", "bare", "ratio"].map(|column| (column, Align::Right));
    let columns = [("yardstick", Align::Left), ("unit", Align::Left)].into_iter().chain(figures);
    let mut table = Table::new(columns.chain([("target", Align::Left), ("verdict", Align::Left)]));
    for verdict in verdicts {
        table.row([
            verdict.name.clone(),
            verdict.unit.to_owned(),
            format!("{:.1}", verdict.ours),
            format!("{:.1}", verdict.bound),
            format!("{:.2}", verdict.ratio),
            verdict.target.clone(),
            if verdict.holds { "holds" } else { "FAILS" }.to_owned(),
        ]);
    }
    table
}

fn verdict(name: String, unit: &'static str, ours: Vec<f64>, bound: Vec<f64>) -> Verdict {
    let (our, bare) = (median(&ours), median(&bound));
    let ratio = our / bare;
    Verdict {
        name,
        unit,
        ours: our,
        bound: bare,
        ratio,
        target: String::new(),
        holds: false,
        ours_all: ours,
        bound_all: bound,
    }
}

/// Appends to a ring whose device stores nothing, from the thread that turns the core, against copying and
/// checksumming into plain buffers. CPU time, so that other processes disturb it less.
fn ring(options: &Options, records: u64) -> Result<Verdict, BenchError> {
    let (mut ours, mut bound) = (Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        ours.push(ring_ns(options, records)?);
        bound.push(BareCopy::new(RING_RECORD_BYTES, records, 1).run()?.cpu_ns_per_record());
    }
    let name = format!("ring, {RING_RECORD_BYTES} B on a null device");
    let found = verdict(name, "ns/record", ours, bound);
    let holds = found.ours < RING_NS_MAX;
    Ok(Verdict { target: format!("below {RING_NS_MAX} ns"), holds, ..found })
}

fn ring_ns(options: &Options, to_append: u64) -> Result<f64, BenchError> {
    let how = RingOptions {
        buffer_bytes: options.buffer_bytes.unwrap_or(BUFFER_BYTES_DEFAULT),
        buffers: options.buffers,
        placement: Placement { huge: options.huge_pages, node: None },
    };
    let (mut core, shard) = null_core(NullOptions::default(), how)?;
    let payload = [0x5a; RING_RECORD_BYTES];
    let (mut frame, mut records) = (None, 0);
    let started = thread_cpu();
    while records < to_append {
        let is_new = match shard.try_append(black_box(&payload)) {
            Ok(placed) => {
                records += 1;
                frame.replace(placed.frame) != Some(placed.frame)
            }
            Err(ShardRefusal::Full) => true,
            Err(_) => return Err(BenchError::CoreClosed { shard: shard.id() }),
        };
        if is_new && core.turn() == Turn::Closed {
            return Err(BenchError::CoreClosed { shard: shard.id() });
        }
    }
    Ok(thread_cpu().saturating_sub(started).as_nanos() as f64 / to_append as f64)
}

/// Buffered appends, durable at the end, against bare loops with the same buffers, depth and checksum.
fn ingest(args: &Bench, options: &Options, count: u32) -> Result<Verdict, BenchError> {
    let bytes = args.bytes.map_or(INGEST_BYTES, |bytes| bytes.0);
    let room = (bytes + bytes / 8) * (REPEATS as u64 + 1);
    let size = ByteSize(room.next_multiple_of(64 << 20) + (1 << 30));
    let args = Bench { size: Some(args.size.unwrap_or(size)), ..args.clone() };
    let ground = Ground::make(&args, count)?;
    let options = options.clone().cores(count);
    let seed = u64::from_le_bytes(std::array::from_fn(|index| ground.id.0[index]));
    let how = LaneOptions { hosted: args.hosted, record_bytes: INGEST_RECORD_BYTES, seed, session: 0 };
    let files = Files::beside(&ground, count)?;
    let mut bare = BareLoop::new(files.paths(), INGEST_RECORD_BYTES, bytes, Space::PreWritten).prepare()?;
    let session = Session::open(&ground.path, &options, how)?;
    let records = bytes / INGEST_RECORD_BYTES as u64 / u64::from(count);
    let work = Work::Append { limits: Limits { time: RUN_MAX, records }, durability: Durability::Durable };
    let (mut ours, mut bound) = (Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        let (lanes, _) = session.run(&work)?;
        let seconds = lanes.iter().map(|lane| lane.seconds).fold(0.0, f64::max);
        let payload: u64 = lanes.iter().map(|lane| lane.payload_bytes).sum();
        ours.push(payload as f64 / seconds / 1e6);
        bound.push(bare.run()?.mb_per_s());
    }
    session.close()?;
    let cores = if count == 1 { "core" } else { "cores" };
    let found = verdict(format!("append, 1 KiB, {count} {cores}"), "MB/s", ours, bound);
    let holds = found.ratio >= INGEST_RATIO_MIN;
    Ok(Verdict { target: format!("{:.0} % or more", INGEST_RATIO_MIN * 100.0), holds, ..found })
}

/// The bare loop's files, removed at the end.
struct Files(Vec<OwnFile>);

impl Files {
    fn beside(ground: &Ground, count: u32) -> Result<Self, BenchError> {
        let claim = |index| OwnFile::claim(beside(&ground.path, &format!(".bare-{index}")));
        (0..count).map(claim).collect::<Result<_, _>>().map(Self)
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.0.iter().map(|file| file.0.clone()).collect()
    }
}
