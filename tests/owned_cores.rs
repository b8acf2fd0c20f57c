//! Cores that the caller's own threads drive: by hand, by `poll(2)`, in numbers; and how they end.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Place, block_on, open_on_threads, options, payload, turn_until, turn_until_closed};
use corelog::{
    AppendError, CloseError, Core, CoreId, Durability, FrameNumber, OpenError, Options, ReadError, Refused,
    Route, ShardFailure, ShardId, Store, TailKind, Ticket, TicketId, Turn, WaitError,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    time::{ClockId, clock_gettime},
};
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
    thread::JoinHandle,
    time::{Duration, Instant},
};

type Kept = Vec<(TicketId, Vec<u8>)>;

const LONG: Duration = Duration::from_secs(20);

fn open_by_hand(place: &Place, cores: u32) -> (Store, Vec<Core>) {
    open_with(place, &options(cores))
}

fn open_with(place: &Place, options: &Options) -> (Store, Vec<Core>) {
    let mut opening = Store::open_owned(&[&place.path], options).unwrap();
    let cores = opening.take_seats().into_iter().map(|seat| seat.start().unwrap()).collect();
    (opening.store().unwrap(), cores)
}

#[test]
fn one_thread_drives_two_cores_and_loses_nothing() {
    let place = Place::formatted(2);
    let (store, mut cores) = open_by_hand(&place, 2);
    let mut kept = Vec::new();
    for index in 0..2000 {
        let bytes = payload(1, index, 600);
        let ticket = loop {
            match store.try_append(Route::RoundRobin, &bytes) {
                Ok(ticket) => break ticket,
                Err(refused) => {
                    assert!(matches!(refused.error, AppendError::Full { .. }), "{refused}");
                    cores.iter_mut().for_each(|core| assert_ne!(core.turn(), Turn::Closed));
                }
            }
        };
        kept.push((ticket.id(), bytes));
    }
    let last = store.ticket(kept[1999].0).unwrap();
    assert!(matches!(last.wait(Durability::Durable), Err(WaitError::OnCoreThread { .. })));
    turn_until(&mut cores, || last.has_reached(Durability::Durable));
    assert!(matches!(store.close(), Err(CloseError::OnCoreThread { .. })));
    turn_until(&mut cores, || store.append(b"late").is_err());
    cores.iter_mut().for_each(|core| assert!(core.close(LONG)));
    drop(cores);
    store.close().unwrap();
    drop(store);
    let store = Store::open(&place.path, &options(2)).unwrap();
    assert!(store.recovery().clean);
    for (id, bytes) in &kept {
        assert_eq!(store.read(id.address).unwrap(), bytes);
    }
}

#[test]
fn waiting_on_a_core_s_own_thread_is_refused_also_for_the_core_that_was_not_turned_last() {
    let (first, second) = (Place::formatted(1), Place::formatted(1));
    let (one, mut cores_of_one) = open_by_hand(&first, 1);
    let (two, mut cores_of_two) = open_by_hand(&second, 1);
    let _idle = (cores_of_one[0].turn(), cores_of_two[0].turn());
    for store in [&one, &two] {
        let ticket = store.append(b"x").unwrap();
        let start = Instant::now();
        assert!(matches!(ticket.wait(Durability::Written), Err(WaitError::OnCoreThread { .. })));
        assert!(matches!(store.flush(ShardId(0), Durability::Durable), Err(WaitError::OnCoreThread { .. })));
        assert!(matches!(store.read(ticket.address()), Err(ReadError::OnCoreThread { .. })));
        assert!(start.elapsed() < Duration::from_secs(1));
    }
    // With the core turned last gone, the thread still drives the other.
    drop(cores_of_two);
    let ticket = one.append(b"y").unwrap();
    assert!(matches!(ticket.wait(Durability::Durable), Err(WaitError::OnCoreThread { .. })));
    while one.try_append(Route::Local, [7; 1000]).is_ok() {}
    assert!(matches!(one.append(&[7; 1000]), Err(AppendError::OnCoreThread { .. })));
    turn_until(&mut cores_of_one, || ticket.has_reached(Durability::Durable));
}

