//! Writing a large record: part by part as its bytes come, and a list that makes them one record.

use super::levels::Levels;
use crate::{
    format::{
        manifest::ManifestEntry,
        record::{RecordFlags, RecordKind},
    },
    limits::{
        FRAME_HEADER_BYTES, LARGE_RECORD_BYTES_MAX, LARGE_RECORD_STORE_PARTS, RECORD_ALIGNMENT,
        RECORD_HEADER_BYTES,
    },
    ring::reservation::Placed,
    shard::{Shard, ShardRefusal},
};

/// The longest large record of a store of so many bytes.
#[must_use]
pub const fn large_bytes_max(store_bytes: u64) -> u64 {
    let part = store_bytes / LARGE_RECORD_STORE_PARTS;
    if part < LARGE_RECORD_BYTES_MAX { part } else { LARGE_RECORD_BYTES_MAX }
}

/// Payload bytes of a part, in buffers of so many bytes: two of them fill a buffer, and beside one there is room for
/// other records.
#[must_use]
pub const fn part_bytes(buffer_bytes: u64) -> usize {
    let half = (buffer_bytes - FRAME_HEADER_BYTES) / 2 - RECORD_HEADER_BYTES;
    (half - half % RECORD_ALIGNMENT) as usize
}

/// A large record that is being written. Dropping it gives the record up: what was written of it is never seen.
///
/// It holds at most one part and a node of each level of its list.
#[derive(Debug)]
pub struct LargeWriter {
    part: Vec<u8>,
    levels: Levels,
    bytes: u64,
    bytes_max: u64,
}

impl LargeWriter {
    /// A record of no bytes yet, and of at most `bytes_max` (see [`large_bytes_max`]).
    #[must_use]
    pub const fn new(bytes_max: u64) -> Self {
        Self { part: Vec::new(), levels: Levels::new(RecordKind::LARGE_MANIFEST), bytes: 0, bytes_max }
    }

    /// Bytes that were taken.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes bytes, as many as it says. After a refusal it took none; [`ShardRefusal::Full`] can be tried again. All
    /// calls for one record have to give the same shard.
    pub fn try_write(&mut self, shard: &Shard, bytes: &[u8]) -> Result<usize, ShardRefusal> {
        if bytes.len() as u64 > self.bytes_max - self.bytes {
            return Err(ShardRefusal::TooLarge { max: self.bytes_max });
        }
        let most = part_bytes(shard.ring().buffer_bytes());
        if self.part.len() >= most {
            self.write_part(shard)?;
        }
        let taken = if self.part.is_empty() && bytes.len() >= most {
            self.levels.make_room(shard)?;
            write(&mut self.levels, shard, &bytes[..most])?;
            most
        } else {
            let taken = bytes.len().min(most - self.part.len());
            self.part.extend_from_slice(&bytes[..taken]);
            taken
        };
        self.bytes += taken as u64;
        Ok(taken)
    }

    fn write_part(&mut self, shard: &Shard) -> Result<(), ShardRefusal> {
        self.levels.make_room(shard)?;
        write(&mut self.levels, shard, &self.part)?;
        self.part.clear();
        Ok(())
    }

    /// Where its list and its parts are, with the bytes of each; of one that is done, and whose list has one level.
    #[cfg(feature = "sim")]
    pub(crate) fn pieces(&self, root: crate::address::Address) -> Vec<(crate::address::Address, u64)> {
        let list = self.levels.root();
        let entries =
            crate::format::manifest::Manifest::decode_root(&list, crate::format::manifest::ManifestOf::Large)
                .map_or_else(|_| Vec::new(), |list| list.entries);
        let parts = entries.iter().map(|entry| (entry.address, u64::from(entry.length)));
        std::iter::once((root, list.len() as u64)).chain(parts).collect()
    }

    /// Makes it a record. After [`ShardRefusal::Full`] it can be tried again; it must not be once it is done.
    pub fn try_finish(&mut self, shard: &Shard) -> Result<Placed, ShardRefusal> {
        if !self.part.is_empty() {
            self.write_part(shard)?;
        }
        debug_assert_eq!(self.levels.bytes(), self.bytes);
        self.levels.finish(shard)
    }
}

/// Writes one part; there is room for its entry.
fn write(levels: &mut Levels, shard: &Shard, part: &[u8]) -> Result<(), ShardRefusal> {
    let mut reservation = shard.try_reserve(part.len())?;
    reservation.payload_mut().copy_from_slice(part);
    let placed = reservation.commit(RecordKind::LARGE_PART, RecordFlags::NONE);
    let length = part.len() as u64;
    let entry = ManifestEntry { address: placed.address, length: length as u32, bytes: length, records: 1 };
    levels.push(shard, entry);
    Ok(())
}
