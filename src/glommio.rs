//! Cores inside glommio executors, so that a server's tasks and its shard share a CPU without a message between them.
//!
//! Appending, waiting and reading are plain futures, for any executor that is kept awake (see below). What is here
//! drives a core: [`open`] makes an executor per core and runs a server's tasks beside it; [`builder`] and [`drive`]
//! are the parts, for a server that makes its executors itself.
//!
//! Executors must be built with a preemption timer of [`PREEMPT_TIMER`]. glommio looks at its timers and its I/O when
//! that timer fires or when no task is ready. With glommio's default of 100 ms the shortest sleep beside a busy task
//! takes 100 ms. [`builder`] sets it.
//!
//! glommio 0.9.0 may put an executor to sleep with tasks ready, for ever, the more easily the shorter that timer is
//! and the busier the host. [`open`] and [`drive`] keep their executors from that ([`keep_awake`]); executors that only
//! run a store's futures have to call it, too. Nothing can be done before an executor's first task has run: [`open`]
//! starts another executor when one does not come to it. Who makes executors with [`builder`] should do the same, or
//! look for its first sign of life.
//!
//! A core keeps its own io_uring, which glommio cannot wait for. While operations are in flight the driver therefore
//! looks at it again and again, giving way in between and then sleeping for short times ([`Pace`]). With nothing in
//! flight the driver sleeps until somebody wakes it; its executor is woken every [`KEEP_AWAKE`] and costs little.

mod awake;
mod start;

pub use awake::{KEEP_AWAKE, KeepAwake, keep_awake};

use crate::{
    error::{CloseError, OpenError},
    options::Options,
    store::{Core, Seat, Store},
};
use ::glommio::{
    ExecutorJoinHandle, LocalExecutorBuilder, Placement, Task, executor, spawn_local, timer::Timer,
};
use corelog_shards::{core::Turn, ids::CoreId};
use start::Start;
use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    path::Path,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// What the preemption timer of an executor that drives a core has to be; see the head of this module.
pub const PREEMPT_TIMER: Duration = Duration::from_millis(1);

/// How a driver looks for completions while it has nothing else to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Looks again and again for this long, giving way to other tasks in between.
    pub spin: Duration,
    /// The first sleep after that; each is twice as long as the last.
    pub sleep_min: Duration,
    /// The longest sleep.
    pub sleep_max: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            spin: Duration::from_micros(50),
            sleep_min: Duration::from_micros(20),
            sleep_max: Duration::from_micros(200),
        }
    }
}

/// An executor that suits a seat: on its CPU, with the preemption timer that a driver needs.
pub fn builder(seat: &Seat) -> LocalExecutorBuilder {
    builder_of(seat.core(), seat.cpu())
}

fn builder_of(core: CoreId, cpu: Option<u32>) -> LocalExecutorBuilder {
    let placement = cpu.map_or(Placement::Unbound, |cpu| Placement::Fixed(cpu as usize));
    LocalExecutorBuilder::new(placement).name(&format!("corelog-{}", core.0)).preempt_timer(PREEMPT_TIMER)
}

/// Spawns a task on the current executor that drives `core` until its store is closed. To be called on the thread
/// that started the core's seat. Cancelling the task closes the core, which blocks the executor until everything it
/// accepted is durable.
pub fn drive(core: Core) -> Task<()> {
    spawn_local(run(core, Pace::default()))
}

/// Drives `core` until its store is closed, and keeps the executor awake as long; what [`drive`] spawns.
pub async fn run(core: Core, pace: Pace) {
    let _awake = keep_awake().await;
    turns(core, pace).await;
}

async fn turns(mut core: Core, pace: Pace) {
    let mut idle = Idle { pace, since: None, sleep: pace.sleep_min };
    loop {
        match core.turn() {
            Turn::Progress => {
                idle.end();
                executor().yield_now().await;
            }
            Turn::Idle => idle.rest(&mut core).await,
            Turn::Closed => return,
        }
    }
}

struct Idle {
    pace: Pace,
    since: Option<Instant>,
    sleep: Duration,
}

impl Idle {
    fn end(&mut self) {
        self.since = None;
        self.sleep = self.pace.sleep_min;
    }

    async fn rest(&mut self, core: &mut Core) {
        if core.in_flight() == 0 {
            self.end();
            let timer = core.timer();
            return Asleep::new(core, timer).await;
        }
        if self.since.get_or_insert_with(Instant::now).elapsed() < self.pace.spin {
            return executor().yield_now().await;
        }
        let timer = core.timer().map_or(self.sleep, |timer| timer.min(self.sleep));
        self.sleep = (self.sleep * 2).min(self.pace.sleep_max);
        Asleep::new(core, Some(timer)).await;
    }
}

/// Resolves when somebody gives the core work, or its time is over.
struct Asleep<'core> {
    core: &'core mut Core,
    timer: Option<Timer>,
    has_slept: bool,
}

impl<'core> Asleep<'core> {
    fn new(core: &'core mut Core, limit: Option<Duration>) -> Self {
        Self { core, timer: limit.map(Timer::new), has_slept: false }
    }
}

