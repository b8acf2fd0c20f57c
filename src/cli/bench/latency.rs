//! Latency under load: durable appends at parts of the highest rate, due at fixed times, and the bare loop asked the
//! same in turns.

use super::{
    error::BenchError,
    figures::{LaneRun, Limits, WorkloadReport},
    report::median,
    session::Session,
    work::Work,
    yardsticks::{Comparison, Files, print},
};
use crate::cli::{
    args::Bench,
    failure::Failure,
    output::{Align, Table, count, duration, per_second},
};
use corelog::Options;
use corelog_yardstick::{BareDurable, Latency, OpenLoop, PreparedDurable, SyncBy};
use serde::Serialize;
use std::{fmt, time::Duration};

const RECORD_BYTES: usize = 256;
/// Waiting at a time when the highest rate is measured.
const WAITING: usize = 128;
const FILE_BYTES: u64 = 256 << 20;
/// Of the log that runs write in the mean; those that find the highest rate are short.
const RUN_BYTES: u64 = 512 << 20;
const SHORT_RUNS: u32 = 4;

/// Runs the command.
pub fn run(args: &Bench, options: &Options) -> Result<(), Failure> {
    let comparison = Comparison::new(args, options);
    let found = measure(&comparison)?;
    print(args, &found, |found| found.to_string())
}

/// What was found.
#[derive(Debug, Serialize)]
struct LatencyReport {
    record_bytes: usize,
    repeats: usize,
    /// How long requests became due in each run.
    seconds: f64,
    /// Durable acks a second with [`WAITING`] waiting, none of them late: what the loads are parts of.
    highest_per_s: f64,
    bare_highest_per_s: f64,
    rows: Vec<Row>,
}

/// One load on one of the two.
#[derive(Debug, Serialize)]
struct Row {
    load_percent: u32,
    asked_per_s: f64,
    who: &'static str,
    served_per_s: f64,
    /// Medians of the repeats; the worst is the worst of all of them.
    us_p50: f64,
    us_p99: f64,
    us_p999: f64,
    us_worst: f64,
    /// Of each repeat, for who wants to see the spread.
    us_p99_all: Vec<f64>,
    /// Repeats in which it did not keep up.
    behind: usize,
}

fn measure(how: &Comparison<'_>) -> Result<LatencyReport, BenchError> {
    let runs = (how.repeats * (how.args.loads.len() + 1)) as u64;
    let ground = how.ground(runs * how.bytes(RUN_BYTES), 1)?;
    let files = Files::beside(&ground, 1)?;
    let mut bare = BareDurable {
        file_bytes: FILE_BYTES,
        pinning: how.pinning(&ground.path),
        ..BareDurable::new(files.first())
    }
    .prepare()?;
    let options = how.options.clone().cores(1);
    let session = Session::open(&ground.path, &options, how.lanes(&ground, RECORD_BYTES))?;
    let (highest, bare_highest) = highest(how, &session, &mut bare)?;
    let mut rows = Vec::new();
    for &percent in &how.args.loads {
        let load = OpenLoop { rate: highest * f64::from(percent) / 100.0, time: how.time() };
        let (mut ours, mut bound) = (Runs::default(), Runs::default());
        for _ in 0..how.repeats {
            let (lanes, cpu) = session.run(&Work::Open { load })?;
            has_room(&lanes)?;
            let total = WorkloadReport::new("latency", String::new(), &lanes, cpu).total;
            let latency = total.latency_us.map(|found| Latency {
                us_p50: found.p50,
                us_p99: found.p99,
                us_p999: found.p999,
                us_max: found.max,
            });
            ours.add(total.records_per_s, latency, total.records < load.requests());
            let (figures, served) = bare.run_open(&load)?;
            bound.add(figures.records_per_s(), figures.latency, served.is_behind());
        }
        rows.push(ours.row(percent, load.rate, "corelog"));
        rows.push(bound.row(percent, load.rate, "bare loop"));
    }
    session.close()?;
    Ok(LatencyReport {
        record_bytes: RECORD_BYTES,
        repeats: how.repeats,
        seconds: how.time().as_secs_f64(),
        highest_per_s: highest,
        bare_highest_per_s: bare_highest,
        rows,
    })
}

/// The rate with many waiting, ours and the bare loop's.
fn highest(
    how: &Comparison<'_>,
    session: &Session,
    bare: &mut PreparedDurable,
) -> Result<(f64, f64), BenchError> {
    let limits = Limits { time: how.time() / SHORT_RUNS, records: u64::MAX };
    let (mut ours, mut bound) = (Vec::new(), Vec::new());
    for _ in 0..how.repeats {
        let (lanes, cpu) = session.run(&Work::Durable { limits, in_flight: WAITING })?;
        has_room(&lanes)?;
        ours.push(WorkloadReport::new("durable", String::new(), &lanes, cpu).total.records_per_s);
        bound.push(bare.run(WAITING as u64, SyncBy::DsyncWrite, limits.time)?.records_per_s());
    }
    Ok((median(&ours), median(&bound)))
}

/// What a full store did not take would be told as a load that was not served.
fn has_room(lanes: &[LaneRun]) -> Result<(), BenchError> {
    if lanes.iter().any(|lane| lane.is_full) { Err(BenchError::TooFast) } else { Ok(()) }
}

/// The repeats of a load on one of the two.
#[derive(Default)]
struct Runs {
    rates: Vec<f64>,
    latencies: Vec<Latency>,
    behind: usize,
}

impl Runs {
    fn add(&mut self, rate: f64, latency: Option<Latency>, is_behind: bool) {
        self.rates.push(rate);
        self.latencies.extend(latency);
        self.behind += usize::from(is_behind);
    }

    fn row(self, load_percent: u32, asked_per_s: f64, who: &'static str) -> Row {
        let all = |pick: fn(&Latency) -> f64| self.latencies.iter().map(pick).collect::<Vec<_>>();
        Row {
            load_percent,
            asked_per_s,
            who,
            served_per_s: median(&self.rates),
            us_p50: median(&all(|latency| latency.us_p50)),
            us_p99: median(&all(|latency| latency.us_p99)),
            us_p999: median(&all(|latency| latency.us_p999)),
            us_worst: all(|latency| latency.us_max).into_iter().fold(0.0, f64::max),
            us_p99_all: all(|latency| latency.us_p99),
            behind: self.behind,
        }
    }
}

impl fmt::Display for LatencyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "durable appends of {} B, due at fixed times for {} s, {} times in turns; latency from when each was due",
            self.record_bytes, self.seconds, self.repeats
        )?;
        writeln!(
            f,
            "the highest rate, with {WAITING} waiting: corelog {}, bare loop {}",
            per_second(self.highest_per_s),
            per_second(self.bare_highest_per_s)
        )?;
        let columns = ["load", "asked", "", "served", "p50", "p99", "p99.9", "worst", "behind"];
        let align =
            |column: &'static str| (column, if column.is_empty() { Align::Left } else { Align::Right });
        let mut table = Table::new(columns.into_iter().map(align));
        for row in &self.rows {
            let us = |us: f64| duration(Duration::from_nanos((us * 1e3) as u64));
            table.row([
                format!("{} %", row.load_percent),
                per_second(row.asked_per_s),
                row.who.to_owned(),
                per_second(row.served_per_s),
                us(row.us_p50),
                us(row.us_p99),
                us(row.us_p999),
                us(row.us_worst),
                if row.behind == 0 {
                    String::new()
                } else {
                    format!("{} of {}", count(row.behind as u64), self.repeats)
                },
            ]);
        }
        write!(f, "{table}")
    }
}
