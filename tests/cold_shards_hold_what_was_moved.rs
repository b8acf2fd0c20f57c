//! Cold shards: made at an open that asks for them, and what each part of a store does with them.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

#[path = "common/overwrites.rs"]
mod overwrites;

use common::Place;
use corelog::{
    AppendError, CleaningPolicy, DrainError, Durability, FormatOptions, Inspection, Options, RecordOwner,
    RetireError, Route, ScanFrom, ShardId, SpaceError, Store,
};
use corelog_shards::{
    format::superblock::ShardState,
    limits::{COLD_EXTENTS_MIN, SUPERBLOCK_AREA_BYTES},
    shard_owner::SpaceRefusal,
};
use overwrites::{Index, RECORD, Random, check_values, parse, scanned};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

const EXTENT: u64 = 256 << 10;
const SHARDS: u32 = 2;
const EXTENTS: u64 = (SHARDS * COLD_EXTENTS_MIN) as u64;
const KEYS: u64 = EXTENTS * EXTENT * 6 / 10 / RECORD;

fn place() -> Place {
    let sized = FormatOptions::sized(SUPERBLOCK_AREA_BYTES + EXTENTS * EXTENT);
    Place::with(&sized.shards(SHARDS).extent_bytes(EXTENT).sparse())
}

fn options(cores: u32) -> Options {
    let options = common::options(cores).buffer_bytes(16 << 10).checkpoint_bytes(EXTENT);
    options.clean_policy(CleaningPolicy::CostBenefit).cold_shards(true)
}

/// Nine of ten writes go to a tenth of the keys; until the cold shards hold something.
fn overwrite(store: &Store, index: &Index, seed: u64) {
    let mut random = Random(seed);
    let mut write = |count: u64| {
        for _ in 0..count {
            let hot = KEYS / 10;
            let key = if random.below(10) < 9 { random.below(hot) } else { hot + random.below(KEYS - hot) };
            overwrites::write(store, index, key, false);
        }
    };
    write(2 * KEYS);
    let holds = |store: &Store| {
        let mut cold = store.shards().iter().filter(|shard| shard.cold_of().is_some());
        cold.all(|shard| shard.watermarks().durable.0 > 0)
    };
    for _ in 0..100 {
        if holds(store) {
            return;
        }
        write(KEYS / 4);
    }
    panic!("nothing came to the cold shards");
}

fn filled(place: &Place) -> (Store, Arc<Index>) {
    let store = Store::open(&place.path, &options(SHARDS)).unwrap();
    let index = Arc::new(Index::new(KEYS));
    store.clean_with(Arc::clone(&index) as Arc<dyn RecordOwner>).unwrap();
    (0..KEYS).for_each(|key| {
        overwrites::write(&store, &index, key, false);
    });
    overwrite(&store, &index, 7);
    (store, index)
}

/// As [`assert_found`]; what cleaning had begun to copy when its extent was trimmed may come twice.
fn assert_newest(store: &Store, index: &Index) {
    let mut newest = BTreeMap::new();
    for record in store.scan_all().unwrap() {
        let (key, version) = parse(&record.unwrap().payload);
        let known = newest.entry(key).or_insert(version);
        *known = version.max(*known);
    }
    let versions = index.entries.iter().map(|entry| entry.lock().unwrap().version);
    assert!(newest.into_values().eq(versions), "the newest of each key is there");
}

fn assert_found(store: &Store, index: &Index) {
    let found = scanned(store);
    for (key, entry) in index.entries.iter().enumerate() {
        let version = found.get(&(key as u64)).map(|(version, _)| *version);
        assert_eq!(version, Some(entry.lock().unwrap().version), "key {key}");
    }
}

#[test]
fn a_store_has_them_once_it_is_asked_to_and_keeps_them() {
    let place = place();
    let count = |cold: bool| {
        let store = Store::open(&place.path, &options(SHARDS).cold_shards(cold)).unwrap();
        let count = store.shards().iter().filter(|shard| shard.cold_of().is_some()).count();
        store.close().unwrap();
        count
    };
    assert_eq!((count(false), count(true), count(true), count(false)), (0, 2, 2, 2));
    let looked = Inspection::open(&[&place.path], &options(1)).unwrap();
    let states: Vec<_> = looked.superblock().shards.iter().map(|shard| shard.state).collect();
    let cold = |hot| ShardState::Cold(ShardId(hot));
    assert_eq!(states, [ShardState::Active, ShardState::Active, cold(0), cold(1)]);
    // A store that is not large enough goes on without.
    let small = FormatOptions::sized(SUPERBLOCK_AREA_BYTES + (EXTENTS - 1) * EXTENT);
    let small = Place::with(&small.shards(SHARDS).extent_bytes(EXTENT).sparse());
    let store = Store::open(&small.path, &options(SHARDS)).unwrap();
    assert!(store.shards().iter().all(|shard| shard.cold_of().is_none()));
}