impl Future for Asleep<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        // Whatever woke the task, a turn finds out.
        if this.has_slept || !this.core.prepare_wait_waking(context.waker()) {
            return Poll::Ready(());
        }
        this.has_slept = true;
        match &mut this.timer {
            Some(timer) => Pin::new(timer).poll(context).map(drop),
            None => Poll::Pending,
        }
    }
}

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        self.core.awake();
    }
}

/// A store whose cores live in glommio executors; see [`open`].
#[derive(Debug)]
pub struct Executors {
    store: Store,
    /// Disconnected once `serve` has ended on all executors.
    done: mpsc::Receiver<Infallible>,
    /// Nobody waits for `serve` any more: it ends with its core.
    is_given_up: Arc<AtomicBool>,
    threads: Vec<ExecutorJoinHandle<()>>,
}

/// Opens a store with one executor per core. On each, `serve` gets the store and the core's id, and runs beside the
/// core: what it appends with [`crate::Route::Local`] goes to the core's own shard without a message. It may spawn
/// further tasks. When it ends, the core goes on for the others until [`Executors::join`].
///
/// `serve` must not block: blocking calls of the store are refused on these threads, their `async` kin are for it.
pub fn open<P, F, S>(paths: &[P], options: &Options, serve: F) -> Result<Executors, OpenError>
where
    P: AsRef<Path>,
    F: FnOnce(Store, CoreId) -> S + Clone + Send + 'static,
    S: Future<Output = ()> + 'static,
{
    let mut opening = Store::open_owned(paths, options)?;
    let (failed, failures) = mpsc::channel();
    let (end, done) = mpsc::channel::<Infallible>();
    let (mut threads, mut stores) = (Vec::new(), Vec::new());
    let is_given_up = Arc::new(AtomicBool::new(false));
    for seat in opening.take_seats() {
        let (id, cpu) = (seat.core(), seat.cpu());
        let (give, store) = mpsc::channel::<Store>();
        let (serve, failed, end) = (serve.clone(), failed.clone(), end.clone());
        let is_given_up = Arc::clone(&is_given_up);
        stores.push(give);
        let start = Start::new(move || async move {
            // Until the last task has ended, not only the driver.
            let _awake = keep_awake().await;
            let core = match seat.start() {
                Ok(core) => core,
                Err(error) => {
                    let _opener_is_gone = failed.send(error);
                    return;
                }
            };
            // Blocks the executor, which has nothing to do before all cores have started.
            drop(failed);
            let Ok(store) = store.recv() else { return };
            let driver = spawn_local(turns(core, Pace::default()));
            beside(serve(store, id), driver, end, &is_given_up).await;
        });
        match start.executor(|| builder_of(id, cpu)) {
            Ok(thread) => threads.push(thread),
            // The seat went with the closure, so that the others give up too.
            Err(error) => return Err(OpenError::Executor { core: id, error }),
        }
    }
    drop((failed, end));
    // Ends when each executor has started its core or given up.
    if let Some(error) = failures.iter().next() {
        return Err(error);
    }
    let store = opening.store()?;
    for give in stores {
        let _core_died = give.send(store.clone());
    }
    Ok(Executors { store, done, is_given_up, threads })
}

/// Runs `serve` beside the driver until both have ended. `end` goes when `serve` has: `join` listens until all are
/// gone.
async fn beside(
    serve: impl Future<Output = ()>,
    driver: Task<()>,
    end: mpsc::Sender<Infallible>,
    is_given_up: &AtomicBool,
) {
    let (mut serve, mut driver) = (pin!(serve), pin!(driver));
    let mut serving = Some(end);
    let mut is_driving = true;
    poll_fn(|context| {
        if serving.is_some() && serve.as_mut().poll(context).is_ready() {
            serving = None;
        }
        is_driving = is_driving && driver.as_mut().poll(context).is_pending();
        // Relaxed: set before the close that ends the driver, which orders it.
        let is_over = serving.is_none() || is_given_up.load(Ordering::Relaxed);
        if is_over && !is_driving { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

impl Executors {
    /// The store.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Waits until `serve` has ended on each executor, closes the store, and waits for the executors to end.
    pub fn join(mut self) -> Result<(), CloseError> {
        // Nothing is ever sent. An executor that panics drops its sender too.
        let _all_have_ended = self.done.recv();
        self.close()
    }

    fn close(&mut self) -> Result<(), CloseError> {
        let closed = self.store.close();
        for thread in std::mem::take(&mut self.threads) {
            if let Err(error) = thread.join() {
                tracing::error!(%error, "an executor panicked");
            }
        }
        closed
    }
}

impl Drop for Executors {
    /// Closes the store under the tasks that still use it, so that nothing accepted is lost.
    fn drop(&mut self) {
        if self.threads.is_empty() {
            return;
        }
        self.is_given_up.store(true, Ordering::Relaxed);
        if let Err(error) = self.close() {
            tracing::error!(%error, "closing the store");
        }
    }
}
