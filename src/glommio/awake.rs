//! Wakes executors that glommio put to sleep with tasks ready.
//!
//! glommio 0.9.0 takes "the preemption timer fired before any task ran" for "no task is ready" and sleeps on it. The
//! tasks that are ready then are nobody's business any more: only an event from outside makes it look at them, and a
//! timer that already fired is none. It takes a thread that waits for its CPU for longer than the timer, at the wrong
//! moment: with the timer of 1 ms a quarter of short servers met it where four shared two CPUs; with one of 10 us each
//! executor meets it before its first task.
//!
//! So one thread of the process wakes each executor every [`KEEP_AWAKE`], by a task that does nothing.

use ::glommio::{Task, spawn_local};
use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    task::{Poll, Waker},
    thread,
    time::Duration,
};

/// How long an executor sleeps with tasks ready, at most, unless it happens to it twice in a row.
pub const KEEP_AWAKE: Duration = Duration::from_millis(10);

/// Doublings of the time between wakes that are not answered. glommio counts wakes under way in 15 bits, so an
/// executor that is blocked for minutes must not be sent one each time.
const DOUBLINGS_MAX: u32 = 10;
/// Without an answer to so many, which take some three hours, the executor is taken for dead.
const UNANSWERED_MAX: u32 = 1000;

static KEEPER: Mutex<Keeper> = Mutex::new(Keeper { kept: Vec::new(), next: 0, is_running: false });

struct Keeper {
    kept: Vec<Kept>,
    next: u64,
    is_running: bool,
}

struct Kept {
    id: u64,
    waker: Waker,
    /// Wakes since the task last ran.
    unanswered: Arc<AtomicU32>,
    /// Ticks to leave out.
    rest: u32,
}

/// Keeps the executor that made it from sleeping with tasks ready, until it is dropped.
#[derive(Debug)]
#[must_use = "the executor is kept awake until it is dropped"]
pub struct KeepAwake {
    id: u64,
    /// Cancelled when it is dropped.
    _task: Task<()>,
}

/// Keeps the current executor from sleeping with tasks ready: it is woken from outside every [`KEEP_AWAKE`], which
/// costs it some ten microseconds each. Executors that drive a core have this; others that run a store's futures
/// need it as well, see the head of [`crate::glommio`].
pub async fn keep_awake() -> KeepAwake {
    let unanswered = Arc::<AtomicU32>::default();
    // The caller's own task first: the one that does nothing may be the one that is left ready.
    let id = poll_fn(|context| {
        let waker = context.waker().clone();
        Poll::Ready(lock().keep(waker, &unanswered))
    })
    .await;
    let mut is_known = false;
    let task = poll_fn(move |context| {
        unanswered.store(0, Ordering::Relaxed);
        if !is_known {
            lock().replace(id, context.waker());
            is_known = true;
        }
        Poll::Pending
    });
    KeepAwake { id, _task: spawn_local(task) }
}

impl Drop for KeepAwake {
    fn drop(&mut self) {
        let mut keeper = lock();
        let at = keeper.kept.iter().position(|kept| kept.id == self.id);
        let gone = at.map(|at| keeper.kept.swap_remove(at));
        drop(keeper);
        // Out of the lock: dropping a waker is glommio's code.
        drop(gone);
    }
}

fn lock() -> MutexGuard<'static, Keeper> {
    KEEPER.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keeper {
    fn keep(&mut self, waker: Waker, unanswered: &Arc<AtomicU32>) -> u64 {
        let id = self.next;
        self.next += 1;
        self.kept.push(Kept { id, waker, unanswered: Arc::clone(unanswered), rest: 0 });
        if !self.is_running {
            let thread = thread::Builder::new().name("corelog-awake".to_owned()).spawn(run);
            match thread {
                Ok(_ends_by_itself) => self.is_running = true,
                Err(error) => tracing::warn!(%error, "no thread to keep glommio's executors awake"),
            }
        }
        id
    }

    fn replace(&mut self, id: u64, waker: &Waker) {
        if let Some(kept) = self.kept.iter_mut().find(|kept| kept.id == id) {
            kept.waker.clone_from(waker);
        }
    }
}

/// Until nobody is kept any more.
fn run() {
    loop {
        thread::sleep(KEEP_AWAKE);
        let mut keeper = lock();
        keeper.kept.retain_mut(Kept::tick);
        if keeper.kept.is_empty() {
            keeper.is_running = false;
            return;
        }
    }
}

impl Kept {
    /// Wakes it if that is due. `false`: nobody is there.
    fn tick(&mut self) -> bool {
        let unanswered = self.unanswered.load(Ordering::Relaxed);
        if unanswered > 0 && self.rest > 0 {
            self.rest -= 1;
            return true;
        }
        self.rest = (1 << unanswered.min(DOUBLINGS_MAX)) - 1;
        // Before the wake, whose task sets it to 0.
        self.unanswered.fetch_add(1, Ordering::Relaxed);
        self.waker.wake_by_ref();
        unanswered < UNANSWERED_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::{DOUBLINGS_MAX, Kept, UNANSWERED_MAX};
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
        task::{Wake, Waker},
    };

    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counted() -> (Arc<Count>, Kept) {
        let count = Arc::new(Count(AtomicU32::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        (count, Kept { id: 0, waker, unanswered: Arc::default(), rest: 0 })
    }

    #[test]
    fn who_answers_is_woken_each_time() {
        let (count, mut kept) = counted();
        for tick in 1..=100 {
            assert!(kept.tick());
            assert_eq!(count.0.load(Ordering::Relaxed), tick);
            kept.unanswered.store(0, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_does_not_answer_is_woken_ever_less_and_then_given_up() {
        let (count, mut kept) = counted();
        let mut ticks = 0_u64;
        while kept.tick() {
            ticks += 1;
        }
        let woken = count.0.load(Ordering::Relaxed);
        assert_eq!(woken, UNANSWERED_MAX + 1, "below the 15 bits that glommio counts in");
        assert!(ticks > u64::from(UNANSWERED_MAX - DOUBLINGS_MAX) << DOUBLINGS_MAX, "{ticks} ticks");
        // An answer makes it due at once.
        let (count, mut kept) = counted();
        (0..50).for_each(|_| assert!(kept.tick()));
        let before = count.0.load(Ordering::Relaxed);
        kept.unanswered.store(0, Ordering::Relaxed);
        assert!(kept.tick());
        assert_eq!(count.0.load(Ordering::Relaxed), before + 1);
    }
}
