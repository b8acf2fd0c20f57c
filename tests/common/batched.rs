//! An index in memory over a store whose values come in batches and large records, of many lengths.
//!
//! What a batch wrote can be moved before whoever committed it has noted where it is: a version that the index has not
//! heard of is wanted.
#![allow(dead_code, reason = "each test uses some of it")]
#![allow(clippy::unwrap_used, reason = "tests")]

use corelog::{Address, AppendError, ReadError, RecordOwner, Route, ShardId, SpaceError, Store};
use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
};

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    version: u64,
    address: Option<Address>,
    length: usize,
}

/// Where the newest version of each key is.
pub struct Index {
    entries: Vec<Mutex<Entry>>,
}

pub use super::common::Random;

/// The bytes of a key's version: each depends on both.
pub fn value(key: u64, version: u64, length: usize) -> Vec<u8> {
    let mut bytes = super::common::payload(key, version, length.max(16));
    bytes[..8].copy_from_slice(&key.to_le_bytes());
    bytes[8..16].copy_from_slice(&version.to_le_bytes());
    bytes
}

fn parse(payload: &[u8]) -> (u64, u64) {
    let word = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().unwrap());
    (word(0), word(8))
}

impl Index {
    pub fn new(keys: u64) -> Self {
        Self { entries: (0..keys).map(|_| Mutex::default()).collect() }
    }

    /// As a process builds it that opens the store: by a scan, which gives no version twice.
    pub fn of(store: &Store, keys: u64) -> Self {
        let index = Self::new(keys);
        let mut seen = HashSet::new();
        for shard in store.shards() {
            for record in store.scan(shard.id()).unwrap() {
                let record = record.unwrap();
                let (key, version) = parse(&record.payload);
                assert!(seen.insert((key, version)), "version {version} of key {key} comes twice");
                let mut entry = index.entries[key as usize].lock().unwrap();
                if version > entry.version {
                    let (address, length) = (Some(record.address), record.payload.len());
                    *entry = Entry { version, address, length };
                }
            }
        }
        index
    }

    pub fn keys(&self) -> u64 {
        self.entries.len() as u64
    }

    pub fn versions(&self) -> Vec<u64> {
        self.entries.iter().map(|entry| entry.lock().unwrap().version).collect()
    }

    pub fn version(&self, key: u64) -> u64 {
        self.entries[key as usize].lock().unwrap().version
    }

    /// An append returned. What it takes the place of is released.
    pub fn note(&self, store: &Store, key: u64, version: u64, address: Address, length: usize) {
        let mut entry = self.entries[key as usize].lock().unwrap();
        if entry.version >= version {
            return;
        }
        let old = std::mem::replace(&mut *entry, Entry { version, address: Some(address), length });
        drop(entry);
        if let Some(at) = old.address {
            match store.release(at, old.length) {
                // It was found dead and cleaned away before it was said to be.
                Ok(()) | Err(SpaceError::Place(ReadError::Reclaimed { .. })) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Every value, byte for byte.
    pub fn check(&self, store: &Store) {
        for key in 0..self.keys() {
            let entry = *self.entries[key as usize].lock().unwrap();
            let Some(address) = entry.address else { continue };
            let found = match store.read(address) {
                // Cleaning moved it in between.
                Err(ReadError::Reclaimed { .. }) => {
                    let now = self.entries[key as usize].lock().unwrap().address.unwrap();
                    assert_ne!(now, address, "key {key} was cleaned away");
                    store.read(now)
                }
                found => found,
            };
            let found = found.unwrap_or_else(|error| panic!("key {key}: {error}"));
            assert!(found[..] == value(key, entry.version, entry.length), "key {key} has other bytes");
        }
    }

    /// A scan of all shards gives the newest version of each key, and no version twice.
    pub fn check_scan(&self, store: &Store) {
        assert_eq!(Self::of(store, self.keys()).versions(), self.versions());
    }
}

impl RecordOwner for Index {
    fn is_live(&self, address: Address, payload: &[u8]) -> bool {
        let (key, version) = parse(payload);
        let entry = self.entries[key as usize].lock().unwrap();
        entry.address == Some(address) || version > entry.version
    }

    fn relocated(&self, from: Address, to: Address, payload: &[u8]) -> bool {
        let (key, version) = parse(payload);
        let mut entry = self.entries[key as usize].lock().unwrap();
        if version > entry.version || (version == entry.version && entry.address == Some(from)) {
            *entry = Entry { version, address: Some(to), length: payload.len() };
        }
        entry.address == Some(to)
    }
}

/// Writes the next version of each key as one batch over all shards, the shard of a key being its remainder.
pub fn write_over(store: &Store, index: &Index, keys: &[(u64, usize)]) -> Result<(), AppendError> {
    let shards = store.shards().len() as u64;
    let mut batch = store.batch_over()?;
    let mut written: HashMap<ShardId, Vec<(u64, u64, usize)>> = HashMap::new();
    for (key, length) in keys {
        let (shard, version) = (ShardId((key % shards) as u16), index.version(*key) + 1);
        batch.append_to(Route::Shard(shard), &value(*key, version, *length))?;
        written.entry(shard).or_default().push((*key, version, *length));
    }
    let ticket = batch.commit()?;
    for (shard, written) in written {
        for ((key, version, length), at) in written.into_iter().zip(ticket.addresses(shard).unwrap()) {
            index.note(store, key, version, *at, length);
        }
    }
    Ok(())
}

/// Writes the next version of each key as one batch of a shard.
pub fn write_batch(
    store: &Store,
    index: &Index,
    shard: ShardId,
    keys: &[(u64, usize)],
) -> Result<(), AppendError> {
    let mut batch = store.batch(Route::Shard(shard))?;
    let mut written = Vec::new();
    for (key, length) in keys {
        let version = index.version(*key) + 1;
        batch.append(&value(*key, version, *length))?;
        written.push((*key, version, *length));
    }
    let ticket = batch.commit()?;
    for ((key, version, length), at) in written.into_iter().zip(ticket.addresses().unwrap()) {
        index.note(store, key, version, *at, length);
    }
    Ok(())
}

/// Writes the next version of a key by itself.
pub fn write_one(
    store: &Store,
    index: &Index,
    shard: ShardId,
    (key, length): (u64, usize),
) -> Result<(), AppendError> {
    let version = index.version(key) + 1;
    let ticket = store.append_to(Route::Shard(shard), &value(key, version, length))?;
    index.note(store, key, version, ticket.address(), length);
    Ok(())
}
