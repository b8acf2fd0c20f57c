//! What only the owner of a ring may do: flush, recycle, offer extents, close.
//!
//! There is one [`RingOwner`] per ring, and its methods take `&mut self`: that is the proof behind the unsafe
//! blocks here. This file holds unsafe code.

use super::{
    Position, Ring, RingSetup, Rotation, SLOT_CLOSED, SPARE_NONE,
    run::Runs,
    state::{FrameTag, State},
};
use crate::{
    extents::Claim,
    ids::{FrameNumber, SlotIndex},
    limits::FRAME_HEADER_BYTES,
    memory::RegionSlice,
    mutant::{self, Mutant},
    sync::Ordering,
};
use std::sync::Arc;

/// A frame taken for flushing.
#[derive(Debug)]
pub struct SealedFrame {
    /// Its number.
    pub number: FrameNumber,
    /// Bytes in use, header included; 0 for an empty frame, which is not written.
    pub used_bytes: u64,
}

/// What copying from a buffer came to.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyOut {
    /// The bytes are in the caller's hands.
    Copied,
    /// Writers are at work in the frame, so its bytes cannot be told from theirs yet. Seal it and try again.
    Busy,
    /// The buffer is in another turn, or the range was never reserved.
    Gone,
}

/// The owner's half of a ring.
#[derive(Debug)]
pub struct RingOwner {
    pub(super) ring: Arc<Ring>,
    pub(super) runs: Runs,
}

impl RingOwner {
    /// Builds the ring; its first buffer is open at once. Others append through [`RingOwner::ring`].
    #[must_use]
    pub fn new(setup: RingSetup) -> Self {
        let ring = Ring::new(setup);
        let runs = Runs::new(ring.states.len());
        Self { ring: Arc::new(ring), runs }
    }

    /// The half that everyone shares.
    #[must_use]
    pub const fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// Puts an extent, whose header is written, where rotations find it.
    pub fn offer_spare(&mut self, claim: Claim) {
        // A ring that was closed while the extent's header was written moves nowhere, and needs none any more.
        let is_closed = self.ring.position().is_none();
        debug_assert!(is_closed || self.needs_spare(), "a spare was offered over a fresh one");
        let slot = self.ring.geometry.first_frame_slot(claim.extent);
        // Release pairs with the acquire of `base_after`: the extent's generation is visible to rotators.
        self.ring.spare.store(slot.0, Ordering::Release);
        let standing = Position::from_bits(self.ring.current.load(Ordering::Relaxed));
        if standing.is_parked() {
            // Nobody but the owner moves a parked ring. Release, as where it rotates.
            self.ring.current.store(Position { base: slot, ..standing }.to_bits(), Ordering::Release);
        }
    }

    /// True if no spare is there, or the ring has moved into it.
    #[must_use]
    pub fn needs_spare(&self) -> bool {
        let spare = self.ring.spare.load(Ordering::Relaxed);
        let extent_of = |slot| self.ring.geometry.extent_of(slot);
        let is_used = |position: Position| extent_of(position.base) == extent_of(SlotIndex(spare));
        spare == SPARE_NONE || self.ring.position().is_some_and(is_used)
    }

    /// First slot of the spare extent, if one is there.
    #[must_use]
    pub fn spare(&self) -> Option<SlotIndex> {
        let spare = self.ring.spare.load(Ordering::Relaxed);
        (spare != SPARE_NONE).then_some(SlotIndex(spare))
    }