/// Sleeps in `poll(2)` between turns, as a server with its own event loop does. Gives the polls that it slept.
fn drive_by_poll(mut core: Core) -> u32 {
    let mut polls = 0;
    loop {
        match core.turn() {
            Turn::Progress => {}
            Turn::Closed => return polls,
            Turn::Idle if core.prepare_wait() => {
                let limit = core.timer().map(|timer| Timespec::try_from(timer).unwrap());
                let fd = core.fd().unwrap();
                let mut fds = [PollFd::new(&fd, PollFlags::IN)];
                let ready = poll(&mut fds, limit.as_ref());
                assert!(matches!(ready, Ok(_) | Err(rustix::io::Errno::INTR)), "{ready:?}");
                polls += 1;
                core.awake();
            }
            Turn::Idle => {}
        }
    }
}

#[test]
fn a_core_asleep_in_poll_wakes_for_mail_for_full_buffers_and_for_waiters() {
    let place = Place::formatted(1);
    let mut opening = Store::open_owned(&[&place.path], &options(1)).unwrap();
    let seat = opening.take_seats().remove(0);
    let thread = std::thread::spawn(move || drive_by_poll(seat.start_pollable().unwrap()));
    let store = opening.store().unwrap();
    let settle = || std::thread::sleep(Duration::from_millis(30));
    for round in 0..5 {
        settle();
        let bytes = payload(2, round, 3000);
        let ticket = store.append(&bytes).unwrap();
        ticket.wait_for(Durability::Durable, Some(LONG)).unwrap();
        settle();
        assert_eq!(store.read(ticket.address()).unwrap(), bytes, "mail");
        settle();
        // Nobody waits, but full buffers have to go.
        let frames = store.watermarks(ShardId(0)).unwrap().written;
        while store.watermarks(ShardId(0)).unwrap().accepted.0 < frames.0 + 2 {
            store.append(&bytes).unwrap();
        }
        let start = Instant::now();
        while store.watermarks(ShardId(0)).unwrap().written.0 < frames.0 + 2 {
            assert!(start.elapsed() < LONG, "a full buffer was not taken");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    store.close().unwrap();
    let polls = thread.join().unwrap();
    assert!(polls < 3000, "{polls} polls: it spins");
}

#[test]
fn a_waker_ends_the_sleep_of_its_core_also_one_that_has_not_begun() {
    let place = Place::formatted(1);
    let (store, mut cores) = open_by_hand(&place, 1);
    let mut core = cores.remove(0);
    let start = Instant::now();
    for round in 0..20 {
        let is_done = Arc::new(AtomicBool::new(false));
        let (waker, done) = (core.waker(), Arc::clone(&is_done));
        let other = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(round % 3 * 10));
            done.store(true, Ordering::Release);
            waker.wake();
        });
        // Nothing else gives the core work.
        while !is_done.load(Ordering::Acquire) {
            assert_ne!(core.turn_or_wait(Some(LONG)), Turn::Closed);
            assert!(start.elapsed() < LONG, "round {round}: nobody woke the core");
        }
        other.join().unwrap();
    }
    let late = core.waker();
    assert!(core.close(LONG));
    drop(core);
    late.wake();
    store.close().unwrap();
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn a_parked_core_uses_no_cpu() {
    let place = Place::formatted(1);
    let mut opening = Store::open_owned(&[&place.path], &options(1)).unwrap();
    let mut core = opening.take_seats().remove(0).start().unwrap();
    let store = opening.store().unwrap();
    store.append(b"so that there was something").unwrap();
    let end = Instant::now() + Duration::from_millis(300);
    core.run_until(|| Instant::now() >= end);
    let counters = &store.directory().cores[0].counters;
    let seen = || (counters.turns.load(Ordering::Relaxed), counters.sleeps.load(Ordering::Relaxed));
    let (before, used_before) = (seen(), thread_time());
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        if core.turn() == Turn::Idle {
            core.wait(Some(end.saturating_duration_since(Instant::now())));
        }
    }
    let used = thread_time() - used_before;
    let (turns, sleeps) = (seen().0 - before.0, seen().1 - before.1);
    assert!(turns < 10 && sleeps < 10, "{turns} turns and {sleeps} sleeps in an idle second");
    assert!(used < Duration::from_millis(20), "{used:?} of CPU in an idle second");
}

