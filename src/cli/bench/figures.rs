//! What a lane measures, and what a workload's report says.

use super::{driver::Driver, payload::Kept};
use corelog::{DeviceCounters, Store};
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

/// Longest latency that is told apart.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Width of a column of the plot of rates.
pub const SERIES_STEP: Duration = Duration::from_millis(100);
/// Quantiles of the plot of latencies.
pub const QUANTILES: [f64; 9] = [0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 0.9999, 1.0];

/// What a lane did.
#[derive(Debug)]
pub struct LaneRun {
    pub records: u64,
    pub payload_bytes: u64,
    pub seconds: f64,
    pub cpu_seconds: f64,
    pub latency: Option<Histogram<u64>>,
    /// Records of each step of time.
    pub series: Vec<u64>,
    pub kept: Vec<Kept>,
    /// It ended because the store was full.
    pub is_full: bool,
    pub work: Work,
}

/// What the device and the core had to do for it.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Work {
    pub device_writes: u64,
    pub device_bytes: u64,
    pub device_reads: u64,
    pub syncs: u64,
    pub system_calls: u64,
    pub turns: u64,
    pub sleeps: u64,
}

impl Work {
    fn now(store: &Store, driver: &impl Driver) -> Self {
        let DeviceCounters { enters, .. } = driver.device_counters();
        let mut work = Self { system_calls: enters, ..Self::default() };
        if let Some(shard) = store.shard(driver.shard()) {
            let counters = shard.counters();
            work.device_writes = counters.frames.load(Ordering::Relaxed);
            work.device_bytes = counters.device_bytes.load(Ordering::Relaxed);
        }
        if let Some(core) = store.directory().core_of(driver.shard()) {
            let counters = &core.counters;
            work.device_reads = counters.device_reads.load(Ordering::Relaxed);
            work.syncs = counters.syncs.load(Ordering::Relaxed);
            work.turns = counters.turns.load(Ordering::Relaxed);
            work.sleeps = counters.sleeps.load(Ordering::Relaxed);
        }
        work
    }

    fn since(self, before: Self) -> Self {
        Self {
            device_writes: self.device_writes - before.device_writes,
            device_bytes: self.device_bytes - before.device_bytes,
            device_reads: self.device_reads - before.device_reads,
            syncs: self.syncs - before.syncs,
            system_calls: self.system_calls - before.system_calls,
            turns: self.turns - before.turns,
            sleeps: self.sleeps - before.sleeps,
        }
    }

    const fn plus(self, other: Self) -> Self {
        Self {
            device_writes: self.device_writes + other.device_writes,
            device_bytes: self.device_bytes + other.device_bytes,
            device_reads: self.device_reads + other.device_reads,
            syncs: self.syncs + other.syncs,
            system_calls: self.system_calls + other.system_calls,
            turns: self.turns + other.turns,
            sleeps: self.sleeps + other.sleeps,
        }
    }
}

/// CPU time of the calling thread.
pub fn thread_cpu() -> Duration {
    since_boot(ClockId::ThreadCPUTime)
}

/// CPU time of the process, the kernel's workers for its rings included.
pub fn process_cpu() -> Duration {
    since_boot(ClockId::ProcessCPUTime)
}

fn since_boot(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// When a lane is to end.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub time: Duration,
    /// Records of a lane.
    pub records: u64,
}

/// Measures one lane from the common start.
#[derive(Debug)]
pub struct Meter {
    limits: Limits,
    started: Instant,
    cpu: Duration,
    before: Work,
    records: u64,
    latency: Option<Histogram<u64>>,
    series: Vec<u64>,
    seen: u64,
    pub is_full: bool,
}

impl Meter {
    pub fn start(limits: Limits, store: &Store, driver: &impl Driver) -> Self {
        let before = Work::now(store, driver);
        let steps = limits.time.as_millis() / SERIES_STEP.as_millis();
        Self {
            limits,
            before,
            records: 0,
            // The bounds are constants that the histogram accepts; without one there are no latencies.
            latency: Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).ok(),
            series: Vec::with_capacity(usize::try_from(steps).unwrap_or(0).min(100_000) + 2),
            seen: 0,
            is_full: false,
            cpu: thread_cpu(),
            started: Instant::now(),
        }
    }

    #[inline]
    pub const fn count(&mut self) {
        self.records += 1;
    }

    /// After so many records it is over.
    pub const fn records_max(&self) -> u64 {
        self.limits.records
    }

    #[inline]
    pub fn latency(&mut self, taken: Duration) {
        if let Some(histogram) = &mut self.latency {
            let ns = u64::try_from(taken.as_nanos()).unwrap_or(LATENCY_NS_MAX);
            histogram.saturating_record(ns.clamp(1, LATENCY_NS_MAX));
        }
    }

    /// Looks at the clock. True: time or records are used up.
    pub fn is_over(&mut self) -> bool {
        let elapsed = self.started.elapsed();
        let step = (elapsed.as_millis() / SERIES_STEP.as_millis()) as usize;
        if self.series.len() <= step && step < self.series.capacity() {
            self.series.resize(step + 1, 0);
        }
        if let Some(column) = self.series.last_mut() {
            *column += self.records - self.seen;
            self.seen = self.records;
        }
        self.is_full || elapsed >= self.limits.time || self.records >= self.limits.records
    }

    pub fn stop(self, record_bytes: u64, store: &Store, driver: &impl Driver, kept: Vec<Kept>) -> LaneRun {
        let seconds = self.started.elapsed().as_secs_f64();
        LaneRun {
            records: self.records,
            payload_bytes: self.records * record_bytes,
            seconds,
            cpu_seconds: thread_cpu().saturating_sub(self.cpu).as_secs_f64(),
            latency: self.latency,
            series: self.series,
            kept,
            is_full: self.is_full,
            work: Work::now(store, driver).since(self.before),
        }
    }
}

