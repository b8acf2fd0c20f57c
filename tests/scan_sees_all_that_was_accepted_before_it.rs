//! A scan sees everything that was accepted before it began, once and in order, without anybody flushing; it can begin
//! anywhere, and go on where another one stood, also after a reopen.
#![expect(clippy::unwrap_used, reason = "tests")]

use corelog::{
    Address, Backend, FormatOptions, FrameNumber, Options, Position, ReadError, Route, ScanError, ScanFrom,
    ShardId, Store, Waited,
};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

const SHARD: ShardId = ShardId(1);

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn options() -> Options {
    Options::default().cores(2).pin(false).buffer_bytes(64 << 10).backend(Backend::Auto)
}

fn make(path: &Path) -> Store {
    let format = FormatOptions::sized(64 << 20).shards(2).extent_bytes(1 << 20).sparse();
    Store::format(&[path], &format).unwrap();
    Store::open(path, &options()).unwrap()
}

/// Different lengths, some over many slots.
fn payload(index: u32) -> Vec<u8> {
    index
        .to_le_bytes()
        .repeat(1 + (index as usize * 131) % if index.is_multiple_of(50) { 10_000 } else { 200 })
}

fn append(store: &Store, indices: std::ops::Range<u32>) -> Vec<Address> {
    indices.map(|index| store.append_to(Route::Shard(SHARD), &payload(index)).unwrap().address()).collect()
}

/// The records from a place on, which have to be exactly those from `first` to `end`.
#[track_caller]
fn assert_scan(store: &Store, from: ScanFrom, addresses: &[Address], first: u32) {
    let mut expected = first;
    for record in store.scan_from(SHARD, from).unwrap() {
        let record = record.unwrap();
        assert_eq!(record.payload, payload(expected), "record {expected}");
        assert_eq!((record.address, record.shard), (addresses[expected as usize], SHARD));
        expected += 1;
    }
    assert_eq!(expected as usize, addresses.len());
}

#[test]
fn from_the_oldest_from_an_address_from_a_frame_and_from_a_position() {
    let folder = folder();
    let path = folder.path().join("store");
    let store = make(&path);
    let mut addresses = append(&store, 0..6_000);
    store.append_to(Route::Shard(ShardId(0)), b"of the other shard").unwrap();
    // Not flushed by anybody.
    assert_scan(&store, ScanFrom::Oldest, &addresses, 0);
    for first in (0..6_000).step_by(701) {
        assert_scan(&store, ScanFrom::Address(addresses[first as usize]), &addresses, first);
    }
    let records: Vec<_> = store.scan(SHARD).unwrap().map(Result::unwrap).collect();
    for frame in (0..=records.last().unwrap().frame.0).step_by(9).map(FrameNumber) {
        let first = records.iter().position(|record| record.frame >= frame).unwrap() as u32;
        assert_scan(&store, ScanFrom::Frame(frame), &addresses, first);
    }
    let behind = ScanFrom::Frame(FrameNumber(1_000_000));
    assert_eq!(store.scan_from(SHARD, behind).unwrap().count(), 0);

    let mut scan = store.scan(SHARD).unwrap();
    let mut positions = vec![(0, None)];
    for index in 0..6_000 {
        scan.next().unwrap().unwrap();
        positions.push((index + 1, scan.resume_at()));
    }
    assert!(scan.next().is_none());
    positions.push((6_000, scan.resume_at()));
    drop(scan);
    store.close().unwrap();
    drop(store);
    let store = Store::open(&path, &options()).unwrap();
    addresses.extend(append(&store, 6_000..6_500));
    for (first, position) in positions.into_iter().step_by(483).chain([(6_000, None)]) {
        let Some(position) = position else { continue };
        let text = serde_json::to_string(&position).unwrap();
        let position: Position = serde_json::from_str(&text).unwrap();
        assert_scan(&store, ScanFrom::Position(position), &addresses, first);
    }
}

#[test]
fn while_others_append_a_scan_sees_a_prefix_that_has_all_from_before() {
    let folder = folder();
    let store = make(&folder.path().join("store"));
    let before = append(&store, 0..500).len();
    std::thread::scope(|scope| {
        let appender = scope.spawn(|| append(&store, 500..5_000));
        for _ in 0..10 {
            let records: Vec<_> = store.scan(SHARD).unwrap().map(|record| record.unwrap().payload).collect();
            assert!(records.len() >= before);
            for (index, found) in (0..).zip(&records) {
                assert_eq!(*found, payload(index));
            }
        }
        appender.join().unwrap();
    });
    let expected: Vec<_> = (0..5_000).map(payload).collect();
    let found: Vec<_> = store.scan(SHARD).unwrap().map(|record| record.unwrap().payload.to_vec()).collect();
    assert!(found == expected);
}

