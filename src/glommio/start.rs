//! Starting an executor that is sure to run its first task.
//!
//! An executor may go to sleep before it has run any task (see [`super::awake`]), and then nobody knows a waker of its.
//! So its work is not given to it: it takes it when it runs. One that does not come for it is left asleep, and
//! another one started.

use ::glommio::{ExecutorJoinHandle, LocalExecutorBuilder};
use std::{
    future::Future,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

/// How long an executor may take to run its first task. One that is only late finds its work gone, and ends.
const PATIENCE: Duration = Duration::from_millis(250);
const TRIES: usize = 40;

/// What an executor does, until it has been taken.
pub struct Start<F>(Arc<Mutex<Option<F>>>);

impl<F, S> Start<F>
where
    F: FnOnce() -> S + Send + 'static,
    S: Future<Output = ()> + 'static,
{
    pub fn new(work: F) -> Self {
        Self(Arc::new(Mutex::new(Some(work))))
    }

    /// Starts it in an executor of one of `builders`.
    pub fn executor(
        self,
        builders: impl Fn() -> LocalExecutorBuilder,
    ) -> Result<ExecutorJoinHandle<()>, io::Error> {
        let mut tried = Vec::new();
        for _ in 0..TRIES {
            let slot = Arc::clone(&self.0);
            let (taken, sign) = mpsc::channel();
            let thread = builders().spawn(move || async move {
                let Some(work) = lock(&slot).take() else { return };
                let _starter_is_gone = taken.send(());
                work().await;
            })?;
            let seen = sign.recv_timeout(PATIENCE);
            let is_taken = lock(&self.0).is_none();
            match seen {
                Ok(()) => return Ok(thread),
                // Its rings or its thread could not be made.
                Err(RecvTimeoutError::Disconnected) if !is_taken => {
                    thread.join()?;
                    return Err(io::Error::other("it ended before its first task"));
                }
                Err(_) => tried.push((thread, sign)),
            }
            if is_taken {
                break;
            }
            tracing::warn!("an executor of glommio did not run its first task; another one is started");
        }
        // From here on none finds it, but one may have found it just now.
        drop(lock(&self.0).take());
        let late = tried.into_iter().find(|(_, sign)| sign.recv_timeout(PATIENCE).is_ok());
        late.map(|(thread, _)| thread).ok_or_else(|| io::ErrorKind::TimedOut.into())
    }
}

fn lock<F>(slot: &Mutex<Option<F>>) -> MutexGuard<'_, Option<F>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::Start;
    use glommio::{LocalExecutorBuilder, Placement};
    use std::{
        cell::Cell,
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
        time::Duration,
    };

    #[test]
    fn an_executor_that_sleeps_before_its_first_task_is_replaced() {
        let runs = Arc::new(AtomicU32::new(0));
        let ran = Arc::clone(&runs);
        let made = Cell::new(0);
        let start = Start::new(move || async move {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        let thread = start.executor(|| {
            made.set(made.get() + 1);
            // With so short a timer no task ever runs.
            let timer = if made.get() < 3 { Duration::from_nanos(1) } else { Duration::from_millis(100) };
            LocalExecutorBuilder::new(Placement::Unbound).preempt_timer(timer)
        });
        thread.unwrap().join().unwrap();
        assert_eq!((made.get(), runs.load(Ordering::Relaxed)), (3, 1));
    }
}
