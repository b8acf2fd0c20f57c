//! Batches over several shards: which are under way, and what of them a shard's log says.
//!
//! In each shard such a batch is a list that makes nothing count, the *prepared* root. Once all are durable, the
//! *decision* in the first shard makes the batch count, and once that is durable each shard gets the list again, as the
//! commit of an ordinary batch, beside a note that this shard has *resolved* it. After a crash, opening finds the
//! decisions, and the shards that have not resolved them.
//!
//! What is over need not be remembered: every note says below which id all batches are, and a batch is over when all
//! its shards have resolved it durably, or when it was given up without a decision.

use crate::{
    address::Address,
    format::control::{BatchId, Control},
    ids::{FrameNumber, ShardId, Term},
    limits::OVER_BATCHES_MAX,
    mutant::{self, Mutant},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What a shard's log says of batches over several shards that may not be over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OverNotes {
    /// All batches with lower ids are over.
    pub settled: BatchId,
    /// Batches that were decided here: their shards, and the prepared root in each.
    pub decided: BTreeMap<BatchId, Vec<(ShardId, Address)>>,
    /// Batches that this shard has resolved.
    pub resolved: BTreeSet<BatchId>,
}

impl OverNotes {
    /// Takes what a control record says, in the order of the log.
    pub fn take(&mut self, control: &Control) {
        let settled = match control {
            Control::Decided { id, settled, parts } => {
                self.decided.insert(*id, parts.clone());
                settled
            }
            Control::Resolved { id, settled } => {
                self.resolved.insert(*id);
                settled
            }
            _ => return,
        };
        self.settled = self.settled.max(*settled);
        self.decided.retain(|id, _| *id >= self.settled);
        self.resolved.retain(|id| *id >= self.settled);
    }

    /// True if this shard has nothing to do for the batch any more.
    #[must_use]
    pub fn has_resolved(&self, id: BatchId) -> bool {
        id < self.settled || self.resolved.contains(&id)
    }

    /// All of it again, as control records: what goes with a checkpoint.
    pub(crate) fn records(&self) -> impl Iterator<Item = Control> + '_ {
        let settled = self.settled;
        // Below all others, so that it says nothing but what is settled.
        let mark = Control::Resolved { id: BatchId::default(), settled };
        let mark = (settled > BatchId::default()).then_some(mark);
        let resolved = self.resolved.iter().filter(|_| !mutant::is_active(Mutant::ResolvedForgotten));
        let resolved = resolved.map(move |id| Control::Resolved { id: *id, settled });
        let decided = self.decided.iter();
        mark.into_iter().chain(resolved).chain(decided.map(move |(id, parts)| Control::Decided {
            id: *id,
            settled,
            parts: parts.clone(),
        }))
    }
}

/// What an open has to do for a batch that a shard has not resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unresolved {
    /// The batch.
    pub id: BatchId,
    /// Its list in this shard.
    pub list: Vec<u8>,
}

/// How far a batch is.
#[derive(Debug)]
enum Active {
    /// It may be given up.
    Open,
    /// It counts, and some shard has not resolved it.
    Decided,
    /// It is over once these frames are durable.
    Resolved(Vec<(ShardId, FrameNumber)>),
}

/// The batches over several shards of an open store. Its lock is taken by nobody else.
#[derive(Debug)]
pub struct OverTable {
    term: Term,
    /// Decided before this open: nothing from this one on is settled before all shards have resolved what they had to.
    floor: Option<BatchId>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    active: BTreeMap<BatchId, Active>,
}

impl OverTable {
    /// The table of an open. `floor`: the first batch of an earlier open that some shard had not resolved.
    #[must_use]
    pub fn new(term: Term, floor: Option<BatchId>) -> Self {
        Self { term, floor, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a batch. `None`: too many are under way.
    pub(crate) fn begin(&self, durable: impl Fn(ShardId) -> FrameNumber) -> Option<BatchId> {
        let mut state = self.state();
        state.sweep(durable);
        if state.active.len() >= OVER_BATCHES_MAX {
            return None;
        }
        let id = BatchId { term: self.term, number: state.next };
        state.next += 1;
        state.active.insert(id, Active::Open);
        Some(id)
    }

    /// The batch counts from now on.
    pub(crate) fn decide(&self, id: BatchId) {
        self.state().active.insert(id, Active::Decided);
    }

    /// All shards have resolved it, in these frames.
    pub(crate) fn resolve(&self, id: BatchId, frames: Vec<(ShardId, FrameNumber)>) {
        self.state().active.insert(id, Active::Resolved(frames));
    }

    /// It came to nothing.
    pub(crate) fn give_up(&self, id: BatchId) {
        self.state().active.remove(&id);
    }

    /// All batches below this are over. `has_resolved`: all shards have made durable what this open had to resolve.
    pub(crate) fn settled(&self, durable: impl Fn(ShardId) -> FrameNumber, has_resolved: bool) -> BatchId {
        let mut state = self.state();
        state.sweep(durable);
        let next = BatchId { term: self.term, number: state.next };
        let lowest = state.active.keys().next().copied().unwrap_or(next);
        self.floor.filter(|_| !has_resolved).map_or(lowest, |floor| floor.min(lowest))
    }
}

impl State {
    fn sweep(&mut self, durable: impl Fn(ShardId) -> FrameNumber) {
        self.active.retain(|_, active| match active {
            Active::Resolved(frames) => frames.iter().any(|(shard, frame)| durable(*shard) <= *frame),
            Active::Open | Active::Decided => true,
        });
    }
}
