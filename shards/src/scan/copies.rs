//! Copies that cleaning made: which of them count for a scan.
//!
//! A scan gives a record where it lies, and batch data where the list begins that makes it count. What it has passed in this
//! sense while the original was there it has given, and the copy is none of its business. Only of lists that lacked
//! something when the scan came to them it has to remember what it gave.

use super::{
    ExtentSequence, ScanRecord,
    frame::LoadedFrame,
    within::{WithinBatch, lacking},
};
use crate::{
    address::Address,
    format::{
        control::LogPlace,
        manifest::Manifest,
        moved::{MovedRecord, Origin},
        record::{RecordFlags, RecordKind},
    },
    geometry::Geometry,
    ids::{ExtentIndex, ExtentOrdinal},
    mutant::{self, Mutant},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

/// What a scan has seen as it lay there.
#[derive(Debug)]
pub(super) struct Seen {
    /// The scan began in this extent.
    first: ExtentOrdinal,
    /// Extents that the scan has passed, or that were cleaned while it was in them, up to this byte.
    left: BTreeMap<ExtentOrdinal, u64>,
    /// Extents that it was in, whatever they are now.
    met: BTreeSet<ExtentIndex>,
    /// Lists of which a part was cleaned away before the scan came to them: what it gave of each, as bytes of the store. Of
    /// a large record that is nothing.
    partly: BTreeMap<LogPlace, Vec<Range<u64>>>,
}

impl Seen {
    pub(super) const fn new(first: ExtentOrdinal) -> Self {
        Self { first, left: BTreeMap::new(), met: BTreeSet::new(), partly: BTreeMap::new() }
    }

    /// The scan goes into an extent.
    pub(super) fn enter(&mut self, extent: ExtentIndex) {
        self.met.insert(extent);
    }

    /// The scan is done with what is before `byte` in an extent.
    pub(super) fn leave(&mut self, ordinal: ExtentOrdinal, byte: u64) {
        self.left.entry(ordinal).or_insert(byte);
    }

    /// The records of a batch are over. True: copies of what it lacked may lie ahead.
    pub(super) fn end_batch(&mut self, batch: WithinBatch, geometry: &Geometry) -> bool {
        let Some(root) = batch.root else { return false };
        let is_older = batch.from.is_none_or(|from| from < self.first);
        let was_there = |extent: &ExtentIndex| is_older || self.met.contains(extent);
        // What was gone before the scan came by is told by that.
        if !batch.lacks.iter().map(|address| address.extent(geometry)).any(|extent| was_there(&extent)) {
            return false;
        }
        let mut given = batch.given;
        given.sort_unstable_by_key(|run| run.start);
        self.partly.insert(root, given);
        true
    }

    /// The scan came to the list of a large record that lacks something. True: a copy of it may lie ahead.
    pub(super) fn pass_large(
        &mut self,
        root: LogPlace,
        list: &Manifest,
        geometry: &Geometry,
        extents: &impl ExtentSequence,
    ) -> bool {
        let is_older = list.from.is_none_or(|from| from < self.first);
        let was_there = |address: Address| is_older || self.met.contains(&address.extent(geometry));
        let is_remembered = lacking(list, geometry, extents).any(was_there);
        if is_remembered {
            self.partly.insert(root, Vec::new());
        }
        is_remembered
    }

    /// True if the scan gave what a copy was made of. `at`: the extent that the copy is in.
    fn has(&self, origin: &Origin, record: &MovedRecord, at: ExtentOrdinal) -> bool {
        let has_passed =
            |place: LogPlace| self.left.get(&place.ordinal).is_some_and(|seen| place.byte < *seen);
        let Some(root) = record.root else {
            return has_passed(LogPlace { ordinal: origin.ordinal, byte: record.byte });
        };
        // Copies lie behind the list that makes their originals count.
        if root.ordinal != at && !has_passed(root) {
            return false;
        }
        if !self.left.contains_key(&origin.ordinal) && origin.ordinal >= self.first {
            // It was gone before the scan came by.
            return false;
        }
        self.partly.get(&root).is_none_or(|given| {
            let behind = given.partition_point(|run| run.start <= record.byte);
            let last = behind.checked_sub(1).and_then(|last| given.get(last));
            last.is_some_and(|run| run.contains(&record.byte))
        })
    }

    /// A copy that counts is what it is a copy of; one that does not stays what it is.
    pub(super) fn as_counted(
        &self,
        record: ScanRecord,
        frame: &LoadedFrame,
        extents: &impl ExtentSequence,
    ) -> ScanRecord {
        let counts = |(origin, moved): (Origin, MovedRecord)| {
            if mutant::is_active(Mutant::CopyCountsEarly) {
                return true;
            }
            // Of another shard the scan has seen nothing.
            let is_own = origin.shard == frame.header.shard;
            extents.is_gone(&origin) && !(is_own && self.has(&origin, &moved, frame.ordinal))
        };
        let ScanRecord { kind, flags, .. } = record;
        if !kind.is_copy(flags) || !frame.moved_from().is_some_and(counts) {
            return record;
        }
        let kind = if kind == RecordKind::MOVED { RecordKind::DATA } else { kind };
        ScanRecord { kind, flags: RecordFlags::NONE, ..record }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::ids::{Generation, ShardId};

    const ORIGIN: Origin = Origin {
        shard: ShardId(0),
        ordinal: ExtentOrdinal(5),
        extent: ExtentIndex(9),
        generation: Generation(1),
    };
    const ROOT: LogPlace = LogPlace { ordinal: ExtentOrdinal(7), byte: 700 };
    /// Where copies are.
    const END: ExtentOrdinal = ExtentOrdinal(20);

    fn single(byte: u64) -> MovedRecord {
        MovedRecord { byte, length: 8, root: None }
    }

    fn of_batch(byte: u64) -> MovedRecord {
        MovedRecord { root: Some(ROOT), ..single(byte) }
    }

    #[test]
    fn batch_data_was_given_where_its_list_was() {
        let mut seen = Seen::new(ExtentOrdinal(3));
        assert!(!seen.has(&ORIGIN, &single(500), END) && !seen.has(&ORIGIN, &of_batch(500), END));
        seen.leave(ORIGIN.ordinal, u64::MAX);
        assert!(seen.has(&ORIGIN, &single(500), END));
        assert!(!seen.has(&ORIGIN, &of_batch(500), END), "its list is still ahead");
        seen.leave(ROOT.ordinal, 600);
        assert!(!seen.has(&ORIGIN, &of_batch(500), END), "its list went before the scan came to it");
        assert!(seen.has(&ORIGIN, &of_batch(500), ROOT.ordinal), "copies lie behind the list");
    }

    #[test]
    fn what_an_extent_had_that_was_left_in_the_middle_is_told_by_the_list_too() {
        let mut seen = Seen::new(ExtentOrdinal(3));
        seen.leave(ORIGIN.ordinal, 550);
        let root = Some(LogPlace { ordinal: ORIGIN.ordinal, byte: 560 });
        let (before, behind) = (MovedRecord { root, ..single(500) }, single(500));
        assert!(!seen.has(&ORIGIN, &before, END) && seen.has(&ORIGIN, &behind, END));
    }

    #[test]
    fn of_a_list_that_lacked_something_only_what_came_was_given() {
        let mut seen = Seen::new(ExtentOrdinal(3));
        seen.leave(ORIGIN.ordinal, u64::MAX);
        seen.leave(ROOT.ordinal, u64::MAX);
        seen.partly.insert(ROOT, vec![500..520, 600..640]);
        let has = |byte| seen.has(&ORIGIN, &of_batch(byte), END);
        assert!(has(500) && has(512) && has(632));
        assert!(!has(400) && !has(520) && !has(640));
    }

    #[test]
    fn what_was_gone_before_the_scan_came_by_was_not_given() {
        let mut seen = Seen::new(ExtentOrdinal(3));
        seen.leave(ROOT.ordinal, u64::MAX);
        assert!(!seen.has(&ORIGIN, &of_batch(500), END));
        let mut seen = Seen::new(ExtentOrdinal(6));
        seen.leave(ROOT.ordinal, u64::MAX);
        assert!(
            seen.has(&ORIGIN, &of_batch(500), END),
            "its extent lies before the scan, and its list does not"
        );
    }
}
