//! The half of a shard that belongs to the core that runs it: sealing, submission, completion, watermarks, extents.
//!
//! Frames are submitted in order, complete in any order, and are recycled in order. A frame in flight moves
//! `Writing -> Written`, and leaves the list when its buffer is recycled.

mod cleaning;
mod completion;
mod crossing;
mod durability;
mod ending;
mod extents;
mod gathering;
mod reading;
mod sealing;
mod space;
mod submission;

use crossing::Mate;
pub(crate) use crossing::pair_up;
pub(crate) use reading::InMemory;
pub use space::{CheckpointPlace, Move, SealedExtent, SpaceAsk, SpaceDone, SpaceRefusal, SpaceStart};

use self::{cleaning::Cleaner, durability::Unsynced, gathering::Gathering, space::Space};
use crate::sync::Ordering;
use crate::{
    cleaning::Cleaning,
    device::{Device, Instant, Operation, Token},
    extents::{Claim, ExtentTable},
    failure::SyncFailures,
    ids::{ExtentIndex, ExtentOrdinal, FrameNumber, ShardId, SlotIndex, StoreId, Term},
    layout::Layout,
    memory::{BufferPool, RegionSlice},
    mutant::{self, Mutant},
    nearness::Nearness,
    over::OverTable,
    ring::{Refusal, owner::RingOwner, reservation::Placed},
    shard::{Shard, ShardExtent, ShardRefusal},
    token::LocalShard,
    watermark::Told,
};
use serde::{Deserialize, Serialize};
use std::{collections::VecDeque, sync::Arc, task::Waker, time::Duration};

/// In which order the frames of a shard reach the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FrameOrder {
    /// Frames are written side by side and may complete out of order, within the reach of the ring.
    #[default]
    TailLocalised,
    /// The write of a frame begins when that of the frame before it has completed.
    Serialised,
}

/// How durability is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SyncMethod {
    /// `RWF_DSYNC` for a frame that is all that its waiters lack, else `fdatasync`: one trip to the device for a group
    /// that waits, one flush for many frames. Always `fdatasync` on a device that claims FUA, or does not say: some
    /// claim it and keep such a write in their cache.
    #[default]
    Auto,
    /// Write, then `fdatasync` for all that was written on the core.
    Fdatasync,
    /// Frames that somebody waits for are written with `RWF_DSYNC`.
    Dsync,
}

/// What does not change while a shard is open.
#[derive(Clone, Debug)]
pub struct ShardContext {
    /// The store.
    pub store: StoreId,
    /// This open.
    pub term: Term,
    /// Where slots are.
    pub layout: Arc<Layout>,
    /// Who owns extents.
    pub extents: Arc<ExtentTable>,
    /// Which devices the cores are near to.
    pub near: Nearness,
    /// Batches over several shards.
    pub over: Arc<OverTable>,
    /// Small aligned buffers for extent headers.
    pub headers: Arc<BufferPool>,
    /// Shards of the store, for home regions.
    pub shard_count: u32,
    /// Order of frames.
    pub order: FrameOrder,
    /// Way to durability.
    pub sync: SyncMethod,
    /// Failed syncs, of all cores of the store.
    pub sync_failures: Arc<SyncFailures>,
    /// Bytes of the shard's log between two checkpoints.
    pub checkpoint_bytes: u64,
    /// A shard that has written, and then does not for so long, writes a checkpoint. `None`: it does not.
    pub quiet: Option<Duration>,
    /// Freed extents are discarded on their device.
    pub discard: bool,
    /// Who knows what is wanted, and when to clean.
    pub cleaning: Arc<Cleaning>,
    /// The shard is the cold one of this one, which the same core runs.
    pub cold_of: Option<ShardId>,
    /// What is cleaned goes to the shard's cold one, if it has one.
    pub to_cold: bool,
    /// A part-filled frame is sealed this long after its owner first saw it. `None`: only when somebody waits.
    pub linger: Option<Duration>,
}

/// A frame between submission and recycling.
#[derive(Debug)]
struct Flight {
    frame: FrameNumber,
    base: SlotIndex,
    slots: u64,
    /// Given back by the completion; `None` while the device holds it.
    slice: Option<RegionSlice>,
    is_written: bool,
    /// The write itself reached stable media.
    is_stable: bool,
    /// Failed syncs of its device before it was submitted.
    failures_before: u64,
    retries: u32,
}

