//! Large records: bytes that come in a stream and become one record.

use super::{Store, append::explain};
use crate::{error::AppendError, router::Route, ticket::Ticket};
use corelog_shards::{
    manifest::{LargeWriter as Writer, large_bytes_max},
    shard::{Shard, ShardRefusal},
};
use std::io;

impl Store {
    /// Begins a large record in the shard that `route` leads to. Nobody else is held up while it is written.
    pub fn append_large(&self, route: Route) -> Result<LargeWriter<'_>, AppendError> {
        let shard = self.shard_or_error(self.route(route))?;
        Ok(LargeWriter { store: self, shard, writer: Writer::new(self.large_bytes_max()) })
    }

    /// Longest large record, in bytes: 1 GiB, or a quarter of the store if that is less.
    #[must_use]
    pub fn large_bytes_max(&self) -> u64 {
        let directory = self.directory();
        let extents = directory.layout.extents();
        large_bytes_max(u64::from(extents) * directory.layout.geometry().extent_bytes())
    }
}

/// A large record that is being written, as an [`io::Write`]. It is in the log once [`LargeWriter::finish`] has said so,
/// and then as a whole; dropping it before gives it up.
///
/// Memory: about half a buffer, and a list of up to 64 KiB a level, whatever the length.
#[derive(Debug)]
#[must_use = "a large record that is not finished is given up"]
pub struct LargeWriter<'store> {
    store: &'store Store,
    shard: &'store Shard,
    writer: Writer,
}

impl<'store> LargeWriter<'store> {
    /// Bytes that were taken.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.writer.bytes()
    }

    /// Takes all of `bytes`, and waits for room as [`Store::append_to`] does. After an error [`LargeWriter::bytes`]
    /// says how many were taken in all.
    pub fn append(&mut self, mut bytes: &[u8]) -> Result<(), AppendError> {
        while !bytes.is_empty() {
            let taken = self.append_some(bytes)?;
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    fn append_some(&mut self, bytes: &[u8]) -> Result<usize, AppendError> {
        let (shard, writer) = (self.shard, &mut self.writer);
        let taken = match writer.try_write(shard, bytes) {
            Ok(taken) => return Ok(taken),
            Err(ShardRefusal::Full) => {
                self.store.when_there_is_room(shard, 0, || writer.try_write(shard, bytes))
            }
            Err(refusal) => Err(explain(shard.id(), refusal, 0)),
        };
        taken.map_err(of_large)
    }

    /// As [`LargeWriter::append`], as a future for any executor. If it is dropped, a part of `bytes` may have been
    /// taken.
    pub async fn append_async(&mut self, mut bytes: &[u8]) -> Result<(), AppendError> {
        let (shard, writer) = (self.shard, &mut self.writer);
        while !bytes.is_empty() {
            let attempt = || writer.try_write(shard, bytes);
            let taken = self.store.once_there_is_room(shard, 0, attempt).await.map_err(of_large)?;
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// Makes it a record, whose address is the ticket's; [`Store::open_large`] reads it. After an error nothing of it
    /// is in the log.
    pub fn finish(mut self) -> Result<Ticket<'store>, AppendError> {
        let (shard, writer) = (self.shard, &mut self.writer);
        let placed = self.store.when_there_is_room(shard, 0, || writer.try_finish(shard))?;
        Ok(Ticket::new(self.store, shard, placed))
    }

    /// As [`LargeWriter::finish`], as a future for any executor.
    pub async fn finish_async(mut self) -> Result<Ticket<'store>, AppendError> {
        let (shard, writer) = (self.shard, &mut self.writer);
        let placed = self.store.once_there_is_room(shard, 0, || writer.try_finish(shard)).await?;
        Ok(Ticket::new(self.store, shard, placed))
    }
}

/// What is too large here is not one record of a buffer.
fn of_large(error: AppendError) -> AppendError {
    match error {
        AppendError::TooLarge { max, .. } => AppendError::LargeTooLong { max },
        other => other,
    }
}

impl io::Write for LargeWriter<'_> {
    /// An error holds the [`AppendError`].
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append_some(bytes).map_err(|error| match error {
            full @ AppendError::StoreFull { .. } => io::Error::new(io::ErrorKind::StorageFull, full),
            other => io::Error::other(other),
        })
    }

    /// Does nothing: before it is finished, nothing of it counts.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
