//! What batches and large records lead to is all there, and nothing else.

use super::{View, check_record};
use crate::{
    address::Address,
    format::{
        checksum::StoreSeed,
        control::LogPlace,
        frame::FrameHeader,
        manifest::{Manifest, ManifestOf},
        moved::Origin,
        record::{RecordFlags, RecordKind, RecordView},
    },
    geometry::Geometry,
    ids::{ExtentOrdinal, FrameNumber, SlotIndex},
    manifest::{Found, ManifestWalk, WalkSetup, WalkStep},
    recovery::RecoveredShard,
    scan::{ExtentSequence, Run, SequencedExtent},
    sim::{image::Taint, oracle::Oracle, payload::identify},
};
use bytes::Bytes;
use std::ops::Range;

/// What a record is the root of.
pub(super) fn root_of(view: &RecordView<'_>) -> Option<ManifestOf> {
    match view.kind {
        RecordKind::BATCH_COMMIT if view.flags == RecordFlags::NONE => Some(ManifestOf::Batch),
        RecordKind::LARGE_MANIFEST if view.flags == RecordFlags::NONE => Some(ManifestOf::Large),
        _ => None,
    }
}

pub(in crate::sim) struct Extents<'a>(pub(in crate::sim) &'a RecoveredShard);

impl ExtentSequence for Extents<'_> {
    fn extent_at(&self, ordinal: ExtentOrdinal) -> Option<SequencedExtent> {
        let found = self.0.extents.iter().find(|extent| extent.ordinal == ordinal)?;
        Some(SequencedExtent { extent: found.index, generation: found.generation })
    }

    fn frames_end(&self, ordinal: ExtentOrdinal) -> Option<FrameNumber> {
        let mut but_last = self.0.space.extents.iter().rev().skip(1);
        let facts = but_last.find(|facts| facts.ordinal == ordinal)?;
        Some(facts.frames_end())
    }

    fn is_gone(&self, origin: &Origin) -> bool {
        self.0.is_gone(origin)
    }

    fn ordinals(&self) -> Range<u64> {
        let first = self.0.extents.first().map_or(0, |extent| extent.ordinal.0);
        first..self.0.extents.last().map_or(first, |extent| extent.ordinal.0 + 1)
    }
}

/// True if the log was trimmed to behind this byte of the store.
fn is_trimmed(found: &RecoveredShard, geometry: &Geometry, byte: u64) -> bool {
    let extent = geometry.extent_of_byte(byte);
    let found_in = found.extents.iter().find(|it| it.index == extent);
    found_in.is_some_and(|it| LogPlace { ordinal: it.ordinal, byte } < found.space.trim)
}

impl View<'_> {
    /// The records that a list leads to. `None`: the device lied about a part of it, and that was noticed.
    pub(super) fn check_list(
        &self,
        oracle: &mut Oracle,
        found: &RecoveredShard,
        header: &FrameHeader,
        root: &RecordView<'_>,
        of: ManifestOf,
        byte: u64,
    ) -> Result<Option<usize>, String> {
        let geometry = self.superblock.geometry;
        let wrong =
            |what: String| format!("I1: the {of:?} list in {:?} {:?}: {what}", found.shard, header.number);
        let list = Manifest::decode_root(root.payload, of).map_err(|error| wrong(error.to_string()))?;
        let setup = WalkSetup { seed: StoreSeed::new(self.superblock.store), geometry, of };
        let mut walk = ManifestWalk::new(setup, &list, 0);
        let (mut seen, mut whole, mut is_hit) = (0, Vec::new(), false);
        loop {
            match walk.step(&Extents(found)) {
                WalkStep::Found(Found { address, payload, .. }) if of == ManifestOf::Batch => {
                    let checked = identify(&payload)
                        .ok_or_else(|| wrong(format!("foreign bytes at {address}")))
                        .and_then(|id| check_record(oracle, found.shard, header, id, payload.len(), address));
                    match checked {
                        Ok(()) => seen += 1,
                        // As for single records.
                        Err(_) if is_hit => return Ok(None),
                        Err(violation) => return Err(violation),
                    }
                }
                WalkStep::Found(Found { payload, .. }) => whole.extend_from_slice(&payload),
                WalkStep::Need => {
                    if let Some(run) = walk.ask() {
                        is_hit |= self.is_tainted(run.slot, run.slots, Taint::LIE);
                        walk.supply(run.slot, Ok(self.slots(run)));
                    }
                }
                WalkStep::Fault(_) if is_hit => return Ok(None),
                WalkStep::Fault(fault) => return Err(wrong(format!("{}: {}", fault.address, fault.fault))),
                // Nobody wants what has its root before the mark.
                WalkStep::Reclaimed(_) if is_trimmed(found, &geometry, byte) => return Ok(None),
                // Cleaning moved what was wanted of it; whether all of that came to another place the scan tells.
                WalkStep::Reclaimed(_) if of == ManifestOf::Batch && oracle.index.is_some() => {}
                WalkStep::Reclaimed(_)
                    if of == ManifestOf::Large && oracle.is_given_up(found.shard, byte) =>
                {
                    return Ok(Some(1));
                }
                WalkStep::Reclaimed(address) => return Err(wrong(format!("{address} is gone"))),
                WalkStep::End => break,
            }
        }
        if of == ManifestOf::Batch {
            return Ok(Some(seen));
        }
        let checked = identify(&whole).ok_or_else(|| wrong("foreign bytes".to_owned())).and_then(|id| {
            let at = Address::new(&geometry, byte, header.generation, root.payload.len() as u64);
            check_record(oracle, found.shard, header, id, whole.len(), at)
        });
        match checked {
            Ok(()) => Ok(Some(1)),
            Err(_) if is_hit => Ok(None),
            Err(violation) => Err(violation),
        }
    }

    pub(in crate::sim) fn slots(&self, run: Run) -> Bytes {
        let slot_bytes = self.superblock.geometry.slot_bytes();
        let mut bytes = vec![0; (run.slots * slot_bytes) as usize];
        for (index, slot) in bytes.chunks_mut(slot_bytes as usize).enumerate() {
            self.read(SlotIndex(run.slot.0 + index as u64), slot);
        }
        Bytes::from(bytes)
    }
}