/// The claim of the next extent.
#[derive(Debug)]
enum NextExtent {
    /// Nothing under way; the ring may or may not have a spare.
    Idle,
    /// The header is being written.
    ///
    /// With the failed syncs of its device before it was submitted.
    Writing(Claim, u64),
}

/// The owner's half of a shard.
#[derive(Debug)]
pub struct ShardOwner {
    context: ShardContext,
    local: LocalShard,
    shared: Arc<Shard>,
    ring: RingOwner,
    /// The frame to submit next and its first slot (known once the ring has moved on to it).
    next_frame: FrameNumber,
    next_base: Option<SlotIndex>,
    /// The shard was opened without room: the ordinal of the extent that its first frame goes to.
    parked_at: Option<ExtentOrdinal>,
    /// Base and used bytes of the frame before `next_frame`.
    last: (SlotIndex, u64),
    /// Where the log ends; `None`: at the end of its last extent, or it has none.
    tail_slot: Option<SlotIndex>,
    /// Ordinal of the extent that `last` lies in.
    last_ordinal: ExtentOrdinal,
    /// Of the shard's oldest extent; frames state it.
    oldest: ExtentOrdinal,
    /// Checksum of the last submitted header.
    link: u32,
    flights: VecDeque<Flight>,
    next_extent: NextExtent,
    /// Where the search for a free extent starts.
    claim_from: ExtentIndex,
    /// Writes that the device's queue had no room for.
    held: VecDeque<(Token, Operation)>,
    /// Writes that no sync covers yet.
    unsynced: Unsynced,
    /// Those that the sync under way covers.
    syncing: Unsynced,
    linger_since: Option<(FrameNumber, Instant)>,
    space: Space,
    cleaner: Cleaner,
    /// Its cold shard, or the one that it is the cold shard of.
    mate: Option<Mate>,
    /// There was no extent for it to claim.
    is_hungry: bool,
    is_closing: bool,
    woken: Vec<Waker>,
    /// Whom the last step of durability told.
    told: Told,
    gathering: Gathering,
}

/// Where a shard continues.
#[derive(Clone, Debug)]
pub struct ShardStart {
    /// The shard.
    pub shard: ShardId,
    /// The first frame of this open.
    pub first_frame: FrameNumber,
    /// Its slot; `None`: there is no room, and the shard waits for an extent.
    pub first_slot: Option<SlotIndex>,
    /// Where recovery found the end of the log; `None`: at the end of its last extent, or it has none.
    pub tail_slot: Option<SlotIndex>,
    /// Ordinal of the extent that holds `first_slot`; without one, of the shard's last.
    pub ordinal: ExtentOrdinal,
    /// Checksum of the last recovered frame header; 0 if there is none.
    pub link: u32,
    /// All extents of the shard. Those behind `ordinal` hold no frames.
    pub extents: Vec<ShardExtent>,
    /// The extent of `first_slot` was taken from the reserve.
    pub is_reserve: bool,
    /// What is known of its space.
    pub space: SpaceStart,
}

impl ShardOwner {
    /// True if a frame that was submitted says so.
    #[cfg(feature = "sim")]
    pub(crate) fn has_resolved(&self, batch: crate::format::control::BatchId) -> bool {
        self.space.over.has_resolved(batch)
    }

