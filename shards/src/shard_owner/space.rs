//! The space of a shard: what its extents hold, what is to be freed, and the checkpoint under way.
//!
//! Everything that changes here is a control record first. What a record says takes effect in the owner's memory when
//! it is appended, so that a later checkpoint agrees with it, and for everybody else when it is durable. An extent is
//! freed in three steps: a checkpoint that begins behind it is durable; then the record that frees it is; then it is
//! anybody's. `docs/RECOVERY.md` says what the order proves.

mod checkpoints;
mod freeing;
mod quiet;
mod requests;

use self::quiet::Quiet;
use super::ShardOwner;
use crate::{
    address::Address,
    format::{
        control::{Control, Cursor, ExtentFacts, FreedExtent, LogPlace},
        frame::FrameHeader,
        manifest::Manifest,
        moved::{MovedGroup, Origin},
        record::{RecordFlags, RecordKind},
    },
    ids::{ExtentIndex, ExtentOrdinal, FrameNumber, SlotIndex},
    limits::SPACE_REQUESTS_MAX,
    manifest,
    over::{OverNotes, Unresolved},
    requests::{Reply, Responder},
    ring::{Refusal, reservation::Placed},
    shard::{ShardRefusal, ShardSpace},
    sync::Ordering,
};
use std::collections::{BTreeMap, VecDeque};

/// A durable checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointPlace {
    /// Where the frame is that recovery begins with; what frames state.
    pub address: Address,
    /// The ordinal of its extent: only extents before it may be freed.
    pub ordinal: ExtentOrdinal,
    /// Its number.
    pub frame: FrameNumber,
}

/// An extent whose cleaning has begun: what counts of it is still in it, but records before a place were copied or
/// found dead. It is never begun again, for both copies would count once it is freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The extent.
    pub origin: Origin,
    /// Records before this byte of the store are done.
    pub up_to: u64,
    /// The last group of copies; each leads to the one before.
    pub last: Option<Address>,
}

impl Move {
    /// The record that says so again, for a checkpoint.
    const fn repeated(&self) -> MovedGroup {
        let Self { origin, up_to, last } = *self;
        MovedGroup { origin, from: up_to, up_to, previous: last, records: Vec::new() }
    }
}

impl SpaceStart {
    /// True if the shard has the extent that copies were made of, as it was then.
    pub(crate) fn holds(&self, origin: &Origin) -> bool {
        self.extents.iter().any(|facts| Origin::of(origin.shard, facts) == *origin)
    }
}

/// What recovery found of a shard's space, for its owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpaceStart {
    /// The extents that hold frames of the log.
    pub extents: Vec<ExtentFacts>,
    /// What was trimmed.
    pub trim: LogPlace,
    /// The cursors, by name.
    pub cursors: Vec<Cursor>,
    /// The checkpoint that recovery began with.
    pub checkpoint: Option<CheckpointPlace>,
    /// What the log says of batches over several shards.
    pub over: OverNotes,
    /// What is to be done for such batches before anything else.
    pub unresolved: Vec<Unresolved>,
    /// Extents whose cleaning was under way.
    pub moves: Vec<Move>,
}

/// What is asked of a shard about its space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpaceAsk {
    /// Free the extents wholly before a place, but for those that something behind it has parts in.
    Trim {
        /// The place.
        place: LogPlace,
        /// Not past any cursor.
        respect_cursors: bool,
    },
    /// Set a cursor, or move it.
    SetCursor(Cursor),
    /// Remove a cursor.
    RemoveCursor(String),
    /// Write a checkpoint.
    Checkpoint,
    /// Go on in the next extent, with a checkpoint, so that all that was appended can be freed: for a retired shard. Not
    /// before the ring has left the extent given; `None`: the one that it stands in.
    Leave(Option<ExtentOrdinal>),
    /// Wait until no extent of the shard is half cleaned, or cleaning is off: for whoever keeps it from beginning with a
    /// further one by a [`crate::scan::CleaningPause`].
    EndCleaning,
}

