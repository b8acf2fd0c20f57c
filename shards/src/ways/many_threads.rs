//! Shuttle models: a whole core and more threads than loom can take, over the shipped router, waiters and close. Each
//! schedule is drawn at random; `CORELOG_SCHEDULES` says how many, and a failure prints the schedule to replay.

use super::{LARGE, Options, World};
use crate::{
    core::Turn,
    device::{
        Errno, Verb,
        ram::{Effect, Fault},
    },
    directory::{Mail, MailError, WhenFull},
    ids::ShardId,
    mutant::Mutant,
    requests::{Reply, Requests},
    ring::reservation::Placed,
    shard::{Shard, ShardRefusal},
    twins::breaks_with,
    waiting::{Reached, Room},
    watermark::Durability,
};
use bytes::Bytes;
use shuttle::{
    sync::{Condvar, Mutex},
    thread,
};
use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

/// Schedules of each model, and what its twin must fail within.
const SCHEDULES: usize = 300;
const SCHEDULES_OF_A_TWIN: usize = 3_000;
/// Steps of a schedule at which the thread that runs has to sleep.
const SLEEPS: usize = 3;
const CLIENTS: u64 = 5;

/// A thread, or a core, that sleeps until it is woken. A wake that is lost shows as a deadlock.
#[derive(Default)]
struct Sleeper {
    is_woken: Mutex<bool>,
    woken: Condvar,
}

impl Sleeper {
    fn sleep(&self) {
        let mut is_woken = self.is_woken.lock().unwrap();
        while !std::mem::take(&mut *is_woken) {
            is_woken = self.woken.wait(is_woken).unwrap();
        }
    }
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        *self.is_woken.lock().unwrap() = true;
        self.woken.notify_one();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let sleeper = Arc::new(Sleeper::default());
    let waker = Waker::from(Arc::clone(&sleeper));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        sleeper.sleep();
    }
}

/// Drives the core as an executor's task does, until it is closed.
fn drive(world: &mut World) {
    let sleeper = Arc::new(Sleeper::default());
    let waker = Waker::from(Arc::clone(&sleeper));
    loop {
        match world.core.turn() {
            Turn::Progress => {}
            Turn::Idle => {
                if world.core.prepare_wait_waking(&waker) {
                    sleeper.sleep();
                    world.core.awake();
                }
            }
            Turn::Closed => return,
        }
    }
}

fn payload(client: u64, count: u64) -> Vec<u8> {
    // Every other one fills most of a buffer, so that the ring turns.
    let length = if count.is_multiple_of(2) { LARGE } else { 100 };
    let mut bytes = vec![client as u8; length];
    bytes[0] = count as u8;
    bytes
}

fn schedules(default: usize) -> usize {
    std::env::var("CORELOG_SCHEDULES").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Explores the model, and its twins, each of which has to fail for the reason named.
fn proves(model: fn(), twins: &[(Mutant, &str)]) {
    explore(model, schedules(SCHEDULES));
    for (mutant, reason) in twins {
        breaks_with(*mutant, reason, || explore(model, SCHEDULES_OF_A_TWIN));
    }
}

/// Half of the schedules switch at any step; the other half run one thread as long as it can, but for a few steps, which
/// finds what needs a thread to sleep for long.
fn explore(model: fn(), schedules: usize) {
    shuttle::check_random(model, schedules.div_ceil(2));
    shuttle::check_pct(model, schedules.div_ceil(2), SLEEPS);
}

/// Appends as `append_async` does: waits for room as often as there is none.
fn append(shard: &Shard, payload: &[u8]) -> Result<Placed, ShardRefusal> {
    loop {
        let seen = shard.room().changes();
        match shard.try_append(payload) {
            Err(ShardRefusal::Full) => block_on(Room::new(shard, seen)),
            done => return done,
        }
    }
}

/// Would have found a waiter that nobody wakes, a core that sleeps over a wish, and a record that is acknowledged and not
/// on the device.
fn many_waiters() {
    let mut world = World::open(Options::default());
    let shard = Arc::clone(&world.shard);
    let handle = Arc::clone(world.core.handle());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let shard = Arc::clone(&shard);
            thread::spawn(move || {
                // Short ones, so that several wait for one frame.
                let bytes = payload(client, 1);
                let placed = append(&shard, &bytes).expect("the shard is open");
                let durability = if client == 0 { Durability::Written } else { Durability::Durable };
                block_on(Reached::of(&shard, placed.frame, durability)).expect("the shard works");
                (placed, bytes)
            })
        })
        .collect();
    let all = thread::spawn(move || {
        let done: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        handle.ask_to_close();
        done
    });
    drive(&mut world);
    for (placed, bytes) in all.join().unwrap() {
        world.expect(placed, &bytes);
    }
}

