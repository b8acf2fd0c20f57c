//! What the program prints: tables for people, JSON for programs, and figures that can be read at a glance.
//!
//! Data goes to standard output, and nothing else does: progress and messages go to standard error.

use serde::Serialize;
use std::{
    fmt,
    io::{self, Write},
    time::Duration,
};

/// Whom the figures are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// A table.
    Person,
    /// One JSON document (`--json`).
    Program,
}

impl Reader {
    /// The reader that the flag `--json` asks for.
    pub const fn from_json_flag(json: bool) -> Self {
        if json { Self::Program } else { Self::Person }
    }

    /// Writes `report`: as JSON, or as the text that `for_person` makes of it.
    pub fn write<T: Serialize, D: fmt::Display>(
        self,
        out: &mut impl Write,
        report: &T,
        for_person: impl FnOnce(&T) -> D,
    ) -> io::Result<()> {
        match self {
            Self::Person => write!(out, "{}", for_person(report))?,
            Self::Program => {
                serde_json::to_writer_pretty(&mut *out, report)?;
                writeln!(out)?;
            }
        }
        out.flush()
    }
}

/// On which side of a column its cells stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Figures.
    Right,
}

/// Rows of cells under headings, printed in columns two spaces apart.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new<'a>(columns: impl IntoIterator<Item = (&'a str, Align)>) -> Self {
        let columns = columns.into_iter().map(|(heading, align)| (heading.to_owned(), align)).collect();
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row; cells that are not given stay empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl fmt::Display>) -> &mut Self {
        let mut row: Vec<String> = cells.into_iter().map(|cell| cell.to_string()).collect();
        assert!(row.len() <= self.columns.len(), "{} cells in {} columns", row.len(), self.columns.len());
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
        self
    }

    fn widths(&self) -> Vec<usize> {
        let width_of = |index: usize, heading: &str| {
            let cells = self.rows.iter().filter_map(|row| row.get(index)).map(|cell| cell.chars().count());
            cells.fold(heading.chars().count(), usize::max)
        };
        self.columns.iter().enumerate().map(|(index, (heading, _))| width_of(index, heading)).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        let headings: Vec<&str> = self.columns.iter().map(|(heading, _)| heading.as_str()).collect();
        let rows = self.rows.iter().map(|row| row.iter().map(String::as_str).collect());
        for cells in std::iter::once(headings).chain(rows) {
            let mut line = String::new();
            for ((cell, width), (_, align)) in cells.into_iter().zip(&widths).zip(&self.columns) {
                match align {
                    Align::Left => line.push_str(&format!("{cell:<width$}  ")),
                    Align::Right => line.push_str(&format!("{cell:>width$}  ")),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Names and values, one pair a line, the values below each other.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pairs: Vec<(String, String)>,
}

impl Facts {
    /// Adds a pair.
    pub fn fact(&mut self, name: &str, value: impl fmt::Display) -> &mut Self {
        self.pairs.push((name.to_owned(), value.to_string()));
        self
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        self.pairs.iter().try_for_each(|(name, value)| writeln!(f, "{name:<width$}  {value}"))
    }
}

/// `1_234_567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push('_');
        }
        grouped.push(digit);
    }
    grouped
}

/// Three significant figures of a number of bytes: `1.50 GiB`.
pub fn bytes(number: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three figures are printed")]
    scaled(number as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

/// A rate of bytes: `812 MB/s`. Rates are of 1000, as devices are sold.
pub fn bytes_per_second(rate: f64) -> String {
    scaled(rate, 1000.0, &["B/s", "kB/s", "MB/s", "GB/s", "TB/s"])
}

/// A rate of anything else: `1.25 M/s`.
pub fn per_second(rate: f64) -> String {
    scaled(rate, 1000.0, &["/s", "k/s", "M/s", "G/s"])
}

/// Three significant figures of a time: `90.1 us`, `1.52 s`.
pub fn duration(time: Duration) -> String {
    scaled(time.as_secs_f64() * 1e9, 1000.0, &["ns", "us", "ms", "s"])
}

fn scaled(number: f64, step: f64, units: &[&str]) -> String {
    let mut number = number;
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    // 999.5 would be printed as 1000: it belongs to the next unit.
    while number >= step - 0.5 {
        let Some(next) = units.next() else { break };
        number /= step;
        unit = next;
    }
    let decimals = match number {
        n if n == n.trunc() && unit.starts_with(['B', 'n', '/']) => 0,
        n if n < 9.995 => 2,
        n if n < 99.95 => 1,
        _ => 0,
    };
    format!("{number:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::{Align, Facts, Reader, Table, bytes, bytes_per_second, count, duration, per_second};
    use serde::Serialize;
    use std::time::Duration;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new([("core", Align::Left), ("rate", Align::Right), ("", Align::Left)]);
        table.row(["0", "12345", "µs"]).row(["total", "1"]);
        assert_eq!(table.to_string(), "core    rate\n0      12345  µs\ntotal      1\n");
    }

    #[test]
    fn facts_stand_below_each_other() {
        let mut facts = Facts::default();
        facts.fact("slot", 4096).fact("shards", 2);
        assert_eq!(facts.to_string(), "slot    4096\nshards  2\n");
        assert_eq!(Facts::default().to_string(), "");
    }

    #[test]
    fn a_report_is_a_table_or_one_json_document() {
        #[derive(Serialize)]
        struct Report {
            records: u64,
        }
        let text = |reader: Reader| {
            let mut out = Vec::new();
            reader
                .write(&mut out, &Report { records: 3 }, |report| format!("{} records\n", report.records))
                .unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(Reader::from_json_flag(false)), "3 records\n");
        assert_eq!(text(Reader::from_json_flag(true)), "{\n  \"records\": 3\n}\n");
    }

    #[test]
    fn figures_have_three_digits_and_a_unit() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1_000", "1_234_567"]);
        assert_eq!([0, 1023, 1536, 1 << 30].map(bytes), ["0 B", "1023 B", "1.50 KiB", "1.00 GiB"]);
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(bytes_per_second(812_400_000.0), "812 MB/s");
        assert_eq!(per_second(999.7), "1.00 k/s");
        assert_eq!(
            [90_100, 1_520_000_000].map(|ns| duration(Duration::from_nanos(ns))),
            ["90.1 us", "1.52 s"]
        );
        assert_eq!(duration(Duration::from_secs(7200)), "7200 s");
    }
}
