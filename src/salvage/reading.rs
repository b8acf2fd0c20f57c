//! Reading slots of a damaged store: what cannot be read is zeros, and remembered.

use crate::inspect::Inspection;
use corelog_shards::{
    ids::SlotIndex,
    limits::BUFFER_BYTES_MAX,
    memory::{MemoryError, PooledBuffer},
};

/// Slots that are read at once where nothing larger is needed, in bytes.
const WINDOW_BYTES: u64 = 1 << 20;

/// A window over the slots of a store.
pub(super) struct Slots<'a> {
    inspection: &'a Inspection,
    buffer: PooledBuffer,
    first: SlotIndex,
    slots: u64,
    slot_bytes: u64,
    unreadable: Vec<SlotIndex>,
}

impl<'a> Slots<'a> {
    pub(super) fn new(inspection: &'a Inspection) -> Result<Self, MemoryError> {
        let slot_bytes = inspection.superblock().geometry.slot_bytes();
        let buffer = PooledBuffer::alone((BUFFER_BYTES_MAX + slot_bytes) as usize)?;
        Ok(Self { inspection, buffer, first: SlotIndex(0), slots: 0, slot_bytes, unreadable: Vec::new() })
    }

    /// The bytes of `need` slots, which lie in one extent and are no more than a frame takes.
    pub(super) fn at(&mut self, slot: SlotIndex, need: u64) -> Result<&[u8], MemoryError> {
        let is_held = slot >= self.first && slot.0 + need <= self.first.0 + self.slots;
        if !is_held {
            let left = self.inspection.superblock().geometry.slots_left(slot);
            let slots = (WINDOW_BYTES / self.slot_bytes).max(need).min(left);
            (self.first, self.slots) = (slot, slots);
            if !self.read(0, slots) {
                // A place that cannot be read must not hide its neighbours.
                for place in 0..slots {
                    if !self.read(place, 1) {
                        self.bytes_mut(place, 1).fill(0);
                        self.unreadable.push(slot.offset_by(place));
                    }
                }
            }
        }
        let start = ((slot.0 - self.first.0) * self.slot_bytes) as usize;
        Ok(&self.buffer.as_slice()[start..start + (need * self.slot_bytes) as usize])
    }

    fn bytes_mut(&mut self, place: u64, slots: u64) -> &mut [u8] {
        let (start, length) = ((place * self.slot_bytes) as usize, (slots * self.slot_bytes) as usize);
        &mut self.buffer.as_mut_slice()[start..start + length]
    }

    fn read(&mut self, place: u64, slots: u64) -> bool {
        let inspection = self.inspection;
        let Some((device, offset)) = inspection.superblock().locate(self.first.offset_by(place)) else {
            return false;
        };
        let Some(file) = inspection.devices().get(usize::from(device.0)) else { return false };
        file.read_exact_into(offset, self.bytes_mut(place, slots)).is_ok()
    }

    /// The slots that could not be read so far, each once, in order.
    pub(super) fn take_unreadable(&mut self) -> Vec<SlotIndex> {
        self.unreadable.sort_unstable();
        self.unreadable.dedup();
        std::mem::take(&mut self.unreadable)
    }
}
