//! A shard was emptied while an extent of it was half cleaned. Its owner knew the copies, the scan gave the originals, which
//! were not wanted, and passed over the copies, which did not count yet: the trim at the end took both.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "common/overwrites.rs"]
mod overwrites;

use common::Place;
use corelog::{
    Address, CleaningPolicy, DrainError, FormatOptions, HeldCleaning, Options, RecordOwner, Route, ShardId,
    SpaceError, SpaceRefusal, Store,
};
use corelog_shards::limits::SUPERBLOCK_AREA_BYTES;
use overwrites::{Index, RECORD, Random, check_values, write};
use std::sync::{Arc, Mutex, atomic::Ordering};

const EXTENT: u64 = 256 << 10;
const EXTENTS: u64 = 24;
const RETIRED: ShardId = ShardId(1);
/// Half of them are used, those of the shard that is retired: a fifth of the store.
const KEYS: u64 = 2 * EXTENTS * EXTENT / 5 / RECORD;

/// Holds cleaning once it is told of a copy.
struct Holding {
    index: Index,
    /// Taken for that.
    store: Mutex<Option<Store>>,
    held: Mutex<Option<HeldCleaning>>,
}

impl RecordOwner for Holding {
    fn is_live(&self, address: Address, payload: &[u8]) -> bool {
        self.index.is_live(address, payload)
    }

    fn relocated(&self, from: Address, to: Address, payload: &[u8]) -> bool {
        if let Some(store) = self.store.lock().unwrap().take() {
            *self.held.lock().unwrap() = Some(store.hold_cleaning());
        }
        self.index.relocated(from, to, payload)
    }
}

fn options() -> Options {
    // What is drained has room then.
    let options = common::options(1).clean_low_percent(60).clean_high_percent(65);
    options.buffer_bytes(16 << 10).checkpoint_bytes(EXTENT).clean_policy(CleaningPolicy::Greedy)
}

fn place() -> Place {
    let format = FormatOptions::sized(SUPERBLOCK_AREA_BYTES + EXTENTS * EXTENT);
    Place::with(&format.shards(2).extent_bytes(EXTENT).sparse())
}

#[test]
fn what_was_copied_within_the_shard_is_not_lost() {
    let place = place();
    let store = Store::open(&place.path, &options()).unwrap();
    let (index, held) = (Index::new(KEYS), Mutex::default());
    let holding = Arc::new(Holding { index, store: Mutex::new(Some(store.clone())), held });
    let mut random = Random(5);
    store.clean_with(Arc::clone(&holding) as Arc<dyn RecordOwner>).unwrap();
    (1..KEYS).step_by(2).for_each(|key| _ = write(&store, &holding.index, key, false));
    while holding.held.lock().unwrap().is_none() {
        write(&store, &holding.index, 1 + 2 * random.below(KEYS / 2), true);
    }
    store.retire_shard(RETIRED).unwrap();
    let drain = || store.drain_shard(RETIRED, &*holding, &mut |_| Route::Shard(ShardId(0)));
    let refused = drain().unwrap_err();
    let is_held = |refusal: &SpaceRefusal| *refusal == SpaceRefusal::CleaningHeld;
    assert!(
        matches!(&refused, DrainError::Space(SpaceError::Refused { refusal, .. }) if is_held(refusal)),
        "{refused}"
    );
    check_values(&store, &holding.index);
    drop(holding.held.lock().unwrap().take());
    let drained = drain().unwrap();
    assert!(drained.moved > KEYS / 4, "{drained:?}");
    assert!(holding.index.relocations.load(Ordering::Relaxed) > drained.moved);
    check_values(&store, &holding.index);
    assert_eq!(store.scan(RETIRED).unwrap().count(), 0);
}
