//! The same shapes by fio, where it is installed: a yardstick that we did not write.

use crate::{
    error::RunError,
    figures::{Figures, Latency},
    pinning::Pinning,
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

/// What fio is to do. The files must exist and be as long as said: fio then writes into their space as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Sequential writes by io_uring with registered buffers, one process per file, one fsync at the end.
    Ingest {
        /// A file for each process.
        paths: Vec<PathBuf>,
        /// Bytes of each file.
        file_bytes: u64,
        /// Bytes of a write.
        block_bytes: u64,
        /// Writes in flight in each process.
        depth: u32,
    },
    /// One DSYNC write after the other, by pwritev2.
    Durable {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        file_bytes: u64,
        /// Bytes of a write.
        block_bytes: u64,
        /// How long.
        duration: Duration,
    },
    /// Random reads by io_uring.
    RandomRead {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        file_bytes: u64,
        /// Bytes of a read.
        block_bytes: u64,
        /// Reads in flight.
        depth: u32,
        /// How long.
        duration: Duration,
    },
}

/// Why fio gave no figure although it is there.
#[derive(Debug, thiserror::Error)]
pub enum FioError {
    /// It could not be started.
    #[error("fio could not be started: {0}")]
    Start(#[source] io::Error),
    /// It ended with an error.
    #[error("fio failed: {message}")]
    Failed {
        /// What it wrote on standard error.
        message: String,
    },
    /// Its answer is not what this version of us reads.
    #[error("fio's answer could not be read: {0}")]
    Answer(#[source] serde_json::Error),
    /// There are no such cores to pin it to.
    #[error(transparent)]
    Pinning(#[from] RunError),
    /// Its answer has no job in it.
    #[error("fio's answer has no job")]
    NoJob,
}

/// Runs a job; `None` if fio is not installed. A record of the figures is one read or write of fio's.
pub fn run(job: &Job, pinning: Pinning) -> Result<Option<Figures>, FioError> {
    let arguments = arguments(job, pinning)?;
    let output = Command::new("fio").args(arguments).stdin(Stdio::null()).output();
    let output = match output {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(FioError::Start)?,
    };
    if !output.status.success() {
        return Err(FioError::Failed { message: String::from_utf8_lossy(&output.stderr).trim().to_owned() });
    }
    parse(&output.stdout, matches!(job, Job::Durable { .. })).map(Some)
}

fn arguments(job: &Job, pinning: Pinning) -> Result<Vec<String>, RunError> {
    // Latency from submission, as ours is: fio's other figure begins when the kernel has taken the request.
    let mut list: Vec<String> = [
        "--output-format=json",
        "--group_reporting",
        "--name=global",
        "--direct=1",
        "--fallocate=none",
        "--overwrite=1",
        "--lat_percentiles=1",
        "--clat_percentiles=0",
    ]
    .map(String::from)
    .into();
    let timed =
        |duration: &Duration| ["--time_based".to_owned(), format!("--runtime={}ms", duration.as_millis())];
    let engine = |list: &mut Vec<String>, depth: u32| {
        list.extend(["--ioengine=io_uring", "--fixedbufs", "--registerfiles"].map(String::from));
        list.push(format!("--iodepth={depth}"));
    };
    let (paths, file_bytes, block_bytes) = match job {
        Job::Ingest { paths, file_bytes, block_bytes, depth } => {
            engine(&mut list, *depth);
            list.extend(["--rw=write", "--end_fsync=1"].map(String::from));
            (paths.as_slice(), file_bytes, block_bytes)
        }
        Job::Durable { path, file_bytes, block_bytes, duration } => {
            list.extend(["--ioengine=pvsync2", "--rw=write", "--sync=dsync"].map(String::from));
            list.extend(timed(duration));
            (std::slice::from_ref(path), file_bytes, block_bytes)
        }
        Job::RandomRead { path, file_bytes, block_bytes, depth, duration } => {
            engine(&mut list, *depth);
            list.extend(["--rw=randread", "--norandommap"].map(String::from));
            list.extend(timed(duration));
            (std::slice::from_ref(path), file_bytes, block_bytes)
        }
    };
    list.extend([format!("--size={file_bytes}"), format!("--bs={block_bytes}")]);
    let cores: Vec<String> =
        pinning.cores(paths.len())?.iter().flatten().map(|core| core.id.to_string()).collect();
    if !cores.is_empty() {
        list.extend([
            format!("--cpus_allowed={}", cores.join(",")),
            "--cpus_allowed_policy=split".to_owned(),
        ]);
    }
    for (index, path) in paths.iter().enumerate() {
        // fio splits file names at colons unless they are escaped.
        let name = path.display().to_string().replace(':', "\\:");
        list.extend([format!("--name=job{index}"), format!("--filename={name}")]);
    }
    Ok(list)
}

#[derive(Deserialize)]
struct Answer {
    jobs: Vec<JobAnswer>,
}

#[derive(Deserialize)]
struct JobAnswer {
    read: Direction,
    write: Direction,
    usr_cpu: f64,
    sys_cpu: f64,
    job_runtime: u64,
}

#[derive(Deserialize)]
struct Direction {
    total_ios: u64,
    io_bytes: u64,
    bw_bytes: u64,
    runtime: u64,
    lat_ns: Completion,
}

#[derive(Deserialize)]
struct Completion {
    max: f64,
    #[serde(default)]
    percentile: BTreeMap<String, f64>,
}

fn parse(answer: &[u8], durable: bool) -> Result<Figures, FioError> {
    // fio may warn on standard output before the answer begins.
    let start = answer.iter().position(|byte| *byte == b'{').unwrap_or_default();
    let answer: Answer = serde_json::from_slice(&answer[start..]).map_err(FioError::Answer)?;
    let job = answer.jobs.first().ok_or(FioError::NoJob)?;
    let written = job.write.total_ios > 0;
    let direction = if written { &job.write } else { &job.read };
    let at = |name: &str| direction.lat_ns.percentile.get(name).copied();
    let latency =
        at("50.000000").zip(at("99.000000")).zip(at("99.900000")).map(|((p50, p99), p999)| Latency {
            us_p50: p50 / 1e3,
            us_p99: p99 / 1e3,
            us_p999: p999 / 1e3,
            us_max: direction.lat_ns.max / 1e3,
        });
    // The rate that fio prints includes the final fsync; its runtime is in whole milliseconds.
    let seconds = if direction.bw_bytes > 0 {
        direction.io_bytes as f64 / direction.bw_bytes as f64
    } else {
        direction.runtime as f64 / 1e3
    };
    Ok(Figures {
        records: direction.total_ios,
        payload_bytes: direction.io_bytes,
        seconds,
        cpu_seconds: (job.usr_cpu + job.sys_cpu) / 100.0 * job.job_runtime as f64 / 1e3,
        device_writes: if written { direction.total_ios } else { 0 },
        device_reads: if written { 0 } else { direction.total_ios },
        device_bytes: direction.io_bytes,
        syncs: if durable { direction.total_ios } else { u64::from(written) },
        latency,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_answer_is_read_although_a_warning_precedes_it() {
        let answer = br#"note: something
        {"jobs": [{"usr_cpu": 25.0, "sys_cpu": 50.0, "job_runtime": 2000,
          "read": {"total_ios": 0, "io_bytes": 0, "bw_bytes": 0, "runtime": 0, "lat_ns": {"max": 0}},
          "write": {"total_ios": 10, "io_bytes": 40960, "bw_bytes": 20480, "runtime": 2000, "lat_ns": {"max": 90000,
            "percentile": {"50.000000": 1000, "99.000000": 2000, "99.900000": 3000}}}}]}"#;
        let figures = parse(answer, true).unwrap();
        assert_eq!((figures.records, figures.device_writes, figures.syncs), (10, 10, 10));
        assert!((figures.seconds - 2.0).abs() < 1e-9 && (figures.cpu_seconds - 1.5).abs() < 1e-9);
        assert!((figures.latency.unwrap().us_p99 - 2.0).abs() < 1e-9);
    }

    #[test]
    fn an_answer_without_a_job_or_without_sense_is_an_error() {
        assert!(matches!(parse(br#"{"jobs": []}"#, false), Err(FioError::NoJob)));
        assert!(matches!(parse(b"nothing", false), Err(FioError::Answer(_))));
    }

    #[test]
    fn a_colon_in_a_path_does_not_split_it() {
        let job = Job::Durable {
            path: "a:b".into(),
            file_bytes: 1 << 20,
            block_bytes: 4096,
            duration: Duration::from_secs(1),
        };
        assert!(arguments(&job, Pinning::Free).unwrap().contains(&"--filename=a\\:b".to_owned()));
    }
}
