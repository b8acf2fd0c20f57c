//! The program's face: what it takes, what it prints, and what it exits with. One file per command.

pub mod append;
pub mod args;
pub mod backup;
pub mod bench;
pub mod cat;
pub mod exit;
pub mod failure;
pub mod format;
pub mod grow;
pub mod info;
pub mod output;
pub mod progress;
pub mod read;
pub mod retire;
pub mod salvage;
pub mod scrub;
pub mod setup;
pub mod size;
pub mod trim;
pub mod verify;

use args::{Args, Command};
use exit::Exit;
use std::process::ExitCode;

/// Runs the command, and says on standard error why it ended if it did not do everything.
pub fn run(args: Args) -> ExitCode {
    let done = match args.command {
        Command::Format(args) => format::run(&args),
        Command::Append(args) => append::run(&args),
        Command::Cat(args) => cat::run(&args),
        Command::Read(args) => read::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Verify(args) if args.scrub => scrub::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Trim(args) => trim::run(&args),
        Command::Backup(args) => backup::backup(&args),
        Command::Restore(args) => backup::restore(&args),
        Command::Retire(args) => retire::run(&args),
        Command::Grow(args) => grow::run(&args),
        Command::Salvage(args) => salvage::run(&args),
    };
    match done {
        Ok(()) => Exit::Done.into(),
        Err(failure) => failure.report(),
    }
}
