//! The latch-free ring of flush buffers of one shard.
//!
//! Any thread appends; one owner (the core that runs the shard) flushes and recycles. `current` packs the base slot
//! and the tag of the frame that is being filled, so that rotating the ring is one compare-exchange: all who find
//! the buffer sealed compute the same successor, and one of them installs it. Only the owner writes `spare`, so a
//! rotator that sleeps can never bring a used extent back. What only the owner may do is in [`owner::RingOwner`].
//!
//! Source: the flush buffers of LLAMA (Levandoski, Lomet, Sengupta: "LLAMA: A Cache/Storage Subsystem for Modern
//! Hardware", VLDB 2013, section 3.3), with the tag, the spare extent and rotation by any thread added.

pub mod group;
pub mod owner;
pub mod reservation;
mod run;
pub mod state;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(test)]
mod testing;
#[cfg(all(test, not(loom)))]
mod tests;

use crate::{
    address::Address,
    cut::Decided,
    extents::ExtentTable,
    format::{checksum::StoreSeed, record::record_bytes},
    geometry::Geometry,
    ids::{ExtentOrdinal, FrameNumber, SlotIndex},
    limits::FRAME_HEADER_BYTES,
    memory::Region,
    mutant::{self, Mutant},
    park::Bell,
    sync::{AtomicU64, Mutex, Ordering},
};
use crossbeam_utils::CachePadded;
use reservation::Reservation;
use state::{AtomicState, FrameTag, Reserved, Sealing};
use std::sync::Arc;

const SLOT_MASK: u64 = (1 << (64 - FrameTag::BITS)) - 1;
/// A slot that no frame can have: the ring takes no more appends.
const SLOT_CLOSED: u64 = SLOT_MASK;
/// Another: the ring has no extent yet, and begins once one is offered.
const SLOT_PARKED: u64 = SLOT_MASK - 1;
const SPARE_NONE: u64 = u64::MAX;

/// Where the ring stands: the frame that is being filled and its first slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Tag of the frame.
    pub tag: FrameTag,
    /// First slot of the frame.
    pub base: SlotIndex,
}

impl Position {
    const fn to_bits(self) -> u64 {
        self.base.0 << FrameTag::BITS | self.tag.0
    }

    const fn from_bits(bits: u64) -> Self {
        Self { tag: FrameTag::of(bits), base: SlotIndex(bits >> FrameTag::BITS) }
    }

    const fn is_closed(self) -> bool {
        self.base.0 == SLOT_CLOSED
    }

    const fn is_parked(self) -> bool {
        self.base.0 == SLOT_PARKED
    }

    const fn is_nowhere(self) -> bool {
        self.base.0 >= SLOT_PARKED
    }
}

/// Why nothing was reserved. Nothing was written either; the payload is still the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The record is longer than any buffer; `max` bytes fit.
    TooLarge {
        /// Longest payload in bytes.
        max: u64,
    },
    /// No free buffer. The completion of any write mends it: try again.
    Exhausted,
    /// The next frame needs a new extent, and no spare is ready. The owner is fetching one, unless the store is full.
    NoExtent,
    /// The shard was closed or failed.
    Closed,
    /// The shard takes no appends any more; control records go on.
    Retired,
}

/// What a try to move on came to.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// The ring stands elsewhere now, by this call or another.
    Moved,
    /// The next buffer is still being filled or flushed.
    NoBuffer,
    /// The frame after this one needs the spare extent, and there is none.
    NoExtent,
}

/// How a ring is made.
#[derive(Debug)]
pub struct RingSetup {
    /// Owners and generations of extents; it knows the geometry.
    pub extents: Arc<ExtentTable>,
    /// Seed of the store's record checksums.
    pub seed: StoreSeed,
    /// The region of all buffers.
    pub memory: Arc<Region>,
    /// Bytes of one buffer, a multiple of the slot.
    pub buffer_bytes: u64,
    /// Buffers, a power of two.
    pub buffers: u32,
    /// Wakes the owner.
    pub bell: Arc<Bell>,
    /// Ring also for the first record of a frame: the owner starts a clock by it.
    pub lingers: bool,
    /// The frame to fill first.
    pub first_frame: FrameNumber,
    /// Its slot: a claimed extent with room for a whole buffer. `None`: there is none, and the ring is parked until an
    /// extent is offered.
    pub first_slot: Option<SlotIndex>,
}

