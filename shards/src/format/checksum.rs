//! CRC-32C, and the seed that ties a record's checksum to its store, its extent's generation and its place.

mod short;

use crate::{
    ids::{Generation, StoreId},
    limits::RECORD_ALIGNMENT,
};
use crc_fast::{CrcAlgorithm, Digest};
use short::{SHORT_BYTES_MAX, crc32c_of_short};

/// CRC-32C (Castagnoli) of `bytes`.
#[inline]
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// CRC-32C of the bytes of `word` (little-endian) and then of `payload`, as if they lay behind one another.
#[inline]
#[must_use]
pub fn crc32c_of_two(word: u32, payload: &[u8]) -> u32 {
    let short = if payload.len() <= SHORT_BYTES_MAX { crc32c_of_short(word, payload) } else { None };
    short.unwrap_or_else(|| {
        // What the register holds between the two, which is the checksum of the first without its last inversion.
        let between = !crc32c(&word.to_le_bytes());
        let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(between));
        digest.update(payload);
        #[expect(clippy::cast_possible_truncation, reason = "a checksum of 32 bits")]
        let checksum = digest.finalize() as u32;
        checksum
    })
}

// Odd constants without structure (the fractional parts of square roots of primes). Odd, so that multiplying by one
// is a bijection: two different inputs of one step never meet.
const MIX_STORE: u64 = 0x9e37_79b9_7f4a_7c15;
const MIX_POSITION: u64 = 0xbb67_ae85_84ca_a73b;
const MIX_GENERATION: u64 = 0xa54f_f53a_5f1d_36f1;
const MIX_FINAL: u64 = 0xc2b2_ae3d_27d4_eb4f;

/// The part of every record seed that is the same in the whole store. Made once at open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreSeed(u64);

impl StoreSeed {
    /// The seed of a store.
    #[must_use]
    pub fn new(store: StoreId) -> Self {
        let id = u128::from_le_bytes(store.0);
        let [low, high] = halves(id);
        Self(
            fold((low ^ MIX_STORE).wrapping_mul(MIX_POSITION))
                .wrapping_add(fold(high.wrapping_mul(MIX_FINAL))),
        )
    }

    /// The seed of the record whose header is at `byte` of the store, in an extent of this generation.
    #[inline]
    #[must_use]
    pub const fn record_seed(self, generation: Generation, byte: u64) -> u32 {
        let place = (byte / RECORD_ALIGNMENT).wrapping_mul(MIX_POSITION);
        let age = (generation.0 as u64).wrapping_mul(MIX_GENERATION).rotate_left(32);
        let mixed = fold(self.0 ^ place ^ age).wrapping_mul(MIX_FINAL);
        (mixed >> 32) as u32
    }
}

#[inline]
const fn fold(value: u64) -> u64 {
    value ^ (value >> 32)
}

const fn halves(value: u128) -> [u64; 2] {
    #[expect(clippy::cast_possible_truncation, reason = "both halves are kept")]
    let halves = [value as u64, (value >> 64) as u64];
    halves
}

/// Runs over the record headers of a frame, in order; the frame header carries the result. It ties the records to
/// the header: records that an earlier, never acknowledged write left in the same place have good checksums of their
/// own, but not this digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordsDigest(u64);

impl RecordsDigest {
    /// The digest of no records.
    #[must_use]
    pub const fn new() -> Self {
        Self(MIX_STORE)
    }

    /// Adds one record by the 8 bytes of its header, which hold its checksum.
    #[inline]
    #[must_use]
    pub const fn with(self, record_header: [u8; 8]) -> Self {
        // For equal headers the step is a bijection of the digest and the other way round, so a single different
        // header always shows; several cancel out by chance of 2^-64.
        Self((self.0.rotate_left(29) ^ u64::from_le_bytes(record_header)).wrapping_mul(MIX_FINAL))
    }

    /// As stored.
    #[inline]
    #[must_use]
    pub const fn value(self) -> u64 {
        fold(self.0)
    }
}

impl Default for RecordsDigest {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn the_checksum_is_the_crc32c_of_everybody_else() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn both_implementations_of_crc32c_agree(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(crc32c(&bytes), crc32c::crc32c(&bytes));
        }
    }

    proptest! {
        #[test]
        fn two_pieces_have_the_checksum_of_their_row(
            word: u32,
            bytes in proptest::collection::vec(any::<u8>(), 0..2 * SHORT_BYTES_MAX),
        ) {
            let row = [&word.to_le_bytes()[..], &bytes].concat();
            prop_assert_eq!(crc32c_of_two(word, &bytes), crc32c(&row));
            if let Some(short) = crc32c_of_short(word, &bytes) {
                prop_assert_eq!(short, crc32c(&row));
            }
        }
    }

    #[test]
    fn neighbours_in_place_generation_and_store_have_seeds_of_their_own() {
        let mut seen = HashSet::new();
        let mut asked = 0;
        for store in [StoreId([0; 16]), StoreId([1; 16])] {
            let seed = StoreSeed::new(store);
            for generation in 1..=16 {
                for slot in 0..64 {
                    for offset in [0, 8, 128, 136] {
                        asked += 1;
                        seen.insert(seed.record_seed(Generation(generation), slot * 4096 + offset));
                    }
                }
            }
        }
        assert!(asked - seen.len() <= 1, "{} of {asked} seeds collide", asked - seen.len());
    }

    /// FORMAT.md states the formula; a stored record depends on it for ever.
    #[test]
    fn the_seed_never_changes() {
        let store = StoreId(*b"0123456789abcdef");
        let seeds = [(0, 128), (1, 4096 + 128), (u32::MAX, (64 << 40) - 8)]
            .map(|(generation, byte)| StoreSeed::new(store).record_seed(Generation(generation), byte));
        assert_eq!(seeds, SEEDS_OF_VERSION_1);
        let digest = RecordsDigest::new().with([1, 2, 3, 4, 5, 6, 7, 8]).with([0; 8]);
        assert_eq!(digest.value(), DIGEST_OF_VERSION_1);
    }

    const SEEDS_OF_VERSION_1: [u32; 3] = [709188160, 1856342429, 2085365520];
    const DIGEST_OF_VERSION_1: u64 = 0xd691_b293_6001_e652;
}
