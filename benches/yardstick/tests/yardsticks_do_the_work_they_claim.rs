//! Each yardstick, run small: counts add up, and what is on the device afterwards is what was appended.
#![allow(clippy::unwrap_used, reason = "tests")]

use corelog_yardstick::{
    BareCopy, BareDurable, BareLoop, BareRead, OpenLoop, Pinning, RingError, RunError, Space, SpaceError,
    SyncBy, fio,
};
use std::{fs, os::unix::fs::FileExt, path::PathBuf, time::Duration};
use tempfile::TempDir;

const SHORT: Duration = Duration::from_millis(50);

fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// The value, or `None` with a message where the host lacks what every yardstick with a file needs.
fn possible<T>(result: Result<T, RunError>) -> Option<T> {
    match result {
        Err(
            error @ (RunError::Space(SpaceError::NotDirect { .. })
            | RunError::Ring(RingError::Unavailable { .. })),
        ) => {
            eprintln!("skipped: {error}");
            None
        }
        other => Some(other.unwrap()),
    }
}

fn small_loop(paths: Vec<PathBuf>, record_bytes: usize, space: Space) -> BareLoop {
    let mut options = BareLoop::new(paths, record_bytes, 4 << 20, space);
    options.pinning = Pinning::Free;
    options
}

#[test]
fn the_copy_counts_every_record_of_every_thread() {
    for record_bytes in [1, 64, 1000, 4096] {
        let mut copy = BareCopy::new(record_bytes, 10_000, 2);
        copy.pinning = Pinning::Free;
        let figures = copy.run().unwrap();
        assert_eq!(figures.records, 20_000);
        assert_eq!(figures.payload_bytes, 20_000 * record_bytes as u64);
        assert_eq!((figures.device_writes, figures.device_reads), (0, 0));
        assert!(figures.seconds > 0.0 && figures.cpu_seconds > 0.0);
    }
}

#[test]
fn the_loop_writes_full_buffers_and_can_be_run_again() {
    let folder = folder();
    for space in [Space::PreWritten, Space::Fallocated] {
        let paths: Vec<_> = (0..2).map(|file| folder.path().join(format!("{space:?}-{file}"))).collect();
        let Some(mut prepared) = possible(small_loop(paths, 1 << 10, space).prepare()) else { return };
        for _ in 0..2 {
            let Some(figures) = possible(prepared.run()) else { return };
            assert_eq!(figures.payload_bytes, 4 << 20);
            // 253 records of 1032 bytes fill a buffer; 2048 records in each file make 9 writes.
            assert_eq!((figures.device_writes, figures.syncs), (2 * 9, 2));
            assert!(figures.device_bytes > figures.payload_bytes);
        }
    }
}

#[test]
fn the_loop_leaves_exactly_its_records_in_the_file() {
    let folder = folder();
    let path = folder.path().join("log");
    let Some(mut prepared) = possible(small_loop(vec![path.clone()], 64, Space::PreWritten).prepare()) else {
        return;
    };
    if possible(prepared.run()).is_none() {
        return;
    }
    // Read apart from the yardstick's own check: the number that is stamped on each record, in order.
    let bytes = fs::read(path).unwrap();
    let per_frame = ((256 << 10) - 128) / 72;
    for number in [0_usize, 1, per_frame - 1, per_frame, 65_535] {
        let position = number / per_frame * (256 << 10) + 128 + number % per_frame * 72;
        let stamped = u64::from_le_bytes(bytes[position + 8..position + 16].try_into().unwrap());
        assert_eq!(stamped, number as u64, "record at byte {position}");
    }
}

#[test]
fn durable_groups_sync_once_each_by_every_method() {
    let folder = folder();
    let mut options = BareDurable::new(folder.path().join("log"));
    (options.pinning, options.file_bytes) = (Pinning::Free, 1 << 20);
    let Some(mut prepared) = possible(options.prepare()) else { return };
    for sync_by in SyncBy::ALL {
        for waiters in [1, 16, 128] {
            let Some(figures) = possible(prepared.run(waiters, sync_by, SHORT)) else { return };
            assert!(figures.syncs > 0);
            assert_eq!(figures.records, figures.syncs * waiters);
            assert_eq!(figures.device_writes, figures.syncs);
            let latency = figures.latency.unwrap();
            assert!(latency.us_p50 <= latency.us_p99 && latency.us_p99 <= latency.us_max);
        }
    }
}