    /// Takes no more appends, and gives the last frame. It is sealed, and may be empty.
    pub fn close(&mut self) -> FrameNumber {
        self.end_run();
        let ring = &self.ring;
        loop {
            let position = Position::from_bits(ring.current.load(Ordering::Acquire));
            if position.is_closed() {
                break;
            }
            if mutant::is_active(Mutant::CloseSealsFirst) {
                let _sealed_now_or_before = ring.state(position.tag).seal(position.tag, true);
            }
            let closed = Position { tag: position.tag, base: SlotIndex(SLOT_CLOSED) };
            let installed = ring.current.compare_exchange(
                position.to_bits(),
                closed.to_bits(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            if installed.is_ok() {
                // Behind the closed position, so that nobody rotates past the frame that is sealed here: if it is
                // empty it is the last, and an empty frame is never written.
                if !mutant::is_active(Mutant::CloseWithoutSeal) {
                    let _sealed_now_or_before = ring.state(position.tag).seal(position.tag, true);
                }
                break;
            }
        }
        ring.current_frame()
    }

    /// Moves the ring on if its current buffer is sealed: a thread that was suspended after sealing stops nobody.
    /// True if the frame is behind the ring's position.
    pub fn move_past(&mut self, frame: FrameNumber) -> bool {
        let Some(position) = self.ring.position() else { return true };
        if mutant::is_active(Mutant::RotationForgotten) {
            return position.tag != FrameTag::of(frame.0);
        }
        position.tag != FrameTag::of(frame.0) || self.ring.rotate(position) == Rotation::Moved
    }

    /// A snapshot of the state of a frame's buffer.
    #[must_use]
    pub fn state(&self, frame: FrameNumber) -> State {
        self.ring.state(FrameTag::of(frame.0)).load()
    }

    /// Takes `frame` for flushing if it is sealed and nobody writes; once.
    pub fn begin_flush(&mut self, frame: FrameNumber) -> Option<SealedFrame> {
        let tag = FrameTag::of(frame.0);
        let offset = self.ring.state(tag).begin_flush(tag)?;
        let used_bytes = if offset == 0 { 0 } else { FRAME_HEADER_BYTES + offset };
        Some(SealedFrame { number: frame, used_bytes })
    }

    /// Lets `finish` write the header and the padding of a frame that [`RingOwner::begin_flush`] gave, and freezes
    /// its slots for the device.
    pub fn freeze(&mut self, frame: &SealedFrame, finish: impl FnOnce(&mut [u8])) -> RegionSlice {
        let ring = &self.ring;
        let tag = FrameTag::of(frame.number.0);
        let offset = ring.memory_offset(tag);
        let length = (ring.geometry.slots_for(frame.used_bytes) * ring.geometry.slot_bytes()) as usize;
        assert!(length as u64 <= ring.buffer_bytes && ring.state(tag).load().is_flushing());
        // SAFETY: the buffer is flushing: no thread can reserve in it and none has a reservation left, so its bytes
        // belong to the owner, who is `self`, until `recycle`; a `SealedFrame` is made once per turn.
        let bytes = unsafe { ring.memory.slice_mut(offset, length) };
        finish(bytes);
        // SAFETY: as above; the owner does not write again before `recycle`, which takes the slice back.
        unsafe { RegionSlice::new(Arc::clone(&ring.memory), offset, length) }
    }

    /// Copies bytes `at..` of a frame that is still in its buffer.
    pub fn copy_out(&self, frame: FrameNumber, at: u64, out: &mut [u8]) -> CopyOut {
        let ring = &self.ring;
        let tag = FrameTag::of(frame.0);
        let state = ring.state(tag).load();
        let end = at.saturating_add(out.len() as u64);
        if state.tag() != tag || at < FRAME_HEADER_BYTES || end > FRAME_HEADER_BYTES + state.offset() {
            return CopyOut::Gone;
        }
        if state.writers() > 0 && !mutant::is_active(Mutant::CopyIgnoresWriters) {
            return CopyOut::Busy;
        }
        // SAFETY: only the owner recycles, and `self` is borrowed, so the bytes stay in this turn. No writer was
        // left when the state was loaded (acquire), so all bytes below its offset are committed, and committed
        // record bytes are not written again before `recycle` (`freeze` writes in front of them and behind them).
        let bytes = unsafe { ring.memory.slice(ring.memory_offset(tag) + at as usize, out.len()) };
        out.copy_from_slice(bytes);
        CopyOut::Copied
    }

    /// Opens the buffer of a flushed frame for its next turn. Frames are recycled in order, and only after the ring
    /// moved past them ([`RingOwner::move_past`]). `slice` is what [`RingOwner::freeze`] gave: no operation holds
    /// the bytes any more.
    pub fn recycle(&mut self, frame: FrameNumber, slice: Option<RegionSlice>) {
        let ring = &self.ring;
        let tag = FrameTag::of(frame.0);
        let is_whole = match &slice {
            Some(slice) => {
                Arc::ptr_eq(slice.region(), &ring.memory) && slice.offset() == ring.memory_offset(tag)
            }
            None => ring.state(tag).load().offset() == 0,
        };
        assert!(is_whole, "a frame is recycled with its own slice");
        drop(slice);
        assert_eq!(ring.oldest.load(Ordering::Relaxed), frame.0, "recycled out of order");
        debug_assert!(ring.position().is_none_or(|position| position.tag != tag), "recycled while current");
        // Before the buffer is open again: a reserver in a later turn must not find an older reference.
        // Release pairs with the acquire of `standing`: whoever sees this reference also sees that the ring moved past
        // the frame, which `move_past` has seen.
        ring.oldest.store(frame.0 + 1, Ordering::Release);
        ring.state(tag).recycle(tag, ring.buffers());
    }
}
