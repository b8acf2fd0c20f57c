//! Taking what is intact out of a damaged store, and saying what is not.
//!
//! Opening follows the chain of frames and stops where it breaks; this looks at every slot of every extent instead,
//! and believes each frame, and each record, for itself. It writes nothing to the damaged store.

use crate::{error::OpenError, inspect::Inspection, options::Options};
use bytes::Bytes;
use corelog_shards::{
    address::Address,
    format::{
        checksum::StoreSeed,
        control::{ExtentFacts, LogPlace},
        extent_header::{ExtentHeader, ExtentHeaderError, ExtentState},
        frame::FrameHeader,
        superblock::Superblock,
    },
    geometry::Geometry,
    ids::{DeviceIndex, ExtentIndex, ExtentOrdinal, FrameNumber, Generation, ShardId, SlotIndex},
    limits::LISTED_PLACES_MAX,
    memory::MemoryError,
};
use serde::Serialize;
use std::path::Path;

mod lists;
mod reading;
mod records;
mod shard;

use reading::Slots;

/// A record that is intact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SalvagedRecord {
    /// Its shard.
    pub shard: ShardId,
    /// Where it was; of a part, where the large record was.
    pub address: Address,
    /// Its bytes; of a large record, those of one part.
    pub payload: Bytes,
    /// Which part of a large record this is. Its parts come one after the other, without another record in between;
    /// where one is lost, the rest does not come.
    pub part: Option<SalvagedPart>,
}

/// A part of a large record that is intact so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SalvagedPart {
    /// Bytes of the record in front of it.
    pub offset: u64,
    /// Bytes of the whole record.
    pub bytes: u64,
}

/// What is lost, or was never certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LossOf {
    /// Both copies of an extent's header; whose it was is taken from its frames.
    ExtentHeader,
    /// Frames that were durable: their headers are gone. Records in them may be intact, and then are not lost.
    Frames {
        /// The first.
        first: FrameNumber,
        /// How many.
        count: u64,
    },
    /// A record of a frame that is there otherwise.
    Record {
        /// The frame.
        frame: FrameNumber,
        /// Byte of the store at which the record begins, or something that no record can be found in.
        byte: u64,
    },
    /// Slots that the device cannot read; what they held shows as lost frames or records.
    Slots {
        /// How many.
        count: u64,
    },
    /// Frames at the end of a log that did not arrive whole; nobody was told that they were durable.
    Tail {
        /// The first.
        first: FrameNumber,
    },
}

impl LossOf {
    /// False for what nobody was promised.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        !matches!(self, Self::Tail { .. })
    }
}

/// A place where something is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SalvageLoss {
    /// The shard; `None`: nothing tells whose it was.
    pub shard: Option<ShardId>,
    /// The first slot.
    pub slot: SlotIndex,
    /// The device that holds it, and the byte on it.
    pub on_device: Option<(DeviceIndex, u64)>,
    /// What.
    pub of: LossOf,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SalvageReport {
    /// Records that are intact.
    pub records: u64,
    /// Their payloads, in bytes.
    pub bytes: u64,
    /// Those of them that lay where a frame's header is gone.
    pub records_without_frame: u64,
    /// Frames whose header is good.
    pub frames: u64,
    /// Places of loss.
    pub losses: u64,
    /// The first of those places, and of ends of logs that did not arrive whole.
    pub places: Vec<SalvageLoss>,
}

impl SalvageReport {
    /// True if something was lost that had been durable.
    #[must_use]
    pub const fn is_damaged(&self) -> bool {
        self.losses > 0
    }

    fn lose(&mut self, loss: SalvageLoss) {
        self.losses += u64::from(loss.of.is_damage());
        if self.places.len() < LISTED_PLACES_MAX {
            self.places.push(loss);
        }
    }
}

/// Why salvage ended early.
#[derive(Debug, thiserror::Error)]
pub enum SalvageError<E> {
    /// No memory to read into.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Whoever takes the records could not.
    #[error("{0}")]
    Sink(E),
}

/// A damaged store, to be read.
#[derive(Debug)]
pub struct Salvage {
    inspection: Inspection,
}

/// An extent of a shard, as far as it can be told.
#[derive(Clone, Copy, Debug)]
struct Found {
    extent: ExtentIndex,
    generation: Generation,
    shard: ShardId,
    /// The first frame of the shard's log in it, or what it was when the extent was claimed.
    first: FrameNumber,
    ordinal: ExtentOrdinal,
    /// A frame was seen.
    is_seen: bool,
}

impl Salvage {
    /// Opens the store. At least one copy of its superblock has to be good.
    pub fn open<P: AsRef<Path>>(paths: &[P], options: &Options) -> Result<Self, OpenError> {
        let options = options.clone().salvage(true).verify_on_open(false);
        Ok(Self { inspection: Inspection::open(paths, &options)? })
    }

    /// What the store is made of.
    #[must_use]
    pub const fn superblock(&self) -> &Superblock {
        self.inspection.superblock()
    }

