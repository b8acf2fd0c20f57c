//! A shard as everyone sees it: its ring, watermarks, health and extents.
//!
//! What only the core that runs it may touch is in [`crate::shard_owner::ShardOwner`].

use crate::{
    crossing::Crossing,
    failure::{Health, ShardFailure},
    fork::Birthplace,
    format::{
        control::{Cursor, LogPlace},
        record::{RecordFlags, RecordKind},
    },
    ids::{ExtentIndex, ExtentOrdinal, FrameNumber, ShardId, SlotIndex},
    mutant::{self, Mutant},
    ring::{
        Refusal, Ring,
        reservation::{Placed, Reservation},
    },
    scan::ScanPins,
    sync::{AtomicBool, AtomicU64, Ordering, fence},
    watermark::{Durability, Mark, RoomWaiters, Watermarks},
    writers::{OpenWriters, WriterPin},
};
use crossbeam_utils::CachePadded;
use std::{
    io::IoSlice,
    ops::Range,
    sync::{Arc, OnceLock, PoisonError, RwLock, atomic::AtomicU64 as PlainU64},
};

/// Extents that a shard has room to remember before its list grows.
const EXTENTS_AT_FIRST: usize = 64;

/// Counters of a shard since it was opened. Written by its owner, read by anyone; each is exact, together they are
/// of a moment ago.
#[derive(Debug, Default)]
pub struct ShardCounters {
    /// Records in submitted frames, void ones and the engine's own included.
    pub records: PlainU64,
    /// Of those, what somebody appended: a large record counts once. What a batch holds counts whether or not it was
    /// committed.
    pub appended: PlainU64,
    /// Bytes of payload of those, without headers.
    pub payload_bytes: PlainU64,
    /// Bytes in use of submitted frames, headers included.
    pub bytes: PlainU64,
    /// Bytes written to the device, padding and extent headers included.
    pub device_bytes: PlainU64,
    /// Frames submitted.
    pub frames: PlainU64,
    /// Device writes that were repeated because they were short.
    pub rewrites: PlainU64,
    /// Syncs that covered this shard.
    pub syncs: PlainU64,
    /// Extents freed.
    pub extents_freed: PlainU64,
    /// Extents that cleaning freed.
    pub extents_cleaned: PlainU64,
    /// Records that cleaning copied.
    pub records_moved: PlainU64,
    /// Bytes of those, with what is written beside them.
    pub bytes_moved: PlainU64,
    /// Bytes that cleaning read from the device.
    pub clean_read_bytes: PlainU64,
    /// Steps of cleaning; a turn of the core makes one at the most.
    pub clean_steps: PlainU64,
    /// Most steps that were made while one append waited for room. The one counter that those who wait write.
    pub wait_steps_max: PlainU64,
}

/// An extent of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardExtent {
    /// Its place in the shard's sequence.
    pub ordinal: ExtentOrdinal,
    /// Which.
    pub extent: ExtentIndex,
}

/// What a shard's log says of its space; all of it durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardSpace {
    /// What was trimmed.
    pub trim: LogPlace,
    /// The cursors, by name.
    pub cursors: Vec<Cursor>,
    /// The first frame of recovery, by the newest checkpoint; `None`: there is none.
    pub checkpoint: Option<FrameNumber>,
    /// Extents that were freed since the store was opened.
    pub freed: u64,
}

/// One append stream, shared by all who use the store.
#[derive(Debug)]
pub struct Shard {
    id: ShardId,
    cold_of: Option<ShardId>,
    birthplace: Birthplace,
    ring: Arc<Ring>,
    submitted: CachePadded<AtomicU64>,
    pub(crate) written: CachePadded<Mark>,
    pub(crate) durable: CachePadded<Mark>,
    pub(crate) room: RoomWaiters,
    pub(crate) health: Health,
    /// The store is full: the owner found no extent to claim.
    pub(crate) is_starved: AtomicBool,
    /// First slot behind the contiguous written run.
    written_end: AtomicU64,
    /// All claimed extents in the order of their ordinals.
    extents: RwLock<Vec<ShardExtent>>,
    /// The frame behind the last one in each extent that takes no more.
    frames_end: RwLock<Vec<(ExtentOrdinal, FrameNumber)>>,
    space: RwLock<ShardSpace>,
    /// Batches and large records that are being written.
    pub(crate) writers: OpenWriters,
    scans: ScanPins,
    /// What it shares with its cold shard, or with the one that it is the cold shard of.
    crossing: OnceLock<Arc<Crossing>>,
    /// A core asked for room in it, to copy what it cleans, and has not got it.
    pub(crate) wants_room: AtomicBool,
    /// The header of an extent is on its way to the device.
    pub(crate) is_claiming: AtomicBool,
    /// Records that were released.
    pub(crate) releases: AtomicU64,
    /// The owner found nothing worth cleaning, and wants to hear of releases.
    pub(crate) wants_releases: AtomicBool,
    /// It is to look again, and the store has hope until then.
    owes_look: AtomicBool,
    /// On lines of their own: who appends reads what would lie beside them.
    counters: CachePadded<ShardCounters>,
}

