//! Clients that write batches over several shards.

use super::{Client, Doing, Scene};
use crate::{
    ids::ShardId,
    manifest::{OverBatch, OverPart, OverStep},
    ring::reservation::Placed,
    shard::ShardRefusal,
    sim::{oracle::Oracle, over::Over, payload::fill},
    watermark::Durability,
};

/// A batch over several shards on its way.
pub(super) struct Spreading {
    batch: OverBatch,
    /// Its records, and their shards.
    ids: Vec<(u64, ShardId)>,
    left: u64,
    is_decided: bool,
}

impl Spreading {
    pub(super) fn describe(&self) -> String {
        format!(
            "a batch of {} and {} records over several shards ({:?})",
            self.ids.len(),
            self.left,
            self.batch.id()
        )
    }
}

impl<'life> Client<'life> {
    pub(super) fn begin_over(&mut self, scene: &Scene<'life>, oracle: &mut Oracle) -> Result<(), String> {
        let Some(batch) = OverBatch::new(scene.directory) else { return Ok(()) };
        let left = self.random.pick(&[0, 1, 2, 5, 12, 30]);
        let over = Spreading { batch, ids: Vec::new(), left, is_decided: false };
        self.over(Box::new(over), scene, oracle)
    }

    /// Some records, or a step of the commit.
    pub(super) fn over(
        &mut self,
        mut over: Box<Spreading>,
        scene: &Scene<'life>,
        oracle: &mut Oracle,
    ) -> Result<(), String> {
        if over.left > 0 {
            return self.over_append(over, scene, oracle);
        }
        if !over.batch.is_decided() && self.random.one_in(16) {
            // Given up.
            return Ok(());
        }
        let seen: Vec<_> = scene.directory.shards.iter().map(|shard| shard.room().changes()).collect();
        let step = over.batch.try_commit(scene.directory);
        if let Some(id) = over.batch.id().filter(|_| !over.is_decided) {
            over.is_decided = true;
            let mut shards: Vec<_> = over.ids.iter().map(|(_, shard)| *shard).collect();
            shards.sort_unstable();
            shards.dedup();
            let records = over.ids.iter().map(|(id, _)| *id).collect();
            oracle.may_be_decided(Over { id, records, shards, is_promised: false });
        }
        if let (Some(id), Some((first, frame))) = (over.batch.id(), over.batch.decision())
            && scene.directory.shard(first).is_some_and(|it| it.watermarks().durable > frame)
        {
            oracle.is_decided(id);
        }
        match step {
            Ok(OverStep::Done) => return self.over_done(&mut over, scene, oracle),
            Ok(OverStep::Durable(shard, frame)) => {
                let Some(shard) = scene.directory.shard(shard) else { return Ok(()) };
                let Some(mark) = shard.mark(Durability::Durable) else { return Ok(()) };
                if !mark.register(frame, &self.waker) {
                    shard.request(frame, Durability::Durable);
                    if shard.failure().is_some() {
                        return Ok(());
                    }
                    self.sleeps = true;
                }
            }
            Err((shard, ShardRefusal::Full)) => {
                let Some(shard) = scene.directory.shard(shard) else { return Ok(()) };
                self.sleeps = !shard.room().register(seen[usize::from(shard.id().0)], &self.waker);
            }
            Err((_, ShardRefusal::TooLarge { max })) => return Err(format!("a list is too large for {max}")),
            Err((
                _,
                ShardRefusal::StoreFull
                | ShardRefusal::Closed
                | ShardRefusal::Retired
                | ShardRefusal::Failed(_),
            )) => {
                return Ok(());
            }
        }
        self.doing = Doing::Over(over);
        Ok(())
    }

    fn over_append(
        &mut self,
        mut over: Box<Spreading>,
        scene: &Scene<'life>,
        oracle: &mut Oracle,
    ) -> Result<(), String> {
        let shard = scene.pick(&mut self.random);
        let seen = shard.room().changes();
        let length = self.length_in_batch(scene, oracle);
        let id = oracle.issue_hidden(shard.id(), length, false);
        let mut payload = vec![0; length];
        fill(id, &mut payload);
        match over.batch.try_append(shard, &payload) {
            Ok(_) => {
                over.ids.push((id, shard.id()));
                over.left -= 1;
            }
            Err(ShardRefusal::Full) => self.sleeps = !shard.room().register(seen, &self.waker),
            Err(ShardRefusal::TooLarge { max }) => {
                return Err(format!("a record of a batch is too large for {max}"));
            }
            Err(
                ShardRefusal::StoreFull
                | ShardRefusal::Closed
                | ShardRefusal::Retired
                | ShardRefusal::Failed(_),
            ) => return Ok(()),
        }
        self.doing = Doing::Over(over);
        Ok(())
    }

    fn over_done(
        &mut self,
        over: &mut Spreading,
        scene: &Scene<'life>,
        oracle: &mut Oracle,
    ) -> Result<(), String> {
        let mut told = 0;
        for OverPart { shard, placed, records, addresses } in over.batch.take_parts() {
            let own: Vec<u64> = over.ids.iter().filter(|(_, of)| *of == shard).map(|(id, _)| *id).collect();
            let addresses = addresses.unwrap_or_default();
            if own.len() != addresses.len() || own.len() as u64 != records {
                let (ids, places) = (own.len(), addresses.len());
                return Err(format!(
                    "P3: {ids} records in {shard:?} have {places} places, and are {records}"
                ));
            }
            told += own.len();
            for (id, address) in own.into_iter().zip(addresses) {
                oracle.placed(id, Placed { address, frame: placed.frame })?;
                if let Some(shard) = scene.directory.shard(shard) {
                    self.accepted(shard, id, placed.frame, address);
                }
            }
        }
        if told == over.ids.len() {
            Ok(())
        } else {
            Err(format!("P3: {told} of {:?} have a place", over.ids))
        }
    }
}
