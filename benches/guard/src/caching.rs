//! Reads of what a core's cache holds.

use crate::{error::GuardError, paths::Work};
use bytes::Bytes;
use corelog_shards::{
    address::Address,
    cache::RecordCache,
    extents::ExtentTable,
    geometry::Geometry,
    ids::{ExtentIndex, ExtentOrdinal, Generation, ShardId},
    limits::{EXTENT_BYTES_DEFAULT, SLOT_BYTES_DEFAULT},
};
use std::hint::black_box;

/// Reads of one round.
pub const READS: u64 = 2_000;
const RECORDS: u64 = 1_000;
const PAYLOAD_BYTES: u64 = 1024;

/// A cache with records of one claimed extent.
pub struct Caching {
    cache: RecordCache,
    extents: ExtentTable,
    addresses: Vec<Address>,
}

impl Caching {
    pub fn new() -> Self {
        // Constants that a store can have, so that the geometry is one.
        let geometry =
            Geometry::new(SLOT_BYTES_DEFAULT, EXTENT_BYTES_DEFAULT).unwrap_or_else(|error| panic!("{error}"));
        let extents = ExtentTable::new(geometry, 4);
        let claim = extents.claim(ShardId(0), ExtentOrdinal(0), ExtentIndex(0));
        let generation = claim.map_or(Generation(0), |claim| claim.generation);
        let cache = RecordCache::new(4 * RECORDS * PAYLOAD_BYTES).unwrap_or_else(|| panic!("a budget"));
        let first = geometry.slot_bytes();
        let address =
            |index| Address::new(&geometry, first + index * (PAYLOAD_BYTES + 8), generation, PAYLOAD_BYTES);
        let addresses: Vec<_> = (0..RECORDS).map(address).collect();
        // One payload for all, so that making them is no thousand allocations: callgrind counts calls also where it does
        // not count instructions.
        let payload = Bytes::from(vec![0x5a; PAYLOAD_BYTES as usize]);
        for address in &addresses {
            cache.keep(*address, generation, &payload);
        }
        Self { cache, extents, addresses }
    }
}

impl Work for Caching {
    fn prepare(&mut self) -> Result<(), GuardError> {
        Ok(())
    }

    fn round(&mut self) -> Result<(), GuardError> {
        let path = crate::paths::Path::CachedRead.name();
        for address in self.addresses.iter().cycle().take(READS as usize) {
            let found = self.cache.get(black_box(&self.extents), *address);
            if found.map(black_box).is_none_or(|payload| payload.len() as u64 != PAYLOAD_BYTES) {
                return Err(GuardError::Astray { path, what: "a record is not there" });
            }
        }
        Ok(())
    }
}
