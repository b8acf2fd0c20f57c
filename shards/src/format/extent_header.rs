//! Extent headers: who owns an extent, and since when. There is no central table; these are the truth.

use super::{
    checksum::crc32c,
    codec::{Fields, Writer, all_zero},
};
use crate::{
    geometry::Geometry,
    ids::{ExtentIndex, ExtentOrdinal, FrameNumber, Generation, ShardId, StoreId, Term},
    limits::{COUNTER_MAX, EXTENT_HEADER_BYTES, SHARDS_MAX},
};

const MAGIC: [u8; 8] = *b"coreLOGe";
const VERSION: u16 = 1;
const HEADER: usize = 128;
const _: () = assert!(HEADER as u64 == EXTENT_HEADER_BYTES);
const COVERED: usize = HEADER - 4;
const RESERVED: usize = 60;

/// What became of an extent last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ExtentState {
    /// It holds frames of its owner.
    Claimed = 1,
    /// Its owner gave it back.
    Freed = 2,
}

/// Everything an extent says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentHeader {
    /// The store.
    pub store: StoreId,
    /// Which extent it is.
    pub extent: ExtentIndex,
    /// Raised by each claim; the first is 1.
    pub generation: Generation,
    /// The shard that claimed it.
    pub owner: ShardId,
    /// Claimed, or freed since.
    pub state: ExtentState,
    /// Place in the owner's sequence of extents.
    pub ordinal: ExtentOrdinal,
    /// The open that wrote this header.
    pub term: Term,
    /// No frame in the extent has a lower number.
    pub frame_floor: FrameNumber,
}

/// There is no extent header here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExtentHeaderError {
    /// Fewer bytes than a header.
    #[error("{found} bytes are fewer than an extent header")]
    Truncated {
        /// Bytes at hand.
        found: u64,
    },
    /// Zeros: the extent was never claimed.
    #[error("no extent header was written here")]
    Absent,
    /// Something else is here.
    #[error("something else than an extent header is here")]
    NotAnExtentHeader,
    /// Damaged.
    #[error("extent header checksum is {found:08x} where {expected:08x} is right")]
    Checksum {
        /// Computed.
        expected: u32,
        /// Stored.
        found: u32,
    },
    /// Of a later format.
    #[error("extent header of version {found}; this program reads version {VERSION}")]
    NewerVersion {
        /// Stored.
        found: u16,
    },
    /// A field cannot be.
    #[error("extent header says {field} = {value}, which cannot be")]
    Impossible {
        /// Which.
        field: &'static str,
        /// What it says.
        value: u64,
    },
    /// Sound, of another store.
    #[error("the extent header belongs to store {found}")]
    Foreign {
        /// The store it names.
        found: StoreId,
    },
    /// Sound, of another extent of this store: the device put it here.
    #[error("the extent header was written for extent {found}")]
    Misdirected {
        /// The extent it names.
        found: ExtentIndex,
    },
}

impl ExtentHeader {
    /// Writes one copy to the front of `bytes`.
    ///
    /// # Panics
    /// If there are fewer than [`EXTENT_HEADER_BYTES`].
    pub fn encode(&self, bytes: &mut [u8]) {
        let Some((covered, rest)) = bytes.split_first_chunk_mut::<COVERED>() else {
            panic!("an extent header needs {EXTENT_HEADER_BYTES} bytes");
        };
        let mut fields = Writer::new(covered);
        fields.put(&MAGIC);
        fields.u16(VERSION);
        fields.u16(0);
        fields.u16(self.owner.0);
        fields.u8(self.state as u8);
        fields.u8(0);
        fields.put(&self.store.0);
        fields.u32(self.generation.0);
        fields.u32(self.extent.0);
        fields.u64(self.ordinal.0);
        fields.u64(self.term.0);
        fields.u64(self.frame_floor.0);
        fields.put(&[0; RESERVED]);
        let checksum = crc32c(covered);
        Writer::new(rest).u32(checksum);
    }

    /// Fills the header slot of an extent: both copies, zeros elsewhere.
    ///
    /// # Panics
    /// If `slot` is not one slot long.
    pub fn encode_slot(&self, geometry: &Geometry, slot: &mut [u8]) {
        assert_eq!(slot.len() as u64, geometry.slot_bytes(), "an extent header takes one slot");
        slot.fill(0);
        let (first, second) = slot.split_at_mut(slot.len() / 2);
        self.encode(first);
        self.encode(second);
    }

