//! Way 19 again: what a core may not spin for. Each test asks the core whether it would sleep, and for how long.

use super::{LARGE, Options, STORE, World};
use crate::{
    core::Turn,
    device::Verb,
    directory::{Directory, Mail, WhenFull},
    format::checksum::StoreSeed,
    ids::{CoreId, Term},
    limits::{
        RECORD_HEADER_BYTES, RETRY_PAUSE_US_MAX, RETRY_PAUSE_US_MIN, SECTOR_BYTES, SUPERBLOCK_AREA_BYTES,
    },
    over::OverTable,
    reads::ReadError,
    requests::{Pending, Reply, Requests},
    ring::reservation::Placed,
    watermark::Durability,
};
use bytes::Bytes;
use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

impl World {
    pub(super) fn directory(&self) -> Directory {
        Directory {
            layout: Arc::clone(&self.layout),
            extents: Arc::clone(&self.table),
            seed: StoreSeed::new(STORE),
            shards: vec![Arc::clone(&self.shard)],
            runs_on: vec![CoreId(0)],
            cores: vec![Arc::clone(self.core.handle())],
            over: Arc::new(OverTable::new(Term(1), [], 0)),
        }
    }

    fn join(&mut self) {
        self.core.join(Arc::new(self.directory()));
    }

    fn read(&self, requests: &Arc<Requests>, placed: Placed) -> Pending {
        let (pending, responder) = requests.open().unwrap();
        self.core.handle().send(Mail::Read { address: placed.address, responder }).unwrap();
        pending
    }

    /// How long the core would sleep now. `None`: it would not.
    fn would_sleep(&mut self) -> Option<Option<Duration>> {
        let may_sleep = self.core.prepare_wait();
        self.core.awake();
        may_sleep.then(|| self.core.timer())
    }

    /// The core sleeps between its tries, for longer each time.
    fn expect_pauses(&mut self) {
        let mut expected = Duration::from_micros(RETRY_PAUSE_US_MIN);
        for _ in 0..8 {
            assert_eq!(self.core.turn(), Turn::Idle);
            expected = (2 * expected).min(Duration::from_micros(RETRY_PAUSE_US_MAX));
            assert_eq!(self.would_sleep(), Some(Some(expected)));
        }
    }
}

fn poll(pending: &mut Pending) -> Option<Reply> {
    match Pin::new(pending).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(reply) => Some(reply),
        Poll::Pending => None,
    }
}

#[test]
fn a_read_behind_an_open_reservation_sleeps_between_its_tries() {
    // A record beside a reservation that somebody kept open was tried again turn after turn, without a pause.
    let mut world = World::open(Options::default());
    world.join();
    let requests = Arc::new(Requests::default());
    let shard = Arc::clone(&world.shard);
    let placed = world.append(b"beside it");
    let open = shard.try_reserve(10).unwrap();
    let mut pending = world.read(&requests, placed);
    world.turns();
    assert!(poll(&mut pending).is_none(), "its frame has a writer");
    world.expect_pauses();
    drop(open);
    world.turns();
    match poll(&mut pending) {
        Some(Reply::Record(Ok(bytes))) => assert_eq!(bytes, b"beside it"[..]),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.would_sleep(), Some(None), "nothing is left to try again");
}

#[test]
fn an_append_that_waits_for_a_ring_behind_an_open_reservation_sleeps_between_its_tries() {
    // Nothing was in flight, and the core looked for room turn after turn.
    let mut world = World::open(Options::default());
    let requests = Arc::new(Requests::default());
    let shard = Arc::clone(&world.shard);
    let open = shard.try_reserve(10).unwrap();
    world.fill(&[1; LARGE]);
    let mut sent = [WhenFull::Wait, WhenFull::Refuse].map(|when_full| {
        let (pending, responder) = requests.open().unwrap();
        let payload = Bytes::from_static(&[2; LARGE]);
        let mail = Mail::Append { shard: shard.id(), payload, when_full, responder };
        world.core.handle().send(mail).unwrap();
        pending
    });
    world.turns();
    assert!(poll(&mut sent[0]).is_none(), "there is no room");
    assert!(matches!(poll(&mut sent[1]), Some(Reply::Appended(Err(_)))), "refused, not kept");
    world.expect_pauses();
    drop(open);
    world.turns();
    assert!(matches!(poll(&mut sent[0]), Some(Reply::Appended(Ok(_)))));
    assert_eq!(world.would_sleep(), Some(None));
}

