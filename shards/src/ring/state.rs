//! The state word of one buffer.
//!
//! ```text
//!            reserve / commit            seal                    begin_flush
//!   Filling ------------------> Filling ------> Sealed, writers > 0
//!      |                                          | last commit
//!      | seal with no writer                      v
//!      +--------------------------------------> Sealed, no writer ----> Flushing
//!      ^                                                                   |
//!      +--------------------------- recycle (tag + buffers) ---------------+
//! ```
//!
//! Who may do what: any thread reserves, commits what it reserved, and seals. Only the owner of the shard begins a
//! flush and recycles. The bytes of a range belong to the thread that reserved it from `Reserved` until its commit;
//! the bytes of the whole buffer belong to the owner from `begin_flush` until `recycle`.
//!
//! Why compare-exchange and not add: once a buffer is sealed its used length must be readable from the word, so
//! that any thread can finish the rotation (see `docs/decisions/0006-reserve-by-compare-exchange.md`).

use crate::{
    limits::{BUFFER_WRITERS_MAX, RECORD_ALIGNMENT},
    mutant::{self, Mutant},
    sync::{AtomicU64, Ordering},
};
use std::fmt;

const OFFSET_BITS: u32 = 21;
const WRITERS_BITS: u32 = 10;
const TAG_BITS: u32 = 30;
const WRITERS_SHIFT: u32 = OFFSET_BITS;
const SEALED_SHIFT: u32 = WRITERS_SHIFT + WRITERS_BITS;
const FLUSHING_SHIFT: u32 = SEALED_SHIFT + 1;
const TAG_SHIFT: u32 = FLUSHING_SHIFT + 1;
const _: () = assert!(TAG_SHIFT + TAG_BITS <= 64);
const _: () = assert!(BUFFER_WRITERS_MAX == (1 << WRITERS_BITS) - 1);

const OFFSET_MASK: u64 = (1 << OFFSET_BITS) - 1;
const WRITERS_MASK: u64 = (1 << WRITERS_BITS) - 1;
const TAG_MASK: u64 = (1 << TAG_BITS) - 1;
const ONE_WRITER: u64 = 1 << WRITERS_SHIFT;
const SEALED: u64 = 1 << SEALED_SHIFT;
const FLUSHING: u64 = 1 << FLUSHING_SHIFT;

/// The low 30 bits of a frame number: which turn of the ring a buffer is in. A thread that slept is told apart from
/// the current turn unless it slept through a multiple of 2^30 frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameTag(pub(crate) u64);

impl FrameTag {
    /// Bits of a tag.
    pub const BITS: u32 = TAG_BITS;

    /// The tag of a frame.
    #[must_use]
    pub const fn of(frame: u64) -> Self {
        Self(frame & TAG_MASK)
    }

    /// The tag `frames` later.
    #[must_use]
    pub const fn plus(self, frames: u64) -> Self {
        Self((self.0 + frames) & TAG_MASK)
    }

    /// The frame number that has this tag and is at most 2^30 - 1 behind `reference`.
    #[must_use]
    pub const fn frame_from(self, reference: u64) -> u64 {
        reference + (self.0.wrapping_sub(reference) & TAG_MASK)
    }
}

/// A snapshot of a state word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct State(u64);

impl State {
    const fn filling(tag: FrameTag) -> Self {
        Self(tag.0 << TAG_SHIFT)
    }

    /// Of an open buffer, but for its writers.
    const fn ending_at(tag: FrameTag, offset: u64) -> Self {
        Self((tag.0 << TAG_SHIFT) | (offset / RECORD_ALIGNMENT))
    }

    /// Bytes reserved in the record area.
    #[must_use]
    pub const fn offset(self) -> u64 {
        (self.0 & OFFSET_MASK) * RECORD_ALIGNMENT
    }

    /// Reservations that are neither committed nor dropped.
    #[must_use]
    pub const fn writers(self) -> u32 {
        ((self.0 >> WRITERS_SHIFT) & WRITERS_MASK) as u32
    }

    /// Closed to new reservations.
    #[must_use]
    pub const fn is_sealed(self) -> bool {
        self.0 & SEALED != 0
    }

