//! A batch that a scan is in: its records come out where it was committed.

use super::{ExtentSequence, ScanPlace, ScanRecord, ScanSetup, scanner::Step};
use crate::{
    address::Address,
    format::{
        checksum::StoreSeed,
        control::LogPlace,
        manifest::{Manifest, ManifestEntry, ManifestError, ManifestOf},
        record::{RecordFlags, RecordKind, record_bytes},
    },
    geometry::Geometry,
    ids::{ExtentOrdinal, FrameNumber, SlotIndex},
    manifest::{Found, ManifestWalk, WalkSetup, WalkStep},
    scan::{Damage, Fault, Run},
};
use std::ops::Range;

/// What a record means to a scan of what the users appended.
pub(super) enum Meaning {
    /// Give it to them.
    Give,
    /// Give it to them, with all that the list leads to.
    Large(Manifest),
    /// It is not for them.
    Nothing,
    /// The records of a batch come here.
    Batch(Manifest),
    /// It has no meaning.
    Bad(ManifestError),
}

/// Sorts a record whose checksum is good. A copy that counts is what it is a copy of, and one that does not is nothing.
pub(super) fn meaning(record: &ScanRecord) -> Meaning {
    match record.kind {
        RecordKind::DATA => Meaning::Give,
        RecordKind::BATCH_COMMIT if record.flags == RecordFlags::NONE => {
            Manifest::decode_root(&record.payload, ManifestOf::Batch)
                .map_or_else(Meaning::Bad, Meaning::Batch)
        }
        RecordKind::LARGE_MANIFEST if record.flags == RecordFlags::NONE => {
            Manifest::decode_root(&record.payload, ManifestOf::Large)
                .map_or_else(Meaning::Bad, Meaning::Large)
        }
        _ => Meaning::Nothing,
    }
}

/// True if something that the root of a list leads to was freed: nobody wants the large record any more.
pub(super) fn lacks_any(list: &Manifest, geometry: &Geometry, extents: &impl ExtentSequence) -> bool {
    lacking(list, geometry, extents).next().is_some()
}

/// What of it was.
pub(super) fn lacking<'a>(
    list: &'a Manifest,
    geometry: &'a Geometry,
    extents: &'a impl ExtentSequence,
) -> impl Iterator<Item = Address> + 'a {
    let mut last = None;
    let is_gone = move |entry: &&ManifestEntry| {
        let extent = entry.address.extent(geometry);
        // Neighbours mostly lie in the same extent.
        let known = last.filter(|(same, _)| *same == extent);
        let (_, generation) = *last.insert(known.unwrap_or_else(|| (extent, extents.generation_of(extent))));
        !generation.is_some_and(|generation| entry.address.is_of(generation))
    };
    list.entries.iter().filter(is_gone).map(|entry| entry.address)
}

/// A batch whose records are coming out.
#[derive(Debug)]
pub(super) struct WithinBatch {
    walk: ManifestWalk,
    /// Of the commit, in its frame. `None`: the commit is not before the limit, see [`super::Scanner::begin_share`].
    pub(super) offset: Option<u32>,
    frame: FrameNumber,
    unix_ns: u64,
    /// Where the list begins, and the extent that it leads back to. Not of one whose commit is not before the limit.
    pub(super) root: Option<LogPlace>,
    pub(super) from: Option<ExtentOrdinal>,
    /// Records that came out, as bytes of the store.
    pub(super) given: Vec<Range<u64>>,
    /// Groups, and parts of the list, that were gone.
    pub(super) lacks: Vec<Address>,
}

impl WithinBatch {
    pub(super) fn new(
        setup: &ScanSetup,
        seed: StoreSeed,
        commit: &ScanRecord,
        list: &Manifest,
        place: (LogPlace, u32, u64),
    ) -> Self {
        let (root, offset, done) = place;
        let setup = WalkSetup { seed, geometry: setup.geometry, of: ManifestOf::Batch };
        let walk = ManifestWalk::new(setup, list, done);
        Self {
            walk,
            offset: Some(offset),
            frame: commit.frame,
            unix_ns: commit.unix_ns,
            root: Some(root),
            from: list.from,
            given: Vec::new(),
            lacks: Vec::new(),
        }
    }

    /// A batch that counts, and whose commit is not before the limit.
    pub(super) fn share(
        setup: &ScanSetup,
        seed: StoreSeed,
        list: &Manifest,
        frame: FrameNumber,
        unix_ns: u64,
    ) -> Self {
        let setup = WalkSetup { seed, geometry: setup.geometry, of: ManifestOf::Batch };
        let walk = ManifestWalk::new(setup, list, 0);
        let (root, from, given, lacks) = (None, None, Vec::new(), Vec::new());
        Self { walk, offset: None, frame, unix_ns, root, from, given, lacks }
    }

    pub(super) const fn walk(&mut self) -> &mut ManifestWalk {
        &mut self.walk
    }

    pub(super) fn wanted(&self) -> Option<Run> {
        self.walk.wanted()
    }

    /// Records that are done with.
    pub(super) const fn done(&self) -> u64 {
        self.walk.done()
    }

    /// The next thing to tell; `None` behind the last record.
    pub(super) fn step(&mut self, setup: &ScanSetup, extents: &impl ExtentSequence) -> Option<Step> {
        loop {
            return match self.walk.step(extents) {
                WalkStep::Found(Found { address, payload, .. }) => {
                    self.note_given(address, payload.len());
                    Some(Step::Record(ScanRecord {
                        address,
                        frame: self.frame,
                        unix_ns: self.unix_ns,
                        kind: RecordKind::DATA,
                        flags: RecordFlags::NONE,
                        payload,
                    }))
                }
                // Nothing before the limit has it in another place.
                WalkStep::Reclaimed(address) if self.offset.is_none() => {
                    let slot = address.slot(&setup.geometry);
                    Some(Step::Damage(Box::new(damage(setup, self.frame, slot, Fault::Reclaimed))))
                }
                // Trimmed, or moved to where the scan meets it by itself.
                WalkStep::Reclaimed(address) => {
                    self.lacks.push(address);
                    continue;
                }
                WalkStep::Fault(fault) => {
                    let slot = fault.address.slot(&setup.geometry);
                    Some(Step::Damage(Box::new(damage(setup, self.frame, slot, fault.fault))))
                }
                WalkStep::Need => Some(Step::Need),
                WalkStep::End => None,
            };
        }
    }

    fn note_given(&mut self, address: Address, length: usize) {
        let run = address.byte()..address.byte() + record_bytes(length as u64);
        match self.given.last_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            _ => self.given.push(run),
        }
    }
}

fn damage(setup: &ScanSetup, frame: FrameNumber, slot: SlotIndex, fault: Fault) -> Damage {
    let place = ScanPlace { shard: setup.shard, frame: Some(frame), slot };
    Damage { place, fault, resumed_at: None }
}
