//! Appends of a core: those of the thread that drives it, and those that came by mail.

use super::{Core, WaitingAppend};
use crate::{
    ids::ShardId, requests::Reply, ring::reservation::Placed, shard::ShardRefusal, shard_owner::ShardOwner,
};

impl Core {
    /// Appends a record to a shard of this core, for the thread that drives it: as [`Shard::try_append`] does, with less
    /// work for each of many small records. It is handed on in the next turn. `None`: another core runs the shard.
    ///
    /// [`Shard::try_append`]: crate::shard::Shard::try_append
    #[inline]
    pub fn append_here(&mut self, shard: ShardId, payload: &[u8]) -> Option<Result<Placed, ShardRefusal>> {
        if self.shards.get(self.appends_to)?.shared().id() != shard {
            self.appends_to = self.shards.iter().position(|owner| owner.shared().id() == shard)?;
        }
        self.shards.get_mut(self.appends_to).map(|owner| owner.append(payload))
    }

    pub(super) fn end_runs(&mut self) {
        self.shards.iter_mut().for_each(ShardOwner::end_run);
    }

    /// Appends for a sender elsewhere; gives the append back if the ring has no room now.
    pub(super) fn append(&mut self, append: WaitingAppend) -> Option<WaitingAppend> {
        let WaitingAppend { shard, payload, when_full, responder, began } = append;
        let owner = self.shards.iter().find(|owner| owner.shared().id() == shard)?;
        match owner.shared().try_append(&payload) {
            Ok(placed) => {
                owner.shared().note_wait(began);
                responder.answer(Reply::Appended(Ok(placed)));
            }
            Err(ShardRefusal::Full) => {
                return Some(WaitingAppend { shard, payload, when_full, responder, began });
            }
            Err(refusal) => responder.answer(Reply::Appended(Err((refusal, payload)))),
        }
        None
    }

    pub(super) fn clean_steps(&self, shard: ShardId) -> u64 {
        let owner = self.shards.iter().find(|owner| owner.shared().id() == shard);
        owner.map_or(0, |owner| owner.shared().clean_steps())
    }

    pub(super) fn append_waiting(&mut self) -> usize {
        let mut appended = 0;
        let mut full: Vec<ShardId> = Vec::new();
        for _ in 0..self.waiting.len() {
            let Some(append) = self.waiting.pop_front() else { break };
            if full.contains(&append.shard) {
                self.waiting.push_back(append);
                continue;
            }
            match self.append(append) {
                Some(append) => {
                    full.push(append.shard);
                    self.waiting.push_back(append);
                }
                None => appended += 1,
            }
        }
        appended
    }
}
