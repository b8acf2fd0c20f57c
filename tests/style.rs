//! The rules of `docs/STYLE.md` that a test can hold: what it finds is listed with its place, all of it at once.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const FILE_LINES_MAX: usize = 800;
const MODULE_DOC_LINES_MAX: usize = 20;
/// Folders that hold nothing of ours.
const SKIPPED_FOLDERS: [&str; 4] = ["target", "corelog-data", "artifacts", "corpus"];
/// Where other engines are called by the names that they gave their things.
const WORDS_OF_OTHERS: &str = "benches/peers/src/engines/";
/// The crate roots that must forbid unsafe code.
const SAFE_ROOTS: [&str; 3] = ["src/lib.rs", "src/main.rs", "tuning/src/lib.rs"];

/// A text file of the project, by its path from the root.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// The lines with what is behind `//` cut off. A `//` within a string cuts too: it hides at most that line's rest.
    fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines().map(|(number, line)| (number, line.split("//").next().unwrap_or_default()))
    }

    fn places(&self, wrong: impl Fn(&str) -> bool) -> Vec<String> {
        self.code_lines()
            .filter(|(_, line)| wrong(line))
            .map(|(number, line)| format!("{}:{number}: {}", self.path, line.trim()))
            .collect()
    }

    fn has_unsafe_code(&self) -> bool {
        let keyword = "unsafe";
        self.code_lines().any(|(_, line)| {
            [" {", " fn ", " impl", " trait ", " extern "]
                .iter()
                .any(|rest| line.contains(&format!("{keyword}{rest}")))
        })
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(extension: &str) -> Vec<Source> {
    let mut found = Vec::new();
    collect(root(), extension, &mut found);
    found.sort_by(|left, right| left.path.cmp(&right.path));
    assert!(!found.is_empty(), "no .{extension} file below {}", root().display());
    found
}

fn collect(folder: &Path, extension: &str, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && !SKIPPED_FOLDERS.contains(&name.as_str()) {
                collect(&path, extension, found);
            }
        } else if path.extension().is_some_and(|found| found == extension) {
            let relative = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            found.push(Source { path: relative, text: fs::read_to_string(&path).unwrap() });
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The section of a Markdown text below `heading`, up to the next heading of any level.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, rest) = text.split_once(heading).unwrap_or_else(|| panic!("there is no heading {heading:?}"));
    rest.split("\n#").next().unwrap_or_default()
}

/// What stands between backquotes.
fn quoted(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

fn assert_none(rule: &str, places: &[String]) {
    assert!(places.is_empty(), "{rule}\n{}", places.join("\n"));
}

#[test]
fn no_file_is_longer_than_800_lines() {
    let long: Vec<String> = sources("rs")
        .iter()
        .map(|source| (source.lines().count(), &source.path))
        .filter(|(lines, _)| *lines > FILE_LINES_MAX)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    assert_none("split these files:", &long);
}

#[test]
fn module_docs_are_short() {
    let is_crate_root = |path: &str| path.ends_with("lib.rs");
    let long: Vec<String> = sources("rs")
        .iter()
        .filter(|source| !is_crate_root(&source.path))
        .map(|source| (source.text.lines().take_while(|line| line.starts_with("//!")).count(), &source.path))
        .filter(|(lines, _)| *lines > MODULE_DOC_LINES_MAX)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    assert_none("move the longer part of these module docs to docs/:", &long);
}

#[test]
fn the_program_and_tuning_forbid_unsafe_code() {
    for path in SAFE_ROOTS {
        assert!(read(path).contains("#![forbid(unsafe_code)]"), "{path} does not forbid unsafe code");
    }
}

#[test]
fn architecture_names_exactly_the_files_with_unsafe_code() {
    let architecture = read("docs/ARCHITECTURE.md");
    let named: BTreeSet<&str> = section(&architecture, "## Files with unsafe code")
        .lines()
        .filter(|line| line.starts_with('|'))
        .filter_map(|line| quoted(line).first().copied())
        .collect();
    let sources = sources("rs");
    let found: BTreeSet<&str> =
        sources.iter().filter(|source| source.has_unsafe_code()).map(|source| source.path.as_str()).collect();
    assert_eq!(named, found, "docs/ARCHITECTURE.md (left) and the code (right) differ");
}

#[test]
fn nothing_is_unfinished_or_ignored() {
    let marks = [format!("{}!(", "todo"), format!("{}!(", "unimplemented"), format!("#[{}", "ignore")];
    let found: Vec<String> = sources("rs")
        .iter()
        .flat_map(|source| source.places(|line| marks.iter().any(|mark| line.contains(mark))))
        .collect();
    assert_none("finish these, or take them out:", &found);
}

#[test]
fn every_lint_exception_gives_its_reason() {
    let attributes = ["allow", "expect"].map(|lint| [format!("#[{lint}("), format!("#![{lint}(")]).concat();
    let mut found = Vec::new();
    for source in sources("rs") {
        let lines: Vec<&str> = source.text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            if attributes.iter().any(|attribute| line.trim_start().starts_with(attribute)) {
                let end = lines[index..].iter().position(|line| line.contains(")]")).unwrap_or(0);
                if !lines[index..=index + end].iter().any(|line| line.contains("reason")) {
                    found.push(format!("{}:{}: {}", source.path, index + 1, line.trim()));
                }
            }
        }
    }
    assert_none("give these a reason:", &found);
}

