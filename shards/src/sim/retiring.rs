//! Whoever retires shards in the midst of a life, and has them leave the extents that hold something. That a reopen knows
//! of it is for the tests of stores to ask.

use super::random::{Random, mix};
use crate::{
    directory::{Directory, Mail},
    ids::ShardId,
    requests::{Pending, Requests},
    shard_owner::SpaceAsk,
};
use std::sync::Arc;

/// Retires a shard in some lives.
pub(super) struct Retirer {
    random: Random,
    is_due: bool,
    retired: Option<ShardId>,
    /// The answer may come, or not.
    left: Option<Pending>,
}

impl Retirer {
    /// By a generator of its own, so that the other lives are what they were.
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(mix(seed ^ 0x7265_7469));
        let is_due = random.one_in(8);
        Self { random, is_due, retired: None, left: None }
    }

    pub(super) const fn can_step(&self) -> bool {
        self.is_due
    }

    pub(super) fn step(&mut self, directory: &Directory, requests: &Arc<Requests>) {
        if !self.random.one_in(20) {
            return;
        }
        let Some(shard) = self.retired else {
            let shards: Vec<_> = directory.shards.iter().filter(|it| it.cold_of().is_none()).collect();
            let shard = shards[self.random.index(shards.len())];
            shard.retire();
            self.retired = Some(shard.id());
            return;
        };
        self.is_due = false;
        let (Some(core), Some((pending, responder))) = (directory.core_of(shard), requests.open()) else {
            return;
        };
        // A core that is dead, or has no room for it, leaves the shard where it is.
        let _refused = core.send(Mail::Space { shard, ask: SpaceAsk::Leave(None), responder });
        self.left = Some(pending);
    }
}
