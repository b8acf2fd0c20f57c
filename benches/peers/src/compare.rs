//! Which engine runs which case when: in each round all cases, and in each case the engines in turns, so that all of them
//! meet the same moods of the machine.

use crate::{
    args::{Args, Row},
    device::Device,
    engine::{EngineName, Load},
    engines,
    error::{Fault, PeerError},
    limits::{IN_FLIGHT, INGEST_RECORD_BYTES, INGEST_WRITERS, WAITING},
    report::{Case, Failed, Report, Run},
    workloads::{Setup, durable::Durable, ingest::Ingest, read, reopen},
};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// Calls a function that is generic over the engine, by the engine's name.
macro_rules! with_engine {
    ($name:expr, |$engine:ident| $call:expr) => {
        match $name {
            EngineName::Corelog => {
                type $engine = engines::corelog::Corelog;
                $call
            }
            EngineName::RaftEngine => {
                type $engine = engines::raft_engine::RaftEngine;
                $call
            }
            EngineName::Okaywal => {
                type $engine = engines::okaywal::Okaywal;
                $call
            }
            EngineName::Commitlog => {
                type $engine = engines::commitlog::Commitlog;
                $call
            }
            EngineName::Seglog => {
                type $engine = engines::seglog::Seglog;
                $call
            }
            EngineName::Fjall => {
                type $engine = engines::fjall::Fjall;
                $call
            }
            EngineName::Sled => {
                type $engine = engines::sled::Sled;
                $call
            }
            EngineName::Redb => {
                type $engine = engines::redb::Redb;
                $call
            }
            #[cfg(feature = "rocksdb")]
            EngineName::Rocksdb => {
                type $engine = engines::rocksdb::Rocksdb;
                $call
            }
        }
    };
}

/// Figures of one run, each with its case; a run of W3 has several.
type Figures = Vec<(Case, Run)>;

/// A case, or several that one run gives figures for.
#[derive(Debug, Clone, Copy)]
enum Task {
    Ingest(Ingest),
    Durable(Durable),
    Read,
    Reopen,
}

/// Runs everything that was asked for.
pub fn run(args: &Args) -> Report {
    let setup = Setup { folder: args.folder.clone(), size: args.size, time: args.seconds };
    let device = Device::below(&args.folder);
    let tasks: Vec<(Row, Task)> =
        args.rows.iter().flat_map(|&row| tasks_of(row).into_iter().map(move |task| (row, task))).collect();
    let mut report = Report::default();
    let end = args.minutes.map(|minutes| Instant::now() + Duration::from_secs(60) * minutes.get());
    for round in 1..=args.repeats.get() {
        for &(row, task) in &tasks {
            if round > 1 && end.is_some_and(|end| Instant::now() >= end) {
                return report;
            }
            for &engine in &args.engines {
                if report.has_failed(row, engine) {
                    continue;
                }
                eprintln!("round {round} of {}, {}, {engine}", args.repeats, task.name());
                match task.run(engine, &setup, &device) {
                    Ok(figures) => figures.into_iter().for_each(|(case, run)| report.add(&case, engine, run)),
                    Err(error) => report.failed.push(Failed { row, engine, error: error.to_string() }),
                }
            }
        }
    }
    report
}

/// In the process that is to be killed.
pub fn fill(engine: EngineName, folder: &Path, size: u64) -> Result<(), Fault> {
    with_engine!(engine, |E| reopen::fill::<E>(folder, size))
}

fn tasks_of(row: Row) -> Vec<Task> {
    match row {
        Row::W1 => INGEST_WRITERS
            .into_iter()
            .flat_map(|writers| INGEST_RECORD_BYTES.map(|record_bytes| Ingest { record_bytes, writers }))
            .map(Task::Ingest)
            .collect(),
        Row::W2 => [Load::Independent, Load::Driven]
            .into_iter()
            .flat_map(|load| WAITING.map(|waiting| Durable { waiting, load }))
            .map(Task::Durable)
            .collect(),
        Row::W3 => vec![Task::Read],
        Row::W4 => vec![Task::Reopen],
    }
}

impl Task {
    fn name(self) -> String {
        match self {
            Self::Ingest(Ingest { record_bytes, writers: 1 }) => {
                format!("ingest, {record_bytes} B, 1 thread")
            }
            Self::Ingest(Ingest { record_bytes, writers }) => {
                format!("ingest, {record_bytes} B, {writers} threads")
            }
            Self::Durable(Durable { waiting, load: Load::Driven }) => {
                format!("durable acks, 256 B, {waiting} waiting, one driver")
            }
            Self::Durable(Durable { waiting, load: Load::Independent }) => {
                format!("durable acks, 256 B, {waiting} waiting, independent callers")
            }
            Self::Read => "cold random reads, 1 KiB".to_owned(),
            Self::Reopen => "reopen after kill -9, 1 KiB".to_owned(),
        }
    }

    fn run(self, engine: EngineName, setup: &Setup, device: &Device) -> Result<Figures, PeerError> {
        Ok(match self {
            Self::Ingest(ingest) => {
                let figure = with_engine!(engine, |E| ingest.run::<E>(setup))?;
                vec![(Case::rate(Row::W1, self.name(), "MB/s of payload"), Run::from(figure))]
            }
            Self::Durable(durable) => {
                let acks = with_engine!(engine, |E| durable.run::<E>(setup, device))?;
                let case = || Case::rate(Row::W2, self.name(), "acks/s");
                acks.map(|acks| (case(), Run::from(acks))).into_iter().collect()
            }
            Self::Read => {
                let rates = with_engine!(engine, |E| read::run::<E>(setup))?;
                let case = |in_flight| format!("{}, {in_flight} under way", self.name());
                let case = |in_flight| Case::rate(Row::W3, case(in_flight), "reads/s");
                IN_FLIGHT.into_iter().map(case).zip(rates.into_iter().map(Run::from)).collect()
            }
            Self::Reopen => {
                let figure = with_engine!(engine, |E| reopen::run::<E>(setup))?;
                let name = format!("{}, {} MiB", self.name(), setup.size >> 20);
                vec![(Case::time(Row::W4, name, "ms"), Run::from(figure))]
            }
        })
    }
}