/// A line of a workload's table: one core, or all of them.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// `None`: the total.
    pub core: Option<usize>,
    pub records: u64,
    pub payload_bytes: u64,
    pub seconds: f64,
    pub records_per_s: f64,
    pub mb_per_s: f64,
    pub cpu_seconds: f64,
    pub latency_us: Option<LatencyRow>,
    #[serde(flatten)]
    pub work: Work,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct LatencyRow {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl LatencyRow {
    fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let us_at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        (!histogram.is_empty()).then(|| Self {
            p50: us_at(0.5),
            p99: us_at(0.99),
            p999: us_at(0.999),
            max: histogram.max() as f64 / 1e3,
        })
    }
}

/// What a workload came to.
#[derive(Debug, Clone, Serialize)]
pub struct WorkloadReport {
    pub name: &'static str,
    /// What was done, in words.
    pub what: String,
    pub rows: Vec<Row>,
    pub total: Row,
    /// CPU time of the whole process meanwhile, kernel workers included.
    pub process_cpu_seconds: f64,
    /// What there is to say of it.
    pub notes: Vec<String>,
    /// Records a second of each core, for each tenth of a second.
    #[serde(skip)]
    pub series: Vec<Vec<f64>>,
    /// Latency in microseconds at each of [`QUANTILES`].
    #[serde(skip)]
    pub curve: Vec<f64>,
}

impl WorkloadReport {
    pub fn new(name: &'static str, what: String, lanes: &[LaneRun], process_cpu: Duration) -> Self {
        let rows: Vec<Row> = lanes.iter().enumerate().map(|(core, lane)| row(core, lane)).collect();
        let mut all: Option<Histogram<u64>> = None;
        for latency in lanes.iter().filter_map(|lane| lane.latency.as_ref()) {
            match &mut all {
                // Their bounds are equal, so adding cannot fail.
                Some(all) => all.add(latency).unwrap_or_default(),
                none => *none = Some(latency.clone()),
            }
        }
        let seconds = lanes.iter().map(|lane| lane.seconds).fold(0.0, f64::max);
        let records: u64 = rows.iter().map(|row| row.records).sum();
        let payload_bytes: u64 = rows.iter().map(|row| row.payload_bytes).sum();
        let total = Row {
            core: None,
            records,
            payload_bytes,
            seconds,
            records_per_s: records as f64 / seconds,
            mb_per_s: payload_bytes as f64 / seconds / 1e6,
            cpu_seconds: rows.iter().map(|row| row.cpu_seconds).sum(),
            latency_us: all.as_ref().and_then(LatencyRow::of),
            work: rows.iter().fold(Work::default(), |sum, row| sum.plus(row.work)),
        };
        let curve = all.filter(|all| !all.is_empty()).map_or_else(Vec::new, |all| {
            QUANTILES.map(|quantile| all.value_at_quantile(quantile) as f64 / 1e3).to_vec()
        });
        let per_second = 1.0 / SERIES_STEP.as_secs_f64();
        let series = lanes
            .iter()
            .map(|lane| lane.series.iter().map(|&count| count as f64 * per_second).collect())
            .collect();
        let mut notes = Vec::new();
        if lanes.iter().any(|lane| lane.is_full) {
            notes.push("the store was full before the time was over; a larger --size runs longer".to_owned());
        }
        Self { name, what, rows, total, process_cpu_seconds: process_cpu.as_secs_f64(), notes, series, curve }
    }
}

fn row(core: usize, lane: &LaneRun) -> Row {
    Row {
        core: Some(core),
        records: lane.records,
        payload_bytes: lane.payload_bytes,
        seconds: lane.seconds,
        records_per_s: lane.records as f64 / lane.seconds,
        mb_per_s: lane.payload_bytes as f64 / lane.seconds / 1e6,
        cpu_seconds: lane.cpu_seconds,
        latency_us: lane.latency.as_ref().and_then(LatencyRow::of),
        work: lane.work,
    }
}