#[test]
fn words_that_the_glossary_replaces_are_not_used() {
    let style = read("docs/STYLE.md");
    let replaced: Vec<(String, String)> = section(&style, "## Words that are not used")
        .lines()
        .filter(|line| line.starts_with('|') && line.contains('`'))
        .flat_map(|line| {
            let words = quoted(line);
            let (instead, wrong) = words.split_last().unwrap();
            wrong.iter().map(|wrong| ((*wrong).to_owned(), (*instead).to_owned())).collect::<Vec<_>>()
        })
        .collect();
    assert!(!replaced.is_empty(), "docs/STYLE.md names no words");
    let mut found = Vec::new();
    let is_ours = |path: &str| path != "docs/STYLE.md" && !path.starts_with(WORDS_OF_OTHERS);
    for source in sources("rs").into_iter().chain(sources("md")).filter(|source| is_ours(&source.path)) {
        for (number, line) in source.lines() {
            let words = words_of(line);
            let wrong = replaced.iter().filter(|(wrong, _)| words.contains(wrong));
            found.extend(wrong.map(|(wrong, instead)| {
                format!("{}:{number}: {wrong:?}, say {instead:?}: {}", source.path, line.trim())
            }));
        }
    }
    assert_none("words that the glossary replaces:", &found);
}

/// The words of a line in lower case; the parts of `snake_case` and `CamelCase` names count each.
fn words_of(line: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for run in line.split(|c: char| !c.is_ascii_alphabetic()) {
        let mut word = String::new();
        let mut previous_lower = false;
        for letter in run.chars() {
            if letter.is_ascii_uppercase() && previous_lower {
                words.insert(std::mem::take(&mut word));
            }
            previous_lower = letter.is_ascii_lowercase();
            word.push(letter.to_ascii_lowercase());
        }
        words.insert(word);
    }
    words
}

#[test]
fn every_link_in_the_docs_leads_somewhere() {
    let mut broken = Vec::new();
    for source in sources("md") {
        let folder = Path::new(&source.path).parent().unwrap_or(Path::new("")).to_owned();
        for (number, line) in source.lines() {
            for target in links(line) {
                if let Some(fault) = fault_of(&folder, &source.path, target) {
                    broken.push(format!("{}:{number}: {target}: {fault}", source.path));
                }
            }
        }
    }
    assert_none("broken links:", &broken);
}

/// The targets of `[text](target)`.
fn links(line: &str) -> Vec<&str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect()
}

fn fault_of(folder: &Path, document: &str, target: &str) -> Option<&'static str> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if path.is_empty() { PathBuf::from(document) } else { folder.join(path) };
    let full = root().join(path);
    if !full.exists() {
        return Some("no such file");
    }
    if anchor.is_empty() || full.extension().is_none_or(|extension| extension != "md") {
        return None;
    }
    let text = fs::read_to_string(full).unwrap();
    let found = text.lines().filter(|line| line.starts_with('#')).any(|heading| anchor_of(heading) == anchor);
    (!found).then_some("no such heading")
}

/// The anchor that common Markdown viewers give a heading.
fn anchor_of(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}

#[test]
fn every_package_takes_the_lints_of_the_workspace() {
    let without: Vec<String> = sources("toml")
        .into_iter()
        .filter(|source| source.path.ends_with("Cargo.toml"))
        .filter(|source| {
            !["benches/peers", "benches/caches", "fuzz"].iter().any(|own| source.path.starts_with(own))
        })
        .filter(|source| !source.text.contains("[lints]\nworkspace = true"))
        .map(|source| source.path)
        .collect();
    assert_none("these packages do not take the workspace's lints:", &without);
}
