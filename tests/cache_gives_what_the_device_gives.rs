//! A cache changes what a read costs and nothing else: the same bytes, the same errors, nothing of an extent that was
//! freed, and nothing in it that was not read record by record.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Over, Place, block_on, options, payload, turn_until};
use corelog::{
    Address, Durability, FormatOptions, Options, ReadError, ReadStats, Route, ScrubOptions, ShardId, Store,
    limits::{CACHE_ENTRY_BYTES, CHECKPOINT_BYTES_MIN, EXTENT_BYTES_MIN, SUPERBLOCK_AREA_BYTES},
};
use std::{
    fs::File,
    future::Future,
    io::Write,
    os::unix::fs::FileExt,
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll, Waker},
};

const RECORDS: u64 = 300;
const SHARD: ShardId = ShardId(0);

fn cached(cores: u32) -> Options {
    options(cores).cache_bytes(4 << 20)
}

fn append(store: &Store, count: u64) -> Vec<(Address, Vec<u8>)> {
    let append = |index| {
        let bytes = payload(1, index, 10 + index as usize * 3);
        (store.append_to(Route::RoundRobin, &bytes).unwrap().address(), bytes)
    };
    let written = (0..count).map(append).collect();
    store.sync().unwrap();
    written
}

fn read_all(store: &Store, written: &[(Address, Vec<u8>)]) -> ReadStats {
    let before = store.stats().reads;
    for (address, bytes) in written {
        assert_eq!(store.read(*address).unwrap(), bytes);
    }
    store.stats().reads.since(&before)
}

#[test]
fn without_being_asked_for_there_is_none() {
    assert_eq!(Options::default().cache_bytes, 0);
    let place = Place::formatted(1);
    let store = Store::open(&place.path, &options(1)).unwrap();
    let written = append(&store, RECORDS);
    for _ in 0..2 {
        let expected = ReadStats { from_device: RECORDS, ..ReadStats::default() };
        assert_eq!(read_all(&store, &written), expected);
    }
    assert_eq!(store.read_cached(written[0].0), None);
}

#[test]
fn what_was_read_once_is_read_again_without_the_device() {
    let place = Place::formatted(1);
    let store = Store::open(&place.path, &cached(1)).unwrap();
    let written = append(&store, RECORDS);
    let first = read_all(&store, &written);
    let bytes: u64 = written.iter().map(|(_, bytes)| bytes.len() as u64 + CACHE_ENTRY_BYTES).sum();
    let expected =
        ReadStats { from_device: RECORDS, cache_misses: RECORDS, cache_bytes: bytes, ..ReadStats::default() };
    assert_eq!(first, expected);
    let again = read_all(&store, &written);
    assert_eq!(again, ReadStats { cache_hits: RECORDS, cache_bytes: bytes, ..ReadStats::default() });
    assert_eq!(again.hit_rate(), Some(1.0));
    // One copy for all who hold it.
    let (address, bytes) = &written[7];
    let (one, two) = (store.read(*address).unwrap(), block_on(store.read_async(*address).unwrap()).unwrap());
    assert_eq!((one.as_ptr(), &one[..]), (two.as_ptr(), &bytes[..]));
    assert_eq!(store.read_cached(*address).unwrap().as_ptr(), one.as_ptr());
    // What is held outlives the cache.
    store.close().unwrap();
    assert_eq!(store.read_cached(*address), None);
    assert_eq!(store.read(*address), Err(ReadError::Closed));
    assert_eq!(one, bytes);
}

/// The thread of the test goes from one CPU to another as the host likes, and each core has a cache of its own. Where it does so between
/// the look into the one and the read by the other, the first will read that record again: of one in 256 at the most.
#[test]
fn each_of_two_cores_reads_a_record_from_the_device_hardly_more_than_once() {
    let place = Place::formatted(2);
    let store = Store::open(&place.path, &cached(2)).unwrap();
    let written = append(&store, RECORDS);
    let rounds = 20;
    for _ in 0..rounds {
        read_all(&store, &written);
    }
    let reads = store.stats().reads;
    assert_eq!(reads.cache_hits + reads.cache_misses, rounds * RECORDS);
    assert_eq!(reads.from_device, reads.cache_misses);
    let between = rounds * RECORDS / 256 + 1;
    assert!((RECORDS..=2 * RECORDS + between).contains(&reads.from_device), "{reads:?}");
}

