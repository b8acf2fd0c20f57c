//! Cleaning, one step in each turn: an extent of which much is dead is read, its live records are copied to the end of
//! the log, and then it is freed.
//!
//! A step reads ahead a run, or looks at a bounded number of records and copies at most one group of them, or tells the
//! owner of the records about one group that became durable; appends wait for no more than that. An extent whose
//! cleaning has begun is never begun again: `docs/decisions/0018-cleaning.md` says why, and in which order things happen.

mod choosing;
mod copying;
mod ending;
mod large;
mod listing;
mod moving;
mod reading;
mod replaying;

use super::{Move, ShardOwner};
use crate::{
    address::Address,
    cleaning::Cleaning,
    device::Device,
    format::{
        control::ExtentFacts,
        moved::{MovedRecord, Origin},
        record::{BodyContents, RecordKind},
    },
    ids::{ExtentOrdinal, FrameNumber, SlotIndex},
    memory::BufferPool,
    mutant::{self, Mutant},
    requests::Responder,
    ring::group::RecordGroup,
    sync::Ordering,
};
use large::{LargeLive, LargeRecord};
use listing::{HeldBack, Listing};
use moving::Moving;
use reading::Reading;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// Where the cleaning of an extent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// An earlier open copied some of it: its owner has to hear of those groups, from the last one back.
    Replay(Option<Address>),
    /// Its records are looked at, whether they can be moved and which of them are wanted.
    Survey,
    /// Extents behind it are gone through for lists of its batch data.
    Roots,
    /// Parts of such lists are read, or of those in it.
    Nodes,
    /// What lists in it lead to in other extents is read.
    Outside,
    /// They are copied.
    Copy,
    /// A large record is, as a whole.
    Large,
    /// All are; the last groups become durable.
    Settle,
    /// It is being freed.
    Free,
}

/// The extent that is being cleaned.
#[derive(Debug)]
struct Task {
    facts: ExtentFacts,
    /// The copies go to the cold shard.
    crosses: bool,
    stage: Stage,
    /// What is gone through: its own extent, or one behind it.
    walked: ExtentFacts,
    /// The frame that is looked at, and in it the next record.
    slot: SlotIndex,
    offset: u64,
    frames_done: u32,
    /// The link that the frame has to carry.
    link: u32,
    /// What an earlier open is done with.
    skip_to: u64,
    /// An earlier open began it.
    is_resumed: bool,
    contents: BodyContents,
    /// Bytes that a survey found to be copied for nobody.
    dead_bytes: u64,
    listing: Listing,
    /// The group that is being gathered begins here.
    from: u64,
    records: Vec<MovedRecord>,
    copies: RecordGroup,
    /// It has to be written before anything else is gathered.
    ready: Option<(RecordGroup, Vec<MovedRecord>)>,
    /// The group before.
    last: Option<Address>,
    /// Large records that are to be moved, by the first byte of each in the extent.
    large: BTreeMap<u64, LargeRecord>,
    moving: Option<Moving>,
    /// Of the large record whose list is ready: what lies in other extents.
    elsewhere: Vec<(Address, u64)>,
}

/// Copies on their way to stable media.
#[derive(Debug)]
struct Pending {
    /// They are in the cold shard.
    crosses: bool,
    frame: FrameNumber,
    origin: Origin,
    group: RecordGroup,
    records: Vec<MovedRecord>,
    /// Of the group, and of each copy.
    addresses: Vec<Address>,
    /// Of the old place of a large record, what lies in other extents, and the bytes of each.
    elsewhere: Vec<(Address, u64)>,
}

/// The owner's knowledge of the shard's cleaning.
#[derive(Debug)]
pub(super) struct Cleaner {
    /// Free extents went below the low mark, and have not reached the high one.
    is_on: bool,
    is_hopeful: bool,
    /// It found no room to go on, and none to take.
    is_blocked: bool,
    task: Option<Task>,
    /// All of it is copied to the cold shard; a scan keeps it from being freed.
    parked: Option<Task>,
    /// The other one of the two is at work.
    awaits_mate: bool,
    pending: VecDeque<Pending>,
    /// Of the extents that this open has seen all of: those that it wrote, and those that it surveyed.
    contents: BTreeMap<ExtentOrdinal, BodyContents>,
    /// Extents with batch data, or of large records, of which it was found out what counts, or is wanted.
    listed: BTreeSet<ExtentOrdinal>,
    /// Of the extents that have large records, what of them is wanted and can be moved.
    large_live: BTreeMap<ExtentOrdinal, LargeLive>,
    /// Extents with lists that somebody needs, or of large records that somebody wants.
    held_back: BTreeMap<ExtentOrdinal, HeldBack>,
    /// Extents that could not be read.
    left_alone: BTreeSet<ExtentOrdinal>,
    /// How things stood when no extent was worth cleaning.
    barren_at: Option<Standing>,
    pool: Option<Arc<BufferPool>>,
    reading: Reading,
    /// Those who wait until nothing is half cleaned.
    ends: Vec<Responder>,
}