/// Keeps what is trimmed from being freed: see [`Shard::hold_trims`].
#[derive(Debug)]
pub struct TrimHold(#[expect(dead_code, reason = "held for its drop")] WriterPin);

/// Why an append was refused. The payload was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShardRefusal {
    /// The record is longer than any buffer.
    #[error("the record is longer than a flush buffer can hold ({max} bytes)")]
    TooLarge {
        /// Longest payload in bytes.
        max: u64,
    },
    /// All buffers are full; a write's completion mends it.
    #[error("all flush buffers are full; a completed write makes room")]
    Full,
    /// No extent is free.
    #[error("the store is full; trim, release or grow it")]
    StoreFull,
    /// The shard was closed.
    #[error("the shard is closed")]
    Closed,
    /// The shard was retired.
    #[error("the shard is retired; append to another one")]
    Retired,
    /// The shard failed. Boxed, so that a refusal stays small: the results of appends and reservations are moved
    /// through registers.
    #[error(transparent)]
    Failed(Box<ShardFailure>),
}

impl Shard {
    pub(crate) fn new(
        id: ShardId,
        ring: Arc<Ring>,
        first_frame: FrameNumber,
        written_end: SlotIndex,
        extents: Vec<ShardExtent>,
    ) -> Self {
        let off = u64::from(mutant::is_active(Mutant::WatermarkStartsOff));
        let first_frame = FrameNumber(first_frame.0.saturating_sub(off));
        Self {
            id,
            cold_of: None,
            birthplace: Birthplace::here(),
            ring,
            submitted: CachePadded::new(AtomicU64::new(first_frame.0)),
            written: CachePadded::new(Mark::new(first_frame)),
            durable: CachePadded::new(Mark::new(first_frame)),
            room: RoomWaiters::default(),
            health: Health::default(),
            is_starved: AtomicBool::new(false),
            written_end: AtomicU64::new(written_end.0),
            extents: RwLock::new(extents),
            frames_end: RwLock::new(Vec::with_capacity(EXTENTS_AT_FIRST)),
            space: RwLock::default(),
            writers: OpenWriters::default(),
            scans: ScanPins::default(),
            crossing: OnceLock::new(),
            wants_room: AtomicBool::new(false),
            is_claiming: AtomicBool::new(false),
            releases: AtomicU64::new(0),
            wants_releases: AtomicBool::new(false),
            owes_look: AtomicBool::new(false),
            counters: CachePadded::default(),
        }
    }

    /// Which shard this is.
    #[must_use]
    pub const fn id(&self) -> ShardId {
        self.id
    }

    /// The shard that it takes copies from, if it is a cold one; it takes nothing else.
    #[must_use]
    pub const fn cold_of(&self) -> Option<ShardId> {
        self.cold_of
    }

    pub(crate) fn into_cold_of(self, cold_of: Option<ShardId>) -> Self {
        Self { cold_of, ..self }
    }

    /// Its ring.
    #[must_use]
    pub const fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// False in a child of the process that opened the store.
    pub(crate) fn is_here(&self) -> bool {
        self.birthplace.is_here()
    }

    /// The fault that stopped it, if one did.
    #[must_use]
    pub fn failure(&self) -> Option<ShardFailure> {
        if !self.birthplace.is_here() {
            return Some(ShardFailure::Forked { shard: self.id });
        }
        self.health.failure()
    }

