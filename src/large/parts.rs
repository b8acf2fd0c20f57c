//! What a large record consists of, by its list alone: whether all of it is there, and what of it is dead once it is
//! released.

use super::{LargeReadError, LargeReader, Source, block};
use crate::{inspect::Recovered, store::Store};
use bytes::Bytes;
use corelog_shards::{
    address::Address,
    extents::{ExtentEntry, ExtentUse},
    format::{
        manifest::{Manifest, ManifestEntry, ManifestOf},
        record::{RecordFlags, RecordKind, check_record, record_bytes},
    },
    ids::{ExtentIndex, Generation},
    limits::RECORD_HEADER_BYTES,
    reads::ReadError,
    scan::{ExtentSequence, Fault, LiveExtents, Run},
};
use std::collections::BTreeMap;

impl Store {
    /// Says that the large record at `address` is no longer wanted. Reads its list (32 bytes for each part) and writes
    /// nothing: the bytes of its parts count as dead, each where it lies, and cleaning chooses extents by such counts. What
    /// [`Store::release`] says of when to say it, and of crashes, holds here too.
    ///
    /// Parts come back when nothing else is wanted of the extents that they lie in, so one by one: from here on a reader of
    /// the record may get [`ReadError::Reclaimed`] in the middle of it.
    ///
    /// [`ReadError::Reclaimed`] from here: cleaning was faster. It asked the owner of the records, heard that nobody wants this
    /// one, and freed what held its list. There is nothing to mend: what is left of it is found when cleaning asks again.
    pub fn release_large(&self, address: Address) -> Result<(), LargeReadError> {
        if let Some(core) = self.driven_core() {
            return Err(LargeReadError::Read(ReadError::OnCoreThread { core }));
        }
        self.wait_read(self.release_large_async(address))
    }

    /// As [`Store::release_large`], as a future for any executor. Dropping it releases nothing.
    pub async fn release_large_async(&self, address: Address) -> Result<(), LargeReadError> {
        let record = self.open_large_async(address).await?;
        let mut dead: BTreeMap<ExtentIndex, (Generation, u64)> = BTreeMap::new();
        let geometry = *self.directory().layout.geometry();
        let mut count = |address: Address, payload: u64, generation| {
            let (_, bytes) = dead.entry(address.extent(&geometry)).or_insert((generation, 0));
            *bytes += record_bytes(payload);
        };
        if let Some(generation) = record.source.generation_of(address.extent(&geometry)) {
            count(address, Manifest::payload_bytes(record.list.entries.len()) as u64, generation);
        }
        let mut take = |entry: &ManifestEntry, generation: Option<Generation>| {
            generation
                .iter()
                .for_each(|generation| count(entry.address, u64::from(entry.length), *generation));
            true
        };
        record.each_entry(&mut take).await?;
        let shard = self.directory().owner_of(address)?;
        let extents = &self.directory().extents;
        for (extent, (generation, bytes)) in dead {
            let is_there = |entry: &ExtentEntry| {
                entry.usage == ExtentUse::Claimed && entry.shard == shard && entry.generation == generation
            };
            if extents.get(extent).as_ref().is_some_and(is_there) {
                extents.note_dead(extent, bytes);
            }
        }
        if let Some(shard) = self.shard(shard)
            && shard.note_release()
        {
            self.directory().look_again(self.cleaning(), shard);
        }
        Ok(())
    }
}

impl LargeReader<'_> {
    /// True if all of its parts are there: of a record that was released some may be gone. Reads its list only.
    pub fn is_whole(&self) -> Result<bool, LargeReadError> {
        self.check_thread()?;
        block(&self.source, self.is_whole_async())
    }

    /// As [`LargeReader::is_whole`], as a future for any executor.
    pub async fn is_whole_async(&self) -> Result<bool, LargeReadError> {
        let mut is_whole = true;
        let mut take = |_entry: &ManifestEntry, generation: Option<Generation>| {
            is_whole &= generation.is_some();
            is_whole
        };
        self.each_entry(&mut take).await?;
        Ok(is_whole)
    }

    /// Gives each part of the list and of the record, with the generation of its extent if it is there still, until `take`
    /// says that it has enough. What is gone leads to nothing.
    async fn each_entry(
        &self,
        take: &mut (dyn FnMut(&ManifestEntry, Option<Generation>) -> bool + Send),
    ) -> Result<(), LargeReadError> {
        let geometry = self.source.geometry();
        let mut path = vec![(self.list.level, self.list.entries.clone().into_iter())];
        // Neighbours mostly lie in the same extent.
        let mut last = None;
        while let Some((level, entries)) = path.last_mut() {
            let level = *level;
            let Some(entry) = entries.next() else {
                path.pop();
                continue;
            };
            let extent = entry.address.extent(&geometry);
            let known = last.filter(|(same, _)| *same == extent);
            let known = known.unwrap_or_else(|| (extent, self.source.generation_of(extent)));
            last = Some(known);
            let generation = known.1.filter(|generation| entry.address.is_of(*generation));
            if !take(&entry, generation) {
                return Ok(());
            }
            if let (Some(generation), 1..) = (generation, level) {
                let node = self.read_node(&entry, level, generation).await?;
                path.push((node.level, node.entries.into_iter()));
            }
        }
        Ok(())
    }

    async fn read_node(
        &self,
        entry: &ManifestEntry,
        parent_level: u8,
        generation: Generation,
    ) -> Result<Manifest, LargeReadError> {
        let geometry = self.source.geometry();
        let address = entry.address;
        let slot = address.slot(&geometry);
        let in_slot = address.byte() - geometry.byte_of(slot);
        let slots = geometry.slots_for(in_slot + RECORD_HEADER_BYTES + u64::from(entry.length));
        let damage = |fault| LargeReadError::Damage { address: self.address, fault: Box::new(fault) };
        if slots > geometry.slots_left(slot) {
            return Err(damage(Fault::Overlong));
        }
        let bytes: Bytes = self.source.slots(Run { slot, slots }).await?;
        // What was read of an extent that somebody else claimed meanwhile is theirs.
        if self.source.generation_of(address.extent(&geometry)) != Some(generation) {
            return Err(LargeReadError::Read(ReadError::Reclaimed { address: self.address }));
        }
        let bytes = bytes.get(in_slot as usize..).unwrap_or_default();
        let view = check_record(bytes, self.source.seed().record_seed(generation, address.byte()))
            .map_err(|error| damage(Fault::Record { address, error }))?;
        if view.kind != RecordKind::LARGE_MANIFEST || view.flags != RecordFlags::LIST_PART {
            return Err(damage(Fault::NotAsListed { address, found: view.kind }));
        }
        Manifest::decode_child(view.payload, ManifestOf::Large, parent_level, entry)
            .map_err(|error| damage(Fault::Manifest { address, error }))
    }
}

impl Source<'_> {
    /// The generation of an extent, if it is the shard's.
    fn generation_of(&self, extent: ExtentIndex) -> Option<Generation> {
        match self {
            Self::Live(store, shard) => {
                let directory = store.directory();
                LiveExtents { directory, shard, given_up: None }.generation_of(extent)
            }
            Self::Look(_, shard) => Recovered(shard).generation_of(extent),
        }
    }
}