impl Cleaner {
    /// Of a shard that has yet to look what it can free, and so has hope.
    pub(super) fn new(cleaning: &Cleaning) -> Self {
        cleaning.gain_hope();
        Self {
            is_on: false,
            is_hopeful: true,
            is_blocked: false,
            task: None,
            parked: None,
            awaits_mate: false,
            pending: VecDeque::new(),
            contents: BTreeMap::new(),
            listed: BTreeSet::new(),
            large_live: BTreeMap::new(),
            held_back: BTreeMap::new(),
            left_alone: BTreeSet::new(),
            barren_at: None,
            pool: None,
            reading: Reading::Idle,
            ends: Vec::new(),
        }
    }
}

/// What decides whether there is something to clean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    releases: u64,
    last: ExtentOrdinal,
    durable: FrameNumber,
    has_free: bool,
    uncounted: Option<ExtentOrdinal>,
    unsettled: Option<ExtentOrdinal>,
}

impl ShardOwner {
    /// One step. True if anything was done.
    pub(super) fn pump_cleaning(&mut self, device: &mut dyn Device) -> bool {
        if self.is_closing {
            // What came to be owed after the close would give others hope for ever.
            self.settle_owed_look();
            self.tell_mate();
            return false;
        }
        if self.context.cleaning.owner().is_none() {
            return self.answer_ends();
        }
        self.look_at_marks();
        let progress = self.settle_group() || self.clean_with_hope(device) || self.answer_ends();
        self.tell_mate();
        if progress {
            self.shared.counters().clean_steps.fetch_add(1, Ordering::Relaxed);
        }
        progress
    }

    /// What was owed is paid by the step, which finds out whether there is hope.
    fn clean_with_hope(&mut self, device: &mut dyn Device) -> bool {
        let is_owed = self.shared.take_owed_look();
        let progress = self.clean(device);
        if is_owed {
            self.lose_owed_hope();
        }
        progress
    }

    /// A shard that ends looks no more.
    pub(super) fn settle_owed_look(&mut self) {
        if self.shared.take_owed_look() {
            self.lose_owed_hope();
        }
    }

    fn lose_owed_hope(&mut self) {
        if self.context.cleaning.lose_hope() {
            self.space.tell_all();
        }
    }

    /// The other one of the two may go on while this one does not.
    fn tell_mate(&self) {
        let Some(mate) = &self.mate else { return };
        let is_busy = self.cleaner.task.is_some() && self.cleaner.is_hopeful && !self.is_closing;
        mate.crossing.note_busy(mate.side, is_busy);
        if self.is_closing {
            mate.crossing.note_barren(mate.side);
        }
    }

    fn clean(&mut self, device: &mut dyn Device) -> bool {
        let Some(task) = &self.cleaner.task else { return self.begin_cleaning() };
        let ordinal = task.facts.ordinal;
        if task.crosses && task.stage != Stage::Free && self.target(true).failure().is_some() {
            // Nobody will ever say of these that they are durable.
            self.cleaner.pending.retain(|group| !group.crosses);
            return self.leave_alone("its cold shard failed");
        }
        match task.stage {
            Stage::Free if self.shared.extent_at(ordinal).is_none() => self.end_freeing(),
            // Trimmed: what was copied stays, and counts from now on.
            _ if !self.space.has_extent(ordinal) && task.stage != Stage::Free => self.end_task(),
            Stage::Replay(group) => self.replay(device, group),
            Stage::Roots if !self.are_lists_durable() => false,
            Stage::Survey | Stage::Roots | Stage::Copy => self.go_through(device),
            Stage::Nodes | Stage::Outside => self.read_listed(device),
            Stage::Large => self.move_large(device),
            Stage::Settle => self.free_cleaned(),
            Stage::Free => self.free_again(),
        }
    }

