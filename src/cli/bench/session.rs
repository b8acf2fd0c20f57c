//! An open bench store with a lane per core: a thread that drives its own core, or a client of a hosted one.

use super::{
    driver::{Driver, Hosted, Owned},
    error::BenchError,
    figures::{LaneRun, process_cpu},
    work::{Lane, Work},
};
use corelog::{OpenError, Options, Seat, ShardId, Store};
use std::{
    path::Path,
    sync::{
        Arc, Barrier, OnceLock,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

/// How long closing a core may take.
const CLOSE_MAX: Duration = Duration::from_secs(60);
/// Record numbers of one session.
const SESSION_SHIFT: u32 = 40;

/// What all lanes share of one workload.
#[derive(Debug, Clone)]
struct Round {
    work: Work,
    start: Arc<Barrier>,
    /// CPU that the process had used when all lanes were ready.
    cpu_before: Arc<OnceLock<Duration>>,
    lanes: usize,
    /// Lanes that have ended; the others' cores are driven until all have.
    ended: Arc<AtomicUsize>,
}

/// Counts a lane as ended, however it ends.
struct Ended(Arc<AtomicUsize>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

enum Message {
    Store(Store),
    Round(Round),
}

type Outcome = (usize, Result<LaneRun, BenchError>);

/// How a session's lanes work.
#[derive(Debug, Clone, Copy)]
pub struct LaneOptions {
    pub hosted: bool,
    pub record_bytes: usize,
    /// Of the payloads.
    pub seed: u64,
    /// Counts the sessions of one bench, so that record numbers do not repeat.
    pub session: u64,
}

/// An open store and its lanes.
#[derive(Debug)]
pub struct Session {
    pub store: Store,
    /// Whether each lane's thread could be pinned.
    pub pinned: Vec<bool>,
    lanes: Vec<Sender<Message>>,
    outcomes: Receiver<Outcome>,
    threads: Vec<JoinHandle<()>>,
}

impl Session {
    pub fn open(path: &Path, options: &Options, how: LaneOptions) -> Result<Self, BenchError> {
        if how.hosted { Self::hosted(path, options, how) } else { Self::owned(path, options, how) }
    }

    fn owned(path: &Path, options: &Options, how: LaneOptions) -> Result<Self, BenchError> {
        let mut opening = Store::open_owned(&[path], options)?;
        let seats = opening.take_seats();
        let count = seats.len();
        let (report, started) = channel();
        let (mut lanes, mut threads) = (Vec::new(), Vec::new());
        let (outcome, outcomes) = channel();
        for seat in seats {
            let (sender, receiver) = channel();
            let (report, outcome, pin) = (report.clone(), outcome.clone(), options.pin);
            let index = usize::from(seat.core().0);
            let lane = move || owned_lane(seat, pin, count, how, &report, &receiver, &outcome);
            threads.push(spawn(path, index, lane)?);
            lanes.push(sender);
        }
        drop((report, outcome));
        let mut pinned = vec![false; count];
        let mut failed = None;
        for _ in 0..count {
            match started.recv().map_err(|_| BenchError::LaneDied)? {
                (index, Ok(is_pinned)) => pinned[index] = is_pinned,
                (_, Err(error)) => failed = failed.or(Some(error)),
            }
        }
        if let Some(error) = failed {
            return Err(error.into());
        }
        let store = opening.store()?;
        for lane in &lanes {
            lane.send(Message::Store(store.clone())).map_err(|_| BenchError::LaneDied)?;
        }
        Ok(Self { store, pinned, lanes, outcomes, threads })
    }

    fn hosted(path: &Path, options: &Options, how: LaneOptions) -> Result<Self, BenchError> {
        let store = Store::open(path, options)?;
        let count = store.grants().len();
        let (mut lanes, mut threads) = (Vec::new(), Vec::new());
        let (outcome, outcomes) = channel();
        for index in 0..count {
            let (sender, receiver) = channel();
            let (outcome, store) = (outcome.clone(), store.clone());
            let lane = move || {
                let mut lane = new_lane(index, count, how);
                let mut driver = Hosted { shard: ShardId(index as u16) };
                rounds(index, &mut lane, &store, &mut driver, &receiver, &outcome);
            };
            threads.push(spawn(path, index, lane)?);
            lanes.push(sender);
        }
        let pinned = store.grants().iter().map(|grants| options.pin && grants.cpu.is_some()).collect();
        Ok(Self { store, pinned, lanes, outcomes, threads })
    }

    pub const fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Runs a workload on all lanes at the same time. The CPU time is the process's.
    pub fn run(&self, work: &Work) -> Result<(Vec<LaneRun>, Duration), BenchError> {
        let round = Round {
            work: work.clone(),
            start: Arc::new(Barrier::new(self.lanes.len())),
            cpu_before: Arc::default(),
            lanes: self.lanes.len(),
            ended: Arc::default(),
        };
        for lane in &self.lanes {
            lane.send(Message::Round(round.clone())).map_err(|_| BenchError::LaneDied)?;
        }
        let mut runs: Vec<Option<LaneRun>> = self.lanes.iter().map(|_| None).collect();
        let mut failed = None;
        for _ in &self.lanes {
            match self.outcomes.recv().map_err(|_| BenchError::LaneDied)? {
                (index, Ok(run)) => runs[index] = Some(run),
                (_, Err(error)) => failed = failed.or(Some(error)),
            }
        }
        match failed {
            Some(error) => Err(error),
            None => {
                let cpu = process_cpu().saturating_sub(round.cpu_before.get().copied().unwrap_or_default());
                Ok((runs.into_iter().flatten().collect(), cpu))
            }
        }
    }

    /// Closes the store and ends the lanes.
    pub fn close(self) -> Result<(), BenchError> {
        let Self { store, lanes, outcomes, threads, .. } = self;
        drop((lanes, outcomes));
        let died = threads.into_iter().map(JoinHandle::join).filter(Result::is_err).count();
        store.close()?;
        if died > 0 { Err(BenchError::LaneDied) } else { Ok(()) }
    }
}

fn spawn(
    path: &Path,
    index: usize,
    lane: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, BenchError> {
    let failed = |error| BenchError::Host { path: path.to_owned(), error };
    std::thread::Builder::new().name(format!("lane-{index}")).spawn(lane).map_err(failed)
}

fn new_lane(index: usize, count: usize, how: LaneOptions) -> Lane {
    Lane::new(index as u16, count as u16, how.record_bytes, how.seed, how.session << SESSION_SHIFT)
}

fn owned_lane(
    seat: Seat,
    pin: bool,
    count: usize,
    how: LaneOptions,
    report: &Sender<(usize, Result<bool, OpenError>)>,
    messages: &Receiver<Message>,
    outcome: &Sender<Outcome>,
) {
    let index = usize::from(seat.core().0);
    let pinned = pin && seat.pin();
    let core = match seat.start() {
        Ok(core) => core,
        Err(error) => {
            let _nobody_listens = report.send((index, Err(error)));
            return;
        }
    };
    let _nobody_listens = report.send((index, Ok(pinned)));
    let mut driver = Owned::new(core);
    // The lane is made here, on its CPU, so that its memory is near.
    let mut lane = new_lane(index, count, how);
    if let Ok(Message::Store(store)) = messages.recv() {
        rounds(index, &mut lane, &store, &mut driver, messages, outcome);
    }
    let mut core = driver.into_core();
    if !core.close(CLOSE_MAX) {
        tracing::error!(core = index, "the core did not close in time");
    }
}

fn rounds<D: Driver>(
    index: usize,
    lane: &mut Lane,
    store: &Store,
    driver: &mut D,
    messages: &Receiver<Message>,
    outcome: &Sender<Outcome>,
) {
    while let Ok(Message::Round(round)) = messages.recv() {
        let ended = Ended(Arc::clone(&round.ended));
        // What the bench itself needs is made before; its pages would be counted as the work's.
        lane.prepare(&round.work);
        // The last to come is awake, and the others have not begun to speak of.
        if round.start.wait().is_leader() {
            round.cpu_before.get_or_init(process_cpu);
        }
        let mut result = lane.run(&round.work, store, driver);
        drop(ended);
        // Others may still read through this core.
        while round.ended.load(Ordering::Acquire) < round.lanes {
            if let Err(error) = driver.turn_or_sleep() {
                result = result.and(Err(error));
                break;
            }
        }
        if outcome.send((index, result)).is_err() {
            return;
        }
    }
}
