//! Trimming: what it frees is free for good, also of a full store, and whoever asks for what was there is told.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Over, Place};
use corelog::{
    Address, AppendError, Durability, FormatOptions, Inspection, Options, ReadError, Route, ShardId,
    SpaceError, SpaceRefusal, Store,
};
use corelog_shards::limits::{CHECKPOINT_BYTES_MIN, EXTENT_BYTES_MIN, SUPERBLOCK_AREA_BYTES};
use std::sync::atomic::{AtomicBool, Ordering};

const SHARD: ShardId = ShardId(0);
const RECORD: usize = 8000;

fn options() -> Options {
    common::options(1).buffer_bytes(32 << 10).checkpoint_bytes(CHECKPOINT_BYTES_MIN)
}

fn place(extents: u64, shards: u32) -> Place {
    let bytes = SUPERBLOCK_AREA_BYTES + extents * EXTENT_BYTES_MIN;
    Place::with(&FormatOptions::sized(bytes).shards(shards).extent_bytes(EXTENT_BYTES_MIN).sparse())
}

fn open(place: &Place, options: &Options) -> Store {
    Store::open(&place.path, options).unwrap()
}

fn payload(index: u64) -> Vec<u8> {
    let mut bytes = vec![index as u8; RECORD];
    bytes[..8].copy_from_slice(&index.to_le_bytes());
    bytes
}

/// Appends records until the store is full, or so many.
fn fill(store: &Store, first: u64, most: u64) -> Vec<(u64, Address)> {
    let mut written = Vec::new();
    for index in first..first + most {
        match store.append_to(Route::Shard(SHARD), &payload(index)) {
            Ok(ticket) => written.push((index, ticket.address())),
            Err(AppendError::StoreFull { .. }) => break,
            Err(error) => panic!("{error}"),
        }
    }
    store.sync().unwrap();
    written
}

#[test]
fn a_trim_frees_whole_extents_for_good_and_twice_changes_nothing() {
    let place = place(40, 1);
    let store = open(&place, &options());
    let before = store.directory().extents.free_count();
    let written = fill(&store, 0, 300);
    let used = before - store.directory().extents.free_count();
    assert!(used > 8, "{used} extents");
    let mark = written[200].1;
    let done = store.trim(SHARD, mark).unwrap().wait().unwrap();
    assert!(done.freed >= 5, "{done:?}");
    assert_eq!(store.trim(SHARD, mark).unwrap().wait().unwrap().freed, 0);
    assert!(matches!(store.read(written[0].1), Err(ReadError::Reclaimed { .. })));
    let free = store.directory().extents.free_count();
    store.close().unwrap();
    let store = open(&place, &options());
    assert_eq!(store.directory().extents.free_count(), free);
    assert_eq!(store.space(SHARD).unwrap().trim, done.trim);
    let kept: Vec<u64> =
        written.iter().filter(|(_, at)| store.read(*at).is_ok()).map(|(index, _)| *index).collect();
    assert!(kept[0] <= 200 && kept.last() == Some(&299) && kept.len() as u64 == 300 - kept[0], "{kept:?}");
    let scanned: Vec<u64> = store
        .scan(SHARD)
        .unwrap()
        .map(|record| u64::from_le_bytes(record.unwrap().payload[..8].try_into().unwrap()))
        .collect();
    assert_eq!(scanned, kept);
    store.close().unwrap();
    let inspection = Inspection::open(&[&place.path], &options()).unwrap();
    let report = inspection.verify(None, &mut |_, _| {}).unwrap();
    assert!(report.findings.is_empty(), "{report:?}");
}

#[test]
fn a_full_store_can_be_trimmed_and_takes_appends_again() {
    let place = place(12, 1);
    let mut store = open(&place, &options());
    let mut next = 0;
    for round in 0..6 {
        let written = fill(&store, next, 10_000);
        assert!(written.len() > 30, "round {round}: {} records", written.len());
        next = written.last().unwrap().0 + 1;
        let refused = store.append_to(Route::Shard(SHARD), &payload(next)).unwrap_err();
        assert!(matches!(refused, AppendError::StoreFull { .. }), "{refused}");
        if round % 2 == 1 {
            store.close().unwrap();
            store = open(&place, &options());
        }
        let done = store.trim(SHARD, written[written.len() * 3 / 4].1).unwrap().wait().unwrap();
        assert!(done.freed >= 2, "round {round}: {done:?}");
        for (index, at) in &written[written.len() * 3 / 4..] {
            assert_eq!(store.read(*at).unwrap(), payload(*index), "round {round}");
        }
    }
    store.close().unwrap();
}

