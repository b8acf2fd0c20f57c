//! The counts of what was released since the last checkpoint go with a process that is killed, and whoever builds an index
//! by a scan cannot release what was overwritten before. A store that was full of such records stayed full for good:
//! cleaning took all extents for live and looked at none. It asks the owner of the records now.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "common/overwrites.rs"]
mod overwrites;

use common::Place;
use corelog::{AppendError, FormatOptions, Options, RecordOwner, Route, ShardId, Store};
use corelog_shards::limits::SUPERBLOCK_AREA_BYTES;
use overwrites::{Index, RECORD, Random, VALUE, check_values, value, write};
use std::sync::{Arc, atomic::Ordering};

const EXTENT: u64 = 256 << 10;
const EXTENTS: u64 = 24;
/// Half of the store.
const KEYS: u64 = EXTENTS * EXTENT / 2 / RECORD;

fn options() -> Options {
    common::options(1).buffer_bytes(16 << 10).checkpoint_bytes(EXTENT)
}

/// Overwrites until the store is full, and tells nobody of it.
fn fill_in_silence(store: &Store) {
    let mut random = Random(7);
    for count in 0.. {
        let key = if count < KEYS { count } else { random.below(KEYS) };
        // Each version of all keys is younger than the one of any key before.
        match store.append_to(Route::Shard(ShardId(0)), &value(key, count + 1)) {
            Ok(_) => {}
            Err(AppendError::StoreFull { .. }) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_store_full_of_what_nobody_released_has_room_again() {
    let format = FormatOptions::sized(SUPERBLOCK_AREA_BYTES + EXTENTS * EXTENT);
    let place = Place::with(&format.shards(1).extent_bytes(EXTENT).sparse());
    let store = Store::open(&place.path, &options()).unwrap();
    fill_in_silence(&store);
    store.close().unwrap();
    drop(store);

    let store = Store::open(&place.path, &options()).unwrap();
    let index = Arc::new(Index::of(&store, KEYS));
    assert!(store.append_to(Route::Shard(ShardId(0)), &[0; VALUE]).is_err(), "it is full");
    store.clean_with(Arc::clone(&index) as Arc<dyn RecordOwner>).unwrap();
    let mut random = Random(9);
    for _ in 0..2 * EXTENTS * EXTENT / RECORD {
        write(&store, &index, random.below(KEYS), false);
    }
    check_values(&store, &index);
    let cleaned = store.shards()[0].counters().extents_cleaned.load(Ordering::Relaxed);
    assert!(cleaned > EXTENTS, "{cleaned} extents were cleaned");
}
