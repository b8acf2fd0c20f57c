//! Frame headers: 128 bytes at a slot boundary that say whose frame this is, which one, and what it follows.

use super::{
    checksum::crc32c,
    codec::{Fields, Writer, all_zero},
};
use crate::{
    address::Address,
    geometry::Geometry,
    ids::{ExtentOrdinal, FrameNumber, Generation, ShardId, SlotIndex, StoreId, Term},
    limits::{
        BUFFER_BYTES_MAX, COUNTER_MAX, FRAME_HEADER_BYTES, RECORD_ALIGNMENT, SLOT_BYTES_MIN, STORE_BYTES_MAX,
    },
};

const MAGIC: [u8; 8] = *b"coreLOGf";
const VERSION: u16 = 1;
const HEADER: usize = 128;
const _: () = assert!(HEADER as u64 == FRAME_HEADER_BYTES);
const COVERED: usize = HEADER - 4;
const RESERVED: usize = 4;

const FLAG_CONTROL: u16 = 1;

/// Everything a frame says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The store.
    pub store: StoreId,
    /// The shard whose stream this is.
    pub shard: ShardId,
    /// Of the extent that the frame lies in.
    pub generation: Generation,
    /// The open that wrote it.
    pub term: Term,
    /// Place in the shard's stream.
    pub number: FrameNumber,
    /// Checksum of the header of the frame before; 0 for frame 0.
    pub link: u32,
    /// The slot that the frame begins in.
    pub base_slot: SlotIndex,
    /// Bytes from here to the end of the last record, this header included; a multiple of 8.
    pub used_bytes: u32,
    /// Number of records.
    pub records: u32,
    /// Over the headers of the records (see [`super::checksum::RecordsDigest`]).
    pub records_digest: u64,
    /// Frames with a lower number were durable when this frame was submitted.
    pub durable: FrameNumber,
    /// The shard's oldest extent when this frame was submitted. An extent may be freed once a durable frame states a
    /// higher one, so that a log without its beginning proves that it was meant to lose it.
    pub oldest: ExtentOrdinal,
    /// Where the shard's newest checkpoint that was durable when this one was submitted begins; `None`: not stated.
    pub checkpoint: Option<Address>,
    /// It holds a control record: recovery reads it whole.
    pub has_control: bool,
    /// The oldest extent of the shard that a batch or large record whose root is in the frame has parts in; `None`:
    /// there is no such root.
    pub lists_from: Option<ExtentOrdinal>,
    /// When it was submitted, in nanoseconds of the Unix clock; for people only.
    pub unix_ns: u64,
}

/// A header that passed its own checks, with its checksum: the link of the frame behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckedHeader {
    /// The fields.
    pub header: FrameHeader,
    /// Its checksum.
    pub link: u32,
}

/// There is no frame header here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Fewer bytes than a header.
    #[error("{found} bytes are fewer than a frame header")]
    Truncated {
        /// Bytes at hand.
        found: u64,
    },
    /// Zeros: never written.
    #[error("no frame was written here")]
    Absent,
    /// Something else, such as the middle of an older frame.
    #[error("something else than a frame header is here")]
    NotAFrame,
    /// It begins like a frame header, but its checksum is wrong: damaged.
    #[error("frame header checksum is {found:08x} where {expected:08x} is right")]
    Checksum {
        /// Computed.
        expected: u32,
        /// Stored.
        found: u32,
    },
    /// The checksum is right and the header is of a later format.
    #[error("frame header of version {found}; this program reads version {VERSION}")]
    NewerVersion {
        /// Stored.
        found: u16,
    },
    /// The checksum is right and a field cannot be: written by a broken program, or on purpose.
    #[error("frame header says {field} = {value}, which cannot be")]
    Impossible {
        /// Which.
        field: &'static str,
        /// What it says.
        value: u64,
    },
}