#[test]
fn a_read_that_races_with_reuse_gives_the_record_or_that_it_is_gone() {
    let place = place(12, 1);
    let store = open(&place, &options().discard(true));
    let is_over = AtomicBool::new(false);
    let (sender, receiver) = std::sync::mpsc::channel::<(u64, Address)>();
    let (reads, gone) = std::thread::scope(|scope| {
        let (is_over, store) = (&is_over, &store);
        let reader = scope.spawn(move || {
            let (mut reads, mut gone, mut known) = (0, 0, Vec::new());
            while !is_over.load(Ordering::Relaxed) {
                known.extend(receiver.try_iter());
                let newest = known.len().saturating_sub(200);
                for (index, at) in &known[newest..] {
                    match store.read(*at) {
                        Ok(bytes) => assert_eq!(bytes, payload(*index)),
                        Err(ReadError::Reclaimed { .. }) => gone += 1,
                        Err(error) => panic!("record {index}: {error}"),
                    }
                    reads += 1;
                }
            }
            (reads, gone)
        });
        let over = Over(is_over);
        let mut next = 0;
        for _ in 0..12 {
            let written = fill(store, next, 100);
            next = written.last().unwrap().0 + 1;
            written.iter().for_each(|written| sender.send(*written).unwrap());
            let _freed = store.trim(SHARD, written[written.len() - 1].1).unwrap().wait().unwrap();
        }
        drop(over);
        reader.join().unwrap()
    });
    assert!(reads > 0 && gone > 0, "{reads} reads, {gone} gone");
    store.close().unwrap();
}

#[test]
fn a_trim_behind_cursors_stops_at_the_slowest() {
    let place = place(40, 1);
    let store = open(&place, &options());
    let written = fill(&store, 0, 200);
    for (name, index) in [("slow", 50), ("fast", 150)] {
        let _done = store.set_cursor(SHARD, name, written[index].1).unwrap().wait().unwrap();
    }
    let _done = store.trim_behind_cursors(SHARD, written[190].1).unwrap().wait().unwrap();
    assert_eq!(store.read(written[50].1).unwrap(), payload(50));
    let _done = store.remove_cursor(SHARD, "slow").unwrap().wait().unwrap();
    let refused = store.remove_cursor(SHARD, "slow").unwrap().wait().unwrap_err();
    assert_eq!(refused, SpaceError::Refused { shard: SHARD, refusal: SpaceRefusal::NoSuchCursor });
    store.close().unwrap();
    let store = open(&place, &options());
    let cursors = store.cursors(SHARD);
    assert_eq!(
        cursors.iter().map(|it| (it.name.as_str(), it.address)).collect::<Vec<_>>(),
        [("fast", written[150].1)]
    );
    let _done = store.trim_behind_cursors(SHARD, written[190].1).unwrap().wait().unwrap();
    assert!(matches!(store.read(written[50].1), Err(ReadError::Reclaimed { .. })));
    assert_eq!(store.read(written[150].1).unwrap(), payload(150));
    store.close().unwrap();
}

#[test]
fn what_cannot_be_trimmed_is_named() {
    let place = place(40, 2);
    let store = open(&place, &options());
    let ticket = store.append_to(Route::Shard(SHARD), b"one").unwrap();
    ticket.wait(Durability::Durable).unwrap();
    let at = ticket.address();
    let other = store.trim(ShardId(1), at).unwrap_err();
    assert_eq!(other, SpaceError::OtherShard { shard: ShardId(1), found: SHARD });
    assert_eq!(store.trim(ShardId(7), at).unwrap_err(), SpaceError::NoSuchShard { shard: ShardId(7) });
    let nowhere = store.trim(SHARD, Address::from_bits(u64::MAX >> 22)).unwrap_err();
    assert!(matches!(nowhere, SpaceError::Place(ReadError::NoSuchAddress { .. })), "{nowhere}");
    let ahead = Address::from_bits(at.to_bits() + (200 << 10) / 8);
    let ahead = store.trim(SHARD, ahead).unwrap().wait().unwrap_err();
    assert_eq!(ahead, SpaceError::Refused { shard: SHARD, refusal: SpaceRefusal::Ahead });
    let nameless = store.set_cursor(SHARD, "", at).unwrap().wait().unwrap_err();
    assert_eq!(nameless, SpaceError::Refused { shard: SHARD, refusal: SpaceRefusal::CursorName });
    store.close().unwrap();
}

#[test]
fn a_reopen_begins_at_the_checkpoint() {
    let place = place(40, 1);
    let store = open(&place, &options());
    fill(&store, 0, 300);
    store.checkpoint().unwrap();
    let written = fill(&store, 300, 1);
    store.close().unwrap();
    let store = open(&place, &options());
    let found = &store.recovery().shards[0];
    assert!(
        found.began_at.unwrap().0 + 4 >= found.next_frame.0,
        "{:?} of {}",
        found.began_at,
        found.next_frame
    );
    assert_eq!(found.first_frame.0, 0);
    assert_eq!(store.read(written[0].1).unwrap(), payload(300));
    store.close().unwrap();
}
