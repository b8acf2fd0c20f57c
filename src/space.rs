//! Space that comes back: trimming, named cursors, checkpoints on request.

use crate::{
    error::{CleanError, SpaceError},
    store::{
        Store,
        block::{Pause, Sleeper},
    },
};
use corelog_shards::{
    address::Address,
    cleaning::RecordOwner,
    directory::{Mail, MailError},
    format::{
        control::{Cursor, LogPlace},
        record::record_bytes,
    },
    ids::ShardId,
    limits::RECORD_PAYLOAD_BYTES_MAX,
    opening::extents_to_clean,
    requests::{Pending, Reply},
    scan::Position,
    shard::ShardSpace,
    shard_owner::{SpaceAsk, SpaceDone, SpaceRefusal},
};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// How far to trim: everything before is no longer wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrimTo {
    /// Before the record at an address.
    Address(Address),
    /// Before what a scan reads next.
    Position(Position),
}

impl From<Address> for TrimTo {
    fn from(address: Address) -> Self {
        Self::Address(address)
    }
}

impl From<Position> for TrimTo {
    fn from(position: Position) -> Self {
        Self::Position(position)
    }
}

impl Store {
    /// Frees the extents of `shard` that lie wholly before a place. The extent of the place itself stays, with what is
    /// before the place in it, so that trimming twice changes nothing. So do extents that a batch or large record has
    /// parts in whose root lies behind the place, or that is still being written; [`SpaceDone::held`] counts them, and
    /// trimming again, once those are gone too, frees them.
    ///
    /// The answer comes when the freeing is durable: the extents are free then (and discarded, if the options ask for
    /// it), and no crash brings them back. A read of an address in them is `Reclaimed`. It works in a full store as
    /// well, as long as the reserve lasts.
    pub fn trim(&self, shard: ShardId, up_to: impl Into<TrimTo>) -> Result<SpaceChange<'_>, SpaceError> {
        self.trim_to(shard, up_to.into(), false)
    }

    /// As [`Store::trim`], but not past the slowest cursor of the shard; the answer says how far it went.
    pub fn trim_behind_cursors(
        &self,
        shard: ShardId,
        up_to: impl Into<TrimTo>,
    ) -> Result<SpaceChange<'_>, SpaceError> {
        self.trim_to(shard, up_to.into(), true)
    }

    fn trim_to(
        &self,
        shard: ShardId,
        up_to: TrimTo,
        respect_cursors: bool,
    ) -> Result<SpaceChange<'_>, SpaceError> {
        let place = match up_to {
            TrimTo::Address(address) => self.place_of(shard, address)?,
            TrimTo::Position(position) if position.shard() != shard => {
                return Err(SpaceError::OtherShard { shard, found: position.shard() });
            }
            TrimTo::Position(position) => position.place(self.directory().layout.geometry()),
        };
        self.ask_space(shard, SpaceAsk::Trim { place, respect_cursors })
    }

    /// Sets the cursor `name` of a shard to the record at `address`, or moves it there. Durable when the answer
    /// comes. A name has 1 to [`crate::limits::CURSOR_NAME_BYTES_MAX`] bytes, a shard at most
    /// [`crate::limits::CURSORS_MAX`] cursors.
    pub fn set_cursor(
        &self,
        shard: ShardId,
        name: &str,
        address: Address,
    ) -> Result<SpaceChange<'_>, SpaceError> {
        let place = self.place_of(shard, address)?;
        self.ask_space(shard, SpaceAsk::SetCursor(Cursor { name: name.to_owned(), place, address }))
    }

    /// Removes a cursor. Durable when the answer comes.
    pub fn remove_cursor(&self, shard: ShardId, name: &str) -> Result<SpaceChange<'_>, SpaceError> {
        self.ask_space(shard, SpaceAsk::RemoveCursor(name.to_owned()))
    }

    /// The cursors of a shard, by name, as far as they are durable; none if there is no such shard.
    #[must_use]
    pub fn cursors(&self, shard: ShardId) -> Vec<Cursor> {
        self.space(shard).map(|space| space.cursors).unwrap_or_default()
    }

    /// What is durable of a shard's space; `None` if there is no such shard.
    #[must_use]
    pub fn space(&self, shard: ShardId) -> Option<ShardSpace> {
        Some(self.shard(shard)?.space())
    }

    /// Writes a checkpoint of each shard, and waits until all are durable: a reopen reads the headers of what comes
    /// after it, and of one extent.
    pub fn checkpoint(&self) -> Result<(), SpaceError> {
        let shards = self.shards().iter().map(|shard| shard.id());
        let asked: Vec<_> = shards.map(|shard| self.ask_space(shard, SpaceAsk::Checkpoint)).collect();
        asked.into_iter().try_for_each(|asked| asked?.wait().map(|_done| ()))
    }

    /// Says that the record at `address`, of so many bytes, is no longer wanted. It reads and writes nothing: the bytes
    /// count as dead, and cleaning chooses extents by such counts. Of a large record [`Store::release_large`] does so.
    ///
    /// Say it once, when nobody looks the record up any more. Each checkpoint stores the counts, so that a crash forgets at most
    /// what was released since the last one. Then cleaning takes an extent for fuller than it is, until it has no better
    /// one: it reads what earlier opens wrote and asks the owner of the records. What was written since the store was
    /// opened counts as wanted until it is released.
    pub fn release(&self, address: Address, payload_bytes: usize) -> Result<(), SpaceError> {
        let shard = self.directory().owner_of(address).map_err(SpaceError::Place)?;
        let (extents, geometry) = (&self.directory().extents, self.directory().layout.geometry());
        let extent = address.extent(geometry);
        let bytes = payload_bytes as u64;
        let generation = extents.get(extent).map(|entry| entry.generation).unwrap_or_default();
        let is_possible = bytes <= RECORD_PAYLOAD_BYTES_MAX
            && Address::new(geometry, address.byte(), generation, bytes).slots_hint() == address.slots_hint();
        if !is_possible {
            return Err(SpaceError::Length { address, bytes });
        }
        extents.note_dead(extent, record_bytes(bytes));
        if let Some(shard) = self.shard(shard)
            && shard.note_release()
        {
            self.directory().look_again(self.cleaning(), shard);
        }
        Ok(())
    }

    /// Turns cleaning on: when free extents become few, the cores copy what is wanted of the emptiest extents to the end of
    /// their logs, and free those. `owner` says what is wanted, and hears where it is ([`RecordOwner`]); call this
    /// once it can, which for an index in memory is after a scan. It is refused where the store has too few extents for its
    /// shards to be cleaned: grow it first.
    ///
    /// What is appended while cleaning has yet to make room waits as it does for a full ring; `StoreFull` is the answer
    /// only if nothing can be won. Large records are moved if their owner says so, and they are not too long
    /// ([`RecordOwner::keeps_extent`] says which are in the way); not cleaned are those at and behind the slowest cursor of
    /// their shard, nor, where they hold parts of longer batches or large records, those from the first extent on of one
    /// that is still being written.
    ///
    /// A copy is in the log behind records that are younger than it. So whoever builds an index from a scan needs
    /// versions in the records, and keeps the record of a deletion alive for as long as an older one may be in the log.
    /// A scan gives each record once, also while it is moved; one that goes on from a stored position may give some of
    /// the moved ones again. An address that was moved away from is `Reclaimed` once its extent is freed.
    pub fn clean_with(&self, owner: Arc<dyn RecordOwner>) -> Result<(), CleanError> {
        let (extents, shards) = (self.directory().extents.len(), self.shards().len() as u32);
        let needed = extents_to_clean(shards);
        if extents < needed {
            return Err(CleanError::TooFewExtents { extents, shards, needed });
        }
        if !self.cleaning().turn_on(owner) {
            return Err(CleanError::AlreadyOn);
        }
        // What found the store full so far may wait from now on.
        self.shards().iter().for_each(|shard| shard.hope_again());
        self.directory().cores.iter().for_each(|core| core.ring());
        Ok(())
    }

    pub(crate) fn place_of(&self, shard: ShardId, address: Address) -> Result<LogPlace, SpaceError> {
        if self.shard(shard).is_none() {
            return Err(SpaceError::NoSuchShard { shard });
        }
        let found = self.directory().owner_of(address).map_err(SpaceError::Place)?;
        if found != shard {
            return Err(SpaceError::OtherShard { shard, found });
        }
        let extent = address.extent(self.directory().layout.geometry());
        let ordinal = self.directory().extents.ordinal(extent).unwrap_or_default();
        Ok(LogPlace { ordinal, byte: address.byte() })
    }

    pub(crate) fn ask_space(&self, shard: ShardId, ask: SpaceAsk) -> Result<SpaceChange<'_>, SpaceError> {
        let core = self.directory().core_of(shard).ok_or(SpaceError::NoSuchShard { shard })?;
        let mut pause = Pause::until(self.stall());
        loop {
            let (pending, responder) = self.requests().open().ok_or(SpaceError::Busy { shard })?;
            match core.send(Mail::Space { shard, ask: ask.clone(), responder }) {
                Ok(()) => return Ok(SpaceChange { store: self, shard, pending }),
                // A thread that drives the core would wait for itself.
                Err(MailError::Full(_)) if self.driven_core().is_none() && pause.rest() => {}
                Err(MailError::Full(_)) => return Err(SpaceError::Busy { shard }),
                Err(MailError::Dead(_)) if core.has_closed() => {
                    return Err(SpaceError::Refused { shard, refusal: SpaceRefusal::Closed });
                }
                Err(MailError::Dead(_)) => return Err(SpaceError::CoreDead { shard }),
            }
        }
    }
}

/// A change of a shard's space on its way: a future of its end, for any executor, or [`SpaceChange::wait`]. Dropping it
/// stops nothing.
#[derive(Debug)]
#[must_use = "the change is durable when this says so"]
pub struct SpaceChange<'store> {
    store: &'store Store,
    shard: ShardId,
    pending: Pending,
}

impl SpaceChange<'_> {
    /// Waits until it is durable, for as long as the stall time of the options.
    pub fn wait(mut self) -> Result<SpaceDone, SpaceError> {
        let shard = self.shard;
        if self.store.driven_core().is_some() {
            return Err(SpaceError::OnCoreThread { shard });
        }
        let limit = self.store.stall();
        Sleeper::wait(&mut self, limit)
            .unwrap_or(Err(SpaceError::Stalled { shard, waited: limit.unwrap_or_default() }))
    }
}

impl Future for SpaceChange<'_> {
    type Output = Result<SpaceDone, SpaceError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let shard = self.shard;
        Pin::new(&mut self.pending).poll(context).map(|reply| match reply {
            Reply::Space(result) => result.map_err(|refusal| SpaceError::Refused { shard, refusal }),
            _ => Err(SpaceError::CoreDead { shard }),
        })
    }
}
