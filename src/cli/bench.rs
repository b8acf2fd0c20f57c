//! `corelog bench`: makes a store, runs workloads on every core of the host, checks what it reads, and says what it
//! found.

mod driver;
mod error;
mod figures;
mod ground;
#[cfg(feature = "yardsticks")]
mod growth;
#[cfg(feature = "yardsticks")]
mod latency;
mod overwrite;
mod payload;
mod plot;
mod reopen;
mod report;
mod session;
mod tasks;
mod work;
#[cfg(feature = "yardsticks")]
mod yardsticks;

use super::{
    args::{Bench, JsonTarget, Workload},
    failure::Failure,
    output::{Reader, bytes},
    setup,
};
use corelog::{
    Backend, Durability, Options,
    limits::{BUFFER_BYTES_DEFAULT, record_bytes_max},
};
use error::BenchError;
use figures::{Limits, WorkloadReport};
use ground::Ground;
use payload::Kept;
use report::{ReopenReport, Report};
use session::{LaneOptions, Session};
use std::{fs::File, sync::Arc, time::Instant};
use work::Work;

/// Part of the store that one append workload may fill, in tenths; durable appends get the rest.
const APPEND_TENTHS: u64 = 6;
/// What the durable workload may fill: its frames are padded to slots.
const DURABLE_TENTHS: u64 = 3;
/// Records of a lane to read from when no workload before appended any.
const RECORDS_TO_READ: u64 = 1 << 18;

/// Runs the command.
pub fn run(args: &Bench) -> Result<(), Failure> {
    let options = options(args)?;
    // The store of a bench has extents that the default fits.
    let record_max = record_bytes_max(options.buffer_bytes.unwrap_or(BUFFER_BYTES_DEFAULT));
    if args.record.0 > record_max {
        return Err(BenchError::RecordTooLarge { bytes: args.record.0, max: record_max }.into());
    }
    #[cfg(feature = "yardsticks")]
    if args.yardsticks {
        return yardsticks::run(args, &options);
    }
    #[cfg(feature = "yardsticks")]
    if args.latency {
        return latency::run(args, &options);
    }
    #[cfg(feature = "yardsticks")]
    if args.growth {
        return growth::run(args, &options);
    }
    let report = measure(args, &options)?;
    if let Some(path) = &args.svg {
        plot::draw(path, &report)?;
    }
    print(args, &report)
}

/// As for every command, but a host without io_uring is a finding here, not an error.
fn options(args: &Bench) -> Result<Options, Failure> {
    let mut options = setup::options(&args.run)?;
    if !args.run.device.further.is_empty() {
        return Err(Failure::new(
            super::exit::Exit::Usage,
            "bench makes its store on one device; leave --device out",
        ));
    }
    if let Some(cache) = args.cache {
        options.cache_bytes = cache.0;
    }
    if args.run.device.backend.is_none() && args.run.profile.is_none() {
        options.backend = Backend::Auto;
    }
    Ok(options)
}

/// One core for each CPU, unless told otherwise.
fn cores(options: &Options) -> u32 {
    options.cores.unwrap_or_else(setup::cpus)
}

fn measure(args: &Bench, options: &Options) -> Result<Report, BenchError> {
    let started = Instant::now();
    let is_overwrite = args.workload.contains(&Workload::Overwrite);
    if is_overwrite && args.workload.len() > 1 {
        return Err(BenchError::NotAlone);
    }
    let extents = if is_overwrite { overwrite::EXTENTS_PER_SHARD } else { ground::EXTENTS_PER_SHARD };
    let ground = Ground::make(args, cores(options), extents)?;
    let of_overwrite = if is_overwrite { Some(overwrite::options(args, options, &ground)?) } else { None };
    let options = of_overwrite.as_ref().unwrap_or(options);
    let seed = u64::from_le_bytes(std::array::from_fn(|index| ground.id.0[index]));
    let how = LaneOptions { hosted: args.hosted, record_bytes: args.record.0 as usize, seed, session: 0 };
    let session = Session::open(&ground.path, options, how)?;
    let mut report = Report {
        path: ground.path.display().to_string(),
        store_bytes: ground.room,
        making_seconds: ground.making.as_secs_f64(),
        record_bytes: args.record.0,
        cores: if args.hosted { "hosted" } else { "owned" },
        granted: session.store.grants(),
        pinned: session.pinned.clone(),
        warnings: setup::announce(&session.store),
        workloads: Vec::new(),
        reopen: None,
        overwrite: None,
        seconds: 0.0,
    };
    let mut run = Run { args, options, ground: &ground, how, kept: Arc::default() };
    let session = run.all(session, &mut report)?;
    session.close()?;
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// A run over all workloads.
struct Run<'a> {
    args: &'a Bench,
    options: &'a Options,
    ground: &'a Ground,
    how: LaneOptions,
    /// What can be read and checked.
    kept: Arc<Vec<Kept>>,
}

