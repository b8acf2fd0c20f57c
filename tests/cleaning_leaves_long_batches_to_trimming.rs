//! Batches that fit a buffer are cleaned like single records. Longer ones keep their extents until these are trimmed: a store
//! that is full of them says so at once, gives all of them back, and has room again behind a trim.
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
fn longer_ones_go_with_a_trim() {
    with_store(|store| {
        let mut committed = Vec::new();
        let error = loop {
            match batch(store, 40) {
                Ok(addresses) => committed.push(addresses),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, AppendError::StoreFull { .. }), "{error}");
        assert!(committed.len() as u64 * 40 * RECORD as u64 > EXTENTS / 2 * EXTENT);
        for address in committed.iter().flatten() {
            assert_eq!(store.read(*address).unwrap()[..], [7; RECORD]);
        }
        let middle = committed[committed.len() / 2][0];
        let freed = store.trim(SHARD, middle).unwrap().wait().unwrap().freed;
        assert!(freed >= EXTENTS / 4, "{freed} extents were freed");
        batch(store, 40).unwrap();
    });
}
