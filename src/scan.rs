//! Reading a shard, or the whole store, in order.
//!
//! A scan begins with a flush of its shard, so that it sees everything that was accepted before; it ends behind that,
//! unless it [follows](Scan::follow). It reads ahead on the calling thread's core and blocks nobody who appends.

use crate::{
    cut::Cut,
    error::WaitError,
    store::{Store, block::Sleeper},
    ticket::Reached,
};
use bytes::Bytes;
use corelog_shards::{
    directory::Mail,
    format::moved::Origin,
    ids::{FrameNumber, ShardId},
    limits::{MAILBOX_TRIES_MAX, SCAN_CHUNK_BYTES, SCAN_READ_AHEAD},
    reads::ReadError,
    requests::{Pending, Reply},
    scan::{
        Damage, Fault, Limit, LiveExtents, Locate, LocateStep, OnDamage, Position, Run, ScanPin, ScanSetup,
        Scanner, Start, Step, Wanted,
    },
    shard::Shard,
    watermark::Durability,
};
use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

mod all;
mod types;

pub use all::ScanAll;
pub use types::{Record, ScanError, ScanFrom, Waited};

/// A run that was asked for, and what came of it.
type Answer = (Run, Result<Bytes, ReadError>);

impl Store {
    /// Reads all records of a shard, in the order in which they were accepted.
    pub fn scan(&self, shard: ShardId) -> Result<Scan, ScanError> {
        self.scan_from(shard, ScanFrom::Oldest)
    }

    /// Reads the records of a shard from a place on.
    pub fn scan_from(&self, shard: ShardId, from: ScanFrom) -> Result<Scan, ScanError> {
        let last = (self.shards().len() as u16).saturating_sub(1);
        let shared = Arc::clone(self.shard(shard).ok_or(ScanError::NoSuchShard { shard, last })?);
        let other = |found| Err(ScanError::OtherShard { shard, found });
        match from {
            ScanFrom::Position(position) if position.shard() != shard => return other(position.shard()),
            ScanFrom::Address(address) => {
                let found = self.directory().owner_of(address).map_err(ScanError::Begin)?;
                if found != shard {
                    return other(found);
                }
            }
            _ => {}
        }
        let flushed = shared.seal_for_flush();
        Ok(Scan {
            store: self.clone(),
            shard: shared,
            from,
            phase: Phase::Flush(flushed),
            reads: Vec::new(),
            read_ahead: SCAN_READ_AHEAD,
            read_bytes: 0,
            tries: 0,
            flush_error: None,
            on_damage: OnDamage::Stop,
            is_following: false,
            before: None,
            shares: VecDeque::new(),
            unix_ns: 0,
            cut: None,
            has_yielded: false,
            ended_at: None,
            pin: None,
        })
    }
}

#[derive(Debug)]
enum Phase {
    /// Waits for what was accepted before the scan began.
    Flush(Option<FrameNumber>),
    /// Looks for the extent to begin in.
    Locate(Box<Locate>),
    Scan(Box<Scanner>),
    Over,
}

/// A scan of one shard. As an iterator it waits for the device, on any thread that drives no core;
/// [`Scan::next_async`] waits on any executor.
///
/// Order: as accepted by the shard. Records accepted while the scan runs may or may not be seen, unless it follows.
#[derive(Debug)]
pub struct Scan {
    store: Store,
    shard: Arc<Shard>,
    from: ScanFrom,
    phase: Phase,
    reads: Vec<(Run, Pending)>,
    read_ahead: usize,
    /// What was asked of the device so far.
    read_bytes: u64,
    /// How often a full mailbox was tried in vain with nothing under way.
    tries: u32,
    flush_error: Option<WaitError>,
    on_damage: OnDamage,
    is_following: bool,
    /// It ends before this frame.
    before: Option<FrameNumber>,
    /// What batches have in this shard that count before that frame, and are committed behind it: their lists.
    shares: VecDeque<Vec<u8>>,
    /// Of the last record.
    unix_ns: u64,
    /// The cut that it reads.
    cut: Option<Cut>,
    has_yielded: bool,
    ended_at: Option<Position>,
    /// While it runs, nothing is moved twice.
    pin: Option<ScanPin>,
}

