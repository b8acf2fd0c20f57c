//! Figures of all runs: medians, spread, tables, JSON.

use crate::{args::Row, engine::EngineName, workloads::durable::Acks};
use serde::Serialize;
use std::fmt;

/// What is compared within.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Case {
    /// The workload.
    pub row: Row,
    /// Which of its cases.
    pub name: String,
    /// Of the figures.
    pub unit: &'static str,
    /// True for times, false for rates.
    pub less_is_better: bool,
}

impl Case {
    /// A case whose figure is a rate.
    pub const fn rate(row: Row, name: String, unit: &'static str) -> Self {
        Self { row, name, unit, less_is_better: false }
    }

    /// A case whose figure is a time.
    pub const fn time(row: Row, name: String, unit: &'static str) -> Self {
        Self { row, name, unit, less_is_better: true }
    }
}

/// One run of a case.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// In the case's unit.
    pub figure: f64,
    /// What else a run of durable acks tells.
    pub acks: Option<Acks>,
}

impl From<f64> for Run {
    fn from(figure: f64) -> Self {
        Self { figure, acks: None }
    }
}

impl From<Acks> for Run {
    fn from(acks: Acks) -> Self {
        Self { figure: acks.per_second, acks: Some(acks) }
    }
}

/// One engine in one case.
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    /// Which.
    pub engine: EngineName,
    /// Of the figures of its runs.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
    /// All, in order.
    pub runs: Vec<f64>,
    /// Medians of latencies in microseconds, of durable acks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub us_p50: Option<f64>,
    /// As `us_p50`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub us_p99: Option<f64>,
    /// Flushes of the device for each group of acks that could have waited together, median.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flushes_per_group: Option<f64>,
    /// Why its acks do not count as durable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_durable: Option<String>,
    #[serde(skip)]
    acks: Vec<Acks>,
}

/// Fewer flushes of the device for each group than this, and some acks cannot have been durable.
const FLUSHES_PER_GROUP_MIN: f64 = 0.5;

impl Cell {
    const fn new(engine: EngineName) -> Self {
        Self {
            engine,
            median: 0.0,
            min: 0.0,
            max: 0.0,
            runs: Vec::new(),
            us_p50: None,
            us_p99: None,
            flushes_per_group: None,
            not_durable: None,
            acks: Vec::new(),
        }
    }

    fn add(&mut self, run: Run) {
        self.runs.push(run.figure);
        self.acks.extend(run.acks);
        self.median = median(self.runs.iter().copied()).unwrap_or_default();
        self.min = self.runs.iter().copied().fold(f64::INFINITY, f64::min);
        self.max = self.runs.iter().copied().fold(0.0, f64::max);
        self.us_p50 = median(self.acks.iter().map(|acks| acks.us_p50));
        self.us_p99 = median(self.acks.iter().map(|acks| acks.us_p99));
        self.flushes_per_group = median(self.acks.iter().filter_map(|acks| acks.flushes_per_group));
        if run.acks.is_some() {
            let few = self.flushes_per_group.filter(|&flushes| flushes < FLUSHES_PER_GROUP_MIN);
            let counted = few.map(|flushes| format!("{flushes:.3} flushes of the device for each group"));
            self.not_durable = self.engine.not_durable().map(str::to_owned).or(counted);
        }
    }

    fn spread(&self) -> f64 {
        if self.median > 0.0 { (self.max - self.min) / self.median } else { 0.0 }
    }
}

fn median(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.get(sorted.len().checked_sub(1)? / 2)?, sorted.get(sorted.len() / 2)?);
    Some(f64::midpoint(*low, *high))
}

/// A case with the engines that were run in it.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// Which.
    #[serde(flatten)]
    pub case: Case,
    /// In the order in which they were asked for.
    pub engines: Vec<Cell>,
}

/// A run without a figure.
#[derive(Debug, Clone, Serialize)]
pub struct Failed {
    /// In which workload.
    pub row: Row,
    /// Which engine.
    pub engine: EngineName,
    /// What it said.
    pub error: String,
}

