//! Appending: direct into the shard's ring. By mail to the shard's core: see `routed`.

use super::{Store, block::Sleeper};
use crate::{
    error::{AppendError, Refused},
    router::Route,
    ticket::Ticket,
};
use bytes::Bytes;
use corelog_shards::{
    ids::ShardId,
    shard::{Shard, ShardRefusal},
    waiting::Room,
};
use std::{future::Future, sync::Arc};

impl Store {
    /// Appends to the local shard, waiting for room if there is none; see [`Store::append_to`].
    #[inline]
    pub fn append(&self, payload: &[u8]) -> Result<Ticket<'_>, AppendError> {
        self.append_to(Route::Local, payload)
    }

    /// Appends `payload` as one record to the shard that `route` leads to, and returns as soon as it is in the
    /// shard's buffer (or, on the routed path, as soon as its core has it there). Waits while all buffers are full,
    /// for as long as the stall time of the options.
    pub fn append_to(&self, route: Route, payload: &[u8]) -> Result<Ticket<'_>, AppendError> {
        let id = self.route(route);
        let shard = self.shard_or_error(id)?;
        if self.is_routed() {
            return self.append_routed(shard, Bytes::copy_from_slice(payload));
        }
        match shard.try_append(payload) {
            Ok(placed) => Ok(Ticket::new(self, shard, placed)),
            Err(ShardRefusal::Full) => {
                let placed = self.when_there_is_room(shard, payload.len(), || shard.try_append(payload))?;
                Ok(Ticket::new(self, shard, placed))
            }
            Err(refusal) => Err(explain(id, refusal, payload.len())),
        }
    }

    /// As [`Store::append_to`], but never waits for room: a full ring or mailbox is [`AppendError::Full`], with the
    /// payload. On the routed path it waits for the answer of the shard's core, which gives it in its next turn.
    pub fn try_append<P: AsRef<[u8]>>(&self, route: Route, payload: P) -> Result<Ticket<'_>, Refused<P>> {
        let id = self.route(route);
        let refused = |error, payload| Err(Refused { error, payload });
        let shard = match self.shard_or_error(id) {
            Ok(shard) => shard,
            Err(error) => return refused(error, payload),
        };
        if self.is_routed() {
            return self.try_append_routed(shard, payload);
        }
        match shard.try_append(payload.as_ref()) {
            Ok(placed) => Ok(Ticket::new(self, shard, placed)),
            Err(refusal) => refused(explain(id, refusal, payload.as_ref().len()), payload),
        }
    }

    /// As [`Store::append_to`], as a future for any executor: it waits for room, in the ring or on the routed path in
    /// the mailbox, without blocking its thread. A future that is dropped before it is ready has appended nothing, or
    /// on the routed path the record at most once.
    pub async fn append_async(&self, route: Route, payload: &[u8]) -> Result<Ticket<'_>, AppendError> {
        let id = self.route(route);
        let shard = self.shard_or_error(id)?;
        if self.is_routed_to(id) {
            return self.append_routed_async(shard, Bytes::copy_from_slice(payload)).await;
        }
        let placed = self.once_there_is_room(shard, payload.len(), || shard.try_append(payload)).await?;
        Ok(Ticket::new(self, shard, placed))
    }

    /// Sends a payload to the shard's core by mail and resolves when the core has appended it. A full mailbox hands
    /// the payload back at once.
    pub fn send(
        &self,
        route: Route,
        payload: Bytes,
    ) -> Result<impl Future<Output = Result<Ticket<'_>, Refused>> + Unpin, Refused> {
        let id = self.route(route);
        let shard = match self.shard_or_error(id) {
            Ok(shard) => shard,
            Err(error) => return Err(Refused { error, payload }),
        };
        self.send_to(shard, payload)
    }

    pub(super) fn shard_or_error(&self, shard: ShardId) -> Result<&Arc<Shard>, AppendError> {
        let last = (self.shards().len() as u16).saturating_sub(1);
        self.shard(shard).ok_or(AppendError::NoSuchShard { shard, last })
    }

    /// Tries again whenever the ring has changed, for as long as the stall time of the options. `bytes` is what the
    /// record has, for the message.
    #[cold]
    pub(crate) fn when_there_is_room<T>(
        &self,
        shard: &Shard,
        bytes: usize,
        mut attempt: impl FnMut() -> Result<T, ShardRefusal>,
    ) -> Result<T, AppendError> {
        let id = shard.id();
        let limit = self.stall();
        let began = shard.clean_steps();
        loop {
            let seen = shard.room().changes();
            match attempt() {
                Ok(done) => {
                    shard.note_wait(began);
                    return Ok(done);
                }
                Err(ShardRefusal::Full) if self.driven_core().is_some() => {
                    return Err(AppendError::OnCoreThread { shard: id });
                }
                Err(ShardRefusal::Full) => {}
                Err(refusal) => return Err(explain(id, refusal, bytes)),
            }
            if Sleeper::wait(&mut Room::new(shard, seen), limit).is_none() {
                return Err(AppendError::Stalled { shard: id, waited: limit.unwrap_or_default() });
            }
        }
    }

    /// As [`Store::when_there_is_room`], without blocking the thread.
    pub(crate) async fn once_there_is_room<T>(
        &self,
        shard: &Shard,
        bytes: usize,
        mut attempt: impl FnMut() -> Result<T, ShardRefusal>,
    ) -> Result<T, AppendError> {
        let began = shard.clean_steps();
        loop {
            let seen = shard.room().changes();
            match attempt() {
                Ok(done) => {
                    shard.note_wait(began);
                    return Ok(done);
                }
                Err(ShardRefusal::Full) => Room::new(shard, seen).await,
                Err(refusal) => return Err(explain(shard.id(), refusal, bytes)),
            }
        }
    }
}

pub(super) fn explain(shard: ShardId, refusal: ShardRefusal, bytes: usize) -> AppendError {
    match refusal {
        ShardRefusal::TooLarge { max } => AppendError::TooLarge { bytes: bytes as u64, max },
        ShardRefusal::Full => AppendError::Full { shard },
        ShardRefusal::StoreFull => AppendError::StoreFull { shard },
        ShardRefusal::Closed => AppendError::Closed,
        ShardRefusal::Retired => AppendError::Retired { shard },
        ShardRefusal::Failed(failure) => AppendError::Failed(*failure),
    }
}
