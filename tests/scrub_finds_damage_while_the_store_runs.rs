//! A scrub of the running store names each damaged place and goes on behind it, at the rate that it was given.
#![expect(clippy::unwrap_used, reason = "tests")]

use corelog::{FormatOptions, Options, Route, ScrubOptions, ShardId, Store};
use std::{
    fs::OpenOptions,
    num::NonZeroU64,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

const AREA: u64 = 1 << 20;

fn options() -> Options {
    Options::default().cores(2).buffer_bytes(16 << 10).buffers(4)
}

/// A store with 600 records of 1,000 bytes in two shards, all durable, and where each lies in the file.
fn filled(folder: &Path) -> (PathBuf, Store, Vec<u64>) {
    let path = folder.join("store");
    Store::format(&[&path], &FormatOptions::sized(5 << 20).shards(2).extent_bytes(256 << 10)).unwrap();
    let store = Store::open(&path, &options()).unwrap();
    let append = |index: u16| {
        let payload = [index as u8; 1000];
        store.append_to(Route::Shard(ShardId(index % 2)), &payload).unwrap().address().byte() + AREA
    };
    let places = (0..600).map(append).collect();
    store.sync().unwrap();
    (path, store, places)
}

fn flip(path: &Path, byte: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut value = [0];
    file.read_exact_at(&mut value, byte).unwrap();
    file.write_all_at(&[value[0] ^ 1], byte).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn each_damaged_record_is_named_and_the_others_are_counted() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (path, store, places) = filled(folder.path());
    let clean = store.scrub(ScrubOptions::default()).unwrap();
    assert_eq!((clean.shards, clean.records, clean.damages), (2, 600, 0), "{clean:?}");
    flip(&path, places[100] + 500);
    flip(&path, places[301] + 500);
    let report = store.scrub(ScrubOptions::default()).unwrap();
    assert_eq!((report.shards, report.records, report.damages), (2, 598, 2), "{report:?}");
    let shards: Vec<ShardId> = report.places.iter().map(|damage| damage.place.shard).collect();
    assert_eq!(shards, [ShardId(0), ShardId(1)]);
    // Appending goes on, and what is appended is good.
    store.append(b"later").unwrap();
    assert_eq!(store.scrub(ScrubOptions::default()).unwrap().records, 599);
    store.close().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_corelog"));
        command.arg("verify").arg(&path).arg("--scrub").args(arguments).output().unwrap()
    };
    let done = run(&["--json"]);
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((report["records"].as_u64(), report["damage"].as_u64()), (Some(599), Some(2)), "{report}");
    assert_eq!(run(&["--rate", "0"]).status.code(), Some(2));
}

#[test]
fn the_rate_is_kept_and_a_scrub_can_be_ended() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (_, store, _) = filled(folder.path());
    let slow = ScrubOptions { bytes_per_second: NonZeroU64::new(1_000_000).unwrap() };
    let start = Instant::now();
    let report = store.scrub(slow).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(500), "{} bytes in {:?}", report.bytes, start.elapsed());
    let slower = ScrubOptions { bytes_per_second: NonZeroU64::new(1000).unwrap() };
    let ended = store.scrub_with(slower, &mut |report| report.records == 0).unwrap();
    assert!(ended.records < 600 && ended.shards == 0, "{ended:?}");
    store.close().unwrap();
}
