//! Groups of copies that cleaning made: one control record, and behind it in the same frame the copies.
//!
//! A copy counts once its origin's extent is no longer claimed in the generation that the group names; until then the
//! original counts. So the record that frees the extent is what changes from all originals to all copies at once.

use super::{
    codec::{Fields, Writer},
    control::{ControlError, ExtentFacts, LogPlace},
    record::{ControlKind, record_bytes},
};
use crate::{
    address::Address,
    ids::{ExtentIndex, ExtentOrdinal, Generation, ShardId},
    limits::{
        COUNTER_MAX, MOVED_ENTRY_BYTES, MOVED_HEAD_BYTES, MOVED_ROOT_BYTES, RECORD_ALIGNMENT,
        RECORD_PAYLOAD_BYTES_MAX,
    },
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
    /// Of batch data, where the list begins by which it counts: that is where a scan gives it as long as the original is
    /// there.
    pub root: Option<LogPlace>,
}

/// The roots of batch data stand behind the entries.
const WITH_ROOTS: u8 = 1;

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
        Self::bytes_of(self.records.len(), self.has_roots())
    }

    fn has_roots(&self) -> bool {
        self.records.iter().any(|record| record.root.is_some())
    }

    /// Bytes of the payload of a group with so many copies, of batch data or not.
    pub(crate) const fn bytes_of(records: usize, has_roots: bool) -> usize {
        MOVED_HEAD_BYTES + records * Self::entry_bytes(has_roots)
    }

    /// Bytes that it takes for each copy.
    pub(crate) const fn entry_bytes(has_roots: bool) -> usize {
        if has_roots { MOVED_ENTRY_BYTES + MOVED_ROOT_BYTES } else { MOVED_ENTRY_BYTES }
    }

    pub(super) fn encode(&self, fields: &mut Writer<'_>) {
        let form = if self.has_roots() { WITH_ROOTS } else { 0 };
        fields.put(&[ControlKind::MovedGroup as u8, form]);
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
        if form == WITH_ROOTS {
            for root in self.records.iter().map(|record| record.root.unwrap_or_default()) {
                fields.u64(root.ordinal.0);
                fields.u64(root.byte);
            }
        }
    }

    pub(super) fn decode(fields: &mut Fields<'_>) -> Result<Option<Self>, ControlError> {
        let Some((mut group, form, count)) = Self::head(fields) else { return Ok(None) };
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
        if form & WITH_ROOTS != 0 && group.read_roots(fields)?.is_none() {
            return Ok(None);
        }
        Ok(Some(group))
    }

    /// `None`: they are not there.
    fn read_roots(&mut self, fields: &mut Fields<'_>) -> Result<Option<()>, ControlError> {
        let oldest = self.origin.ordinal;
        for record in &mut self.records {
            let (Some(ordinal), Some(byte)) = (fields.u64(), fields.u64()) else { return Ok(None) };
            // No extent begins at the first byte of a store.
            let root = (byte > 0).then_some(LogPlace { ordinal: ExtentOrdinal(ordinal), byte });
            if root.is_some_and(|root| root.ordinal < oldest || ordinal > COUNTER_MAX) {
                return Err(ControlError { field: "the list of a moved record" });
            }
            record.root = root;
        }
        Ok(Some(()))
    }

    fn head(fields: &mut Fields<'_>) -> Option<(Self, u8, u32)> {
        fields.skip(1)?;
        let form = fields.u8()?;
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
        Some((Self { origin, from, up_to, previous, records: Vec::new() }, form, count))
    }

    fn entry(fields: &mut Fields<'_>, from: u64) -> Option<MovedRecord> {
        let units = u64::from(fields.u32()?);
        let length = fields.u32()?;
        Some(MovedRecord { byte: from.checked_add(units * RECORD_ALIGNMENT)?, length, root: None })
    }
}
