//! With `AppendPath::Routed` the appends that refuse and those that are futures go by mail as the blocking one does: they
//! went straight into the ring, whatever the option said.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Place, block_on, open_on_threads, options, payload, turn_until, turn_until_closed};
use corelog::{AppendError, AppendPath, Core, Durability, Options, Route, ShardId, Store};
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

const SHARD: Route = Route::Shard(ShardId(0));
const FULL: AppendError = AppendError::Full { shard: ShardId(0) };

fn routed() -> Options {
    options(1).append(AppendPath::Routed)
}

fn mail(store: &Store) -> u64 {
    store.directory().cores[0].counters.mail.load(Ordering::Relaxed)
}

fn records(place: &Place) -> Vec<Vec<u8>> {
    let store = Store::open(&place.path, &options(1)).unwrap();
    store.scan(ShardId(0)).unwrap().map(|record| record.unwrap().payload.to_vec()).collect()
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn each_call_is_one_message() {
    let place = Place::formatted(1);
    let store = Store::open(&place.path, &routed()).unwrap();
    let mut expected = Vec::new();
    for index in 0..30 {
        let bytes = payload(1, index, 100);
        let before = mail(&store);
        let ticket = match index % 3 {
            0 => store.try_append(SHARD, &bytes).unwrap(),
            1 => block_on(store.append_async(SHARD, &bytes)).unwrap(),
            _ => store.append_to(SHARD, &bytes).unwrap(),
        };
        // The core counts before it answers.
        assert_eq!(mail(&store), before + 1, "call {}", index % 3);
        ticket.wait(Durability::Written).unwrap();
        expected.push(bytes);
    }
    let error = store.try_append(SHARD, vec![0; 1 << 20]).unwrap_err();
    assert!(matches!(error.error, AppendError::TooLarge { .. }) && error.payload.len() == 1 << 20);
    store.close().unwrap();
    assert_eq!(store.try_append(SHARD, b"late").unwrap_err().error, AppendError::Closed);
    assert_eq!(block_on(store.append_async(SHARD, b"late")).unwrap_err(), AppendError::Closed);
    drop(store);
    assert_eq!(records(&place), expected);
}

#[test]
fn a_full_mailbox_refuses_at_once_and_is_waited_for_asleep() {
    let place = Place::formatted(1);
    let mut opening = Store::open_owned(&[&place.path], &routed().mailbox(2)).unwrap();
    // Nobody turns it yet, so this thread drives nothing.
    let mut cores: Vec<Core> = opening.take_seats().into_iter().map(|seat| seat.start().unwrap()).collect();
    let store = opening.store().unwrap();
    let sent: Vec<_> = (0..2).map(|index| store.send(SHARD, payload(1, index, 50).into()).unwrap()).collect();
    let refused = store.try_append(SHARD, payload(2, 0, 50)).unwrap_err();
    assert_eq!((refused.error, refused.payload), (FULL, payload(2, 0, 50)));
    let late = payload(3, 0, 50);
    let mut waiting = Box::pin(store.append_async(SHARD, &late));
    let flag = Arc::new(Flag::default());
    let waker = Waker::from(Arc::clone(&flag));
    let mut context = Context::from_waker(&waker);
    for _ in 0..3 {
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        assert!(!flag.0.load(Ordering::Acquire), "it asks to be polled although nothing changed");
    }
    // From now on nothing polls it but its waker.
    turn_until(&mut cores, || {
        flag.0.swap(false, Ordering::AcqRel)
            && match waiting.as_mut().poll(&mut context) {
                Poll::Ready(ticket) => ticket.is_ok(),
                Poll::Pending => false,
            }
    });
    drop((sent, waiting));
    assert!(cores[0].close(std::time::Duration::from_secs(20)));
    drop((cores, store));
    assert_eq!(records(&place), [payload(1, 0, 50), payload(1, 1, 50), payload(3, 0, 50)]);
}

#[test]
fn a_full_ring_refuses_although_its_core_is_awake() {
    let place = Place::formatted(1);
    let (store, threads) = open_on_threads(&place.path, &routed(), turn_until_closed);
    // A reservation that stays open keeps its frame, and all behind it, in memory.
    let filling = store.try_reserve(SHARD, 10).unwrap();
    let mut expected = vec![];
    let refused = loop {
        match store.try_append(SHARD, payload(1, expected.len() as u64, 3000)) {
            Ok(_) => expected.push(payload(1, expected.len() as u64, 3000)),
            Err(refused) => break refused,
        }
        assert!(expected.len() < 1000, "a ring of 256 KiB never got full");
    };
    assert_eq!(refused.error, FULL);
    assert_eq!(refused.payload, payload(1, expected.len() as u64, 3000));
    drop(filling);
    block_on(store.append_async(SHARD, &refused.payload)).unwrap();
    expected.push(refused.payload);
    store.close().unwrap();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    drop(store);
    assert_eq!(records(&place), expected);
}

/// The error was `Stalled`, which says that nothing is in the log; the core appended the record when it came to it.
#[test]
fn an_append_that_nobody_answered_is_not_called_refused() {
    let place = Place::formatted(1);
    let options = routed().stall(std::time::Duration::from_millis(50));
    let mut opening = Store::open_owned(&[&place.path], &options).unwrap();
    let mut cores: Vec<Core> = opening.take_seats().into_iter().map(|seat| seat.start().unwrap()).collect();
    let store = opening.store().unwrap();
    let error = store.append_to(SHARD, b"late").unwrap_err();
    assert!(matches!(error, AppendError::Unanswered { shard: ShardId(0), .. }), "{error}");
    turn_until(&mut cores, || mail(&store) == 1);
    assert!(cores[0].close(std::time::Duration::from_secs(20)));
    drop((cores, store));
    assert_eq!(records(&place), [b"late".to_vec()]);
}
