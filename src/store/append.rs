//! Appending: direct into the shard's ring. By mail to the shard's core: see `routed`.

use super::{Store, block::Sleeper};
use crate::{
    error::{AppendError, Refused},
    router::Route,
    ticket::Ticket,
};
use bytes::Bytes;
use corelog_shards::{
    format::record::{RecordFlags, RecordKind},
    ids::ShardId,
    ring::reservation::Reservation,
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
            return self.append_routed(shard, payload);
        }
        match shard.try_append(payload) {
            Ok(placed) => Ok(Ticket::new(self, shard, placed)),
            Err(ShardRefusal::Full) => self.append_when_there_is_room(shard, payload),
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
            return self.append_routed_async(shard, payload).await;
        }
        loop {
            let seen = shard.room().changes();
            match shard.try_append(payload) {
                Ok(placed) => return Ok(Ticket::new(self, shard, placed)),
                Err(ShardRefusal::Full) => Room::new(shard, seen).await,
                Err(refusal) => return Err(explain(id, refusal, payload.len())),
            }
        }
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

    /// Claims room for a record of `length` bytes in the shard that `route` leads to, to be written in place. Never
    /// waits. While the reservation lives, its frame cannot be flushed; dropping it leaves a void record.
    pub fn try_reserve(&self, route: Route, length: usize) -> Result<Filling<'_>, AppendError> {
        let id = self.route(route);
        let shard = self.shard_or_error(id)?;
        match shard.try_reserve(length) {
            Ok(reservation) => Ok(Filling { store: self, shard, reservation }),
            Err(refusal) => Err(explain(id, refusal, length)),
        }
    }

    fn shard_or_error(&self, shard: ShardId) -> Result<&Arc<Shard>, AppendError> {
        let last = (self.shards().len() as u16).saturating_sub(1);
        self.shard(shard).ok_or(AppendError::NoSuchShard { shard, last })
    }

    #[cold]
    fn append_when_there_is_room<'s>(
        &'s self,
        shard: &'s Shard,
        payload: &[u8],
    ) -> Result<Ticket<'s>, AppendError> {
        let id = shard.id();
        if self.driven_core().is_some() {
            return Err(AppendError::OnCoreThread { shard: id });
        }
        let limit = self.stall();
        loop {
            let seen = shard.room().changes();
            match shard.try_append(payload) {
                Ok(placed) => return Ok(Ticket::new(self, shard, placed)),
                Err(ShardRefusal::Full) => {}
                Err(refusal) => return Err(explain(id, refusal, payload.len())),
            }
            if Sleeper::wait(&mut Room::new(shard, seen), limit).is_none() {
                return Err(AppendError::Stalled { shard: id, waited: limit.unwrap_or_default() });
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
        ShardRefusal::Failed(failure) => AppendError::Failed(*failure),
    }
}

/// A record that is being written in place.
#[derive(Debug)]
#[must_use = "a dropped reservation is a void record"]
pub struct Filling<'store> {
    store: &'store Store,
    shard: &'store Shard,
    reservation: Reservation<'store>,
}

impl<'store> Filling<'store> {
    /// The payload's bytes; they hold whatever an earlier record left there.
    #[must_use]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        self.reservation.payload_mut()
    }

    /// Ends the reservation: from now on the record is accepted.
    pub fn commit(self) -> Ticket<'store> {
        let placed = self.reservation.commit(RecordKind::DATA, RecordFlags::NONE);
        Ticket::new(self.store, self.shard, placed)
    }
}
