//! The `corelog` program.
#![forbid(unsafe_code)]

#[allow(dead_code, reason = "`bench` uses helpers of these modules that the other commands do not")]
mod cli;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run(cli::args::Args::parse())
}
