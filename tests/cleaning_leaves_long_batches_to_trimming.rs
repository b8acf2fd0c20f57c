//! Batches are cleaned like single records, whether they fit a buffer or not. While one is being written nothing is that was
//! written since it began: a store that is full of it says so at once, gives it back whole when it is committed, and has room
//! again when it is given up.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::Place;
use corelog::{Address, AppendError, FormatOptions, Options, RecordOwner, Route, ShardId, Store};
use corelog_shards::limits::SUPERBLOCK_AREA_BYTES;
use std::sync::{Arc, atomic::Ordering};

const SHARD: ShardId = ShardId(0);
const EXTENT: u64 = 256 << 10;
const EXTENTS: u64 = 12;
const RECORD: usize = 1000;

/// Nothing is wanted.
struct Nobody;

impl RecordOwner for Nobody {
    fn is_live(&self, _address: Address, _payload: &[u8]) -> bool {
        false
    }

    fn relocated(&self, _from: Address, _to: Address, _payload: &[u8]) -> bool {
        false
    }
}

fn with_store(test: impl FnOnce(&Store)) {
    let format = FormatOptions::sized(SUPERBLOCK_AREA_BYTES + EXTENTS * EXTENT);
    let place = Place::with(&format.shards(1).extent_bytes(EXTENT).sparse());
    let options: Options = common::options(1).buffer_bytes(16 << 10).checkpoint_bytes(EXTENT);
    let store = Store::open(&place.path, &options).unwrap();
    store.clean_with(Arc::new(Nobody)).unwrap();
    test(&store);
}

/// A batch of so many records, each of which is released at once.
fn batch(store: &Store, records: u64) -> Result<Vec<Address>, AppendError> {
    let mut batch = store.batch(Route::Shard(SHARD))?;
    for _ in 0..records {
        batch.append(&[7; RECORD])?;
    }
    let ticket = batch.commit()?;
    let addresses = ticket.addresses().unwrap().to_vec();
    for address in &addresses {
        // Whose extent was cleaned already is gone.
        let _is_gone = store.release(*address, RECORD);
    }
    Ok(addresses)
}

#[test]
fn batches_that_fit_a_buffer_are_cleaned() {
    with_store(|store| {
        for _ in 0..10 * EXTENTS * EXTENT / (8 * RECORD as u64) {
            batch(store, 8).unwrap();
        }
        assert!(store.shards()[0].counters().extents_cleaned.load(Ordering::Relaxed) > EXTENTS);
    });
}

#[test]
fn longer_ones_are_cleaned_too() {
    with_store(|store| {
        for _ in 0..10 * EXTENTS * EXTENT / (40 * RECORD as u64) {
            batch(store, 40).unwrap();
        }
        assert!(store.shards()[0].counters().extents_cleaned.load(Ordering::Relaxed) > EXTENTS);
    });
}

#[test]
fn one_that_is_being_written_stays() {
    with_store(|store| {
        let mut open = store.batch(Route::Shard(SHARD)).unwrap();
        let mut records = 0;
        let error = loop {
            match open.append(&[7; RECORD]) {
                Ok(()) => records += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, AppendError::StoreFull { .. }), "{error}");
        assert!(records * RECORD as u64 > EXTENTS / 2 * EXTENT);
        drop(open);
        let began = std::time::Instant::now();
        // Whoever cleans hears that it was given up, and has to look.
        while let Err(error) = batch(store, 40) {
            assert!(matches!(error, AppendError::StoreFull { .. }), "{error}");
            assert!(began.elapsed() < std::time::Duration::from_secs(60), "it stays full");
        }
    });
}
