//! Where the walk over a shard's log begins: at the newest checkpoint that a frame states to be durable.
//!
//! Each frame states the newest checkpoint that was durable when it was submitted, and an extent is freed only by a
//! record that follows one that begins behind it. So the frames of the last extent that holds any of the present know
//! a checkpoint behind every gap. Older statements do no harm: of all that are seen the one furthest on counts.

use super::{Context, RecoveryError, RecoverySource, ShardExtents, survey::fits, window::Window};
use crate::{
    address::Address,
    format::{
        extent_header::ExtentHeader,
        frame::{CheckedHeader, FrameError, FrameHeader},
        superblock::ShardEntry,
    },
    geometry::Geometry,
    ids::{ExtentOrdinal, FrameNumber, ShardId, SlotIndex, Term},
    limits::HEADER_ONLY_SLOTS_MIN,
};

/// The frame that recovery begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    /// As frames state it.
    pub address: Address,
    /// Of its extent.
    pub ordinal: ExtentOrdinal,
    /// Where it begins.
    pub slot: SlotIndex,
}

/// What the search saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// `None`: no frame states a checkpoint.
    pub start: Option<Start>,
    /// Frames below this number were durable.
    pub durable: FrameNumber,
    /// Of any sound frame of the store.
    pub highest_term: Term,
}

pub(super) struct Search<'a, S: ?Sized> {
    context: &'a Context<'a, S>,
    geometry: Geometry,
    shard: ShardId,
    entry: ShardEntry,
    extents: &'a ShardExtents,
    window: Window<'a, S>,
    /// Most frames state the same as the one before.
    last_stated: Option<Address>,
    seen: Seen,
}

impl<'a, S: RecoverySource + ?Sized> Search<'a, S> {
    pub(super) fn new(
        context: &'a Context<'a, S>,
        shard: ShardId,
        extents: &'a ShardExtents,
    ) -> Result<Self, RecoveryError> {
        let geometry = context.superblock.geometry;
        Ok(Self {
            context,
            geometry,
            shard,
            entry: context.superblock.shards.get(usize::from(shard.0)).copied().unwrap_or_default(),
            extents,
            window: Window::new(context.source, geometry, context.options.window_bytes)?,
            last_stated: None,
            seen: Seen::default(),
        })
    }

    /// Looks through the last extents, down to one that holds a frame of the present.
    pub(super) fn run(mut self) -> Result<Seen, RecoveryError> {
        let (extents, shard) = (self.extents, self.shard);
        for frame in extents.firsts.iter().filter(|frame| frame.shard == shard) {
            self.note_statement(frame);
        }
        for extent in extents.chain.iter().rev() {
            if self.look_through(extent)? {
                break;
            }
        }
        Ok(self.seen)
    }

    /// True if a frame of the present is in the extent.
    fn look_through(&mut self, extent: &ExtentHeader) -> Result<bool, RecoveryError> {
        let reach = self.geometry.slots_for(self.context.superblock.reach_bytes).max(1);
        let mut slot = self.geometry.first_frame_slot(extent.extent);
        let end = slot.0 + self.geometry.slots_left(slot);
        let (mut empty, mut last_slots, mut is_present) = (0, 1, false);
        while slot.0 < end && empty < reach {
            let Some(checked) = self.frame_at(extent, slot, last_slots)? else {
                (slot, empty, last_slots) = (slot.offset_by(1), empty + 1, 1);
                continue;
            };
            let header = &checked.header;
            self.note_statement(header);
            self.seen.durable = self.seen.durable.max(header.durable);
            is_present |= self.is_present(&checked);
            last_slots = header.slots(&self.geometry);
            (slot, empty) = (slot.offset_by(last_slots), 0);
        }
        Ok(is_present)
    }

    fn frame_at(
        &mut self,
        extent: &ExtentHeader,
        slot: SlotIndex,
        last_slots: u64,
    ) -> Result<Option<CheckedHeader>, RecoveryError> {
        let want = if last_slots >= HEADER_ONLY_SLOTS_MIN { 1 } else { self.window.capacity_slots() };
        let bytes = match self.window.at(slot, 1, want) {
            Ok(bytes) => bytes,
            Err(RecoveryError::Unreadable { .. }) if self.context.options.salvage => return Ok(None),
            Err(error) => return Err(error),
        };
        let checked = match FrameHeader::decode(bytes) {
            Ok(checked) => checked,
            Err(FrameError::NewerVersion { found }) => {
                return Err(RecoveryError::NewerVersion { slot, found });
            }
            Err(_) => return Ok(None),
        };
        let header = &checked.header;
        let is_of_store = header.store == self.context.superblock.store && header.base_slot == slot;
        if is_of_store {
            self.seen.highest_term = self.seen.highest_term.max(header.term);
        }
        let is_ours = header.shard == self.shard && header.generation == extent.generation;
        let counts = is_of_store && is_ours && self.term_fits(header) && fits(&self.geometry, header);
        Ok(counts.then_some(checked))
    }

    fn term_fits(&self, header: &FrameHeader) -> bool {
        header.number < self.entry.durable || header.term >= self.context.superblock.term
    }

    /// Of this term, or the very frame at which the log ended when the term began.
    fn is_present(&self, checked: &CheckedHeader) -> bool {
        let header = &checked.header;
        let is_last = header.number.next() == self.entry.durable && checked.link == self.entry.tail_link;
        is_last || (header.number >= self.entry.durable && header.term >= self.context.superblock.term)
    }

    /// A statement counts if the extent that it leads to is still the shard's, in the same generation.
    fn note_statement(&mut self, frame: &FrameHeader) {
        let Some(address) = frame.checkpoint.filter(|address| Some(*address) != self.last_stated) else {
            return;
        };
        self.last_stated = Some(address);
        let slot = address.slot(&self.geometry);
        let extent = address.extent(&self.geometry);
        let claim = self.extents.chain.iter().find(|claim| claim.extent == extent);
        let Some(claim) = claim.filter(|claim| address.is_of(claim.generation)) else { return };
        let is_place =
            address.byte() == self.geometry.byte_of(slot) && slot != self.geometry.header_slot(extent);
        let start = Start { address, ordinal: claim.ordinal, slot };
        let is_further =
            self.seen.start.is_none_or(|known| (known.ordinal, known.slot) < (start.ordinal, slot));
        if is_place && is_further {
            self.seen.start = Some(start);
        }
    }
}

impl ShardExtents {
    /// Divides the claims: those before the start, of which the checkpoint says what they are; those that the walk
    /// goes through, without a gap; and those behind a gap.
    pub(super) fn divided(&self, start: Option<&Start>) -> (Vec<ExtentHeader>, Self) {
        let first =
            start.map_or(0, |start| self.chain.partition_point(|claim| claim.ordinal < start.ordinal));
        let (before, rest) = self.chain.split_at(first.min(self.chain.len()));
        let without_gap = rest
            .iter()
            .zip(rest.iter().skip(1))
            .position(|(one, other)| other.ordinal.0 != one.ordinal.0 + 1)
            .map_or(rest.len(), |before| before + 1);
        let (chain, beyond) = rest.split_at(without_gap);
        (before.to_vec(), Self { chain: chain.to_vec(), beyond: beyond.to_vec(), ..self.clone() })
    }
}