    /// Reads the copy at the front of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, ExtentHeaderError> {
        let Some((covered, stored)) =
            bytes.first_chunk::<HEADER>().and_then(|bytes| bytes.split_first_chunk::<COVERED>())
        else {
            return Err(ExtentHeaderError::Truncated { found: bytes.len() as u64 });
        };
        let found = Fields::new(stored).u32().unwrap_or_default();
        if !covered.starts_with(&MAGIC) {
            let absent = all_zero(covered) && found == 0;
            return Err(if absent {
                ExtentHeaderError::Absent
            } else {
                ExtentHeaderError::NotAnExtentHeader
            });
        }
        let expected = crc32c(covered);
        if found != expected {
            return Err(ExtentHeaderError::Checksum { expected, found });
        }
        Self::fields(covered).ok_or(ExtentHeaderError::Truncated { found: bytes.len() as u64 })?
    }

    fn fields(covered: &[u8]) -> Option<Result<Self, ExtentHeaderError>> {
        let mut fields = Fields::new(covered);
        fields.skip(MAGIC.len())?;
        let version = fields.u16()?;
        if version != VERSION {
            return Some(Err(ExtentHeaderError::NewerVersion { found: version }));
        }
        fields.skip(2)?;
        let owner = ShardId(fields.u16()?);
        let state = fields.u8()?;
        fields.skip(1)?;
        let store = StoreId(fields.bytes()?);
        let generation = Generation(fields.u32()?);
        let extent = ExtentIndex(fields.u32()?);
        let ordinal = ExtentOrdinal(fields.u64()?);
        let term = Term(fields.u64()?);
        let frame_floor = FrameNumber(fields.u64()?);
        let impossible = |field, value| Some(Err(ExtentHeaderError::Impossible { field, value }));
        let state = match state {
            1 => ExtentState::Claimed,
            2 => ExtentState::Freed,
            other => return impossible("state", u64::from(other)),
        };
        if u32::from(owner.0) >= SHARDS_MAX {
            return impossible("owner", u64::from(owner.0));
        }
        if generation.0 == 0 {
            return impossible("generation", 0);
        }
        for (field, count) in [("ordinal", ordinal.0), ("term", term.0), ("frame floor", frame_floor.0)] {
            if count > COUNTER_MAX {
                return impossible(field, count);
            }
        }
        Some(Ok(Self { store, extent, generation, owner, state, ordinal, term, frame_floor }))
    }

    /// Reads the copy at the front of `bytes`, which has to be of this extent of this store.
    pub fn decode_for(bytes: &[u8], store: StoreId, extent: ExtentIndex) -> Result<Self, ExtentHeaderError> {
        let header = Self::decode(bytes)?;
        if header.store != store {
            return Err(ExtentHeaderError::Foreign { found: header.store });
        }
        if header.extent != extent {
            return Err(ExtentHeaderError::Misdirected { found: header.extent });
        }
        Ok(header)
    }

    /// Reads a header slot: both copies, of which the newer valid one counts.
    ///
    /// A claim and a free each rewrite both copies in one write, and each copy lies in one sector, so a torn write
    /// leaves one old and one new copy; either is a state that the extent may be in.
    #[must_use]
    pub fn decode_slot(slot: &[u8], store: StoreId, extent: ExtentIndex) -> ExtentHeaderSlot {
        let (first, second) = slot.split_at(slot.len() / 2);
        let copies = [first, second].map(|copy| Self::decode_for(copy, store, extent));
        let header = match copies {
            [Ok(first), Ok(second)] => Ok(if second.age() > first.age() { second } else { first }),
            [Ok(one), Err(_)] | [Err(_), Ok(one)] => Ok(one),
            // Of two errors the one that says more: zeros in one copy do not make the extent unused.
            [Err(ExtentHeaderError::Absent), Err(error)] | [Err(error), Err(_)] => Err(error),
        };
        ExtentHeaderSlot { header, copies }
    }

    const fn age(&self) -> (u32, u8) {
        (self.generation.0, self.state as u8)
    }
}

/// What a header slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentHeaderSlot {
    /// What counts.
    pub header: Result<ExtentHeader, ExtentHeaderError>,
    /// Each copy.
    pub copies: [Result<ExtentHeader, ExtentHeaderError>; 2],
}

impl ExtentHeaderSlot {
    /// A piece of one copy and zeros instead of the other: the write of a claim that was cut short, of an extent that was
    /// never claimed before. Nothing was put into it, for that waits for the whole header.
    #[must_use]
    pub const fn is_torn_claim(&self) -> bool {
        use ExtentHeaderError::{Absent, Checksum, NotAnExtentHeader};
        matches!(
            self.copies,
            [Err(Checksum { .. } | NotAnExtentHeader), Err(Absent)]
                | [Err(Absent), Err(Checksum { .. } | NotAnExtentHeader)]
        )
    }