#[test]
fn a_hosted_core_without_work_takes_no_turns() {
    let place = Place::formatted(2);
    let store = Store::open(&place.path, &options(2)).unwrap();
    store.append(b"x").unwrap().wait(Durability::Durable).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let turns = || {
        store.directory().cores.iter().map(|core| core.counters.turns.load(Ordering::Relaxed)).sum::<u64>()
    };
    let before = turns();
    std::thread::sleep(Duration::from_secs(1));
    let turns = turns() - before;
    assert!(turns < 10, "{turns} turns in an idle second");
}

#[test]
fn a_seat_that_is_dropped_makes_the_open_fail_for_all() {
    let place = Place::formatted(2);
    let mut opening = Store::open_owned(&[&place.path], &options(2)).unwrap();
    let mut seats = opening.take_seats();
    drop(seats.pop());
    let core = seats.remove(0).start().unwrap();
    assert!(matches!(opening.store(), Err(OpenError::Abandoned { .. })));
    drop(core);
    // Nothing is held on to: the store opens again.
    Store::open(&place.path, &options(2)).unwrap().append(b"x").unwrap().wait(Durability::Durable).unwrap();
    let opening = Store::open_owned(&[&place.path], &options(2)).unwrap();
    assert!(matches!(opening.store(), Err(OpenError::Abandoned { .. })), "seats that nobody took");
}

#[test]
fn a_core_that_is_dropped_brings_what_it_accepted_to_the_device() {
    let place = Place::formatted(1);
    let (store, cores) = open_by_hand(&place, 1);
    let kept: Vec<_> = (0..20)
        .map(|index| {
            let bytes = payload(3, index, 2000);
            (store.append(&bytes).unwrap().id(), bytes)
        })
        .collect();
    drop(cores);
    assert!(kept.iter().all(|(id, _)| store.ticket(*id).unwrap().has_reached(Durability::Durable)));
    assert_eq!(store.append(b"late").unwrap_err(), AppendError::Closed);
    drop(store);
    let store = Store::open(&place.path, &options(1)).unwrap();
    for (id, bytes) in &kept {
        assert_eq!(store.read(id.address).unwrap(), bytes);
    }
}

#[test]
fn a_store_is_closed_from_another_thread() {
    let place = Place::formatted(2);
    let (store, threads) = open_on_threads(&place.path, &options(2), turn_until_closed);
    let id = store.append(b"kept").unwrap().id();
    store.close().unwrap();
    assert!(store.ticket(id).unwrap().has_reached(Durability::Durable));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(store.append(b"late").unwrap_err(), AppendError::Closed);
    store.close().unwrap();
    drop(store);
    assert!(Store::open(&place.path, &options(2)).unwrap().recovery().clean);
}

/// A store on two threads, with durable records in both shards.
fn on_two_threads(place: &Place) -> (Store, Kept, Vec<JoinHandle<()>>) {
    let (store, threads) = open_on_threads(&place.path, &options(2), turn_until_closed);
    let kept = (0..40)
        .map(|index| {
            let bytes = payload(4, index, 1500);
            let ticket = store.append_to(Route::Shard(ShardId(index as u16 % 2)), &bytes).unwrap();
            (ticket.id(), bytes)
        })
        .collect();
    store.sync().unwrap();
    (store, kept, threads)
}

