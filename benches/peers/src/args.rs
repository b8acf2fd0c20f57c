//! The command line.

use crate::engine::EngineName;
use clap::{Parser, Subcommand, ValueEnum};
use serde::Serialize;
use std::{num::NonZeroU32, path::PathBuf, time::Duration};

/// Drives corelog and other engines through the same workloads, in turns, and prints medians.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// Which workloads: w1 ingest, w2 durable acks, w3 cold reads, w4 reopen after a kill
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Row::ALL)]
    pub rows: Vec<Row>,
    /// Which engines; all by default
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = all_engines())]
    pub engines: Vec<EngineName>,
    /// Rounds; each goes through all cases, and in each case the engines take turns
    #[arg(long, default_value = "5")]
    pub repeats: NonZeroU32,
    /// Begin no case of a second or later round after so many minutes
    #[arg(long)]
    pub minutes: Option<NonZeroU32>,
    /// Payload of a log that is filled, and the most that a run appends: bytes, or with KiB, MiB, GiB behind
    #[arg(long, default_value = "1GiB", value_parser = parse_size)]
    pub size: u64,
    /// The longest that a run by the clock lasts, in seconds
    #[arg(long, default_value = "2", value_parser = parse_seconds)]
    pub seconds: Duration,
    /// Where the stores are made, each in a folder of its own that is removed again
    #[arg(long, default_value = "corelog-data")]
    pub folder: PathBuf,
    /// Write the report to this file as JSON
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Write a plot for each workload into this folder, as SVG
    #[arg(long)]
    pub plots: Option<PathBuf>,
    /// What the program asks of itself
    #[command(subcommand)]
    pub inner: Option<Inner>,
}

/// What the program asks of itself.
#[derive(Debug, Subcommand)]
pub enum Inner {
    /// Fills a store and waits to be killed
    #[command(hide = true)]
    Fill {
        /// Of which engine
        engine: EngineName,
        /// Where
        folder: PathBuf,
        /// Payload in bytes
        size: u64,
    },
}

/// A workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Row {
    /// Ingest
    W1,
    /// Durable acks
    W2,
    /// Cold reads
    W3,
    /// Reopen after a kill
    W4,
}

impl Row {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::W1, Self::W2, Self::W3, Self::W4];
}

fn all_engines() -> Vec<EngineName> {
    EngineName::value_variants().to_vec()
}

/// What a size may not be.
#[derive(Debug, thiserror::Error)]
enum SizeError {
    #[error("a size is a whole number, with B, KiB, MiB or GiB behind it or nothing")]
    Words,
    #[error("a size is at least 1 MiB and at most 2 GiB: logs of some peers end below 4 GiB")]
    Bounds,
}

fn parse_size(text: &str) -> Result<u64, SizeError> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match &text[digits.len()..] {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(SizeError::Words),
    };
    let number: u64 = digits.parse().map_err(|_| SizeError::Words)?;
    let bytes = number.checked_mul(1 << shift).ok_or(SizeError::Bounds)?;
    if (1 << 20..=2 << 30).contains(&bytes) { Ok(bytes) } else { Err(SizeError::Bounds) }
}

/// What a time may not be.
#[derive(Debug, thiserror::Error)]
#[error("seconds are a number from 0.05 to 60")]
struct SecondsError;

fn parse_seconds(text: &str) -> Result<Duration, SecondsError> {
    let seconds: f64 = text.parse().map_err(|_| SecondsError)?;
    if (0.05..=60.0).contains(&seconds) { Ok(Duration::from_secs_f64(seconds)) } else { Err(SecondsError) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::{Args, parse_seconds, parse_size};
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn sizes_are_exact_or_refused() {
        assert_eq!(parse_size("1GiB").unwrap(), 1 << 30);
        assert_eq!(parse_size("1048576").unwrap(), 1 << 20);
        for wrong in ["", "GiB", "1GB", "1.5GiB", "3GiB", "1KiB", "-1MiB", "99999999999999999999GiB"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn seconds_have_bounds() {
        assert_eq!(parse_seconds("0.5").unwrap().as_millis(), 500);
        for wrong in ["", "0", "-1", "61", "NaN", "inf", "2s"] {
            assert!(parse_seconds(wrong).is_err(), "{wrong}");
        }
    }
}
