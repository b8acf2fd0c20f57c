//! Clients that write what is more than one record: batches, and records in parts.

use super::{Client, Doing, Scene};
use crate::{
    manifest::{BatchWriter, CommittedBatch, LargeWriter},
    ring::reservation::Placed,
    shard::{Shard, ShardRefusal},
    sim::{
        oracle::Oracle,
        payload::{ID_BYTES, fill},
    },
};

/// A batch on its way.
pub(super) struct Batching<'life> {
    shard: &'life Shard,
    writer: BatchWriter,
    ids: Vec<u64>,
    left: u64,
}

impl Batching<'_> {
    pub(super) fn describe(&self) -> String {
        format!("room for a batch of {} and {} records in {:?}", self.ids.len(), self.left, self.shard.id())
    }
}

/// A large record on its way.
pub(super) struct Streaming<'life> {
    shard: &'life Shard,
    writer: LargeWriter,
    id: u64,
    payload: Vec<u8>,
    at: usize,
}

impl Streaming<'_> {
    pub(super) fn describe(&self) -> String {
        format!("room for the large record {} in {:?}, from {} on", self.id, self.shard.id(), self.at)
    }
}

impl<'life> Client<'life> {
    pub(super) fn begin_batch(
        &mut self,
        shard: &'life Shard,
        scene: &Scene<'life>,
        oracle: &mut Oracle,
    ) -> Result<(), String> {
        let left = self.random.pick(&[0, 1, 3, 8, 20, 60]);
        let batch = Batching { shard, writer: BatchWriter::new(), ids: Vec::new(), left };
        self.batch(Box::new(batch), scene, oracle)
    }

    /// Some records, or the end of the batch.
    pub(super) fn batch(
        &mut self,
        mut batch: Box<Batching<'life>>,
        scene: &Scene<'life>,
        oracle: &mut Oracle,
    ) -> Result<(), String> {
        let seen = batch.shard.room().changes();
        let refusal = if batch.left > 0 {
            let some = batch.left.min(1 + self.random.below(8));
            (0..some).find_map(|_| self.batch_one(&mut batch, scene, oracle).err())
        } else if self.random.one_in(6) {
            // Given up.
            return Ok(());
        } else {
            match batch.writer.try_commit(batch.shard) {
                Ok(committed) => return self.committed(&batch, committed, oracle),
                Err(refusal) => Some(refusal),
            }
        };
        match refusal {
            None => self.doing = Doing::Batch(batch),
            Some(ShardRefusal::Full) => {
                self.sleeps = !batch.shard.room().register(seen, &self.waker);
                self.doing = Doing::Batch(batch);
            }
            Some(ShardRefusal::TooLarge { max }) => {
                return Err(format!("a record of a batch is too large for {max}"));
            }
            Some(
                ShardRefusal::StoreFull
                | ShardRefusal::Closed
                | ShardRefusal::Retired
                | ShardRefusal::Failed(_),
            ) => {}
        }
        Ok(())
    }

    /// One that fills a buffer would keep the extent from being cleaned.
    pub(super) fn length_in_batch(&mut self, scene: &Scene<'life>, oracle: &Oracle) -> usize {
        let length = self.length(scene);
        let is_short = oracle.index.is_some() && !self.random.one_in(32);
        if is_short { length.min(scene.buffer_bytes as usize / 4) } else { length }
    }

    fn batch_one(
        &mut self,
        batch: &mut Batching<'life>,
        scene: &Scene<'life>,
        oracle: &mut Oracle,
    ) -> Result<(), ShardRefusal> {
        let length = self.length_in_batch(scene, oracle);
        let id = oracle.issue_hidden(batch.shard.id(), length, false);
        let mut payload = vec![0; length];
        fill(id, &mut payload);
        batch.writer.try_append(batch.shard, &payload)?;
        batch.ids.push(id);
        batch.left -= 1;
        Ok(())
    }

    fn committed(
        &mut self,
        batch: &Batching<'life>,
        committed: CommittedBatch,
        oracle: &mut Oracle,
    ) -> Result<(), String> {
        let CommittedBatch { placed, records, addresses } = committed;
        let addresses = addresses.unwrap_or_default();
        if records != batch.ids.len() as u64 || addresses.len() != batch.ids.len() {
            let (ids, places) = (batch.ids.len(), addresses.len());
            return Err(format!("P3: a batch of {ids} has {records} records in {places} places"));
        }
        let Some(Placed { frame, .. }) = placed else { return Ok(()) };
        for (id, address) in batch.ids.iter().zip(addresses) {
            oracle.accepted(*id, Placed { address, frame })?;
            self.accepted(batch.shard, *id, frame, address);
        }
        Ok(())
    }

    pub(super) fn begin_large(
        &mut self,
        shard: &'life Shard,
        scene: &Scene<'life>,
        oracle: &mut Oracle,
    ) -> Result<(), String> {
        let most = self.random.pick(&[100, scene.buffer_bytes, 5 * scene.buffer_bytes]);
        let length = ID_BYTES + self.random.below(most) as usize;
        let id = oracle.issue_hidden(shard.id(), length, true);
        let mut payload = vec![0; length];
        fill(id, &mut payload);
        let writer = LargeWriter::new(length as u64);
        self.large(Box::new(Streaming { shard, writer, id, payload, at: 0 }), oracle)
    }

    /// Some bytes, or the end of the record.
    pub(super) fn large(
        &mut self,
        mut large: Box<Streaming<'life>>,
        oracle: &mut Oracle,
    ) -> Result<(), String> {
        let seen = large.shard.room().changes();
        let rest = &large.payload[large.at..];
        let tried = if rest.is_empty() {
            if self.random.one_in(6) {
                // Given up.
                return Ok(());
            }
            match large.writer.try_finish(large.shard) {
                Ok(placed) => {
                    if let Some(index) = &oracle.index {
                        index.learn_pieces(large.id, large.writer.pieces(placed.address));
                    }
                    oracle.accepted(large.id, placed)?;
                    self.accepted(large.shard, large.id, placed.frame, placed.address);
                    return Ok(());
                }
                Err(refusal) => Err(refusal),
            }
        } else {
            let piece = 1 + self.random.index(rest.len());
            large.writer.try_write(large.shard, &rest[..piece])
        };
        match tried {
            Ok(taken) => {
                large.at += taken;
                self.doing = Doing::Large(large);
            }
            Err(ShardRefusal::Full) => {
                self.sleeps = !large.shard.room().register(seen, &self.waker);
                self.doing = Doing::Large(large);
            }
            Err(ShardRefusal::TooLarge { max }) => {
                return Err(format!(
                    "a large record of {} bytes is too large for {max}",
                    large.payload.len()
                ));
            }
            Err(
                ShardRefusal::StoreFull
                | ShardRefusal::Closed
                | ShardRefusal::Retired
                | ShardRefusal::Failed(_),
            ) => {}
        }
        Ok(())
    }
}
