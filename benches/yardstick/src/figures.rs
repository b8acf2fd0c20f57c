//! What a run gives: counts, time, and latency.

use crate::limits::LATENCY_NS_MAX;
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use std::{
    fmt,
    time::{Duration, Instant},
};

/// What one run did and how long it took.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize)]
pub struct Figures {
    /// Records appended, acknowledged or read.
    pub records: u64,
    /// Their payload.
    pub payload_bytes: u64,
    /// Wall time from the common start to the end of the last thread.
    pub seconds: f64,
    /// CPU time of the whole process in that time, kernel workers of its rings included.
    pub cpu_seconds: f64,
    /// Write operations that the device completed.
    pub device_writes: u64,
    /// Read operations that the device completed.
    pub device_reads: u64,
    /// Bytes of these reads and writes.
    pub device_bytes: u64,
    /// Cache flushes asked of the device; a DSYNC write counts as one.
    pub syncs: u64,
    /// From the first byte of the request to its answer, for runs that wait for single requests.
    pub latency: Option<Latency>,
}

impl Figures {
    /// Records a second.
    #[must_use]
    pub fn records_per_s(&self) -> f64 {
        self.records as f64 / self.seconds
    }

    /// Millions of payload bytes a second.
    #[must_use]
    pub fn mb_per_s(&self) -> f64 {
        self.payload_bytes as f64 / self.seconds / 1e6
    }

    /// CPU time of one record, in nanoseconds.
    #[must_use]
    pub fn cpu_ns_per_record(&self) -> f64 {
        self.cpu_seconds * 1e9 / self.records as f64
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.1} MB/s, {:.0} records/s, {:.3} s, cpu {:.3} s ({:.0} ns/record), {} writes, {} reads, {} syncs",
            self.mb_per_s(),
            self.records_per_s(),
            self.seconds,
            self.cpu_seconds,
            self.cpu_ns_per_record(),
            self.device_writes,
            self.device_reads,
            self.syncs,
        )?;
        self.latency.map_or(Ok(()), |latency| write!(f, ", {latency}"))
    }
}

/// Latency of single requests, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Latency {
    /// Half of the requests were faster.
    pub us_p50: f64,
    /// 99 of 100 were faster.
    pub us_p99: f64,
    /// 999 of 1000 were faster.
    pub us_p999: f64,
    /// The slowest.
    pub us_max: f64,
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {:.1} us, p99 {:.1} us, p99.9 {:.1} us, max {:.1} us",
            self.us_p50, self.us_p99, self.us_p999, self.us_max
        )
    }
}

/// Gathers latencies; its memory is allocated once.
pub(crate) struct Latencies(Option<Histogram<u64>>);

impl Latencies {
    pub(crate) fn new() -> Self {
        // The bounds are constants that the histogram accepts; without a histogram a run has no latency figure.
        Self(Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).ok())
    }

    /// `count` requests that took `latency` each.
    pub(crate) fn add(&mut self, latency: Duration, count: u64) {
        if let Some(histogram) = &mut self.0 {
            let ns = u64::try_from(latency.as_nanos()).unwrap_or(LATENCY_NS_MAX).clamp(1, LATENCY_NS_MAX);
            histogram.saturating_record_n(ns, count);
        }
    }

    /// `None` if nothing was added.
    pub(crate) fn summary(&self) -> Option<Latency> {
        let histogram = self.0.as_ref().filter(|histogram| !histogram.is_empty())?;
        let us_at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Some(Latency {
            us_p50: us_at(0.5),
            us_p99: us_at(0.99),
            us_p999: us_at(0.999),
            us_max: histogram.max() as f64 / 1e3,
        })
    }
}

/// Wall and CPU time of the measured part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
}

/// Started at the beginning of the measured part.
pub(crate) struct Meter {
    started: Instant,
    cpu_at_start: Duration,
}

impl Meter {
    pub(crate) fn start() -> Self {
        Self { cpu_at_start: process_cpu(), started: Instant::now() }
    }

    pub(crate) fn stop(&self) -> Span {
        Span {
            seconds: self.started.elapsed().as_secs_f64(),
            cpu_seconds: process_cpu().saturating_sub(self.cpu_at_start).as_secs_f64(),
        }
    }
}

/// CPU time of the process so far. Of the process and not of the thread: the kernel's workers, which run what a
/// ring cannot do at once, belong to it.
fn process_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_come_from_what_was_added() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.summary(), None);
        latencies.add(Duration::from_micros(100), 99);
        latencies.add(Duration::from_micros(900), 1);
        let summary = latencies.summary().expect("something was added");
        assert!((summary.us_p50 - 100.0).abs() < 0.2, "{summary}");
        assert!((summary.us_max - 900.0).abs() < 2.0, "{summary}");
    }
}
