//! Manifests: the lists of what belongs to a batch or to a large record, in as many levels as it takes.
//!
//! A list has no way to name itself or what is above it: levels fall by one from a node to its children, and a child
//! has to hold exactly as much as its parent says. So a hostile list costs no more than it admits to.

use super::codec::{Fields, Writer};
use crate::{
    address::Address,
    ids::ExtentOrdinal,
    limits::{
        BUFFER_BYTES_MAX, COUNTER_MAX, LARGE_PART_BYTES_MIN, LARGE_RECORD_BYTES_MAX, MANIFEST_LEVELS_MAX,
        MANIFEST_NODE_BYTES_MAX, RECORD_HEADER_BYTES, STORE_BYTES_MAX,
    },
};

/// Bytes in front of the entries.
pub const MANIFEST_HEADER_BYTES: usize = 32;
/// Bytes of an entry.
pub const MANIFEST_ENTRY_BYTES: usize = 32;

/// What a manifest lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestOf {
    /// Groups of records.
    Batch,
    /// Parts of one record.
    Large,
}

/// One child of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestEntry {
    /// Where it begins.
    pub address: Address,
    /// Bytes of the log that a group takes; of a part or a node, those of its payload.
    pub length: u32,
    /// Bytes below: as `length` of all groups, or the payloads of all parts.
    pub bytes: u64,
    /// Records, or parts, below.
    pub records: u64,
}

/// One node of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// 0: the entries are groups or parts; else nodes of one level less.
    pub level: u8,
    /// Bytes below.
    pub bytes: u64,
    /// Records, or parts, below.
    pub records: u64,
    /// The oldest extent of the shard that the whole list leads to: where its first group or part is. `None`: not
    /// stated, or it leads to nothing.
    pub from: Option<ExtentOrdinal>,
    /// In order.
    pub entries: Vec<ManifestEntry>,
}

/// These bytes are no manifest, although their checksum is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The payload does not hold as many entries as it says.
    #[error("a manifest of {found} bytes does not hold {entries} entries")]
    Length {
        /// Entries that it states.
        entries: u32,
        /// Bytes of the payload.
        found: u64,
    },
    /// More levels than a list can have, or not the level that its parent says.
    #[error("a manifest node of level {0} has no place here")]
    Level(u8),
    /// The entries do not add up to what the node, or its parent, says.
    #[error("a manifest does not add up")]
    Sum,
    /// An entry is none that a writer makes.
    #[error("entry {0} of a manifest cannot be")]
    Entry(u32),
    /// A whole that is longer than the store allows.
    #[error("a manifest states {0} bytes, more than there can be")]
    TooLong(u64),
}

impl Manifest {
    /// Bytes of the payload of a node with so many entries.
    #[must_use]
    pub const fn payload_bytes(entries: usize) -> usize {
        MANIFEST_HEADER_BYTES + entries * MANIFEST_ENTRY_BYTES
    }

    /// Writes the payload of a node.
    ///
    /// # Panics
    /// If `payload` is not exactly as long as the entries need.
    pub fn encode(level: u8, from: Option<ExtentOrdinal>, entries: &[ManifestEntry], payload: &mut [u8]) {
        assert_eq!(payload.len(), Self::payload_bytes(entries.len()), "the room for a manifest node");
        let mut writer = Writer::new(payload);
        writer.u8(level);
        writer.put(&[0; 3]);
        writer.u32(u32::try_from(entries.len()).unwrap_or(u32::MAX));
        writer.u64(entries.iter().map(|entry| entry.bytes).sum());
        writer.u64(entries.iter().map(|entry| entry.records).sum());
        writer.u64(from.map_or(0, |ordinal| ordinal.0 + 1));
        for entry in entries {
            writer.u64(entry.address.to_bits());
            writer.u32(entry.length);
            writer.u32(0);
            writer.u64(entry.bytes);
            writer.u64(entry.records);
        }
    }

    /// Where the list says that it begins, of the payload of a node that is not looked at any further.
    #[must_use]
    pub fn peek_from(payload: &[u8]) -> Option<ExtentOrdinal> {
        let mut fields = Fields::new(payload);
        fields.skip(MANIFEST_HEADER_BYTES - 8)?;
        // No writer counts so far, and what is believed can be counted on from.
        fields.u64()?.checked_sub(1).filter(|ordinal| *ordinal <= COUNTER_MAX).map(ExtentOrdinal)
    }