    /// Under the owner's flush.
    #[must_use]
    pub const fn is_flushing(self) -> bool {
        self.0 & FLUSHING != 0
    }

    /// Which frame the buffer holds or will hold.
    #[must_use]
    pub const fn tag(self) -> FrameTag {
        FrameTag(self.0 >> TAG_SHIFT & TAG_MASK)
    }

    /// Sealed and with no writer left: the owner may take it.
    #[must_use]
    pub const fn is_handed_over(self) -> bool {
        self.is_sealed() && self.writers() == 0
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("offset", &self.offset())
            .field("writers", &self.writers())
            .field("sealed", &self.is_sealed())
            .field("flushing", &self.is_flushing())
            .field("tag", &self.tag().0)
            .finish()
    }
}

/// What a try to reserve came to.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// The range `offset..offset + bytes` belongs to the caller, who must commit it.
    At {
        /// Begin of the range in the record area.
        offset: u64,
    },
    /// The bytes do not fit, and this call sealed the buffer: exactly one caller per turn gets this. It owes a
    /// rotation, and a ring of the bell if the buffer was handed over.
    Crossed {
        /// No writer was left: the owner can take the buffer.
        handed_over: bool,
    },
    /// The buffer is sealed: rotate, then go to the current one.
    Sealed,
    /// The buffer is in another turn: look for the current one again.
    Moved,
    /// As many writers as the word can count are at work.
    Crowded,
}

/// What a commit came to.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// Others are still writing, or the buffer is still open.
    Open,
    /// The last writer left a sealed buffer: exactly one commit per turn gets this. It owes a ring of the bell.
    HandedOver,
}

/// What a try to seal came to.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealing {
    /// This call sealed the buffer. It owes what [`Reserved::Crossed`] owes.
    Sealed {
        /// No writer was left: the owner can take the buffer.
        handed_over: bool,
    },
    /// It was sealed before.
    AlreadySealed,
    /// Nothing was reserved: there is nothing to flush, and the buffer stays open.
    Empty,
    /// The buffer is in another turn: what was to be sealed has long been.
    Moved,
}

/// The state word of one buffer, shared by all who append.
#[derive(Debug)]
pub struct AtomicState(AtomicU64);

impl AtomicState {
    /// A free buffer that will hold the frame with this tag.
    pub(crate) fn new(tag: FrameTag) -> Self {
        Self(AtomicU64::new(State::filling(tag).0))
    }

    /// A snapshot. Acquire: what a commit or recycle published is visible with it.
    #[inline]
    pub(crate) fn load(&self) -> State {
        State(self.0.load(Ordering::Acquire))
    }

