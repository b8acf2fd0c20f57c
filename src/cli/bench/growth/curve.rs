//! What was measured, as curves.

use super::super::report::median;
use crate::cli::output::{Align, Table, count, duration};
use serde::Serialize;
use std::{fmt, time::Duration};

/// One measurement of a point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    pub records: u64,
    pub seconds: f64,
    pub cpu_seconds: f64,
}

/// All curves.
#[derive(Debug, Serialize)]
pub struct Growth {
    pub repeats: usize,
    pub curves: Vec<Curve>,
}

/// What an append costs by one thing that grows.
#[derive(Debug, Serialize)]
pub struct Curve {
    pub name: &'static str,
    /// What grows.
    pub grows: &'static str,
    /// What is appended, and how.
    pub what: &'static str,
    pub points: Vec<Point>,
}

/// One point of a curve.
#[derive(Debug, Serialize)]
pub struct Point {
    pub at: f64,
    /// Of all repeats.
    pub records: u64,
    /// Median wall time of an append, in nanoseconds.
    pub ns: f64,
    /// Median CPU time of the process for it, in nanoseconds.
    pub cpu_ns: f64,
    /// Of each repeat, for who wants to see the spread.
    pub ns_all: Vec<f64>,
    pub cpu_ns_all: Vec<f64>,
}

impl Curve {
    pub const fn new(name: &'static str, grows: &'static str, what: &'static str) -> Self {
        Self { name, grows, what, points: Vec::new() }
    }

    /// Adds a measurement to the point at `at`.
    pub fn add(&mut self, at: f64, found: Measured) {
        let place = self.points.iter().position(|point| point.at == at).unwrap_or_else(|| {
            let (ns_all, cpu_ns_all) = (Vec::new(), Vec::new());
            self.points.push(Point { at, records: 0, ns: 0.0, cpu_ns: 0.0, ns_all, cpu_ns_all });
            self.points.len() - 1
        });
        let (point, per_record) = (&mut self.points[place], 1e9 / found.records.max(1) as f64);
        point.records += found.records;
        point.ns_all.push(found.seconds * per_record);
        point.cpu_ns_all.push(found.cpu_seconds * per_record);
        point.ns = median(&point.ns_all);
        point.cpu_ns = median(&point.cpu_ns_all);
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |ns: f64| duration(Duration::from_nanos(ns as u64));
        for curve in &self.curves {
            writeln!(f, "{}: {}", curve.name, curve.what)?;
            let columns = [curve.grows, "records", "time of one", "CPU of one", "fastest", "slowest"];
            let mut table = Table::new(columns.map(|column| (column, Align::Right)));
            for point in &curve.points {
                let fastest = point.ns_all.iter().copied().fold(f64::INFINITY, f64::min);
                let slowest = point.ns_all.iter().copied().fold(0.0, f64::max);
                table.row([
                    count(point.at as u64),
                    count(point.records),
                    time(point.ns),
                    time(point.cpu_ns),
                    time(fastest),
                    time(slowest),
                ]);
            }
            writeln!(f, "{table}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Curve, Measured};

    #[test]
    fn a_point_is_the_median_of_its_repeats() {
        let mut curve = Curve::new("sizes", "bytes", "");
        for (at, seconds) in [(16.0, 3.0), (64.0, 8.0), (16.0, 1.0), (16.0, 2.0)] {
            curve.add(at, Measured { records: 1_000_000, seconds, cpu_seconds: seconds / 2.0 });
        }
        let found: Vec<_> = curve.points.iter().map(|point| (point.at, point.ns, point.cpu_ns)).collect();
        assert_eq!(found, [(16.0, 2000.0, 1000.0), (64.0, 8000.0, 4000.0)]);
        assert_eq!(curve.points[0].ns_all, [3000.0, 1000.0, 2000.0]);
    }
}
