//! A retired shard is emptied while the store runs: what is wanted is in other shards then, once, and is found by its owner;
//! what is not is gone, and so are all extents but the last.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
mod program;

use common::{Place, payload};
use corelog::{
    Address, CleaningPolicy, DrainError, Durability, FormatOptions, Inspection, Options, ReadError, Record,
    RecordOwner, RetireError, Route, ShardId, Store,
};
use program::{FAILED, USAGE, run, run_with, text_of};
use std::{
    collections::HashMap,
    io::Read,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

const SHARDS: u16 = 3;
const RETIRED: ShardId = ShardId(1);
const KEYS: u64 = 3000;

/// Where the newest version of each key is.
#[derive(Default)]
struct Index {
    entries: Mutex<HashMap<u64, (u64, Address)>>,
    moved: AtomicU64,
}

fn value(key: u64, version: u64) -> Vec<u8> {
    let mut bytes = payload(key, version, 900);
    bytes[..8].copy_from_slice(&key.to_le_bytes());
    bytes[8..16].copy_from_slice(&version.to_le_bytes());
    bytes
}

fn parse(bytes: &[u8]) -> (u64, u64) {
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    (word(0), word(8))
}

impl Index {
    fn write(&self, store: &Store, key: u64, shard: ShardId) {
        let mut room = store.reserve(Route::Shard(shard), 900).unwrap();
        let mut entries = self.entries.lock().unwrap();
        let version = entries.get(&key).map_or(0, |(version, _)| version + 1);
        room.payload_mut().copy_from_slice(&value(key, version));
        let address = room.commit().address();
        if let Some((_, old)) = entries.insert(key, (version, address)) {
            drop(entries);
            let _gone_already = store.release(old, 900);
        }
    }

    fn check(&self, store: &Store) {
        for (key, (version, address)) in self.entries.lock().unwrap().iter() {
            let found = store.read(*address).unwrap_or_else(|error| panic!("key {key}: {error}"));
            assert!(found[..] == value(*key, *version), "key {key} has other bytes");
        }
    }
}

impl RecordOwner for Index {
    fn is_live(&self, address: Address, payload: &[u8]) -> bool {
        // The large record is wanted.
        payload.is_empty() || self.entries.lock().unwrap()[&parse(payload).0].1 == address
    }

    fn relocated(&self, from: Address, to: Address, payload: &[u8]) -> bool {
        self.moved.fetch_add(1, Ordering::Relaxed);
        if payload.is_empty() {
            return true;
        }
        let mut entries = self.entries.lock().unwrap();
        let entry = entries.get_mut(&parse(payload).0).unwrap();
        if entry.1 == from {
            entry.1 = to;
        }
        entry.1 == to
    }
}

fn options() -> Options {
    common::options(2).buffer_bytes(32 << 10).clean_policy(CleaningPolicy::Greedy)
}

fn place() -> Place {
    Place::with(&FormatOptions::sized(65 << 20).shards(SHARDS.into()).extent_bytes(512 << 10).sparse())
}

fn elsewhere(key: u64) -> ShardId {
    ShardId(if key.is_multiple_of(2) { 0 } else { 2 })
}

fn by_key(record: &Record) -> Route {
    let key = if record.large_bytes.is_some() { 0 } else { parse(&record.payload).0 };
    Route::Shard(elsewhere(key))
}

/// All keys in the shard, some of them in a batch, and a large record; then a part of them written over elsewhere.
fn fill(store: &Store, index: &Index) -> Vec<u8> {
    (0..KEYS - 200).for_each(|key| index.write(store, key, RETIRED));
    let mut batch = store.batch(Route::Shard(RETIRED)).unwrap();
    (KEYS - 200..KEYS).for_each(|key| batch.append(&value(key, 0)).unwrap());
    let ticket = batch.commit().unwrap();
    let addresses = ticket.addresses().unwrap().to_vec();
    for (key, address) in (KEYS - 200..KEYS).zip(addresses) {
        index.entries.lock().unwrap().insert(key, (0, address));
    }
    let bytes = payload(7, 7, 1_500_000);
    let mut large = store.append_large(Route::Shard(RETIRED)).unwrap();
    large.append(&bytes).unwrap();
    large.finish().unwrap();
    (0..KEYS).step_by(3).for_each(|key| index.write(store, key, elsewhere(key)));
    bytes
}

#[test]
fn what_is_wanted_is_elsewhere_and_the_extents_are_free() {
    let place = place();
    let store = Store::open(&place.path, &options()).unwrap();
    let index = Index::default();
    let large = fill(&store, &index);
    store.retire_shard(RETIRED).unwrap();
    let held = store.shard(RETIRED).unwrap().extents().len();
    assert!(held > 6, "{held}");
    let is_over = AtomicBool::new(false);
    let drained = std::thread::scope(|scope| {
        scope.spawn(|| {
            for key in (0..KEYS).step_by(7).cycle().take(20_000) {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                index.write(&store, key, elsewhere(key));
            }
        });
        let drained = store.drain_shard(RETIRED, &index, &mut by_key);
        is_over.store(true, Ordering::Relaxed);
        drained.unwrap()
    });
    assert!(drained.moved > KEYS / 3 && drained.moved <= KEYS * 2 / 3 + 1, "{drained:?}");
    assert_eq!(drained.moved + drained.dropped, KEYS + 1, "{drained:?}");
    assert!(drained.freed_extents >= held as u64 - 2 && drained.left_extents <= 2, "{drained:?}");
    assert!(drained.moved_bytes > large.len() as u64);
    assert_eq!(store.scan(RETIRED).unwrap().count(), 0, "something is left in the shard");
    index.check(&store);
    let again = store.drain_shard(RETIRED, &index, &mut by_key).unwrap();
    assert_eq!((again.moved, again.dropped), (0, 0));
    store.close().unwrap();
    drop(store);

    let store = Store::open(&place.path, &options()).unwrap();
    assert_eq!(store.is_retired(RETIRED), Some(true));
    assert_eq!(store.scan(RETIRED).unwrap().count(), 0);
    index.check(&store);
    let mut newest: HashMap<u64, u64> = HashMap::new();
    let mut larges = 0;
    for record in store.scan_all().unwrap() {
        let record = record.unwrap();
        if record.large_bytes.is_some() {
            let mut bytes = Vec::new();
            store.open_large(record.address).unwrap().read_to_end(&mut bytes).unwrap();
            assert!(bytes == large, "the large record has other bytes");
            larges += 1;
            continue;
        }
        let (key, version) = parse(&record.payload);
        let known = newest.entry(key).or_default();
        *known = version.max(*known);
    }
    assert_eq!(larges, 1);
    for (key, (version, _)) in index.entries.lock().unwrap().iter() {
        assert_eq!(newest.get(key), Some(version), "key {key}");
    }
    store.close().unwrap();
    let report = Inspection::open(&[&place.path], &options()).unwrap();
    assert!(report.verify(None, &mut |_, _| {}).unwrap().is_good());
}

/// The copies that were made before are not made again, but for those of one round.
#[test]
fn one_that_ended_early_goes_on_where_it_was() {
    let place = place();
    let store = Store::open(&place.path, &options()).unwrap();
    let index = Index::default();
    (0..12_000).for_each(|key| index.write(&store, key, RETIRED));
    store.retire_shard(RETIRED).unwrap();
    let mut left = 9_000;
    let mut until_it_fails = |record: &Record| {
        left -= 1;
        if left == 0 { Route::Shard(RETIRED) } else { by_key(record) }
    };
    let error = store.drain_shard(RETIRED, &index, &mut until_it_fails).unwrap_err();
    assert!(matches!(error, DrainError::Append(corelog::AppendError::Retired { .. })), "{error}");
    drop(store);
    let store = Store::open(&place.path, &options()).unwrap();
    let moved = index.moved.load(Ordering::Relaxed);
    assert!(moved > 4_000, "{moved}");
    let drained = store.drain_shard(RETIRED, &index, &mut by_key).unwrap();
    assert_eq!(moved + drained.moved, 12_000, "{drained:?}");
    assert!(drained.dropped <= 5_000, "{drained:?}");
    index.check(&store);
    assert_eq!(store.scan(RETIRED).unwrap().count(), 0);
    assert_eq!(drained.left_extents, store.shard(RETIRED).unwrap().extents().len() as u64);
}

#[test]
fn what_cannot_be_emptied_is_refused() {
    let place = place();
    let store = Store::open(&place.path, &options()).unwrap();
    let index = Index::default();
    let drain = || store.drain_shard(RETIRED, &index, &mut by_key);
    assert!(matches!(drain(), Err(DrainError::NotRetired { shard: RETIRED })));
    let none = store.drain_shard(ShardId(9), &index, &mut by_key).unwrap_err();
    assert!(matches!(none, DrainError::NoSuchShard { last: 2, .. }), "{none}");
    index.write(&store, 1, RETIRED);
    let address = index.entries.lock().unwrap()[&1].1;
    store.set_cursor(RETIRED, "reader", address).unwrap().wait().unwrap();
    store.retire_shard(RETIRED).unwrap();
    assert!(matches!(drain(), Err(DrainError::Cursor { name, .. }) if name == "reader"));
    store.remove_cursor(RETIRED, "reader").unwrap().wait().unwrap();
    assert_eq!(drain().unwrap().moved, 1);
    assert!(matches!(store.read(address), Err(ReadError::Reclaimed { .. })));
    index.check(&store);
    // An empty shard has nothing to give.
    store.retire_shard(ShardId(2)).unwrap();
    let drained = store.drain_shard(ShardId(2), &index, &mut |_| Route::Shard(ShardId(0))).unwrap();
    assert!(drained.left_extents <= 2, "{drained:?}");
    assert!(matches!(store.retire_shard(ShardId(0)), Err(RetireError::LastShard { .. })));
    store.flush(ShardId(0), Durability::Durable).unwrap();
}

#[test]
fn the_program_retires_and_empties() {
    let folder = program::folder();
    let store = program::store_in(folder.path());
    let lines = program::lines(3000);
    run_with(&store, "append @ --key record", &text_of(&lines)).done();
    run(&store, "retire @ --shard 99").refused(USAGE, &["its shards are 0 to"]);
    let before = run(&store, "cat @").done();
    let in_shard = run(&store, "cat @ --shard 1").done().lines().count() as u64;
    assert!(in_shard > 100);
    assert_eq!(run(&store, "retire @ --shard 1 --json").json()["retired"], true);
    run_with(&store, "append @ --shard 1", b"no\n").refused(FAILED, &["retired"]);
    let map = folder.path().join("map");
    let told = run(&store, &format!("retire @ --shard 1 --drain --map {} --json", map.display())).json();
    assert_eq!(told["drained"]["moved"].as_u64(), Some(in_shard), "{told:#}");
    assert_eq!(std::fs::read_to_string(&map).unwrap().lines().count() as u64, in_shard);
    assert_eq!(run(&store, "cat @ --shard 1").done(), "");
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&run(&store, "cat @").done()), sorted(&before));
    let (_, to) = std::fs::read_to_string(&map)
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .split_once(' ')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    run(&store, &format!("read @ {to}")).done();
    assert_eq!(run(&store, "info @ --json").json()["shards"][1]["state"], "retired");
    run(&store, "verify @").done();
}

