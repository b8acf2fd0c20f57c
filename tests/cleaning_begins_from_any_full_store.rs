//! Two states of a full store that kills and timing lead to, made on purpose: one whose cleaning had taken the reserve when its
//! process died, and one in which somebody has just made room that its core has not looked at.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "common/overwrites.rs"]
mod overwrites;

use common::Place;
use corelog::{Address, AppendError, Core, FormatOptions, Options, RecordOwner, Route, ShardId, Store, Turn};
use corelog_shards::limits::SUPERBLOCK_AREA_BYTES;
use overwrites::{Index, RECORD, Random, VALUE, check_values, try_write, value, write};
use std::{
    collections::HashSet,
    future::Future,
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

const EXTENT: u64 = 256 << 10;
const EXTENTS: u64 = 6;
const SHARD: ShardId = ShardId(0);
/// Four tenths of the store.
const KEYS: u64 = EXTENTS * EXTENT * 4 / 10 / RECORD;

fn options() -> Options {
    common::options(1).buffer_bytes(16 << 10).checkpoint_bytes(EXTENT)
}

fn place() -> Place {
    let format = FormatOptions::sized(SUPERBLOCK_AREA_BYTES + EXTENTS * EXTENT);
    Place::with(&format.shards(1).extent_bytes(EXTENT).sparse())
}

/// Copies the store's file while its core stands still, once cleaning has taken the reserve and copies are durable.
struct Snapshot {
    index: Index,
    store: Mutex<Option<Store>>,
    from: PathBuf,
    to: PathBuf,
}

impl RecordOwner for Snapshot {
    fn is_live(&self, address: Address, payload: &[u8]) -> bool {
        self.index.is_live(address, payload)
    }

    fn relocated(&self, from: Address, to: Address, payload: &[u8]) -> bool {
        let mut store = self.store.lock().unwrap();
        if let Some(taken) = store.take_if(|store| store.directory().extents.free_count() == 0) {
            std::fs::copy(&self.from, &self.to).unwrap();
            drop(taken);
        }
        self.index.relocated(from, to, payload)
    }
}

#[test]
fn a_store_whose_cleaning_had_the_reserve_goes_on() {
    let place = place();
    let store = Store::open(&place.path, &options()).unwrap();
    let copy = place.path.with_extension("copy");
    let snapshot = Arc::new(Snapshot {
        index: Index::new(KEYS),
        store: Mutex::new(Some(store.clone())),
        from: place.path.clone(),
        to: copy.clone(),
    });
    store.clean_with(Arc::clone(&snapshot) as Arc<dyn RecordOwner>).unwrap();
    let mut random = Random(3);
    (0..KEYS).for_each(|key| _ = write(&store, &snapshot.index, key, false));
    for count in 0.. {
        if snapshot.store.lock().unwrap().is_none() {
            break;
        }
        assert!(count < 100 * KEYS, "cleaning never took the reserve");
        write(&store, &snapshot.index, random.below(KEYS), false);
    }

    let store = Store::open(&copy, &options()).unwrap();
    let extents = &store.directory().extents;
    assert!(extents.free_count() < extents.reserve(), "the reserve is whole");
    assert!(!store.recovery().shards[0].space.moves.is_empty(), "nothing is half cleaned");
    let index = Arc::new(Index::of(&store, KEYS));
    // Whoever appends before cleaning is on gets nothing that freeing needs.
    while try_write(&store, &index, random.below(KEYS), false).is_ok() {}
    store.clean_with(Arc::clone(&index) as Arc<dyn RecordOwner>).unwrap();
    for _ in 0..4 * EXTENTS * EXTENT / RECORD {
        write(&store, &index, random.below(KEYS), false);
    }
    check_values(&store, &index);
    store.close().unwrap();
}

/// Wants what nobody said to be dead.
#[derive(Default)]
struct Dead(Mutex<HashSet<Address>>);

impl RecordOwner for Dead {
    fn is_live(&self, address: Address, _payload: &[u8]) -> bool {
        !self.0.lock().unwrap().contains(&address)
    }

    fn relocated(&self, from: Address, _to: Address, _payload: &[u8]) -> bool {
        !self.0.lock().unwrap().contains(&from)
    }
}

fn block_on_core<F: Future>(core: &mut Core, future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
        let _progress = core.turn();
    }
}

/// Appends, and turns the core until that is answered.
fn append(store: &Store, core: &mut Core, index: u64) -> Result<Address, AppendError> {
    let bytes = value(index, 0);
    loop {
        match store.try_append(Route::Shard(SHARD), &bytes) {
            Ok(ticket) => return Ok(ticket.address()),
            Err(refused) if matches!(refused.error, AppendError::Full { .. }) => _ = core.turn(),
            Err(refused) => return Err(refused.error),
        }
    }
}

#[test]
fn an_append_waits_for_a_look_that_is_owed() {
    let place = place();
    let mut opening = Store::open_owned(&[&place.path], &options()).unwrap();
    let mut core = opening.take_seats().remove(0).start().unwrap();
    let store = opening.store().unwrap();
    let dead = Arc::new(Dead::default());
    store.clean_with(Arc::clone(&dead) as Arc<dyn RecordOwner>).unwrap();
    let mut addresses = Vec::new();
    let refused = loop {
        match append(&store, &mut core, addresses.len() as u64) {
            Ok(address) => addresses.push(address),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, AppendError::StoreFull { .. }), "{refused}");
    // All is looked at, and there is nothing to clean.
    while core.turn() == Turn::Progress {}
    assert!(append(&store, &mut core, 0).is_err(), "it is full");
    let half = &addresses[..addresses.len() / 2];
    dead.0.lock().unwrap().extend(half);
    half.iter().for_each(|address| store.release(*address, VALUE).unwrap());
    // The core has not turned since.
    let refused = store.try_append(Route::Shard(SHARD), &value(7, 0)).unwrap_err().error;
    assert!(matches!(refused, AppendError::Full { .. }), "somebody just made room, and it is {refused}");
    let (more, kept) = (half.len() as u64 / 2, addresses.len() / 2);
    (0..more).for_each(|index| _ = append(&store, &mut core, index).unwrap());
    let reading = store.read_async(addresses[kept]).unwrap();
    assert!(block_on_core(&mut core, reading).is_ok());
}
