//! Reading a shard's log in order, without doing any I/O: a [`Scanner`] says which slots it needs, whoever drives it
//! reads them, and records come out.
//!
//! Nothing is yielded from a frame before the whole frame was seen: its header has to be exactly the next one of the
//! chain, and the headers of its records have to be those that the frame header was made for. Each record's checksum
//! is checked when its turn comes. Payloads are slices of the memory that was read; a record that lies across two
//! reads is copied.
//!
//! The scan never goes behind the [`Limit`] that it was given, so that it can run beside the shard's writer.

#![deny(clippy::indexing_slicing)]

use crate::{
    address::Address,
    directory::Directory,
    extents::{ExtentEntry, ExtentUse},
    format::{
        control::LogPlace,
        moved::Origin,
        record::{RecordFlags, RecordKind},
    },
    geometry::Geometry,
    ids::{ExtentIndex, ExtentOrdinal, FrameNumber, Generation, ShardId, SlotIndex, StoreId},
    shard::Shard,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::ops::Range;

mod copies;
mod error;
mod frame;
mod locate;
mod pins;
mod scanner;
#[cfg(test)]
mod tests;
mod window;
mod within;

pub use error::{Damage, Fault, ScanPlace};
pub use locate::{Locate, LocateStep};
pub(crate) use pins::ScanPins;
pub use pins::{CleaningHold, CleaningPause, ScanPin};
pub use scanner::{Scanner, Step};

/// Slots to read; they lie in one extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first.
    pub slot: SlotIndex,
    /// How many.
    pub slots: u64,
}

impl Run {
    /// The slot behind the last.
    #[must_use]
    pub const fn end(&self) -> SlotIndex {
        SlotIndex(self.slot.0 + self.slots)
    }

    /// True if `slot` is one of them.
    #[must_use]
    pub const fn contains(&self, slot: SlotIndex) -> bool {
        self.slot.0 <= slot.0 && slot.0 < self.slot.0 + self.slots
    }
}

/// An extent in a shard's sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequencedExtent {
    /// Which.
    pub extent: ExtentIndex,
    /// Its generation, by its header.
    pub generation: Generation,
}

/// The extents of a shard, in order. What it says may grow at its end, and shrink at its beginning, between calls.
pub trait ExtentSequence {
    /// The extent with an ordinal; `None` if the shard has no such extent, or no longer.
    fn extent_at(&self, ordinal: ExtentOrdinal) -> Option<SequencedExtent>;

    /// The generation of an extent, if the shard has it now.
    fn generation_of(&self, extent: ExtentIndex) -> Option<Generation> {
        let mut ordinals = self.ordinals();
        let found =
            ordinals.find_map(|it| self.extent_at(ExtentOrdinal(it)).filter(|it| it.extent == extent));
        found.map(|it| it.generation)
    }

    /// The frame behind the last one in an extent that takes no more, where that is known.
    fn frames_end(&self, ordinal: ExtentOrdinal) -> Option<FrameNumber> {
        let _unknown = ordinal;
        None
    }

    /// True if an extent is no longer what it was when records were copied from it, so that the copies count. As it
    /// stands, for origins in the same shard.
    fn is_gone(&self, origin: &Origin) -> bool {
        let same = SequencedExtent { extent: origin.extent, generation: origin.generation };
        self.extent_at(origin.ordinal) != Some(same)
    }

    /// True if the shard was trimmed beyond an extent that it no longer has; one that is missing and was not trimmed
    /// was cleaned.
    fn is_trimmed(&self, ordinal: ExtentOrdinal) -> bool {
        let _of_what_does_not_change = ordinal;
        true
    }

    /// From the ordinal of the first to behind that of the last. What was freed leaves gaps between.
    fn ordinals(&self) -> Range<u64>;

    /// What was trimmed: nothing before it is wanted.
    fn trim(&self) -> LogPlace {
        LogPlace::default()
    }