#[test]
fn a_follower_gets_every_record_while_they_come_and_ends_when_the_store_is_closed() {
    let folder = folder();
    let store = make(&folder.path().join("store"));
    append(&store, 0..10);
    let mut scan = store.scan(SHARD).unwrap().follow();
    for index in 0..10 {
        assert_eq!(scan.next().unwrap().unwrap().payload, payload(index));
    }
    assert_eq!(scan.next_within(Duration::from_millis(20)).unwrap(), Waited::TimedOut);
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let follower = std::thread::spawn(move || {
        for (index, record) in (10..).zip(scan) {
            assert_eq!(record.unwrap().payload, payload(index));
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    for start in (10..3_000).step_by(130) {
        append(&store, start..start + 130);
        std::thread::sleep(Duration::from_millis(1));
    }
    // One that has caught up ends without an error; the test below closes under one that has not.
    while seen.load(Ordering::Relaxed) < 2_990 && !follower.is_finished() {
        std::thread::sleep(Duration::from_millis(1));
    }
    store.close().unwrap();
    follower.join().unwrap();
    assert_eq!(seen.load(Ordering::Relaxed), 2_990);
}

#[test]
fn a_follower_that_the_close_overtakes_is_told_so_and_goes_on_after_the_next_open() {
    // Its reads were answered with the death of a core, as if something had broken.
    let folder = folder();
    let path = folder.path().join("store");
    let store = make(&path);
    append(&store, 0..8_000);
    let mut scan = store.scan(SHARD).unwrap().follow();
    for index in 0..10 {
        assert_eq!(scan.next().unwrap().unwrap().payload, payload(index));
    }
    store.close().unwrap();
    let mut seen = 10;
    let error = loop {
        match scan.next().unwrap() {
            // What was read ahead is yielded all the same.
            Ok(record) => assert_eq!(record.payload, payload(seen)),
            Err(error) => break error,
        }
        seen += 1;
    };
    assert_eq!(error, ScanError::Read(ReadError::Closed));
    assert!(scan.next().is_none() && seen < 8_000);
    let position = ScanFrom::Position(scan.resume_at().unwrap());
    drop((scan, store));
    let store = Store::open(&path, &options()).unwrap();
    let rest = store.scan_from(SHARD, position).unwrap().map(|record| record.unwrap().payload);
    assert!(rest.eq((seen..8_000).map(payload)));
}

#[test]
fn a_scan_of_all_shards_has_each_record_once_and_keeps_the_order_of_each_shard() {
    let folder = folder();
    let store = make(&folder.path().join("store"));
    for index in 0..2_000 {
        store.append_to(Route::RoundRobin, &payload(index)).unwrap();
    }
    let records: Vec<_> = store.scan_all().unwrap().map(Result::unwrap).collect();
    assert_eq!(records.len(), 2_000);
    for shard in [ShardId(0), ShardId(1)] {
        let of_shard = records.iter().filter(|record| record.shard == shard).map(|record| &record.payload);
        let alone: Vec<_> = store.scan(shard).unwrap().map(|record| record.unwrap().payload).collect();
        assert!(of_shard.eq(&alone));
    }
    assert!(records.is_sorted_by_key(|record| (record.unix_ns, record.shard)));
    let again: Vec<_> = store.scan_all().unwrap().map(|record| record.unwrap().address).collect();
    assert!(records.iter().map(|record| record.address).eq(again));
}

#[test]
fn what_cannot_be_scanned_says_why() {
    let folder = folder();
    let store = make(&folder.path().join("store"));
    assert_eq!(store.scan(SHARD).unwrap().count(), 0, "an empty shard has nothing");
    assert_eq!(store.scan(ShardId(7)).unwrap_err(), ScanError::NoSuchShard { shard: ShardId(7), last: 1 });
    let of_other = store.append_to(Route::Shard(ShardId(0)), b"x").unwrap().address();
    let error = store.scan_from(SHARD, ScanFrom::Address(of_other)).unwrap_err();
    assert_eq!(error, ScanError::OtherShard { shard: SHARD, found: ShardId(0) });
    let nowhere = ScanFrom::Address(Address::from_bits(u64::MAX));
    assert!(matches!(store.scan_from(SHARD, nowhere), Err(ScanError::Begin(_))));
    // The position of a record of this store is none of another.
    append(&store, 0..3);
    let mut scan = store.scan(SHARD).unwrap();
    scan.next().unwrap().unwrap();
    let position = ScanFrom::Position(scan.resume_at().unwrap());
    let other = make(&folder.path().join("other"));
    let mut scan = other.scan_from(SHARD, position).unwrap();
    let records = &mut scan;
    assert!(matches!(records.next(), None | Some(Err(_))));
}
