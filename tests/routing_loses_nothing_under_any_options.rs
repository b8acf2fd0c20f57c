//! Eight threads append to two shards and wait for all kinds of durability, under each way to write and to be routed.
//! A scan of the reopened store gives exactly what was accepted, each thread's records in its order.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Place, block_on, options, payload};
use corelog::{
    Address, AppendPath, Backend, Durability, FrameOrder, Options, Route, ShardId, Store, SyncMethod,
};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

const THREADS: u64 = 8;
const RECORDS: u64 = 120;

/// A payload that names its thread and its place in that thread's order.
fn named(thread: u64, index: u64) -> Vec<u8> {
    let mut bytes = thread.to_le_bytes().to_vec();
    bytes.extend(index.to_le_bytes());
    let length = if index.is_multiple_of(40) { 20_000 } else { 30 + (index as usize * 97) % 1500 };
    bytes.extend(payload(thread, index, length));
    bytes
}

fn append_as(store: &Store, thread: u64) -> Vec<(Address, ShardId, Vec<u8>)> {
    let durability = [Durability::Buffered, Durability::Written, Durability::Durable][thread as usize % 3];
    let mut kept = Vec::new();
    for index in 0..RECORDS {
        let bytes = named(thread, index);
        let route = [
            Route::Local,
            Route::Key(thread * 7 + index),
            Route::RoundRobin,
            Route::Shard(ShardId((index % 2) as u16)),
        ][(thread + index) as usize % 4];
        let ticket = match index % 3 {
            0 => block_on(store.append_async(route, &bytes)).unwrap(),
            _ => store.append_to(route, &bytes).unwrap(),
        };
        if index % 8 == thread {
            ticket.wait(durability).unwrap();
            assert!(ticket.has_reached(durability));
            assert_eq!(store.read(ticket.address()).unwrap(), bytes);
        }
        kept.push((ticket.address(), ticket.shard(), bytes));
    }
    kept
}

type Kept = Vec<(Address, ShardId, Vec<u8>)>;

fn append_from_eight_threads(store: &Store) -> Kept {
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|thread| scope.spawn(move || append_as(store, thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// The reopened store holds exactly `kept`.
#[track_caller]
fn assert_holds(place: &Place, kept: Kept, options: &Options) {
    let store = Store::open(&place.path, options).unwrap();
    assert!(store.recovery().clean);
    let mut expected: HashMap<_, _> =
        kept.into_iter().map(|(address, shard, bytes)| (address, (shard, bytes))).collect();
    let mut last: HashMap<(ShardId, u64), u64> = HashMap::new();
    for record in store.scan_all().unwrap() {
        let record = record.unwrap();
        let (shard, bytes) = expected.remove(&record.address).expect("a record that nobody appended");
        assert_eq!((record.shard, &record.payload[..]), (shard, &bytes[..]));
        let word = |at: usize| u64::from_le_bytes(record.payload[at..at + 8].try_into().unwrap());
        let (thread, index) = (word(0), word(8));
        let before = last.insert((shard, thread), index);
        assert!(before.is_none_or(|before| before < index), "{shard:?}, thread {thread}: out of order");
    }
    assert!(expected.is_empty(), "{} records are gone", expected.len());
}

fn eight_threads(options: &Options) {
    let place = Place::formatted(2);
    let store = Store::open(&place.path, options).unwrap();
    let kept = append_from_eight_threads(&store);
    store.close().unwrap();
    drop(store);
    assert_holds(&place, kept, options);
}

#[test]
fn by_default() {
    eight_threads(&options(2));
}

#[test]
fn with_frames_written_one_after_the_other() {
    eight_threads(&options(2).order(FrameOrder::Serialised));
}

#[test]
fn with_synchronous_writes() {
    eight_threads(&options(2).sync(SyncMethod::Dsync));
}

#[test]
fn with_a_pool_of_threads() {
    eight_threads(&options(2).backend(Backend::Threads));
}

#[test]
fn with_routed_appends() {
    eight_threads(&options(2).append(AppendPath::Routed));
}

#[test]
fn with_routed_appends_through_a_mailbox_that_is_often_full() {
    eight_threads(&options(2).append(AppendPath::Routed).mailbox(2));
}

#[test]
fn with_linger() {
    eight_threads(&options(2).linger(Duration::from_micros(500)));
}

#[test]
fn what_lingers_is_written_though_nobody_waits() {
    let place = Place::formatted(2);
    let store = Store::open(&place.path, &options(2).linger(Duration::from_millis(1))).unwrap();
    for shard in (0..2).map(ShardId) {
        let ticket = store.append_to(Route::Shard(shard), b"alone").unwrap();
        let start = Instant::now();
        while !ticket.has_reached(Durability::Written) {
            assert!(start.elapsed() < Duration::from_secs(20), "{shard:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn direct_routed_and_sent_appends_give_the_same_records() {
    let scan = |store: &Store| -> Vec<Vec<(Address, Vec<u8>)>> {
        let of_shard = |shard| {
            let records = store.scan(ShardId(shard)).unwrap().map(Result::unwrap);
            records.map(|record| (record.address, record.payload.to_vec())).collect()
        };
        (0..2).map(of_shard).collect()
    };
    let append = |options: &Options, is_sent: bool| {
        let place = Place::formatted(2);
        let store = Store::open(&place.path, options).unwrap();
        let mut kept = Vec::new();
        for index in 0..300 {
            let (route, bytes) = (Route::Key(index), named(0, index));
            let ticket = if is_sent {
                block_on(store.send(route, bytes.clone().into()).unwrap()).unwrap()
            } else {
                store.append_to(route, &bytes).unwrap()
            };
            kept.push((ticket.address(), ticket.shard(), bytes));
        }
        store.close().unwrap();
        drop(store);
        assert_holds(&place, kept, options);
        let payloads = |(_, bytes): (Address, Vec<u8>)| bytes;
        let shards = scan(&Store::open(&place.path, options).unwrap()).into_iter();
        shards.map(|shard| shard.into_iter().map(payloads).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    let direct = append(&options(2), false);
    assert!(direct.iter().all(|shard| !shard.is_empty()));
    assert_eq!(direct, append(&options(2).append(AppendPath::Routed), false));
    assert_eq!(direct, append(&options(2), true));
}

#[test]
fn a_store_that_is_dropped_without_a_close_keeps_what_it_accepted() {
    for path in [AppendPath::Direct, AppendPath::Routed] {
        let place = Place::formatted(2);
        let options = options(2).append(path);
        let store = Store::open(&place.path, &options).unwrap();
        let mut kept = append_from_eight_threads(&store);
        // The last of these were accepted right before the drop, and nobody waited for them.
        for index in RECORDS..RECORDS + 50 {
            let bytes = named(0, index);
            let ticket = store.append_to(Route::RoundRobin, &bytes).unwrap();
            kept.push((ticket.address(), ticket.shard(), bytes));
        }
        let another = store.clone();
        drop(store);
        let bytes = named(0, RECORDS + 50);
        let ticket = another.append(&bytes).unwrap();
        kept.push((ticket.address(), ticket.shard(), bytes));
        drop(another);
        assert_holds(&place, kept, &options);
    }
}