    /// The copy that is of no use while the other one is: torn, or damaged.
    #[must_use]
    pub const fn bad_copy(&self) -> Option<(usize, ExtentHeaderError)> {
        match self.copies {
            [Ok(_), Err(error)] => Some((1, error)),
            [Err(error), Ok(_)] => Some((0, error)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    const STORE: StoreId = StoreId(*b"extents of tests");
    const EXTENT: ExtentIndex = ExtentIndex(42);

    fn example() -> ExtentHeader {
        ExtentHeader {
            store: STORE,
            extent: EXTENT,
            generation: Generation(3),
            owner: ShardId(7),
            state: ExtentState::Claimed,
            ordinal: ExtentOrdinal(99),
            term: Term(11),
            frame_floor: FrameNumber(1234),
        }
    }

    fn slot_of(header: &ExtentHeader) -> Vec<u8> {
        let mut slot = vec![0xff; 4096];
        header.encode_slot(&Geometry::new(4096, 1 << 20).unwrap(), &mut slot);
        slot
    }

    proptest! {
        #[test]
        fn a_header_comes_back_as_it_was(
            extent: u32, generation in 1u32.., owner in 0u16..1024, freed: bool, ordinal in 0..=COUNTER_MAX,
            term in 0..=COUNTER_MAX, frame_floor in 0..=COUNTER_MAX,
        ) {
            let header = ExtentHeader {
                store: STORE, extent: ExtentIndex(extent), generation: Generation(generation),
                owner: ShardId(owner), state: if freed { ExtentState::Freed } else { ExtentState::Claimed },
                ordinal: ExtentOrdinal(ordinal), term: Term(term), frame_floor: FrameNumber(frame_floor),
            };
            let slot = slot_of(&header);
            let read = ExtentHeader::decode_slot(&slot, STORE, ExtentIndex(extent));
            prop_assert_eq!(read.copies, [Ok(header), Ok(header)]);
            prop_assert_eq!(read.header, Ok(header));
        }

        #[test]
        fn random_bytes_are_no_header(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(ExtentHeader::decode(&bytes).is_err());
            prop_assert!(ExtentHeader::decode_slot(&bytes, STORE, EXTENT).header.is_err());
        }
    }

    #[test]
    fn every_single_flipped_bit_of_a_copy_is_seen_and_the_other_copy_counts() {
        let good = slot_of(&example());
        for (copy, start) in [(0, 0), (1, 2048)] {
            for bit in 0..HEADER * 8 {
                let mut slot = good.clone();
                slot[start + bit / 8] ^= 1 << (bit % 8);
                let read = ExtentHeader::decode_slot(&slot, STORE, EXTENT);
                assert_eq!(read.header, Ok(example()));
                assert_eq!(read.bad_copy().map(|(copy, _)| copy), Some(copy), "bit {bit}");
            }
        }
    }

    #[test]
    fn of_two_valid_copies_the_newer_counts() {
        let freed = ExtentHeader { state: ExtentState::Freed, ..example() };
        let claimed_again = ExtentHeader { generation: Generation(4), ..example() };
        for (old, new) in [(example(), freed), (freed, claimed_again)] {
            for first_is_new in [false, true] {
                let mut slot = slot_of(&old);
                let fresh = slot_of(&new);
                let range = if first_is_new { 0..512 } else { 2048..2560 };
                slot[range.clone()].copy_from_slice(&fresh[range]);
                assert_eq!(ExtentHeader::decode_slot(&slot, STORE, EXTENT).header, Ok(new));
            }
        }
    }

    #[test]
    fn what_is_not_the_header_says_what_it_is() {
        let slot = slot_of(&example());
        let read =
            |slot: &[u8], store, extent| ExtentHeader::decode_slot(slot, store, extent).header.unwrap_err();
        assert_eq!(read(&[0; 4096], STORE, EXTENT), ExtentHeaderError::Absent);
        assert_eq!(read(&[1; 4096], STORE, EXTENT), ExtentHeaderError::NotAnExtentHeader);
        assert_eq!(read(&slot, StoreId([1; 16]), EXTENT), ExtentHeaderError::Foreign { found: STORE });
        let other = ExtentIndex(43);
        assert_eq!(read(&slot, STORE, other), ExtentHeaderError::Misdirected { found: EXTENT });
        let mut half = slot.clone();
        half[..2048].fill(0);
        half[2048] ^= 1;
        assert_eq!(read(&half, STORE, EXTENT), ExtentHeaderError::NotAnExtentHeader);
    }

    /// docs/FORMAT.md states the layout; what is stored depends on it for ever.
    #[test]
    fn the_layout_never_changes() {
        let mut bytes = [0; HEADER];
        example().encode(&mut bytes);
        let field = |at: usize, size: usize| {
            let mut value = [0; 8];
            value[..size].copy_from_slice(&bytes[at..at + size]);
            u64::from_le_bytes(value)
        };
        assert_eq!(&bytes[..8], b"coreLOGe");
        assert_eq!((field(8, 2), field(10, 2), field(12, 2), field(14, 1), field(15, 1)), (1, 0, 7, 1, 0));
        assert_eq!(&bytes[16..32], &STORE.0);
        assert_eq!((field(32, 4), field(36, 4), field(40, 8)), (3, 42, 99));
        assert_eq!((field(48, 8), field(56, 8)), (11, 1234));
        assert_eq!(bytes[64..124], [0; 60]);
        assert_eq!(field(124, 4), u64::from(crc32c(&bytes[..124])));
    }
}
