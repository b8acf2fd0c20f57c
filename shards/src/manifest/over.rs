//! Writing a batch over several shards, step by step: see [`crate::over`].

use super::batch::BatchWriter;
use crate::{
    address::Address,
    directory::Directory,
    format::{
        control::{BatchId, Control},
        record::{RecordFlags, RecordKind},
    },
    ids::{FrameNumber, ShardId},
    limits::OVER_SHARDS_MAX,
    mutant::{self, Mutant},
    over::OverTable,
    ring::reservation::Placed,
    shard::{Shard, ShardRefusal},
    watermark::Durability,
};
use std::sync::Arc;

/// A batch over several shards that is being written. Dropping it gives it up, unless it was decided already: then it
/// counts, and the next open writes what is missing.
#[derive(Debug)]
pub struct OverBatch {
    table: Arc<OverTable>,
    parts: Vec<Part>,
    decision: Option<(BatchId, Placed)>,
    is_done: bool,
}

#[derive(Debug)]
struct Part {
    shard: ShardId,
    writer: BatchWriter,
    prepared: Option<Placed>,
    resolved: Option<Placed>,
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum OverStep {
    /// This frame has to be durable before the next.
    Durable(ShardId, FrameNumber),
    /// All shards have it.
    Done,
}

/// What a shard has of a batch that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverPart {
    /// The shard.
    pub shard: ShardId,
    /// Where a scan of it meets the records, and the frame to wait for.
    pub placed: Placed,
    /// Its records.
    pub records: u64,
    /// Where they are; `None` if there are too many to tell.
    pub addresses: Option<Vec<Address>>,
}

impl OverBatch {
    /// An empty batch. `None`: too many are under way.
    #[must_use]
    pub fn new(directory: &Directory) -> Option<Self> {
        let table = Arc::clone(&directory.over);
        table.begin(durable(directory)).then(|| Self {
            table,
            parts: Vec::new(),
            decision: None,
            is_done: false,
        })
    }

    /// Which it is, once it counts.
    #[must_use]
    pub fn id(&self) -> Option<BatchId> {
        Some(self.decision?.0)
    }

    /// True once it counts, whatever becomes of this.
    #[must_use]
    pub const fn is_decided(&self) -> bool {
        self.decision.is_some()
    }

    /// The frame of the decision, in the first shard.
    #[must_use]
    pub fn decision(&self) -> Option<(ShardId, FrameNumber)> {
        Some((self.parts.first()?.shard, self.decision?.1.frame))
    }

    /// Adds a record. After a refusal nothing of it was taken; [`ShardRefusal::Full`] can be tried again.
    /// `Ok(false)`: the batch has as many shards as it can.
    pub fn try_append(&mut self, shard: &Shard, payload: &[u8]) -> Result<bool, ShardRefusal> {
        let known = self.parts.iter().position(|part| part.shard == shard.id());
        let index = match known {
            Some(index) => index,
            None if self.parts.len() >= OVER_SHARDS_MAX => return Ok(false),
            None => {
                let writer = BatchWriter::new();
                self.parts.push(Part { shard: shard.id(), writer, prepared: None, resolved: None });
                self.parts.len() - 1
            }
        };
        self.parts[index].writer.try_append(shard, payload)?;
        Ok(true)
    }

    /// Goes on with the commit as far as it can. After [`ShardRefusal::Full`] it can be tried again.
    pub fn try_commit(&mut self, directory: &Directory) -> Result<OverStep, (ShardId, ShardRefusal)> {
        let shard = |id: ShardId| directory.shard(id).ok_or((id, ShardRefusal::Closed));
        self.parts.retain(|part| part.writer.records() > 0);
        for part in &mut self.parts {
            if part.prepared.is_none() {
                let prepared = part.writer.try_prepare(shard(part.shard)?);
                part.prepared = Some(prepared.map_err(|refusal| (part.shard, refusal))?);
            }
        }
        for part in &self.parts {
            if let Some(step) = wait_for(shard(part.shard)?, part.prepared) {
                return Ok(step);
            }
        }
        let Some(first) = self.parts.first() else {
            self.is_done = true;
            self.table.give_up();
            return Ok(OverStep::Done);
        };
        let first = shard(first.shard)?;
        let (id, decision) = match self.decision {
            Some(decided) => decided,
            None => self.decide(directory, first).map_err(|why| (first.id(), why))?,
        };
        self.decision = Some((id, decision));
        let is_hasty = mutant::is_active(Mutant::DecisionNotDurable);
        if let Some(step) = wait_for(first, Some(decision)).filter(|_| !is_hasty) {
            return Ok(step);
        }
        for part in &mut self.parts {
            if part.resolved.is_none() {
                let note = Control::Resolved { id, settled: self.table.settled(durable(directory)) };
                let (shard, note) = (shard(part.shard)?, note.encode());
                let append = || part.writer.try_resolve(shard, &note);
                let resolved = self.table.resolve(id, part.shard, append);
                let placed = resolved.map_err(|refusal| (part.shard, refusal))?;
                // So that it is over, and can be forgotten, although nobody else waits.
                shard.request(placed.frame, Durability::Durable);
                part.resolved = Some(placed);
            }
        }
        self.is_done = true;
        Ok(OverStep::Done)
    }

    fn decide(&self, directory: &Directory, first: &Shard) -> Result<(BatchId, Placed), ShardRefusal> {
        let parts = self.parts.iter().filter_map(|part| Some((part.shard, part.prepared?.address)));
        let parts: Vec<_> = parts.collect();
        let mut reservation = first.try_reserve(Control::decided_bytes(parts.len()))?;
        // Before it can be durable: from here on nothing gives the batch up.
        let id = self.table.decide(self.parts.iter().map(|part| (part.shard, part.writer.root())));
        let settled = self.table.settled(durable(directory));
        reservation.payload_mut().copy_from_slice(&Control::Decided { id, settled, parts }.encode());
        Ok((id, reservation.commit(RecordKind::CONTROL, RecordFlags::NONE)))
    }

    /// What each shard has, once it is done.
    #[must_use]
    pub fn take_parts(&mut self) -> Vec<OverPart> {
        let parts = self.parts.drain(..).filter_map(|mut part| {
            let (records, addresses) = (part.writer.records(), part.writer.take_addresses());
            Some(OverPart { shard: part.shard, placed: part.resolved?, records, addresses })
        });
        parts.collect()
    }
}

impl Drop for OverBatch {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        if self.decision.is_none() {
            return self.table.give_up();
        }
        // The next open needs what was written, so nobody may trim it: the writers keep their pins for good.
        self.parts.drain(..).for_each(|part| std::mem::forget(part.writer));
    }
}

fn durable(directory: &Directory) -> impl Fn(ShardId) -> FrameNumber + '_ {
    |shard| directory.shard(shard).map_or(FrameNumber(0), |shard| shard.watermarks().durable)
}

/// `None`: the frame is durable.
fn wait_for(shard: &Shard, placed: Option<Placed>) -> Option<OverStep> {
    let frame = placed?.frame;
    let is_durable = shard.mark(Durability::Durable).is_none_or(|mark| mark.has(frame));
    (!is_durable).then_some(OverStep::Durable(shard.id(), frame))
}
