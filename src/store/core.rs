//! A core in the hands of the thread that drives it.

use super::{append::explain, local, seat::Assembly};
use crate::{error::AppendError, ticket::TicketId};
use corelog_shards::{
    core::{Callers, Core as Engine, Turn},
    device::Counters as DeviceCounters,
    ids::{CoreId, ShardId},
    ring::reservation::Placed,
};
use std::{os::fd::BorrowedFd, sync::Arc, task::Waker, time::Duration};

/// One core of an open store, driven by the caller: an own thread, an executor, or a test.
///
/// ```no_run
/// # fn drive(mut core: corelog::Core) {
/// use corelog::Turn;
/// while core.turn_or_wait(None) != Turn::Closed {}
/// # }
/// ```
///
/// Dropping it closes its shards first and brings what they accepted to the device, unless its thread is panicking.
#[derive(Debug)]
pub struct Core {
    engine: Engine,
    assembly: Arc<Assembly>,
    has_joined: bool,
}

impl Core {
    pub(super) fn new(engine: Engine, assembly: Arc<Assembly>) -> Self {
        Self { engine, assembly, has_joined: false }
    }

    pub(super) const fn watch_reads(&mut self, limit: Duration) {
        self.engine.watch_reads(limit);
    }

    pub(super) const fn watch_syncs(&mut self, limit: Duration, callers: Callers) {
        self.engine.watch_syncs(limit, callers);
    }

    /// Which core this is.
    #[must_use]
    pub const fn id(&self) -> CoreId {
        self.engine.id()
    }

    /// Appends a record to a shard that this core runs, without waiting: the fastest way in, for the thread that drives
    /// the core. As [`Store::try_append`], with less work for each of many small records, and in the same order with what
    /// others append. Nobody waits long for it: it is handed on in the next turn, so take one now and then.
    ///
    /// The record is where the ticket says when this returns (`Buffered`), and as safe as [`Store::ticket`] is asked for
    /// later. A full ring is [`AppendError::Full`]: take turns, and try again. A shard of another core is
    /// [`AppendError::OtherCore`].
    ///
    /// [`Store::try_append`]: crate::Store::try_append
    /// [`Store::ticket`]: crate::Store::ticket
    #[inline]
    pub fn append(&mut self, shard: ShardId, payload: &[u8]) -> Result<TicketId, AppendError> {
        match self.engine.append_here(shard, payload) {
            Some(Ok(Placed { address, frame })) => Ok(TicketId { address, shard, frame }),
            Some(Err(refusal)) => Err(explain(shard, refusal, payload.len())),
            None => Err(AppendError::OtherCore { shard, core: self.engine.id() }),
        }
    }

    /// One step of everything: mail, sealing, submission, completions, watermarks, waiters. Never blocks.
    pub fn turn(&mut self) -> Turn {
        self.step(Engine::turn)
    }

    /// A turn, and where it leaves nothing to do but wait, a sleep of at most `limit`: as [`Core::turn`] and
    /// [`Core::wait`] with one call of the kernel where those make two. For a thread that has nothing else to do. Never
    /// says [`Turn::Idle`].
    pub fn turn_or_wait(&mut self, limit: Option<Duration>) -> Turn {
        self.step(|engine| engine.turn_or_wait(limit))
    }

    fn step(&mut self, step: impl FnOnce(&mut Engine) -> Turn) -> Turn {
        local::drives(self.assembly.key(), self.engine.id());
        if !self.has_joined
            && let Some(directory) = self.assembly.directory()
        {
            self.engine.join(Arc::clone(directory));
            self.has_joined = true;
        }
        let was_closed = self.engine.is_closed();
        let turn = step(&mut self.engine);
        if turn == Turn::Closed && !was_closed {
            self.assembly.core_closed(&self.engine);
        }
        turn
    }

    /// Sleeps in the kernel until there is something to do, for at most `limit`. Costs no CPU meanwhile, except while reads are
    /// under way ([`Options::read_spin`]), or a write that somebody waits for ([`Options::sync_spin`]).
    ///
    /// [`Options::read_spin`]: crate::Options::read_spin
    /// [`Options::sync_spin`]: crate::Options::sync_spin
    pub fn wait(&mut self, limit: Option<Duration>) {
        self.engine.wait(limit);
    }

    /// Wakes the core from any thread: a [`Core::turn_or_wait`], [`Core::wait`] or sleep on [`Core::fd`] that is under way, or
    /// the next one, ends at once. For futures that are polled by the thread that drives the core: given this waker, they
    /// need no bound of their own on its sleep. Outlives the core, and does nothing then.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker::from(Arc::clone(self.engine.handle()))
    }

    /// Turns until `done` says so or the core is closed, sleeping in between; for a thread that has nothing else to
    /// do. `done` is looked at after each turn.
    pub fn run_until(&mut self, mut done: impl FnMut() -> bool) {
        // Whatever `done` looks at may change without a word to the core, so the sleep is bounded.
        while !done() && self.turn_or_wait(Some(Duration::from_millis(1))) != Turn::Closed {}
    }

    /// Announces a sleep outside [`Core::wait`], such as `poll(2)` on [`Core::fd`]. False: there is work, so take a
    /// turn instead. After true, call [`Core::awake`] when the sleep is over.
    pub fn prepare_wait(&mut self) -> bool {
        self.engine.prepare_wait()
    }

    /// As [`Core::prepare_wait`], for a core that is driven by a task: after true, whoever gives the core work wakes
    /// `waker`. What the device completes wakes nobody, so the task has to look at [`Core::in_flight`] and come back.
    pub fn prepare_wait_waking(&mut self, waker: &Waker) -> bool {
        self.engine.prepare_wait_waking(waker)
    }

    /// Device operations that have not completed.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.engine.in_flight()
    }

    /// Ends what [`Core::prepare_wait`] or [`Core::prepare_wait_waking`] began.
    pub fn awake(&mut self) {
        self.engine.awake();
    }

    /// How long the core may sleep before a timer of its own is due.
    pub fn timer(&mut self) -> Option<Duration> {
        self.engine.timer()
    }

    /// Readable when there is something to do, where the backend has such a thing: see [`Core::prepare_wait`].
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.engine.fd()
    }

    /// What the core's device queue did so far: system calls, submissions, completions, wake-ups.
    #[must_use]
    pub fn device_counters(&self) -> DeviceCounters {
        self.engine.device().counters()
    }

    /// Closes the core's shards and turns until everything accepted is durable, for at most `limit`. True: it is.
    pub fn close(&mut self, limit: Duration) -> bool {
        let was_closed = self.engine.is_closed();
        let drained = self.engine.drain(limit);
        if drained && !was_closed {
            self.assembly.core_closed(&self.engine);
        }
        drained
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if !std::thread::panicking() && !self.engine.is_closed() {
            self.close(DROP_DRAIN_MAX);
        }
        self.engine.end();
        self.assembly.core_gone();
        local::drives_no_more(self.assembly.key(), self.engine.id());
    }
}

/// How long a dropped core tries to bring what it accepted to the device.
const DROP_DRAIN_MAX: Duration = Duration::from_secs(30);
