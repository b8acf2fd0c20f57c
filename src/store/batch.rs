//! Batches: records of one shard that are in the log all together, or not at all.

use super::{Store, append::explain};
use crate::{
    error::{AppendError, WaitError},
    router::Route,
    ticket::Ticket,
};
use corelog_shards::{
    address::Address,
    ids::{FrameNumber, ShardId},
    manifest::{BatchWriter, CommittedBatch},
    shard::{Shard, ShardRefusal},
    watermark::Durability,
};
use std::time::Duration;

impl Store {
    /// Begins a batch in the shard that `route` leads to. Nothing is written yet, and nobody else is held up while it
    /// is open.
    pub fn batch(&self, route: Route) -> Result<Batch<'_>, AppendError> {
        let shard = self.shard_or_error(self.route(route))?;
        Ok(Batch { store: self, shard, writer: BatchWriter::new() })
    }
}

/// Records that will be in the log all together or not at all, whatever happens, and however many they are.
///
/// A batch that fits into one buffer lies in one frame. Of a larger one, records are written as they come; they count,
/// and are seen by scans, once [`Batch::commit`] has written the list of them. Dropping a batch gives it up; what was
/// written of it is never seen, and its space comes back as that of other dead records does.
///
/// Memory: at most one buffer, a list of up to 64 KiB a level, and 8 MiB of addresses.
#[derive(Debug)]
#[must_use = "a dropped batch is given up"]
pub struct Batch<'store> {
    store: &'store Store,
    shard: &'store Shard,
    writer: BatchWriter,
}

impl<'store> Batch<'store> {
    /// The shard that takes it.
    #[must_use]
    pub const fn shard(&self) -> ShardId {
        self.shard.id()
    }

    /// Records so far.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.writer.records()
    }

    /// Adds a record, and waits for room as [`Store::append_to`] does. After an error the record is not part of the
    /// batch, which goes on if the reason can be mended.
    pub fn append(&mut self, payload: &[u8]) -> Result<(), AppendError> {
        match self.writer.try_append(self.shard, payload) {
            Ok(()) => Ok(()),
            Err(ShardRefusal::Full) => {
                let (shard, writer) = (self.shard, &mut self.writer);
                let attempt = || writer.try_append(shard, payload);
                self.store.when_there_is_room(shard, payload.len(), attempt)
            }
            Err(refusal) => Err(explain(self.shard(), refusal, payload.len())),
        }
    }

    /// As [`Batch::append`], but never waits: a full ring is [`AppendError::Full`].
    pub fn try_append(&mut self, payload: &[u8]) -> Result<(), AppendError> {
        let id = self.shard();
        self.writer.try_append(self.shard, payload).map_err(|refusal| explain(id, refusal, payload.len()))
    }

    /// As [`Batch::append`], as a future for any executor.
    pub async fn append_async(&mut self, payload: &[u8]) -> Result<(), AppendError> {
        let (shard, writer) = (self.shard, &mut self.writer);
        self.store.once_there_is_room(shard, payload.len(), || writer.try_append(shard, payload)).await
    }

    /// Makes the batch count: its records are accepted, all of them, behind everything that the shard accepted before.
    /// After an error nothing of it is in the log.
    pub fn commit(mut self) -> Result<BatchTicket<'store>, AppendError> {
        let (shard, writer) = (self.shard, &mut self.writer);
        let committed = self.store.when_there_is_room(shard, 0, || writer.try_commit(shard))?;
        Ok(BatchTicket { store: self.store, shard, committed })
    }

    /// As [`Batch::commit`], but never waits: if the ring is full, the batch comes back with [`AppendError::Full`].
    #[expect(clippy::result_large_err, reason = "it is the batch, which is not lost")]
    pub fn try_commit(mut self) -> Result<BatchTicket<'store>, (AppendError, Self)> {
        match self.writer.try_commit(self.shard) {
            Ok(committed) => Ok(BatchTicket { store: self.store, shard: self.shard, committed }),
            Err(refusal) => Err((explain(self.shard(), refusal, 0), self)),
        }
    }

    /// As [`Batch::commit`], as a future for any executor. Dropping it gives the batch up, unless it was committed
    /// already.
    pub async fn commit_async(mut self) -> Result<BatchTicket<'store>, AppendError> {
        let (shard, writer) = (self.shard, &mut self.writer);
        let committed = self.store.once_there_is_room(shard, 0, || writer.try_commit(shard)).await?;
        Ok(BatchTicket { store: self.store, shard, committed })
    }
}

/// A batch that was committed: its records' addresses, and waiting for all of them at once.
#[derive(Clone, Debug)]
pub struct BatchTicket<'store> {
    store: &'store Store,
    shard: &'store Shard,
    committed: CommittedBatch,
}

impl<'store> BatchTicket<'store> {
    /// The shard that took it.
    #[must_use]
    pub const fn shard(&self) -> ShardId {
        self.shard.id()
    }

    /// Its records.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.committed.records
    }

    /// Where the records are, in their order. `None` if there are more than a million: a scan from
    /// [`BatchTicket::begins_at`] tells them.
    #[must_use]
    pub fn addresses(&self) -> Option<&[Address]> {
        self.committed.addresses.as_deref()
    }

    /// Where a scan ([`crate::ScanFrom::Address`]) meets the batch. `None`: it has no records.
    #[must_use]
    pub fn begins_at(&self) -> Option<Address> {
        Some(self.committed.placed?.address)
    }

    /// The frame that makes it count: all of it is safe when the shard's watermark is above this.
    #[must_use]
    pub fn frame(&self) -> Option<FrameNumber> {
        Some(self.committed.placed?.frame)
    }

    /// A ticket for all of it, whose address is [`BatchTicket::begins_at`]. `None`: there is nothing to wait for.
    #[must_use]
    pub fn ticket(&self) -> Option<Ticket<'store>> {
        Some(Ticket::new(self.store, self.shard, self.committed.placed?))
    }

    /// True if all of it is as safe as asked.
    #[must_use]
    pub fn has_reached(&self, durability: Durability) -> bool {
        self.ticket().is_none_or(|ticket| ticket.has_reached(durability))
    }

    /// Waits until all of it is as safe as asked, as [`Ticket::wait`] does.
    pub fn wait(&self, durability: Durability) -> Result<(), WaitError> {
        self.ticket().map_or(Ok(()), |ticket| ticket.wait(durability))
    }

    /// As [`BatchTicket::wait`], with a time of the caller's; `None` waits without bound.
    pub fn wait_for(&self, durability: Durability, limit: Option<Duration>) -> Result<(), WaitError> {
        self.ticket().map_or(Ok(()), |ticket| ticket.wait_for(durability, limit))
    }
}
