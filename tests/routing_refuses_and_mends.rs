//! A full mailbox and a full ring hand the payload back, and take it when there is room again. A future that is dropped
//! in the middle of an append harms neither the log nor those who wait beside it.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Place, block_on, options, payload, turn_until};
use corelog::{AppendError, Core, Durability, Options, Route, ShardId, Store};
use std::{
    collections::HashMap,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

const SHARD: Route = Route::Shard(ShardId(0));

fn by_hand(place: &Place, options: &Options) -> (Store, Vec<Core>) {
    let mut opening = Store::open_owned(&[&place.path], options).unwrap();
    let cores = opening.take_seats().into_iter().map(|seat| seat.start().unwrap()).collect();
    (opening.store().unwrap(), cores)
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// How often each payload is in the log, after a close and a reopen.
fn counts_after_reopen(place: &Place, store: Store, mut cores: Vec<Core>) -> HashMap<Vec<u8>, u32> {
    cores.iter_mut().for_each(|core| assert!(core.close(std::time::Duration::from_secs(20))));
    drop(cores);
    drop(store);
    let store = Store::open(&place.path, &options(1)).unwrap();
    let mut counts = HashMap::new();
    for record in store.scan_all().unwrap() {
        *counts.entry(record.unwrap().payload.to_vec()).or_insert(0) += 1;
    }
    counts
}

/// Appends until the ring is full; gives what went in and, last, what did not.
fn fill(store: &Store) -> Vec<Vec<u8>> {
    let mut inside = Vec::new();
    for index in 0.. {
        let bytes = payload(1, index, 3000);
        match store.try_append(SHARD, bytes.clone()) {
            Ok(_) => inside.push(bytes),
            Err(refused) => {
                assert_eq!(refused.error, AppendError::Full { shard: ShardId(0) });
                assert_eq!(refused.payload, bytes);
                inside.push(refused.payload);
                return inside;
            }
        }
        assert!(index < 10_000, "a ring of 256 KiB never got full");
    }
    unreachable!()
}

#[test]
fn a_full_mailbox_hands_the_payload_back_and_takes_it_later() {
    let place = Place::formatted(1);
    let (store, mut cores) = by_hand(&place, &options(1).mailbox(4));
    let _progress = cores[0].turn();
    let mut sent = Vec::new();
    let refused = loop {
        match store.send(SHARD, payload(1, sent.len() as u64, 50).into()) {
            Ok(future) => sent.push(future),
            Err(refused) => break refused,
        }
        assert!(sent.len() < 100, "a mailbox of 4 took {}", sent.len());
    };
    assert!(sent.len() >= 4);
    assert_eq!(refused.error, AppendError::Full { shard: ShardId(0) });
    assert_eq!(refused.payload, payload(1, sent.len() as u64, 50));
    // A direct append does not go by mail.
    let direct = store.try_append(SHARD, payload(2, 0, 50)).unwrap();
    let _progress = cores[0].turn();
    sent.push(store.send(SHARD, refused.payload).unwrap());
    turn_until(&mut cores, || {
        sent.retain_mut(|future| match poll_once(future) {
            Poll::Ready(answer) => answer.map(|_| false).unwrap(),
            Poll::Pending => true,
        });
        sent.is_empty()
    });
    turn_until(&mut cores, || {
        let _asked = direct.wait(Durability::Durable);
        direct.has_reached(Durability::Durable)
    });
    drop(sent);
    let counts = counts_after_reopen(&place, store, cores);
    assert!(counts.len() >= 6 && counts.values().all(|count| *count == 1), "{}", counts.len());
}

#[test]
fn a_full_ring_hands_the_payload_back_and_mends() {
    let place = Place::formatted(1);
    let (store, mut cores) = by_hand(&place, &options(1));
    let mut expected = Vec::new();
    for _ in 0..5 {
        let mut inside = fill(&store);
        let outside = inside.pop().unwrap();
        assert!(store.try_append(SHARD, &outside).is_err(), "still full");
        turn_until(&mut cores, || store.try_append(SHARD, &outside).is_ok());
        expected.extend(inside);
        expected.push(outside);
    }
    let counts = counts_after_reopen(&place, store, cores);
    assert_eq!(counts.values().sum::<u32>() as usize, expected.len());
    assert!(expected.iter().all(|bytes| counts.contains_key(bytes)));
}

#[test]
fn an_append_that_is_dropped_while_it_waits_for_room_is_not_in_the_log_and_wakes_the_others() {
    let place = Place::formatted(1);
    let (store, mut cores) = by_hand(&place, &options(1));
    let mut expected = fill(&store);
    expected.pop();
    let payloads: Vec<_> = (0..40).map(|index| payload(2, index, 300)).collect();
    let mut futures: Vec<_> =
        payloads.iter().map(|bytes| Some(Box::pin(store.append_async(SHARD, bytes)))).collect();
    for future in futures.iter_mut().flatten() {
        assert!(poll_once(future).is_pending());
    }
    // Every other one changes its mind.
    futures.iter_mut().step_by(2).for_each(|future| *future = None);
    // And one on another thread, which only its waker brings on.
    let done = Arc::new(AtomicBool::new(false));
    let patient = {
        let (store, done) = (store.clone(), Arc::clone(&done));
        std::thread::spawn(move || {
            let id = block_on(store.append_async(SHARD, &payload(3, 0, 300))).unwrap().id();
            done.store(true, Ordering::Release);
            id
        })
    };
    turn_until(&mut cores, || done.load(Ordering::Acquire));
    patient.join().unwrap();
    expected.push(payload(3, 0, 300));
    for (bytes, future) in payloads.iter().zip(&mut futures) {
        let Some(future) = future else { continue };
        turn_until(&mut cores, || match poll_once(future) {
            Poll::Ready(answer) => answer.is_ok(),
            Poll::Pending => false,
        });
        expected.push(bytes.clone());
    }
    drop(futures);
    let counts = counts_after_reopen(&place, store, cores);
    assert_eq!(counts.len(), expected.len());
    assert!(expected.iter().all(|bytes| counts.get(bytes) == Some(&1)));
}

#[test]
fn a_sent_append_whose_future_is_dropped_is_there_at_most_once() {
    let place = Place::formatted(1);
    let (store, mut cores) = by_hand(&place, &options(1));
    // Sent before there is room, beside room, with and without a poll; then forgotten by its sender.
    for (writer, is_full) in [(4, true), (5, false)] {
        if is_full {
            fill(&store);
        }
        for index in 0..20 {
            let mut sent = store.send(SHARD, payload(writer, index, 200).into()).unwrap();
            if index % 2 == 0 {
                let _pending = poll_once(&mut sent);
            }
        }
        let last = store.send(SHARD, payload(writer, 20, 200).into()).unwrap();
        let mut last = pin!(last);
        turn_until(&mut cores, || match poll_once(&mut last) {
            Poll::Ready(answer) => answer.is_ok(),
            Poll::Pending => false,
        });
    }
    let counts = counts_after_reopen(&place, store, cores);
    assert!(counts.values().all(|count| *count == 1));
    for writer in [4, 5] {
        assert!(counts.contains_key(&payload(writer, 20, 200)), "the one that was waited for");
    }
}

#[test]
fn waits_and_reservations_that_are_dropped_hold_nothing_up() {
    let place = Place::formatted(1);
    let (store, mut cores) = by_hand(&place, &options(1));
    let mut kept = Vec::new();
    for index in 0..200 {
        drop(store.try_reserve(SHARD, 100).unwrap());
        let bytes = payload(6, index, 500);
        let ticket = store.try_append(SHARD, &bytes).unwrap();
        kept.push(bytes);
        let mut reached = ticket.reached(Durability::Durable);
        assert!(poll_once(&mut reached).is_pending());
        drop(reached);
        if index % 20 == 19 {
            turn_until(&mut cores, || ticket.has_reached(Durability::Durable));
        }
    }
    let counts = counts_after_reopen(&place, store, cores);
    assert_eq!(counts.len(), kept.len(), "a dropped reservation is no record");
    assert!(kept.iter().all(|bytes| counts.get(bytes) == Some(&1)));
}
