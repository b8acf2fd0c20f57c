//! Scans of a store that is only inspected: the scanner of an open store, over plain reads.

use super::Inspection;
use crate::scan::{Record, ScanError, ScanFrom};
use bytes::Bytes;
use corelog_shards::{
    address::Address,
    format::{control::LogPlace, moved::Origin},
    geometry::Geometry,
    ids::{ExtentOrdinal, FrameNumber, ShardId, SlotIndex},
    limits::SCAN_CHUNK_BYTES,
    reads::ReadError,
    recovery::RecoveredShard,
    scan::{
        ExtentSequence, Fault, Limit, Locate, LocateStep, OnDamage, Position, ScanSetup, Scanner,
        SequencedExtent, Start, Step, Wanted,
    },
};
use std::ops::Range;

/// The extents of a shard, as recovery found them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recovered<'a>(pub(crate) &'a RecoveredShard);

impl ExtentSequence for Recovered<'_> {
    fn extent_at(&self, ordinal: ExtentOrdinal) -> Option<SequencedExtent> {
        let index = self.0.extents.binary_search_by_key(&ordinal, |extent| extent.ordinal).ok()?;
        let extent = self.0.extents.get(index)?;
        Some(SequencedExtent { extent: extent.index, generation: extent.generation })
    }

    fn frames_end(&self, ordinal: ExtentOrdinal) -> Option<FrameNumber> {
        let (_, but_last) = self.0.space.extents.split_last()?;
        let index = but_last.binary_search_by_key(&ordinal, |facts| facts.ordinal).ok()?;
        let facts = but_last.get(index)?;
        Some(facts.frames_end())
    }

    fn is_gone(&self, origin: &Origin) -> bool {
        self.0.is_gone(origin)
    }

    fn ordinals(&self) -> Range<u64> {
        match (self.0.extents.first(), self.0.extents.last()) {
            (Some(first), Some(last)) => first.ordinal.0..last.ordinal.0 + 1,
            _ => 0..0,
        }
    }

    fn trim(&self) -> LogPlace {
        self.0.space.trim
    }

    fn ordinal_after(&self, ordinal: ExtentOrdinal) -> Option<ExtentOrdinal> {
        let behind = self.0.extents.partition_point(|extent| extent.ordinal <= ordinal);
        Some(self.0.extents.get(behind)?.ordinal)
    }
}

impl Recovered<'_> {
    /// Where an address of the shard is in the order of its log.
    pub(super) fn place_of(&self, address: Address, geometry: &Geometry) -> LogPlace {
        let extent = address.extent(geometry);
        let found = self.0.extents.iter().find(|found| found.index == extent);
        LogPlace {
            ordinal: found.map_or(ExtentOrdinal::default(), |found| found.ordinal),
            byte: address.byte(),
        }
    }

    /// The log as an open would take it over.
    pub(super) fn limit(&self, geometry: &Geometry) -> Limit {
        let shard = self.0;
        let used = shard.extents.get(..shard.used_extents).unwrap_or(&shard.extents);
        let end = match (used.last(), shard.next_slot) {
            (Some(_), Some(next)) => next,
            (Some(last), None) => end_of(geometry, last.index),
            (None, _) => {
                shard.extents.first().map_or(SlotIndex(0), |first| geometry.first_frame_slot(first.index))
            }
        };
        Limit { frames: shard.next_frame, end }
    }

    /// As far as frames are known to have been durable, also where recovery had to cut the log.
    pub(super) fn limit_of_durable(&self, geometry: &Geometry) -> Limit {
        let shard = self.0;
        match shard.extents.last() {
            Some(last) if shard.durable_witness > shard.next_frame => {
                Limit { frames: shard.durable_witness, end: end_of(geometry, last.index) }
            }
            _ => self.limit(geometry),
        }
    }
}

fn end_of(geometry: &Geometry, extent: corelog_shards::ids::ExtentIndex) -> SlotIndex {
    geometry.header_slot(extent).offset_by(geometry.slots_per_extent())
}

