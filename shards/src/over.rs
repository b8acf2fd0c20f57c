//! Batches over several shards: which are under way, and what of them a shard's log says.
//!
//! In each shard such a batch is a list that makes nothing count, the *prepared* root. Once all are durable, the
//! *decision* in the first shard makes the batch count, and once that is durable each shard gets the list again, as the
//! commit of an ordinary batch, beside a note that this shard has *resolved* it. After a crash, opening finds the
//! decisions, and the shards that have not resolved them.
//!
//! What is over need not be remembered: every note says below which id all batches are, and a batch is over when all
//! its shards have resolved it durably. It gets its id when it is decided, so that none is in the way before.

use crate::{
    address::Address,
    format::control::{BatchId, Control},
    ids::{FrameNumber, ShardId, Term},
    limits::{OVER_BATCHES_MAX, OVER_UNFORGOTTEN_MAX},
    mutant::{self, Mutant},
    ring::reservation::Placed,
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

    /// How many batches it says something of.
    pub(crate) fn len(&self) -> usize {
        self.decided.len() + self.resolved.len()
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

/// What a shard has, or will have, of a batch that counts.
#[derive(Clone, Debug)]
struct Share {
    shard: ShardId,
    /// Its list.
    list: Vec<u8>,
    resolved: Option<FrameNumber>,
}

fn is_over(shares: &[Share], durable: &impl Fn(ShardId) -> FrameNumber) -> bool {
    shares.iter().all(|share| share.resolved.is_some_and(|frame| frame < durable(share.shard)))
}

/// The share of a shard that belongs to a cut, and is behind the boundary of its shard or nowhere yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareOfCut {
    /// The batch.
    pub id: BatchId,
    /// Whose share it is.
    pub shard: ShardId,
    /// Its list, whose records are durable.
    pub list: Vec<u8>,
}

/// A cut that is being made; see [`OverTable::begin_cut`].
#[derive(Debug)]
#[must_use = "nothing is forgotten before the cut is ended"]
pub struct OverCut<'a>(&'a OverTable);

/// The batches over several shards of an open store. Its lock is taken by nobody else.
#[derive(Debug)]
pub struct OverTable {
    term: Term,
    noted: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Batches that are being written, and not decided.
    open: usize,
    /// Batches that count: each is over once all its shards have resolved it durably.
    decided: BTreeMap<BatchId, Vec<Share>>,
    /// While there are any, what is over is not forgotten.
    cuts: usize,
}

impl OverTable {
    /// The table of an open. `left`: what earlier opens decided and some shard has not resolved, shard by shard.
    /// `noted`: the most batches that a shard's log says something of.
    #[must_use]
    pub fn new<'a>(
        term: Term,
        left: impl IntoIterator<Item = (ShardId, &'a Unresolved)>,
        noted: usize,
    ) -> Self {
        let mut decided: BTreeMap<BatchId, Vec<Share>> = BTreeMap::new();
        for (shard, Unresolved { id, list }) in left {
            decided.entry(*id).or_default().push(Share { shard, list: list.clone(), resolved: None });
        }
        Self { term, noted: noted as u64, state: Mutex::new(State { decided, ..State::default() }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a batch. False: too many are under way, or one stands in the way of forgetting too many others.
    pub(crate) fn begin(&self, durable: impl Fn(ShardId) -> FrameNumber) -> bool {
        let mut state = self.state();
        let (under_way, first) = state.under_way(&durable);
        let unforgotten = match first {
            Some(first) if first.term == self.term => state.next - first.number,
            Some(_) => self.noted + state.next,
            None => 0,
        };
        let may = under_way + state.open < OVER_BATCHES_MAX && unforgotten < OVER_UNFORGOTTEN_MAX;
        state.open += usize::from(may);
        may
    }

    /// A batch counts from now on; these are its shards, and its list in each.
    pub(crate) fn decide(&self, shares: impl IntoIterator<Item = (ShardId, Vec<u8>)>) -> BatchId {
        let shares = shares.into_iter().map(|(shard, list)| Share { shard, list, resolved: None });
        let shares = shares.collect();
        let mut state = self.state();
        let id = BatchId { term: self.term, number: state.next };
        state.next += 1;
        state.open -= 1;
        state.decided.insert(id, shares);
        id
    }

    /// Appends what makes the batch count in a shard. A cut sees it done, with its note here, or not begun.
    pub(crate) fn resolve<E>(
        &self,
        id: BatchId,
        shard: ShardId,
        append: impl FnOnce() -> Result<Placed, E>,
    ) -> Result<Placed, E> {
        let mut state = self.state();
        let placed = append()?;
        let shares = state.decided.get_mut(&id).into_iter().flatten();
        let own = shares.filter(|share| share.shard == shard);
        own.for_each(|share| share.resolved = Some(placed.frame));
        Ok(placed)
    }

    /// A batch came to nothing.
    pub(crate) fn give_up(&self) {
        self.state().open -= 1;
    }

    /// All batches below this are over.
    pub(crate) fn settled(&self, durable: impl Fn(ShardId) -> FrameNumber) -> BatchId {
        let mut state = self.state();
        let next = BatchId { term: self.term, number: state.next };
        state.under_way(&durable).1.unwrap_or(next)
    }

    /// True for a batch that this open began.
    #[cfg(feature = "sim")]
    pub(crate) fn has_begun(&self, id: BatchId) -> bool {
        id.term == self.term
    }

    /// What the shards have of batches that count and are not over: where it was resolved, or that it was not.
    #[cfg(feature = "sim")]
    pub(crate) fn shares(&self) -> Vec<(BatchId, ShardId, Option<FrameNumber>)> {
        let mut all = Vec::new();
        for (id, shares) in &self.state().decided {
            all.extend(shares.iter().map(|share| (*id, share.shard, share.resolved)));
        }
        all
    }

    /// To be called before a cut marks the first ring.
    pub fn begin_cut(&self) -> OverCut<'_> {
        self.state().cuts += 1;
        OverCut(self)
    }
}

impl OverCut<'_> {
    /// What the cut holds beside the frames before its boundaries, so that it has all of a batch or nothing. `frames`:
    /// what was decided of each ring.
    #[must_use]
    pub fn end(self, frames: &[FrameNumber]) -> Vec<ShareOfCut> {
        let has = |share: &Share| {
            let behind = frames.get(usize::from(share.shard.0)).copied().unwrap_or_default();
            share.resolved.is_some_and(|frame| frame < behind)
        };
        let state = self.0.state();
        let mut missing = Vec::new();
        for (id, shares) in &state.decided {
            // Who decided it in an earlier life has been told that it counts.
            let is_in = id.term < self.0.term || shares.iter().any(has);
            if is_in && !mutant::is_active(Mutant::CutSplitsBatches) {
                let out = shares.iter().filter(|share| !has(share));
                missing.extend(out.map(|share| ShareOfCut {
                    id: *id,
                    shard: share.shard,
                    list: share.list.clone(),
                }));
            }
        }
        missing
    }
}

impl Drop for OverCut<'_> {
    fn drop(&mut self) {
        self.0.state().cuts -= 1;
    }
}

