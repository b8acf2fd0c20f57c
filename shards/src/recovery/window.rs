//! Reading ahead, as far as the log at hand makes it worth.

use super::{RecoveryError, RecoverySource, SourceError};
use crate::{geometry::Geometry, ids::SlotIndex, limits::BUFFER_BYTES_MAX, memory::PooledBuffer};

/// A run of slots in memory.
pub(super) struct Window<'a, S: ?Sized> {
    source: &'a S,
    geometry: Geometry,
    buffer: PooledBuffer,
    first: SlotIndex,
    slots: u64,
}

impl<'a, S: RecoverySource + ?Sized> Window<'a, S> {
    pub(super) fn new(source: &'a S, geometry: Geometry, bytes: u64) -> Result<Self, RecoveryError> {
        let buffer = PooledBuffer::alone(bytes_of(bytes.max(2 * geometry.slot_bytes())))?;
        Ok(Self { source, geometry, buffer, first: SlotIndex(0), slots: 0 })
    }

    /// Slots that the window holds without growing.
    pub(super) fn capacity_slots(&self) -> u64 {
        self.buffer.len() as u64 / self.geometry.slot_bytes()
    }

    /// The bytes of at least `need` slots from `slot` on. If they have to be read, up to `want` slots are, but none
    /// behind the end of the extent.
    pub(super) fn at(&mut self, slot: SlotIndex, need: u64, want: u64) -> Result<&[u8], RecoveryError> {
        let held = slot >= self.first && slot.0 + need <= self.first.0 + self.slots;
        if !held {
            self.fill(slot, need, want)?;
        }
        let start = bytes_of((slot.0 - self.first.0) * self.geometry.slot_bytes());
        let end = bytes_of(self.slots * self.geometry.slot_bytes());
        Ok(self.buffer.as_slice().get(start..end).unwrap_or_default())
    }

    fn fill(&mut self, slot: SlotIndex, need: u64, want: u64) -> Result<(), RecoveryError> {
        debug_assert!(need * self.geometry.slot_bytes() <= BUFFER_BYTES_MAX + self.geometry.slot_bytes());
        if need > self.capacity_slots() {
            self.slots = 0;
            self.buffer = PooledBuffer::alone(bytes_of(need * self.geometry.slot_bytes()))?;
        }
        let want = want.min(self.geometry.slots_left(slot)).min(self.capacity_slots()).max(need);
        match self.read(slot, want) {
            // A place that cannot be read must not hide its neighbours: ask for what is needed, no more.
            Err(_) if want > need => self.read(slot, need),
            result => result,
        }
        .map_err(|source| RecoveryError::Unreadable { slot, source })
    }

    fn read(&mut self, slot: SlotIndex, slots: u64) -> Result<(), SourceError> {
        self.slots = 0;
        let bytes = bytes_of(slots * self.geometry.slot_bytes());
        let target = self.buffer.as_mut_slice().get_mut(..bytes).unwrap_or_default();
        self.source.read(slot, target)?;
        (self.first, self.slots) = (slot, slots);
        Ok(())
    }
}

/// Windows are at most a few MiB.
fn bytes_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
