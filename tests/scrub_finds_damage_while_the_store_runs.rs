//! A scrub of the running store names each damaged place and goes on behind it, at the rate that it was given.
#![expect(clippy::unwrap_used, reason = "tests")]

use corelog::{Address, Durability, FormatOptions, Options, Route, ScrubOptions, ShardId, Store};
use std::{
    fs::OpenOptions,
    num::NonZeroU64,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
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

/// Appends beside the scrub, every 16th record awaited, and reads some of its own back; gives what it appended.
fn append_and_read(
    store: &Store,
    appender: u64,
    is_over: &AtomicBool,
    beside: &AtomicUsize,
) -> Vec<(Address, Vec<u8>)> {
    let mut appended = Vec::new();
    let mut index = 0;
    while !is_over.load(Ordering::Relaxed) {
        let payload: Vec<u8> = (0..100 + index % 900).map(|at| (appender + index * 7 + at) as u8).collect();
        let ticket = store.append_to(Route::Shard(ShardId((index % 2) as u16)), &payload).unwrap();
        if index % 16 == 0 {
            ticket.wait(Durability::Durable).unwrap();
            assert_eq!(store.read(ticket.address()).unwrap(), payload);
        }
        appended.push((ticket.address(), payload));
        beside.fetch_add(1, Ordering::Relaxed);
        index += 1;
        // The store is to last for as long as the scrub takes.
        std::thread::sleep(Duration::from_millis(1));
    }
    appended
}

#[test]
fn a_flipped_bit_is_found_beside_appends_and_reads_that_lose_nothing() {
    const RATE: u64 = 4_000_000;
    // What may have been asked for ahead of the rate: the piece in use and the one behind it.
    const AHEAD: u64 = 2 << 20;
    const RECORDS: u16 = 1200;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("store");
    Store::format(&[&path], &FormatOptions::sized(128 << 20).shards(2).extent_bytes(1 << 20)).unwrap();
    let store = Store::open(&path, &options()).unwrap();
    // Frames of one small record each: nearly all that is read is padding, which counts.
    let append_alone = |index: u16| {
        let ticket = store.append_to(Route::Shard(ShardId(index % 2)), &[index as u8; 100]).unwrap();
        ticket.wait(Durability::Written).unwrap();
        ticket.address()
    };
    let kept: Vec<Address> = (0..RECORDS).map(append_alone).collect();
    store.sync().unwrap();
    flip(&path, kept[123].byte() + AREA + 50);
    let (is_over, beside) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (report, appended) = std::thread::scope(|scope| {
        let spawn = |appender| {
            let (store, is_over, beside) = (&store, &is_over, &beside);
            scope.spawn(move || append_and_read(store, appender, is_over, beside))
        };
        let appenders = [1, 2].map(spawn);
        let (start, mut appended_at_last, mut ahead) = (Instant::now(), 0, Vec::new());
        let how = ScrubOptions { bytes_per_second: NonZeroU64::new(RATE).unwrap() };
        let report = store.scrub_with(how, &mut |report| {
            // Time that passes unseen only makes the bound wider.
            let allowed = (RATE as f64 * start.elapsed().as_secs_f64()) as u64;
            ahead.push(report.read_bytes.saturating_sub(allowed));
            appended_at_last = beside.load(Ordering::Relaxed);
            true
        });
        is_over.store(true, Ordering::Relaxed);
        let appended: Vec<_> = appenders.into_iter().flat_map(|it| it.join().unwrap()).collect();
        assert!(appended_at_last > 0, "nothing was appended beside the scrub");
        assert!(ahead.iter().max().is_some_and(|ahead| *ahead <= AHEAD), "{ahead:?}");
        (report.unwrap(), appended)
    });
    let places: Vec<ShardId> = report.places.iter().map(|damage| damage.place.shard).collect();
    assert_eq!((report.shards, report.damages, places), (2, 1, vec![ShardId(1)]), "{report:?}");
    assert!(report.records >= u64::from(RECORDS) - 1, "{report:?}");
    assert!(
        report.read_bytes >= u64::from(RECORDS) * 4096 && report.read_bytes >= report.bytes,
        "{report:?}"
    );
    let check = |store: &Store| {
        for (address, payload) in &appended {
            assert_eq!(store.read(*address).unwrap(), payload, "{address}");
        }
        for (index, address) in kept.iter().enumerate() {
            assert_eq!(store.read(*address).is_ok(), index != 123, "{address}");
        }
    };
    check(&store);
    store.close().unwrap();
    drop(store);
    let store = Store::open(&path, &options()).unwrap();
    check(&store);
    store.close().unwrap();
}