impl State {
    /// How many are decided and not over, and the first of them.
    fn under_way(&mut self, durable: &impl Fn(ShardId) -> FrameNumber) -> (usize, Option<BatchId>) {
        if self.cuts == 0 {
            self.decided.retain(|_, shares| !is_over(shares, durable));
        }
        let mut under_way = self.decided.iter().filter(|(_, shares)| !is_over(shares, durable));
        let first = under_way.next().map(|(id, _)| *id);
        (usize::from(first.is_some()) + under_way.count(), first)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::ids::Generation;

    const SHARDS: [ShardId; 2] = [ShardId(0), ShardId(1)];

    fn durable(frames: u64) -> impl Fn(ShardId) -> FrameNumber {
        move |_| FrameNumber(frames)
    }

    fn decided(table: &OverTable) -> BatchId {
        assert!(table.begin(durable(0)));
        table.decide(SHARDS.map(|shard| (shard, vec![shard.0 as u8])))
    }

    fn resolve(table: &OverTable, id: BatchId, shard: ShardId, frame: u64) {
        let geometry = crate::geometry::Geometry::new(4096, 1 << 20).unwrap();
        let address = Address::new(&geometry, 4096, Generation(1), 8);
        let placed = Placed { address, frame: FrameNumber(frame) };
        table.resolve(id, shard, || Ok::<_, ()>(placed)).unwrap();
    }

    #[test]
    fn what_is_open_is_in_nobodys_way_and_what_cannot_be_finished_is_at_last() {
        let table = OverTable::new(Term(3), [], 0);
        assert!(table.begin(durable(0)), "one that stays open");
        for number in 0..1000 {
            let id = decided(&table);
            assert_eq!(id, BatchId { term: Term(3), number });
            assert_eq!(table.settled(durable(9)), id);
            SHARDS.iter().for_each(|shard| resolve(&table, id, *shard, 8));
            assert_eq!(table.settled(durable(8)), id, "it is not durable");
            assert_eq!(table.settled(durable(9)).number, number + 1);
        }
        let stuck = decided(&table);
        resolve(&table, stuck, ShardId(0), 8);
        for _ in 1..OVER_UNFORGOTTEN_MAX {
            let id = decided(&table);
            SHARDS.iter().for_each(|shard| resolve(&table, id, *shard, 8));
            assert_eq!(table.settled(durable(9)), stuck);
        }
        assert!(!table.begin(durable(9)));
        resolve(&table, stuck, ShardId(1), 8);
        assert!(table.begin(durable(9)));
    }

    #[test]
    fn what_an_earlier_open_left_is_in_the_way_and_in_every_cut() {
        let id = BatchId { term: Term(2), number: 7 };
        let left = Unresolved { id, list: vec![5] };
        let table = OverTable::new(Term(3), [(ShardId(1), &left)], OVER_UNFORGOTTEN_MAX as usize - 1);
        let later = decided(&table);
        assert!(!table.begin(durable(9)), "as many as can be are remembered");
        let cut = table.begin_cut().end(&[FrameNumber(4); 2]);
        assert_eq!(cut, [ShareOfCut { id, shard: ShardId(1), list: vec![5] }]);
        resolve(&table, id, ShardId(1), 3);
        resolve(&table, later, ShardId(0), 3);
        let cut = table.begin_cut();
        assert!(table.begin(durable(9)));
        resolve(&table, later, ShardId(1), 4);
        assert_eq!(table.settled(durable(9)).number, 1);
        let cut = cut.end(&[FrameNumber(4); 2]);
        assert_eq!(cut, [ShareOfCut { id: later, shard: ShardId(1), list: vec![1] }]);
        assert!(table.begin_cut().end(&[FrameNumber(5); 2]).is_empty());
    }
}