    /// Reads and checks one node.
    pub fn decode(payload: &[u8], of: ManifestOf) -> Result<Self, ManifestError> {
        let found = payload.len() as u64;
        let truncated = ManifestError::Length { entries: 0, found };
        let mut fields = Fields::new(payload);
        let mut header = || {
            let level = fields.u8()?;
            fields.skip(3)?;
            let header = (level, fields.u32()?, fields.u64()?, fields.u64()?);
            fields.skip(8)?;
            Some(header)
        };
        let (level, count, bytes, records) = header().ok_or(truncated)?;
        let expected = MANIFEST_HEADER_BYTES as u64 + u64::from(count) * MANIFEST_ENTRY_BYTES as u64;
        if found != expected || found > MANIFEST_NODE_BYTES_MAX {
            return Err(ManifestError::Length { entries: count, found });
        }
        if level >= MANIFEST_LEVELS_MAX || (count == 0 && level > 0) {
            return Err(ManifestError::Level(level));
        }
        let mut entries = Vec::with_capacity(usize::try_from(count).unwrap_or_default());
        let mut sum = (0_u64, 0_u64);
        for index in 0..count {
            let mut next = || {
                let (address, length) = (Address::from_bits(fields.u64()?), fields.u32()?);
                fields.skip(4)?;
                Some(ManifestEntry { address, length, bytes: fields.u64()?, records: fields.u64()? })
            };
            let entry = next().ok_or(truncated)?;
            if !entry.is_possible(level, of) {
                return Err(ManifestError::Entry(index));
            }
            let added = (sum.0.checked_add(entry.bytes), sum.1.checked_add(entry.records));
            let (Some(bytes), Some(records)) = added else { return Err(ManifestError::Sum) };
            sum = (bytes, records);
            entries.push(entry);
        }
        if sum != (bytes, records) {
            return Err(ManifestError::Sum);
        }
        Ok(Self { level, bytes, records, from: Self::peek_from(payload), entries })
    }

    /// Reads and checks the node that a whole list begins with.
    pub fn decode_root(payload: &[u8], of: ManifestOf) -> Result<Self, ManifestError> {
        let root = Self::decode(payload, of)?;
        let (bytes_max, records_max) = match of {
            ManifestOf::Batch => (STORE_BYTES_MAX, root.bytes / RECORD_HEADER_BYTES),
            // All parts but the last have at least this many bytes; and whoever reads the parts counts on it.
            ManifestOf::Large => (LARGE_RECORD_BYTES_MAX, root.bytes.div_ceil(LARGE_PART_BYTES_MIN)),
        };
        if root.bytes > bytes_max {
            return Err(ManifestError::TooLong(root.bytes));
        }
        if root.records > records_max { Err(ManifestError::Sum) } else { Ok(root) }
    }

    /// Reads and checks a node that a parent leads to.
    pub fn decode_child(
        payload: &[u8],
        of: ManifestOf,
        parent_level: u8,
        entry: &ManifestEntry,
    ) -> Result<Self, ManifestError> {
        let node = Self::decode(payload, of)?;
        if node.level.checked_add(1) != Some(parent_level) {
            return Err(ManifestError::Level(node.level));
        }
        let is_as_said = (node.bytes, node.records) == (entry.bytes, entry.records);
        if is_as_said { Ok(node) } else { Err(ManifestError::Sum) }
    }
}

