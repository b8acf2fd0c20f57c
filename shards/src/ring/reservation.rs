//! A claimed range of a buffer, lent to one thread for writing in place.
//!
//! This file holds unsafe code.

use super::{Position, Ring, group::RecordGroup, state::Committed};
use crate::{
    address::Address,
    format::record::{RecordFlags, RecordKind, clear_padding, record_bytes, seal_record, write_record},
    ids::{FrameNumber, Generation},
    limits::{FRAME_HEADER_BYTES, RECORD_HEADER_BYTES},
    mutant::{self, Mutant},
    sync::Ordering,
};

/// Where an appended record is, and the frame to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Where the record will be on the device; it is final.
    pub address: Address,
    /// The frame that carries it.
    pub frame: FrameNumber,
}

/// Room for one record, reserved and not yet committed.
///
/// [`Reservation::commit`] ends it. Dropping it leaves a void record in its place, so that the log stays readable.
/// While it lives its frame cannot be flushed, so hold it for no longer than the copying takes; one that is leaked
/// on purpose (`mem::forget`) holds up its shard until waiters time out.
#[derive(Debug)]
#[must_use = "a dropped reservation is a void record"]
pub struct Reservation<'ring> {
    ring: &'ring Ring,
    position: Position,
    /// From the start of the frame, header included.
    frame_offset: u64,
    length: usize,
}

impl<'ring> Reservation<'ring> {
    #[inline]
    pub(super) fn new(ring: &'ring Ring, position: Position, frame_offset: u64, length: usize) -> Self {
        Self { ring, position, frame_offset, length }
    }

