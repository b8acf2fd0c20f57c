//! A claimed range of a buffer, lent to one thread for writing in place.
//!
//! This file holds unsafe code.

use super::{Position, Ring, state::Committed};
use crate::{
    address::Address,
    format::record::{RecordFlags, RecordKind, record_bytes, seal_record},
    ids::FrameNumber,
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
        let byte = ring.geometry.byte_of(self.position.base) + self.frame_offset;
        let generation = ring.extents.generation(ring.geometry.extent_of_byte(byte));
        let (length, frame_offset) = (self.length, self.frame_offset);
        let record = self.record_mut();
        let end = RECORD_HEADER_BYTES as usize + length;
        // What lies between this record and the next goes to the device too; it must not be an old turn's bytes. The
        // loop is a few stores; `fill` would be a call, also for no bytes at all.
        if end < record.len() {
            clear_padding(&mut record[end..]);
        }
        let kind = if forgets(frame_offset) { RecordKind::VOID } else { kind };
        seal_record(&mut record[..end], kind, flags, ring.seed.record_seed(generation, byte));
        // Before the commit, while the frame cannot be recycled: `oldest` is at most `buffers` behind.
        let frame = ring.frame_of(self.position.tag, ring.oldest.load(Ordering::Relaxed));
        let committed = ring.state(self.position.tag).commit();
        if committed == Committed::HandedOver || (ring.lingers && frame_offset == FRAME_HEADER_BYTES) {
            ring.bell.ring();
        }
        Placed { address: Address::new(&ring.geometry, byte, generation, length as u64), frame }
    }
}

/// The mutant: the record that crossed the end of a buffer, and so begins the next, is dropped.
fn forgets(frame_offset: u64) -> bool {
    mutant::is_active(Mutant::CrossingForgotten) && frame_offset == FRAME_HEADER_BYTES
}

/// At most seven bytes.
#[inline]
fn clear_padding(padding: &mut [u8]) {
    match padding {
        [a, b, c, d, rest @ ..] => {
            [*a, *b, *c, *d] = [0; 4];
            rest.iter_mut().take(3).for_each(|byte| *byte = 0);
        }
        short => short.iter_mut().take(3).for_each(|byte| *byte = 0),
    }
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
        self.payload_mut().fill(0);
        let _voided = self.finish(RecordKind::VOID, RecordFlags::NONE);
    }
}