impl Scan {
    /// Goes on at the end: waits for more records, until the store is closed or the shard fails. Like any waiter, a
    /// scan that waits makes the shard write what it has, also a part-filled buffer.
    ///
    /// A close does not wait for those who read. A scan that has yielded everything ends; one that has not ends with
    /// [`ReadError::Closed`], and [`Scan::resume_at`] says where to go on once the store is open again.
    #[must_use]
    pub const fn follow(mut self) -> Self {
        self.is_following = true;
        self
    }

    /// Reports damage and goes on behind it, with the next record or frame that is good.
    #[must_use]
    pub const fn skip_damage(mut self) -> Self {
        self.on_damage = OnDamage::Skip;
        self
    }

    /// Ends before a frame, with what these lists lead to.
    pub(crate) fn before(mut self, frame: FrameNumber, shares: impl Iterator<Item = Vec<u8>>) -> Self {
        self.before = Some(frame);
        self.shares = shares.collect();
        self
    }

    /// Reads what is in a cut.
    pub(crate) fn of_cut(mut self, cut: &Cut) -> Self {
        self.cut = Some(cut.clone());
        self
    }

    /// What its shard has still, and counts as gone for it.
    fn given_up(&self) -> Option<Origin> {
        self.pin.as_ref().and_then(ScanPin::given_up)
    }

    /// How far the scan may go now.
    fn limit(&self) -> Limit {
        let written = Limit::written(&self.shard);
        let frames = self.before.map_or(written.frames, |before| before.min(written.frames));
        Limit { frames, ..written }
    }

    pub(crate) const fn read_ahead(mut self, reads: usize) -> Self {
        self.read_ahead = reads;
        self
    }

