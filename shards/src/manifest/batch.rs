//! Writing a batch: in one frame if it fits, else group by group, with a list that makes it count.

use super::levels::Levels;
use crate::{
    address::Address,
    format::{
        manifest::ManifestEntry,
        record::{RecordFlags, RecordKind},
    },
    limits::{BATCH_ADDRESSES_MAX, FRAME_HEADER_BYTES},
    mutant::{self, Mutant},
    ring::{group::RecordGroup, reservation::Placed},
    shard::{Shard, ShardRefusal},
};

/// A batch of one shard that is being written. Dropping it gives the batch up: what was written of it is never seen.
///
/// It holds at most a buffer of records, a node of each level of its list, and [`BATCH_ADDRESSES_MAX`] addresses.
#[derive(Debug)]
pub struct BatchWriter {
    group: RecordGroup,
    levels: Levels,
    addresses: Vec<Address>,
    records: u64,
    is_spilled: bool,
}

/// A batch that is accepted as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedBatch {
    /// Where a scan meets the batch, and the frame to wait for. `None`: the batch had no records.
    pub placed: Option<Placed>,
    /// Its records.
    pub records: u64,
    /// Where they are, in order; `None` if there are more than [`BATCH_ADDRESSES_MAX`].
    pub addresses: Option<Vec<Address>>,
}

/// Appends a note and the list of a batch that counts by it, in one frame, also where ordinary records are refused.
pub(crate) fn resolve(shard: &Shard, note: &[u8], list: &[u8]) -> Result<Placed, ShardRefusal> {
    let mut group = RecordGroup::new();
    group.push(note, RecordKind::CONTROL);
    group.push(list, RecordKind::BATCH_COMMIT);
    let reservation = shard.try_reserve_privileged(group.reserve_length())?;
    let mut last = None;
    let placed = reservation.commit_group(&group, &mut |address| last = Some(address));
    Ok(Placed { address: last.unwrap_or(placed.address), ..placed })
}

impl Default for BatchWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchWriter {
    /// An empty batch.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            group: RecordGroup::new(),
            levels: Levels::new(RecordKind::BATCH_COMMIT),
            addresses: Vec::new(),
            records: 0,
            is_spilled: false,
        }
    }

    /// Records so far.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// Adds a record. After a refusal nothing of it was taken; [`ShardRefusal::Full`] can be tried again. All calls for
    /// one batch have to give the same shard.
    pub fn try_append(&mut self, shard: &Shard, payload: &[u8]) -> Result<(), ShardRefusal> {
        let max = shard.ring().payload_bytes_max();
        if payload.len() as u64 > max {
            return Err(ShardRefusal::TooLarge { max });
        }
        let capacity = shard.ring().buffer_bytes() - FRAME_HEADER_BYTES;
        // Groups of half a buffer leave room for others' records in the frames between them.
        let limit = if self.is_spilled { capacity / 2 } else { capacity };
        if !self.group.is_empty() && self.group.bytes_with(payload.len()) > limit {
            self.spill(shard)?;
        }
        self.group.push(payload, RecordKind::DATA);
        self.records += 1;
        Ok(())
    }

    /// Writes the records that are in memory, as ones that do not count yet.
    fn spill(&mut self, shard: &Shard) -> Result<(), ShardRefusal> {
        self.levels.make_room(shard)?;
        let placed = self.write_group(shard, RecordKind::BATCH_DATA)?;
        let length = self.group.bytes().len() as u64;
        let entry = ManifestEntry {
            address: placed.address,
            length: length as u32,
            bytes: length,
            records: u64::from(self.group.records()),
        };
        self.levels.push(shard, entry);
        self.group.clear();
        self.is_spilled = true;
        Ok(())
    }

    fn write_group(&mut self, shard: &Shard, kind: RecordKind) -> Result<Placed, ShardRefusal> {
        // An earlier try to write them as another kind may have been refused.
        self.group.set_kind(kind);
        let reservation = shard.try_reserve(self.group.reserve_length())?;
        let addresses = &mut self.addresses;
        Ok(reservation.commit_group(&self.group, &mut |address| {
            // One more than is told, so that there being more can be seen.
            if addresses.len() <= BATCH_ADDRESSES_MAX {
                addresses.push(address);
            }
        }))
    }

    /// Makes the batch count. After [`ShardRefusal::Full`] it can be tried again; it must not be once it is done.
    pub fn try_commit(&mut self, shard: &Shard) -> Result<CommittedBatch, ShardRefusal> {
        let placed = if self.is_spilled {
            if mutant::is_active(Mutant::HalfBatch) {
                return self.commit_half(shard);
            }
            if !self.group.is_empty() {
                self.spill(shard)?;
            }
            Some(self.levels.finish(shard)?)
        } else if self.group.is_empty() {
            None
        } else {
            Some(self.write_group(shard, RecordKind::DATA)?)
        };
        Ok(self.committed(placed))
    }

    /// Writes all of it with a list that makes nothing count yet. After [`ShardRefusal::Full`] it can be tried again.
    pub(super) fn try_prepare(&mut self, shard: &Shard) -> Result<Placed, ShardRefusal> {
        if !self.group.is_empty() {
            self.spill(shard)?;
        }
        self.levels.finish_as(shard, RecordFlags::PREPARED)
    }

    /// Makes a prepared batch count, in one frame with a control record. Gives the place of the commit.
    pub(super) fn try_resolve(&self, shard: &Shard, note: &[u8]) -> Result<Placed, ShardRefusal> {
        let placed = resolve(shard, note, &self.levels.root())?;
        self.levels.end_pin(placed.frame);
        Ok(placed)
    }

    /// The list, once it was written.
    pub(super) fn root(&self) -> Vec<u8> {
        self.levels.root()
    }

    pub(super) fn take_addresses(&mut self) -> Option<Vec<Address>> {
        let addresses = std::mem::take(&mut self.addresses);
        (addresses.len() <= BATCH_ADDRESSES_MAX).then_some(addresses)
    }

    fn committed(&mut self, placed: Option<Placed>) -> CommittedBatch {
        let addresses = std::mem::take(&mut self.addresses);
        let is_complete = addresses.len() <= BATCH_ADDRESSES_MAX;
        CommittedBatch { placed, records: self.records, addresses: is_complete.then_some(addresses) }
    }

    /// The mutant: the commit is written before the last records are.
    #[cold]
    fn commit_half(&mut self, shard: &Shard) -> Result<CommittedBatch, ShardRefusal> {
        let placed = self.levels.finish(shard)?;
        let mut last = placed;
        if !self.group.is_empty() {
            // Whatever comes of it: the batch counts by now.
            let rest: Vec<_> = self.group.headers().collect();
            for (offset, header) in rest {
                let start = offset + 8;
                let Ok(mut reservation) = shard.try_reserve(header.length as usize) else { break };
                let payload = &self.group.bytes()[start..start + header.length as usize];
                reservation.payload_mut().copy_from_slice(payload);
                last = reservation.commit(RecordKind::DATA, RecordFlags::NONE);
                self.addresses.push(last.address);
            }
        }
        Ok(self.committed(Some(Placed { frame: last.frame, ..placed })))
    }
}
