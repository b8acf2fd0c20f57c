//! What the bench prints.

use super::{
    figures::{LatencyRow, Row, WorkloadReport},
    overwrite::OverwriteReport,
};
use crate::cli::output::{Align, Facts, Table, bytes, bytes_per_second, count, duration, per_second};
use corelog::CoreGrants;
use corelog_shards::memory::Pages;
use serde::Serialize;
use std::{fmt, time::Duration};

/// Everything that a run found.
#[derive(Debug, Serialize)]
pub struct Report {
    pub path: String,
    pub store_bytes: u64,
    /// How long making the store took.
    pub making_seconds: f64,
    pub record_bytes: u64,
    /// `owned`: the bench's threads drive the cores; `hosted`: the store's own do.
    pub cores: &'static str,
    pub granted: Vec<CoreGrants>,
    pub pinned: Vec<bool>,
    /// What the devices say of themselves that weakens the store's promises, or its speed.
    pub warnings: Vec<String>,
    pub workloads: Vec<WorkloadReport>,
    pub reopen: Option<ReopenReport>,
    pub overwrite: Option<OverwriteReport>,
    pub seconds: f64,
}

/// What reopening came to.
#[derive(Debug, Serialize)]
pub struct ReopenReport {
    /// Each time, as a killed process leaves the store.
    pub unclean_seconds: Vec<f64>,
    /// Recovery alone, in the same opens.
    pub recovery_seconds: Vec<f64>,
    /// After a clean close.
    pub clean_seconds: f64,
    pub frames: u64,
    pub records: u64,
    pub bytes: u64,
    /// Records that were read and compared after each open.
    pub verified: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.facts())?;
        for workload in &self.workloads {
            write_workload(f, workload)?;
        }
        if let Some(overwrite) = &self.overwrite {
            write!(f, "{overwrite}")?;
        }
        if let Some(reopen) = &self.reopen {
            writeln!(f, "\nreopen: {}", reopen.words())?;
        }
        Ok(())
    }
}

impl Report {
    fn facts(&self) -> Facts {
        let mut facts = Facts::default();
        let made = duration(Duration::from_secs_f64(self.making_seconds));
        facts.fact("store", format!("{}, {}, made in {made}", self.path, bytes(self.store_bytes)));
        let Some(first) = self.granted.first() else { return facts };
        facts.fact("cores", format!("{}, {}", self.granted.len(), self.cores));
        facts.fact("backend", first.device.backend);
        facts.fact("granted", first.device.features.join(", "));
        facts.fact(
            "flush buffers in",
            match first.pages {
                Pages::Huge => "huge pages",
                Pages::Transparent => "ordinary pages, to be merged into huge ones",
                Pages::Normal => "ordinary pages",
            },
        );
        facts.fact("pinned", self.pinned_words());
        for line in self.missing() {
            facts.fact("missing", line);
        }
        facts
    }

    fn pinned_words(&self) -> String {
        let on = self.granted.iter().zip(&self.pinned).map(|(core, pinned)| match (core.cpu, pinned) {
            (Some(cpu), true) => format!("core {} to CPU {cpu}", core.core),
            _ => format!("core {} not", core.core),
        });
        on.collect::<Vec<_>>().join(", ")
    }

    /// What any core asked for in vain, each line once.
    fn missing(&self) -> Vec<&str> {
        let mut lines: Vec<&str> = Vec::new();
        for core in &self.granted {
            for line in core.device.missing.iter().chain(&core.missing) {
                if !lines.contains(&line.as_str()) {
                    lines.push(line);
                }
            }
        }
        lines
    }
}

impl ReopenReport {
    fn words(&self) -> String {
        let time = |seconds: f64| duration(Duration::from_secs_f64(seconds));
        format!(
            "as after a kill {} (median of {}; recovery {} of it), after a clean close {}; {} records in {} frames, {}; {} read back and compared",
            time(median(&self.unclean_seconds)),
            self.unclean_seconds.len(),
            time(median(&self.recovery_seconds)),
            time(self.clean_seconds),
            count(self.records),
            count(self.frames),
            bytes(self.bytes),
            count(self.verified),
        )
    }
}

/// The middle of what was measured; 0 of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

fn write_workload(f: &mut fmt::Formatter<'_>, workload: &WorkloadReport) -> fmt::Result {
    writeln!(f, "\n{}: {}", workload.name, workload.what)?;
    let columns = ["core", "records", "rate", "payload", "p50", "p99", "p99.9", "max", "writes", "written"];
    let more = ["reads", "syncs", "calls", "CPU", "CPU/record"];
    let mut table = Table::new(columns.into_iter().chain(more).map(|column| (column, Align::Right)));
    for row in workload.rows.iter().chain([&workload.total]) {
        table.row(cells(row));
    }
    write!(f, "{table}")?;
    let all = Duration::from_secs_f64(workload.process_cpu_seconds);
    writeln!(f, "the process used {} of CPU, the kernel's workers for it included", duration(all))?;
    for note in &workload.notes {
        writeln!(f, "note: {note}")?;
    }
    Ok(())
}

fn cells(row: &Row) -> Vec<String> {
    let us = |pick: fn(&LatencyRow) -> f64| {
        row.latency_us
            .as_ref()
            .map_or(String::new(), |latency| duration(Duration::from_nanos((pick(latency) * 1e3) as u64)))
    };
    let per_record = row.cpu_seconds / row.records.max(1) as f64;
    vec![
        row.core.map_or("all".to_owned(), |core| core.to_string()),
        count(row.records),
        per_second(row.records_per_s),
        bytes_per_second(row.mb_per_s * 1e6),
        us(|latency| latency.p50),
        us(|latency| latency.p99),
        us(|latency| latency.p999),
        us(|latency| latency.max),
        count(row.work.device_writes),
        bytes(row.work.device_bytes),
        count(row.work.device_reads),
        count(row.work.syncs),
        count(row.work.system_calls),
        duration(Duration::from_secs_f64(row.cpu_seconds)),
        duration(Duration::from_nanos((per_record * 1e9) as u64)),
    ]
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!([median(&[]), median(&[3.0]), median(&[9.0, 1.0, 2.0])], [0.0, 3.0, 2.0]);
    }
}
