//! The engine beside bare loops that do the same to the bytes and nothing else, in turns, so that both meet the same
//! machine. Each figure is the median of its repeats; the spread is beside it.

mod cached;
mod durable;
mod ingest;
mod read;
mod reopen;
mod ring;
mod verdict;

use super::{
    cores,
    error::BenchError,
    ground::{EXTENTS_PER_SHARD, Ground, OwnFile, beside},
    session::LaneOptions,
};
use crate::cli::{
    args::{Bench, JsonTarget, YardstickRow},
    failure::Failure,
    output::Reader,
    size::ByteSize,
};
use corelog::Options;
use corelog_tuning::topology::Topology;
use corelog_yardstick::Pinning;
use serde::Serialize;
use std::{
    fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};
use verdict::{Verdicts, table};

/// A run that ends by its bytes; this only bounds it.
const RUN_MAX: Duration = Duration::from_secs(600);
/// Longest that one run by the clock lasts; `--seconds` may ask for less.
const TIMED_RUN_MAX: Duration = Duration::from_secs(2);

/// Runs the comparisons that were asked for and prints them.
pub fn run(args: &Bench, options: &Options) -> Result<(), Failure> {
    let comparison = Comparison::new(args, options);
    let mut found = Verdicts::default();
    for row in YardstickRow::ALL.into_iter().filter(|row| args.rows.contains(row)) {
        match row {
            YardstickRow::Ring => ring::run(&comparison, &mut found)?,
            YardstickRow::Ingest => ingest::run(&comparison, &mut found)?,
            YardstickRow::Durable => durable::run(&comparison, &mut found)?,
            YardstickRow::Read => {
                read::run(&comparison, &mut found)?;
                cached::run(&comparison, &mut found)?;
            }
            YardstickRow::Reopen => reopen::run(&comparison, &mut found)?,
        }
    }
    print(args, &found, |found| table(&found.rows))
}

/// What all rows are measured with.
pub(super) struct Comparison<'a> {
    pub(super) args: &'a Bench,
    pub(super) options: &'a Options,
    pub(super) repeats: usize,
}

impl<'a> Comparison<'a> {
    pub(super) const fn new(args: &'a Bench, options: &'a Options) -> Self {
        Self { args, options, repeats: args.repeats.get() as usize }
    }

    /// One core, and two where there are.
    fn core_counts(&self) -> impl Iterator<Item = u32> + use<> {
        let most = cores(self.options);
        [1, 2].into_iter().filter(move |&count| count <= most)
    }

    /// Where the bounds run: on the CPUs that the cores of a store at `path` are given.
    pub(super) fn pinning(&self, path: &Path) -> Pinning {
        let topology = Topology::read_near(Path::new("/sys"), Path::new("/proc"), &[path]);
        let Ok(topology) = topology else { return Pinning::From(0) };
        let first = topology.plan(None).places.first().map(|place| place.cpu);
        let index = topology.cpus().iter().position(|cpu| Some(cpu.id) == first);
        Pinning::From(index.unwrap_or(0))
    }

    /// Payload of one run: as asked, or `default`.
    pub(super) fn bytes(&self, default: u64) -> u64 {
        self.args.bytes.map_or(default, |bytes| bytes.0)
    }

    /// How long a run by the clock lasts.
    pub(super) fn time(&self) -> Duration {
        self.args.duration().min(TIMED_RUN_MAX)
    }

    /// A store with room for `bytes` of log.
    pub(super) fn ground(&self, bytes: u64, cores: u32) -> Result<Ground, BenchError> {
        let size = ByteSize(bytes.next_multiple_of(64 << 20) + (1 << 30));
        let args = Bench { size: Some(self.args.size.unwrap_or(size)), ..self.args.clone() };
        Ground::make(&args, cores, EXTENTS_PER_SHARD)
    }

    pub(super) fn lanes(&self, ground: &Ground, record_bytes: usize) -> LaneOptions {
        let seed = u64::from_le_bytes(std::array::from_fn(|index| ground.id.0[index]));
        LaneOptions { hosted: self.args.hosted, record_bytes, seed, session: 0 }
    }
}

/// As JSON, or as the text that `for_person` makes of it, where it was asked for.
pub(super) fn print<T: Serialize, D: fmt::Display>(
    args: &Bench,
    found: &T,
    for_person: impl FnOnce(&T) -> D,
) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let reader = Reader::from_json_flag(args.json == Some(JsonTarget::Standard));
    if let Some(JsonTarget::File(path)) = &args.json {
        let host = |error| BenchError::Host { path: path.clone(), error };
        let mut file = fs::File::create(path).map_err(host)?;
        Reader::Program.write(&mut file, found, |_| "").map_err(host)?;
    }
    reader.write(&mut out, found, for_person).map_err(Failure::of_output)
}

/// A bare loop's files, removed at the end.
pub(super) struct Files(Vec<OwnFile>);

impl Files {
    pub(super) fn beside(ground: &Ground, count: u32) -> Result<Self, BenchError> {
        let claim = |index| OwnFile::claim(beside(&ground.path, &format!(".bare-{index}")));
        (0..count).map(claim).collect::<Result<_, _>>().map(Self)
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.0.iter().map(|file| file.0.clone()).collect()
    }

    pub(super) fn first(&self) -> PathBuf {
        self.0.first().map(|file| file.0.clone()).unwrap_or_default()
    }
}

/// As a name's end: `1 core`, `2 cores`.
fn on_cores(count: u32) -> String {
    if count == 1 { "1 core".to_owned() } else { format!("{count} cores") }
}