    /// See [`Inspection::warnings`].
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.inspection.warnings()
    }

    /// Gives every intact record to `sink`, shard by shard in the order of its log.
    pub fn run<E>(
        &self,
        sink: &mut dyn FnMut(SalvagedRecord) -> Result<(), E>,
    ) -> Result<SalvageReport, SalvageError<E>> {
        let mut slots = Slots::new(&self.inspection)?;
        let mut report = SalvageReport::default();
        let mut durable = self.known_durable();
        let mut found = Vec::new();
        for extent in (0..self.superblock().extent_count()).map(ExtentIndex) {
            found.extend(self.identify(&mut slots, extent, &mut durable, &mut report)?);
        }
        for (shard, durable) in (0..).map(ShardId).zip(durable) {
            let mut extents: Vec<Found> = found.iter().copied().filter(|it| it.shard == shard).collect();
            extents.sort_by_key(|found| (found.first, found.ordinal));
            let mut walk = shard::Walk::new(self, &mut slots, &mut report, shard, durable);
            walk.run(&extents, sink)?;
        }
        Ok(report)
    }

    fn geometry(&self) -> Geometry {
        self.superblock().geometry
    }

    fn seed(&self) -> StoreSeed {
        StoreSeed::new(self.superblock().store)
    }

    /// By shard, the frames that were durable as the superblock and the recovered logs say.
    fn known_durable(&self) -> Vec<FrameNumber> {
        let report = self.inspection.report();
        let by_log = |shard: usize| report.shards.get(shard).map(|shard| shard.durable_witness);
        let entries = self.superblock().shards.iter().enumerate();
        entries.map(|(shard, entry)| entry.durable.max(by_log(shard).unwrap_or_default())).collect()
    }

    /// Whose an extent is: by its header, or else by its newest frames. `None`: nobody's, or nothing tells.
    fn identify(
        &self,
        slots: &mut Slots<'_>,
        extent: ExtentIndex,
        durable: &mut [FrameNumber],
        report: &mut SalvageReport,
    ) -> Result<Option<Found>, MemoryError> {
        let store = self.superblock().store;
        let header_slot = self.geometry().header_slot(extent);
        let header = ExtentHeader::decode_slot(slots.at(header_slot, 1)?, store, extent).header;
        if header.is_ok_and(|header| header.state == ExtentState::Freed) {
            return Ok(None);
        }
        let report_of =
            |header: &ExtentHeader| self.inspection.report().shards.get(usize::from(header.owner.0));
        let freed = header.ok().as_ref().and_then(report_of).map(|shard| shard.freed.as_slice());
        if freed.is_some_and(|freed| freed.iter().any(|free| free.index == extent)) {
            // It was given up, and nobody has claimed it since.
            return Ok(None);
        }
        let claim = header.ok().map(|header| (header.owner, header.generation));
        // A claimed extent without a sound frame may still hold records.
        let mut found = header.ok().map(|header| Found {
            extent,
            generation: header.generation,
            shard: header.owner,
            first: header.frame_floor,
            ordinal: header.ordinal,
            is_seen: false,
        });
        let mut slot = self.geometry().first_frame_slot(extent);
        let end = SlotIndex(header_slot.0 + self.geometry().slots_per_extent());
        while slot < end {
            let Some(frame) = self.frame_at(slots, slot)? else {
                slot = slot.offset_by(1);
                continue;
            };
            slot = frame.end_slot(&self.geometry());
            if claim.is_some_and(|claim| claim != (frame.shard, frame.generation)) {
                continue;
            }
            if let Some(durable) = durable.get_mut(usize::from(frame.shard.0)) {
                *durable = (*durable).max(frame.durable);
            }
            if found.is_none_or(|found| !found.is_seen || frame.generation > found.generation) {
                let FrameHeader { generation, shard, number: first, .. } = frame;
                let ordinal = found.map_or(ExtentOrdinal(u64::MAX), |found| found.ordinal);
                found = Some(Found { extent, generation, shard, first, ordinal, is_seen: true });
            }
        }
        let is_lost = match header {
            Ok(_) => false,
            // Zeros in front of frames: a header was there.
            Err(ExtentHeaderError::Absent) => found.is_some(),
            Err(_) => true,
        };
        if is_lost {
            report.lose(self.loss(found.map(|found| found.shard), header_slot, LossOf::ExtentHeader));
        }
        Ok(found)
    }

    /// True if the header of an extent says whose it is.
    fn has_sound_header(&self, slots: &mut Slots<'_>, extent: ExtentIndex) -> Result<bool, MemoryError> {
        let slot = slots.at(self.geometry().header_slot(extent), 1)?;
        Ok(ExtentHeader::decode_slot(slot, self.superblock().store, extent).header.is_ok())
    }

    /// True if none of the frames from `first` to before `end` is part of the log: their extents were freed.
    fn was_freed(&self, shard: ShardId, first: FrameNumber, end: FrameNumber) -> bool {
        let Some(found) = self.inspection.report().shards.get(usize::from(shard.0)) else { return false };
        let holds = |facts: &ExtentFacts| facts.first_frame < end && first < facts.frames_end();
        let is_covered = found.began_at.is_some_and(|covers| end <= covers);
        is_covered && !found.space.extents.iter().any(holds)
    }

    /// A sound frame header of this store at its own place, which no recovery cut off.
    fn frame_at(&self, slots: &mut Slots<'_>, slot: SlotIndex) -> Result<Option<FrameHeader>, MemoryError> {
        let superblock = self.superblock();
        let Ok(checked) = FrameHeader::decode(slots.at(slot, 1)?) else { return Ok(None) };
        let frame = checked.header;
        let fits = frame.slots(&superblock.geometry) <= superblock.geometry.slots_left(slot);
        let entry = superblock.shards.get(usize::from(frame.shard.0));
        let counts = entry.is_some_and(|entry| frame.number < entry.durable || frame.term >= superblock.term);
        let is_here = frame.store == superblock.store && frame.base_slot == slot;
        Ok(Some(frame).filter(|_| fits && counts && is_here))
    }

    /// What was trimmed of a shard, as far as its log says it.
    fn trim(&self, shard: ShardId) -> LogPlace {
        let found = self.inspection.report().shards.get(usize::from(shard.0));
        found.map_or(LogPlace::default(), |found| found.space.trim)
    }

    fn loss(&self, shard: Option<ShardId>, slot: SlotIndex, of: LossOf) -> SalvageLoss {
        SalvageLoss { shard, slot, on_device: self.superblock().locate(slot), of }
    }
}
