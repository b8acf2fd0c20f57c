//! One core: a thread of control with a device queue, a mailbox and the shards it runs.
//!
//! A turn is: take mail, seal what is asked, submit, reap, advance the watermarks, wake waiters. The turn neither
//! blocks nor spins; [`Core::wait`] sleeps in the kernel. Whoever drives it (a pinned thread of ours, the caller's
//! own thread, a glommio executor, a test's scheduler) calls the two in a loop.

mod appending;
mod watching;

use crate::{
    device::{Completion, Device, DeviceBroken, Errno, Instant, Operation},
    directory::{CoreHandle, Directory, Mail, WhenFull},
    failure::ShardFailure,
    ids::{CoreId, DeviceIndex, FrameNumber, ShardId},
    limits::{RETRY_PAUSE_US_MAX, RETRY_PAUSE_US_MIN},
    memory::BufferPool,
    mutant::{self, Mutant},
    reads::{ReadContext, Reads},
    requests::{Reply, Responder},
    shard::ShardRefusal,
    shard_owner::{ShardOwner, pair_up},
    token::{LocalShard, Purpose},
};
use bytes::Bytes;
use crossbeam_channel::Receiver;
use std::{
    collections::VecDeque,
    os::fd::BorrowedFd,
    sync::{Arc, atomic::Ordering},
    task::Waker,
    time::Duration,
};
pub use watching::Callers;
use watching::Watch;

/// Mail taken in one turn, so that a flood of it cannot keep the device waiting.
const MAIL_PER_TURN_MAX: usize = 256;
/// Appends that wait for room in a ring; while there are more, no mail is taken.
const WAITING_APPENDS_MAX: usize = 256;
/// Reads under way; while there are more, no mail is taken.
const READS_MAX: usize = 1024;

/// How long a dropped core tries to bring what it accepted to the device.
const DRAIN_ON_DROP_MAX: Duration = Duration::from_secs(30);

/// The first pause before something is tried again that nobody announces.
const RETRY_PAUSE_MIN: Duration = Duration::from_micros(RETRY_PAUSE_US_MIN);
/// The longest.
const RETRY_PAUSE_MAX: Duration = Duration::from_micros(RETRY_PAUSE_US_MAX);

/// What a turn came to.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Something was done; there may be more.
    Progress,
    /// Nothing to do: [`Core::wait`], or come back later.
    Idle,
    /// Closed: everything accepted is durable, or its shard failed. No further turn does anything.
    Closed,
}

/// What a turn did before it asked the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pumped {
    Nothing,
    /// Operations were submitted, and nobody was told anything.
    Submissions,
    Something,
}

/// An append that came by mail and found the ring full.
#[derive(Debug)]
struct WaitingAppend {
    shard: ShardId,
    payload: Bytes,
    when_full: WhenFull,
    responder: Responder,
    /// Steps of the shard's cleaning when it came.
    began: u64,
}

/// A sync under way: what it will make durable, once the syncs of all devices it went to are back. The value is used
/// again for the next one, with its memory.
#[derive(Debug, Default)]
struct SyncRound {
    is_active: bool,
    covers: Vec<(LocalShard, FrameNumber)>,
    pending: u32,
    failed: Option<(DeviceIndex, Errno)>,
}

/// A core, owned by whoever drives it.
pub struct Core {
    id: CoreId,
    handle: Arc<CoreHandle>,
    device: Box<dyn Device>,
    mailbox: Receiver<Mail>,
    shards: Vec<ShardOwner>,
    directory: Option<Arc<Directory>>,
    reads: Reads,
    waiting: VecDeque<WaitingAppend>,
    sync: SyncRound,
    /// Syncs of a round that the queue had no room for.
    held_syncs: Vec<DeviceIndex>,
    completions: Vec<Completion>,
    /// Wakers on their way; empty between uses, with its memory.
    woken: Vec<Waker>,
    /// The sleep before the next try of what nobody announces; an idle turn doubles it first.
    retry_pause: Duration,
    reads_watch: Watch,
    syncs_watch: Watch,
    callers: Callers,
    /// The bell has a waker of the executor that drives the core.
    has_left_waker: bool,
    /// Place of the shard that the owning thread appended to last.
    appends_to: usize,
    /// It was asked to close, and does so behind this many further messages.
    closes_behind: Option<usize>,
    is_closing: bool,
    is_closed: bool,
    /// Within a turn; a panic leaves it set, and then nothing of the core can be relied on.
    is_turning: bool,
}