    /// True if what has its root at `root`, and begins in the extent `from`, lost its beginning by trimming. Nobody
    /// wants it any more, and what is left of it is none.
    fn has_trimmed(&self, root: LogPlace, from: Option<ExtentOrdinal>) -> bool {
        from.is_some_and(|from| from.0 < self.ordinals().start) && root < self.trim()
    }

    /// The first ordinal behind `ordinal` that the shard has an extent with.
    fn ordinal_after(&self, ordinal: ExtentOrdinal) -> Option<ExtentOrdinal> {
        let ordinals = self.ordinals();
        let mut behind = ordinals.start.max(ordinal.0 + 1)..ordinals.end;
        behind.find(|it| self.extent_at(ExtentOrdinal(*it)).is_some()).map(ExtentOrdinal)
    }
}

/// The extents of a shard of an open store.
#[derive(Clone, Copy, Debug)]
pub struct LiveExtents<'store> {
    /// The store.
    pub directory: &'store Directory,
    /// The shard.
    pub shard: &'store Shard,
    /// What counts as gone: [`ScanPin::given_up`].
    pub given_up: Option<Origin>,
}

impl ExtentSequence for LiveExtents<'_> {
    fn extent_at(&self, ordinal: ExtentOrdinal) -> Option<SequencedExtent> {
        if self.is_given_up(ordinal) {
            return None;
        }
        let extent = self.shard.extent_at(ordinal)?;
        let entry = self.directory.extents.get(extent)?;
        let is_ours = entry.usage == ExtentUse::Claimed && entry.shard == self.shard.id();
        is_ours.then_some(SequencedExtent { extent, generation: entry.generation })
    }

    fn generation_of(&self, extent: ExtentIndex) -> Option<Generation> {
        let entry = self.directory.extents.get(extent)?;
        let is_given_up = self.given_up.is_some_and(|it| {
            (it.shard, it.extent, it.generation) == (self.shard.id(), extent, entry.generation)
        });
        let is_ours = entry.usage == ExtentUse::Claimed && entry.shard == self.shard.id();
        let ordinal = self.directory.extents.ordinal(extent)?;
        let is_there = is_ours && !is_given_up && has_extent(self.shard, ordinal, extent);
        is_there.then_some(entry.generation)
    }

    fn frames_end(&self, ordinal: ExtentOrdinal) -> Option<FrameNumber> {
        self.shard.frames_end(ordinal)
    }

    fn is_gone(&self, origin: &Origin) -> bool {
        if self.given_up == Some(*origin) {
            return true;
        }
        let is_it = |entry: ExtentEntry| {
            entry.usage == ExtentUse::Claimed
                && entry.generation == origin.generation
                && entry.shard == origin.shard
        };
        let is_claimed = self.directory.extents.get(origin.extent).is_some_and(is_it);
        let owner = self.directory.shard(origin.shard);
        !(is_claimed && owner.is_some_and(|owner| has_extent(owner, origin.ordinal, origin.extent)))
    }

    fn is_trimmed(&self, ordinal: ExtentOrdinal) -> bool {
        ordinal < self.shard.space().trim.ordinal
    }

    fn ordinals(&self) -> Range<u64> {
        self.shard.ordinals()
    }

    fn trim(&self) -> LogPlace {
        self.shard.trim()
    }

    fn ordinal_after(&self, ordinal: ExtentOrdinal) -> Option<ExtentOrdinal> {
        let next = self.shard.extent_from(ExtentOrdinal(ordinal.0 + 1))?.ordinal;
        if !self.is_given_up(next) {
            return Some(next);
        }
        Some(self.shard.extent_from(ExtentOrdinal(next.0 + 1))?.ordinal)
    }
}

impl LiveExtents<'_> {
    fn is_given_up(&self, ordinal: ExtentOrdinal) -> bool {
        self.given_up.is_some_and(|it| it.shard == self.shard.id() && it.ordinal == ordinal)
    }
}

/// What is freed is taken from its shard first, and is anybody's then. A scan that finds it gone by the one must not find it
/// there by the other, or it passes over the originals and over the copies.
fn has_extent(shard: &Shard, ordinal: ExtentOrdinal, extent: ExtentIndex) -> bool {
    shard.extent_at(ordinal) == Some(extent)
}

