//! A device that lies: a write of a process that is gone lands late, and puts back a frame that an open had cut off, where
//! that open wrote another of the same number. All in it is sound by itself, and cleaning took it for the one that belongs
//! there: it freed the extent, and nobody heard that a record was lost.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::Place;
use corelog::{
    Address, CleaningPolicy, Durability, FormatOptions, Options, ReadError, RecordOwner, Route, ScanError,
    ShardId, Store,
};
use corelog_shards::limits::SUPERBLOCK_AREA_BYTES;
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    sync::{Arc, atomic::Ordering},
};

const SHARD: ShardId = ShardId(0);
const EXTENT: u64 = 256 << 10;
const EXTENTS: u64 = 12;
const SLOT: u64 = 4096;
/// Longer than a slot, so that it takes two.
const LENGTH: usize = 6000;
/// What is wanted begins with it.
const WANTED: u8 = 7;

struct Wanted;

impl RecordOwner for Wanted {
    fn is_live(&self, _address: Address, payload: &[u8]) -> bool {
        payload[0] == WANTED
    }

    fn relocated(&self, _from: Address, _to: Address, _payload: &[u8]) -> bool {
        true
    }
}

fn append(store: &Store, payload: &[u8]) -> Address {
    let ticket = store.append_to(Route::Shard(SHARD), payload).unwrap();
    ticket.wait(Durability::Durable).unwrap();
    ticket.address()
}

/// A store with two frames of the same number, of which the log goes on behind the second, and the first is on the device;
/// and where both have their record. The extent has so many slots left there, or fewer.
fn deceived(place: &Place, options: &Options, slots_left: u64) -> (Store, Address) {
    let before = place.path.with_extension("before");
    let store = Store::open(&place.path, options).unwrap();
    while append(&store, &[WANTED; 100]).byte() / SLOT % (EXTENT / SLOT) + 1 + slots_left < EXTENT / SLOT {}
    fs::copy(&place.path, &before).unwrap();
    let cut_off = append(&store, &[0; LENGTH]);
    let mut frame = vec![0; 2 * SLOT as usize];
    let offset = SUPERBLOCK_AREA_BYTES + cut_off.byte() / SLOT * SLOT;
    File::open(&place.path).unwrap().read_exact_at(&mut frame, offset).unwrap();
    drop(store);
    // Its write was in flight when the power went.
    fs::copy(&before, &place.path).unwrap();
    let store = Store::open(&place.path, options).unwrap();
    assert_eq!(append(&store, &[WANTED; LENGTH]), cut_off, "it has the place of the other");
    append(&store, &[0; 100]);
    File::options().write(true).open(&place.path).unwrap().write_all_at(&frame, offset).unwrap();
    (store, cut_off)
}

/// Overwrites the store several times, and looks whether the extent is left as it is. Gives whether a scan tells of it.
fn is_told_of(slots_left: u64) -> bool {
    let format = FormatOptions::sized(SUPERBLOCK_AREA_BYTES + EXTENTS * EXTENT);
    let place = Place::with(&format.extent_bytes(EXTENT).sparse());
    let options = common::options(1).buffer_bytes(16 << 10).clean_policy(CleaningPolicy::Fifo);
    let (store, address) = deceived(&place, &options, slots_left);
    store.clean_with(Arc::new(Wanted)).unwrap();
    for _ in 0..4 * EXTENTS * EXTENT / LENGTH as u64 {
        let ticket = store.append_to(Route::Shard(SHARD), &[0; LENGTH]).unwrap();
        store.release(ticket.address(), LENGTH).unwrap();
    }
    let cleaned = store.shard(SHARD).unwrap().counters().extents_cleaned.load(Ordering::Relaxed);
    assert!(cleaned > 2 * EXTENTS, "{cleaned} were cleaned");
    assert_ne!(store.read(address), Err(ReadError::Reclaimed { address }), "the extent was freed");
    let mut found = store.scan(SHARD).unwrap().skip_damage();
    found.any(|record| matches!(record, Err(ScanError::Damage(_))))
}

#[test]
fn an_extent_with_a_frame_that_the_next_does_not_follow_stays() {
    assert!(is_told_of(EXTENT / SLOT - 8));
}

#[test]
fn an_extent_whose_last_frame_is_another_stays() {
    // Room for a buffer, and behind two slots none. A scan is not told: the link to it went with the next extent.
    let _ = is_told_of(5);
}
