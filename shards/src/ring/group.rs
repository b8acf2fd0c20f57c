//! Several records in a row, as they will lie in one frame, before they have a place: only checksums are missing.

use crate::{
    format::record::{RecordFlags, RecordHeader, RecordKind, record_bytes},
    limits::{RECORD_HEADER_BYTES, RECORD_PAYLOAD_BYTES_MAX},
};

/// Records that are appended by one reservation.
#[derive(Clone, Debug, Default)]
pub struct RecordGroup {
    bytes: Vec<u8>,
    records: u32,
}

impl RecordGroup {
    /// An empty group.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), records: 0 }
    }

    /// Adds a record.
    ///
    /// # Panics
    /// If the payload is longer than a record header can say.
    pub fn push(&mut self, payload: &[u8], kind: RecordKind) {
        self.push_flagged(payload, kind, RecordFlags::NONE);
    }

    /// Adds a record with flags.
    ///
    /// # Panics
    /// If the payload is longer than a record header can say.
    pub fn push_flagged(&mut self, payload: &[u8], kind: RecordKind, flags: RecordFlags) {
        assert!(payload.len() as u64 <= RECORD_PAYLOAD_BYTES_MAX, "a record of {} bytes", payload.len());
        let header = RecordHeader { length: payload.len() as u32, kind, flags };
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&header.pack().to_le_bytes());
        self.bytes.extend_from_slice(payload);
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self.records += 1;
    }

    /// Adds all records of another group.
    pub fn append(&mut self, other: &Self) {
        self.bytes.extend_from_slice(&other.bytes);
        self.records += other.records;
    }

    /// Makes all records of one kind.
    pub fn set_kind(&mut self, kind: RecordKind) {
        let mut offset = 0;
        while let Some(header) = self.bytes.get(offset..).and_then(RecordHeader::peek) {
            let word = RecordHeader { kind, ..header }.pack().to_le_bytes();
            self.bytes[offset + 4..offset + 8].copy_from_slice(&word);
            offset += header.stride() as usize;
        }
    }

    /// The records in a row.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of records.
    #[must_use]
    pub const fn records(&self) -> u32 {
        self.records
    }

    /// True if there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes that the group has once a payload of this length is added.
    #[must_use]
    pub fn bytes_with(&self, payload: usize) -> u64 {
        self.bytes.len() as u64 + record_bytes(payload as u64)
    }

    /// The length of the payload to reserve, so that exactly the group fits.
    #[must_use]
    pub fn reserve_length(&self) -> usize {
        self.bytes.len().saturating_sub(RECORD_HEADER_BYTES as usize)
    }

    /// Takes all records out; the memory stays.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.records = 0;
    }

    /// Each record's offset and header.
    pub fn headers(&self) -> impl Iterator<Item = (usize, RecordHeader)> + '_ {
        let mut offset = 0;
        std::iter::from_fn(move || {
            let header = RecordHeader::peek(self.bytes.get(offset..)?)?;
            let at = offset;
            offset += header.stride() as usize;
            Some((at, header))
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_the_records_in_a_row() {
        let mut group = RecordGroup::new();
        for length in [0, 1, 8, 13] {
            let expected = group.bytes_with(length);
            group.push(&vec![7; length], RecordKind::DATA);
            assert_eq!(group.bytes().len() as u64, expected);
        }
        group.set_kind(RecordKind::BATCH_DATA);
        let found: Vec<_> = group.headers().map(|(at, it)| (at, it.length, it.kind)).collect();
        let kind = RecordKind::BATCH_DATA;
        assert_eq!(found, [(0, 0, kind), (8, 1, kind), (24, 8, kind), (40, 13, kind)]);
        assert_eq!(record_bytes(group.reserve_length() as u64), group.bytes().len() as u64);
    }
}