impl Inspection {
    /// Reads the records of a shard, in order. With [`InspectionScan::skip_damage`] it goes on behind what is damaged.
    pub fn scan(&self, shard: ShardId) -> Result<InspectionScan<'_>, ScanError> {
        self.scan_from(shard, ScanFrom::Oldest)
    }

    /// Reads the records of a shard from a place on.
    pub fn scan_from(&self, shard: ShardId, from: ScanFrom) -> Result<InspectionScan<'_>, ScanError> {
        let last = (self.report.shards.len() as u16).saturating_sub(1);
        let recovered = self.report.shards.get(usize::from(shard.0));
        let extents = Recovered(recovered.ok_or(ScanError::NoSuchShard { shard, last })?);
        let limit = extents.limit(&self.superblock.geometry);
        let start = self.start(extents, &limit, from)?;
        Ok(InspectionScan {
            store: self,
            extents,
            start,
            scanner: self.scanner(extents, start, limit, Wanted::Data, OnDamage::Stop),
            is_over: false,
        })
    }

    fn start(&self, extents: Recovered<'_>, limit: &Limit, from: ScanFrom) -> Result<Start, ScanError> {
        let shard = extents.0.shard;
        let other = |found| Err(ScanError::OtherShard { shard, found });
        match from {
            ScanFrom::Oldest => Ok(Start::Oldest),
            ScanFrom::Position(position) if position.shard() != shard => other(position.shard()),
            ScanFrom::Position(position) => Ok(Start::Position(position)),
            ScanFrom::Address(address) => {
                let owner = self.owner(address).map_err(ScanError::Begin)?;
                if owner.shard != shard {
                    return other(owner.shard);
                }
                let extent = address.extent(&self.superblock.geometry);
                Ok(Start::Address { address, ordinal: self.extents.ordinal(extent).unwrap_or_default() })
            }
            ScanFrom::Frame(frame) => {
                let ordinal = self.locate(extents, limit, frame).unwrap_or_default();
                Ok(Start::Frame { frame, ordinal })
            }
        }
    }

    fn locate(&self, extents: Recovered<'_>, limit: &Limit, frame: FrameNumber) -> Option<ExtentOrdinal> {
        let superblock = &self.superblock;
        let geometry = superblock.geometry;
        let mut locate = Locate::new(superblock.store, extents.0.shard, geometry, frame, limit, &extents);
        loop {
            match locate.step(&extents) {
                LocateStep::Need(run) => {
                    let slots = self.slots(run.slot, run.slots).ok();
                    locate.supply(slots.as_ref().map(AsRef::as_ref));
                }
                LocateStep::Found(ordinal) => return ordinal,
            }
        }
    }

    pub(super) fn scanner(
        &self,
        extents: Recovered<'_>,
        start: Start,
        limit: Limit,
        wanted: Wanted,
        on_damage: OnDamage,
    ) -> Scanner {
        let setup = ScanSetup {
            store: self.superblock.store,
            shard: extents.0.shard,
            geometry: self.superblock.geometry,
            chunk_bytes: SCAN_CHUNK_BYTES,
            wanted,
            on_damage,
        };
        Scanner::new(setup, start, limit, &extents)
    }

    /// Steps until there is something to tell.
    pub(super) fn drive(&self, scanner: &mut Scanner, extents: &Recovered<'_>) -> Result<Step, ReadError> {
        loop {
            match scanner.step(extents) {
                Step::Need => {}
                step => return Ok(step),
            }
            // One read is made at a time, so what is needed is never under way.
            while let Some(run) = scanner.ask(1, extents) {
                match self.slots(run.slot, run.slots) {
                    Ok(buffer) => scanner.supply(run.slot, Bytes::from_owner(buffer)),
                    Err(error @ ReadError::NoMemory { .. }) => return Err(error),
                    Err(error) => scanner.supply_failure(run.slot, error),
                }
            }
        }
    }
}

/// A scan of one shard of an inspected store.
#[derive(Debug)]
pub struct InspectionScan<'store> {
    store: &'store Inspection,
    extents: Recovered<'store>,
    start: Start,
    scanner: Scanner,
    is_over: bool,
}

impl InspectionScan<'_> {
    /// Reports damage and goes on behind it, as far as frames are known to have been durable. Call it first.
    #[must_use]
    pub fn skip_damage(mut self) -> Self {
        let limit = self.extents.limit_of_durable(&self.store.superblock.geometry);
        self.scanner = self.store.scanner(self.extents, self.start, limit, Wanted::Data, OnDamage::Skip);
        self
    }

    /// Where to go on from, behind the last record that was yielded, in this inspection or a later one. `None`: the
    /// shard has no frame yet.
    #[must_use]
    pub fn resume_at(&self) -> Option<Position> {
        (self.extents.0.frames > 0).then(|| self.scanner.position())
    }

    /// The frame behind the last record that was yielded, for progress.
    #[must_use]
    pub fn frame(&self) -> Option<FrameNumber> {
        self.scanner.position().frame()
    }
}

impl Iterator for InspectionScan<'_> {
    type Item = Result<Record, ScanError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = match self.store.drive(&mut self.scanner, &self.extents) {
            Ok(Step::Record(record)) => return Some(Ok(Record::new(self.extents.0.shard, record))),
            Ok(Step::Damage(damage)) if damage.fault == Fault::Reclaimed => {
                Some(Err(ScanError::Reclaimed { shard: self.extents.0.shard }))
            }
            Ok(Step::Damage(damage)) => Some(Err(ScanError::Damage(damage))),
            Ok(Step::End | Step::Need) => None,
            Err(error) => Some(Err(ScanError::Read(error))),
        };
        self.is_over = !matches!(next, Some(Err(ScanError::Damage(_)))) || self.scanner.is_stopped();
        next
    }
}