#[test]
fn shuttle_many_waiters() {
    let twins = [(Mutant::WaiterWithoutSecondLook, "deadlock"), (Mutant::SleepWithoutSecondLook, "deadlock")];
    proves(many_waiters, &twins);
}

/// Would have found a request that is never answered, because its core closed as it came, and one that is answered and
/// not on the device.
fn many_senders_and_a_close() {
    let mut world = World::open(Options { mailbox: 2, ..Options::default() });
    let requests = Arc::new(Requests::default());
    let senders: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (requests, handle) = (Arc::clone(&requests), Arc::clone(world.core.handle()));
            thread::spawn(move || {
                let bytes = payload(client, client);
                let (pending, responder) = requests.open().expect("the table has room");
                let mut mail = Mail::Append {
                    shard: ShardId(0),
                    payload: Bytes::from(bytes.clone()),
                    when_full: WhenFull::Wait,
                    responder,
                };
                loop {
                    match handle.send(mail) {
                        Ok(()) => break,
                        Err(MailError::Full(back)) => mail = back,
                        Err(MailError::Dead(_)) => return None,
                    }
                    thread::yield_now();
                }
                match block_on(pending) {
                    Reply::Appended(Ok(placed)) => Some((placed, bytes)),
                    Reply::Appended(Err((ShardRefusal::Closed, back))) => {
                        assert!(back == bytes, "another payload came back");
                        None
                    }
                    Reply::CoreDead => None,
                    other => panic!("answered {other:?}"),
                }
            })
        })
        .collect();
    let closer = {
        let handle = Arc::clone(world.core.handle());
        thread::spawn(move || handle.ask_to_close())
    };
    drive(&mut world);
    closer.join().unwrap();
    for sender in senders {
        if let Some((placed, bytes)) = sender.join().unwrap() {
            assert!(world.has(placed, Durability::Durable), "lost at the close");
            world.expect(placed, &bytes);
        }
    }
}

#[test]
fn shuttle_many_senders_and_a_close() {
    let twins =
        [(Mutant::MailLeftByTheDead, "deadlock"), (Mutant::CloseForgetsAccepted, "lost at the close")];
    proves(many_senders_and_a_close, &twins);
}

/// Would have found an append that waits for room in a shard that was closed, a record that was accepted as the shard
/// closed and is lost, and a close that never ends.
fn many_appends_and_a_close() {
    let mut world = World::open(Options::default());
    let writers: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let shard = Arc::clone(&world.shard);
            thread::spawn(move || {
                let mut accepted = Vec::new();
                for count in 0..3 {
                    let bytes = payload(client, count);
                    match append(&shard, &bytes) {
                        Ok(placed) => accepted.push((placed, bytes)),
                        Err(refusal) => {
                            assert_eq!(refusal, ShardRefusal::Closed);
                            break;
                        }
                    }
                }
                accepted
            })
        })
        .collect();
    let closer = {
        let handle = Arc::clone(world.core.handle());
        thread::spawn(move || handle.ask_to_close())
    };
    drive(&mut world);
    closer.join().unwrap();
    for (placed, bytes) in writers.into_iter().flat_map(|writer| writer.join().unwrap()) {
        assert!(world.has(placed, Durability::Durable), "lost at the close");
        world.expect(placed, &bytes);
    }
}

#[test]
fn shuttle_many_appends_and_a_close() {
    // One who waited for room was taken from the list for the change that it had seen just before it tried, found nothing
    // new, and slept through everything behind, the close too: `RoomCountedEarly`.
    let twins = [(Mutant::RoomCountedEarly, "deadlock"), (Mutant::CloseForgetsAccepted, "lost at the close")];
    proves(many_appends_and_a_close, &twins);
}

/// Would have found somebody who waits for a shard that failed, and an acknowledgement after the failure.
fn many_waiters_and_a_failed_sync() {
    let mut world = World::open(Options::default());
    let fault = Fault { verb: Verb::Sync, skip: 0, times: 1, effect: Effect::Fail(Errno(libc::EIO)) };
    world.control.inject(fault);
    let handle = Arc::clone(world.core.handle());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let shard = Arc::clone(&world.shard);
            thread::spawn(move || {
                let bytes = payload(client, client);
                let Ok(placed) = append(&shard, &bytes) else { return };
                let outcome = block_on(Reached::of(&shard, placed.frame, Durability::Durable));
                assert!(outcome.is_err(), "acknowledged after a failure");
            })
        })
        .collect();
    let all = thread::spawn(move || {
        clients.into_iter().for_each(|client| client.join().unwrap());
        handle.ask_to_close();
    });
    drive(&mut world);
    all.join().unwrap();
}

#[test]
fn shuttle_many_waiters_and_a_failed_sync() {
    proves(many_waiters_and_a_failed_sync, &[(Mutant::SyncRetried, "acknowledged after a failure")]);
}