#[test]
fn a_thread_that_drives_a_core_gets_hits_without_a_turn() {
    let place = Place::formatted(1);
    let mut opening = Store::open_owned(&[&place.path], &cached(1)).unwrap();
    let mut cores = vec![opening.take_seats().remove(0).start().unwrap()];
    let store = opening.store().unwrap();
    let bytes = payload(2, 2, 5000);
    let ticket = store.append(&bytes).unwrap();
    ticket.request(Durability::Written);
    turn_until(&mut cores, || ticket.has_reached(Durability::Written));
    let address = ticket.address();
    assert_eq!(store.read_cached(address), None);
    let mut reading = store.read_async(address).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    let mut found = None;
    turn_until(&mut cores, || {
        if let Poll::Ready(result) = Pin::new(&mut reading).poll(&mut context) {
            found = Some(result);
        }
        found.is_some()
    });
    assert_eq!(found.unwrap().unwrap(), bytes);
    let submitted = cores[0].device_counters();
    assert_eq!(store.read_cached(address).unwrap(), bytes);
    let mut again = store.read_async(address).unwrap();
    assert!(matches!(Pin::new(&mut again).poll(&mut context), Poll::Ready(Ok(found)) if found == bytes));
    assert_eq!(cores[0].device_counters(), submitted);
    // Whether a call may be made does not depend on what is in the cache.
    assert!(matches!(store.read(address), Err(ReadError::OnCoreThread { .. })));
    drop(cores);
}

#[test]
fn reading_many_takes_what_is_there_and_keeps_the_rest() {
    let place = Place::formatted(1);
    let store = Store::open(&place.path, &cached(1)).unwrap();
    let written = append(&store, RECORDS);
    read_all(&store, &written[..100]);
    let asked: Vec<Address> = written.iter().map(|(address, _)| *address).collect();
    for (hits, misses) in [(100, 200), (300, 0)] {
        let before = store.stats().reads;
        for (result, (_, bytes)) in store.read_many(&asked).into_iter().zip(&written) {
            assert_eq!(result.unwrap(), bytes);
        }
        let reads = store.stats().reads.since(&before);
        assert_eq!((reads.cache_hits, reads.cache_misses), (hits, misses));
    }
    assert_eq!(read_all(&store, &written).cache_hits, RECORDS);
}

#[test]
fn scans_scrubs_large_records_and_buffers_leave_nothing_in_it() {
    let place = Place::formatted(1);
    let store = Store::open(&place.path, &cached(1)).unwrap();
    // Not on the device yet: its frame may still fail.
    let bytes = payload(3, 3, 100);
    let address = store.append(&bytes).unwrap().address();
    assert_eq!(store.read(address).unwrap(), bytes);
    assert_eq!(store.stats().reads.from_buffer, 1);
    append(&store, RECORDS);
    let mut writer = store.append_large(Route::Local).unwrap();
    writer.write_all(&payload(4, 4, 200_000)).unwrap();
    let large = writer.finish().unwrap();
    large.wait(Durability::Durable).unwrap();
    let mut reader = store.open_large(large.address()).unwrap();
    while reader.next_part().unwrap().is_some() {}
    assert!(matches!(store.read(large.address()), Err(ReadError::Large { .. })));
    assert!(store.scan(SHARD).unwrap().count() as u64 > RECORDS);
    store.scrub(ScrubOptions::default()).unwrap();
    assert_eq!(store.stats().reads.cache_bytes, 0);
}

