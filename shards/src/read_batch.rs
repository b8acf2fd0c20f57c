//! Many reads of single records, merged: neighbours are read at once, and decoded here with the checks that a single
//! read makes.

use crate::{
    address::Address,
    directory::{CoreHandle, Directory},
    format::record::RecordHeader,
    ids::{Generation, ShardId, SlotIndex},
    limits::READ_MANY_RUN_BYTES_MAX,
    reads::{ReadError, owner_of, record_reply},
    scan::Run,
};
use bytes::Bytes;

/// A record of a merged read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its place in the list that was asked for.
    pub index: usize,
    address: Address,
    /// Of the extent, before the read.
    generation: Generation,
    shard: ShardId,
}

/// One read to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchRead {
    /// One record, as by itself: it has no neighbour, is not on the device yet, or its address is not one.
    Single {
        /// Its place in the list.
        index: usize,
    },
    /// Several records in one read.
    Merged {
        /// The slots.
        run: Run,
        /// The records, by address.
        members: Vec<Member>,
    },
}

/// Sorts what is asked for, each with its place in the list, into reads. Records whose slots overlap or follow one another are merged, up to
/// [`READ_MANY_RUN_BYTES_MAX`].
#[must_use]
pub fn plan(directory: &Directory, asked: impl Iterator<Item = (usize, Address)>) -> Vec<BatchRead> {
    let mut reads = Vec::new();
    let mut members: Vec<(Run, Member)> = Vec::with_capacity(asked.size_hint().1.unwrap_or_default());
    for (index, address) in asked {
        match member(directory, index, address) {
            Some(member) => members.push(member),
            None => reads.push(BatchRead::Single { index }),
        }
    }
    members.sort_by_key(|(_, member)| member.address.byte());
    let slots_max = directory.layout.geometry().slots_for(READ_MANY_RUN_BYTES_MAX).max(1);
    let mut rest = members.into_iter().peekable();
    while let Some((mut run, first)) = rest.next() {
        let mut group = vec![first];
        while let Some((_, member)) = rest.next_if(|(next, _)| joins(directory, &run, next, slots_max)) {
            let span = span_of(directory, member.address);
            run.slots = run.slots.max(span.end().0 - run.slot.0);
            group.push(member);
        }
        reads.push(match group.as_slice() {
            [single] => BatchRead::Single { index: single.index },
            _ => BatchRead::Merged { run, members: group },
        });
    }
    reads
}

fn member(directory: &Directory, index: usize, address: Address) -> Option<(Run, Member)> {
    // What is wrong with an address, the single read says.
    let (shard, generation) = owner_of(directory, address).ok()?;
    let shared = directory.shard(shard)?;
    let run = span_of(directory, address);
    directory.is_written(shared, run.slot).then_some((run, Member { index, address, generation, shard }))
}

fn span_of(directory: &Directory, address: Address) -> Run {
    let geometry = directory.layout.geometry();
    let slot = address.slot(geometry);
    Run { slot, slots: address.slots_hint().min(geometry.slots_left(slot)) }
}

fn joins(directory: &Directory, run: &Run, next: &Run, slots_max: u64) -> bool {
    let geometry = directory.layout.geometry();
    let is_near = next.slot <= run.end() && geometry.extent_of(run.slot) == geometry.extent_of(next.slot);
    is_near && next.end().0.max(run.end().0) - run.slot.0 <= slots_max
}

impl Member {
    /// The record, from the bytes of its run, which `core` read and may keep. `None`: it is longer than its address says,
    /// so read it by itself.
    #[must_use]
    pub fn decode(
        &self,
        directory: &Directory,
        core: &CoreHandle,
        first: SlotIndex,
        bytes: &[u8],
    ) -> Option<Result<Bytes, ReadError>> {
        let geometry = directory.layout.geometry();
        let address = self.address;
        let offset = address.byte().checked_sub(geometry.byte_of(first))?;
        let record = bytes.get(usize::try_from(offset).ok()?..)?;
        let slot = address.slot(geometry);
        let needed = RecordHeader::peek(record).map(RecordHeader::stride);
        if needed.is_some_and(|needed| needed > record.len() as u64) {
            return None;
        }
        // The extent may have been reused while the read was under way.
        let result = owner_of(directory, address).and_then(|_still_there| {
            let seed = directory.seed.record_seed(self.generation, address.byte());
            let device = directory.layout.place(slot).map(|place| place.device).unwrap_or_default();
            record_reply(record, seed, self.shard, slot, device, address)
        });
        if let (Some(cache), Ok(payload)) = (core.cache(), &result) {
            cache.keep(address, self.generation, payload);
        }
        Some(result)
    }
}
