//! A row of the table: ours, the bound, and whether the target holds.

use super::super::report::median;
use crate::cli::output::{Align, Table};
use serde::Serialize;

/// What the ratio of ours to the bound has to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// For rates.
    AtLeast(f64),
    /// For times and costs.
    AtMost(f64),
}

impl Target {
    fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(least) => ratio >= least,
            Self::AtMost(most) => ratio <= most,
        }
    }

    fn words(self) -> String {
        match self {
            Self::AtLeast(least) => format!("at least {least}"),
            Self::AtMost(most) => format!("at most {most}"),
        }
    }
}

/// One comparison.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    pub name: String,
    pub unit: &'static str,
    /// Median.
    pub ours: f64,
    /// Median.
    pub bound: f64,
    /// What the bound is.
    pub against: &'static str,
    /// Ours to the bound's.
    pub ratio: f64,
    pub target: Target,
    pub holds: bool,
    /// Of each repeat, for who wants to see the spread.
    pub ours_all: Vec<f64>,
    pub bound_all: Vec<f64>,
}

/// The whole table.
#[derive(Debug, Default, Serialize)]
pub struct Verdicts {
    pub rows: Vec<Verdict>,
}

/// Figures of ours and of the bound, taken in turns.
#[derive(Debug, Default)]
pub struct Pairs {
    ours: Vec<f64>,
    bound: Vec<f64>,
}

impl Pairs {
    pub fn add(&mut self, ours: f64, bound: f64) {
        self.ours.push(ours);
        self.bound.push(bound);
    }
}

impl Verdicts {
    pub fn add(
        &mut self,
        name: String,
        unit: &'static str,
        against: &'static str,
        pairs: Pairs,
        target: Target,
    ) {
        let Pairs { ours: ours_all, bound: bound_all } = pairs;
        let (ours, bound) = (median(&ours_all), median(&bound_all));
        let ratio = ours / bound;
        let holds = target.holds(ratio);
        self.rows.push(Verdict {
            name,
            unit,
            ours,
            bound,
            against,
            ratio,
            target,
            holds,
            ours_all,
            bound_all,
        });
    }
}

/// Half of the distance between the smallest and the largest, as part of the median.
fn spread(values: &[f64]) -> f64 {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (most - least) / 2.0 / median(values)
}

pub fn table(verdicts: &[Verdict]) -> Table {
    let figures = ["ours", "+-", "bound", "+-", "ratio"].map(|column| (column, Align::Right));
    let columns = [("yardstick", Align::Left), ("unit", Align::Left)].into_iter().chain(figures);
    let ends = [("target", Align::Left), ("verdict", Align::Left), ("bound is", Align::Left)];
    let mut table = Table::new(columns.chain(ends));
    for verdict in verdicts {
        table.row([
            verdict.name.clone(),
            verdict.unit.to_owned(),
            format!("{:.1}", verdict.ours),
            format!("{:.0} %", spread(&verdict.ours_all) * 100.0),
            format!("{:.1}", verdict.bound),
            format!("{:.0} %", spread(&verdict.bound_all) * 100.0),
            format!("{:.2}", verdict.ratio),
            verdict.target.words(),
            if verdict.holds { "holds" } else { "MISSED" }.to_owned(),
            verdict.against.to_owned(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::{Pairs, Target, Verdicts, spread};

    #[test]
    fn a_rate_has_to_be_high_and_a_time_low() {
        let mut found = Verdicts::default();
        for (ours, target) in
            [(95.0, Target::AtLeast(0.95)), (94.0, Target::AtLeast(0.95)), (131.0, Target::AtMost(1.3))]
        {
            let mut pairs = Pairs::default();
            pairs.add(ours, 100.0);
            found.add(String::new(), "", "", pairs, target);
        }
        assert_eq!(found.rows.iter().map(|row| row.holds).collect::<Vec<_>>(), [true, false, false]);
    }

    #[test]
    fn the_spread_is_of_the_extremes() {
        assert!((spread(&[90.0, 100.0, 110.0]) - 0.1).abs() < 1e-9);
    }
}
