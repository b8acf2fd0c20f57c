//! Running the program from tests.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    ffi::OsStr,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

/// Exit codes, as `--help` documents them.
pub const DONE: i32 = 0;
pub const DAMAGE: i32 = 1;
pub const USAGE: i32 = 2;
pub const FAILED: i32 = 3;
pub const FULL: i32 = 4;
pub const LOCKED: i32 = 5;
pub const NO_RECORD: i32 = 6;

pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Says that a test was not run, past the capture of the test harness.
pub fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let _nobody_reads_it = writeln!(std::io::stderr(), "{test}: SKIPPED: {why}");
}

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_corelog");

pub fn corelog<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the program with words that are split at spaces; `@` stands for the store.
pub fn run(store: &Path, line: &str) -> Ran {
    run_with(store, line, b"")
}

/// The same, with bytes on standard input.
pub fn run_with(store: &Path, line: &str, input: &[u8]) -> Ran {
    let mut child = spawn(store, line);
    let mut stdin = child.stdin.take().unwrap();
    // A program that refuses its arguments does not read.
    let writing = std::thread::scope(|scope| {
        let writer = scope.spawn(move || stdin.write_all(input));
        let output = child.wait_with_output().unwrap();
        let _refused = writer.join().unwrap();
        output
    });
    Ran::of(line, writing)
}

/// Starts it with a pipe as standard input.
pub fn spawn(store: &Path, line: &str) -> Child {
    let words = line.split(' ').map(|word| match word {
        "@" => store.as_os_str().to_owned(),
        word => word.into(),
    });
    corelog(words).stdin(Stdio::piped()).spawn().unwrap()
}

/// A program that has ended.
#[derive(Debug)]
pub struct Ran {
    pub line: String,
    pub code: Option<i32>,
    pub out: Vec<u8>,
    pub error: String,
}

impl Ran {
    pub fn of(line: &str, output: Output) -> Self {
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!error.contains("panicked"), "{line}: {error}");
        Self { line: line.to_owned(), code: output.status.code(), out: output.stdout, error }
    }

    /// What it printed, after it did everything.
    #[track_caller]
    pub fn done(self) -> String {
        assert_eq!(self.code, Some(DONE), "{}: {}", self.line, self.error);
        String::from_utf8(self.out).unwrap()
    }

    /// The same, as JSON.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.done()).unwrap()
    }

    /// That it ended with `code` and one line that has all of `words`.
    #[track_caller]
    pub fn refused(&self, code: i32, words: &[&str]) -> &Self {
        let Self { line, error, .. } = self;
        assert_eq!(self.code, Some(code), "{line}: {error}");
        let message = error.lines().last().unwrap_or_default();
        assert!(message.starts_with("corelog: "), "{line}: {error}");
        words.iter().for_each(|word| assert!(message.contains(word), "{line}: no {word:?} in {message}"));
        self
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }
}

/// A store of 32 MiB with two shards, and its path in the folder.
pub fn store_in(folder: &Path) -> PathBuf {
    let path = folder.join("store");
    run(&path, "format @ --size 32MiB --shards 2").done();
    path
}

/// Text lines of many lengths.
pub fn lines(count: usize) -> Vec<String> {
    (0..count).map(|line| format!("line {line} {}", "x".repeat(line * 7 % 300))).collect()
}

/// The text with these lines.
pub fn text_of(lines: &[String]) -> Vec<u8> {
    let mut text = lines.join("\n").into_bytes();
    text.push(b'\n');
    text
}

/// Reads records by their addresses, some hundred at a time.
pub fn read_all<'a>(store: &Path, addresses: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let addresses: Vec<&str> = addresses.into_iter().collect();
    let mut records = Vec::with_capacity(addresses.len());
    for part in addresses.chunks(2000) {
        let text = run(store, &format!("read @ {}", part.join(" "))).done();
        records.extend(text.lines().map(str::to_owned));
    }
    records
}
