//! The figures of a store: what was appended and written, for each shard and in sum, and nothing of what came before
//! the open. What cleaning costs is told apart from what was appended.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "common/overwrites.rs"]
mod overwrites;
mod program;

use common::{Place, payload};
use corelog::{FormatOptions, RecordOwner, Route, ShardId, Stats, Store};
use overwrites::{Index, Random, VALUE};
use program::{FAILED, USAGE, run};
use std::sync::Arc;

const SHARDS: u32 = 2;

#[test]
fn what_was_appended_and_written_is_counted_since_the_open() {
    let place = Place::formatted(SHARDS);
    let store = Store::open(&place.path, &common::options(SHARDS)).unwrap();
    assert_eq!((store.stats().total.records, store.stats().total.write_amplification()), (0, None));
    let to = |shard| Route::Shard(ShardId(shard));
    for index in 0..1000 {
        store.append_to(to(0), &payload(0, index, 100)).unwrap();
    }
    drop(store.reserve(to(0), 500).unwrap());
    let mut batch = store.batch(to(1)).unwrap();
    for index in 0..10 {
        batch.append(&payload(1, index, 1000)).unwrap();
    }
    batch.commit().unwrap();
    let mut large = store.append_large(to(1)).unwrap();
    large.append(&payload(2, 0, 3_000_000)).unwrap();
    large.finish().unwrap();
    store.sync().unwrap();
    let stats = store.stats();
    let [one, two] = [0, 1].map(|shard| stats.shards[shard].stats);
    assert_eq!((one.records, one.payload_bytes), (1000, 100_000), "a void record is none");
    assert_eq!((two.records, two.payload_bytes), (11, 3_010_000), "parts and lists are no records");
    assert_eq!(stats.total.payload_bytes, one.payload_bytes + two.payload_bytes);
    assert_eq!(stats.total.frames, one.frames + two.frames);
    for stats in [one, two, stats.total] {
        assert!(stats.device_bytes >= stats.log_bytes && stats.log_bytes > stats.payload_bytes, "{stats:?}");
        assert!(stats.syncs > 0 && stats.device_bytes.is_multiple_of(4096), "{stats:?}");
        let amplification = stats.write_amplification().unwrap();
        assert!(amplification > 1.0 && amplification < 2.0, "{amplification}: {stats:?}");
        assert_eq!((stats.cleaning.steps, stats.cleaning_cost()), (0, Some(0.0)));
    }
    store.close().unwrap();
    drop(store);
    let store = Store::open(&place.path, &common::options(SHARDS)).unwrap();
    let Stats { records, payload_bytes, .. } = store.stats().total;
    assert_eq!((records, payload_bytes), (0, 0));
}

