//! Groups of copies that cleaning made: one control record, and behind it in the same frame the copies.
//!
//! A copy counts once its origin's extent is no longer claimed in the generation that the group names; until then the
//! original counts. So the record that frees the extent is what changes from all originals to all copies at once.

use super::{
    codec::{Fields, Writer},
    control::{ControlError, ExtentFacts},
    record::{ControlKind, record_bytes},
};
use crate::{
    address::Address,
    ids::{ExtentIndex, ExtentOrdinal, Generation, ShardId},
    limits::{COUNTER_MAX, MOVED_ENTRY_BYTES, MOVED_HEAD_BYTES, RECORD_ALIGNMENT, RECORD_PAYLOAD_BYTES_MAX},
};

/// The extent that copies were made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Origin {
    /// The shard whose extent it was.
    pub shard: ShardId,
    /// Its place in that shard's sequence.
    pub ordinal: ExtentOrdinal,
    /// Which it was.
    pub extent: ExtentIndex,
    /// In which generation.
    pub generation: Generation,
}

impl Origin {
    /// The extent that a checkpoint of `shard` lists.
    #[must_use]
    pub const fn of(shard: ShardId, facts: &ExtentFacts) -> Self {
        let ExtentFacts { ordinal, extent, generation, .. } = *facts;
        Self { shard, ordinal, extent, generation }
    }
}

/// What one copy is a copy of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovedRecord {
    /// Where the original begins, as a byte of the store.
    pub byte: u64,
    /// Bytes of the payload.
    pub length: u32,
}

/// A group of copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedGroup {
    /// The extent of the originals.
    pub origin: Origin,
    /// Records of the origin from this byte of the store on were looked at for this group.
    pub from: u64,
    /// Records of the origin before this byte of the store were looked at.
    pub up_to: u64,
    /// The group before this one of the same origin.
    pub previous: Option<Address>,
    /// The copies, in the order in which they follow. None: it only repeats how far cleaning has come.
    pub records: Vec<MovedRecord>,
}

impl MovedGroup {
    pub(super) fn encoded_bytes(&self) -> usize {
        Self::bytes_of(self.records.len())
    }

    /// Bytes of the payload of a group with so many copies.
    pub(crate) const fn bytes_of(records: usize) -> usize {
        MOVED_HEAD_BYTES + records * MOVED_ENTRY_BYTES
    }

    pub(super) fn encode(&self, fields: &mut Writer<'_>) {
        fields.put(&[ControlKind::MovedGroup as u8, 0]);
        fields.u16(self.origin.shard.0);
        fields.u32(u32::try_from(self.records.len()).unwrap_or(u32::MAX));
        fields.u32(self.origin.extent.0);
        fields.u32(self.origin.generation.0);
        fields.u64(self.origin.ordinal.0);
        fields.u64(self.from);
        fields.u64(self.up_to);
        fields.u64(self.previous.map_or(0, Address::to_bits));
        for record in &self.records {
            // An extent has at most 2^31 times eight bytes.
            let units = (record.byte - self.from) / RECORD_ALIGNMENT;
            fields.u32(u32::try_from(units).unwrap_or(u32::MAX));
            fields.u32(record.length);
        }
    }

    pub(super) fn decode(fields: &mut Fields<'_>) -> Result<Option<Self>, ControlError> {
        let Some((mut group, count)) = Self::head(fields) else { return Ok(None) };
        if group.origin.ordinal.0 > COUNTER_MAX || group.from > group.up_to {
            return Err(ControlError { field: "the origin of moved records" });
        }
        let mut least = group.from;
        for _ in 0..count {
            // What is announced and not there ends the loop; nothing is reserved for it.
            let Some(record) = Self::entry(fields, group.from) else { return Ok(None) };
            let is_sound = record.byte >= least
                && record.byte < group.up_to
                && u64::from(record.length) <= RECORD_PAYLOAD_BYTES_MAX;
            if !is_sound {
                return Err(ControlError { field: "a moved record" });
            }
            least = record.byte + record_bytes(u64::from(record.length));
            group.records.push(record);
        }
        Ok(Some(group))
    }

    fn head(fields: &mut Fields<'_>) -> Option<(Self, u32)> {
        fields.skip(2)?;
        let shard = ShardId(fields.u16()?);
        let count = fields.u32()?;
        let (extent, generation) = (ExtentIndex(fields.u32()?), Generation(fields.u32()?));
        let ordinal = ExtentOrdinal(fields.u64()?);
        let (from, up_to) = (fields.u64()?, fields.u64()?);
        let previous = match fields.u64()? {
            0 => None,
            bits => Some(Address::from_bits(bits)),
        };
        let origin = Origin { shard, ordinal, extent, generation };
        Some((Self { origin, from, up_to, previous, records: Vec::new() }, count))
    }

    fn entry(fields: &mut Fields<'_>, from: u64) -> Option<MovedRecord> {
        let units = u64::from(fields.u32()?);
        let length = fields.u32()?;
        Some(MovedRecord { byte: from.checked_add(units * RECORD_ALIGNMENT)?, length })
    }
}
