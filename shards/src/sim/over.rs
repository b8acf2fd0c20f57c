//! What the oracle knows of batches over several shards: in all their shards, or in none.

use super::oracle::{Fate, Oracle, Record};
use crate::{format::control::BatchId, ids::ShardId, recovery::RecoveryReport};

/// A batch whose decision was appended.
#[derive(Debug)]
pub(super) struct Over {
    pub id: BatchId,
    /// Its records.
    pub records: Vec<u64>,
    pub shards: Vec<ShardId>,
    /// The decision is known to be durable.
    pub is_promised: bool,
}

/// What recovery found of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Whole,
    Half,
    Nowhere,
}

impl Over {
    /// From whether the decision is there, and how many shards have resolved it.
    fn presence(&self, (is_decided, resolved): (bool, usize)) -> Presence {
        match resolved {
            _ if is_decided || resolved == self.shards.len() => Presence::Whole,
            0 => Presence::Nowhere,
            _ => Presence::Half,
        }
    }
}

impl Oracle {
    /// The decision may be in the log from now on.
    pub(super) fn may_be_decided(&mut self, over: Over) {
        for id in &over.records {
            self.records[*id as usize].fate = Fate::Decided;
        }
        self.overs.push(over);
    }

    pub(super) fn is_decided(&mut self, id: BatchId) {
        self.overs.iter_mut().filter(|over| over.id == id).for_each(|over| over.is_promised = true);
    }

    /// O1 and O2: each is resolved in all its shards, or its decision is there, or it is nowhere. O4: where it is resolved,
    /// all of its records were found.
    pub(super) fn check_overs(&self, report: &RecoveryReport) -> Result<(), String> {
        for over in &self.overs {
            let found = found(over, report);
            let presence = over.presence(found);
            if presence == Presence::Half {
                return Err(format!("O1: batch {:?} is in {} of {:?}", over.id, found.1, over.shards));
            }
            if over.is_promised && presence == Presence::Nowhere {
                return Err(format!("O2: batch {:?} was decided durably, and is not there", over.id));
            }
            for shard in &over.shards {
                // What was moved before anybody heard of it comes as a copy.
                let is_early = |id: &&u64| self.index.as_ref().is_some_and(|index| index.knows(**id));
                let own =
                    over.records.iter().filter(|id| !is_early(id)).map(|id| &self.records[*id as usize]);
                let own = own.filter(|record| record.shard == *shard);
                let (placed, left): (Vec<&Record>, Vec<&Record>) =
                    own.partition(|record| matches!(record.fate, Fate::Placed(_)));
                if !placed.is_empty() && !left.is_empty() {
                    return Err(format!("O4: {shard:?} lacks {left:?} of batch {:?}", over.id));
                }
            }
        }
        Ok(())
    }

    /// A life begins, and what recovery found is so.
    pub(super) fn resume_overs(&mut self, report: &RecoveryReport) {
        let mut kept = Vec::new();
        for over in std::mem::take(&mut self.overs) {
            let presence = over.presence(found(&over, report));
            let fate = if presence == Presence::Nowhere { Fate::Gone } else { Fate::Decided };
            for id in &over.records {
                let record = &mut self.records[*id as usize];
                // What was placed and not cut off stays where it is.
                if !matches!(record.fate, Fate::Placed(_)) {
                    record.fate = fate;
                }
            }
            // Half of one was forgiven by the check of this open, for a device that lied. It stays so, also when what it
            // lied about has been written over.
            if presence == Presence::Whole {
                kept.push(over);
            }
        }
        let lacks = |shard: &&ShardId, id| {
            report.shards.get(usize::from(shard.0)).is_some_and(|it| !it.space.over.has_resolved(id))
        };
        let owed = kept.iter().filter(|over| found(over, report).0).flat_map(|over| {
            over.shards.iter().filter(move |shard| lacks(shard, over.id)).map(move |shard| (over.id, *shard))
        });
        self.owed = owed.collect();
        self.overs = kept;
    }
}

/// Whether the decision is there, and how many shards have resolved it.
fn found(over: &Over, report: &RecoveryReport) -> (bool, usize) {
    let is_decided = report.shards.iter().any(|shard| shard.space.over.decided.contains_key(&over.id));
    let of = |shard: &&ShardId| report.shards.get(usize::from(shard.0));
    let has = |shard: &&ShardId| of(shard).is_some_and(|shard| shard.space.over.has_resolved(over.id));
    (is_decided, over.shards.iter().filter(has).count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Term;

    #[test]
    fn half_a_batch_is_neither_there_nor_gone() {
        let shards = [0, 1, 2].map(ShardId).to_vec();
        let id = BatchId { term: Term(3), number: 1 };
        let over = Over { id, records: vec![5], shards, is_promised: true };
        let found = [(false, 0), (false, 1), (false, 2), (false, 3), (true, 0), (true, 2)];
        let presence = found.map(|found| over.presence(found));
        assert_eq!(presence[0], Presence::Nowhere);
        assert_eq!(presence[1..3], [Presence::Half; 2]);
        assert_eq!(presence[3..], [Presence::Whole; 3]);
    }
}