/// What came of it; all of it is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct SpaceDone {
    /// What is trimmed now: nothing before it is wanted.
    pub trim: LogPlace,
    /// The ordinal of the oldest extent that is left.
    pub oldest: ExtentOrdinal,
    /// Extents that this request freed.
    pub freed: u64,
    /// Extents before the place that stay, because a batch or large record behind it, or one that is being written, has
    /// parts there. Trim again once those are trimmed too, or the writer is done.
    pub held: u64,
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpaceRefusal {
    /// Nothing was appended there yet.
    #[error("the place lies behind the end of the shard's log")]
    Ahead,
    /// No cursor has the name.
    #[error("the shard has no cursor of this name")]
    NoSuchCursor,
    /// The shard has as many cursors as it can.
    #[error("the shard has {max} cursors, and takes no more; remove one", max = crate::limits::CURSORS_MAX)]
    TooManyCursors,
    /// A name that cannot be.
    #[error("the name of a cursor has 1 to {max} bytes", max = crate::limits::CURSOR_NAME_BYTES_MAX)]
    CursorName,
    /// The shard takes appends, and is left to them.
    #[error("the shard is not retired")]
    NotRetired,
    /// An extent is half cleaned, and a hold of cleaning keeps it so.
    #[error(
        "an extent of the shard is being cleaned, and a backup or a hold of cleaning keeps it; try again after that"
    )]
    CleaningHeld,
    /// An extent is half cleaned, and cannot be read to the end.
    #[error("an extent of the shard is being cleaned, and cannot be read; verify tells more")]
    CleaningStopped,
    /// What cleaning copies goes there, and what is not wanted of it is released.
    #[error("a cold shard is not trimmed; release what is not wanted of it, and cleaning frees it")]
    Cold,
    /// The store is full, its reserve too: nothing can be written that would free something.
    #[error("the store is full, and has no room for the record of it; grow it")]
    StoreFull,
    /// Too many requests wait already.
    #[error("too many requests about the shard's space wait already; wait for an answer first")]
    Busy,
    /// The shard was closed before it was done; whether it will have been done is not known.
    #[error("the shard is closed")]
    Closed,
    /// The shard failed before it was done.
    #[error(transparent)]
    Failed(Box<crate::failure::ShardFailure>),
}

/// An extent that takes no more frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedExtent {
    /// What is known of it. `dead_bytes` is of this moment.
    pub facts: ExtentFacts,
    /// Its freeing was asked for.
    pub is_freeing: bool,
}

#[derive(Debug)]
enum Request {
    Ask(SpaceAsk, Responder),
    Free(ExtentOrdinal),
}

/// A checkpoint on its way.
#[derive(Debug)]
struct Writing {
    covers: FrameNumber,
    /// Slot and ordinal of the frame that it covers up to, once that is submitted.
    start: Option<(SlotIndex, ExtentOrdinal)>,
    /// Parts that are not in the ring yet.
    parts: VecDeque<Vec<u8>>,
    /// The frame of the last part that is.
    last: FrameNumber,
    /// Nobody may append behind it, so that it needs a frame of its own to state it.
    wants_mark: bool,
    /// What [`Quiet::checkpoint_failed`] takes.
    had_news: bool,
}

/// What follows once a frame is durable.
#[derive(Debug)]
struct Note {
    frame: FrameNumber,
    victims: Vec<FreedExtent>,
    responder: Option<Responder>,
    done: SpaceDone,
}

/// The owner's knowledge of the shard's space.
#[derive(Debug)]
pub(super) struct Space {
    /// The extents that hold submitted frames.
    live: BTreeMap<ExtentOrdinal, ExtentFacts>,
    trim: LogPlace,
    cursors: BTreeMap<String, Cursor>,
    pub(super) checkpoint: Option<CheckpointPlace>,
    /// Extents whose cleaning is under way.
    pub(super) moves: Vec<Move>,
    writing: Option<Writing>,
    /// Bytes of the log since the last checkpoint.
    since: u64,
    requests: VecDeque<Request>,
    notes: VecDeque<Note>,
    /// Those who wait for the checkpoint under way.
    waiting: Vec<Responder>,
    /// Something privileged found no extent: one may be claimed from the reserve.
    pub(super) wants_room: bool,
    /// There is nothing to claim either: what is asked cannot be written.
    pub(super) is_stuck: bool,
    /// Freed since the core last asked.
    released: u64,
    /// Freed extents that are to be discarded before somebody claims them, and the one that is being.
    discards: VecDeque<ExtentIndex>,
    discarding: Option<ExtentIndex>,
    pub(super) quiet: Quiet,
    /// Of batches over several shards.
    pub(super) over: OverNotes,
    unresolved: VecDeque<Unresolved>,
}