impl FrameHeader {
    /// Writes the header to the front of `bytes` and gives its checksum, the link of the next frame.
    ///
    /// # Panics
    /// If there are fewer than [`FRAME_HEADER_BYTES`].
    pub fn encode(&self, bytes: &mut [u8]) -> u32 {
        debug_assert!(self.impossible().is_none(), "{:?}", self.impossible());
        let Some((covered, rest)) = bytes.split_first_chunk_mut::<COVERED>() else {
            panic!("a frame header needs {FRAME_HEADER_BYTES} bytes");
        };
        let mut fields = Writer::new(covered);
        fields.put(&MAGIC);
        fields.u16(VERSION);
        fields.u16(if self.has_control { FLAG_CONTROL } else { 0 });
        fields.u16(self.shard.0);
        fields.u16(0);
        fields.put(&self.store.0);
        fields.u32(self.generation.0);
        fields.u32(self.records);
        fields.u64(self.term.0);
        fields.u64(self.number.0);
        fields.u64(self.base_slot.0);
        fields.u32(self.used_bytes);
        fields.u32(self.link);
        fields.u64(self.durable.0);
        fields.u64(self.unix_ns);
        fields.u64(self.records_digest);
        fields.u64(self.oldest.0);
        fields.u64(self.checkpoint.map_or(0, Address::to_bits));
        fields.u64(self.lists_from.map_or(0, |ordinal| ordinal.0 + 1));
        fields.put(&[0; RESERVED]);
        let checksum = crc32c(covered);
        Writer::new(rest).u32(checksum);
        checksum
    }

    /// Reads the header at the front of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<CheckedHeader, FrameError> {
        let Some(bytes) = bytes.first_chunk::<HEADER>() else {
            return Err(FrameError::Truncated { found: bytes.len() as u64 });
        };
        let Some((covered, stored)) = bytes.split_first_chunk::<COVERED>() else {
            return Err(FrameError::Truncated { found: bytes.len() as u64 });
        };
        if !covered.starts_with(&MAGIC) {
            return Err(if all_zero(bytes) { FrameError::Absent } else { FrameError::NotAFrame });
        }
        let found = Fields::new(stored).u32().unwrap_or_default();
        let expected = crc32c(covered);
        if found != expected {
            return Err(FrameError::Checksum { expected, found });
        }
        let (version, header) =
            Self::fields(covered).ok_or(FrameError::Truncated { found: bytes.len() as u64 })?;
        if version != VERSION {
            return Err(FrameError::NewerVersion { found: version });
        }
        match header.impossible() {
            Some((field, value)) => Err(FrameError::Impossible { field, value }),
            None => Ok(CheckedHeader { header, link: found }),
        }
    }

    fn fields(covered: &[u8]) -> Option<(u16, Self)> {
        let mut fields = Fields::new(covered);
        fields.skip(MAGIC.len())?;
        let version = fields.u16()?;
        // A reader ignores the flags that it does not know.
        let has_control = fields.u16()? & FLAG_CONTROL != 0;
        let shard = ShardId(fields.u16()?);
        fields.skip(2)?;
        let store = StoreId(fields.bytes()?);
        let generation = Generation(fields.u32()?);
        let records = fields.u32()?;
        let term = Term(fields.u64()?);
        let number = FrameNumber(fields.u64()?);
        let base_slot = SlotIndex(fields.u64()?);
        let used_bytes = fields.u32()?;
        let link = fields.u32()?;
        let durable = FrameNumber(fields.u64()?);
        let unix_ns = fields.u64()?;
        let records_digest = fields.u64()?;
        let oldest = ExtentOrdinal(fields.u64()?);
        let checkpoint = Some(Address::from_bits(fields.u64()?)).filter(|address| address.to_bits() != 0);
        let lists_from = fields.u64()?.checked_sub(1).map(ExtentOrdinal);
        let header = Self {
            store,
            shard,
            generation,
            term,
            number,
            link,
            base_slot,
            used_bytes,
            records,
            records_digest,
            durable,
            oldest,
            checkpoint,
            has_control,
            lists_from,
            unix_ns,
        };
        Some((version, header))
    }

    fn impossible(&self) -> Option<(&'static str, u64)> {
        let used = u64::from(self.used_bytes);
        if !(FRAME_HEADER_BYTES..=BUFFER_BYTES_MAX).contains(&used) || !used.is_multiple_of(RECORD_ALIGNMENT)
        {
            return Some(("used bytes", used));
        }
        if self.base_slot.0 >= STORE_BYTES_MAX / SLOT_BYTES_MIN {
            return Some(("base slot", self.base_slot.0));
        }
        let lists_from = self.lists_from.map_or(0, |ordinal| ordinal.0);
        for (field, count) in [("number", self.number.0), ("term", self.term.0), ("lists from", lists_from)] {
            if count > COUNTER_MAX {
                return Some((field, count));
            }
        }
        if self.durable > self.number {
            return Some(("durable", self.durable.0));
        }
        let body = used - FRAME_HEADER_BYTES;
        if u64::from(self.records) > body / RECORD_ALIGNMENT || (self.records == 0) != (body == 0) {
            return Some(("records", u64::from(self.records)));
        }
        None
    }

    /// Slots that the frame occupies.
    #[must_use]
    pub const fn slots(&self, geometry: &Geometry) -> u64 {
        geometry.slots_for(self.used_bytes as u64)
    }

    /// The slot behind the frame.
    #[must_use]
    pub const fn end_slot(&self, geometry: &Geometry) -> SlotIndex {
        self.base_slot.offset_by(self.slots(geometry))
    }
}