    /// Claims `bytes` (a multiple of the record alignment) of a record area of `capacity` bytes and counts the
    /// writer, in one step, if the buffer is in the turn `tag`.
    #[inline]
    pub(crate) fn reserve(&self, tag: FrameTag, bytes: u64, capacity: u64) -> Reserved {
        // Relaxed: the compare-exchange validates whatever was read.
        let mut state = State(self.0.load(Ordering::Relaxed));
        loop {
            if state.tag() != tag && !mutant::is_active(Mutant::ReserveIgnoresTag) {
                return Reserved::Moved;
            }
            if state.is_sealed() {
                return Reserved::Sealed;
            }
            let offset = state.offset();
            let fits = bytes <= capacity - offset;
            if fits && state.writers() == BUFFER_WRITERS_MAX {
                return Reserved::Crowded;
            }
            let next = if fits { state.0 + bytes / RECORD_ALIGNMENT + ONE_WRITER } else { state.0 | SEALED };
            // Acquire pairs with the release of `recycle`: the bytes of the last turn are out of use before the
            // new writer touches them. Failure is looked at again, so relaxed.
            match self.0.compare_exchange_weak(state.0, next, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) if fits => return Reserved::At { offset },
                Ok(_) => return Reserved::Crossed { handed_over: hands_over(state) },
                Err(seen) => state = State(seen),
            }
        }
    }

    /// Ends one reservation.
    #[inline]
    pub(crate) fn commit(&self) -> Committed {
        // Release pairs with the acquire of `begin_flush`, through the release sequence of all commits: the owner
        // sees the bytes of every writer.
        let ordering =
            if mutant::is_active(Mutant::CommitRelaxed) { Ordering::Relaxed } else { Ordering::Release };
        let before = State(self.0.fetch_sub(ONE_WRITER, ordering));
        debug_assert!(before.writers() > 0, "commit without a reservation: {before:?}");
        if before.is_sealed() && before.writers() == 1 { Committed::HandedOver } else { Committed::Open }
    }

    /// True if the buffer is open in the turn `tag` and nobody reserved behind `offset`. Acquire: where it is false, what
    /// others did before they reserved or sealed is visible.
    #[inline]
    pub(crate) fn ends_at(&self, tag: FrameTag, offset: u64) -> bool {
        self.load().0 & !(WRITERS_MASK << WRITERS_SHIFT) == State::ending_at(tag, offset).0
    }

    /// Ends a reservation that ends at `offset`, and gives its last `bytes` back if nobody reserved behind them. False:
    /// somebody did, or sealed the buffer, and the reservation goes on.
    pub(crate) fn give_back(&self, tag: FrameTag, offset: u64, bytes: u64) -> bool {
        let mut state = self.load();
        while state.0 & !(WRITERS_MASK << WRITERS_SHIFT) == State::ending_at(tag, offset).0 {
            let next = state.0 - ONE_WRITER - bytes / RECORD_ALIGNMENT;
            // Release: as a commit.
            match self.0.compare_exchange_weak(state.0, next, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(seen) => state = State(seen),
            }
        }
        false
    }

    /// Closes the turn `tag` to new reservations, if anything is in it (or anyway with `even_empty`).
    pub(crate) fn seal(&self, tag: FrameTag, even_empty: bool) -> Sealing {
        let mut state = State(self.0.load(Ordering::Relaxed));
        loop {
            if state.tag() != tag {
                return Sealing::Moved;
            }
            if state.is_sealed() {
                return Sealing::AlreadySealed;
            }
            if state.offset() == 0 && !even_empty {
                return Sealing::Empty;
            }
            // Relaxed: sealing publishes nothing by itself; the writers' commits do.
            match self.0.compare_exchange_weak(
                state.0,
                state.0 | SEALED,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Sealing::Sealed { handed_over: hands_over(state) },
                Err(seen) => state = State(seen),
            }
        }
    }

    /// As [`AtomicState::seal`], for a cut: whatever the answer is for the turn `tag`, but that it was sealed before,
    /// the word was written, and whoever reserves in it, or finds it sealed, from now on has seen what this thread has.
    pub(crate) fn seal_for_cut(&self, tag: FrameTag) -> Sealing {
        let mut state = State(self.0.load(Ordering::Relaxed));
        loop {
            if state.tag() != tag {
                return Sealing::Moved;
            }
            if state.is_sealed() {
                return Sealing::AlreadySealed;
            }
            let is_empty = state.offset() == 0;
            let next = if is_empty { state.0 } else { state.0 | SEALED };
            // Release pairs with the acquire of a reservation in the open buffer, and with that of the `load` before a
            // rotation.
            match self.0.compare_exchange_weak(state.0, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) if is_empty => return Sealing::Empty,
                Ok(_) => return Sealing::Sealed { handed_over: hands_over(state) },
                Err(seen) => state = State(seen),
            }
        }
    }

    /// Takes a handed-over buffer of the turn `tag` for flushing and gives its used bytes. Only the owner calls
    /// this; `None` if the buffer is not ready or was taken before.
    pub(crate) fn begin_flush(&self, tag: FrameTag) -> Option<u64> {
        let state = self.load();
        let ready = if mutant::is_active(Mutant::FlushIgnoresWriters) {
            state.is_sealed()
        } else {
            state.is_handed_over()
        };
        if state.tag() != tag || !ready || state.is_flushing() {
            return None;
        }
        // Nobody else changes a sealed word without writers, so a plain or cannot lose anything. Relaxed: the load
        // above acquired the bytes.
        self.0.fetch_or(FLUSHING, Ordering::Relaxed);
        Some(state.offset())
    }

    /// Opens the buffer for the turn `tag + buffers`. Only the owner calls this, when the I/O is over.
    pub(crate) fn recycle(&self, tag: FrameTag, buffers: u64) {
        let state = self.load();
        debug_assert!(state.tag() == tag && state.is_handed_over(), "recycled in use: {state:?}");
        let next = if mutant::is_active(Mutant::RecycleKeepsTag) { tag } else { tag.plus(buffers) };
        // Release pairs with the acquire of `reserve`: the owner is done with the bytes.
        self.0.store(State::filling(next).0, Ordering::Release);
    }
}