impl ManifestEntry {
    fn is_possible(&self, level: u8, of: ManifestOf) -> bool {
        let length = u64::from(self.length);
        // Nothing below an entry would make work for nothing.
        if self.records == 0 || self.bytes == 0 {
            return false;
        }
        if level > 0 {
            let node = length.checked_sub(MANIFEST_HEADER_BYTES as u64);
            return length <= MANIFEST_NODE_BYTES_MAX
                && node.is_some_and(|it| it > 0 && it.is_multiple_of(MANIFEST_ENTRY_BYTES as u64));
        }
        let is_one = self.records == 1 || of == ManifestOf::Batch;
        let has_room = self.records <= self.bytes / RECORD_HEADER_BYTES || of == ManifestOf::Large;
        length <= BUFFER_BYTES_MAX && self.bytes == length && is_one && has_room
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use super::*;

    fn entry(byte: u64, length: u32, records: u64) -> ManifestEntry {
        ManifestEntry { address: Address::from_bits(byte), length, bytes: u64::from(length), records }
    }

    fn encoded(level: u8, entries: &[ManifestEntry]) -> Vec<u8> {
        let mut payload = vec![0; Manifest::payload_bytes(entries.len())];
        Manifest::encode(level, Some(ExtentOrdinal(5)), entries, &mut payload);
        payload
    }

    #[test]
    fn a_node_comes_back_as_it_was() {
        let entries = [entry(800, 64, 3), entry(9000, 4096, 512)];
        let found = Manifest::decode_root(&encoded(0, &entries), ManifestOf::Batch).unwrap();
        assert_eq!((found.level, found.bytes, found.records), (0, 4160, 515));
        assert_eq!(found.from, Some(ExtentOrdinal(5)));
        assert_eq!(found.entries, entries);
        let empty = Manifest::decode_root(&encoded(0, &[]), ManifestOf::Large).unwrap();
        assert_eq!((empty.bytes, empty.records), (0, 0));
    }

    #[test]
    fn what_no_writer_makes_is_refused() {
        let refused = |payload: &[u8], of| Manifest::decode_root(payload, of).unwrap_err();
        let good = encoded(0, &[entry(8, 4096, 1), entry(16, 4096, 1)]);
        assert!(Manifest::decode_root(&good, ManifestOf::Large).is_ok());
        for length in 0..good.len() {
            assert!(matches!(refused(&good[..length], ManifestOf::Large), ManifestError::Length { .. }));
        }
        let mut sum = good.clone();
        sum[8] ^= 1;
        assert_eq!(refused(&sum, ManifestOf::Large), ManifestError::Sum);
        let mut level = good.clone();
        level[0] = MANIFEST_LEVELS_MAX;
        assert_eq!(refused(&level, ManifestOf::Large), ManifestError::Level(MANIFEST_LEVELS_MAX));
        // An inner node whose child would be a node of 4096 - 32 bytes of entries is fine, one of 17 bytes is not.
        assert_eq!(refused(&encoded(1, &[entry(8, 17, 1)]), ManifestOf::Batch), ManifestError::Entry(0));
        // Nothing below, more records than bytes, two parts in one.
        assert_eq!(refused(&encoded(0, &[entry(8, 0, 0)]), ManifestOf::Batch), ManifestError::Entry(0));
        assert_eq!(refused(&encoded(0, &[entry(8, 16, 3)]), ManifestOf::Batch), ManifestError::Entry(0));
        assert_eq!(refused(&encoded(0, &[entry(8, 16, 2)]), ManifestOf::Large), ManifestError::Entry(0));
        // Many parts of next to nothing.
        let crumbs = vec![entry(8, 1, 1); 100];
        assert_eq!(refused(&encoded(0, &crumbs), ManifestOf::Large), ManifestError::Sum);
        let long = ManifestEntry { bytes: LARGE_RECORD_BYTES_MAX + 1, ..entry(8, 64, 1) };
        let too_long = ManifestError::TooLong(LARGE_RECORD_BYTES_MAX + 1);
        assert_eq!(refused(&encoded(1, &[long]), ManifestOf::Large), too_long);
    }

    #[test]
    fn a_child_is_one_level_below_and_holds_what_its_parent_says() {
        let child = encoded(0, &[entry(8, 64, 3)]);
        let said = ManifestEntry { length: child.len() as u32, ..entry(8, 64, 3) };
        let decode = |level, said: &ManifestEntry| {
            Manifest::decode_child(&child, ManifestOf::Batch, level, said).map(|it| it.level)
        };
        assert_eq!(decode(1, &said), Ok(0));
        assert_eq!(decode(0, &said), Err(ManifestError::Level(0)));
        assert_eq!(decode(2, &said), Err(ManifestError::Level(0)));
        assert_eq!(decode(1, &ManifestEntry { records: 4, ..said }), Err(ManifestError::Sum));
    }
}
