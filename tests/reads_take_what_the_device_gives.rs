//! Reads from the device give each record whole, whatever was read before it, and a core that its owner drives watches for
//! them, and for writes that it waits for, or sleeps, as it was told.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Place, options, payload};
use corelog::{Core, Durability, Options, Route, ShardId, Store, TicketId, Turn};
use std::{
    future::Future,
    pin::pin,
    sync::atomic::Ordering,
    task::{Context, Poll},
    time::Duration,
};

/// More than the reads whose lengths a core remembers.
const RECORDS: u64 = 600;

fn open(place: &Place, options: &Options) -> (Store, Core) {
    let mut opening = Store::open_owned(&[&place.path], options).unwrap();
    let core = opening.take_seats().remove(0).start().unwrap();
    (opening.store().unwrap(), core)
}

fn read(store: &Store, core: &mut Core, id: &TicketId) -> Vec<u8> {
    let waker = core.waker();
    let mut reading = pin!(store.read_async(id.address).unwrap());
    loop {
        if let Poll::Ready(read) = reading.as_mut().poll(&mut Context::from_waker(&waker)) {
            return read.unwrap().to_vec();
        }
        assert_ne!(core.turn_or_wait(Some(Duration::from_secs(20))), Turn::Closed);
    }
}

fn sleeps(store: &Store) -> u64 {
    let core = store.directory().core_of(ShardId(0)).unwrap();
    core.counters.sleeps.load(Ordering::Relaxed)
}

fn written(store: &Store, core: &mut Core, length_of: impl Fn(u64) -> usize) -> Vec<(TicketId, Vec<u8>)> {
    let mut kept = Vec::new();
    for index in 0..RECORDS {
        let bytes = payload(3, index, length_of(index));
        let id = loop {
            match store.try_append(Route::Shard(ShardId(0)), &bytes) {
                Ok(ticket) => break ticket.id(),
                Err(_) => assert_ne!(core.turn_or_wait(Some(Duration::from_millis(1))), Turn::Closed),
            }
        };
        kept.push((id, bytes));
    }
    let last = store.ticket(kept[kept.len() - 1].0).unwrap();
    last.request(Durability::Durable);
    core.run_until(|| last.has_reached(Durability::Durable));
    kept
}

#[test]
fn long_records_are_whole_after_any_number_of_short_ones() {
    let place = Place::formatted(1);
    let (store, mut core) = open(&place, &options(1));
    // One in 37 is longer than all that were read so far, or fills slots to the byte.
    let length_of = |index| match index % 37 {
        0 => 60 * index as usize,
        7 => 4096,
        _ => (index % 300) as usize,
    };
    let kept = written(&store, &mut core, length_of);
    let short = kept.iter().filter(|(_, bytes)| bytes.len() < 300);
    let long = kept.iter().filter(|(_, bytes)| bytes.len() >= 300);
    for (id, bytes) in short.clone().chain(short).chain(long).chain(&kept) {
        assert_eq!(&read(&store, &mut core, id), bytes);
    }
}

#[test]
fn a_core_that_watches_what_its_thread_waits_for_does_not_sleep_over_it() {
    let place = Place::formatted(1);
    let watched = |sync_spin: Duration| {
        let (store, mut core) = open(&place, &options(1).sync_spin(sync_spin));
        let before = sleeps(&store);
        for index in 0..50 {
            let ticket = store.try_append(Route::Shard(ShardId(0)), &payload(4, index, 300)).unwrap();
            ticket.request(Durability::Durable);
            while !ticket.has_reached(Durability::Durable) {
                assert_ne!(core.turn_or_wait(Some(Duration::from_secs(20))), Turn::Closed);
            }
        }
        let after = sleeps(&store);
        assert!(core.close(Duration::from_secs(20)));
        after - before
    };
    assert_eq!(watched(Duration::from_secs(60)), 0);
    assert!(watched(Duration::ZERO) > 0);
}

#[test]
fn a_hosted_core_watches_for_what_a_watching_thread_waits_for() {
    // Its thread is pinned and has one CPU; that was taken for the host having no other, so that no hosted core ever watched.
    // Sleeps tell nothing of it: over a write that is done by the time the core looks, nobody sleeps.
    const ACKS: u64 = 500;
    let place = Place::formatted(1);
    let watches = |sync_spin: Duration, enough: u64| {
        let store = Store::open(&place.path, &options(1).sync_spin(sync_spin)).unwrap();
        let core = store.directory().core_of(ShardId(0)).unwrap();
        let watches = || core.counters.watches.load(Ordering::Relaxed);
        // A core may find each write done, or not see in time that somebody watches, but hardly so often.
        for index in (0..ACKS).take_while(|_| watches() < enough) {
            let ticket = store.append_to(Route::Shard(ShardId(0)), &payload(5, index, 300)).unwrap();
            ticket.wait(Durability::Durable).unwrap();
        }
        let seen = watches();
        store.close().unwrap();
        seen
    };
    assert!(watches(Duration::from_secs(60), 1) > 0);
    assert_eq!(watches(Duration::ZERO, 1), 0);
}

#[test]
fn a_core_that_watches_its_reads_does_not_sleep_over_them() {
    let place = Place::formatted(1);
    let watched = |read_spin: Duration| {
        let (store, mut core) = open(&place, &options(1).read_spin(read_spin));
        let kept = written(&store, &mut core, |_| 1000);
        let before = sleeps(&store);
        for (id, bytes) in &kept {
            assert_eq!(&read(&store, &mut core, id), bytes);
        }
        let after = sleeps(&store);
        assert!(core.close(Duration::from_secs(20)));
        after - before
    };
    // A read that is longer under way than that is not one of a host that works.
    assert_eq!(watched(Duration::from_secs(60)), 0);
    assert!(watched(Duration::ZERO) > 0);
}
