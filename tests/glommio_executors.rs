//! Futures of a store on glommio executors, and cores that take their turns inside them.
#![cfg(feature = "glommio")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Place, options, payload};
use corelog::{AppendError, CloseError, Durability, ReadError, Route, ShardId, Store, TicketId, WaitError};
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};
use std::{
    pin::Pin,
    sync::{Arc, Mutex, mpsc},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// A record that a task appended, with what went in.
type Appended = (TicketId, Vec<u8>);

/// With glommio's own preemption timer: one that no core drives in has no need of a shorter one.
fn executor() -> LocalExecutor {
    LocalExecutorBuilder::new(Placement::Unbound).make().unwrap()
}

async fn durable(store: &Store, route: Route, payload: &[u8]) -> TicketId {
    let ticket = store.append_async(route, payload).await.unwrap();
    ticket.reached(Durability::Durable).await.unwrap();
    ticket.id()
}

#[test]
fn futures_of_hosted_cores_are_awaited_on_an_executor() {
    let place = Place::formatted(2);
    let store = Store::open(&place.path, &options(2)).unwrap();
    executor().run(async {
        let _awake = corelog::glommio::keep_awake().await;
        for index in 0..50 {
            let bytes = payload(1, index, 700);
            let id = durable(&store, Route::RoundRobin, &bytes).await;
            assert_eq!(store.read_async(id.address).unwrap().await.unwrap(), bytes);
            let sent = store.send(Route::RoundRobin, bytes.clone().into()).unwrap().await.unwrap();
            assert_eq!(store.read_async(sent.address()).unwrap().await.unwrap(), bytes);
        }
        store.sync_async().await.unwrap();
        store.close_async().await.unwrap();
    });
    drop(store);
    assert!(Store::open(&place.path, &options(2)).unwrap().recovery().clean);
}

#[test]
fn each_core_serves_its_own_shard_and_reads_those_of_others() {
    let place = Place::formatted(2);
    let (tell, told) = mpsc::channel();
    let shared: Arc<Mutex<Vec<Appended>>> = Arc::default();
    let everyones = Arc::clone(&shared);
    let executors = corelog::glommio::open(&[&place.path], &options(2), move |store, core| async move {
        assert_eq!(store.driven_core(), Some(core));
        for index in 0..200 {
            let bytes = payload(u64::from(core.0), index, 900);
            let id = durable(&store, Route::Local, &bytes).await;
            assert_eq!(id.shard, ShardId(core.0), "local is the shard of the task's own core");
            everyones.lock().unwrap().push((id, bytes));
            let (other, expected) = everyones.lock().unwrap()[index as usize / 2].clone();
            assert_eq!(store.read_async(other.address).unwrap().await.unwrap(), expected);
        }
        tell.send(core).unwrap();
    })
    .unwrap();
    assert_eq!(told.iter().take(2).count(), 2);
    executors.join().unwrap();
    let store = Store::open(&place.path, &options(2)).unwrap();
    assert!(store.recovery().clean);
    let written = shared.lock().unwrap();
    assert_eq!(written.len(), 400);
    for (id, bytes) in written.iter() {
        assert_eq!(store.read(id.address).unwrap(), bytes);
    }
}

#[test]
fn what_would_block_the_executor_is_refused_and_does_not_hang() {
    let place = Place::formatted(1);
    let executors = corelog::glommio::open(&[&place.path], &options(1), |store, core| async move {
        let ticket = store.append(b"one").unwrap();
        assert!(matches!(ticket.wait(Durability::Durable), Err(WaitError::OnCoreThread { .. })));
        assert_eq!(store.read(ticket.address()), Err(ReadError::OnCoreThread { core }));
        assert!(matches!(store.sync(), Err(WaitError::OnCoreThread { .. })));
        ticket.reached(Durability::Durable).await.unwrap();
        store.close_async().await.unwrap();
        assert_eq!(store.append(b"two").unwrap_err(), AppendError::Closed);
        assert!(matches!(store.close(), Err(CloseError::OnCoreThread { .. })));
    })
    .unwrap();
    executors.join().unwrap();
}

#[test]
fn short_sleeps_beside_a_busy_driver_stay_short() {
    // glommio's default preemption timer of 100 ms made a sleep of 200 us take 100 ms beside a task that is always
    // ready.
    let place = Place::formatted(1);
    let (tell, told) = mpsc::channel();
    let executors = corelog::glommio::open(&[&place.path], &options(1), move |store, _| async move {
        let busy = glommio::spawn_local({
            let store = store.clone();
            async move {
                let bytes = [7_u8; 2000];
                while store.append_async(Route::Local, &bytes).await.is_ok() {
                    glommio::executor().yield_now().await;
                }
            }
        });
        let mut took = Vec::new();
        for _ in 0..20 {
            let start = Instant::now();
            glommio::timer::sleep(Duration::from_micros(200)).await;
            took.push(start.elapsed());
        }
        took.sort();
        tell.send(took).unwrap();
        busy.cancel().await;
    })
    .unwrap();
    let took = told.recv().unwrap();
    executors.join().unwrap();
    assert!(took[10] < Duration::from_millis(20), "{took:?}");
}

#[test]
fn an_idle_driver_costs_no_turns_and_wakes_for_a_foreign_thread() {
    let place = Place::formatted(1);
    let flag = Flag::default();
    let raised = flag.clone();
    let executors = corelog::glommio::open(&[&place.path], &options(1), move |_, _| raised).unwrap();
    let store = executors.store();
    store.append(b"first").unwrap().wait(Durability::Durable).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let turns = || store.directory().cores[0].counters.turns.load(std::sync::atomic::Ordering::Relaxed);
    let before = turns();
    std::thread::sleep(Duration::from_secs(1));
    let idle = turns() - before;
    let stands = (store.watermarks(ShardId(0)), store.grants());
    assert!(idle < 20, "{idle} turns in an idle second; {stands:?}");
    let start = Instant::now();
    for index in 0..20 {
        let ticket = store.append(&payload(0, index, 100)).unwrap();
        ticket.wait(Durability::Durable).unwrap();
        store.read(ticket.address()).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    flag.raise();
    executors.join().unwrap();
}

#[test]
fn executors_that_nobody_joins_end_with_their_store() {
    let place = Place::formatted(2);
    let executors = corelog::glommio::open(&[&place.path], &options(2), |store, _| async move {
        let _closed_before_it_ran = store.append(b"kept");
        std::future::pending::<()>().await;
    })
    .unwrap();
    let id = executors.store().append(b"kept too").unwrap().id();
    drop(executors);
    let store = Store::open(&place.path, &options(2)).unwrap();
    assert!(store.recovery().clean);
    assert_eq!(&store.read(id.address).unwrap()[..], b"kept too");
}

#[test]
fn a_panic_in_one_executor_is_the_death_of_its_core_alone() {
    let place = Place::formatted(2);
    let executors = corelog::glommio::open(&[&place.path], &options(2), |store, core| async move {
        store.append_async(Route::Local, b"kept").await.unwrap().reached(Durability::Durable).await.unwrap();
        assert!(core.0 == 0, "planted: the server on core 1 dies");
    })
    .unwrap();
    let store = executors.store().clone();
    let start = Instant::now();
    while store.failure(ShardId(1)).is_none() && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(matches!(store.failure(ShardId(1)), Some(corelog::ShardFailure::CoreDead { .. })));
    store.append_to(Route::Shard(ShardId(0)), b"goes on").unwrap().wait(Durability::Durable).unwrap();
    assert!(matches!(executors.join(), Err(CloseError::Failed(_))));
}

/// Completed by another thread.
#[derive(Clone, Default)]
struct Flag(Arc<Mutex<(bool, Vec<Waker>)>>);

impl Flag {
    fn raise(&self) {
        let mut state = self.0.lock().unwrap();
        state.0 = true;
        state.1.drain(..).for_each(Waker::wake);
    }
}

impl Future for Flag {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock().unwrap();
        state.1.push(context.waker().clone());
        if state.0 { Poll::Ready(()) } else { Poll::Pending }
    }
}