#[test]
fn a_core_with_a_full_queue_sleeps_until_a_completion() {
    // What the queue had no room for counted as work, so the core took turns at full speed until the device was done.
    let mut world = World::open(Options { depth: 1, ..Options::default() });
    world.hold(Verb::Write);
    let placed = [1, 2, 3].map(|byte| world.append(&[byte; LARGE]));
    world.ask(Durability::Written);
    world.turns();
    assert_eq!((world.core.in_flight(), world.control.held().len()), (1, 1));
    for _ in 0..3 {
        assert_eq!(world.would_sleep(), Some(None), "spins for a full queue");
        assert_eq!(world.core.turn(), Turn::Idle);
    }
    world.let_go(Verb::Write);
    assert!(placed.iter().all(|placed| world.has(*placed, Durability::Written)));
}

#[test]
fn a_read_from_the_device_that_the_queue_has_no_room_for_waits_asleep() {
    let mut world = World::open(Options { depth: 1, ..Options::default() });
    world.join();
    let requests = Arc::new(Requests::default());
    let placed = world.append_durably(b"on the device");
    world.hold(Verb::Read);
    let mut reads = [0; 3].map(|_| world.read(&requests, placed));
    world.turns();
    assert_eq!(world.would_sleep(), Some(None), "spins for a full queue");
    world.let_go(Verb::Read);
    for read in &mut reads {
        let reply = poll(read);
        assert!(
            matches!(&reply, Some(Reply::Record(Ok(bytes))) if *bytes == b"on the device"[..]),
            "{reply:?}"
        );
    }
}

#[test]
fn a_read_of_what_a_failed_shard_holds_in_an_unfinished_frame_ends() {
    let mut world = World::open(Options::default());
    world.join();
    let requests = Arc::new(Requests::default());
    let shard = Arc::clone(&world.shard);
    let placed = world.append(b"beside it");
    let open = shard.try_reserve(10).unwrap();
    let mut pending = world.read(&requests, placed);
    world.turns();
    world.core.shards_mut()[0]
        .fail(crate::failure::ShardFailure::CoreDead { shard: shard.id(), core: CoreId(0) });
    world.turns();
    assert!(matches!(poll(&mut pending), Some(Reply::Record(Err(ReadError::NeverWritten { .. })))));
    drop(open);
}

#[test]
fn a_read_asks_for_sectors_from_its_record_on_and_for_more_only_where_the_record_is_longer() {
    let mut world = World::open(Options::default());
    world.join();
    let requests = Arc::new(Requests::default());
    // Of every length around a sector and a slot, so that records begin anywhere.
    let lengths = (0..40).map(|step| 1 + step * 97).chain([511, 512, 513, 4095, 4096, 4097, 9000]);
    let mut append = |length: usize| {
        // All of them together are more than the ring takes.
        world.turns();
        (world.append(&vec![length as u8; length]), length)
    };
    let records: Vec<_> = lengths.map(&mut append).collect();
    world.ask(Durability::Durable);
    world.turns();
    for (placed, length) in records {
        world.hold(Verb::Read);
        let mut pending = world.read(&requests, placed);
        world.turns();
        let held = world.control.held();
        let [asked] = held[..] else { panic!("{held:?}") };
        let device_byte = SUPERBLOCK_AREA_BYTES + placed.address.byte();
        assert_eq!(asked.offset, device_byte - device_byte % SECTOR_BYTES, "a record of {length}");
        let end = device_byte + RECORD_HEADER_BYTES + length as u64;
        assert!(asked.offset + asked.bytes >= end, "a record of {length} in two reads");
        assert!(asked.offset + asked.bytes < end + 2 * 4096, "a record of {length} in {} bytes", asked.bytes);
        world.let_go(Verb::Read);
        let reply = poll(&mut pending);
        assert!(
            matches!(&reply, Some(Reply::Record(Ok(bytes))) if *bytes == vec![length as u8; length]),
            "{reply:?}"
        );
    }
}

#[test]
fn a_core_sleeps_over_what_it_submitted_and_not_over_what_it_answered() {
    let mut world = World::open(Options::default());
    world.join();
    let requests = Arc::new(Requests::default());
    world.hold(Verb::Write);
    let placed = world.append(b"in memory");
    world.ask(Durability::Written);
    let sleeps = |world: &World| world.core.handle().counters.sleeps.load(Ordering::Relaxed);
    let step = |world: &mut World| world.core.turn_or_wait(Some(Duration::from_millis(1)));
    let before = sleeps(&world);
    assert_eq!(step(&mut world), Turn::Progress);
    assert_eq!(sleeps(&world), before + 1, "it submitted a write, and nobody was told anything");
    let mut pending = world.read(&requests, placed);
    assert_eq!(step(&mut world), Turn::Progress);
    assert_eq!(sleeps(&world), before + 1, "whoever drives the core may have waited for the answer");
    assert!(matches!(poll(&mut pending), Some(Reply::Record(Ok(bytes))) if *bytes == b"in memory"[..]));
    assert_eq!(step(&mut world), Turn::Progress);
    assert_eq!(sleeps(&world), before + 2);
    world.let_go(Verb::Write);
    assert!(world.has(placed, Durability::Written));
}
