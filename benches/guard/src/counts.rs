//! The file of counts, and what becomes of a comparison with it.

use crate::{error::GuardError, paths::Path};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, fs, path};

/// How far a count may be from the kept one, in parts of it: 3 %.
const TOLERANCE: f64 = 0.03;
/// What may happen once in a run and counts for nothing, in events an operation.
const ONCE: f64 = 0.01;
const HEAD: &str = "# What each path costs an operation. Written by `cargo run --release -p corelog-guard -- --renew`, which a change that\n\
    # costs or saves more than 3 % needs; its commit says what for. A compiler or machine that is not in it is not compared.\n\n";

/// Of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Counts {
    pub instructions: f64,
    /// Read-modify-write atomics, those of every uncontended lock among them.
    pub locked: f64,
    pub allocations: f64,
    pub system_calls: f64,
}

impl Counts {
    /// As it is kept: two decimals are more than is compared.
    fn rounded(self) -> Self {
        let round = |count: f64| (count * 100.0).round() / 100.0;
        Self {
            instructions: round(self.instructions),
            locked: round(self.locked),
            allocations: round(self.allocations),
            system_calls: round(self.system_calls),
        }
    }

    fn named(self) -> [(&'static str, f64); 4] {
        [
            ("instructions", self.instructions),
            ("locked", self.locked),
            ("allocations", self.allocations),
            ("system calls", self.system_calls),
        ]
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Machine {
    machine: String,
    paths: BTreeMap<String, Counts>,
}

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    #[serde(default)]
    counted: Vec<Machine>,
}

impl Kept {
    /// A file that is not there holds nothing.
    pub fn read(path: &path::Path) -> Result<Self, GuardError> {
        match fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text)
                .map_err(|error| GuardError::Kept { path: path.to_owned(), error: Box::new(error) }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(GuardError::Host { path: path.to_owned(), error }),
        }
    }

    pub fn write(&self, path: &path::Path) -> Result<(), GuardError> {
        let text = format!("{HEAD}{}", toml::to_string(self)?);
        fs::write(path, text).map_err(|error| GuardError::Host { path: path.to_owned(), error })
    }

    /// Puts what was found in the place of what is kept for the same machine.
    pub fn renew(&mut self, machine: &str, found: &[(Path, Counts)]) {
        self.counted.retain(|counted| counted.machine != machine);
        let paths = found.iter().map(|(path, counts)| (path.name().to_owned(), counts.rounded())).collect();
        self.counted.push(Machine { machine: machine.to_owned(), paths });
    }

    /// Compares.
    pub fn verdict(&self, machine: &str, found: &[(Path, Counts)]) -> Verdict {
        let kept = self.counted.iter().find(|counted| counted.machine == machine);
        let rows = found.iter().map(|&(path, counts)| {
            let before = kept.and_then(|kept| kept.paths.get(path.name())).copied();
            Row { path, counts, before, objections: objections(path, counts, before, kept.is_some()) }
        });
        Verdict { machine: machine.to_owned(), is_known: kept.is_some(), rows: rows.collect() }
    }
}

/// What is wrong with a path's counts.
fn objections(path: Path, now: Counts, before: Option<Counts>, is_known: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let forbidden = [
        ("allocations", now.allocations, path.may_allocate()),
        ("system calls", now.system_calls, path.may_enter_the_kernel()),
    ];
    for (name, count, _) in forbidden.into_iter().filter(|(_, count, allowed)| !allowed && *count > ONCE) {
        wrong.push(format!("{count:.2} {name} an operation, where none may be"));
    }
    match before {
        Some(before) => {
            for ((name, now), (_, before)) in now.named().into_iter().zip(before.named()) {
                if (now - before).abs() > before * TOLERANCE + ONCE {
                    let percent = (now / before - 1.0) * 100.0;
                    wrong.push(format!(
                        "{now:.2} {name} an operation, kept are {before:.2} ({percent:+.1} %)"
                    ));
                }
            }
        }
        None if is_known => wrong.push("nothing is kept of it".to_owned()),
        None => {}
    }
    wrong
}

#[derive(Debug)]
struct Row {
    path: Path,
    counts: Counts,
    before: Option<Counts>,
    objections: Vec<String>,
}

/// What a comparison came to; printed as a table.
#[derive(Debug)]
pub struct Verdict {
    machine: String,
    is_known: bool,
    rows: Vec<Row>,
}

impl Verdict {
    /// True if a path costs what it should.
    pub fn holds(&self) -> bool {
        self.rows.iter().all(|row| row.objections.is_empty())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(
            f,
            "{:<22} {:>12} {:>12} {:>8} {:>11} {:>12}  of one operation",
            "path", "instructions", "kept", "locked", "allocations", "system calls"
        )?;
        for Row { path, counts, before, .. } in &self.rows {
            let kept = before.map_or_else(|| "-".to_owned(), |before| format!("{:.1}", before.instructions));
            writeln!(
                f,
                "{:<22} {:>12.1} {kept:>12} {:>8.2} {:>11.2} {:>12.2}  {}",
                path.name(),
                counts.instructions,
                counts.locked,
                counts.allocations,
                counts.system_calls,
                path.what()
            )?;
        }
        for row in &self.rows {
            for objection in &row.objections {
                writeln!(f, "{}: {objection}", row.path.name())?;
            }
        }
        if !self.is_known {
            writeln!(f, "no counts are kept of this compiler and machine: printed, not compared")?;
        }
        if !self.holds() {
            writeln!(
                f,
                "counts changed. If that is meant, renew them and say why in the commit: cargo run --release -p corelog-guard -- --renew"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts, Kept};
    use crate::paths::Path;

    const BEFORE: Counts = Counts { instructions: 100.0, locked: 2.0, allocations: 0.0, system_calls: 0.0 };

    fn holds(machine: &str, path: Path, now: Counts) -> bool {
        let mut kept = Kept::default();
        kept.renew("this", &[(path, BEFORE)]);
        kept.verdict(machine, &[(path, now)]).holds()
    }

    #[test]
    fn three_percent_more_or_less_is_seen_and_less_is_not() {
        for (instructions, expected) in
            [(100.0, true), (102.9, true), (103.1, false), (97.1, true), (96.9, false)]
        {
            let now = Counts { instructions, ..BEFORE };
            assert_eq!(holds("this", Path::FrameDecode, now), expected, "{instructions}");
            assert!(holds("another", Path::FrameDecode, now), "another machine is not compared");
        }
        assert!(!holds("this", Path::FrameDecode, Counts { locked: 3.0, ..BEFORE }), "an atomic more");
    }

    #[test]
    fn what_no_append_may_do_fails_on_any_machine() {
        let (allocates, enters) =
            (Counts { allocations: 1.0, ..BEFORE }, Counts { system_calls: 1.0, ..BEFORE });
        assert!(!holds("another", Path::LocalAppend64, allocates));
        assert!(!holds("another", Path::LocalAppend64, enters));
        assert!(holds("another", Path::ReadHit, allocates));
        assert!(holds("another", Path::DurableAckAlone, enters));
    }

    #[test]
    fn a_path_that_nothing_is_kept_of_fails_on_a_known_machine() {
        let mut kept = Kept::default();
        kept.renew("this", &[(Path::FrameDecode, BEFORE)]);
        assert!(!kept.verdict("this", &[(Path::ReadHit, BEFORE)]).holds());
        assert!(kept.verdict("another", &[(Path::ReadHit, BEFORE)]).holds());
    }

    #[test]
    fn what_is_written_is_read_back() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("counts.toml");
        let mut kept = Kept::read(&path)?;
        kept.renew("this", &[(Path::ReadHit, BEFORE)]);
        kept.renew("another", &[(Path::ReadHit, Counts { instructions: 99.123, ..BEFORE })]);
        kept.write(&path)?;
        let read = Kept::read(&path)?;
        assert_eq!(read, kept);
        assert!(
            read.verdict("another", &[(Path::ReadHit, Counts { instructions: 99.12, ..BEFORE })]).holds()
        );
        Ok(())
    }
}