struct PanickingWaker;

impl Wake for PanickingWaker {
    fn wake(self: Arc<Self>) {
        panic!("planted: a waker that panics on the core's thread");
    }
}

/// Has the core of `route` panic in the turn in which it takes its mail, as long as what this gives is kept.
fn plant_panic(store: &Store, route: Route) -> impl Future {
    let waker = Waker::from(Arc::new(PanickingWaker));
    loop {
        let mut sent = store.send(route, payload(9, 9, 9).into()).unwrap();
        // The core may be faster than the poll; then there is nobody to wake.
        if Pin::new(&mut sent).poll(&mut Context::from_waker(&waker)).is_pending() {
            return sent;
        }
    }
}

fn answer_of<'s>(sent: Result<impl Future<Output = Result<Ticket<'s>, Refused>>, Refused>) -> AppendError {
    sent.and_then(|sent| block_on(sent)).unwrap_err().error
}

#[test]
fn a_panic_in_one_core_is_told_to_those_whom_it_concerns_and_the_others_go_on() {
    let place = Place::formatted(2);
    let (store, kept, threads) = on_two_threads(&place);
    let dying = Route::Shard(ShardId(1));
    // Left waiting: for durability, for a read, and for a routed append, all of them behind the panic.
    let filling = store.try_reserve(dying, 10).unwrap();
    let planted = plant_panic(&store, dying);
    let sent = store.send(dying, payload(5, 0, 10).into());
    let start = Instant::now();
    while store.failure(ShardId(1)).is_none() {
        assert!(start.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(1));
    }
    let ticket = filling.commit();
    let failure = ticket.wait(Durability::Durable).unwrap_err();
    assert!(matches!(failure, WaitError::Failed(ShardFailure::CoreDead { .. })), "{failure}");
    let answer = answer_of(sent);
    assert!(matches!(answer, AppendError::CoreDead { .. } | AppendError::Failed(_)), "{answer}");
    assert!(matches!(store.append_to(dying, b"x"), Err(AppendError::Failed(_))));
    let refused = store.send(dying, payload(5, 1, 10).into()).err().unwrap();
    assert_eq!(refused.payload, payload(5, 1, 10), "the payload comes back");
    // The other shard goes on, and what was durable is read, whoever owned it.
    store.append_to(Route::Shard(ShardId(0)), b"on").unwrap().wait(Durability::Durable).unwrap();
    for (id, bytes) in &kept {
        assert_eq!(store.read(id.address).unwrap(), bytes);
    }
    assert!(matches!(store.close(), Err(CloseError::Failed(ShardFailure::CoreDead { .. }))));
    let panics = threads.into_iter().filter_map(|thread| thread.join().err()).count();
    assert_eq!(panics, 1);
    drop(planted);
    drop(store);
    let store = Store::open(&place.path, &options(2)).unwrap();
    for (id, bytes) in &kept {
        assert_eq!(store.read(id.address).unwrap(), bytes);
    }
}

#[test]
fn a_panic_that_somebody_catches_kills_the_core_all_the_same() {
    // A core that went on after a panic in the middle of its turn could do anything; dropping it used to drain it.
    let place = Place::formatted(1);
    let (store, mut cores) = open_by_hand(&place, 1);
    let _idle = cores[0].turn();
    let ticket = store.append(b"accepted and never written").unwrap();
    let sent = store.send(Route::Local, payload(6, 0, 10).into()).unwrap();
    let _planted = plant_panic(&store, Route::Local);
    let late = store.send(Route::Local, payload(6, 1, 10).into()).unwrap();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cores[0].turn()));
    assert!(caught.is_err());
    assert_eq!(cores[0].turn(), Turn::Closed);
    // The core is still there, and everyone is answered.
    block_on(sent).unwrap();
    assert!(matches!(block_on(late).unwrap_err().error, AppendError::CoreDead { .. }));
    assert!(matches!(block_on(ticket.reached(Durability::Durable)), Err(ShardFailure::CoreDead { .. })));
    assert!(store.read_async(ticket.address()).is_err());
    drop(cores);
    assert!(matches!(store.close(), Err(CloseError::Failed(_))));
}