#[test]
fn reads_check_each_record_and_find_a_changed_byte() {
    let folder = folder();
    let path = folder.path().join("log");
    let mut options = BareRead::new(path.clone());
    (options.pinning, options.file_bytes) = (Pinning::Free, 4 << 20);
    let Some(mut prepared) = possible(options.prepare()) else { return };
    for in_flight in [1, 8, 32] {
        let Some(figures) = possible(prepared.run(in_flight, SHORT)) else { return };
        assert!(figures.records >= in_flight);
        assert_eq!(figures.device_reads, figures.records);
        assert!(figures.latency.is_some());
    }
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    for slot in 0..(4 << 20) / 4096 {
        file.write_all_at(b"damage!!", slot * 4096 + 2048).unwrap();
    }
    file.sync_all().unwrap();
    assert!(matches!(prepared.run(8, SHORT), Err(RunError::Damage { .. })));
}

#[test]
fn options_out_of_bounds_are_named() {
    let folder = folder();
    let path = folder.path().join("log");
    let name_of = |error| match error {
        RunError::Option { name, .. } => name,
        other => panic!("{other}"),
    };
    assert_eq!(name_of(BareCopy::new(0, 1, 1).run().unwrap_err()), "record_bytes");
    assert_eq!(name_of(BareCopy::new(64, 1, 0).run().unwrap_err()), "threads");
    let mut deep = small_loop(vec![path.clone()], 64, Space::PreWritten);
    deep.depth = deep.buffers + 1;
    assert_eq!(name_of(deep.prepare().map(drop).unwrap_err()), "depth");
    let no_path = small_loop(Vec::new(), 64, Space::PreWritten);
    assert_eq!(name_of(no_path.prepare().map(drop).unwrap_err()), "paths");
    let mut short = BareRead::new(path);
    short.file_bytes = 4096;
    assert_eq!(name_of(short.prepare().map(drop).unwrap_err()), "file_bytes");
}

#[test]
fn a_path_that_cannot_be_made_is_named() {
    let options = BareDurable::new("/nonexistent-folder/log".into());
    let error = options.prepare().map(drop).unwrap_err();
    assert!(matches!(&error, RunError::Space(SpaceError::Io { .. })), "{error}");
    assert!(error.to_string().contains("/nonexistent-folder/log"));
}

#[test]
fn fio_runs_the_same_shapes_or_is_absent() {
    let folder = folder();
    let paths: Vec<_> = (0..1).map(|file| folder.path().join(format!("log-{file}"))).collect();
    if possible(small_loop(paths.clone(), 1 << 10, Space::PreWritten).prepare()).is_none() {
        return;
    }
    let (path, file_bytes) = (paths[0].clone(), 4 << 20);
    let jobs = [
        fio::Job::Ingest { paths, file_bytes, block_bytes: 256 << 10, depth: 8 },
        fio::Job::Durable { path: path.clone(), file_bytes, block_bytes: 4096, duration: SHORT },
        fio::Job::RandomRead { path, file_bytes, block_bytes: 4096, depth: 8, duration: SHORT },
    ];
    for job in jobs {
        match fio::run(&job, Pinning::Free) {
            Ok(Some(figures)) => assert!(figures.records > 0 && figures.seconds > 0.0, "{job:?}: {figures}"),
            Ok(None) => eprintln!("skipped: fio is not installed"),
            Err(fio::FioError::Failed { message }) => eprintln!("skipped: {message}"),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn under_an_open_loop_all_that_was_due_is_durable_and_in_the_file() {
    let folder = folder();
    let mut options = BareDurable::new(folder.path().join("log"));
    (options.file_bytes, options.pinning) = (32 << 20, Pinning::Free);
    let Some(mut prepared) = possible(options.prepare()) else { return };
    // The second run comes to the end of the file and begins again at its front.
    for rate in [100.0, 40_000.0] {
        let load = OpenLoop { rate, time: 10 * SHORT };
        let Some((figures, served)) = possible(prepared.run_open(&load)) else { return };
        assert_eq!(served.due, load.requests());
        assert_eq!(figures.records, served.ended);
        assert!(figures.syncs > 0 && figures.syncs == figures.device_writes, "{figures}");
        assert!(figures.latency.is_some());
    }
}