impl Space {
    /// `next`: the number of the first frame of this open.
    pub(super) fn new(start: SpaceStart, next: FrameNumber) -> Self {
        let covered = start.checkpoint.map_or(0, |checkpoint| checkpoint.frame.0);
        Self {
            live: start.extents.into_iter().map(|facts| (facts.ordinal, facts)).collect(),
            trim: start.trim,
            over: start.over,
            unresolved: start.unresolved.into(),
            cursors: start.cursors.into_iter().map(|cursor| (cursor.name.clone(), cursor)).collect(),
            checkpoint: start.checkpoint,
            moves: start.moves,
            writing: None,
            since: 0,
            requests: VecDeque::new(),
            notes: VecDeque::new(),
            waiting: Vec::new(),
            wants_room: false,
            is_stuck: false,
            released: 0,
            discards: VecDeque::new(),
            discarding: None,
            quiet: Quiet::new(next.0.saturating_sub(covered)),
        }
    }

    /// The ordinal of the oldest extent that holds frames.
    pub(super) fn oldest(&self) -> Option<ExtentOrdinal> {
        self.live.keys().next().copied()
    }

    /// The frame behind the last one of each extent but the last that holds any.
    pub(super) fn each_frames_end(&self, mut each: impl FnMut(ExtentOrdinal, FrameNumber)) {
        for facts in self.live.values().rev().skip(1) {
            each(facts.ordinal, facts.frames_end());
        }
    }

    /// The last extent that holds frames.
    fn last_with_frames(&self) -> Option<ExtentOrdinal> {
        self.live.keys().next_back().copied()
    }

    /// What is known of an extent.
    pub(super) fn extent(&self, ordinal: ExtentOrdinal) -> Option<ExtentFacts> {
        self.live.get(&ordinal).copied()
    }

    pub(super) fn has_extent(&self, ordinal: ExtentOrdinal) -> bool {
        self.live.contains_key(&ordinal)
    }

    /// True if there is an extent from `from` on and before `to`.
    pub(super) fn has_any(&self, from: ExtentOrdinal, to: ExtentOrdinal) -> bool {
        from < to && self.live.range(from..to).next().is_some()
    }

    /// The extents behind `ordinal` in which roots are that lead to it or to what is before it, as far as these are in frames
    /// below `bound`.
    pub(super) fn extents_leading_to(
        &self,
        ordinal: ExtentOrdinal,
        bound: FrameNumber,
    ) -> impl Iterator<Item = ExtentFacts> + '_ {
        let behind = self.live.range(ExtentOrdinal(ordinal.0 + 1)..).map(|(_, facts)| *facts);
        let leading = behind.filter(move |facts| facts.lists_from.is_some_and(|from| from <= ordinal));
        leading.map(move |facts| {
            let frames = bound.0.saturating_sub(facts.first_frame.0).min(u64::from(facts.frames));
            ExtentFacts { frames: frames as u32, ..facts }
        })
    }

    /// Where the slowest cursor stands.
    pub(super) fn slowest_cursor(&self) -> Option<ExtentOrdinal> {
        self.cursors.values().map(|cursor| cursor.place.ordinal).min()
    }

    /// Makes the core wake all others: what they wait for may have changed.
    pub(super) const fn tell_all(&mut self) {
        self.released += 1;
    }

    /// True if an extent before `ordinal` may be freed by a record that is appended now.
    fn may_free_before(&self, ordinal: ExtentOrdinal) -> bool {
        self.checkpoint.is_some_and(|checkpoint| checkpoint.ordinal >= ordinal)
    }

    /// True while something that is appended has yet to take effect.
    pub(super) fn has_notes(&self) -> bool {
        !self.notes.is_empty()
    }

    pub(super) fn publish(&self, published: &mut ShardSpace) {
        published.trim = self.trim;
        published.cursors = self.cursors();
        published.checkpoint = self.checkpoint.map(|checkpoint| checkpoint.frame);
    }

    fn cursors(&self) -> Vec<Cursor> {
        self.cursors.values().cloned().collect()
    }
}