#[test]
fn what_cleaning_reads_and_writes_is_counted_apart() {
    let sized = FormatOptions::sized(33 << 20).shards(SHARDS).extent_bytes(512 << 10).sparse();
    let place = Place::with(&sized);
    let options = common::options(SHARDS).buffer_bytes(32 << 10).checkpoint_bytes(512 << 10);
    let store = Store::open(&place.path, &options).unwrap();
    let index = Arc::new(Index::new(20_000));
    store.clean_with(Arc::clone(&index) as Arc<dyn RecordOwner>).unwrap();
    let mut random = Random(7);
    let writes: u64 = 100_000;
    for write in 0..writes {
        let key = if write < 20_000 { write } else { random.below(20_000) };
        overwrites::write(&store, &index, key, false);
    }
    store.sync().unwrap();
    let before = store.stats();
    let Stats { records, payload_bytes, log_bytes, device_bytes, extents_freed, cleaning, .. } = before.total;
    assert_eq!(
        (records, payload_bytes),
        (writes, writes * VALUE as u64),
        "a copy is nothing that was appended"
    );
    let extent_bytes = store.directory().layout.geometry().extent_bytes();
    assert!(cleaning.extents > 50 && cleaning.extents <= extents_freed, "{cleaning:?}");
    assert!(cleaning.records_moved >= index.relocations.load(std::sync::atomic::Ordering::Relaxed));
    let copied = cleaning.records_moved * overwrites::RECORD;
    assert!(cleaning.bytes_copied > copied && cleaning.bytes_copied < copied * 12 / 10, "{cleaning:?}");
    // Twice at the most: to see whether it can be moved, and to move it.
    let read = cleaning.bytes_read as f64 / (cleaning.extents * extent_bytes) as f64;
    assert!((0.8..2.2).contains(&read), "{read}: {cleaning:?}");
    assert!(log_bytes > payload_bytes + cleaning.bytes_copied && device_bytes >= log_bytes);
    assert!(cleaning.steps > cleaning.extents && cleaning.longest_wait_steps <= cleaning.steps);
    // 19 MiB of 32 live, and cleaning begins when 5% are free: appends found it full.
    let waits: Vec<u64> = before.shards.iter().map(|shard| shard.stats.cleaning.longest_wait_steps).collect();
    assert_eq!(cleaning.longest_wait_steps, *waits.iter().max().unwrap());
    assert_eq!(store.stats().total.since(&before.total).records, 0);
    store.close().unwrap();
    drop(store);

    let info = run(&place.path, "info @ --json").json();
    let dead = info["shards"][0]["space"]["dead_bytes"].as_u64().unwrap();
    assert!(dead > 0 && dead < info["shards"][0]["space"]["log_bytes"].as_u64().unwrap(), "{info:#}");
    assert!(run(&place.path, "info @").done().contains("noted as dead"));
}

/// A store that filled up while nobody had asked for anything to be durable was full for good: only what is durable can be
/// cleaned, and nothing else would have made it so.
#[test]
fn cleaning_asks_for_what_it_needs_to_be_durable() {
    let place = Place::with(&FormatOptions::sized(33 << 20).shards(SHARDS).extent_bytes(512 << 10).sparse());
    let store = Store::open(&place.path, &common::options(SHARDS).buffer_bytes(32 << 10)).unwrap();
    let index = Arc::new(Index::new(10_000));
    store.clean_with(Arc::clone(&index) as Arc<dyn RecordOwner>).unwrap();
    for write in 0..60_000 {
        overwrites::write(&store, &index, write % 10_000, false);
    }
    assert!(store.stats().total.cleaning.extents > 20);
    store.close().unwrap();
}

#[test]
fn the_bench_of_overwrites_says_what_they_cost() {
    let folder = program::folder();
    let path = folder.path().join("store");
    for how in ["--hosted --skew nine-to-one", "--policy greedy"] {
        let line = format!("bench @ --size 64MiB --bytes 32MiB --cores 2 --workload overwrite {how} --json");
        let report = run(&path, &line).json();
        let found = &report["overwrite"];
        let number = |name: &str| found[name].as_f64().unwrap_or_else(|| panic!("no {name} in {found:#}"));
        assert_eq!(number("values"), number("verified"), "{found:#}");
        let amplification = number("write_amplification");
        // Less than one copy of nothing, or more than of extents nine tenths live, it cannot be.
        assert!((1.3..10.5).contains(&amplification), "{amplification}: {found:#}");
        let theory = found["theory"]["write_amplification"].as_f64().unwrap();
        assert!((1.9..3.0).contains(&theory), "{theory}: {found:#}");
        let total = &found["stats"]["total"];
        assert!(total["cleaning"]["extents"].as_u64().unwrap() > 10, "{total:#}");
        let (written, payload) =
            (total["device_bytes"].as_f64().unwrap(), total["payload_bytes"].as_f64().unwrap());
        assert!((written / payload - amplification).abs() < 1e-9);
    }
    run(&path, "bench @ --workload overwrite,read").refused(USAGE, &["name it alone"]);
    run(&path, "bench @ --workload overwrite --record 10 --size 64MiB").refused(USAGE, &["256"]);
    assert_eq!(run(&path, "bench @ --workload overwrite --live 99").code, Some(USAGE));
    std::fs::write(&path, "letters").unwrap();
    run(&path, "bench @ --workload overwrite").refused(FAILED, &["was not made by `bench`"]);
}