impl Run<'_> {
    fn all(&mut self, mut session: Session, report: &mut Report) -> Result<Session, BenchError> {
        for workload in &self.args.workload {
            match workload {
                Workload::Append => report.workloads.push(self.append(&session)?),
                Workload::Durable => report.workloads.push(self.durable(&session)?),
                Workload::Read => report.workloads.push(self.read(&session)?),
                Workload::Overwrite => overwrite::run(self.args, self.ground, &session, report)?,
                Workload::Reopen => {
                    let (reopened, found) = self.reopen(session)?;
                    (session, report.reopen) = (reopened, Some(found));
                }
            }
        }
        Ok(session)
    }

    /// Time as asked; records as asked, or as many as fit into a part of the store.
    fn limits(&self, lanes: usize, tenths: u64, padding: u64) -> Limits {
        let lanes = lanes as u64;
        let record = (self.args.record.0 + 16).next_multiple_of(8) + padding;
        let room = self.ground.room / 10 * tenths / lanes / record;
        let asked =
            self.args.bytes.map_or(u64::MAX, |bytes| bytes.0.div_ceil(self.args.record.0.max(1)) / lanes);
        Limits { time: self.args.duration(), records: room.min(asked).max(1) }
    }

    fn remember(&mut self, lanes: &mut [figures::LaneRun]) {
        let kept = Arc::make_mut(&mut self.kept);
        for lane in lanes {
            kept.append(&mut lane.kept);
        }
    }

    fn append(&mut self, session: &Session) -> Result<WorkloadReport, BenchError> {
        let durability = Durability::from(self.args.durability);
        let limits = self.limits(session.lanes(), APPEND_TENTHS, 0);
        let (mut lanes, cpu) = session.run(&Work::Append { limits, durability })?;
        self.remember(&mut lanes);
        let what = format!("records of {}, all {durability} at the end", bytes(self.args.record.0));
        let mut report = WorkloadReport::new("append", what, &lanes, cpu);
        let is_cut = lanes.iter().all(|lane| lane.records >= limits.records);
        if is_cut && self.args.bytes.is_none() {
            report
                .notes
                .push("ended when its part of the store was full; a larger --size runs longer".to_owned());
        }
        Ok(report)
    }

    fn durable(&mut self, session: &Session) -> Result<WorkloadReport, BenchError> {
        let in_flight = self.args.in_flight.get() as usize;
        // A group of them shares a frame, which is padded to a slot.
        let padding = 4096_u64.div_ceil(in_flight as u64);
        let limits = self.limits(session.lanes(), DURABLE_TENTHS, padding);
        let (mut lanes, cpu) = session.run(&Work::Durable { limits, in_flight })?;
        self.remember(&mut lanes);
        let what =
            format!("records of {}, {in_flight} a core waiting to be durable", bytes(self.args.record.0));
        Ok(WorkloadReport::new("durable", what, &lanes, cpu))
    }

    fn read(&mut self, session: &Session) -> Result<WorkloadReport, BenchError> {
        let in_flight = self.args.in_flight.get() as usize;
        if self.kept.is_empty() {
            let Limits { records, .. } = self.limits(session.lanes(), APPEND_TENTHS, 0);
            let limits = Limits { records: records.min(RECORDS_TO_READ), time: self.args.duration() };
            let (mut lanes, _) = session.run(&Work::Append { limits, durability: Durability::Written })?;
            self.remember(&mut lanes);
        }
        let limits = Limits { time: self.args.duration(), records: u64::MAX };
        let kept = Arc::clone(&self.kept);
        let before = session.store.stats().reads;
        let (lanes, cpu) = session.run(&Work::Read { limits, in_flight, kept })?;
        let what = format!(
            "random records of {}, {in_flight} a core under way, each compared",
            bytes(self.args.record.0)
        );
        let mut report = WorkloadReport::new("read", what, &lanes, cpu);
        let reads = session.store.stats().reads.since(&before);
        report.notes.extend(reads.hit_rate().map(|rate| {
            format!(
                "{:.1} % of the reads found the record in a cache; those hold {}",
                100.0 * rate,
                bytes(reads.cache_bytes)
            )
        }));
        Ok(report)
    }

    fn reopen(&mut self, session: Session) -> Result<(Session, ReopenReport), BenchError> {
        let (session, report) = reopen::run(self, session)?;
        Ok((session, report))
    }
}

fn print(args: &Bench, report: &Report) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let by = |reader: Reader, out: &mut dyn std::io::Write| {
        let mut out = out;
        reader.write(&mut out, report, |report| report.to_string())
    };
    match &args.json {
        None => by(Reader::Person, &mut out).map_err(Failure::of_output),
        Some(JsonTarget::Standard) => by(Reader::Program, &mut out).map_err(Failure::of_output),
        Some(JsonTarget::File(path)) => {
            let host = |error| BenchError::Host { path: path.clone(), error };
            let mut file = File::create(path).map_err(host)?;
            by(Reader::Program, &mut file).map_err(host)?;
            by(Reader::Person, &mut out).map_err(Failure::of_output)
        }
    }
}
