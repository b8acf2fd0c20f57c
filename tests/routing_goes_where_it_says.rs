//! Each route leads to the shard that it names: local to the own core, a key always to the same, turns to all alike; and
//! a shard that is not there is an error that hands the payload back.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Place, open_on_threads, options, payload};
use corelog::{Address, AppendError, Core, Durability, FormatOptions, Options, Route, ShardId, Store, Turn};
use std::{
    collections::{BTreeSet, HashMap},
    sync::mpsc,
};

const KEYS: u64 = 500;

fn shards_of_keys(store: &Store) -> Vec<ShardId> {
    (0..KEYS).map(|key| store.route(Route::Key(key))).collect()
}

#[test]
fn local_is_the_shard_of_the_core_that_the_thread_drives() {
    let place = Place::formatted(3);
    let (give, given) = mpsc::channel::<Store>();
    let given = std::sync::Arc::new(std::sync::Mutex::new(given));
    let (has_appended, appended) = mpsc::channel();
    let drive = move |mut core: Core| {
        // A turn, so that the thread is known as this core's before the store is there.
        let _progress = core.turn();
        let store = given.lock().unwrap().recv().unwrap();
        assert_eq!(store.driven_core(), Some(core.id()));
        for _ in 0..1000 {
            assert_eq!(store.route(Route::Local), ShardId(core.id().0));
        }
        let ticket = store.try_append(Route::Local, b"mine").unwrap();
        assert_eq!(ticket.shard(), ShardId(core.id().0));
        has_appended.send(()).unwrap();
        while core.turn() != Turn::Closed {
            core.wait(Some(std::time::Duration::from_millis(1)));
        }
    };
    let (store, threads) = open_on_threads(&place.path, &options(3), drive);
    (0..3).for_each(|_| give.send(store.clone()).unwrap());
    // A thread without a core has a local shard all the same.
    assert_eq!(store.driven_core(), None);
    assert!(store.route(Route::Local) < ShardId(3));
    store.append(b"a guest's").unwrap().wait(Durability::Durable).unwrap();
    // A slow thread found the store closed before it had appended.
    (0..3).for_each(|_| appended.recv().unwrap());
    store.close().unwrap();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    drop(store);
    let store = Store::open(&place.path, &options(3)).unwrap();
    for shard in (0..3).map(ShardId) {
        let mine =
            store.scan(shard).unwrap().filter(|record| record.as_ref().unwrap().payload == b"mine"[..]);
        assert_eq!(mine.count(), 1, "{shard:?}");
    }
}

#[test]
fn of_several_cores_of_a_thread_local_is_that_of_the_one_turned_last() {
    let place = Place::formatted(2);
    let mut opening = Store::open_owned(&[&place.path], &options(2)).unwrap();
    let mut cores: Vec<Core> = opening.take_seats().into_iter().map(|seat| seat.start().unwrap()).collect();
    let store = opening.store().unwrap();
    for turned in [0, 1, 1, 0, 1, 0] {
        let _progress = cores[turned].turn();
        assert_eq!(store.route(Route::Local), ShardId(turned as u16));
    }
    drop(cores.pop());
    assert_eq!(store.route(Route::Local), ShardId(0));
}

#[test]
fn a_store_does_not_inherit_what_a_thread_knew_of_an_earlier_one() {
    // A store was told from others by where it lay in memory. The next one at that place got the local shard of the
    // one before, which it need not have.
    let (many, one) = (Place::formatted(7), Place::formatted(1));
    for round in 0..20 {
        // Threads without a core ask for the shard near their CPU; cover all cores' shards.
        let store = Store::open(&many.path, &options(7)).unwrap();
        let seen = store.route(Route::Local);
        assert!(seen < ShardId(7));
        drop(store);
        let store = Store::open(&one.path, &options(1)).unwrap();
        assert_eq!(store.route(Route::Local), ShardId(0), "round {round}");
        store.append(b"x").unwrap();
    }
}

#[test]
fn a_thread_whose_core_another_thread_dropped_drives_nothing_of_the_next_store() {
    let place = Place::formatted(1);
    for round in 0..20 {
        let mut opening = Store::open_owned(&[&place.path], &options(1)).unwrap();
        let mut core = opening.take_seats().remove(0).start().unwrap();
        let store = opening.store().unwrap();
        let _progress = core.turn();
        std::thread::spawn(move || drop(core)).join().unwrap();
        drop(store);
        let store = Store::open(&place.path, &options(1)).unwrap();
        assert_eq!(store.driven_core(), None, "round {round}");
        store.append(b"x").unwrap().wait(Durability::Durable).unwrap();
    }
}