/// Some keys are nobody's any more.
struct Wanting<'index>(&'index Index);

impl RecordOwner for Wanting<'_> {
    fn is_live(&self, address: Address, payload: &[u8]) -> bool {
        self.0.entries.lock().unwrap().get(&parse(payload).0).is_some_and(|known| known.1 == address)
    }

    fn relocated(&self, from: Address, to: Address, payload: &[u8]) -> bool {
        self.0.relocated(from, to, payload)
    }
}

/// A drain freed what it had copied only after 4 MiB of it, and so ended where the store was full before that.
#[test]
fn a_full_store_is_emptied_into_what_the_shard_itself_gives_back() {
    let place = place();
    let store = Store::open(&place.path, &options()).unwrap();
    let index = Index::default();
    (0..KEYS).for_each(|key| index.write(&store, key, RETIRED));
    // What comes first is dead, by others or for nobody; behind it, all is wanted.
    let dead: Vec<_> = (0..KEYS / 2).map(|key| index.entries.lock().unwrap().remove(&key).unwrap()).collect();
    let full =
        (0..).find(|index| store.append_to(Route::Shard(ShardId(0)), &payload(1, *index, 900)).is_err());
    assert!(full > Some(10_000), "{full:?}");
    assert!(store.append_to(Route::Shard(ShardId(2)), b"x").is_ok(), "it has begun an extent");
    while store.append_to(Route::Shard(ShardId(2)), &[1; 900]).is_ok() {}
    store.retire_shard(RETIRED).unwrap();
    let held = store.shard(RETIRED).unwrap().extents().len();
    let drained = store.drain_shard(RETIRED, &Wanting(&index), &mut by_key).unwrap();
    assert_eq!((drained.moved, drained.dropped), (KEYS - KEYS / 2, dead.len() as u64));
    assert!(drained.left_extents <= 2 && drained.freed_extents + 2 >= held as u64, "{drained:?} of {held}");
    index.check(&store);
}