    /// Its counters.
    #[must_use]
    pub fn counters(&self) -> &ShardCounters {
        &self.counters
    }

    /// Steps of cleaning so far: for who begins to wait for room, and [`Shard::note_wait`].
    #[must_use]
    pub fn clean_steps(&self) -> u64 {
        self.counters.clean_steps.load(Ordering::Relaxed)
    }

    /// An append that found no room when so many steps had been made has found some.
    pub fn note_wait(&self, began: u64) {
        let steps = self.clean_steps().saturating_sub(began);
        if steps > self.counters.wait_steps_max.load(Ordering::Relaxed) {
            self.counters.wait_steps_max.fetch_max(steps, Ordering::Relaxed);
        }
    }

    /// Copies `payload` into the current buffer, or says at once why not.
    #[inline]
    pub fn try_append(&self, payload: &[u8]) -> Result<Placed, ShardRefusal> {
        if !self.birthplace.is_here() {
            return Err(self.explain(Refusal::Closed));
        }
        // Not by way of `try_reserve`: moving the reservation through a result with a large error costs more than
        // reserving, in stores that later loads cannot be served from.
        match self.ring.reserve(payload.len()) {
            Ok(reservation) => Ok(reservation.commit_copy(payload, RecordKind::DATA, RecordFlags::NONE)),
            Err(refusal) => Err(self.explain(refusal)),
        }
    }

    /// Copies the pieces of one payload into the current buffer, one behind the other, or says at once why not.
    #[inline]
    pub fn try_append_vectored(&self, pieces: &[IoSlice<'_>]) -> Result<Placed, ShardRefusal> {
        let length = pieces.iter().map(|piece| piece.len()).fold(0, usize::saturating_add);
        let mut reservation = self.try_reserve(length)?;
        let mut rest = reservation.payload_mut();
        for piece in pieces {
            let (here, behind) = rest.split_at_mut(piece.len());
            here.copy_from_slice(piece);
            rest = behind;
        }
        Ok(reservation.commit(RecordKind::DATA, RecordFlags::NONE))
    }

    /// Claims room for a payload of `length` bytes, or says at once why not.
    #[inline(always)]
    pub fn try_reserve(&self, length: usize) -> Result<Reservation<'_>, ShardRefusal> {
        if !self.birthplace.is_here() {
            return Err(self.explain(Refusal::Closed));
        }
        self.ring.reserve(length).map_err(|refusal| self.explain(refusal))
    }

    /// Takes no more appends, batches and large records, until the store is closed. What is under way of them is refused
    /// as well, but for batches over several shards that were decided.
    pub fn retire(&self) {
        self.ring.retire();
    }

