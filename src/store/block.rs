//! Blocking on a future: one reusable waker per thread, so that waiting allocates nothing.

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