    /// Bytes of the device that it asked for so far.
    pub(crate) const fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// The shard.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        self.shard.id()
    }

    /// The place behind the last record that was yielded, for [`ScanFrom::Position`]. `None`: the scan has not read
    /// anything yet; begin as this one did.
    #[must_use]
    pub fn resume_at(&self) -> Option<Position> {
        match &self.phase {
            Phase::Scan(scanner) => Some(scanner.position()),
            Phase::Flush(_) | Phase::Locate(_) => None,
            Phase::Over => self.ended_at,
        }
    }

    /// The next record, as a future for any executor. Dropping the future loses nothing.
    pub async fn next_async(&mut self) -> Option<Result<Record, ScanError>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// The next record, if one comes within `limit`.
    pub fn next_within(&mut self, limit: Duration) -> Result<Waited, ScanError> {
        self.check_thread()?;
        match Sleeper::wait(&mut poll_fn(|context| self.poll_next(context)), Some(limit)) {
            Some(Some(record)) => record.map(Waited::Record),
            Some(None) => Ok(Waited::End),
            None => Ok(Waited::TimedOut),
        }
    }

    pub(crate) fn check_thread(&self) -> Result<(), ScanError> {
        match self.store.driven_core() {
            Some(_) => Err(ScanError::OnCoreThread { shard: self.shard() }),
            None => Ok(()),
        }
    }

    /// The next record, or `None` behind the last one. After an error that is not one of skipped damage there is
    /// nothing more.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Record, ScanError>>> {
        loop {
            let polled = match &mut self.phase {
                Phase::Over => return Poll::Ready(None),
                Phase::Flush(frame) => {
                    let frame = *frame;
                    self.poll_flush(frame, context).map(Ok)
                }
                Phase::Locate(_) => self.poll_locate(context),
                Phase::Scan(_) => match self.poll_scan(context) {
                    Poll::Ready(Ok(Some(next))) => return Poll::Ready(Some(next)),
                    Poll::Ready(Ok(None)) => Poll::Ready(Ok(())),
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    Poll::Pending => Poll::Pending,
                },
            };
            match polled {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.end();
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    fn end(&mut self) {
        self.ended_at = self.resume_at();
        self.pin = None;
        self.phase = Phase::Over;
        self.reads.clear();
    }

    // ---- beginning ----------------------------------------------------------------------------------------------

    fn poll_flush(&mut self, frame: Option<FrameNumber>, context: &mut Context<'_>) -> Poll<()> {
        if let Some(frame) = frame {
            match self.poll_written(frame, context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Arrival::Written | Arrival::Closed) => {}
                Poll::Ready(Arrival::Failed(error)) => self.flush_error = Some(error),
            }
        }
        let limit = self.limit();
        let (directory, shard) = (Arc::clone(self.store.directory()), Arc::clone(&self.shard));
        let extents = LiveExtents { directory: &directory, shard: &shard, given_up: self.given_up() };
        let geometry = *directory.layout.geometry();
        let start = match self.from {
            ScanFrom::Oldest => Start::Oldest,
            ScanFrom::Position(position) => Start::Position(position),
            ScanFrom::Address(address) => {
                let ordinal = directory.extents.ordinal(address.extent(&geometry)).unwrap_or_default();
                Start::Address { address, ordinal }
            }
            ScanFrom::Frame(frame) => {
                let locate = Locate::new(self.store.id(), shard.id(), geometry, frame, &limit, &extents);
                self.phase = Phase::Locate(Box::new(locate));
                return Poll::Ready(());
            }
        };
        self.begin(start, limit);
        Poll::Ready(())
    }

    fn begin(&mut self, start: Start, limit: Limit) {
        let directory = self.store.directory();
        let setup = ScanSetup {
            store: self.store.id(),
            shard: self.shard.id(),
            geometry: *directory.layout.geometry(),
            chunk_bytes: SCAN_CHUNK_BYTES,
            wanted: Wanted::Data,
            on_damage: self.on_damage,
        };
        let pin = ScanPin::new(&self.shard);
        let extents = LiveExtents { directory, shard: &self.shard, given_up: pin.given_up() };
        self.pin = Some(pin);
        let mut scanner = Scanner::new(setup, start, limit, &extents);
        // Not before it knows where to begin: what was cleaned away by then is written behind.
        scanner.set_limit(self.limit());
        self.phase = Phase::Scan(Box::new(scanner));
    }

    fn poll_locate(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ScanError>> {
        let directory = Arc::clone(self.store.directory());
        let shard = Arc::clone(&self.shard);
        let extents = LiveExtents { directory: &directory, shard: &shard, given_up: self.given_up() };
        loop {
            let Phase::Locate(locate) = &mut self.phase else { return Poll::Ready(Ok(())) };
            if self.reads.is_empty() {
                match locate.step(&extents) {
                    LocateStep::Need(run) => match self.send(run, context)? {
                        true => {}
                        false => return Poll::Pending,
                    },
                    LocateStep::Found(ordinal) => {
                        let ScanFrom::Frame(frame) = self.from else { return Poll::Ready(Ok(())) };
                        let ordinal = ordinal.unwrap_or_default();
                        self.begin(Start::Frame { frame, ordinal }, self.limit());
                        return Poll::Ready(Ok(()));
                    }
                }
            }
            let Poll::Ready((_, answer)) = self.poll_reads(context)? else { return Poll::Pending };
            if let Phase::Locate(locate) = &mut self.phase {
                locate.supply(answer.ok().as_deref());
            }
        }
    }

    // ---- reading ------------------------------------------------------------------------------------------------

    /// `Ready(None)`: the scan has ended or moved to another phase.
    fn poll_scan(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Result<Record, ScanError>>, ScanError>> {
        let directory = Arc::clone(self.store.directory());
        let shard = Arc::clone(&self.shard);
        let extents = LiveExtents { directory: &directory, shard: &shard, given_up: self.given_up() };
        loop {
            let depth = self.read_ahead;
            while self.reads.len() < depth {
                let Phase::Scan(scanner) = &mut self.phase else { return Poll::Ready(Ok(None)) };
                let Some(run) = scanner.ask(depth, &extents) else { break };
                if !self.send(run, context)? {
                    break;
                }
            }
            let Phase::Scan(scanner) = &mut self.phase else { return Poll::Ready(Ok(None)) };
            match scanner.step(&extents) {
                Step::Record(record) => {
                    self.has_yielded = true;
                    self.unix_ns = record.unix_ns;
                    return Poll::Ready(Ok(Some(Ok(Record::new(shard.id(), record)))));
                }
                Step::Damage(damage) => return Poll::Ready(self.damaged(damage)),
                Step::End => match self.poll_end(context) {
                    Poll::Ready(Ok(true)) => {}
                    Poll::Ready(Ok(false)) => {
                        self.end();
                        return Poll::Ready(Ok(None));
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                },
                Step::Need => {
                    if self.reads.is_empty() {
                        // Either there is something to ask for now, or the mailbox was full.
                        if self.tries > 0 {
                            return Poll::Pending;
                        }
                        continue;
                    }
                    let Poll::Ready((run, answer)) = self.poll_reads(context)? else { return Poll::Pending };
                    if let Some(pin) = &self.pin {
                        pin.touch();
                    }
                    if let Phase::Scan(scanner) = &mut self.phase {
                        match answer {
                            Ok(bytes) => scanner.supply(run.slot, bytes),
                            Err(error) => scanner.supply_failure(run.slot, error),
                        }
                    }
                }
            }
        }
    }

    fn damaged(&self, damage: Box<Damage>) -> Result<Option<Result<Record, ScanError>>, ScanError> {
        let shard = self.shard.id();
        let is_start = !self.has_yielded && matches!(self.from, ScanFrom::Position(_));
        match (&damage.fault, self.on_damage) {
            (Fault::Reclaimed, _) => Err(ScanError::Reclaimed { shard }),
            (Fault::NotBetweenRecords { .. } | Fault::BehindTheEnd | Fault::OtherFrame(_), _) if is_start => {
                Err(ScanError::NotInLog { shard, fault: damage.fault })
            }
            (Fault::NoExtent | Fault::BehindTheEnd, _) | (_, OnDamage::Stop) => {
                Err(ScanError::Damage(damage))
            }
            (_, OnDamage::Skip) => Ok(Some(Err(ScanError::Damage(damage)))),
        }
    }

    /// At the limit: true if there is more now.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Result<bool, ScanError>> {
        if let Some(error) = self.flush_error.take() {
            return Poll::Ready(Err(ScanError::Flush(error)));
        }
        let Phase::Scan(scanner) = &mut self.phase else { return Poll::Ready(Ok(false)) };
        if let Some(list) = self.shares.pop_front() {
            let last = FrameNumber(scanner.limit().frames.0.saturating_sub(1));
            return Poll::Ready(match scanner.begin_share(&list, last, self.unix_ns) {
                Ok(()) => Ok(true),
                Err(error) => Err(ScanError::NotACut { shard: self.shard.id(), error }),
            });
        }
        if let Some(cut) = &self.cut {
            // What moved here from another shard after that one was read is here twice.
            let hot = self.shard.cold_of().and_then(|hot| self.store.shard(hot));
            let mut both = std::iter::once(&self.shard).chain(hot);
            let is_cleaned = both.any(|shard| cut.is_cleaned(self.store.term(), shard));
            let gone = ScanError::Cleaned { shard: self.shard.id() };
            return Poll::Ready(if is_cleaned { Err(gone) } else { Ok(false) });
        }
        let written = Limit::written(&self.shard);
        if scanner.take_jumped() && written.frames > scanner.limit().frames {
            // What cleaning moved away in front of the scan was written behind where it was to end.
            scanner.set_limit(written);
            return Poll::Ready(Ok(true));
        }
        if !self.is_following {
            return Poll::Ready(Ok(false));
        }
        let reached = scanner.limit().frames;
        match self.poll_written(reached, context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Arrival::Closed) => Poll::Ready(Ok(false)),
            Poll::Ready(Arrival::Failed(error)) => Poll::Ready(Err(ScanError::Flush(error))),
            Poll::Ready(Arrival::Written) => {
                if let Some(pin) = &self.pin {
                    pin.move_on();
                }
                if let Phase::Scan(scanner) = &mut self.phase {
                    scanner.set_limit(Limit::written(&self.shard));
                }
                Poll::Ready(Ok(true))
            }
        }
    }

    fn poll_written(&self, frame: FrameNumber, context: &mut Context<'_>) -> Poll<Arrival> {
        let mut reached = Reached::of(&self.shard, frame, Durability::Written);
        match Pin::new(&mut reached).poll(context) {
            Poll::Ready(Ok(())) => Poll::Ready(Arrival::Written),
            Poll::Ready(Err(failure)) => Poll::Ready(Arrival::Failed(WaitError::Failed(failure))),
            // A core that stops marks itself as dead first and wakes all waiters then, so this look is not too early.
            Poll::Pending => match self.store.directory().core_of(self.shard.id()) {
                Some(core) if !core.is_dead() => Poll::Pending,
                _ if self.shard.watermarks().written > frame => Poll::Ready(Arrival::Written),
                _ => Poll::Ready(Arrival::Closed),
            },
        }
    }

    /// Sends a read to a core. False: its mailbox is full, and the task will be woken to try again.
    fn send(&mut self, run: Run, context: &mut Context<'_>) -> Result<bool, ScanError> {
        let core = Arc::clone(self.store.reading_core());
        let mail = |responder| Mail::Run { slot: run.slot, slots: run.slots, responder };
        match self.store.ask(&core, mail) {
            Ok(pending) => {
                self.tries = 0;
                self.read_bytes += run.slots * self.store.directory().layout.geometry().slot_bytes();
                self.reads.push((run, pending));
                Ok(true)
            }
            Err(ReadError::Busy { .. }) if self.tries < MAILBOX_TRIES_MAX => {
                self.tries += 1;
                if let Phase::Scan(scanner) = &mut self.phase {
                    scanner.take_back(run.slot);
                }
                if self.reads.is_empty() {
                    std::thread::yield_now();
                    context.waker().wake_by_ref();
                }
                Ok(false)
            }
            Err(error) => Err(ScanError::Read(error)),
        }
    }

    /// The first answer that is there.
    fn poll_reads(&mut self, context: &mut Context<'_>) -> Poll<Result<Answer, ScanError>> {
        for index in 0..self.reads.len() {
            let Poll::Ready(reply) = Pin::new(&mut self.reads[index].1).poll(context) else { continue };
            let (run, _) = self.reads.swap_remove(index);
            let answer = match reply {
                Reply::Run(Ok(buffer)) => Ok(Bytes::from_owner(buffer)),
                Reply::Run(Err(error @ (ReadError::Io { .. } | ReadError::Truncated { .. }))) => Err(error),
                Reply::Run(Err(error)) => return Poll::Ready(Err(ScanError::Read(error))),
                _ => {
                    let core = self.store.reading_core().id();
                    return Poll::Ready(Err(ScanError::Read(ReadError::CoreDead { core })));
                }
            };
            return Poll::Ready(Ok((run, answer)));
        }
        Poll::Pending
    }
}

/// What came of waiting for a frame.
enum Arrival {
    Written,
    /// It never will be, for there is no such frame: the store was closed.
    Closed,
    Failed(WaitError),
}

impl Iterator for Scan {
    type Item = Result<Record, ScanError>;

    /// Waits at most for the stall time of the options, except for a scan that follows.
    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = self.check_thread() {
            self.end();
            return Some(Err(error));
        }
        let limit = if self.is_following { None } else { self.store.stall() };
        match Sleeper::wait(&mut poll_fn(|context| self.poll_next(context)), limit) {
            Some(next) => next,
            None => {
                self.end();
                let waited = limit.unwrap_or_default();
                Some(Err(ScanError::Stalled { shard: self.shard(), waited }))
            }
        }
    }
}
