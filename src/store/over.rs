//! Batches over several shards: in all their shards, or in none.

use super::{Store, append::explain, block::Pause};
use crate::{
    error::AppendError,
    router::Route,
    ticket::{Reached, Ticket},
};
use corelog_shards::{
    address::Address,
    ids::ShardId,
    limits::{OVER_BATCHES_MAX, OVER_SHARDS_MAX},
    manifest::{OverBatch as Writer, OverPart, OverStep},
    shard::ShardRefusal,
    watermark::Durability,
};

impl Store {
    /// Begins a batch whose records may go to several shards. Nothing is written yet. At most 64 are under way at a time.
    pub fn batch_over(&self) -> Result<OverBatch<'_>, AppendError> {
        let writer = Writer::new(self.directory());
        let writer = writer.ok_or(AppendError::TooManyBatches { max: OVER_BATCHES_MAX })?;
        Ok(OverBatch { store: self, writer })
    }
}

/// Records of up to 64 shards that will be in their logs all together or not at all, also after a crash.
///
/// Committing one costs two waits for durability: for what is in each shard, and for the decision in the first. Then
/// each shard gets its share of the records, where its scans give them; if the process ends before that, the next open
/// does it. Other appends do not notice. In each shard a batch takes the memory of a [`crate::Batch`].
#[derive(Debug)]
#[must_use = "a dropped batch is given up"]
pub struct OverBatch<'store> {
    store: &'store Store,
    writer: Writer,
}

impl<'store> OverBatch<'store> {
    /// Adds a record to the share of the shard that `route` leads to, and waits for room as [`Store::append_to`] does.
    pub fn append_to(&mut self, route: Route, payload: &[u8]) -> Result<(), AppendError> {
        let shard = self.store.shard_or_error(self.store.route(route))?;
        let writer = &mut self.writer;
        let attempt = || writer.try_append(shard, payload);
        Self::taken(self.store.when_there_is_room(shard, payload.len(), attempt)?)
    }

    /// As [`OverBatch::append_to`], as a future for any executor.
    pub async fn append_to_async(&mut self, route: Route, payload: &[u8]) -> Result<(), AppendError> {
        let shard = self.store.shard_or_error(self.store.route(route))?;
        let writer = &mut self.writer;
        let attempt = || writer.try_append(shard, payload);
        Self::taken(self.store.once_there_is_room(shard, payload.len(), attempt).await?)
    }

    const fn taken(is_taken: bool) -> Result<(), AppendError> {
        if is_taken { Ok(()) } else { Err(AppendError::TooManyShards { max: OVER_SHARDS_MAX }) }
    }

    /// Makes the batch count in all its shards. After an error nothing of it is in any log, unless that is
    /// [`AppendError::Unresolved`].
    pub fn commit(mut self) -> Result<OverTicket<'store>, AppendError> {
        let store = self.store;
        if let Some(core) = store.driven_core() {
            let shard = store.directory().runs_on.iter().position(|runs_on| *runs_on == core);
            return Err(AppendError::OnCoreThread { shard: ShardId(shard.unwrap_or_default() as u16) });
        }
        let mut pause = Pause::until(store.stall());
        let waited = store.stall().unwrap_or_default();
        loop {
            match self.writer.try_commit(store.directory()) {
                Ok(OverStep::Done) => return Ok(self.ticket()),
                Ok(OverStep::Durable(id, frame)) => {
                    let shard = store.shard_or_error(id)?;
                    match shard.wait_for(frame, Durability::Durable, store.patience(store.stall())) {
                        Some(Ok(())) => pause = Pause::until(store.stall()),
                        Some(Err(failure)) => return Err(self.explain(id, AppendError::Failed(failure))),
                        None => return Err(self.explain(id, AppendError::Stalled { shard: id, waited })),
                    }
                }
                Err((_, ShardRefusal::Full)) if pause.rest() => {}
                Err((id, ShardRefusal::Full)) => {
                    return Err(self.explain(id, AppendError::Stalled { shard: id, waited }));
                }
                Err((id, refusal)) => return Err(self.explain(id, explain(id, refusal, 0))),
            }
        }
    }

    /// As [`OverBatch::commit`], as a future for any executor. Dropping it gives the batch up, unless it was decided
    /// already.
    pub async fn commit_async(mut self) -> Result<OverTicket<'store>, AppendError> {
        let store = self.store;
        loop {
            let rooms: Vec<_> = store.shards().iter().map(|shard| shard.room().changes()).collect();
            match self.writer.try_commit(store.directory()) {
                Ok(OverStep::Done) => return Ok(self.ticket()),
                Ok(OverStep::Durable(id, frame)) => {
                    let shard = store.shard_or_error(id)?;
                    let reached = Reached::of(shard, frame, Durability::Durable).await;
                    reached.map_err(|failure| self.explain(id, AppendError::Failed(failure)))?;
                }
                Err((id, ShardRefusal::Full)) => {
                    let shard = store.shard_or_error(id)?;
                    let mut seen = rooms.get(usize::from(id.0)).copied();
                    let changed = || match seen.take() {
                        Some(before) if shard.room().changes() == before => Err(ShardRefusal::Full),
                        _ => Ok(()),
                    };
                    store.once_there_is_room(shard, 0, changed).await?;
                }
                Err((id, refusal)) => return Err(self.explain(id, explain(id, refusal, 0))),
            }
        }
    }

    fn explain(&self, shard: ShardId, why: AppendError) -> AppendError {
        match self.writer.is_decided() {
            true => AppendError::Unresolved { shard, why: Box::new(why) },
            false => why,
        }
    }

    fn ticket(&mut self) -> OverTicket<'store> {
        OverTicket { store: self.store, parts: self.writer.take_parts() }
    }
}

/// A batch over several shards that was committed. It is decided durably: after a crash it is there as a whole.
#[derive(Clone, Debug)]
pub struct OverTicket<'store> {
    store: &'store Store,
    parts: Vec<OverPart>,
}

impl<'store> OverTicket<'store> {
    /// Its shards, in the order in which they got their first record.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.parts.iter().map(|part| part.shard)
    }

    /// Where the records of a shard are, in their order. `None`: it has none, or more than a million.
    #[must_use]
    pub fn addresses(&self, shard: ShardId) -> Option<&[Address]> {
        self.parts.iter().find(|part| part.shard == shard)?.addresses.as_deref()
    }

    /// A ticket for the share of a shard, whose address is where a scan meets it.
    #[must_use]
    pub fn ticket(&self, shard: ShardId) -> Option<Ticket<'store>> {
        let part = self.parts.iter().find(|part| part.shard == shard)?;
        Some(Ticket::new(self.store, self.store.shard(shard)?, part.placed))
    }
}