    /// True if [`ShardOwner::pump_cleaning`] would do something that no completion announces.
    pub(super) fn has_cleaning(&self) -> bool {
        if self.context.cleaning.owner().is_none() || self.is_closing {
            return false;
        }
        let is_settled = self.cleaner.pending.front().is_some_and(|group| self.is_durable(group));
        let task_stage = self.cleaner.task.as_ref().map(|task| task.stage);
        let is_unblocked = self.cleaner.is_blocked && self.context.extents.free_count() > 0;
        let is_let_go = task_stage == Some(Stage::Settle)
            && self.cleaner.pending.is_empty()
            && !self.shared.scans().is_held()
            && !self.waits_for_scans();
        let is_its_turn = !self.cleaner.awaits_mate || !self.is_mate_busy();
        let begins = || self.cleaner.task.is_none() && is_its_turn && self.may_begin();
        is_settled || is_unblocked || is_let_go || begins()
    }

    /// True if all of the extent is copied to the cold shard, somebody reads, and another one is put aside already.
    fn waits_for_scans(&self) -> bool {
        let crosses = self.cleaner.task.as_ref().is_some_and(|task| task.crosses);
        let is_scanned = || self.cold().is_some_and(|cold| cold.crossing.is_scanned());
        crosses && self.cleaner.parked.is_some() && is_scanned()
    }

    /// A frame was submitted that begins the extent, or goes on in one that this open began.
    pub(super) fn note_contents(&mut self, ordinal: ExtentOrdinal, is_first: bool, found: &BodyContents) {
        if is_first {
            self.cleaner.contents.insert(ordinal, BodyContents::default());
        }
        if let Some(contents) = self.cleaner.contents.get_mut(&ordinal) {
            contents.add(found);
        }
    }

