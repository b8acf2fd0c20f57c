//! Stores of a few extents that are overwritten many times over never run out of room, as long as what is live leaves each
//! shard what it cannot do without.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "common/overwrites.rs"]
mod overwrites;

use common::Place;
use corelog::{CleanError, FormatOptions, Options, RecordOwner, Store};
use corelog_shards::limits::SUPERBLOCK_AREA_BYTES;
use overwrites::{Index, RECORD, Random, check_values, try_write};
use std::sync::Arc;

const EXTENT: u64 = 256 << 10;
const BUFFER: u64 = 16 << 10;

fn options(shards: u32) -> Options {
    common::options(shards).buffer_bytes(BUFFER).checkpoint_bytes(EXTENT)
}

/// As many values as the limits in the README allow: half of what is left of the store without the reserve, the extent that each shard
/// is in, and a spare one of each other shard.
fn keys(extents: u64, shards: u64) -> u64 {
    let reserve = shards.min(extents / 4);
    (extents - reserve - 2 * (shards - 1) - 1) * EXTENT / 2 / RECORD
}

/// Values of a thousand bytes, one after the other and then at random, twenty times what the store has room for.
fn overwrite(extents: u64, shards: u32) {
    let format = FormatOptions::sized(SUPERBLOCK_AREA_BYTES + extents * EXTENT);
    let place = Place::with(&format.shards(shards).extent_bytes(EXTENT).sparse());
    let keys = keys(extents, u64::from(shards));
    let index = Arc::new(Index::new(keys));
    let mut random = Random(77 + extents);
    // It is opened again now and then: what is known of extents goes with each open.
    for open in 0..4 {
        let store = Store::open(&place.path, &options(shards)).unwrap();
        store.clean_with(Arc::clone(&index) as Arc<dyn RecordOwner>).unwrap();
        for count in 0..5 * extents * EXTENT / RECORD {
            let key = if open == 0 && count < keys { count } else { random.below(keys) };
            if let Err(error) = try_write(&store, &index, key, false) {
                panic!("{extents} extents, {shards} shards, write {count} of open {open}: {error}");
            }
        }
        check_values(&store, &index);
    }
}

/// With fewer extents there is nothing left to clean, and whoever asks for it hears that.
#[test]
fn stores_of_too_few_extents_say_so() {
    for (shards, extents, needed) in [(1, 3, 4), (2, 4, 5), (3, 6, 7), (4, 9, 10)] {
        let sized = |extents| {
            let format = FormatOptions::sized(SUPERBLOCK_AREA_BYTES + u64::from(extents) * EXTENT);
            Place::with(&format.shards(shards).extent_bytes(EXTENT).sparse())
        };
        let clean = |place: &Place| {
            let store = Store::open(&place.path, &options(shards)).unwrap();
            store.clean_with(Arc::new(Index::new(1)) as Arc<dyn RecordOwner>)
        };
        let refused = CleanError::TooFewExtents { extents, shards, needed };
        assert_eq!(clean(&sized(extents)), Err(refused));
        assert_eq!(clean(&sized(needed)), Ok(()));
    }
}

#[test]
fn stores_of_one_shard_and_four_extents_and_more() {
    [4, 5, 6, 8].into_iter().for_each(|extents| overwrite(extents, 1));
}

#[test]
fn stores_of_two_shards_and_five_extents_and_more() {
    [5, 6, 8, 12].into_iter().for_each(|extents| overwrite(extents, 2));
}
