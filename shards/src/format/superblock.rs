//! The superblock: what a store is made of, and where its shards stood when that was last known.
//!
//! Four copies lie on each device: two sides, each written twice. A write goes to one side only, so the other stays
//! whole whatever happens; the valid copy with the highest sequence counts.

use super::{
    checksum::crc32c,
    codec::{Fields, Writer, all_zero},
};
use crate::{
    geometry::{Geometry, GeometryError},
    ids::{DeviceIndex, ExtentIndex, FrameNumber, ShardId, SlotIndex, StoreId, Term},
    limits::{DEVICES_MAX, REGIONS_MAX, SHARDS_MAX, SUPERBLOCK_COPY_BYTES_MAX},
};

mod choose;
mod layout;
pub use choose::{BadCopy, Chosen, SuperblockChoiceError, choose};

const MAGIC: [u8; 8] = *b"coreLOGs";
/// The format version that this program writes, and the newest it reads.
pub const FORMAT_VERSION: u16 = 1;

/// Where on each device the copies of one side begin. A superblock with an even sequence goes to the first side.
pub const SIDES: [[u64; 2]; 2] = [[0, 128 << 10], [64 << 10, 192 << 10]];
/// All places of copies, in the order that [`choose`] reports them by.
pub const COPY_OFFSETS: [u64; 4] = [0, 64 << 10, 128 << 10, 192 << 10];

const FIXED_BYTES: usize = 128;
const ENTRY_BYTES: usize = 24;
const CHECKSUM_BYTES: usize = 4;
/// Magic, version, device and total length: at the same place in every version, as is the checksum at the end.
const ENVELOPE_BYTES: usize = 16;
const COPY_BYTES_MAX: usize = 64 << 10;
const _: () = assert!(COPY_BYTES_MAX as u64 == SUPERBLOCK_COPY_BYTES_MAX);
const _: () = assert!(
    FIXED_BYTES
        + ENTRY_BYTES * (DEVICES_MAX as usize + REGIONS_MAX as usize + SHARDS_MAX as usize)
        + 2 * CHECKSUM_BYTES
        <= COPY_BYTES_MAX
);

/// Features by what a program that does not know one may still do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Features {
    /// It may read and write the store.
    pub compatible: u64,
    /// It may read, not write.
    pub read_only_compatible: u64,
    /// It may do nothing.
    pub incompatible: u64,
}

impl Features {
    /// What this program knows.
    pub const KNOWN: Self =
        Self { compatible: 0, read_only_compatible: 0, incompatible: Self::RESTORING.incompatible };
    /// A backup is being restored to the store: it is not whole.
    pub const RESTORING: Self = Self { compatible: 0, read_only_compatible: 0, incompatible: 1 };
}

/// A device of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceEntry {
    /// 16 random bytes that name it.
    pub uuid: [u8; 16],
    /// Its bytes when the store was made or grown; it may be larger, never smaller.
    pub bytes: u64,
}

/// A run of extents on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionEntry {
    /// Which device.
    pub device: DeviceIndex,
    /// The first extent of the run; the regions number all extents without a gap.
    pub first_extent: ExtentIndex,
    /// Extents of the run.
    pub extent_count: u32,
    /// The byte on the device where the first extent begins.
    pub device_offset: u64,
}

/// Whether a shard takes appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ShardState {
    /// It does.
    #[default]
    Active,
    /// It does not; cleaning drains it.
    Retired,
    /// It takes only what cleaning copies, from the shard named and from itself.
    Cold(ShardId),
}

impl ShardState {
    /// The shard that it takes copies from, if it is a cold one.
    #[must_use]
    pub const fn cold_of(self) -> Option<ShardId> {
        match self {
            Self::Cold(hot) => Some(hot),
            Self::Active | Self::Retired => None,
        }
    }
}

/// What is known about a shard without reading its extents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ShardEntry {
    /// Active, retired or cold.
    pub state: ShardState,
    /// Frames with a lower number are durable: recovery has to find them.
    pub durable: FrameNumber,
    /// Where frame `durable` goes; `None` if the shard has no extent. Exact if the store was closed cleanly.
    pub tail_slot: Option<SlotIndex>,
    /// Checksum of the header of the last frame; 0 if there is none. Exact if the store was closed cleanly.
    pub tail_link: u32,
}

