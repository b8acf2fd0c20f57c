//! The smallest executor: a fixed number of futures on one thread, each polled when its waker was called.

use super::{
    driver::{Driver, SLEEP_MAX},
    error::BenchError,
};
use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Instant,
};

#[derive(Debug)]
struct Ready {
    list: Mutex<Vec<usize>>,
    thread: Thread,
    /// Of the core that the lane's thread drives, which sleeps in its stead.
    core: Option<Waker>,
}

impl Ready {
    fn push(&self, index: usize) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).push(index);
        match &self.core {
            None => self.thread.unpark(),
            // The lane looks at the list before its core sleeps.
            Some(core) if thread::current().id() != self.thread.id() => core.wake_by_ref(),
            Some(_) => {}
        }
    }

    fn take(&self, into: &mut Vec<usize>) {
        into.append(&mut self.list.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn is_empty(&self) -> bool {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

struct Task {
    index: usize,
    ready: Arc<Ready>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.ready.push(self.index);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.push(self.index);
    }
}

/// The next operation and what its end is compared with, if there is one.
pub type Begun<F, E> = Result<Option<(F, E)>, BenchError>;

/// An operation under way.
struct UnderWay<F, E> {
    future: F,
    expected: E,
    began: Instant,
}

/// What keeping operations in flight does with them.
pub trait Operations<D: Driver> {
    /// One operation under way.
    type Future: Future + Unpin;
    /// What its end is compared with.
    type Expected;

    /// Begins the next. `None`: not now, or none any more.
    fn begin(&mut self, driver: &mut D) -> Begun<Self::Future, Self::Expected>;

    /// True: no further one is to begin.
    fn is_over(&mut self) -> bool;

    /// One ended; it began at `began`.
    fn end(
        &mut self,
        output: <Self::Future as Future>::Output,
        expected: Self::Expected,
        began: Instant,
    ) -> Result<(), BenchError>;
}

/// Keeps `in_flight` operations under way until `operations` says that it is over and the last has ended.
pub fn keep_in_flight<D: Driver, O: Operations<D>>(
    driver: &mut D,
    in_flight: usize,
    operations: &mut O,
) -> Result<(), BenchError> {
    let ready = Arc::new(Ready {
        list: Mutex::new(Vec::with_capacity(in_flight)),
        thread: thread::current(),
        core: driver.waker(),
    });
    let wakers: Vec<Waker> = (0..in_flight)
        .map(|index| Waker::from(Arc::new(Task { index, ready: Arc::clone(&ready) })))
        .collect();
    let mut slots: Vec<Option<UnderWay<O::Future, O::Expected>>> = (0..in_flight).map(|_| None).collect();
    let mut vacant: Vec<usize> = (0..in_flight).rev().collect();
    let mut woken = Vec::with_capacity(in_flight);
    loop {
        let (mut over, mut is_refused) = (operations.is_over(), false);
        while !over {
            let Some(index) = vacant.pop() else { break };
            let began = Instant::now();
            let Some((future, expected)) = operations.begin(driver)? else {
                vacant.push(index);
                (over, is_refused) = (operations.is_over(), true);
                break;
            };
            slots[index] = Some(UnderWay { future, expected, began });
            woken.push(index);
            // After each: a run that is to end by its records has exactly as many.
            over = operations.is_over();
        }
        if over && vacant.len() == in_flight {
            return Ok(());
        }
        ready.take(&mut woken);
        for index in woken.drain(..) {
            let Some(under_way) = &mut slots[index] else { continue };
            let mut context = Context::from_waker(&wakers[index]);
            let Poll::Ready(output) = Pin::new(&mut under_way.future).poll(&mut context) else { continue };
            if let Some(UnderWay { expected, began, .. }) = slots[index].take() {
                operations.end(output, expected, began)?;
                vacant.push(index);
            }
        }
        if is_refused {
            let _is_tried_again = driver.turn()?;
        } else if ready.is_empty() && vacant.len() < in_flight && (over || vacant.is_empty()) {
            // Whatever a future of the lane waits for wakes it.
            driver.turn_or_sleep_for(if D::DRIVES { None } else { Some(SLEEP_MAX) })?;
        }
    }
}