#[test]
fn requests_that_a_closed_core_did_not_take_are_answered() {
    // A channel keeps what is in it as long as there is a sender, so that these waited for ever.
    let place = Place::formatted(1);
    let (store, mut cores) = open_by_hand(&place, 1);
    let ticket = store.append(b"x").unwrap().id();
    assert!(cores[0].close(LONG));
    let refused = store.send(Route::Local, payload(7, 0, 10).into()).err().unwrap();
    assert_eq!(refused.error, AppendError::Closed);
    assert_eq!(store.read_async(ticket.address).unwrap_err(), ReadError::Closed);
    drop(cores);
}

#[test]
fn a_close_asked_for_on_the_cores_own_thread_is_heard_although_its_mailbox_is_full() {
    // The request went by mail, found the mailbox full, and was lost: the core was never closed.
    let place = Place::formatted(1);
    let mut opening = Store::open_owned(&[&place.path], &options(1).mailbox(2)).unwrap();
    let mut core = opening.take_seats().remove(0).start().unwrap();
    let store = opening.store().unwrap();
    let _progress = core.turn();
    let mut sent = Vec::new();
    while let Ok(future) = store.send(Route::Local, payload(1, sent.len() as u64, 50).into()) {
        sent.push(future);
    }
    assert!(sent.len() >= 2);
    let error = store.close().unwrap_err();
    assert!(matches!(error, CloseError::OnCoreThread { core: CoreId(0) }), "{error}");
    let mut turns = 0;
    while core.turn() != Turn::Closed {
        core.wait(Some(Duration::from_millis(10)));
        turns += 1;
        assert!(turns < 1000, "the core never closed");
    }
    assert_eq!(store.try_append(Route::Local, b"late").unwrap_err().error, AppendError::Closed);
    // What was in the mailbox before the close was appended.
    let appended = sent.len();
    sent.into_iter().for_each(|future| _ = block_on(future).unwrap());
    drop((core, store));
    let store = Store::open(&place.path, &options(1)).unwrap();
    assert!(matches!(store.recovery().shards[0].tail.kind, TailKind::Clean));
    assert_eq!(store.scan(ShardId(0)).unwrap().count(), appended);
}

/// Has another thread close the store while the core that wakes it is held up.
struct HoldUp(std::sync::Mutex<(std::sync::mpsc::Sender<()>, std::sync::mpsc::Receiver<()>)>);

impl Wake for HoldUp {
    fn wake(self: Arc<Self>) {
        let (ask, done) = &*self.0.lock().unwrap();
        let _asked = ask.send(());
        let _until_then = done.recv_timeout(Duration::from_millis(500));
    }
}

