//! The bytes that were read and not yet used up, and those that are to be read.

use super::Run;
use crate::{geometry::Geometry, ids::SlotIndex, reads::ReadError};
use bytes::Bytes;
use std::collections::VecDeque;

/// Where a read stands.
#[derive(Clone, Debug)]
enum Chunk {
    /// To be asked for.
    Planned,
    /// The driver reads it.
    Asked,
    /// Here.
    Here(Bytes),
    /// One slot that cannot be read.
    Failed(ReadError),
}

/// What is known of a slot.
#[derive(Clone, Debug)]
pub(super) enum Lookup {
    /// No read of it is planned.
    Unplanned,
    /// It is being read, or will be.
    Awaited,
    /// It cannot be read.
    Failed(ReadError),
    /// The bytes from the start of the slot to the end of the read that it came with.
    Here(Bytes),
}

/// Reads in the order in which they will be used.
#[derive(Debug)]
pub(super) struct Window {
    geometry: Geometry,
    chunks: VecDeque<(Run, Chunk)>,
    /// Runs that were asked for and are no longer wanted. None that begins where one of them does is asked for before
    /// that has come: the extent may be another one by then.
    unwanted: Vec<SlotIndex>,
}

impl Window {
    pub(super) const fn new(geometry: Geometry) -> Self {
        Self { geometry, chunks: VecDeque::new(), unwanted: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.chunks.len()
    }

    pub(super) fn clear(&mut self) {
        self.let_go(self.chunks.len());
    }

    fn let_go(&mut self, count: usize) {
        let asked = self.chunks.drain(..count).filter(|(_, chunk)| matches!(chunk, Chunk::Asked));
        self.unwanted.extend(asked.map(|(run, _)| run.slot));
    }

    fn is_unwanted(&mut self, slot: SlotIndex) -> bool {
        let known = self.unwanted.iter().position(|unwanted| *unwanted == slot);
        known.map(|index| self.unwanted.swap_remove(index)).is_some()
    }

    pub(super) fn plan(&mut self, run: Run) {
        self.chunks.push_back((run, Chunk::Planned));
    }

    /// The first run that was planned and not asked for; it counts as asked for from now on.
    pub(super) fn ask(&mut self) -> Option<Run> {
        let (run, chunk) = self.chunks.iter_mut().find(|(_, chunk)| matches!(chunk, Chunk::Planned))?;
        if self.unwanted.contains(&run.slot) {
            return None;
        }
        *chunk = Chunk::Asked;
        Some(*run)
    }

    pub(super) fn lookup(&self, slot: SlotIndex) -> Lookup {
        let Some((run, chunk)) = self.chunks.iter().find(|(run, _)| run.contains(slot)) else {
            return Lookup::Unplanned;
        };
        match chunk {
            Chunk::Planned | Chunk::Asked => Lookup::Awaited,
            Chunk::Failed(error) => Lookup::Failed(error.clone()),
            Chunk::Here(bytes) => {
                let start = bytes_of((slot.0 - run.slot.0) * self.geometry.slot_bytes());
                Lookup::Here(bytes.slice(start.min(bytes.len())..))
            }
        }
    }

    /// True if a read from this slot on is under way.
    pub(super) fn is_asked(&self, slot: SlotIndex) -> bool {
        self.chunks.iter().any(|(run, chunk)| run.slot == slot && matches!(chunk, Chunk::Asked))
    }

    /// The bytes of a read that was asked for. Others are ignored: the scan has moved on meanwhile.
    pub(super) fn supply(&mut self, slot: SlotIndex, bytes: Bytes) {
        let slot_bytes = self.geometry.slot_bytes();
        if self.is_unwanted(slot) {
            return;
        }
        match self.asked(slot) {
            Some((_, (run, chunk))) if bytes.len() as u64 == run.slots * slot_bytes => {
                *chunk = Chunk::Here(bytes)
            }
            _ => {}
        }
    }

    /// A run that was asked for and could not be started: it will be asked for again.
    pub(super) fn take_back(&mut self, slot: SlotIndex) {
        if self.is_unwanted(slot) {
            return;
        }
        if let Some((_, (_, chunk))) = self.asked(slot) {
            *chunk = Chunk::Planned;
        }
    }

    /// A read that failed. A slot that cannot be read must not hide its neighbours, so the halves are tried.
    pub(super) fn fail(&mut self, slot: SlotIndex, error: ReadError) {
        if self.is_unwanted(slot) {
            return;
        }
        let Some((index, (run, chunk))) = self.asked(slot) else { return };
        if run.slots <= 1 {
            *chunk = Chunk::Failed(error);
            return;
        }
        let half = run.slots / 2;
        let second = Run { slot: SlotIndex(run.slot.0 + half), slots: run.slots - half };
        *chunk = Chunk::Planned;
        run.slots = half;
        self.chunks.insert(index + 1, (second, Chunk::Planned));
    }

    fn asked(&mut self, slot: SlotIndex) -> Option<(usize, (&mut Run, &mut Chunk))> {
        let is_it = |(run, chunk): &(Run, Chunk)| run.slot == slot && matches!(chunk, Chunk::Asked);
        let index = self.chunks.iter().position(is_it)?;
        let (run, chunk) = self.chunks.get_mut(index)?;
        Some((index, (run, chunk)))
    }

    /// Lets go of what is before `slot`.
    pub(super) fn discard_before(&mut self, slot: SlotIndex) {
        match self.chunks.iter().position(|(run, _)| run.contains(slot)) {
            Some(index) => self.let_go(index),
            None if self.chunks.back().is_some_and(|(run, _)| run.end() == slot) => self.clear(),
            None => {}
        }
    }
}

/// Chunks are at most a few MiB.
fn bytes_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
