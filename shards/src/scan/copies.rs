//! Copies that cleaning made: which of them count for a scan.

use super::{ExtentSequence, ScanRecord, frame::LoadedFrame};
use crate::{
    format::{moved::Origin, record::RecordKind},
    ids::ExtentOrdinal,
    mutant::{self, Mutant},
};
use std::collections::BTreeMap;

/// A copy that counts is data; one that does not stays what it is.
pub(super) fn as_counted(
    record: ScanRecord,
    frame: &LoadedFrame,
    left: &BTreeMap<ExtentOrdinal, u64>,
    extents: &impl ExtentSequence,
) -> ScanRecord {
    let counts = |(origin, byte): (Origin, u64)| {
        if mutant::is_active(Mutant::CopyCountsEarly) {
            return true;
        }
        // What was passed was seen as it lay there, and was the one that counted. Of another shard none was.
        let is_own = origin.shard == frame.header.shard;
        let left = left.get(&origin.ordinal).filter(|_| is_own);
        extents.is_gone(&origin) && left.is_none_or(|seen| byte >= *seen)
    };
    if record.kind == RecordKind::MOVED && frame.moved_from().is_some_and(counts) {
        return ScanRecord { kind: RecordKind::DATA, ..record };
    }
    record
}
