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
            let (is_decided, resolved) = found(over, report);
            let is_whole = is_decided || resolved == over.shards.len();
            if resolved > 0 && !is_whole {
                return Err(format!("O1: batch {:?} is in {resolved} of {:?}", over.id, over.shards));
            }
            if over.is_promised && !is_whole {
                return Err(format!("O2: batch {:?} was decided durably, and is not there", over.id));
            }
            for shard in &over.shards {
                let own = over.records.iter().map(|id| &self.records[*id as usize]);
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
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.overs).into_iter().partition(|over| {
            let (is_decided, resolved) = found(over, report);
            is_decided || resolved > 0
        });
        for (over, fate) in
            kept.iter().map(|over| (over, Fate::Decided)).chain(gone.iter().map(|over| (over, Fate::Gone)))
        {
            for id in &over.records {
                let record = &mut self.records[*id as usize];
                // What was placed and not cut off stays where it is.
                if !matches!(record.fate, Fate::Placed(_)) {
                    record.fate = fate;
                }
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