    /// True if it takes no appends any more, or never did: a cold shard.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.ring.is_retired()
    }

    /// As [`Shard::try_reserve`], also where only control records and cleaning may write.
    pub(crate) fn try_reserve_privileged(&self, length: usize) -> Result<Reservation<'_>, ShardRefusal> {
        if !self.birthplace.is_here() {
            return Err(self.explain(Refusal::Closed));
        }
        self.ring.reserve_privileged(length).map_err(|refusal| self.explain(refusal))
    }

    /// Cleaning was turned on: a full store is one to wait for until the shard's owner has looked what can be freed. Wake
    /// its core then.
    pub fn hope_again(&self) {
        // Pairs with the one in `ShardOwner::tell_starved`.
        fence(Ordering::SeqCst);
        self.is_starved.store(false, Ordering::Release);
    }

    #[cold]
    pub(crate) fn explain(&self, refusal: Refusal) -> ShardRefusal {
        match refusal {
            Refusal::TooLarge { max } => ShardRefusal::TooLarge { max },
            // Where there is an extent again the owner is about to claim it, or to find that another was faster; it
            // tells those who wait in either case.
            Refusal::NoExtent if self.is_starved.load(Ordering::Acquire) && !self.ring.has_free_extents() => {
                ShardRefusal::StoreFull
            }
            Refusal::NoExtent | Refusal::Exhausted => ShardRefusal::Full,
            Refusal::Retired => ShardRefusal::Retired,
            Refusal::Closed => {
                self.failure().map_or(ShardRefusal::Closed, |failure| ShardRefusal::Failed(Box::new(failure)))
            }
        }
    }

    /// The mark of a durability; `None` for [`Durability::Buffered`], which an append has reached when it returns.
    #[must_use]
    pub fn mark(&self, durability: Durability) -> Option<&Mark> {
        match durability {
            Durability::Buffered => None,
            Durability::Written => Some(&self.written),
            Durability::Durable => Some(&self.durable),
        }
    }

    /// Those who wait for room in the ring.
    #[must_use]
    pub const fn room(&self) -> &RoomWaiters {
        &self.room
    }

    /// Asks the owner to bring `frame` to `durability`; at once, and without waiting.
    pub fn request(&self, frame: FrameNumber, durability: Durability) {
        if self.mark(durability).is_some_and(|mark| mark.want(frame)) {
            self.ring.bell().ring();
        }
    }

    /// The last frame that holds anything accepted so far, sealed: what a flush has to wait for. `None`: nothing was
    /// ever accepted.
    pub fn seal_for_flush(&self) -> Option<FrameNumber> {
        self.ring.seal_accepted()
    }

    /// Where the shard stands.
    #[must_use]
    pub fn watermarks(&self) -> Watermarks {
        // In this order, so that the relation between them holds although they move meanwhile.
        let durable = self.durable.reached();
        let written = self.written.reached();
        let submitted = FrameNumber(self.submitted.load(Ordering::Acquire));
        let accepted = self.ring.current_frame().max(submitted);
        Watermarks { accepted, submitted, written, durable }
    }

    pub(crate) fn publish_submitted(&self, frames: FrameNumber) {
        self.submitted.store(frames.0, Ordering::Release);
    }

    /// First slot behind the last frame of the contiguous written run.
    #[must_use]
    pub fn written_end(&self) -> SlotIndex {
        SlotIndex(self.written_end.load(Ordering::Acquire))
    }

    pub(crate) fn publish_written_end(&self, slot: SlotIndex) {
        self.written_end.store(slot.0, Ordering::Release);
    }

    /// Its extents in order. Ordinals may be missing: what was freed leaves a gap.
    #[must_use]
    pub fn extents(&self) -> Vec<ShardExtent> {
        self.extents.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The extent with an ordinal, if the shard still has it.
    #[must_use]
    pub fn extent_at(&self, ordinal: ExtentOrdinal) -> Option<ExtentIndex> {
        self.extent_from(ordinal).filter(|found| found.ordinal == ordinal).map(|found| found.extent)
    }

    /// The first extent at or behind an ordinal.
    #[must_use]
    pub fn extent_from(&self, ordinal: ExtentOrdinal) -> Option<ShardExtent> {
        let extents = self.extents.read().unwrap_or_else(PoisonError::into_inner);
        extents.get(extents.partition_point(|extent| extent.ordinal < ordinal)).copied()
    }

    /// The frame behind the last one in an extent that takes no more; `None`: it does, or the shard has no such extent.
    #[must_use]
    pub fn frames_end(&self, ordinal: ExtentOrdinal) -> Option<FrameNumber> {
        let ends = self.frames_end.read().unwrap_or_else(PoisonError::into_inner);
        let place = ends.binary_search_by_key(&ordinal, |end| end.0).ok()?;
        ends.get(place).map(|end| end.1)
    }

    pub(crate) fn note_frames_end(&self, ordinal: ExtentOrdinal, frame: FrameNumber) {
        let mut ends = self.frames_end.write().unwrap_or_else(PoisonError::into_inner);
        match ends.binary_search_by_key(&ordinal, |end| end.0) {
            Ok(place) => ends[place].1 = frame,
            Err(place) => ends.insert(place, (ordinal, frame)),
        }
    }

    /// From the ordinal of its first extent to behind that of its last; some between may be missing.
    #[must_use]
    pub fn ordinals(&self) -> Range<u64> {
        let extents = self.extents.read().unwrap_or_else(PoisonError::into_inner);
        match (extents.first(), extents.last()) {
            (Some(first), Some(last)) => first.ordinal.0..last.ordinal.0 + 1,
            _ => 0..0,
        }
    }

    pub(crate) fn push_extent(&self, ordinal: ExtentOrdinal, extent: ExtentIndex) {
        let mut extents = self.extents.write().unwrap_or_else(PoisonError::into_inner);
        debug_assert!(extents.last().is_none_or(|last| last.ordinal < ordinal));
        extents.push(ShardExtent { ordinal, extent });
    }

    pub(crate) fn remove_extent(&self, ordinal: ExtentOrdinal) {
        let mut extents = self.extents.write().unwrap_or_else(PoisonError::into_inner);
        extents.retain(|extent| extent.ordinal != ordinal);
        self.frames_end.write().unwrap_or_else(PoisonError::into_inner).retain(|end| end.0 != ordinal);
    }

    /// The last extent is never freed, so that ordinals never come again.
    pub(crate) fn next_ordinal(&self) -> ExtentOrdinal {
        ExtentOrdinal(self.ordinals().end)
    }

    /// Keeps from being trimmed what a writer will have written from now on.
    pub(crate) fn pin_writer(&self) -> WriterPin {
        let submitted = FrameNumber(self.submitted.load(Ordering::Acquire));
        // A parked ring begins in the next extent, which may be among these already.
        let last = ExtentOrdinal(self.ordinals().end.saturating_sub(1));
        self.writers.pin(self.ring.current_ordinal().unwrap_or(last), submitted)
    }

    /// Keeps trims from freeing anything until the answer is dropped, but for what is on its way.
    #[must_use]
    pub fn hold_trims(&self) -> TrimHold {
        TrimHold(self.writers.pin(ExtentOrdinal(0), FrameNumber(self.submitted.load(Ordering::Acquire))))
    }

    /// What was trimmed, as of a moment ago: nothing before it is wanted.
    #[must_use]
    pub fn trim(&self) -> LogPlace {
        self.space.read().unwrap_or_else(PoisonError::into_inner).trim
    }

    pub(crate) const fn scans(&self) -> &ScanPins {
        &self.scans
    }

    /// What it shares with its cold shard, or with the one that it is the cold shard of; `None`: there is none.
    pub(crate) fn crossing(&self) -> Option<&Arc<Crossing>> {
        self.crossing.get()
    }

    pub(crate) fn set_crossing(&self, crossing: &Arc<Crossing>) {
        let _once = self.crossing.set(Arc::clone(crossing));
    }

    /// A record of the shard was noted as dead: an extent may be worth cleaning that was not before. True: the owner had
    /// found none, and has to look again ([`Directory::look_again`], or a ring of its bell).
    ///
    /// [`Directory::look_again`]: crate::directory::Directory::look_again
    #[must_use = "the owner sleeps"]
    pub fn note_release(&self) -> bool {
        // The owner looks at the number again after it said that it wants to hear of it.
        self.releases.fetch_add(1, Ordering::AcqRel);
        self.wants_releases.load(Ordering::Acquire) && self.wants_releases.swap(false, Ordering::AcqRel)
    }

    /// As [`Shard::note_release`]; the owner looks again, and until then nobody waits for that.
    pub(crate) fn note_release_and_ring(&self) {
        if self.note_release() {
            self.ring.bell().ring();
        }
    }

    /// The owner owes a look at what can be cleaned. True: it does already.
    pub(crate) fn owe_look(&self) -> bool {
        self.owes_look.swap(true, Ordering::AcqRel)
    }

    /// True if the owner owes one; it is about to take it.
    pub(crate) fn take_owed_look(&self) -> bool {
        self.owes_look.load(Ordering::Relaxed) && self.owes_look.swap(false, Ordering::AcqRel)
    }

    /// How often cleaning gave an extent of the shard up to be freed, since the store was opened.
    #[must_use]
    pub fn cleaned_away(&self) -> u64 {
        self.scans.freed()
    }

    /// True if extents were freed behind what was trimmed: by cleaning.
    #[must_use]
    pub fn has_gaps(&self) -> bool {
        let from = self.space().trim.ordinal;
        (from.0..self.ordinals().end).any(|ordinal| self.extent_at(ExtentOrdinal(ordinal)).is_none())
    }

    /// What is known of its space, as of a moment ago.
    #[must_use]
    pub fn space(&self) -> ShardSpace {
        self.space.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn publish_space(&self, publish: impl FnOnce(&mut ShardSpace)) {
        publish(&mut self.space.write().unwrap_or_else(PoisonError::into_inner));
    }
}