/// What a core is made of.
pub struct CoreSetup {
    /// Its queue to the devices.
    pub device: Box<dyn Device>,
    /// Its outside.
    pub handle: Arc<CoreHandle>,
    /// Its mail.
    pub mailbox: Receiver<Mail>,
    /// Shards that it runs.
    pub shards: Vec<ShardOwner>,
    /// Buffers for reads of a record.
    pub small_reads: Arc<BufferPool>,
    /// Buffers for reads of long records and of runs.
    pub large_reads: Arc<BufferPool>,
}

impl Core {
    /// A core that is not yet part of a store; see [`Core::join`].
    #[must_use]
    pub fn new(setup: CoreSetup) -> Self {
        let CoreSetup { mut device, handle, mailbox, mut shards, small_reads, large_reads } = setup;
        pair_up(&mut shards);
        device.register(small_reads.region());
        device.register(large_reads.region());
        for owner in &shards {
            device.register(owner.shared().ring().memory());
        }
        Self {
            id: handle.id(),
            handle,
            device,
            mailbox,
            shards,
            directory: None,
            reads: Reads::new(small_reads, large_reads),
            waiting: VecDeque::new(),
            sync: SyncRound::default(),
            held_syncs: Vec::new(),
            completions: Vec::new(),
            woken: Vec::new(),
            retry_pause: RETRY_PAUSE_MIN / 2,
            reads_watch: Watch::default(),
            syncs_watch: Watch::default(),
            callers: Callers::default(),
            has_left_waker: false,
            appends_to: 0,
            closes_behind: None,
            is_closing: false,
            is_closed: false,
            is_turning: false,
        }
    }

    /// Makes the core a part of the store: from now on it can read.
    pub fn join(&mut self, directory: Arc<Directory>) {
        self.directory = Some(directory);
    }

    /// Which core this is.
    #[must_use]
    pub const fn id(&self) -> CoreId {
        self.id
    }

    /// Its outside.
    #[must_use]
    pub const fn handle(&self) -> &Arc<CoreHandle> {
        &self.handle
    }

    /// Its device queue.
    #[must_use]
    pub fn device(&self) -> &dyn Device {
        &*self.device
    }

    /// The shards that it runs.
    #[must_use]
    pub fn shards(&self) -> &[ShardOwner] {
        &self.shards
    }

    #[cfg(test)]
    pub(crate) fn shards_mut(&mut self) -> &mut [ShardOwner] {
        &mut self.shards
    }

