//! Appending without a payload in one piece: gathered from several, or written in place.

use super::{Store, append::explain};
use crate::{error::AppendError, router::Route, ticket::Ticket};
use bytes::{Bytes, BytesMut};
use corelog_shards::{
    format::record::{RecordFlags, RecordKind},
    ring::reservation::Reservation as Reserved,
    shard::{Shard, ShardRefusal},
};
use std::io::IoSlice;

impl Store {
    /// Appends one record whose payload is `pieces`, one behind the other. As [`Store::append_to`] in everything
    /// else; the pieces are copied straight into the shard's buffer.
    pub fn append_vectored(&self, route: Route, pieces: &[IoSlice<'_>]) -> Result<Ticket<'_>, AppendError> {
        let shard = self.shard_or_error(self.route(route))?;
        if self.is_routed() {
            return self.append_routed(shard, joined(pieces));
        }
        let placed = match shard.try_append_vectored(pieces) {
            Ok(placed) => placed,
            Err(ShardRefusal::Full) => {
                self.when_there_is_room(shard, total(pieces), || shard.try_append_vectored(pieces))?
            }
            Err(refusal) => return Err(explain(shard.id(), refusal, total(pieces))),
        };
        Ok(Ticket::new(self, shard, placed))
    }

    /// As [`Store::append_vectored`], but never waits for room, as [`Store::try_append`].
    pub fn try_append_vectored(
        &self,
        route: Route,
        pieces: &[IoSlice<'_>],
    ) -> Result<Ticket<'_>, AppendError> {
        let shard = self.shard_or_error(self.route(route))?;
        if self.is_routed() {
            return self.try_append_routed(shard, joined(pieces)).map_err(|refused| refused.error);
        }
        match shard.try_append_vectored(pieces) {
            Ok(placed) => Ok(Ticket::new(self, shard, placed)),
            Err(refusal) => Err(explain(shard.id(), refusal, total(pieces))),
        }
    }

    /// As [`Store::append_vectored`], as a future for any executor: it waits for room without blocking its thread.
    pub async fn append_vectored_async(
        &self,
        route: Route,
        pieces: &[IoSlice<'_>],
    ) -> Result<Ticket<'_>, AppendError> {
        let id = self.route(route);
        let shard = self.shard_or_error(id)?;
        if self.is_routed_to(id) {
            return self.append_routed_async(shard, joined(pieces)).await;
        }
        let attempt = || shard.try_append_vectored(pieces);
        let placed = self.once_there_is_room(shard, total(pieces), attempt).await?;
        Ok(Ticket::new(self, shard, placed))
    }

    /// Claims room for a record of `length` bytes in the shard that `route` leads to, to be written in place, and
    /// waits for room as [`Store::append_to`] does. Always on the direct path.
    ///
    /// While the reservation lives, its frame cannot be flushed: closing the store, and whoever waits for a record of
    /// the same frame, wait for it until their time is over. Dropping it leaves a void record.
    pub fn reserve(&self, route: Route, length: usize) -> Result<Reservation<'_>, AppendError> {
        let shard = self.shard_or_error(self.route(route))?;
        let reservation = self.when_there_is_room(shard, length, || shard.try_reserve(length))?;
        Ok(Reservation { store: self, shard, reservation })
    }

    /// As [`Store::reserve`], but never waits: a full ring is [`AppendError::Full`].
    pub fn try_reserve(&self, route: Route, length: usize) -> Result<Reservation<'_>, AppendError> {
        let shard = self.shard_or_error(self.route(route))?;
        match shard.try_reserve(length) {
            Ok(reservation) => Ok(Reservation { store: self, shard, reservation }),
            Err(refusal) => Err(explain(shard.id(), refusal, length)),
        }
    }

    /// As [`Store::reserve`], as a future for any executor.
    pub async fn reserve_async(&self, route: Route, length: usize) -> Result<Reservation<'_>, AppendError> {
        let shard = self.shard_or_error(self.route(route))?;
        let reservation = self.once_there_is_room(shard, length, || shard.try_reserve(length)).await?;
        Ok(Reservation { store: self, shard, reservation })
    }
}

fn total(pieces: &[IoSlice<'_>]) -> usize {
    pieces.iter().map(|piece| piece.len()).fold(0, usize::saturating_add)
}

fn joined(pieces: &[IoSlice<'_>]) -> Bytes {
    let mut payload = BytesMut::with_capacity(total(pieces));
    pieces.iter().for_each(|piece| payload.extend_from_slice(piece));
    payload.freeze()
}

/// A record that is being written in place.
#[derive(Debug)]
#[must_use = "a dropped reservation is a void record"]
pub struct Reservation<'store> {
    store: &'store Store,
    shard: &'store Shard,
    reservation: Reserved<'store>,
}

impl<'store> Reservation<'store> {
    /// The payload's bytes, exactly as many as were reserved; they hold whatever an earlier record left there.
    #[must_use]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        self.reservation.payload_mut()
    }

    /// Bytes of the payload.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.reservation.len()
    }

    /// True for a record without payload.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.reservation.is_empty()
    }

    /// Ends the reservation: from now on the record is accepted.
    pub fn commit(self) -> Ticket<'store> {
        let placed = self.reservation.commit(RecordKind::DATA, RecordFlags::NONE);
        Ticket::new(self.store, self.shard, placed)
    }

    /// As [`Reservation::commit`], with a record of only the first `length` bytes. The room behind them is wasted.
    ///
    /// # Panics
    /// If `length` is more than was reserved; the record is void then.
    pub fn commit_shorter(self, length: usize) -> Ticket<'store> {
        let placed = self.reservation.commit_shorter(length, RecordKind::DATA, RecordFlags::NONE);
        Ticket::new(self.store, self.shard, placed)
    }
}
