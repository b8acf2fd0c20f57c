//! corelog beside other engines: the same records through each, as fast as its own documentation says, and durable where
//! ours are. What is compared, and what is fair, stands in this folder's `README.md`.

mod args;
mod compare;
mod device;
mod engine;
mod engines;
mod error;
mod limits;
mod payload;
mod plot;
mod report;
mod workloads;

use args::{Args, Inner};
use clap::Parser;
use error::PeerError;
use report::Report;
use std::{fs, process::ExitCode};

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Inner::Fill { engine, folder, size }) = &args.inner {
        return match compare::fill(*engine, folder, *size) {
            Ok(()) => ExitCode::SUCCESS,
            Err(fault) => failed(&PeerError::of(*engine)(fault)),
        };
    }
    if let Err(error) = fs::create_dir_all(&args.folder).map_err(PeerError::host(&args.folder)) {
        return failed(&error);
    }
    let report = compare::run(&args);
    println!("{report}");
    match written(&args, &report) {
        Err(error) => failed(&error),
        Ok(()) if report.failed.is_empty() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
    }
}

fn written(args: &Args, report: &Report) -> Result<(), PeerError> {
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(report)?;
        fs::write(path, text).map_err(PeerError::host(path))?;
    }
    match &args.plots {
        Some(folder) => plot::draw(folder, report),
        None => Ok(()),
    }
}

fn failed(error: &PeerError) -> ExitCode {
    eprintln!("corelog-peers: {error}");
    ExitCode::FAILURE
}