impl ShardOwner {
    // ---- asking -------------------------------------------------------------------------------------------------

    /// Takes a request; `responder` gets [`Reply::Space`] once it is durable, or refused.
    pub(crate) fn ask_space(&mut self, ask: SpaceAsk, responder: Responder) {
        if self.space.requests.len() >= SPACE_REQUESTS_MAX {
            return responder.answer(Reply::Space(Err(SpaceRefusal::Busy)));
        }
        match ask {
            // Freeing what was cleaned is a request too, and must not wait behind this one.
            SpaceAsk::EndCleaning => self.end_cleaning_for(responder),
            ask => self.space.requests.push_back(Request::Ask(ask, responder)),
        }
        if self.is_closing || self.shared.health.failure().is_some() {
            self.refuse_requests();
        }
    }

    /// Frees an extent of which nothing is wanted any more: steps two and three of the freeing, on this core, in their
    /// time. False: it is no sealed extent of the shard, or is being freed already. Once it is done the shard has no
    /// extent with this ordinal any more.
    pub fn free_extent(&mut self, ordinal: ExtentOrdinal) -> bool {
        let is_sealed = self.space.live.contains_key(&ordinal) && ordinal < self.last_ordinal;
        if !is_sealed || self.is_freeing(ordinal) || self.is_closing {
            return false;
        }
        self.space.requests.push_back(Request::Free(ordinal));
        true
    }

    pub(super) fn is_freeing(&self, ordinal: ExtentOrdinal) -> bool {
        self.space.requests.iter().any(|request| matches!(request, Request::Free(other) if *other == ordinal))
    }