#[test]
fn a_key_leads_to_the_same_shard_in_every_open() {
    let place = Place::formatted(3);
    let store = Store::open(&place.path, &options(3)).unwrap();
    let first = shards_of_keys(&store);
    let distinct: BTreeSet<_> = first.iter().copied().collect();
    assert_eq!(distinct, (0..3).map(ShardId).collect(), "500 keys reach all shards");
    for key in 0..KEYS {
        let ticket = store.append_to(Route::Key(key), &key.to_le_bytes()).unwrap();
        assert_eq!(ticket.shard(), first[key as usize]);
    }
    store.close().unwrap();
    drop(store);
    for cores in [1, 3, 2] {
        let store = Store::open(&place.path, &options(cores)).unwrap();
        assert_eq!(shards_of_keys(&store), first, "with {cores} cores");
        for record in store.scan_all().unwrap() {
            let record = record.unwrap();
            let key = u64::from_le_bytes(record.payload[..].try_into().unwrap());
            assert_eq!(record.shard, first[key as usize]);
        }
    }
}

#[test]
fn turns_go_round_and_a_named_shard_is_the_one_named() {
    let place = Place::formatted(3);
    let store = Store::open(&place.path, &options(2)).unwrap();
    let mut counts = HashMap::new();
    for _ in 0..300 {
        *counts.entry(store.append_to(Route::RoundRobin, b"x").unwrap().shard()).or_insert(0) += 1;
    }
    assert_eq!(counts, (0..3).map(|shard| (ShardId(shard), 100)).collect());
    for shard in (0..3).map(ShardId) {
        assert_eq!(store.append_to(Route::Shard(shard), b"x").unwrap().shard(), shard);
        assert_eq!(store.scan(shard).unwrap().count(), 101);
    }
}

#[test]
fn a_shard_that_is_not_there_is_refused_by_every_call_with_the_payload() {
    let place = Place::formatted(2);
    let store = Store::open(&place.path, &options(2)).unwrap();
    for shard in [ShardId(2), ShardId(u16::MAX)] {
        let route = Route::Shard(shard);
        let expected = AppendError::NoSuchShard { shard, last: 1 };
        assert_eq!(store.append_to(route, b"x").unwrap_err(), expected);
        assert_eq!(common::block_on(store.append_async(route, b"x")).unwrap_err(), expected);
        assert_eq!(store.try_reserve(route, 1).unwrap_err(), expected);
        let bytes = payload(1, 1, 100);
        let refused = store.try_append(route, bytes.clone()).unwrap_err();
        assert_eq!((refused.error, refused.payload), (expected.clone(), bytes.clone()));
        let refused = store.send(route, bytes.clone().into()).err().unwrap();
        assert_eq!((refused.error, refused.payload), (expected, bytes.into()));
        assert!(store.shard(shard).is_none() && store.watermarks(shard).is_none());
        assert!(store.scan(shard).is_err());
    }
    assert_eq!(store.scan_all().unwrap().count(), 0, "nothing of it is in the log");
}

/// Everything that a scan of all shards gives.
fn all(store: &Store) -> HashMap<Address, Vec<u8>> {
    let records: Vec<_> = store.scan_all().unwrap().map(Result::unwrap).collect();
    let count = records.len();
    let map: HashMap<_, _> =
        records.into_iter().map(|record| (record.address, record.payload.to_vec())).collect();
    assert_eq!(map.len(), count, "a record came twice");
    map
}

#[test]
fn another_number_of_cores_keeps_all_records_and_moves_keys_only_when_it_adds_shards() {
    let format = FormatOptions::sized(64 << 20).shards(1).extent_bytes(1 << 20).sparse();
    let place = Place::with(&format);
    let mut kept: HashMap<Address, Vec<u8>> = HashMap::new();
    let mut before: Vec<ShardId> = vec![ShardId(0); KEYS as usize];
    let as_the_host_has = Options { cores: None, ..options(1) };
    let opens = [
        (options(1), 1),
        (options(2), 2),
        (as_the_host_has.clone(), 2),
        (options(1), 2),
        (options(3), 3),
        (options(7), 7),
        (options(2), 7),
        (as_the_host_has, 7),
        (options(7), 7),
    ];
    for (round, (options, shards)) in opens.into_iter().enumerate() {
        let store = Store::open(&place.path, &options).unwrap();
        assert_eq!(store.shards().len(), shards, "round {round}");
        assert!(store.recovery().clean || round == 0, "round {round}");
        let now = shards_of_keys(&store);
        let distinct: BTreeSet<_> = now.iter().copied().collect();
        assert_eq!(distinct.len(), shards, "round {round}: all shards are reached");
        let has_grown = shards > before.iter().collect::<BTreeSet<_>>().len();
        assert_eq!(now != before, has_grown, "round {round}");
        before = now;
        assert_eq!(all(&store), kept, "round {round}");
        for index in 0..150 {
            let bytes = payload(round as u64, index, 20 + index as usize * 13);
            let address = store.append_to(Route::Key(index), &bytes).unwrap().address();
            kept.insert(address, bytes);
        }
        for (address, bytes) in &kept {
            assert_eq!(store.read(*address).unwrap(), bytes);
        }
        store.close().unwrap();
    }
}