/// True if the one who seals a buffer in this state is also the last one in it.
fn hands_over(before: State) -> bool {
    before.writers() == 0 || mutant::is_active(Mutant::HandOverTwice)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const CAPACITY: u64 = 1024;

    #[test]
    fn a_reservation_takes_bytes_and_a_writer_in_one_step() {
        let word = AtomicState::new(FrameTag::of(7));
        assert_eq!(word.reserve(FrameTag::of(7), 64, CAPACITY), Reserved::At { offset: 0 });
        assert_eq!(word.reserve(FrameTag::of(7), 8, CAPACITY), Reserved::At { offset: 64 });
        let state = word.load();
        assert_eq!((state.offset(), state.writers(), state.is_sealed()), (72, 2, false));
        assert_eq!(word.commit(), Committed::Open);
        assert_eq!(word.commit(), Committed::Open);
    }

    #[test]
    fn exactly_one_reservation_that_does_not_fit_seals_and_the_used_length_stays_readable() {
        let word = AtomicState::new(FrameTag::of(0));
        assert_eq!(word.reserve(FrameTag::of(0), 1000, CAPACITY), Reserved::At { offset: 0 });
        assert_eq!(word.reserve(FrameTag::of(0), 32, CAPACITY), Reserved::Crossed { handed_over: false });
        assert_eq!(word.reserve(FrameTag::of(0), 32, CAPACITY), Reserved::Sealed);
        assert_eq!(word.load().offset(), 1000);
        assert_eq!(word.begin_flush(FrameTag::of(0)), None);
        assert_eq!(word.commit(), Committed::HandedOver);
        assert_eq!(word.begin_flush(FrameTag::of(0)), Some(1000));
        assert_eq!(word.begin_flush(FrameTag::of(0)), None, "a flush is taken once");
        word.recycle(FrameTag::of(0), 4);
        assert_eq!(word.reserve(FrameTag::of(0), 8, CAPACITY), Reserved::Moved);
        assert_eq!(word.reserve(FrameTag::of(4), 8, CAPACITY), Reserved::At { offset: 0 });
    }

    #[test]
    fn a_full_writer_count_is_an_answer_and_not_an_overflow() {
        let word = AtomicState::new(FrameTag::of(0));
        for _ in 0..BUFFER_WRITERS_MAX {
            assert!(matches!(word.reserve(FrameTag::of(0), 8, 1 << 20), Reserved::At { .. }));
        }
        assert_eq!(word.reserve(FrameTag::of(0), 8, 1 << 20), Reserved::Crowded);
        assert_eq!(word.commit(), Committed::Open);
        assert!(matches!(word.reserve(FrameTag::of(0), 8, 1 << 20), Reserved::At { .. }));
    }

    #[test]
    fn sealing_an_empty_buffer_is_refused_unless_it_is_being_closed() {
        let word = AtomicState::new(FrameTag::of(3));
        assert_eq!(word.seal(FrameTag::of(3), false), Sealing::Empty);
        assert_eq!(word.seal(FrameTag::of(2), false), Sealing::Moved);
        assert_eq!(word.seal(FrameTag::of(3), true), Sealing::Sealed { handed_over: true });
        assert_eq!(word.seal(FrameTag::of(3), true), Sealing::AlreadySealed);
    }

    #[test]
    fn a_tag_finds_its_frame_again_across_the_wrap() {
        for frame in [0, 5, (1 << 30) - 1, 1 << 30, (7 << 30) + 3] {
            for behind in [0, 1, 60] {
                assert_eq!(FrameTag::of(frame).frame_from(frame - behind.min(frame)), frame);
            }
        }
    }
}
