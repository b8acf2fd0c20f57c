//! Consistent cuts: a boundary in each ring, so that no record is before its own that follows one behind another's.
//!
//! *Follows* means: the append of the one was called after that of the other had returned, as anybody could tell. Reading
//! one ring after the other does not give such boundaries: between two looks a thread may append to a ring that was
//! looked at, and then to one that was not. So a cut marks all rings first, and then decides them one by one. Whoever
//! finds a mark decides the ring that it is about to append to, unless somebody has, before it appends. A record behind a
//! boundary is then only followed by records behind boundaries. `docs/decisions/0020-cuts-and-backups.md` has the
//! proof, and a loom model of the ring goes through all orders of memory.

use crate::{
    ids::FrameNumber,
    ring::Ring,
    sync::{AtomicU64, Mutex, Ordering},
};

/// The cuts of a store: one at a time.
#[derive(Debug)]
pub struct Cuts {
    /// The number of the cut for which rings may be decided: all of them are marked. 0: of none.
    deciding: AtomicU64,
    /// The number of the last one.
    last: Mutex<u64>,
}

impl Default for Cuts {
    fn default() -> Self {
        Self { deciding: AtomicU64::new(0), last: Mutex::new(0) }
    }
}

/// What was decided of a ring.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Decided {
    /// By which cut.
    pub number: u64,
    /// Frames below this one belong to it.
    pub frame: FrameNumber,
}

impl Cuts {
    /// The cut that whoever finds a mark has to help with.
    pub(crate) fn deciding(&self) -> Option<u64> {
        // Acquire pairs with the release in `take`: all rings are marked.
        Some(self.deciding.load(Ordering::Acquire)).filter(|number| *number > 0)
    }

    /// For each ring, the frame below which everything belongs to the cut. The rings are all that the store has.
    pub fn take<'a>(&self, rings: impl Iterator<Item = &'a Ring> + Clone) -> Vec<FrameNumber> {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *last += 1;
        rings.clone().for_each(|ring| ring.mark_for_cut(true));
        self.let_decide(*last);
        let frames = rings.clone().map(|ring| ring.decide(*last)).collect();
        self.let_decide(0);
        rings.for_each(|ring| ring.mark_for_cut(false));
        frames
    }

    /// From now on whoever finds a mark decides for this cut; 0: for none.
    pub(crate) fn let_decide(&self, number: u64) {
        self.deciding.store(number, Ordering::Release);
    }

    /// The number of a cut that is made step by step, with no other beside it.
    #[cfg(feature = "sim")]
    pub(crate) fn number(&self) -> u64 {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *last += 1;
        *last
    }
}