    /// It is gone, and nobody will ask for it.
    pub(super) fn forget_extent(&mut self, ordinal: ExtentOrdinal) {
        self.cleaner.contents.remove(&ordinal);
        self.cleaner.listed.remove(&ordinal);
        self.cleaner.large_live.remove(&ordinal);
        self.cleaner.held_back.remove(&ordinal);
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn extents_known_to_cleaning(&self) -> usize {
        self.cleaner.contents.len()
    }

    fn origin(&self, facts: &ExtentFacts) -> Origin {
        Origin::of(self.shared.id(), facts)
    }

    // ---- the end of an extent -------------------------------------------------------------------------------------

    fn is_durable(&self, group: &Pending) -> bool {
        if group.crosses && mutant::is_active(Mutant::ColdNotDurable) {
            return true;
        }
        group.frame < self.target(group.crosses).durable.reached()
    }

    /// The owner of the records hears of the copies that are durable by now, one group in a step.
    fn settle_group(&mut self) -> bool {
        if !self.cleaner.pending.front().is_some_and(|group| self.is_durable(group)) {
            return false;
        }
        let Some(settled) = self.cleaner.pending.pop_front() else { return false };
        let Pending { origin, group, records, addresses, elsewhere, .. } = settled;
        let headers = group.headers().skip(1);
        for (((offset, header), record), to) in headers.zip(&records).zip(addresses.iter().skip(1)) {
            let start = offset + crate::limits::RECORD_HEADER_BYTES as usize;
            let payload = &group.bytes()[start..start + header.length as usize];
            if header.kind == RecordKind::LARGE_MANIFEST {
                self.tell_large(&origin, record, *to, payload, &elsewhere);
            } else {
                self.tell_relocated(&origin, record, *to, payload);
            }
        }
        true
    }

    fn tell_relocated(&self, origin: &Origin, record: &MovedRecord, to: Address, payload: &[u8]) {
        let Some(owner) = self.context.cleaning.owner() else { return };
        let geometry = self.context.layout.geometry();
        let from = Address::new(geometry, record.byte, origin.generation, u64::from(record.length));
        if !owner.relocated(from, to, payload) {
            let bytes = crate::format::record::record_bytes(u64::from(record.length));
            self.context.extents.note_dead(to.extent(geometry), bytes);
        }
    }

    fn free_cleaned(&mut self) -> bool {
        let is_early = mutant::is_active(Mutant::FreedBeforeCopiesDurable);
        if !self.cleaner.pending.is_empty() && !is_early {
            return false;
        }
        self.shared.wants_releases.store(true, Ordering::Release);
        let Some(task) = &self.cleaner.task else { return false };
        if !self.gives_up(self.origin(&task.facts), task.crosses) {
            if task.crosses && self.cleaner.parked.is_none() && !self.shared.scans().is_held() {
                // What else there is goes where it would without a cold shard, as long as somebody reads.
                self.cleaner.parked = self.cleaner.task.take();
                self.cleaner.barren_at = None;
                return true;
            }
            // Who waits for room is not to wait for that.
            self.set_hope(false);
            return false;
        }
        self.set_hope(true);
        let Some(task) = &mut self.cleaner.task else { return false };
        task.stage = Stage::Free;
        let ordinal = task.facts.ordinal;
        let _trimmed_otherwise = self.free_extent(ordinal);
        true
    }

    /// A store without room for the record of the freeing dropped the request: asks again when there may be some.
    fn free_again(&mut self) -> bool {
        let Some(task) = &self.cleaner.task else { return false };
        let ordinal = task.facts.ordinal;
        if self.is_freeing(ordinal) || !self.space.has_extent(ordinal) {
            return false;
        }
        let has_room = self.context.extents.free_count() > 0;
        self.cleaner.is_blocked = !has_room;
        self.set_hope(has_room);
        has_room && self.free_extent(ordinal)
    }

    fn end_freeing(&mut self) -> bool {
        self.shared.counters().extents_cleaned.fetch_add(1, Ordering::Relaxed);
        self.end_task()
    }

    fn end_task(&mut self) -> bool {
        if let Some(task) = self.cleaner.task.take() {
            self.forget_extent(task.facts.ordinal);
            if task.crosses
                && let Some(cold) = self.cold()
            {
                cold.crossing.end_giving_up(&self.origin(&task.facts));
            }
            // It may have something to clean now that the copies count, or waited for its turn.
            self.let_mate_look();
        }
        if self.space.moves.is_empty() {
            self.shared.scans().note_copies(None);
        }
        self.cleaner.is_blocked = false;
        self.cleaner.barren_at = None;
        true
    }

    /// An extent that cannot be read, or holds what it should not, is none that can be freed.
    fn leave_alone(&mut self, why: &str) -> bool {
        if let Some(task) = self.cleaner.task.take() {
            let (shard, ordinal) = (self.shared.id(), task.facts.ordinal);
            tracing::warn!(%shard, %ordinal, extent = %task.facts.extent, why, "an extent is not cleaned");
            self.cleaner.left_alone.insert(ordinal);
        }
        self.cleaner.is_blocked = false;
        self.cleaner.barren_at = None;
        true
    }

    pub(super) fn set_hope(&mut self, is_hopeful: bool) {
        if std::mem::replace(&mut self.cleaner.is_hopeful, is_hopeful) == is_hopeful {
            return;
        }
        if is_hopeful {
            self.context.cleaning.gain_hope();
        } else if self.context.cleaning.lose_hope() && self.context.cleaning.owner().is_some() {
            // Appends that wait elsewhere have to hear that the store is full.
            self.space.tell_all();
        }
    }
}

impl Task {
    fn begin(facts: ExtentFacts, first: SlotIndex, from: u64, stage: Stage) -> Self {
        Self {
            facts,
            crosses: false,
            stage,
            walked: facts,
            slot: first,
            offset: 0,
            frames_done: 0,
            link: facts.first_link,
            skip_to: 0,
            is_resumed: false,
            contents: BodyContents::default(),
            dead_bytes: 0,
            listing: Listing::default(),
            from,
            records: Vec::new(),
            copies: RecordGroup::new(),
            ready: None,
            last: None,
            large: BTreeMap::new(),
            moving: None,
            elsewhere: Vec::new(),
        }
    }

    fn resume(facts: ExtentFacts, first: SlotIndex, known: &Move) -> Self {
        let stage = Stage::Replay(known.last);
        let begun = Self::begin(facts, first, known.up_to, stage);
        Self { skip_to: known.up_to, is_resumed: true, last: known.last, ..begun }
    }

    /// `link`: to the frame that is passed.
    const fn pass_frame(&mut self, slots: u64, link: u32) {
        (self.slot, self.offset, self.link) = (self.slot.offset_by(slots), 0, link);
        self.frames_done += 1;
    }

    /// Begins at the first frame of an extent.
    fn go_to(&mut self, facts: ExtentFacts, first: SlotIndex) {
        self.walked = facts;
        (self.slot, self.offset, self.frames_done, self.link) = (first, 0, 0, facts.first_link);
    }
}
