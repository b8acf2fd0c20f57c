//! The `corelog` program.
#![forbid(unsafe_code)]

#[allow(dead_code, reason = "the commands that use these modules come with the store")]
mod cli;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli::args::Args { command: _ } = cli::args::Args::parse();
    eprintln!("corelog: this build has no store to run the command on");
    cli::exit::Exit::Failed.into()
}
