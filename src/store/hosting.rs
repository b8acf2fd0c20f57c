//! Hosted cores: one pinned thread of ours for each.

use super::{Core, Opening, Store, seat::Seat};
use crate::error::OpenError;
use corelog_shards::{
    core::{Callers, Turn},
    ids::CoreId,
    limits::WAIT_SPIN_TIMES,
};
use std::{
    sync::{Mutex, PoisonError, mpsc},
    thread::{JoinHandle, available_parallelism},
    time::{Duration, Instant},
};

/// The threads of a hosted store; none where the caller drives the cores.
#[derive(Debug, Default)]
pub(super) struct Hosting {
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Hosting {
    pub(super) fn is_hosted(&self) -> bool {
        !self.threads.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Waits for the threads to end, for at most `limit`. True: they have. A panic of one was contained and reported
    /// to those whom it concerned.
    pub(super) fn join(&self, limit: Option<Duration>) -> bool {
        let start = Instant::now();
        let may_wait = || limit.is_none_or(|limit| start.elapsed() < limit);
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let mut all_ended = true;
        for thread in threads {
            // A thread has no timed join; one that does not end is left behind with what it holds.
            while !thread.is_finished() && may_wait() {
                std::thread::sleep(JOIN_PAUSE);
            }
            if !thread.is_finished() {
                all_ended = false;
            } else if thread.join().is_err() {
                tracing::error!("a core's thread panicked");
            }
        }
        all_ended
    }
}

/// Between two looks at a thread that is ending.
const JOIN_PAUSE: Duration = Duration::from_micros(200);

/// Starts a thread per seat and waits until all cores run.
pub(super) fn host(mut opening: Opening) -> Result<Store, OpenError> {
    let (report, started) = mpsc::channel();
    let mut threads = Vec::new();
    let options = opening.assembly.options.clone();
    // Asked here: a core's thread is pinned, and has one CPU only.
    let cores = opening.assembly.cores as usize;
    let leaves_cpus = available_parallelism().is_ok_and(|cpus| cpus.get() > cores);
    let callers = if leaves_cpus { Callers::Beside } else { Callers::Crowded };
    for seat in opening.take_seats() {
        let core = seat.core();
        let report = report.clone();
        let how = HowToRun { pin: options.pin, spin: options.spin, callers };
        let spawned = std::thread::Builder::new()
            .name(format!("corelog-{}", core.0))
            .spawn(move || run(seat, how, report));
        match spawned {
            Ok(thread) => threads.push(thread),
            // The seat was dropped with the closure, so the others give up too.
            Err(error) => return Err(OpenError::Thread { core, error }),
        }
    }
    drop(report);
    let failed: Vec<OpenError> = started.iter().filter_map(|(_, outcome)| outcome.err()).collect();
    if let Some(first) = failed.into_iter().next() {
        return Err(first);
    }
    let store = opening.store()?;
    // Set once, here.
    let _was_empty = store.inner.wait_spin.set(WAIT_SPIN_TIMES * options.sync_spin.unwrap_or_default());
    *store.inner.hosting.threads.lock().unwrap_or_else(PoisonError::into_inner) = threads;
    Ok(store)
}

type Outcome = (CoreId, Result<(), OpenError>);

/// What a core's thread does beside its turns.
#[derive(Clone, Copy)]
struct HowToRun {
    pin: bool,
    spin: Option<Duration>,
    callers: Callers,
}

fn run(seat: Seat, how: HowToRun, report: mpsc::Sender<Outcome>) {
    let HowToRun { pin, spin, callers } = how;
    let id = seat.core();
    if pin && !seat.pin() {
        // The core's grants say the same.
        tracing::warn!(core = id.0, cpu = seat.cpu(), "the host did not let the core be pinned");
    }
    let assembly = std::sync::Arc::clone(&seat.assembly);
    let started = seat.start_hosted(callers);
    let mut core = match started {
        Ok(core) => {
            // Nobody listens any more only if the opener is gone; then the core closes with its store.
            let _opener_is_gone = report.send((id, Ok(())));
            // The opener listens until the last sender is gone.
            drop(report);
            core
        }
        Err(error) => {
            let _opener_is_gone = report.send((id, Err(error)));
            return;
        }
    };
    // A core of an open that failed elsewhere has nothing to run for.
    if assembly.wait().is_none() {
        return;
    }
    drop(assembly);
    match spin {
        None => while core.turn_or_wait(None) != Turn::Closed {},
        Some(spin) => run_spinning(&mut core, spin),
    }
}

/// Looks for work for so long before it sleeps.
fn run_spinning(core: &mut Core, spin: Duration) {
    let mut idle_since: Option<Instant> = None;
    loop {
        match core.turn() {
            Turn::Progress => idle_since = None,
            Turn::Closed => return,
            Turn::Idle if idle_since.get_or_insert_with(Instant::now).elapsed() < spin => {
                std::hint::spin_loop()
            }
            Turn::Idle => {
                core.wait(None);
                idle_since = None;
            }
        }
    }
}
