//! Records that are still in the buffers.

use super::ShardOwner;
use crate::{
    ids::{FrameNumber, SlotIndex},
    ring::owner::CopyOut,
};

impl ShardOwner {
    /// Where the record at `slot`, which is behind the written run, is.
    pub(crate) fn in_memory(&self, slot: SlotIndex) -> InMemory {
        let covers = |base: SlotIndex, slots: u64| base <= slot && slot.0 < base.0 + slots;
        let in_flight = self.flights.iter().find(|flight| covers(flight.base, flight.slots));
        if let Some(flight) = in_flight {
            return InMemory::Frame(flight.frame, flight.base);
        }
        let current = self.shared.ring().current_frame();
        // A closed ring stands at its last frame, which is sealed, and on its way unless it is empty.
        let is_last = self.shared.ring().position().is_none() && self.ring.state(current).offset() > 0;
        if self.next_frame < current || (self.next_frame == current && is_last) {
            return InMemory::Soon;
        }
        let geometry = self.context.layout.geometry();
        let buffer_slots = geometry.slots_for(self.shared.ring().buffer_bytes());
        match self.shared.ring().position() {
            Some(position) if covers(position.base, buffer_slots) => InMemory::Frame(current, position.base),
            _ => InMemory::Nowhere,
        }
    }

    /// Copies from a frame that is still in its buffer.
    pub(crate) fn copy_out(&self, frame: FrameNumber, at: u64, out: &mut [u8]) -> CopyOut {
        self.ring.copy_out(frame, at, out)
    }
}

/// What a slot that is not written yet is known to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InMemory {
    /// In the buffer of this frame, which begins at this slot.
    Frame(FrameNumber, SlotIndex),
    /// In a frame that is sealed and not submitted yet: look again after the next turn.
    Soon,
    /// Nobody reserved it.
    Nowhere,
}
