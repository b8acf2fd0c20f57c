//! `corelog-guard`: runs each of a few fixed paths under callgrind, which counts instead of measuring time, and
//! compares the counts with those in `counts.toml`. They repeat exactly, also on a machine that is busy, so that a
//! change of a few instructions shows.
//!
//! ```sh
//! cargo run --release -p corelog-guard             # compares
//! cargo run --release -p corelog-guard -- --renew  # and writes down what it found
//! ```
#![forbid(unsafe_code)]

mod caching;
mod callgrind;
mod counts;
mod error;
mod key;
mod paths;

use clap::Parser;
use counts::Kept;
use error::GuardError;
use paths::Path;
use std::{path::PathBuf, process::ExitCode};

/// Counts what fixed paths cost, and compares it with what they cost when `counts.toml` was written.
#[derive(Debug, Parser)]
struct Arguments {
    /// Write what was found into the file, in place of what it says of this compiler and machine.
    #[arg(long)]
    renew: bool,
    /// The kept counts.
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/counts.toml"))]
    kept: PathBuf,
    /// Only run this path, without counting: what the command starts under callgrind.
    #[arg(long, value_name = "PATH", hide = true)]
    only_run: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.only_run {
        Some(name) => run_one(name),
        None => compare(&arguments),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("corelog-guard: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Under callgrind: one path, and on standard output what its counts depend on.
fn run_one(name: &str) -> Result<ExitCode, GuardError> {
    let path = Path::ALL.into_iter().find(|path| path.name() == name);
    let path = path.ok_or_else(|| GuardError::NoSuchPath { name: name.to_owned() })?;
    path.run(paths::ROUNDS)?;
    println!("{}", key::processor());
    Ok(ExitCode::SUCCESS)
}

fn compare(arguments: &Arguments) -> Result<ExitCode, GuardError> {
    if cfg!(debug_assertions) {
        return Err(GuardError::NotOptimised);
    }
    let Some(valgrind) = callgrind::version() else {
        println!("instruction counts: skipped, valgrind is not installed");
        return Ok(ExitCode::SUCCESS);
    };
    let mut kept = Kept::read(&arguments.kept)?;
    let (mut found, mut processor) = (Vec::new(), String::new());
    for path in Path::ALL {
        let counted = callgrind::count(path)?;
        processor = counted.processor;
        found.push((path, counted.counts));
    }
    let machine = key::machine(&processor, &valgrind);
    if arguments.renew {
        kept.renew(&machine, &found);
        kept.write(&arguments.kept)?;
    }
    let verdict = kept.verdict(&machine, &found);
    print!("{verdict}");
    Ok(if verdict.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
