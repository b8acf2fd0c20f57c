//! Slot and extent size of a store, and the arithmetic between bytes, slots and extents.

use crate::{
    ids::{ExtentIndex, SlotIndex},
    limits::{EXTENT_BYTES_MAX, EXTENT_BYTES_MIN, SLOT_BYTES_MAX, SLOT_BYTES_MIN},
};

/// Slot and extent size. Both are powers of two and never change in the life of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub(crate) slot_shift: u32,
    pub(crate) extent_shift: u32,
}

/// A slot or extent size that the store cannot have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// The slot size is not a power of two within the bounds.
    #[error("slot size {0} is not a power of two from {SLOT_BYTES_MIN} to {SLOT_BYTES_MAX} bytes")]
    Slot(u64),
    /// The extent size is not a power of two within the bounds.
    #[error("extent size {0} is not a power of two from {EXTENT_BYTES_MIN} to {EXTENT_BYTES_MAX} bytes")]
    Extent(u64),
}

impl Geometry {
    /// Checks both sizes, in bytes.
    pub const fn new(slot_bytes: u64, extent_bytes: u64) -> Result<Self, GeometryError> {
        if !slot_bytes.is_power_of_two() || slot_bytes < SLOT_BYTES_MIN || slot_bytes > SLOT_BYTES_MAX {
            return Err(GeometryError::Slot(slot_bytes));
        }
        if !extent_bytes.is_power_of_two()
            || extent_bytes < EXTENT_BYTES_MIN
            || extent_bytes > EXTENT_BYTES_MAX
        {
            return Err(GeometryError::Extent(extent_bytes));
        }
        Ok(Self { slot_shift: slot_bytes.trailing_zeros(), extent_shift: extent_bytes.trailing_zeros() })
    }

    /// Bytes of a slot.
    #[must_use]
    pub const fn slot_bytes(&self) -> u64 {
        1 << self.slot_shift
    }

    /// Bytes of an extent.
    #[must_use]
    pub const fn extent_bytes(&self) -> u64 {
        1 << self.extent_shift
    }

    /// Slots of an extent, its header slot included.
    #[must_use]
    pub const fn slots_per_extent(&self) -> u64 {
        1 << (self.extent_shift - self.slot_shift)
    }

    /// Slots that `bytes` take.
    #[must_use]
    pub const fn slots_for(&self, bytes: u64) -> u64 {
        (bytes + self.slot_bytes() - 1) >> self.slot_shift
    }

    /// The extent that holds a slot.
    #[must_use]
    pub const fn extent_of(&self, slot: SlotIndex) -> ExtentIndex {
        self.extent_of_byte(self.byte_of(slot))
    }

    /// The extent that holds a byte of the store.
    #[must_use]
    pub const fn extent_of_byte(&self, byte: u64) -> ExtentIndex {
        ExtentIndex((byte >> self.extent_shift) as u32)
    }

    /// The slot of an extent that holds its header.
    #[must_use]
    pub const fn header_slot(&self, extent: ExtentIndex) -> SlotIndex {
        SlotIndex((extent.0 as u64) << (self.extent_shift - self.slot_shift))
    }

    /// The first slot of an extent that a frame can take.
    #[must_use]
    pub const fn first_frame_slot(&self, extent: ExtentIndex) -> SlotIndex {
        SlotIndex(self.header_slot(extent).0 + 1)
    }

    /// Slots from `slot` to the end of its extent.
    #[must_use]
    pub const fn slots_left(&self, slot: SlotIndex) -> u64 {
        self.slots_per_extent() - (slot.0 & (self.slots_per_extent() - 1))
    }

    /// Position of the first byte of a slot in the store.
    #[must_use]
    pub const fn byte_of(&self, slot: SlotIndex) -> u64 {
        slot.0 << self.slot_shift
    }
}