/// What the frame at a place has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameExpectation {
    /// The store.
    pub store: StoreId,
    /// The shard.
    pub shard: ShardId,
    /// Of the extent, by its header.
    pub generation: Generation,
    /// The next number.
    pub number: FrameNumber,
    /// Checksum of the frame before.
    pub link: u32,
    /// The place.
    pub base_slot: SlotIndex,
}

/// A sound frame header that is not the one expected, by the first thing that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Written by another store.
    #[error("it belongs to store {found}")]
    Foreign {
        /// The store it names.
        found: StoreId,
    },
    /// Written for another place: the device put it here.
    #[error("it was written for slot {found}")]
    Misdirected {
        /// The place it names.
        found: SlotIndex,
    },
    /// From an earlier life of the extent.
    #[error("it is from generation {found} of the extent")]
    Stale {
        /// The generation it names.
        found: Generation,
    },
    /// Of a shard that does not own the extent.
    #[error("it is of shard {found}")]
    OtherShard {
        /// The shard it names.
        found: ShardId,
    },
    /// An earlier or later frame of the shard.
    #[error("it is frame {found}")]
    Number {
        /// The number it names.
        found: FrameNumber,
    },
    /// The right number behind another frame: an earlier open wrote it and it was never part of the log.
    #[error("it follows another frame: its link is {found:08x}")]
    Link {
        /// The link it names.
        found: u32,
    },
}

impl FrameExpectation {
    /// Compares a header with what it has to be.
    pub fn check(&self, header: &FrameHeader) -> Result<(), Mismatch> {
        self.check_place(header)?;
        if header.number != self.number {
            return Err(Mismatch::Number { found: header.number });
        }
        if header.link != self.link {
            return Err(Mismatch::Link { found: header.link });
        }
        Ok(())
    }

