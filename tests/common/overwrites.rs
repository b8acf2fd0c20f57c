//! A key-value store in small: an index in memory over a store that is overwritten and cleaned.
#![allow(dead_code, reason = "each test uses some of it")]
#![allow(clippy::unwrap_used, reason = "tests")]

use corelog::{
    Address, AppendError, Durability, ReadError, Record, RecordOwner, Route, ShardId, SpaceError, Store,
};
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

/// Bytes of each value.
pub const VALUE: usize = 1000;
/// Bytes that a value takes in the log.
pub const RECORD: u64 = VALUE as u64 + 8;

/// What is known of a key.
#[derive(Clone, Copy, Default)]
pub struct Entry {
    pub version: u64,
    pub address: Option<Address>,
}

/// What a key-value store keeps in memory: where the newest value of each key is.
pub struct Index {
    pub entries: Vec<Mutex<Entry>>,
    pub relocations: AtomicU64,
    /// How often cleaning was held and let go. An odd number: it is held, or was until a moment ago, and a full store says so.
    pub holds: AtomicU64,
}

impl Index {
    pub fn new(keys: u64) -> Self {
        let entries = (0..keys).map(|_| Mutex::default()).collect();
        Self { entries, relocations: AtomicU64::new(0), holds: AtomicU64::new(0) }
    }

    /// As a process builds it that opens the store: by a scan.
    pub fn of(store: &Store, keys: u64) -> Self {
        let index = Self::new(keys);
        for (key, (version, address)) in scanned(store) {
            *index.entry(key).lock().unwrap() = Entry { version, address: Some(address) };
        }
        index
    }

    pub fn entry(&self, key: u64) -> &Mutex<Entry> {
        &self.entries[key as usize]
    }
}

impl RecordOwner for Index {
    fn is_live(&self, address: Address, payload: &[u8]) -> bool {
        let (key, _) = parse(payload);
        self.entry(key).lock().unwrap().address == Some(address)
    }

    fn relocated(&self, from: Address, to: Address, payload: &[u8]) -> bool {
        let (key, version) = parse(payload);
        let mut entry = self.entry(key).lock().unwrap();
        if entry.version == version && entry.address == Some(from) {
            entry.address = Some(to);
            self.relocations.fetch_add(1, Ordering::Relaxed);
        }
        entry.address == Some(to)
    }
}

/// The bytes of a key's version: each depends on both.
pub fn value(key: u64, version: u64) -> Vec<u8> {
    let mut bytes = super::common::payload(key, version, VALUE);
    bytes[..8].copy_from_slice(&key.to_le_bytes());
    bytes[8..16].copy_from_slice(&version.to_le_bytes());
    bytes
}

/// Key and version of a value.
pub fn parse(payload: &[u8]) -> (u64, u64) {
    let word = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().unwrap());
    (word(0), word(8))
}

pub use super::common::Random;

/// The shard that a key's values go to.
pub fn shard_of(key: u64, shards: u64) -> ShardId {
    ShardId((key % shards) as u16)
}

/// Writes the next version of a key, and waits until it is durable if that is asked for. The lock of its entry is held
/// from the commit on, not while waiting for room. Gives the version, and the steps that cleaning made in the key's shard
/// while the append waited for room.
pub fn write(store: &Store, index: &Index, key: u64, durable: bool) -> (u64, u64) {
    try_write(store, index, key, durable).unwrap_or_else(|error| panic!("{error}"))
}

/// The same, unless there is no room.
pub fn try_write(store: &Store, index: &Index, key: u64, durable: bool) -> Result<(u64, u64), AppendError> {
    let version = index.entry(key).lock().unwrap().version + 1;
    let takers = store.shards().iter().filter(|shard| shard.cold_of().is_none());
    let shard = shard_of(key, takers.count() as u64);
    let steps = || store.shards()[usize::from(shard.0)].counters().clean_steps.load(Ordering::Relaxed);
    let before = steps();
    let mut reservation = loop {
        let holds = index.holds.load(Ordering::Acquire);
        let was_held = || !holds.is_multiple_of(2) || index.holds.load(Ordering::Acquire) != holds;
        match store.reserve(Route::Shard(shard), VALUE) {
            Ok(reservation) => break reservation,
            // Somebody held cleaning at some time since, and will let go of it, or has.
            Err(AppendError::StoreFull { .. }) if was_held() => std::thread::yield_now(),
            Err(error) => return Err(error),
        }
    };
    let waited = steps() - before;
    reservation.payload_mut().copy_from_slice(&value(key, version));
    let mut entry = index.entry(key).lock().unwrap();
    let ticket = reservation.commit();
    let old = std::mem::replace(&mut *entry, Entry { version, address: Some(ticket.address()) });
    drop(entry);
    if durable {
        ticket.wait(Durability::Durable).unwrap();
    }
    if let Some(old) = old.address {
        match store.release(old, VALUE) {
            // It was found dead and cleaned away before it was said to be.
            Ok(()) | Err(SpaceError::Place(ReadError::Reclaimed { .. })) => {}
            Err(error) => panic!("{error}"),
        }
    }
    Ok((version, waited))
}

/// Every value, byte for byte, by its address.
pub fn check_values(store: &Store, index: &Index) {
    let keys: Vec<u64> = (0..index.entries.len() as u64).collect();
    for keys in keys.chunks(2048) {
        let entries: Vec<_> = keys.iter().map(|key| (*key, *index.entry(*key).lock().unwrap())).collect();
        let written = entries.iter().filter_map(|(key, it)| Some((*key, it.version, it.address?)));
        let written: Vec<_> = written.collect();
        let addresses: Vec<_> = written.iter().map(|(.., address)| *address).collect();
        for ((key, version, address), found) in written.into_iter().zip(store.read_many(&addresses)) {
            let found = match found {
                // Cleaning moved it in between.
                Err(ReadError::Reclaimed { .. }) => {
                    let now = index.entry(key).lock().unwrap().address.unwrap();
                    assert_ne!(now, address, "key {key} was cleaned away");
                    store.read(now)
                }
                found => found,
            };
            let found = found.unwrap_or_else(|error| panic!("key {key}: {error}"));
            assert!(found[..] == value(key, version), "key {key} has other bytes");
        }
    }
}

/// The newest version of each key; none may come twice.
pub fn scanned(store: &Store) -> HashMap<u64, (u64, Address)> {
    let mut newest: HashMap<u64, (u64, Address)> = HashMap::new();
    let mut seen = HashSet::new();
    let mut note = |record: Record| {
        let (key, version) = parse(&record.payload);
        assert!(seen.insert((key, version)), "version {version} of key {key} comes twice");
        let known = newest.entry(key).or_insert((version, record.address));
        if version > known.0 {
            *known = (version, record.address);
        }
    };
    if store.options().cold_shards {
        // Records move between the shards, but not while all are scanned at once.
        store.scan_all().unwrap().for_each(|record| note(record.unwrap()));
        return newest;
    }
    for shard in store.shards() {
        store.scan(shard.id()).unwrap().for_each(|record| note(record.unwrap()));
    }
    newest
}