#[test]
fn nobody_appends_to_one_and_no_route_leads_there() {
    let place = place();
    let before = {
        let store = Store::open(&place.path, &options(SHARDS).cold_shards(false)).unwrap();
        (0..1000_u64).map(|key| store.route(Route::Key(key.wrapping_mul(0x9e37_79b9)))).collect::<Vec<_>>()
    };
    let store = Store::open(&place.path, &options(SHARDS)).unwrap();
    let cold = store.cold_shard_of(ShardId(1)).unwrap();
    assert_eq!((cold, store.cold_shard_of(cold)), (ShardId(3), None));
    assert!(matches!(store.append_to(Route::Shard(cold), b"x"), Err(AppendError::Retired { .. })));
    assert!(matches!(store.retire_shard(cold), Err(RetireError::Cold { .. })));
    let nobody = Index::new(0);
    assert!(matches!(store.drain_shard(cold, &nobody, &mut |_| Route::Local), Err(DrainError::Cold { .. })));
    let after: Vec<_> =
        (0..1000_u64).map(|key| store.route(Route::Key(key.wrapping_mul(0x9e37_79b9)))).collect();
    assert!(before == after, "keys go where they went");
    for _ in 0..100 {
        assert!(store.route(Route::RoundRobin) < ShardId(2) && store.route(Route::Local) < ShardId(2));
    }
    // A further shard comes behind the cold ones, and is dealt keys like the others.
    store.close().unwrap();
    drop(store);
    let store = Store::open(&place.path, &options(3)).unwrap();
    let routed: std::collections::BTreeSet<_> = (0..1000).map(|_| store.route(Route::RoundRobin)).collect();
    let keyed: std::collections::BTreeSet<_> =
        (0..1000_u64).map(|key| store.route(Route::Key(key.wrapping_mul(0x9e37_79b9)))).collect();
    let takers = [0, 1, 4].map(ShardId).into();
    assert_eq!((&routed, &keyed), (&takers, &takers));
    assert_eq!(store.grants().len(), 3, "each core has a shard");
}

#[test]
fn records_are_there_with_any_number_of_cores() {
    let place = place();
    let (store, index) = filled(&place);
    check_values(&store, &index);
    assert_found(&store, &index);
    drop(store);
    for cores in [1, 2, 1] {
        let store = Store::open(&place.path, &options(cores)).unwrap();
        assert_found(&store, &index);
        let again = Arc::new(Index::of(&store, KEYS));
        for (key, entry) in index.entries.iter().enumerate() {
            *entry.lock().unwrap() = *again.entry(key as u64).lock().unwrap();
        }
        store.clean_with(Arc::clone(&index) as Arc<dyn RecordOwner>).unwrap();
        overwrite(&store, &index, u64::from(cores) + 10);
        check_values(&store, &index);
        assert_found(&store, &index);
        store.shards().iter().for_each(|shard| store.flush(shard.id(), Durability::Durable).unwrap());
        drop(store);
        let report = Inspection::open(&[&place.path], &options(1)).unwrap();
        let found = report.verify(None, &mut |_, _| {}).unwrap();
        assert!(found.findings.is_empty(), "{found:?}");
        // What an inspection gives is what the store gives.
        let mut newest = BTreeMap::new();
        for shard in (0..).map(ShardId).take(report.superblock().shards.len()) {
            for record in report.scan(shard).unwrap() {
                let (key, version) = parse(&record.unwrap().payload);
                let known = newest.entry(key).or_insert(version);
                *known = version.max(*known);
            }
        }
        let versions = index.entries.iter().map(|entry| entry.lock().unwrap().version);
        assert!(newest.into_values().eq(versions), "the newest of each key is there");
        drop(report);
    }
    assert!(index.relocations.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_backup_has_what_was_moved_where_it_was_appended() {
    let place = place();
    let (store, index) = filled(&place);
    let _hold = store.hold_cleaning();
    let cut = store.cut();
    let mut bytes = Vec::new();
    store.backup(&cut, &mut bytes).unwrap();
    let backup = corelog::Backup::open(&bytes[..]).unwrap();
    assert_eq!(backup.head().shards, SHARDS);
    let other = Place::with(
        &FormatOptions::sized(SUPERBLOCK_AREA_BYTES + 2 * EXTENTS * EXTENT)
            .shards(SHARDS)
            .extent_bytes(EXTENT)
            .sparse(),
    );
    let restored = Store::open(&other.path, &options(SHARDS).cold_shards(false)).unwrap();
    backup.restore(&restored).unwrap();
    assert_found(&restored, &index);
    for shard in [ShardId(0), ShardId(1)] {
        for record in restored.scan_from(shard, ScanFrom::Oldest).unwrap() {
            let (key, _) = parse(&record.unwrap().payload);
            assert_eq!(overwrites::shard_of(key, u64::from(SHARDS)), shard);
        }
    }
}

#[test]
fn a_cold_shard_is_not_trimmed_and_a_retired_one_keeps_it() {
    let place = place();
    let (store, index) = filled(&place);
    let cold = store.cold_shard_of(ShardId(0)).unwrap();
    let mut scan = store.scan(cold).unwrap();
    scan.next();
    let position = scan.resume_at().unwrap();
    drop(scan);
    let refused = store.trim(cold, position).unwrap().wait();
    assert!(matches!(refused, Err(SpaceError::Refused { refusal: SpaceRefusal::Cold, .. })), "{refused:?}");
    store.retire_shard(ShardId(0)).unwrap();
    store.drain_shard(ShardId(0), &*index, &mut |_| Route::Shard(ShardId(1))).unwrap();
    check_values(&store, &index);
    assert_newest(&store, &index);
    store.close().unwrap();
    drop(store);
    let store = Store::open(&place.path, &options(1)).unwrap();
    assert_eq!(store.cold_shard_of(ShardId(0)), Some(cold));
    assert_eq!(store.is_retired(cold), Some(false));
    assert_newest(&store, &index);
}
