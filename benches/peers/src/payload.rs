//! What all engines are given: records that are unique, that cannot be compressed one by one, and that can be made again
//! to compare with what comes back.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Bits of a key that count the records of one writer.
const NUMBER_BITS: u32 = 40;

/// Which record: the writer that appended it, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordId {
    /// From 0.
    pub writer: u16,
    /// From 0.
    pub number: u64,
}

impl RecordId {
    /// The same in one number: ascending within a writer.
    pub const fn key(self) -> u64 {
        (self.writer as u64) << NUMBER_BITS | self.number
    }

    /// The key as key-value engines order it.
    pub const fn key_bytes(self) -> [u8; 8] {
        self.key().to_be_bytes()
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} of writer {}", self.number, self.writer)
    }
}

/// A fast sequence of numbers that can be repeated (splitmix64).
#[derive(Debug, Clone)]
pub struct Sequence(u64);

impl Sequence {
    /// The sequence of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Puts a list in a random order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for end in (1..list.len()).rev() {
            list.swap(end, (self.next() % (end as u64 + 1)) as usize);
        }
    }
}

/// Makes the records of one size: filler with the key in front, in machine order.
#[derive(Debug, Clone)]
pub struct Payloads {
    bytes: Vec<u8>,
}

impl Payloads {
    /// Records of `record_bytes`, at least 8.
    pub fn new(record_bytes: usize) -> Self {
        let mut sequence = Sequence::new(record_bytes as u64);
        let words = record_bytes.max(8).div_ceil(8);
        let mut bytes: Vec<u8> = (0..words).flat_map(|_| sequence.next().to_le_bytes()).collect();
        bytes.truncate(record_bytes.max(8));
        Self { bytes }
    }

    /// The payload of a record.
    #[inline]
    pub fn of(&mut self, id: RecordId) -> &[u8] {
        if let Some(front) = self.bytes.first_chunk_mut() {
            *front = id.key().to_le_bytes();
        }
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::{Payloads, RecordId, Sequence};
    use std::collections::HashSet;

    #[test]
    fn records_differ_and_can_be_made_again() {
        let ids = (0..3).flat_map(|writer| (0..50).map(move |number| RecordId { writer, number }));
        let mut payloads = Payloads::new(61);
        let all: Vec<Vec<u8>> = ids.clone().map(|id| payloads.of(id).to_vec()).collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        let mut again = Payloads::new(61);
        assert!(ids.zip(&all).all(|(id, record)| again.of(id) == record && record.len() == 61));
    }

    #[test]
    fn shuffling_keeps_all_and_moves_most() {
        let mut list: Vec<usize> = (0..1000).collect();
        Sequence::new(1).shuffle(&mut list);
        assert!(list.iter().enumerate().filter(|(index, value)| index != *value).count() > 900);
        list.sort_unstable();
        assert!(list.into_iter().eq(0..1000));
    }
}