    /// The extents that take no more frames, oldest first.
    pub fn sealed_extents(&self) -> impl Iterator<Item = SealedExtent> + '_ {
        let sealed = self.space.live.range(..self.last_ordinal);
        sealed.map(|(ordinal, facts)| SealedExtent {
            facts: ExtentFacts { dead_bytes: self.context.extents.dead_bytes(facts.extent), ..*facts },
            is_freeing: self.is_freeing(*ordinal),
        })
    }

    /// Lets the shard claim from the reserve if it needs an extent: for what has to be written although the store is
    /// full. Ordinary appends are refused until the reserve is whole again.
    pub fn want_room(&mut self) {
        self.space.wants_room = true;
    }

    /// Extents freed since the last call.
    pub(crate) const fn take_released(&mut self) -> u64 {
        std::mem::replace(&mut self.space.released, 0)
    }

    /// No record will be appended any more.
    pub(super) fn refuse_requests(&mut self) {
        let failure = self.shared.health.failure();
        let has_failed = failure.is_some();
        let why = failure.map_or(SpaceRefusal::Closed, |failure| SpaceRefusal::Failed(Box::new(failure)));
        self.refuse_all(&why);
        self.refuse_end_of_cleaning(&why);
        self.give_up_checkpoint();
        if has_failed {
            let notes = std::mem::take(&mut self.space.notes);
            let refused = notes.into_iter().filter_map(|note| note.responder);
            refused.for_each(|responder| responder.answer(Reply::Space(Err(why.clone()))));
        }
    }

    fn refuse_all(&mut self, why: &SpaceRefusal) {
        let space = &mut self.space;
        let asked = space.requests.drain(..).filter_map(|request| match request {
            Request::Ask(_, responder) => Some(responder),
            Request::Free(_) => None,
        });
        let refused = asked.chain(space.waiting.drain(..));
        refused.for_each(|responder| responder.answer(Reply::Space(Err(why.clone()))));
    }

    // ---- the turn -----------------------------------------------------------------------------------------------

    /// What became durable takes effect, and what is asked is appended. True if anything was done.
    pub(super) fn pump_space(&mut self) -> bool {
        let mut progress = self.end_notes();
        progress |= self.end_checkpoint();
        if std::mem::take(&mut self.space.is_stuck) {
            self.refuse_all(&SpaceRefusal::StoreFull);
            if self.space.writing.as_ref().is_some_and(|writing| !writing.parts.is_empty()) {
                // What is in the log of it is no checkpoint.
                self.give_up_checkpoint();
            }
            progress = true;
        }
        if self.is_closing {
            return progress;
        }
        progress |= self.resolve_batches();
        let interval = self.context.checkpoint_bytes;
        let is_full = self.shared.is_starved.load(Ordering::Acquire);
        if self.space.writing.is_none() && self.space.since >= interval && !is_full {
            self.begin_checkpoint(false);
        }
        progress |= self.place_parts();
        progress |= self.place_mark();
        // A checkpoint is one thing: nothing comes between its parts.
        while self.space.writing.as_ref().is_none_or(|writing| writing.parts.is_empty())
            && self.take_request()
        {
            progress = true;
        }
        progress
    }

    /// A frame was submitted. True if it is the first of its extent.
    pub(super) fn note_frame(&mut self, header: &FrameHeader) -> bool {
        let geometry = self.context.layout.geometry();
        let (ordinal, base, used) = (self.last_ordinal, header.base_slot, u64::from(header.used_bytes));
        let extent = geometry.extent_of(base);
        let is_first = !self.space.live.contains_key(&ordinal);
        if is_first && let Some(before) = self.space.last_with_frames() {
            self.shared.note_frames_end(before, header.number);
        }
        let begun = || ExtentFacts::begun_by(ordinal, extent, header);
        self.space.live.entry(ordinal).or_insert_with(begun).count(header);
        self.space.since += geometry.slots_for(used) * geometry.slot_bytes();
        if let Some(writing) = self.space.writing.as_mut().filter(|writing| writing.covers == header.number) {
            writing.start = Some((base, ordinal));
        }
        is_first
    }

    /// What an earlier open left to do for batches over several shards.
    fn resolve_batches(&mut self) -> bool {
        let mut progress = false;
        while let Some(next) = self.space.unresolved.front() {
            let note = Control::Resolved { id: next.id, settled: self.space.over.settled };
            let (note, shared) = (note.encode(), &self.shared);
            let append = || manifest::resolve(shared, &note, &next.list);
            match self.context.over.resolve(next.id, shared.id(), append) {
                Ok(placed) => {
                    self.shared.durable.want(placed.frame);
                    if let Some(from) = Manifest::peek_from(&next.list) {
                        // Until the frame is submitted nothing else says that the list needs its extents.
                        self.shared.writers.pin(from, self.next_frame).end(placed.frame);
                    }
                    self.space.unresolved.pop_front();
                    progress = true;
                }
                Err(refusal) => {
                    let is_nowhere = self.shared.ring().position().is_none();
                    let is_full = is_nowhere || refusal == ShardRefusal::StoreFull;
                    // Whoever frees an extent wakes the core.
                    self.space.wants_room |= is_full && self.context.extents.free_count() > 0;
                    break;
                }
            }
        }
        progress
    }

    fn append_control(&mut self, payload: &[u8]) -> Option<Placed> {
        match self.shared.ring().reserve_privileged(payload.len()) {
            Ok(mut reservation) => {
                reservation.payload_mut().copy_from_slice(payload);
                let placed = reservation.commit(RecordKind::CONTROL, RecordFlags::NONE);
                self.shared.durable.want(placed.frame);
                self.space.wants_room = false;
                Some(placed)
            }
            Err(Refusal::NoExtent) => {
                self.space.wants_room = true;
                None
            }
            // A completed write makes room; a closed ring takes nothing any more.
            Err(_) => None,
        }
    }
}