/// How far a scan may go: to the first that it meets of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Frames below this number may be read.
    pub frames: FrameNumber,
    /// The slot behind the last of them, or where the first one goes.
    pub end: SlotIndex,
}

impl Limit {
    /// What a shard has written so far.
    #[must_use]
    pub fn written(shard: &Shard) -> Self {
        // In this order: the owner moves the end first, so the end covers the frames.
        let frames = shard.written.reached();
        Self { frames, end: shard.written_end() }
    }

    /// The extent in which the log ends.
    pub(crate) const fn last_extent(&self, geometry: &Geometry) -> ExtentIndex {
        geometry.extent_of(SlotIndex(self.end.0.saturating_sub(1)))
    }
}

/// What a scan does at a place that is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnDamage {
    /// It reports the damage and ends.
    #[default]
    Stop,
    /// It reports the damage and goes on with the next record, or frame, that is good.
    Skip,
}

/// Which records come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Wanted {
    /// The caller's: data, the records of a batch where it is committed, and the lists of large records.
    #[default]
    Data,
    /// All, those of the engine and the void ones too.
    All,
}

/// What stays the same in one scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanSetup {
    /// The store.
    pub store: StoreId,
    /// The shard.
    pub shard: ShardId,
    /// Slot and extent size.
    pub geometry: Geometry,
    /// Bytes of one read.
    pub chunk_bytes: u64,
    /// Which records come out.
    pub wanted: Wanted,
    /// What happens at damage.
    pub on_damage: OnDamage,
}

/// Where a scan begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record.
    Oldest,
    /// Behind the last record that another scan yielded.
    Position(Position),
    /// At the first record at or behind an address, which has to be one of the shard's. `ordinal` is that of its
    /// extent.
    Address {
        /// The address.
        address: Address,
        /// Its extent's.
        ordinal: ExtentOrdinal,
    },
    /// At the first record of a frame, or of the next one that there is. `ordinal` is what [`Locate`] found.
    Frame {
        /// The frame.
        frame: FrameNumber,
        /// The extent's.
        ordinal: ExtentOrdinal,
    },
}

/// A place between two records of a shard, to go on from: also later, and after the store was opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    pub(crate) shard: ShardId,
    pub(crate) ordinal: ExtentOrdinal,
    /// Where the frame is, or goes; `None`: at the start of the extent.
    pub(crate) slot: Option<SlotIndex>,
    /// `None`: whichever is there.
    pub(crate) frame: Option<FrameNumber>,
    /// Checksum of the frame before; `None`: not known.
    pub(crate) link: Option<u32>,
    /// Bytes of the frame that are done with; 0 for a frame that was not begun.
    pub(crate) offset: u32,
    /// A batch is committed at `offset`, and so many of its records are done with.
    #[serde(default)]
    pub(crate) of_batch: u64,
}

impl Position {
    /// The shard.
    #[must_use]
    pub const fn shard(&self) -> ShardId {
        self.shard
    }

    /// The same as a place that trims and cursors take.
    #[must_use]
    pub const fn place(&self, geometry: &Geometry) -> LogPlace {
        let byte = match self.slot {
            Some(slot) => geometry.byte_of(slot) + self.offset as u64,
            None => 0,
        };
        LogPlace { ordinal: self.ordinal, byte }
    }

    /// The frame that the next record is in, or behind; `None` before the first record of a shard was read.
    #[must_use]
    pub const fn frame(&self) -> Option<FrameNumber> {
        self.frame
    }
}

/// A record that came out of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanRecord {
    /// Where it is.
    pub address: Address,
    /// The frame that carries it.
    pub frame: FrameNumber,
    /// When the frame was submitted, in nanoseconds of the Unix clock.
    pub unix_ns: u64,
    /// What it is.
    pub kind: RecordKind,
    /// The kind's flags.
    pub flags: RecordFlags,
    /// Its bytes. They may be a part of the memory of a whole read, which is kept as long as this is.
    pub payload: Bytes,
}
