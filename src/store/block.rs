//! Blocking: on a future, with one reusable waker per thread so that waiting allocates nothing, and between tries.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::Thread,
    time::{Duration, Instant},
};

/// Parks its thread until it is woken.
pub(crate) struct Sleeper {
    thread: Thread,
    is_woken: AtomicBool,
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Release pairs with the acquire in `wait`. Unpark keeps a token, so the order to park does not matter.
        if !self.is_woken.swap(true, Ordering::Release) {
            self.thread.unpark();
        }
    }
}

std::thread_local! {
    static SLEEPER: (Arc<Sleeper>, Waker) = {
        let sleeper = Arc::new(Sleeper { thread: std::thread::current(), is_woken: AtomicBool::new(false) });
        (Arc::clone(&sleeper), Waker::from(sleeper))
    };
}

impl Sleeper {
    /// Drives `future` on the calling thread. `None`: `limit` was over first.
    pub(crate) fn wait<F: Future + Unpin>(future: &mut F, limit: Option<Duration>) -> Option<F::Output> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        SLEEPER.with(|(sleeper, waker)| {
            let mut context = Context::from_waker(waker);
            loop {
                sleeper.is_woken.store(false, Ordering::Relaxed);
                if let Poll::Ready(output) = Pin::new(&mut *future).poll(&mut context) {
                    return Some(output);
                }
                while !sleeper.is_woken.load(Ordering::Acquire) {
                    match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                        Some(Duration::ZERO) => return None,
                        Some(left) => std::thread::park_timeout(left),
                        None => std::thread::park(),
                    }
                }
            }
        })
    }
}

/// Rests between tries of something that nobody announces, such as room in a mailbox: gives way first, and then
/// sleeps, twice as long each time.
pub(crate) struct Pause {
    deadline: Option<Instant>,
    tries: u32,
}

/// Tries before the first sleep.
const YIELDS: u32 = 16;
/// The longest sleep is 2 to this power microseconds.
const SLEEP_POWER_MAX: u32 = 10;

impl Pause {
    /// Rests until `limit` is over.
    pub(crate) fn until(limit: Option<Duration>) -> Self {
        Self { deadline: limit.map(|limit| Instant::now() + limit), tries: 0 }
    }

    /// Rests once. False: the time is over.
    pub(crate) fn rest(&mut self) -> bool {
        if self.tries < YIELDS {
            std::thread::yield_now();
        } else {
            let power = (self.tries - YIELDS).min(SLEEP_POWER_MAX);
            std::thread::sleep(Duration::from_micros(1 << power));
        }
        self.tries += 1;
        self.deadline.is_none_or(|deadline| Instant::now() < deadline)
    }
}