    pub(crate) fn new(context: ShardContext, local: LocalShard, ring: RingOwner, start: ShardStart) -> Self {
        let space = Space::new(start.space.clone(), start.first_frame);
        let oldest = space.oldest().or(start.extents.first().map(|first| first.ordinal)).unwrap_or_default();
        // What an earlier open took from the reserve, it took to make room: what is left there is still for that, and one
        // who appends could fill it up before the extent is freed.
        let is_short = start.is_reserve || context.extents.free_count() < context.extents.reserve();
        ring.ring().restrict(is_short);
        if context.cold_of.is_some() {
            // It takes what a retired one does: control records, and copies.
            ring.ring().retire();
        }
        let next_ordinal =
            start.extents.last().map_or(ExtentOrdinal(0), |last| ExtentOrdinal(last.ordinal.0 + 1));
        let parked_at = start.first_slot.is_none().then_some(next_ordinal);
        let end = start.first_slot.unwrap_or_else(|| end_of(&context.layout, &start));
        let shared = Shard::new(start.shard, Arc::clone(ring.ring()), start.first_frame, end, start.extents);
        let shared = Arc::new(shared.into_cold_of(context.cold_of));
        shared.is_starved.store(is_short || parked_at.is_some(), Ordering::Release);
        shared.publish_space(|published| space.publish(published));
        space.each_frames_end(|ordinal, frame| shared.note_frames_end(ordinal, frame));
        let home = (start.shard, context.shard_count);
        let claim_from = context.near.home(home.0, home.1, &context.layout, &context.extents);
        let cleaner = Cleaner::new(&context.cleaning);
        Self {
            context,
            local,
            shared,
            ring,
            next_frame: start.first_frame,
            next_base: start.first_slot,
            parked_at,
            last: (end, 0),
            tail_slot: start.tail_slot,
            last_ordinal: start.ordinal,
            oldest,
            link: start.link,
            flights: VecDeque::new(),
            next_extent: NextExtent::Idle,
            claim_from,
            held: VecDeque::new(),
            unsynced: Unsynced::default(),
            syncing: Unsynced::default(),
            linger_since: None,
            space,
            cleaner,
            mate: None,
            is_hungry: false,
            is_closing: false,
            woken: Vec::new(),
            told: Told::default(),
            gathering: Gathering::default(),
        }
    }

    /// The half that everyone shares.
    #[must_use]
    pub const fn shared(&self) -> &Arc<Shard> {
        &self.shared
    }

    /// Appends a record for the thread that drives the core; see [`RingOwner::append`].
    #[inline]
    pub(crate) fn append(&mut self, payload: &[u8]) -> Result<Placed, ShardRefusal> {
        if !self.shared.is_here() {
            return Err(self.shared.explain(Refusal::Closed));
        }
        self.ring.append(payload).map_err(|refusal| self.shared.explain(refusal))
    }

    /// Before anything else is done with the shard.
    #[inline]
    pub(crate) fn end_run(&mut self) {
        if !mutant::is_active(Mutant::RunLeftOpen) {
            self.ring.end_run();
        }
    }

    /// One step: claim ahead, seal what is asked, submit what is ready. True if anything was done.
    pub(crate) fn pump(&mut self, device: &mut dyn Device, is_syncing: bool) -> bool {
        if self.shared.health.failure().is_some() {
            return false;
        }
        let mut progress = self.pass_on_held(device);
        progress |= self.pump_quiet(device);
        progress |= self.pump_space();
        progress |= self.pump_discards(device);
        progress |= self.pump_cleaning(device);
        progress |= self.prepare_extent(device);
        progress |= self.settle_starvation();
        progress |= self.seal_what_is_asked(device, is_syncing);
        while self.submit_next(device) {
            progress = true;
        }
        progress
    }

    /// True if [`ShardOwner::pump`] would do something that no completion will announce: the second look of a core
    /// that is about to sleep.
    pub(crate) fn has_work(&self, is_syncing: bool, has_room: bool) -> bool {
        if self.shared.health.failure().is_some() {
            return false;
        }
        let next = self.ring.state(self.next_frame);
        // The empty last frame of a closed ring stays taken and is never written.
        // A ring that was closed while it was parked has nowhere to take its empty last frame to.
        let has_place = self.parked_at.is_none_or(|ordinal| self.shared.extent_at(ordinal).is_some());
        let is_ready = has_place && self.may_submit() && next.is_handed_over() && !next.is_flushing();
        self.wants_seal(is_syncing)
            || self.can_be_fed()
            || self.is_wrong_about_room()
            || self.has_cleaning()
            || if self.held.is_empty() { is_ready } else { has_room }
    }
}

/// The slot behind the log of a shard that has no room for more.
fn end_of(layout: &Layout, start: &ShardStart) -> SlotIndex {
    let geometry = layout.geometry();
    let behind_last =
        |last: &ShardExtent| geometry.header_slot(last.extent).offset_by(geometry.slots_per_extent());
    start.tail_slot.or_else(|| start.extents.last().map(behind_last)).unwrap_or(SlotIndex(0))
}