#[test]
fn a_damaged_record_is_not_kept_and_a_mended_one_is_read() {
    let place = Place::formatted(1);
    let store = Store::open(&place.path, &cached(1)).unwrap();
    let written = append(&store, 2);
    let directory = store.directory();
    let slot = written[0].0.slot(directory.layout.geometry());
    let in_slot = written[0].0.byte() % directory.layout.geometry().slot_bytes();
    let at = directory.layout.place(slot).unwrap().offset + in_slot + 8;
    let file = File::options().read(true).write(true).open(&place.path).unwrap();
    let flip = || {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[!byte[0]], at).unwrap();
        file.sync_all().unwrap();
    };
    flip();
    for _ in 0..2 {
        assert!(matches!(store.read(written[0].0), Err(ReadError::Corrupt { .. })));
    }
    assert_eq!(store.stats().reads.cache_bytes, 0);
    flip();
    assert_eq!(store.read(written[0].0).unwrap(), written[0].1);
}

fn small(extents: u64) -> Place {
    let bytes = SUPERBLOCK_AREA_BYTES + extents * EXTENT_BYTES_MIN;
    Place::with(&FormatOptions::sized(bytes).shards(1).extent_bytes(EXTENT_BYTES_MIN).sparse())
}

fn in_small() -> Options {
    cached(1).buffer_bytes(32 << 10).checkpoint_bytes(CHECKPOINT_BYTES_MIN)
}

/// Three times round a store of 16 extents, everything read into the cache each time.
#[test]
fn what_was_trimmed_is_reclaimed_and_its_place_holds_what_came_after() {
    let place = small(16);
    let store = Store::open(&place.path, &in_small()).unwrap();
    let mut old: Vec<Address> = Vec::new();
    let mut reused = 0;
    for round in 0..3 {
        let fresh: Vec<(Address, Vec<u8>)> = (0..350)
            .map(|index| {
                let bytes = payload(round, index, 8000);
                (store.append_to(Route::Shard(SHARD), &bytes).unwrap().address(), bytes)
            })
            .collect();
        store.sync().unwrap();
        read_all(&store, &fresh);
        let again = read_all(&store, &fresh);
        assert!(again.cache_hits > 300, "round {round}: {again:?}");
        for address in &old {
            assert_eq!(store.read(*address), Err(ReadError::Reclaimed { address: *address }));
            reused += u32::from(fresh.iter().any(|(it, _)| it.byte() == address.byte()));
        }
        let mark = fresh[349].0;
        store.trim(SHARD, mark).unwrap().wait().unwrap();
        let geometry = *store.directory().layout.geometry();
        old.extend(
            fresh.iter().map(|(it, _)| *it).filter(|it| it.extent(&geometry) != mark.extent(&geometry)),
        );
        for address in &old {
            assert_eq!(store.read_cached(*address), None);
            assert_eq!(store.read(*address), Err(ReadError::Reclaimed { address: *address }));
        }
    }
    assert!(reused > 0, "no place was used twice");
}

/// Readers at full speed on what is in the cache, while it is trimmed away under them: the record, or that it is
/// reclaimed, and only that once the trim was said to be done.
#[test]
fn a_trim_ends_the_hits_of_other_threads() {
    let place = small(40);
    let store = Store::open(&place.path, &in_small()).unwrap();
    for round in 0..5 {
        let fresh: Vec<(Address, Vec<u8>)> = (0..200)
            .map(|index| {
                let bytes = payload(round, index, 8000);
                (store.append_to(Route::Shard(SHARD), &bytes).unwrap().address(), bytes)
            })
            .collect();
        store.sync().unwrap();
        read_all(&store, &fresh);
        let (first, last) = (&fresh[0], fresh[199].0);
        let (is_trimmed, has_started) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut hits = 0_u64;
                loop {
                    let over = is_trimmed.load(Ordering::Acquire);
                    match store.read(first.0) {
                        Ok(found) => {
                            assert!(!over, "a record that was trimmed away");
                            assert_eq!(found, first.1);
                            hits += 1;
                        }
                        Err(error) => {
                            assert_eq!(error, ReadError::Reclaimed { address: first.0 });
                            if over {
                                return hits;
                            }
                        }
                    }
                    has_started.store(true, Ordering::Relaxed);
                }
            });
            let trimmed = Over(&is_trimmed);
            while !has_started.load(Ordering::Relaxed) && !reader.is_finished() {
                std::thread::yield_now();
            }
            store.trim(SHARD, last).unwrap().wait().unwrap();
            drop(trimmed);
            assert!(reader.join().unwrap() > 0);
        });
    }
}