/// The ring of one shard.
#[derive(Debug)]
pub struct Ring {
    /// Read by every append, written once per frame.
    current: CachePadded<AtomicU64>,
    /// First frame slot of the next extent. Written by the owner only.
    spare: CachePadded<AtomicU64>,
    /// First frame that is not recycled yet. Written by the owner only.
    oldest: CachePadded<AtomicU64>,
    states: Box<[CachePadded<AtomicState>]>,
    memory: Arc<Region>,
    extents: Arc<ExtentTable>,
    geometry: Geometry,
    seed: StoreSeed,
    bell: Arc<Bell>,
    lingers: bool,
    buffer_bytes: u64,
    buffer_slots: u64,
    /// 0: nothing is in the way of a reservation. Beside what every append reads, and written when the store becomes
    /// full or has room again, and by cuts.
    gate: AtomicU64,
    /// What the last cut decided.
    decided: Mutex<Decided>,
}

/// In the gate: ordinary reservations are refused; what is left of the store is kept for control records and cleaning.
const RESTRICTED: u64 = 1;
/// In the gate: a cut is under way, and who appends helps with it.
const MARKED: u64 = 2;
/// In the gate: the shard takes no appends any more.
const RETIRED: u64 = 4;

impl Ring {
    fn new(setup: RingSetup) -> Self {
        let RingSetup {
            extents,
            seed,
            memory,
            buffer_bytes,
            buffers,
            bell,
            lingers,
            first_frame,
            first_slot,
        } = setup;
        let geometry = *extents.geometry();
        assert!(buffers.is_power_of_two() && memory.len() as u64 == u64::from(buffers) * buffer_bytes);
        let has_room = |slot: SlotIndex| geometry.slots_left(slot) * geometry.slot_bytes() >= buffer_bytes;
        assert!(first_slot.is_none_or(has_room));
        // Buffer i holds the first frame at or after `first_frame` whose number ends in i.
        let states = (0..u64::from(buffers))
            .map(|index| {
                let ahead = index.wrapping_sub(first_frame.0) & u64::from(buffers - 1);
                CachePadded::new(AtomicState::new(FrameTag::of(first_frame.0 + ahead)))
            })
            .collect();
        let base = first_slot.unwrap_or(SlotIndex(SLOT_PARKED));
        let start = Position { tag: FrameTag::of(first_frame.0), base };
        Self {
            current: CachePadded::new(AtomicU64::new(start.to_bits())),
            spare: CachePadded::new(AtomicU64::new(SPARE_NONE)),
            oldest: CachePadded::new(AtomicU64::new(first_frame.0)),
            states,
            memory,
            geometry,
            extents,
            seed,
            bell,
            lingers,
            buffer_bytes,
            buffer_slots: geometry.slots_for(buffer_bytes),
            gate: AtomicU64::new(0),
            decided: Mutex::new(Decided::default()),
        }
    }

    /// Refuses ordinary reservations, or takes them again. A thread that looked a moment before still gets in.
    pub(crate) fn restrict(&self, is_restricted: bool) {
        self.set_gate(RESTRICTED, is_restricted);
    }

    /// True while ordinary reservations are refused.
    #[must_use]
    pub fn is_restricted(&self) -> bool {
        self.gate.load(Ordering::Relaxed) & RESTRICTED != 0
    }

    /// Refuses ordinary reservations for good. A thread that looked a moment before still gets in.
    pub(crate) fn retire(&self) {
        self.set_gate(RETIRED, true);
    }

