//! The 64-bit address of a record.
//!
//! Bits 0 to 42: position in the store in units of 8 bytes. Bits 43 to 45: length hint. Bits 46 to 63: the low 18
//! bits of the generation of the extent. An address of an extent that was reused is told apart until the same
//! extent was claimed 262,144 times more.

use crate::{
    geometry::Geometry,
    ids::{ExtentIndex, Generation, SlotIndex},
    limits::{RECORD_ALIGNMENT, RECORD_HEADER_BYTES},
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

const POSITION_BITS: u32 = 43;
const HINT_BITS: u32 = 3;
const GENERATION_BITS: u32 = 18;
const HINT_SHIFT: u32 = POSITION_BITS;
const GENERATION_SHIFT: u32 = POSITION_BITS + HINT_BITS;
const _: () = assert!(POSITION_BITS + HINT_BITS + GENERATION_BITS == 64);

const POSITION_MASK: u64 = (1 << POSITION_BITS) - 1;
const HINT_MASK: u64 = (1 << HINT_BITS) - 1;
const GENERATION_MASK: u64 = (1 << GENERATION_BITS) - 1;

/// The hint of a record of 128 slots, or of more.
const HINT_LONG: u64 = HINT_MASK;

/// Where a record is. Only the store that made it can read it; any 64-bit value can be tried, and one that does not
/// name a record is an error.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(u64);

impl Address {
    /// Packs an address. `byte` is the position of the record header in the store, `payload_bytes` only makes the
    /// length hint.
    #[inline]
    #[must_use]
    pub fn new(geometry: &Geometry, byte: u64, generation: Generation, payload_bytes: u64) -> Self {
        debug_assert!(byte.is_multiple_of(RECORD_ALIGNMENT) && byte / RECORD_ALIGNMENT <= POSITION_MASK);
        let first = byte >> geometry.slot_shift;
        let last = (byte + RECORD_HEADER_BYTES + payload_bytes - 1) >> geometry.slot_shift;
        let hint = hint_of(last - first + 1);
        Self(
            (byte / RECORD_ALIGNMENT)
                | hint << HINT_SHIFT
                | (u64::from(generation.0) & GENERATION_MASK) << GENERATION_SHIFT,
        )
    }

    /// The address as one integer, to be stored by the caller.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The address that [`Address::to_bits`] gave. Any value is accepted; reading decides.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Position of the record header in the store, in bytes from the first extent.
    #[inline]
    #[must_use]
    pub const fn byte(self) -> u64 {
        (self.0 & POSITION_MASK) * RECORD_ALIGNMENT
    }

    /// Slots that a first read should cover: the smallest power of two that holds the record, at most 128; a record
    /// may be longer only where this is 128.
    #[must_use]
    pub const fn slots_hint(self) -> u64 {
        1 << ((self.0 >> HINT_SHIFT) & HINT_MASK)
    }

    /// The slot in which the record begins.
    #[must_use]
    pub const fn slot(self, geometry: &Geometry) -> SlotIndex {
        SlotIndex(self.byte() >> geometry.slot_shift)
    }

    /// The extent that holds the record.
    #[must_use]
    pub const fn extent(self, geometry: &Geometry) -> ExtentIndex {
        geometry.extent_of_byte(self.byte())
    }

    /// True if the address was made while the extent had this generation.
    #[must_use]
    pub const fn is_of(self, generation: Generation) -> bool {
        self.0 >> GENERATION_SHIFT == generation.0 as u64 & GENERATION_MASK
    }
}

#[inline]
const fn hint_of(slots: u64) -> u64 {
    let ceiling_log2 = 64 - (slots - 1).leading_zeros() as u64;
    if ceiling_log2 < HINT_LONG { ceiling_log2 } else { HINT_LONG }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address")
            .field("byte", &self.byte())
            .field("slots_hint", &self.slots_hint())
            .field("generation_low", &(self.0 >> GENERATION_SHIFT))
            .finish()
    }
}

/// The text is not an address: 16 hexadecimal digits are expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not an address: 16 hexadecimal digits are expected, as `append --addresses` prints them"
)]
pub struct ParseAddressError {
    /// What was given.
    pub text: String,
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseAddressError { text: text.to_owned() };
        let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hex {
            return Err(error());
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| error())
    }
}

impl TryFrom<String> for Address {
    type Error = ParseAddressError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_address_gives_back_what_it_was_made_of() {
        let geometry = Geometry::new(4096, 64 << 20).unwrap();
        for (byte, generation, payload) in
            [(0, 0, 0), (4096 + 128, 1, 64), ((64 << 40) - 8, u32::MAX, 1), (777 * 8, 262_143, 256 << 10)]
        {
            let address = Address::new(&geometry, byte, Generation(generation), payload);
            assert_eq!(address.byte(), byte);
            assert!(address.is_of(Generation(generation)));
            assert!(!address.is_of(Generation(generation.wrapping_add(1))));
            assert_eq!(address.to_string().parse::<Address>(), Ok(address));
        }
    }

    #[test]
    fn the_hint_covers_the_record_or_says_that_it_is_long() {
        let geometry = Geometry::new(4096, 64 << 20).unwrap();
        for start in (0..4096).step_by(8) {
            for payload in [0, 1, 8, 100, 1024, 4000, 4096, 10_000, 100_000, 1 << 20, 8 << 20] {
                let address = Address::new(&geometry, start, Generation(1), payload);
                let slots = (start + 8 + payload).div_ceil(4096);
                assert!(address.slots_hint() >= slots || address.slots_hint() == 128);
                assert!(address.slots_hint() < 2 * slots);
            }
        }
    }

    #[test]
    fn a_text_that_is_no_address_is_named() {
        for text in ["", "zz", "12345", "+123456789abcdef", "0123456789abcdef0"] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.to_string().contains("16 hexadecimal digits"), "{error}");
        }
    }
}