    /// Readable when there is something to do, where the backend has such a thing. Call [`Core::prepare_wait`]
    /// before polling it.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.device.fd()
    }

    /// One step of everything. Never blocks.
    pub fn turn(&mut self) -> Turn {
        self.guarded(Self::take_turn)
    }

    /// One step of everything, and where it leaves nothing to do but wait, a sleep in the kernel of at most `limit`. What
    /// the step submits goes with the call that sleeps, where [`Core::turn`] and [`Core::wait`] make two. It does not
    /// sleep over what somebody was told: who drives the core may have waited for that. Never says [`Turn::Idle`].
    pub fn turn_or_wait(&mut self, limit: Option<Duration>) -> Turn {
        self.guarded(|core| core.take_turn_or_wait(limit))
    }

    fn guarded(&mut self, step: impl FnOnce(&mut Self) -> Turn) -> Turn {
        if self.is_closed || self.handle.is_forked() {
            return Turn::Closed;
        }
        if self.is_turning {
            // The last turn panicked, and somebody caught that.
            self.die();
            return Turn::Closed;
        }
        self.is_turning = true;
        self.end_runs();
        let turn = step(self);
        self.is_turning = false;
        turn
    }

    fn take_turn_or_wait(&mut self, limit: Option<Duration>) -> Turn {
        let pumped = self.pump();
        if pumped == Pumped::Nothing && self.is_closing && self.is_drained() {
            self.stop();
            return Turn::Closed;
        }
        self.count_retry(pumped != Pumped::Nothing);
        if pumped == Pumped::Something || !self.rest(limit) {
            let _also_progress = self.poll_device();
        }
        Turn::Progress
    }

    /// Everything of a turn that does not ask the device.
    fn pump(&mut self) -> Pumped {
        // Written by this core alone.
        self.handle.counters.turns.fetch_add(1, Ordering::Relaxed);
        let mut all = if self.handle.take_poke() { Pumped::Something } else { Pumped::Nothing };
        let steps: [fn(&mut Self) -> usize; 4] = [
            Self::take_mail,
            |core| core.pump_shards().into(),
            |core| core.pump_reads().into(),
            |core| core.start_sync().into(),
        ];
        for step in steps {
            let before = self.device.in_flight();
            let done = step(self);
            let submitted = self.device.in_flight().saturating_sub(before);
            all = all.max(match done {
                0 => Pumped::Nothing,
                done if done <= submitted => Pumped::Submissions,
                _ => Pumped::Something,
            });
        }
        all
    }

    fn take_turn(&mut self) -> Turn {
        let mut progress = self.pump() != Pumped::Nothing;
        progress |= self.poll_device();
        self.count_retry(progress);
        if progress || (self.device.in_flight() > 0 && mutant::is_active(Mutant::SpinWhileBusy)) {
            return Turn::Progress;
        }
        if self.is_closing && self.is_drained() {
            self.stop();
            return Turn::Closed;
        }
        Turn::Idle
    }

    /// Sleeps in the kernel until there is something to do, at most for `limit`. Returns at once if there is.
    pub fn wait(&mut self, limit: Option<Duration>) {
        if !self.is_closed && !self.handle.is_forked() {
            let _there_is_work_otherwise = self.rest(limit);
        }
    }

    /// Sleeps, after [`Core::prepare_wait`] said that it may.
    fn sleep(&mut self, limit: Option<Duration>) {
        self.handle.counters.sleeps.fetch_add(1, Ordering::Relaxed);
        let timeout = match (self.timer(), limit) {
            (Some(timer), Some(limit)) => Some(timer.min(limit)),
            (timer, limit) => timer.or(limit),
        };
        let mut completions = std::mem::take(&mut self.completions);
        let waited = self.device.wait(timeout, &mut completions);
        self.completions = completions;
        self.handle_bell().awake();
        self.complete_all();
        if let Err(broken) = waited {
            self.break_down(broken);
        }
    }

    /// Announces sleep and looks once more. False: there is work, so take a turn instead. After true, whoever gives
    /// the core work makes [`Core::fd`] readable; [`Core::awake`] ends that.
    pub fn prepare_wait(&mut self) -> bool {
        self.forget_waker();
        self.end_runs();
        self.handle_bell().may_sleep(|| self.has_work())
    }

    /// As [`Core::prepare_wait`], for a core that is driven by a task: after true, whoever gives the core work wakes
    /// `waker`. What the device completes wakes nobody; look at [`Core::in_flight`].
    pub fn prepare_wait_waking(&mut self, waker: &Waker) -> bool {
        self.end_runs();
        self.handle_bell().leave_waker(waker);
        self.has_left_waker = true;
        let may_sleep = self.handle_bell().may_sleep(|| self.has_work());
        if !may_sleep {
            self.forget_waker();
        }
        may_sleep
    }

    /// Ends what [`Core::prepare_wait`] or [`Core::prepare_wait_waking`] began.
    pub fn awake(&mut self) {
        self.handle_bell().awake();
        self.forget_waker();
    }

    fn forget_waker(&mut self) {
        if std::mem::take(&mut self.has_left_waker) {
            self.handle_bell().forget_waker();
        }
    }

    /// Operations that the device has not completed.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.device.in_flight()
    }

    /// How long the core may sleep before a timer of its own is due.
    pub fn timer(&mut self) -> Option<Duration> {
        let now = self.device.now();
        let of_shard = |shard: &mut ShardOwner| {
            let (linger, quiet) = (shard.linger_deadline(now), shard.quiet_deadline(now));
            linger.into_iter().chain(quiet).chain(shard.gathers_until()).min()
        };
        let deadline = self.shards.iter_mut().filter_map(of_shard).min();
        let deadline = deadline.map(|deadline: Instant| deadline.since(now));
        let retry = self.has_retries().then_some(self.retry_pause);
        deadline.into_iter().chain(retry).min()
    }

    /// True if something is tried again that may come about without a word to this core.
    fn has_retries(&self) -> bool {
        self.reads.has_deferred() || (!self.waiting.is_empty() && self.device.in_flight() == 0)
    }

    /// A turn that did nothing makes the next pause before a retry longer, and one that did something ends that.
    fn count_retry(&mut self, progress: bool) {
        self.retry_pause = if progress || !self.has_retries() {
            RETRY_PAUSE_MIN / 2
        } else {
            (2 * self.retry_pause).min(RETRY_PAUSE_MAX)
        };
    }

    fn handle_bell(&self) -> Arc<crate::park::Bell> {
        self.device.bell()
    }

    fn has_work(&self) -> bool {
        // What a full queue holds up waits for a completion, and that wakes the core.
        let has_room = self.device.in_flight() < self.device.depth();
        let is_syncing = self.sync.is_active;
        let can_take_mail = self.can_take_mail() && !self.mailbox.is_empty();
        let can_sync = !is_syncing && self.shards.iter().any(ShardOwner::wants_sync);
        can_take_mail
            || self.handle.is_poked()
            || can_sync
            || (has_room && (!self.held_syncs.is_empty() || self.reads.has_held()))
            || self.shards.iter().any(|shard| shard.has_work(is_syncing, has_room))
            || (!self.is_closing && self.closes_behind.is_none() && self.handle.is_close_asked())
            || (self.is_closing && self.is_drained())
    }

    // ---- mail ---------------------------------------------------------------------------------------------------

    fn can_take_mail(&self) -> bool {
        self.waiting.len() < WAITING_APPENDS_MAX && self.reads.outstanding() < READS_MAX
    }

    /// Messages that were taken, and appends that need wait no longer.
    fn take_mail(&mut self) -> usize {
        let mut appended = self.append_waiting();
        if self.closes_behind.is_none() && self.handle.is_close_asked() {
            // Whatever was sent before somebody asked is in the mailbox by now.
            self.closes_behind = Some(self.mailbox.len());
            appended += 1;
        }
        let mut taken = 0;
        while taken < MAIL_PER_TURN_MAX && self.can_take_mail() {
            let Ok(mail) = self.mailbox.try_recv() else { break };
            self.handle.counters.mail.fetch_add(1, Ordering::Relaxed);
            taken += 1;
            self.closes_behind = self.closes_behind.map(|ahead| ahead.saturating_sub(1));
            self.deliver(mail);
        }
        if self.closes_behind == Some(0) && !self.is_closing {
            self.close();
        }
        if taken > 0 {
            self.handle.room().publish(&mut self.woken);
        }
        appended + taken
    }

    fn deliver(&mut self, mail: Mail) {
        match mail {
            Mail::Append { shard, payload, when_full, responder } => {
                let began = self.clean_steps(shard);
                let append = WaitingAppend { shard, payload, when_full, responder, began };
                // Not before those that wait already: the order of one sender is kept.
                let is_behind_others = self.waiting.iter().any(|other| other.shard == shard);
                let full = if is_behind_others { Some(append) } else { self.append(append) };
                match full {
                    Some(full) if full.when_full == WhenFull::Refuse => {
                        full.responder.answer(Reply::Appended(Err((ShardRefusal::Full, full.payload))));
                    }
                    Some(full) => self.waiting.push_back(full),
                    None => {}
                }
            }
            read @ (Mail::Read { .. } | Mail::Run { .. }) => {
                let Some(directory) = self.directory.clone() else { return };
                let mut context = ReadContext {
                    directory: &directory,
                    shards: &mut self.shards,
                    device: &mut *self.device,
                    core: self.id,
                };
                self.reads.start(&mut context, read);
            }
            Mail::Space { shard, ask, responder } => {
                if let Some(owner) = self.shards.iter_mut().find(|owner| owner.shared().id() == shard) {
                    owner.ask_space(ask, responder);
                }
            }
            Mail::AddDevice { device, file, responder } => {
                responder.answer(Reply::Added(self.device.add(device, file)));
            }
            #[cfg(any(test, feature = "mutants"))]
            Mail::Panic => panic!("asked to panic"),
        }
    }

    // ---- shards, reads, device ------------------------------------------------------------------------------------

    fn pump_shards(&mut self) -> bool {
        let is_syncing = self.sync.is_active;
        let mut progress = false;
        let mut released = 0;
        let (gathers, is_slow) = (self.gathers(), self.is_slow_for_callers());
        for shard in &mut self.shards {
            if gathers {
                shard.tell_callers(is_slow);
                shard.settle_gathering(self.callers, || self.device.now());
            }
            progress |= shard.pump(&mut *self.device, is_syncing);
            released += shard.take_released();
        }
        if released > 0
            && let Some(directory) = &self.directory
        {
            // A shard of another core may have found the store full, and sleeps.
            directory.cores.iter().for_each(|core| core.ring());
        }
        progress
    }

    fn pump_reads(&mut self) -> bool {
        if !self.reads.has_deferred() && !self.reads.has_held() {
            return false;
        }
        let Some(directory) = self.directory.clone() else { return false };
        let mut context = ReadContext {
            directory: &directory,
            shards: &mut self.shards,
            device: &mut *self.device,
            core: self.id,
        };
        self.reads.pump(&mut context)
    }

    fn poll_device(&mut self) -> bool {
        let mut completions = std::mem::take(&mut self.completions);
        let polled = self.device.poll(&mut completions);
        self.completions = completions;
        let progress = self.complete_all();
        match polled {
            Ok(()) => progress,
            Err(broken) => {
                self.break_down(broken);
                true
            }
        }
    }

    fn complete_all(&mut self) -> bool {
        if self.completions.is_empty() {
            return false;
        }
        let mut completions = std::mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            self.complete(completion);
        }
        // Keeps its capacity.
        self.completions = completions;
        true
    }

    fn complete(&mut self, completion: Completion) {
        match Purpose::of(completion.token) {
            Some(Purpose::Frame(local, frame)) => {
                if let Some(shard) = self.shards.get_mut(usize::from(local.0)) {
                    shard.frame_completed(&mut *self.device, frame, completion);
                }
            }
            Some(Purpose::ExtentHeader(local)) => {
                if let Some(shard) = self.shards.get_mut(usize::from(local.0)) {
                    shard.extent_header_completed(&completion);
                }
            }
            Some(Purpose::Discard(local)) => {
                if let Some(shard) = self.shards.get_mut(usize::from(local.0)) {
                    shard.discard_completed(&mut *self.device, &completion);
                }
            }
            Some(Purpose::Clean(local)) => {
                if let Some(shard) = self.shards.get_mut(usize::from(local.0)) {
                    shard.clean_read_completed(&mut *self.device, completion);
                }
            }
            Some(Purpose::Sync) => self.sync_part_completed(&completion),
            Some(Purpose::Read(key)) => {
                let Some(directory) = self.directory.clone() else { return };
                let mut context = ReadContext {
                    directory: &directory,
                    shards: &mut self.shards,
                    device: &mut *self.device,
                    core: self.id,
                };
                self.reads.completed(&mut context, key, completion);
            }
            None => tracing::error!(token = completion.token.0, "a completion that nobody asked for"),
        }
    }

    // ---- sync ---------------------------------------------------------------------------------------------------

    /// One sync at a time per core. It covers what all its shards have written; what is written while it runs waits
    /// for the next.
    fn start_sync(&mut self) -> bool {
        if self.sync.is_active {
            return self.pass_on_syncs();
        }
        if !self.shards.iter().any(ShardOwner::wants_sync) {
            return false;
        }
        let round = &mut self.sync;
        let mut devices = 0_u16;
        for (local, shard) in self.shards.iter_mut().enumerate() {
            if let Some((covers, unsynced)) = shard.begin_sync() {
                round.covers.push((LocalShard(local as u16), covers));
                devices |= unsynced;
            }
        }
        self.held_syncs.extend((0..16).filter(|bit| devices & 1 << bit != 0).map(DeviceIndex));
        round.pending = self.held_syncs.len() as u32;
        round.is_active = true;
        self.pass_on_syncs();
        self.end_round();
        true
    }

    fn pass_on_syncs(&mut self) -> bool {
        let mut progress = false;
        while let Some(device) = self.held_syncs.pop() {
            if self.device.submit(Purpose::Sync.into(), Operation::Sync { device }).is_err() {
                self.held_syncs.push(device);
                break;
            }
            self.handle.counters.syncs.fetch_add(1, Ordering::Relaxed);
            progress = true;
        }
        progress
    }

    fn sync_part_completed(&mut self, completion: &Completion) {
        let round = &mut self.sync;
        debug_assert!(round.is_active && round.pending > 0, "a sync ended that no round began");
        round.pending -= 1;
        if let Err(errno) = completion.result {
            if mutant::is_active(Mutant::SyncRetried) {
                round.pending += 1;
                self.held_syncs.push(completion.operation.device());
                return;
            }
            if let Some(shard) = self.shards.first() {
                shard.note_failed_sync(completion.operation.device());
            }
            round.failed.get_or_insert((completion.operation.device(), errno));
        }
        self.end_round();
    }

    fn end_round(&mut self) {
        if self.sync.pending > 0 {
            return;
        }
        self.sync.is_active = false;
        let failed = self.sync.failed.take();
        for (local, covered) in self.sync.covers.drain(..) {
            let Some(shard) = self.shards.get_mut(usize::from(local.0)) else { continue };
            match failed {
                // A failed sync is never repeated: the kernel may have dropped what it could not write.
                Some((device, errno)) => shard.sync_failed(device, errno),
                None => shard.sync_completed(covered),
            }
        }
    }

    // ---- the end ------------------------------------------------------------------------------------------------

    /// Takes no more appends and no more mail; turns go on until everything accepted is durable.
    pub fn close(&mut self) {
        self.is_closing = true;
        for shard in &mut self.shards {
            shard.close();
        }
    }

    /// True once a turn returned [`Turn::Closed`].
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Closes and takes turns until everything accepted is durable, for at most `limit`. True: it is.
    pub fn drain(&mut self, limit: Duration) -> bool {
        let start = self.device.now();
        self.close();
        while !self.is_closed && !self.handle.is_forked() && self.device.now().since(start) < limit {
            if self.turn() == Turn::Idle {
                self.wait(Some(limit));
            }
        }
        self.is_closed
    }

    fn is_drained(&self) -> bool {
        !self.sync.is_active
            && self.reads.outstanding() == 0
            && self.device.in_flight() == 0
            && self.mailbox.is_empty()
            && self.waiting.is_empty()
            && self.shards.iter().all(ShardOwner::is_drained)
    }

    fn stop(&mut self) {
        self.leave_the_post(true);
        for shard in &self.shards {
            shard.shared().written.wake_all();
            shard.shared().durable.wake_all();
        }
    }

    /// The queue broke: nothing of this core will complete any more.
    fn break_down(&mut self, broken: DeviceBroken) {
        for shard in &mut self.shards {
            let id = shard.shared().id();
            shard.fail(ShardFailure::Device { shard: id, broken });
        }
        self.leave_the_post(false);
    }

    /// What dropping does.
    pub fn end(&mut self) {
        if !std::thread::panicking() && !self.is_turning {
            self.drain(DRAIN_ON_DROP_MAX);
        }
        if !self.is_closed {
            self.die();
        }
    }

    /// The core ends without an orderly close: everyone who waits for it hears of it.
    fn die(&mut self) {
        // The failure first, so that who finds the mailbox gone also finds out why.
        for shard in &mut self.shards {
            let failure = ShardFailure::CoreDead { shard: shard.shared().id(), core: self.id };
            shard.fail(failure);
        }
        self.leave_the_post(false);
    }

    /// No turn does anything from now on. Whoever drives the core may keep it for long, so that requests are
    /// answered here and not when it is dropped. `in_order`: it was closed.
    fn leave_the_post(&mut self, in_order: bool) {
        self.is_closed = true;
        self.handle.set_dead(in_order);
        self.waiting.clear();
        self.reads.abandon();
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("id", &self.id)
            .field("shards", &self.shards.len())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for CoreSetup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CoreSetup").field("id", &self.handle.id()).finish_non_exhaustive()
    }
}

impl Drop for Core {
    /// A core that its owner let go of is closed first, for a bounded time. One whose thread panics, or that does
    /// not drain, is dead: everyone who waits for it hears of it. Memory under I/O stays until the device has given
    /// it back.
    fn drop(&mut self) {
        if self.handle.is_forked() {
            return;
        }
        self.end();
    }
}