    /// The part of [`FrameExpectation::check`] that any frame of this extent passes at this place, whatever its number.
    pub fn check_place(&self, header: &FrameHeader) -> Result<(), Mismatch> {
        if header.store != self.store {
            return Err(Mismatch::Foreign { found: header.store });
        }
        if header.base_slot != self.base_slot {
            return Err(Mismatch::Misdirected { found: header.base_slot });
        }
        if header.generation != self.generation {
            return Err(Mismatch::Stale { found: header.generation });
        }
        if header.shard != self.shard {
            return Err(Mismatch::OtherShard { found: header.shard });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    pub(super) fn example() -> FrameHeader {
        FrameHeader {
            store: StoreId(*b"frames of tests!"),
            shard: ShardId(7),
            generation: Generation(3),
            term: Term(11),
            number: FrameNumber(1234),
            link: 0xdead_beef,
            base_slot: SlotIndex(77),
            used_bytes: 4096 + 8,
            records: 5,
            records_digest: 0x0123_4567_89ab_cdef,
            durable: FrameNumber(1230),
            oldest: ExtentOrdinal(2),
            checkpoint: Some(Address::from_bits(0x0123_4567)),
            has_control: true,
            lists_from: Some(ExtentOrdinal(1)),
            unix_ns: 1_700_000_000_000_000_000,
        }
    }

    prop_compose! {
        fn any_header()(
            store: [u8; 16], shard: u16, generation: u32, term in 0..=COUNTER_MAX, number in 0..=COUNTER_MAX, link: u32,
            base_slot in 0..1u64 << 34, units in 16..=(1u32 << 20), records: u32, records_digest: u64,
            ago: u64, oldest: u64, checkpoint: u64, has_control: bool, from in 0..=COUNTER_MAX, unix_ns: u64,
        ) -> FrameHeader {
            let room = units - 16;
            FrameHeader {
                store: StoreId(store), shard: ShardId(shard), generation: Generation(generation),
                term: Term(term), number: FrameNumber(number), link, base_slot: SlotIndex(base_slot),
                used_bytes: units * 8, records: if room == 0 { 0 } else { 1 + records % room }, records_digest,
                durable: FrameNumber(number.saturating_sub(ago)),
                oldest: ExtentOrdinal(oldest), has_control, unix_ns,
                lists_from: from.checked_sub(1).map(ExtentOrdinal),
                checkpoint: Some(Address::from_bits(checkpoint)).filter(|it| it.to_bits() != 0),
            }
        }
    }

    proptest! {
        #[test]
        fn a_header_comes_back_as_it_was(header in any_header()) {
            let mut bytes = [0xff; 200];
            let link = header.encode(&mut bytes);
            prop_assert_eq!(FrameHeader::decode(&bytes), Ok(CheckedHeader { header, link }));
        }

        #[test]
        fn random_bytes_are_no_header(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(FrameHeader::decode(&bytes).is_err());
        }

        #[test]
        fn a_forged_header_never_panics(bytes in proptest::collection::vec(any::<u8>(), COVERED)) {
            let mut bytes = bytes;
            bytes[..8].copy_from_slice(&MAGIC);
            bytes.extend(crc32c(&bytes).to_le_bytes());
            let _ = FrameHeader::decode(&bytes);
        }
    }

    #[test]
    fn every_single_flipped_bit_is_seen() {
        let mut good = [0; HEADER];
        example().encode(&mut good);
        for bit in 0..HEADER * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameHeader::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn what_is_not_a_header_says_what_it_is() {
        assert_eq!(FrameHeader::decode(&[0; 128]), Err(FrameError::Absent));
        assert_eq!(FrameHeader::decode(&[1; 128]), Err(FrameError::NotAFrame));
        assert_eq!(FrameHeader::decode(&[0; 127]), Err(FrameError::Truncated { found: 127 }));
        let mut newer = [0; HEADER];
        example().encode(&mut newer);
        newer[8] = 2;
        let checksum = crc32c(&newer[..COVERED]);
        newer[COVERED..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(FrameHeader::decode(&newer), Err(FrameError::NewerVersion { found: 2 }));
    }

    #[test]
    fn a_mismatch_names_what_differs() {
        let header = example();
        let expected = FrameExpectation {
            store: header.store,
            shard: header.shard,
            generation: header.generation,
            number: header.number,
            link: header.link,
            base_slot: header.base_slot,
        };
        assert_eq!(expected.check(&header), Ok(()));
        for (other, mismatch) in [
            (
                FrameHeader { store: StoreId([1; 16]), ..header },
                Mismatch::Foreign { found: StoreId([1; 16]) },
            ),
            (
                FrameHeader { base_slot: SlotIndex(1), ..header },
                Mismatch::Misdirected { found: SlotIndex(1) },
            ),
            (FrameHeader { generation: Generation(2), ..header }, Mismatch::Stale { found: Generation(2) }),
            (FrameHeader { shard: ShardId(1), ..header }, Mismatch::OtherShard { found: ShardId(1) }),
            (
                FrameHeader { number: FrameNumber(1235), ..header },
                Mismatch::Number { found: FrameNumber(1235) },
            ),
            (FrameHeader { link: 1, ..header }, Mismatch::Link { found: 1 }),
        ] {
            assert_eq!(expected.check(&other), Err(mismatch));
        }
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
        let header = example();
        assert_eq!(&bytes[..8], b"coreLOGf");
        assert_eq!((field(8, 2), field(10, 2), field(12, 2), field(14, 2)), (1, 1, 7, 0));
        assert_eq!(&bytes[16..32], &header.store.0);
        assert_eq!((field(32, 4), field(36, 4), field(40, 8), field(48, 8)), (3, 5, 11, 1234));
        assert_eq!((field(56, 8), field(64, 4), field(68, 4)), (77, 4104, 0xdead_beef));
        assert_eq!((field(72, 8), field(80, 8)), (1230, header.unix_ns));
        assert_eq!((field(88, 8), field(96, 8)), (header.records_digest, 2));
        assert_eq!(field(104, 8), 0x0123_4567);
        assert_eq!((field(112, 8), field(120, 4)), (2, 0));
        assert_eq!(field(124, 4), u64::from(crc32c(&bytes[..124])));
    }
}
