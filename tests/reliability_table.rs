//! The table of faults in docs/RELIABILITY.md says what is: every fault has its row, every test that a row names is there,
//! and so is every error.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const FAULTS: u32 = 40;

struct Row {
    number: u32,
    fault: String,
    outcome: String,
    tests: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rows() -> Vec<Row> {
    let text = fs::read_to_string(root().join("docs/RELIABILITY.md")).unwrap();
    let (_, section) = text.split_once("## Faults, one by one").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let of_line = |line: &str| {
        let cells: Vec<&str> = line.trim().trim_matches('|').split(" | ").map(str::trim).collect();
        let number = cells.first()?.parse().ok()?;
        let [_, fault, outcome, tests] = cells.as_slice() else { panic!("four cells: {line}") };
        Some(Row {
            number,
            fault: (*fault).to_owned(),
            outcome: (*outcome).to_owned(),
            tests: (*tests).to_owned(),
        })
    };
    section.lines().filter(|line| line.starts_with('|')).filter_map(of_line).collect()
}

/// All Rust files of the crates, by path from the root.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = ["src", "tests", "shards/src", "shards/tests", "tuning/src"]
        .map(|folder| root().join(folder))
        .to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

/// What stands between backquotes and has two parts.
fn pairs(text: &str) -> Vec<(&str, &str)> {
    text.split('`').skip(1).step_by(2).filter_map(|quoted| quoted.split_once("::")).collect()
}

/// Whether `text` has a test of this name: the function, with the attribute above it.
fn has_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let heading = format!("fn {name}(");
    lines.iter().enumerate().any(|(index, line)| {
        let is_above = |attribute: &&str| attribute.starts_with("#[");
        line.starts_with(&heading)
            && lines[..index].iter().rev().take_while(|line| is_above(line)).any(|line| *line == "#[test]")
    })
}

/// Whether some `enum` of this name has the variant.
fn has_variant(text: &str, name: &str, variant: &str) -> bool {
    let heading = format!("enum {name} {{");
    text.split(&heading).skip(1).any(|rest| {
        // The enum ends where its closing brace stands at the margin.
        let body = rest.split("\n}").next().unwrap_or_default();
        body.lines()
            .map(str::trim)
            .any(|line| line.strip_prefix(variant).is_some_and(|rest| rest.starts_with([' ', ',', '(', '{'])))
    })
}

#[test]
fn every_fault_has_its_row_and_says_what_happens() {
    let rows = rows();
    let numbers: Vec<u32> = rows.iter().map(|row| row.number).collect();
    assert_eq!(numbers, (1..=FAULTS).collect::<Vec<_>>());
    for row in &rows {
        assert!(!row.fault.is_empty() && !row.outcome.is_empty(), "row {}", row.number);
        let is_answered = !pairs(&row.tests).is_empty() || row.tests.contains("not tested:");
        assert!(is_answered, "row {} names neither a test nor a reason", row.number);
    }
}

#[test]
fn every_test_that_the_table_names_is_there() {
    let sources = sources();
    let mut wrong = Vec::new();
    for row in rows() {
        for (file, test) in pairs(&row.tests) {
            if file.starts_with(char::is_uppercase) {
                continue;
            }
            let ending = format!("/{file}.rs");
            let files: Vec<_> = sources.iter().filter(|(path, _)| path.ends_with(&ending)).collect();
            if !matches!(files.as_slice(), [(_, text)] if has_test(text, test)) {
                wrong.push(format!("row {}: {file}::{test} ({} such files)", row.number, files.len()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_error_that_the_table_names_is_there() {
    let sources = sources();
    let mut named = BTreeSet::new();
    let rows = rows();
    for row in &rows {
        let cells = [&row.outcome, &row.tests];
        let errors = cells.into_iter().flat_map(|cell| pairs(cell));
        named.extend(errors.filter(|(name, _)| name.starts_with(char::is_uppercase)));
    }
    assert!(named.len() > 20, "{named:?}");
    let is_there =
        |(name, variant): &(&str, &str)| sources.iter().any(|(_, text)| has_variant(text, name, variant));
    let wrong: Vec<_> = named.into_iter().filter(|pair| !is_there(pair)).collect();
    assert!(wrong.is_empty(), "not in the code: {wrong:?}");
}