    /// The payload's bytes, to be written in place. They hold whatever an earlier turn left there.
    #[inline]
    #[must_use]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let length = self.length + if mutant::is_active(Mutant::GuardTooLong) { 16 } else { 0 };
        &mut self.record_mut()[RECORD_HEADER_BYTES as usize..RECORD_HEADER_BYTES as usize + length]
    }

    /// Bytes of the payload.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// True for a record without payload.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Writes header and checksum and gives the record to the frame. It reaches the device with its frame.
    #[inline]
    pub fn commit(self, kind: RecordKind, flags: RecordFlags) -> Placed {
        let mut this = std::mem::ManuallyDrop::new(self);
        this.finish(kind, flags)
    }

    /// Copies the payload, of as many bytes as were reserved, and commits it.
    ///
    /// # Panics
    /// If it has another length; the record is void then.
    #[inline]
    pub fn commit_copy(mut self, payload: &[u8], kind: RecordKind, flags: RecordFlags) -> Placed {
        assert!(payload.len() == self.length, "{} bytes for {}", payload.len(), self.length);
        let (byte, generation) = self.place();
        let kind = if forgets(self.frame_offset) { RecordKind::VOID } else { kind };
        let (ring, length) = (self.ring, self.length as u64);
        let seed = ring.seed.record_seed(generation, byte);
        write_record(&mut self.record_mut()[..record_bytes(length) as usize], payload, kind, flags, seed);
        let frame = std::mem::ManuallyDrop::new(self).end();
        Placed { address: Address::new(&ring.geometry, byte, generation, length), frame }
    }

    /// As [`Reservation::commit`], with a payload of only the first `length` bytes. What was reserved beyond them
    /// becomes padding.
    ///
    /// # Panics
    /// If `length` is more than was reserved; the record is void then.
    pub fn commit_shorter(mut self, length: usize, kind: RecordKind, flags: RecordFlags) -> Placed {
        assert!(length <= self.length, "{length} bytes of a reservation of {}", self.length);
        let whole = record_bytes(self.length as u64);
        let first = record_bytes(length as u64);
        if first == whole {
            // The last few bytes are cleared as those behind any payload are.
            self.length = length;
            return self.commit(kind, flags);
        }
        let (byte, generation) = self.place();
        let seed = self.ring.seed;
        let record = self.record_mut();
        let (shorter, rest) = record.split_at_mut(first as usize);
        let end = RECORD_HEADER_BYTES as usize + length;
        clear_padding(&mut shorter[end..]);
        seal_record(&mut shorter[..end], kind, flags, seed.record_seed(generation, byte));
        rest.fill(0);
        let rest_seed = seed.record_seed(generation, byte + first);
        seal_record(rest, RecordKind::PADDING, RecordFlags::NONE, rest_seed);
        let address = Address::new(&self.ring.geometry, byte, generation, length as u64);
        let frame = std::mem::ManuallyDrop::new(self).end();
        Placed { address, frame }
    }

    /// Fills the reservation with several records at once, and ends it: they lie in one frame, so that a crash leaves
    /// all of them or none. `each` hears their addresses in order. What it returns is the place of the first.
    ///
    /// # Panics
    /// If the records do not fill exactly what was reserved; the reservation is void then.
    pub fn commit_group(mut self, group: &RecordGroup, each: &mut dyn FnMut(Address)) -> Placed {
        let (byte, generation) = self.place();
        let (seed, geometry) = (self.ring.seed, self.ring.geometry);
        let room = self.record_mut();
        room.copy_from_slice(group.bytes());
        let mut first = None;
        for (offset, header) in group.headers() {
            let at = byte + offset as u64;
            let end = offset + RECORD_HEADER_BYTES as usize + header.length as usize;
            seal_record(&mut room[offset..end], header.kind, header.flags, seed.record_seed(generation, at));
            let address = Address::new(&geometry, at, generation, u64::from(header.length));
            first.get_or_insert(address);
            each(address);
        }
        let address = first.unwrap_or_else(|| Address::new(&geometry, byte, generation, 0));
        let frame = std::mem::ManuallyDrop::new(self).end();
        Placed { address, frame }
    }

    /// The room itself, for the owner's run: where, its first byte from the start of the frame, and its length. Who takes
    /// it owes the commit.
    pub(super) fn into_room(self) -> (Position, u64, u64) {
        let this = std::mem::ManuallyDrop::new(self);
        (this.position, this.frame_offset, record_bytes(this.length as u64))
    }

    /// The record's byte of the store, and the generation of its extent.
    #[inline]
    fn place(&self) -> (u64, Generation) {
        let byte = self.ring.geometry.byte_of(self.position.base) + self.frame_offset;
        (byte, self.ring.extents.generation(self.ring.geometry.extent_of_byte(byte)))
    }

    #[inline]
    fn record_mut(&mut self) -> &mut [u8] {
        let offset = self.ring.memory_offset(self.position.tag) + self.frame_offset as usize;
        let beyond = if mutant::is_active(Mutant::GuardTooLong) { 16 } else { 0 };
        // SAFETY: the range was claimed by this reservation in one atomic step and belongs to it until its commit;
        // the owner does not flush or recycle the buffer before that.
        unsafe { self.ring.memory.slice_mut(offset, record_bytes(self.length as u64) as usize + beyond) }
    }

    #[inline]
    fn finish(&mut self, kind: RecordKind, flags: RecordFlags) -> Placed {
        let ring = self.ring;
        let (byte, generation) = self.place();
        let (length, frame_offset) = (self.length, self.frame_offset);
        let record = self.record_mut();
        let end = RECORD_HEADER_BYTES as usize + length;
        clear_padding(&mut record[end..]);
        let kind = if forgets(frame_offset) { RecordKind::VOID } else { kind };
        seal_record(&mut record[..end], kind, flags, ring.seed.record_seed(generation, byte));
        let frame = self.end();
        Placed { address: Address::new(&ring.geometry, byte, generation, length as u64), frame }
    }

    /// Ends the reservation, whose records are sealed; gives the frame that carries them.
    #[inline]
    fn end(&mut self) -> FrameNumber {
        let ring = self.ring;
        // Before the commit, while the frame cannot be recycled: `oldest` is at most `buffers` behind.
        let frame = ring.frame_of(self.position.tag, ring.oldest.load(Ordering::Relaxed));
        let committed = ring.state(self.position.tag).commit();
        if committed == Committed::HandedOver || (ring.lingers && self.frame_offset == FRAME_HEADER_BYTES) {
            ring.bell.ring();
        }
        frame
    }
}

/// The mutant: the record that crossed the end of a buffer, and so begins the next, is dropped.
fn forgets(frame_offset: u64) -> bool {
    mutant::is_active(Mutant::CrossingForgotten) && frame_offset == FRAME_HEADER_BYTES
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        // A model that found a race is being taken down: touching what it tracks would panic within the panic.
        #[cfg(loom)]
        if std::thread::panicking() {
            return;
        }
        if mutant::is_active(Mutant::DropKeepsWriter) {
            return;
        }
        // Writing beyond the memory is what that bug does, and what we are being dropped for.
        if mutant::is_active(Mutant::CapacityFromConstant) && std::thread::panicking() {
            return;
        }
        self.payload_mut().fill(0);
        let _voided = self.finish(RecordKind::VOID, RecordFlags::NONE);
    }
}