/// Everything a superblock copy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The store.
    pub store: StoreId,
    /// Raised by one with each write.
    pub sequence: u64,
    /// Raised by each writable open.
    pub term: Term,
    /// What a program has to know.
    pub features: Features,
    /// Slot and extent size.
    pub geometry: Geometry,
    /// True if the store was closed with everything durable.
    pub clean: bool,
    /// The device that this copy is for.
    pub device: DeviceIndex,
    /// How far behind a hole frames of the current term may lie: ring buffers x bytes of a buffer.
    pub reach_bytes: u64,
    /// When the store was made, in nanoseconds of the Unix clock.
    pub created_unix_ns: u64,
    /// When this was written, likewise.
    pub written_unix_ns: u64,
    /// The devices, by index.
    pub devices: Vec<DeviceEntry>,
    /// Where the extents are.
    pub regions: Vec<RegionEntry>,
    /// The shards, by id.
    pub shards: Vec<ShardEntry>,
}

/// There is no good superblock copy here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SuperblockError {
    /// Fewer bytes than a copy says it has.
    #[error("a superblock copy needs {needed} bytes and {found} are there")]
    Truncated {
        /// Bytes of the copy.
        needed: u64,
        /// Bytes at hand.
        found: u64,
    },
    /// Zeros.
    #[error("nothing was written here")]
    Absent,
    /// Something else.
    #[error("something else than a superblock is here")]
    NotASuperblock,
    /// Damaged, or torn.
    #[error("superblock checksum is {found:08x} where {expected:08x} is right")]
    Checksum {
        /// Computed.
        expected: u32,
        /// Stored.
        found: u32,
    },
    /// Of a later format; a later program is needed.
    #[error("the store has format version {found}; this program knows versions up to {supported}")]
    NewerVersion {
        /// Stored.
        found: u16,
        /// The newest known.
        supported: u16,
    },
    /// A feature that has to be known is not.
    #[error("the store uses incompatible feature {bit}, which this program does not know; use a later one")]
    UnknownFeature {
        /// Number of the bit.
        bit: u32,
    },
    /// The checksum is right and the sizes cannot be.
    #[error("the superblock is impossible: {0}")]
    Geometry(GeometryError),
    /// The checksum is right and a field cannot be.
    #[error("the superblock says {field} = {value}, which cannot be")]
    Impossible {
        /// Which.
        field: &'static str,
        /// What it says.
        value: u64,
    },
}

/// The store may be read, not written: a feature that a writer has to know is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the store uses feature {bit}, which a writer has to know and this program does not; open it read-only"
)]
pub struct ReadOnlyFeature {
    /// Number of the bit.
    pub bit: u32,
}

impl Superblock {
    /// Extents of all regions.
    #[must_use]
    pub fn extent_count(&self) -> u32 {
        self.regions.last().map_or(0, |last| last.first_extent.0 + last.extent_count)
    }

    /// Where a slot lies: device, and byte on it. `None` if the store has no such slot.
    #[must_use]
    pub fn locate(&self, slot: SlotIndex) -> Option<(DeviceIndex, u64)> {
        let extent = slot.0 >> (self.geometry.extent_shift - self.geometry.slot_shift);
        let after = self.regions.partition_point(|region| u64::from(region.first_extent.0) <= extent);
        let region = self.regions.get(after.checked_sub(1)?)?;
        let first = self.geometry.header_slot(region.first_extent);
        let within = slot.0 - first.0;
        let slots = u64::from(region.extent_count) * self.geometry.slots_per_extent();
        (within < slots).then(|| (region.device, region.device_offset + within * self.geometry.slot_bytes()))
    }

    /// True until all of a backup is in the store.
    #[must_use]
    pub const fn is_restoring(&self) -> bool {
        self.features.incompatible & Features::RESTORING.incompatible != 0
    }

    /// The cold shard of a shard.
    #[must_use]
    pub fn cold_shard_of(&self, hot: ShardId) -> Option<ShardId> {
        let place = self.shards.iter().position(|entry| entry.state == ShardState::Cold(hot))?;
        u16::try_from(place).ok().map(ShardId)
    }

    /// The two places of each device that this sequence is written to.
    #[must_use]
    pub const fn side(&self) -> [u64; 2] {
        let [even, odd] = SIDES;
        if self.sequence.is_multiple_of(2) { even } else { odd }
    }

    /// Whether this program may write to the store.
    pub const fn check_writable(&self) -> Result<(), ReadOnlyFeature> {
        match first_unknown(self.features.read_only_compatible, Features::KNOWN.read_only_compatible) {
            Some(bit) => Err(ReadOnlyFeature { bit }),
            None => Ok(()),
        }
    }
}

const fn first_unknown(stated: u64, known: u64) -> Option<u32> {
    let unknown = stated & !known;
    if unknown == 0 { None } else { Some(unknown.trailing_zeros()) }
}

#[cfg(test)]
#[path = "superblock_tests.rs"]
mod tests;