#[test]
fn a_close_waits_for_a_core_that_has_ended_and_not_reported_it() {
    // It took the core for dead, let go of the devices, and the core panicked over the closing superblock.
    let place = Place::formatted(1);
    let (store, mut cores) = open_by_hand(&place, 1);
    let mut core = cores.remove(0);
    let ticket = store.try_append(Route::Local, &payload(1, 1, 200)).unwrap().id();
    let (ask, asked) = std::sync::mpsc::channel();
    let (done, is_done) = std::sync::mpsc::channel();
    let closer = store.clone();
    let closing = std::thread::spawn(move || {
        asked.recv().unwrap();
        let closed = closer.close();
        let _nobody_waits_any_more = done.send(());
        closed
    });
    // Of a frame that never comes, so that the end of the core wakes it, and nothing before.
    let never = store.ticket(TicketId { frame: FrameNumber(1000), ..ticket }).unwrap();
    let waker = Waker::from(Arc::new(HoldUp(std::sync::Mutex::new((ask, is_done)))));
    let mut reached = Box::pin(never.reached(Durability::Written));
    assert!(reached.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    // Turned first, so that the thread is known as the one that drives the core.
    let _progress = core.turn();
    assert!(matches!(store.close(), Err(CloseError::OnCoreThread { .. })), "asked for all the same");
    while core.turn() != Turn::Closed {
        core.wait(Some(Duration::from_millis(1)));
    }
    closing.join().unwrap().unwrap();
    drop((reached, core));
    drop(store);
    let store = Store::open(&place.path, &options(1)).unwrap();
    assert!(matches!(store.recovery().shards[0].tail.kind, TailKind::Clean));
}

#[test]
fn a_durable_append_of_an_owned_core_is_one_call_of_the_kernel() {
    // The write, its wait and the flush were four calls once: submit, wait, submit the sync, wait. One that is watched is two.
    let place = Place::formatted(1);
    let (store, mut cores) = open_with(&place, &options(1).sync_spin(Duration::ZERO));
    let core = &mut cores[0];
    if store.grants()[0].device.backend != "io_uring" {
        println!("skipped: no io_uring on this host");
        return;
    }
    let append = |core: &mut Core, index| {
        let ticket = store.try_append(Route::Local, &payload(1, index, 200)).unwrap();
        ticket.request(Durability::Durable);
        while !ticket.has_reached(Durability::Durable) {
            assert_ne!(core.turn_or_wait(None), Turn::Closed);
        }
    };
    // The first may follow the header of an extent, and a flush for it.
    append(core, 0);
    let before = core.device_counters().enters;
    (1..=100).for_each(|index| append(core, index));
    let calls = core.device_counters().enters - before;
    assert!((100..110).contains(&calls), "{calls} calls for 100 durable appends");
    assert!(core.close(LONG));
}

#[test]
fn what_a_core_s_thread_appends_lies_in_order_with_what_others_append() {
    let place = Place::formatted(2);
    let (store, mut cores) = open_by_hand(&place, 2);
    let mut kept: Kept = Vec::new();
    for index in 0..3000 {
        let bytes = payload(1, index, 300);
        let id = loop {
            let appended = if index % 7 == 0 {
                store
                    .try_append(Route::Shard(ShardId(0)), &bytes)
                    .map(|ticket| ticket.id())
                    .map_err(|it| it.error)
            } else {
                cores[0].append(ShardId(0), &bytes)
            };
            match appended {
                Ok(id) => break id,
                Err(AppendError::Full { .. }) => _ = cores[0].turn(),
                Err(error) => panic!("{error}"),
            }
        };
        kept.push((id, bytes));
    }
    assert!(kept.is_sorted_by_key(|(id, _)| (id.frame, id.address.byte())));
    let other = cores[0].append(ShardId(1), b"of the other core").unwrap_err();
    assert_eq!(other, AppendError::OtherCore { shard: ShardId(1), core: CoreId(0) });
    let too_large = cores[0].append(ShardId(0), &vec![0; 64 << 20]).unwrap_err();
    assert!(matches!(too_large, AppendError::TooLarge { .. }), "{too_large}");
    // Nobody asks the core for anything, and the last one is handed over all the same.
    let last = store.ticket(kept[2999].0).unwrap();
    last.request(Durability::Durable);
    turn_until(&mut cores, || last.has_reached(Durability::Durable));
    cores.iter_mut().for_each(|core| assert!(core.close(LONG)));
    assert_eq!(cores[0].append(ShardId(0), b"late"), Err(AppendError::Closed));
    drop((cores, store));
    let store = Store::open(&place.path, &options(2)).unwrap();
    let scanned: Vec<_> =
        store.scan(ShardId(0)).unwrap().map(|record| record.unwrap().payload.to_vec()).collect();
    let appended: Vec<_> = kept.into_iter().map(|(_, bytes)| bytes).collect();
    assert!(scanned == appended, "{} of {}", scanned.len(), appended.len());
}
