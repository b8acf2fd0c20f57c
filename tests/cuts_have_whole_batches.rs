//! A cut, and so a backup, has all of a batch over several shards or nothing, also where it is made between two shards'
//! getting their shares, and where the rest of the commit is left to the next open.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Place, block_on, payload};
use corelog::{
    AppendError, Backup, Cut, Durability, Options, OverTicket, Reservation, Route, ShardId, Store,
};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Waker},
    time::{Duration, Instant},
};

const SHARDS: u16 = 3;
const BATCH: &[u8] = b"batch";

type Commit<'store> = Pin<Box<dyn Future<Output = Result<OverTicket<'store>, AppendError>> + 'store>>;

fn options() -> Options {
    common::options(1).buffer_bytes(16 << 10)
}

fn route(shard: u16) -> Route {
    Route::Shard(ShardId(shard))
}

/// How many records of the batch each shard has in a cut.
fn shares(store: &Store, cut: &Cut) -> Vec<usize> {
    let of = |shard| {
        let records = store.scan_cut(cut, ShardId(shard)).unwrap().map(|record| record.unwrap());
        records.filter(|record| record.payload.starts_with(BATCH)).count()
    };
    let each: Vec<usize> = (0..SHARDS).map(of).collect();
    let all = store.scan_all_cut(cut).unwrap().map(|record| record.unwrap());
    let all = all.filter(|record| record.payload.starts_with(BATCH)).count();
    assert_eq!(each.iter().sum::<usize>(), all);
    each
}

/// A commit that has got as far as the first shard: the second takes nothing while the reservation is held.
fn half_committed(store: &Store) -> (Commit<'_>, Reservation<'_>) {
    let mut batch = store.batch_over().unwrap();
    for index in 0..8 {
        let record = [BATCH, &payload(1, index, 2000)].concat();
        batch.append_to(route((index % 2) as u16), &record).unwrap();
    }
    let mut commit: Commit<'_> = Box::pin(batch.commit_async());
    let mut poll = || {
        let polled = commit.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending(), "a batch of two shards waits for both");
    };
    poll();
    // What was prepared is durable, and nothing was decided.
    store.sync().unwrap();
    let held = store.reserve(route(1), 100).unwrap();
    let fill = || while store.try_append(route(1), &[0; 4000]).is_ok() {};
    fill();
    // The core may not have given back yet what it said was durable. It has once it is through with something else.
    store.append_to(route(0), b"a turn").unwrap().wait(Durability::Durable).unwrap();
    fill();
    let since = Instant::now();
    let has_first = || store.scan(ShardId(0)).unwrap().any(|it| it.unwrap().payload.starts_with(BATCH));
    while !has_first() {
        poll();
        assert!(since.elapsed() < Duration::from_secs(60), "the first shard gets its share");
    }
    (commit, held)
}

#[test]
fn a_cut_in_the_midst_of_a_commit_has_all_of_the_batch() {
    let (place, other) = (Place::formatted(SHARDS.into()), Place::formatted(SHARDS.into()));
    let store = Store::open(&place.path, &options()).unwrap();
    store.append_to(route(1), b"before").unwrap();
    let before = store.cut();
    let (commit, held) = half_committed(&store);
    let cut = store.cut();
    let text = serde_json::to_string(&cut).unwrap();
    assert_eq!(serde_json::from_str::<Cut>(&text).unwrap(), cut);
    drop(held);
    let ticket = block_on(commit).unwrap();
    let behind = ticket.ticket(ShardId(1)).unwrap().id();
    assert!(!cut.has(behind.shard, behind.frame), "the second shard got its share behind the cut");
    let later = store.cut();
    assert_eq!(shares(&store, &before), [0, 0, 0]);
    assert_eq!(shares(&store, &cut), [4, 4, 0]);
    assert_eq!(shares(&store, &later), [4, 4, 0]);

    let mut copy = Vec::new();
    let report = store.backup(&cut, &mut copy).unwrap();
    let into = Store::open(&other.path, &options()).unwrap();
    assert_eq!(Backup::open(&copy[..]).unwrap().restore(&into).unwrap(), report);
    assert_eq!(shares(&into, &into.cut()), [4, 4, 0]);
    into.close().unwrap();
    drop(ticket);
    store.close().unwrap();
}

#[test]
fn what_a_commit_left_undone_is_in_cuts_before_and_after_the_next_open() {
    let place = Place::formatted(SHARDS.into());
    let store = Store::open(&place.path, &options()).unwrap();
    let (commit, held) = half_committed(&store);
    drop((commit, held));
    let cut = store.cut();
    assert_eq!(shares(&store, &cut), [4, 4, 0]);
    store.close().unwrap();
    let store = Store::open(&place.path, &options()).unwrap();
    let after = store.cut();
    assert_eq!(shares(&store, &after), [4, 4, 0]);
    assert_eq!(shares(&store, &cut), [4, 4, 0]);
    store.checkpoint().unwrap();
    assert_eq!(shares(&store, &store.cut()), [4, 4, 0]);
    store.close().unwrap();
}