    /// True once ordinary reservations are refused for good.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.gate.load(Ordering::Relaxed) & RETIRED != 0
    }

    fn set_gate(&self, bit: u64, is_set: bool) {
        // Release pairs with the acquire of `reserve`: who finds the mark of a cut gone finds its ring decided.
        if is_set {
            self.gate.fetch_or(bit, Ordering::Release);
        } else {
            self.gate.fetch_and(!bit, Ordering::Release);
        }
    }

    /// Before a cut decides anything, and when all is decided.
    pub(crate) fn mark_for_cut(&self, is_marked: bool) {
        self.set_gate(MARKED, is_marked);
    }

    /// Decides what of this ring belongs to the cut `number`, unless somebody has: the records of the frames below the
    /// result. All rings are marked.
    pub(crate) fn decide(&self, number: u64) -> FrameNumber {
        let mut decided = self.decided.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if decided.number < number {
            *decided = Decided { number, frame: self.boundary() };
        }
        decided.frame
    }

    /// A frame such that everything reserved so far is in those below it, and such that whoever reserves in it, or
    /// later, has seen what this thread has: each arm writes, in one atomic step, the word through which a reserver gets
    /// there.
    fn boundary(&self) -> FrameNumber {
        loop {
            let (position, frame) = self.standing();
            if position.is_nowhere() {
                if self.is_still_at(position) {
                    // A closed ring's last frame may hold records; a parked ring's first holds none.
                    return if position.is_closed() { frame.next() } else { frame };
                }
                continue;
            }
            match self.state(position.tag).seal_for_cut(position.tag) {
                Sealing::Sealed { handed_over } => {
                    if handed_over {
                        self.bell.ring();
                    }
                    let _later_if_not_now = self.rotate(position);
                    return frame.next();
                }
                Sealing::Empty => return frame,
                Sealing::AlreadySealed if self.is_still_at(position) => return frame.next(),
                Sealing::AlreadySealed | Sealing::Moved => {}
            }
        }
    }

    /// True if the ring stands there, and whoever moves it on sees what this thread has seen.
    fn is_still_at(&self, position: Position) -> bool {
        let bits = position.to_bits();
        self.current.compare_exchange(bits, bits, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// True if the store had an extent for ordinary appends a moment ago.
    pub(crate) fn has_free_extents(&self) -> bool {
        self.extents.free_for_appends() > 0
    }

    /// Longest payload of one record, in bytes.
    #[must_use]
    pub const fn payload_bytes_max(&self) -> u64 {
        crate::limits::record_bytes_max(self.buffer_bytes)
    }

    /// Bytes of a buffer.
    #[must_use]
    pub const fn buffer_bytes(&self) -> u64 {
        self.buffer_bytes
    }

    /// Buffers of the ring.
    #[must_use]
    pub fn buffers(&self) -> u64 {
        self.states.len() as u64
    }

    /// The memory of the ring, for registering it.
    #[must_use]
    pub const fn memory(&self) -> &Arc<Region> {
        &self.memory
    }

    /// The bell of the core that runs the shard.
    #[must_use]
    pub const fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    /// Slot and extent size of the store.
    #[must_use]
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Where the ring stands. `None`: closed, or parked.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        // Acquire pairs with the release of `rotate`.
        let position = Position::from_bits(self.current.load(Ordering::Acquire));
        (!position.is_nowhere()).then_some(position)
    }

    /// The ordinal of the extent that the ring stands in: what is reserved later lies there, or further on. `None`:
    /// closed, or parked.
    pub(crate) fn current_ordinal(&self) -> Option<ExtentOrdinal> {
        loop {
            let position = self.position()?;
            let ordinal = self.extents.ordinal(self.geometry.extent_of(position.base))?;
            // While the ring stands in an extent nobody else can have claimed it.
            if self.position() == Some(position) {
                return Some(ordinal);
            }
        }
    }

    /// The ordinal of the extent of a record that was just written, and that nothing can have freed.
    pub(crate) fn ordinal_of(&self, address: Address) -> Option<ExtentOrdinal> {
        self.extents.ordinal(address.extent(&self.geometry))
    }

    /// The frame that is being filled, or where the closed ring stopped: frames below it are sealed.
    #[must_use]
    pub fn current_frame(&self) -> FrameNumber {
        self.standing().1
    }

    /// Where the ring stands, closed or not, and the number of the frame there.
    fn standing(&self) -> (Position, FrameNumber) {
        // Acquire, and before the position: a reference that is newer than the position would put the frame a whole
        // round of tags ahead. One less, since a closed ring's last frame may be recycled too.
        let ordering =
            if mutant::is_active(Mutant::OldestRelaxed) { Ordering::Relaxed } else { Ordering::Acquire };
        let oldest = self.oldest.load(ordering).saturating_sub(1);
        let position = Position::from_bits(self.current.load(Ordering::Acquire));
        (position, self.frame_of(position.tag, oldest))
    }

    fn frame_of(&self, tag: FrameTag, oldest: u64) -> FrameNumber {
        FrameNumber(tag.frame_from(oldest))
    }

    fn state(&self, tag: FrameTag) -> &AtomicState {
        &self.states[tag.0 as usize & (self.states.len() - 1)]
    }

    fn memory_offset(&self, tag: FrameTag) -> usize {
        (tag.0 as usize & (self.states.len() - 1)) * self.buffer_bytes as usize
    }

    fn capacity(&self) -> u64 {
        if mutant::is_active(Mutant::CapacityFromConstant) {
            return crate::limits::BUFFER_BYTES_DEFAULT - FRAME_HEADER_BYTES;
        }
        self.buffer_bytes - FRAME_HEADER_BYTES
    }

    /// Claims room for a payload of `length` bytes. Lock-free: it goes round again only when another thread moved
    /// the ring on.
    // Always: called, the reservation goes through memory, which costs as much as all of the rest.
    #[inline(always)]
    pub fn reserve(&self, length: usize) -> Result<Reservation<'_>, Refusal> {
        // Acquire: see `set_gate`.
        if self.gate.load(Ordering::Acquire) != 0 {
            self.pass_gate()?;
        }
        self.reserve_privileged(length)
    }

    /// Something is in the way, or was a moment ago.
    #[cold]
    fn pass_gate(&self) -> Result<(), Refusal> {
        let gate = self.gate.load(Ordering::Acquire);
        if gate & MARKED != 0
            && !mutant::is_active(Mutant::CutWithoutHelp)
            && let Some(number) = self.extents.cuts().deciding()
        {
            let _whoever_was_first = self.decide(number);
        }
        if gate & RETIRED != 0 {
            let is_closed = self.why_nowhere() == Refusal::Closed;
            return Err(if is_closed { Refusal::Closed } else { Refusal::Retired });
        }
        if gate & RESTRICTED != 0 { Err(self.why_nowhere()) } else { Ok(()) }
    }

    /// Why there is no room for a record where not even a buffer was looked at.
    #[cold]
    fn why_nowhere(&self) -> Refusal {
        if Position::from_bits(self.current.load(Ordering::Acquire)).is_closed() {
            Refusal::Closed
        } else {
            Refusal::NoExtent
        }
    }

    /// As [`Ring::reserve`], also where only control records and cleaning may write.
    #[inline(always)]
    pub fn reserve_privileged(&self, length: usize) -> Result<Reservation<'_>, Refusal> {
        if length as u64 > self.payload_bytes_max() {
            return Err(Refusal::TooLarge { max: self.payload_bytes_max() });
        }
        let bytes = record_bytes(length as u64);
        loop {
            let Some(position) = self.position() else { return Err(self.why_nowhere()) };
            match self.state(position.tag).reserve(position.tag, bytes, self.capacity()) {
                Reserved::At { offset } => {
                    return Ok(Reservation::new(self, position, FRAME_HEADER_BYTES + offset, length));
                }
                // The next buffer has a count of its own.
                Reserved::Crowded => _ = self.seal(),
                crossed_or_sealed => self.make_room(position, crossed_or_sealed)?,
            }
        }
    }

    /// The slow half of `reserve`: the buffer is full, sealed, or no longer current.
    #[cold]
    fn make_room(&self, position: Position, outcome: Reserved) -> Result<(), Refusal> {
        if let Reserved::Crossed { handed_over: true } = outcome {
            self.bell.ring();
        }
        let only_sealer =
            mutant::is_active(Mutant::OnlySealerRotates) || mutant::is_active(Mutant::RotationForgotten);
        if only_sealer && outcome == Reserved::Sealed {
            return Err(Refusal::Exhausted);
        }
        match self.rotate(position) {
            Rotation::Moved => Ok(()),
            Rotation::NoBuffer => Err(Refusal::Exhausted),
            Rotation::NoExtent => Err(Refusal::NoExtent),
        }
    }

    /// Moves the ring on from a sealed buffer. Any thread may call it with any position it once read.
    pub(crate) fn rotate(&self, from: Position) -> Rotation {
        match self.successor(from) {
            Ok(next) => {
                // AcqRel: whoever reads the new position sees what its installer saw (the recycled buffer, the
                // spare extent's generation). Failure: somebody else was first, or the ring was closed.
                let _who_was_first = self.current.compare_exchange(
                    from.to_bits(),
                    next.to_bits(),
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                );
                Rotation::Moved
            }
            // What looked like a lack may be a stale position: then it is none.
            Err(_) if self.current.load(Ordering::Acquire) != from.to_bits() => Rotation::Moved,
            Err(lack) => lack,
        }
    }

    /// The position after a sealed one; the same for all who ask while the ring stands there.
    fn successor(&self, from: Position) -> Result<Position, Rotation> {
        let sealed = self.state(from.tag).load();
        let tag = from.tag.plus(1);
        if sealed.tag() != from.tag || !sealed.is_sealed() {
            return Err(Rotation::NoBuffer);
        }
        if self.state(tag).load().tag() != tag {
            return Err(Rotation::NoBuffer);
        }
        let used = if sealed.offset() == 0 { 0 } else { FRAME_HEADER_BYTES + sealed.offset() };
        let base = self.base_after(from.base, used).ok_or(Rotation::NoExtent)?;
        Ok(Position { tag, base })
    }

    /// First slot of the frame behind one that begins at `base` and uses `used_bytes`. `None`: it needs a new
    /// extent, and there is no spare.
    pub(crate) fn base_after(&self, base: SlotIndex, used_bytes: u64) -> Option<SlotIndex> {
        let slots = self.geometry.slots_for(used_bytes);
        let left = self.geometry.slots_left(base) - slots;
        if mutant::is_active(Mutant::RotateReusesBase) {
            return Some(base);
        }
        if left >= self.buffer_slots {
            return Some(base.offset_by(slots));
        }
        // Acquire pairs with the release of `offer_spare`: the extent's generation is visible.
        let spare = self.spare.load(Ordering::Acquire);
        // A spare in the frame's own extent was used up and not replaced yet.
        let is_fresh =
            spare != SPARE_NONE && self.geometry.extent_of(SlotIndex(spare)) != self.geometry.extent_of(base);
        let is_fresh = is_fresh || (spare != SPARE_NONE && mutant::is_active(Mutant::SpareUsedAgain));
        is_fresh.then_some(SlotIndex(spare))
    }

    /// Seals the frame that is being filled, if it holds anything, and moves on if there is room. Any thread.
    pub fn seal(&self) -> Sealing {
        self.position().map_or(Sealing::AlreadySealed, |position| self.seal_at(position))
    }

    fn seal_at(&self, position: Position) -> Sealing {
        let sealing = self.state(position.tag).seal(position.tag, false);
        if let Sealing::Sealed { handed_over } = sealing {
            if handed_over {
                self.bell.ring();
            }
            let _later_if_not_now = self.rotate(position);
        }
        sealing
    }

    /// Seals what was accepted before the call, and gives the last frame that holds any of it. `None`: there was
    /// nothing in frame 0.
    pub fn seal_accepted(&self) -> Option<FrameNumber> {
        let (position, frame) = self.standing();
        let is_empty = if position.is_nowhere() {
            // What gets in behind this load was not accepted before the call.
            let last = self.state(position.tag).load();
            last.tag() == position.tag && last.offset() == 0
        } else if mutant::is_active(Mutant::FlushLooksTwice) {
            self.seal() == Sealing::Empty
        } else {
            self.seal_at(position) == Sealing::Empty
        };
        if is_empty { frame.0.checked_sub(1).map(FrameNumber) } else { Some(frame) }
    }
}
