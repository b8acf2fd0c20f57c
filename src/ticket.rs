//! Tickets: where an appended record is, and waiting until it is safe.

use crate::{error::WaitError, store::Store};
pub use corelog_shards::waiting::Reached;
use corelog_shards::{
    address::Address,
    ids::{FrameNumber, ShardId},
    ring::reservation::Placed,
    shard::Shard,
    watermark::Durability,
};
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// What an append returns: the record's address, which is final, and the frame to wait for. It is a plain value that
/// borrows the store; [`Ticket::id`] gives one that can be kept apart from it.
#[derive(Clone, Copy)]
pub struct Ticket<'store> {
    store: &'store Store,
    shard: &'store Shard,
    placed: Placed,
}

/// A ticket without its store; [`Store::ticket`] makes a ticket of it again, until the store is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketId {
    /// Where the record is.
    pub address: Address,
    /// Its shard.
    pub shard: ShardId,
    /// The frame that carries it.
    pub frame: FrameNumber,
}

impl fmt::Debug for Ticket<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id().fmt(f)
    }
}

impl<'store> Ticket<'store> {
    #[inline]
    pub(crate) const fn new(store: &'store Store, shard: &'store Shard, placed: Placed) -> Self {
        Self { store, shard, placed }
    }

    /// Where the record is; give it to [`Store::read`].
    #[inline]
    #[must_use]
    pub const fn address(&self) -> Address {
        self.placed.address
    }

    /// The shard that took it.
    #[must_use]
    pub const fn shard(&self) -> ShardId {
        self.shard.id()
    }

    /// The frame that carries it: it is safe when its shard's watermark is above this.
    #[must_use]
    pub const fn frame(&self) -> FrameNumber {
        self.placed.frame
    }

    /// The ticket as plain data.
    #[must_use]
    pub const fn id(&self) -> TicketId {
        TicketId { address: self.placed.address, shard: self.shard.id(), frame: self.placed.frame }
    }

    /// Asks for the record to become as safe as said, and does not wait: look at [`Ticket::has_reached`], which costs one
    /// load, after the turns of a core that the caller drives.
    #[inline]
    pub fn request(&self, durability: Durability) {
        self.shard.request(self.placed.frame, durability);
    }

    /// True if the record is as safe as said. Does not ask for it.
    #[must_use]
    pub fn has_reached(&self, durability: Durability) -> bool {
        self.shard.mark(durability).is_none_or(|mark| mark.has(self.placed.frame))
    }

    /// Waits until the record is as safe as asked. `Ok` after [`Durability::Durable`] means that it survives a power
    /// loss, on a device that honours flush.
    ///
    /// Gives up after the stall time of the options, and at once on a thread that drives a core of the store, or when
    /// the shard fails. What is not acknowledged may still become durable.
    pub fn wait(&self, durability: Durability) -> Result<(), WaitError> {
        self.wait_for(durability, self.store.stall())
    }

    /// As [`Ticket::wait`], with a time of the caller's; `None` waits without bound.
    pub fn wait_for(&self, durability: Durability, limit: Option<Duration>) -> Result<(), WaitError> {
        self.store.wait_for_frame(self.shard, self.placed.frame, durability, limit)
    }

    /// A future of the same, for any executor. It may be dropped at any time; the record stays where it is.
    pub fn reached(&self, durability: Durability) -> Reached<'store> {
        Reached::of(self.shard, self.placed.frame, durability)
    }
}
