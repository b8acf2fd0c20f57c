//! `corelog-yardstick`: runs the yardsticks and prints a line for each run.
#![forbid(unsafe_code)]

use clap::{Args, Parser, Subcommand, ValueEnum};
use corelog_yardstick::{
    BareCopy, BareDurable, BareLoop, BareRead, Figures, Pinning, RunError, Space, SyncBy, fio,
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

/// What this machine could do without a log.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
struct Common {
    /// Folder for the files; they are removed at the end.
    #[arg(long, global = true, default_value = "corelog-data")]
    folder: PathBuf,
    /// Runs of each kind, interleaved.
    #[arg(long, global = true, default_value_t = 1)]
    repeats: u32,
    /// Do not pin the threads to cores.
    #[arg(long, global = true)]
    unpinned: bool,
    /// The core of the first thread; the others follow.
    #[arg(long, global = true, default_value_t = 0)]
    first_core: usize,
    /// A JSON object for each run instead of a sentence.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Frame, checksum and copy, no device.
    Copy {
        #[arg(long, value_delimiter = ',', default_value = "64,256,1024,4096")]
        record: Vec<usize>,
        #[arg(long, value_delimiter = ',', default_value = "1,2")]
        threads: Vec<usize>,
        /// Payload of each thread.
        #[arg(long, value_parser = size, default_value = "4GiB")]
        bytes: u64,
    },
    /// The same, written by io_uring; and fio with the same blocks, if it is installed.
    Loop {
        #[arg(long, value_delimiter = ',', default_value = "64,256,1024,4096")]
        record: Vec<usize>,
        #[arg(long, value_delimiter = ',', default_value = "1,2")]
        threads: Vec<usize>,
        /// Payload of all threads together.
        #[arg(long, value_parser = size, default_value = "1GiB")]
        bytes: u64,
        #[arg(long, value_delimiter = ',', default_value = "pre-written,fallocated")]
        space: Vec<SpaceName>,
    },
    /// Durable groups of 256-byte records; and fio's DSYNC writes, if it is installed.
    Durable {
        #[arg(long, value_delimiter = ',', default_value = "1,16,128")]
        waiters: Vec<u64>,
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
    },
    /// Random reads of 1 KiB records; and fio's random 4 KiB reads, if it is installed.
    Read {
        #[arg(long, value_delimiter = ',', default_value = "1,8,32")]
        in_flight: Vec<u32>,
        #[arg(long, value_parser = size, default_value = "2GiB")]
        bytes: u64,
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum SpaceName {
    PreWritten,
    Fallocated,
}

impl From<SpaceName> for Space {
    fn from(name: SpaceName) -> Self {
        match name {
            SpaceName::PreWritten => Self::PreWritten,
            SpaceName::Fallocated => Self::Fallocated,
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Fio(#[from] fio::FioError),
    #[error("{path}: {error}")]
    Folder { path: PathBuf, error: io::Error },
    #[error("{0} seconds is not a time to run")]
    Seconds(f64),
}

/// Bytes with an optional suffix KiB, MiB or GiB.
fn size(text: &str) -> Result<u64, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let unit = units.iter().find_map(|(suffix, shift)| Some((text.strip_suffix(suffix)?, *shift)));
    let (digits, shift) = unit.unwrap_or((text, 0));
    let number: u64 = digits.trim().parse().map_err(|_| format!("{text} is not a size such as 8GiB"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text} is too large"))
}

fn seconds(value: f64) -> Result<Duration, CliError> {
    Duration::try_from_secs_f64(value).map_err(|_| CliError::Seconds(value))
}

/// Files in the folder that are removed when the run is over, however it ended.
struct Files<'a> {
    folder: &'a Path,
    paths: Vec<PathBuf>,
}

impl<'a> Files<'a> {
    fn in_folder(folder: &'a Path) -> Result<Self, CliError> {
        fs::create_dir_all(folder).map_err(|error| CliError::Folder { path: folder.into(), error })?;
        Ok(Self { folder, paths: Vec::new() })
    }

    fn add(&mut self) -> PathBuf {
        let path = self.folder.join(format!("yardstick-{}.bin", self.paths.len()));
        self.paths.push(path.clone());
        path
    }
}

impl Drop for Files<'_> {
    fn drop(&mut self) {
        for path in &self.paths {
            // A file that was never made, or that the user took away, is no error.
            let _gone = fs::remove_file(path);
        }
    }
}

impl Common {
    const fn pinning(&self) -> Pinning {
        if self.unpinned { Pinning::Free } else { Pinning::From(self.first_core) }
    }

    fn report(&self, name: &str, figures: &Figures) {
        if self.json {
            let line = serde_json::json!({ "name": name, "records_per_s": figures.records_per_s(),
                "mb_per_s": figures.mb_per_s(), "figures": figures });
            println!("{line}");
        } else {
            println!("{name}: {figures}");
        }
    }

    fn report_fio(&self, name: &str, job: &fio::Job) -> Result<(), CliError> {
        match fio::run(job, self.pinning())? {
            Some(figures) => self.report(name, &figures),
            None => eprintln!("{name}: left out, fio is not installed"),
        }
        Ok(())
    }

    fn copy(&self, record: &[usize], threads: &[usize], bytes: u64) -> Result<(), CliError> {
        for _ in 0..self.repeats {
            for (&record, &threads) in pairs(record, threads) {
                let mut yardstick = BareCopy::new(record, bytes.div_ceil(record.max(1) as u64), threads);
                yardstick.pinning = self.pinning();
                self.report(&format!("copy {record} B, {threads} threads"), &yardstick.run()?);
            }
        }
        Ok(())
    }

    fn bare_loop(
        &self,
        record: &[usize],
        threads: &[usize],
        bytes: u64,
        space: Space,
    ) -> Result<(), CliError> {
        for &threads in threads {
            let mut files = Files::in_folder(&self.folder)?;
            let paths: Vec<PathBuf> = (0..threads).map(|_| files.add()).collect();
            for &record in record {
                let mut yardstick = BareLoop::new(paths.clone(), record, bytes, space);
                yardstick.pinning = self.pinning();
                let block_bytes = yardstick.buffer_bytes as u64;
                let depth = yardstick.depth;
                let mut prepared = yardstick.prepare()?;
                for _ in 0..self.repeats {
                    self.report(&format!("loop {space:?} {record} B, {threads} threads"), &prepared.run()?);
                    if space == Space::PreWritten {
                        let file_bytes = bytes / threads as u64 / block_bytes * block_bytes;
                        let job = fio::Job::Ingest { paths: paths.clone(), file_bytes, block_bytes, depth };
                        self.report_fio(&format!("fio 256 KiB writes, {threads} threads"), &job)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn durable(&self, waiters: &[u64], duration: Duration) -> Result<(), CliError> {
        let mut files = Files::in_folder(&self.folder)?;
        let mut yardstick = BareDurable::new(files.add());
        yardstick.pinning = self.pinning();
        let job = fio::Job::Durable {
            path: yardstick.path.clone(),
            file_bytes: yardstick.file_bytes,
            block_bytes: 4 << 10,
            duration,
        };
        let mut prepared = yardstick.prepare()?;
        for _ in 0..self.repeats {
            for (&waiters, sync_by) in pairs(waiters, &SyncBy::ALL) {
                let figures = prepared.run(waiters, *sync_by, duration)?;
                self.report(&format!("durable {waiters} waiting, {sync_by:?}"), &figures);
            }
            self.report_fio("fio 4 KiB DSYNC writes", &job)?;
        }
        Ok(())
    }

    fn read(&self, in_flight: &[u32], bytes: u64, duration: Duration) -> Result<(), CliError> {
        let mut files = Files::in_folder(&self.folder)?;
        let mut yardstick = BareRead::new(files.add());
        (yardstick.pinning, yardstick.file_bytes) = (self.pinning(), bytes);
        let path = yardstick.path.clone();
        let mut prepared = yardstick.prepare()?;
        for _ in 0..self.repeats {
            for &depth in in_flight {
                let figures = prepared.run(u64::from(depth), duration)?;
                self.report(&format!("read {depth} in flight"), &figures);
                let job = fio::Job::RandomRead {
                    path: path.clone(),
                    file_bytes: prepared.file_bytes(),
                    block_bytes: 4 << 10,
                    depth,
                    duration,
                };
                self.report_fio(&format!("fio 4 KiB reads, {depth} in flight"), &job)?;
            }
        }
        Ok(())
    }
}

fn pairs<'a, A, B>(first: &'a [A], second: &'a [B]) -> impl Iterator<Item = (&'a A, &'a B)> {
    first.iter().flat_map(move |one| second.iter().map(move |other| (one, other)))
}

fn run(cli: &Cli) -> Result<(), CliError> {
    let common = &cli.common;
    match &cli.command {
        Command::Copy { record, threads, bytes } => common.copy(record, threads, *bytes),
        Command::Loop { record, threads, bytes, space } => {
            space.iter().try_for_each(|space| common.bare_loop(record, threads, *bytes, Space::from(*space)))
        }
        Command::Durable { waiters, seconds: value } => common.durable(waiters, seconds(*value)?),
        Command::Read { in_flight, bytes, seconds: value } => {
            common.read(in_flight, *bytes, seconds(*value)?)
        }
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corelog-yardstick: {error}");
            ExitCode::FAILURE
        }
    }
}