/// Everything.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// By case, in the order in which they were run.
    pub cases: Vec<Comparison>,
    /// What went wrong.
    pub failed: Vec<Failed>,
}

impl Report {
    /// Adds a run.
    pub fn add(&mut self, case: &Case, engine: EngineName, run: Run) {
        let at = self.cases.iter().position(|found| found.case == *case).unwrap_or_else(|| {
            self.cases.push(Comparison { case: case.clone(), engines: Vec::new() });
            self.cases.len() - 1
        });
        let engines = &mut self.cases[at].engines;
        let at = engines.iter().position(|cell| cell.engine == engine).unwrap_or_else(|| {
            engines.push(Cell::new(engine));
            engines.len() - 1
        });
        engines[at].add(run);
    }

    /// Whether an engine has failed in a workload: it is not tried again there.
    pub fn has_failed(&self, row: Row, engine: EngineName) -> bool {
        self.failed.iter().any(|failed| failed.row == row && failed.engine == engine)
    }

    /// The cases of a workload.
    pub fn of(&self, row: Row) -> impl Iterator<Item = &Comparison> {
        self.cases.iter().filter(move |found| found.case.row == row)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for found in &self.cases {
            writeln!(formatter, "\n{}, {}", found.case.name, found.case.unit)?;
            for cell in &found.engines {
                write!(formatter, "  {:<12}{:>14}", cell.engine, rounded(cell.median))?;
                write!(formatter, "  {:>5.1}% spread", cell.spread() * 100.0)?;
                if let Some((p50, p99)) = cell.us_p50.zip(cell.us_p99) {
                    write!(formatter, "  p50 {p50:.0} us, p99 {p99:.0} us")?;
                }
                if let Some(flushes) = cell.flushes_per_group {
                    write!(formatter, "  {flushes:.2} flushes a group")?;
                }
                if let Some(reason) = &cell.not_durable {
                    write!(formatter, "  NOT DURABLE: {reason}")?;
                }
                writeln!(formatter)?;
            }
        }
        for Failed { row, engine, error } in &self.failed {
            writeln!(formatter, "\n{row:?} {engine} failed: {error}")?;
        }
        Ok(())
    }
}

/// Whole from 100 on.
fn rounded(figure: f64) -> String {
    if figure >= 100.0 { format!("{figure:.0}") } else { format!("{figure:.1}") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::{Case, Report, Run, median};
    use crate::{args::Row, engine::EngineName, workloads::durable::Acks};

    #[test]
    fn the_median_is_of_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), Some(2.5));
        assert_eq!(median(std::iter::empty()), None);
    }

    #[test]
    fn runs_gather_by_case_and_engine() {
        let mut report = Report::default();
        let case = Case::rate(Row::W1, "64 B".to_owned(), "MB/s");
        for (engine, figure) in
            [(EngineName::Corelog, 2.0), (EngineName::Redb, 1.0), (EngineName::Corelog, 4.0)]
        {
            report.add(&case, engine, Run::from(figure));
        }
        let [found] = report.cases.as_slice() else { panic!("one case") };
        assert_eq!(found.engines[0].runs, [2.0, 4.0]);
        assert_eq!((found.engines[0].median, found.engines[0].min, found.engines[0].max), (3.0, 2.0, 4.0));
        assert_eq!(found.engines[1].runs, [1.0]);
        assert_eq!(report.of(Row::W2).count(), 0);
    }

    #[test]
    fn acks_without_flushes_are_not_durable() {
        let not_durable = |engine, flushes_per_group| {
            let mut report = Report::default();
            let acks = Acks { per_second: 1.0, us_p50: 1.0, us_p99: 1.0, flushes_per_group };
            report.add(&Case::rate(Row::W2, String::new(), "acks/s"), engine, Run::from(acks));
            report.cases[0].engines[0].not_durable.is_some()
        };
        assert!(not_durable(EngineName::Redb, Some(0.1)));
        assert!(!not_durable(EngineName::Redb, Some(1.0)));
        assert!(!not_durable(EngineName::Redb, None), "a host that tells nothing accuses nobody");
        assert!(not_durable(EngineName::Sled, Some(1.0)), "flushes may be another's; its source says so");
    }
}
