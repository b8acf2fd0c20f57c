//! Emptying retired shards: what is wanted goes to other shards, and all extents but the last come back.

use super::Store;
use crate::{
    error::{DrainError, SpaceError},
    router::Route,
    scan::{Record, ScanFrom},
    ticket::Ticket,
};
use bytes::Bytes;
use corelog_shards::{
    address::Address,
    cleaning::RecordOwner,
    draining::DrainRound,
    ids::ShardId,
    limits::{DRAIN_BYTES_MAX, DRAIN_RECORDS_MAX},
    scan::{CleaningPause, Position},
    shard_owner::{SpaceAsk, SpaceRefusal},
    watermark::Durability,
};
use serde::Serialize;

/// What became of a shard that was emptied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Drained {
    /// Records that were moved to other shards.
    pub moved: u64,
    /// Bytes of their payloads.
    pub moved_bytes: u64,
    /// Records that their owner did not want any more.
    pub dropped: u64,
    /// Extents that came back.
    pub freed_extents: u64,
    /// Extents that the shard has still: one that counts the others, and one that was claimed ahead; more only if somebody
    /// is still writing a batch or large record that began before the shard was retired.
    pub left_extents: u64,
}

/// A record on its way.
struct Moving<'store> {
    from: Address,
    payload: Bytes,
    bytes: u64,
    is_large: bool,
    to: Ticket<'store>,
}

/// What was copied since the last trim.
type Round<'store> = DrainRound<Moving<'store>>;

impl Store {
    /// Empties a retired shard: each record that `owner` says is wanted is appended to where `route` says, and told to
    /// `owner` as relocated once it is durable there; then the extents that it came from are freed. What comes from one
    /// shard to one other keeps its order, and comes behind what that one holds already.
    ///
    /// The store runs meanwhile, and what `owner` hears is what it hears of cleaning, but on this thread: a record that it
    /// has moved on from meanwhile is not wanted (false from [`RecordOwner::relocated`]), and its copy counts as dead. Of
    /// a large record ([`RecordOwner::is_large_live`]) the payload is empty; the address says which it is. A batch was whole in the shard, and is moved
    /// record by record. Cleaning ends what it has begun in the shard first, and goes on with it afterwards; held cleaning
    /// ([`Store::hold_cleaning`]) refuses the drain then.
    ///
    /// After an error, or a crash, call it again: what was moved before is passed over, but for at most
    /// [`crate::limits::DRAIN_BYTES_MAX`] of payload and one record, whose copies come twice. A scan gives what was moved out
    /// of an extent in both shards as long as the extent is not freed: an owner that rebuilds its index from a scan tells
    /// them by their versions, as it does those that were overwritten.
    ///
    /// Memory: the same bound, and one read-ahead of a scan.
    pub fn drain_shard(
        &self,
        shard: ShardId,
        owner: &dyn RecordOwner,
        route: &mut dyn FnMut(&Record) -> Route,
    ) -> Result<Drained, DrainError> {
        if let Some(core) = self.driven_core() {
            return Err(DrainError::OnCoreThread { core });
        }
        let last = (self.shards().len() as u16).saturating_sub(1);
        let shared = self.shard(shard).ok_or(DrainError::NoSuchShard { shard, last })?;
        if shared.cold_of().is_some() {
            return Err(DrainError::Cold { shard });
        }
        if !shared.is_retired() {
            return Err(DrainError::NotRetired { shard });
        }
        if let Some(cursor) = self.cursors(shard).into_iter().next() {
            return Err(DrainError::Cursor { shard, name: cursor.name });
        }
        // An owner that was told of a copy would take its original for dead, which is what a scan gives until the extent
        // of that is free.
        let _paused = CleaningPause::new(shared).ok_or(DrainError::UnderWay { shard })?;
        self.ask_space(shard, SpaceAsk::EndCleaning)?.wait()?;
        let freed_before = shared.space().freed;
        let mut drained = Drained::default();
        let mut position = self.drain_from(shard, None, owner, route, &mut drained)?;
        if position.is_some() {
            // The last extent cannot be freed, and holds records: the shard goes on in another one.
            self.ask_space(shard, SpaceAsk::Leave(None))?.wait()?;
            // What found the shard before it was retired, and was not there yet.
            position = self.drain_from(shard, position, owner, route, &mut drained)?.or(position);
        }
        if let Some(position) = position {
            self.trim(shard, position)?.wait()?;
        }
        drained.freed_extents = shared.space().freed - freed_before;
        drained.left_extents = shared.extents().len() as u64;
        Ok(drained)
    }

    /// Moves what is behind a place. `None`: nothing is.
    fn drain_from(
        &self,
        shard: ShardId,
        from: Option<Position>,
        owner: &dyn RecordOwner,
        route: &mut dyn FnMut(&Record) -> Route,
        drained: &mut Drained,
    ) -> Result<Option<Position>, DrainError> {
        let mut scan = self.scan_from(shard, from.map_or(ScanFrom::Oldest, ScanFrom::Position))?;
        let mut round = Round::default();
        let mut has_any = false;
        // Of this is only left what lies in an extent that is not done.
        let done = self.space(shard).map(|space| space.trim).unwrap_or_default();
        // Behind what is moved already.
        let mut behind = None;
        while let Some(record) = scan.next() {
            let record = record?;
            has_any = true;
            if self.place_of(shard, record.address)? < done {
                continue;
            }
            if !self.is_wanted(&record, owner)? {
                drained.dropped += 1;
            } else {
                self.drain_with_room(&record, behind, route, &mut round, owner, drained)?;
            }
            behind = scan.resume_at();
            if round.has(DRAIN_BYTES_MAX, DRAIN_RECORDS_MAX) {
                self.end_round(&mut round, owner, drained)?;
                if let Some(position) = scan.resume_at() {
                    self.note_drained(shard, position)?;
                }
            }
        }
        self.end_round(&mut round, owner, drained)?;
        Ok(scan.resume_at().filter(|_| has_any || from.is_some()))
    }

    /// Of a large record that was released parts may be gone, whatever its owner says.
    fn is_wanted(&self, record: &Record, owner: &dyn RecordOwner) -> Result<bool, DrainError> {
        match record.large_bytes {
            None => Ok(owner.is_live(record.address, &record.payload)),
            Some(_) if !owner.is_large_live(record.address) => Ok(false),
            Some(_) => Ok(self.open_large(record.address)?.is_whole()?),
        }
    }

    /// Whoever comes again need not copy what is before the place. Frees what lies wholly before it.
    fn note_drained(&self, shard: ShardId, position: Position) -> Result<(), DrainError> {
        match self.trim(shard, position)?.wait() {
            // One that frees nothing is not written to a store that is full.
            Ok(_) | Err(SpaceError::Refused { refusal: SpaceRefusal::StoreFull, .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Where there is no room, what was moved so far may be all that can make some. `behind`: the place behind that.
    fn drain_with_room<'store>(
        &'store self,
        record: &Record,
        behind: Option<Position>,
        route: &mut dyn FnMut(&Record) -> Route,
        round: &mut Round<'store>,
        owner: &dyn RecordOwner,
        drained: &mut Drained,
    ) -> Result<(), DrainError> {
        let refused = match self.drain_record(record, route, round) {
            Err(error) if error.is_full() => error,
            drained => return drained,
        };
        let Some(position) = behind else { return Err(refused) };
        self.end_round(round, owner, drained)?;
        self.note_drained(record.shard, position)?;
        self.drain_record(record, route, round)
    }

    fn drain_record<'store>(
        &'store self,
        record: &Record,
        route: &mut dyn FnMut(&Record) -> Route,
        round: &mut Round<'store>,
    ) -> Result<(), DrainError> {
        let to = route(record);
        let Record { address: from, large_bytes, .. } = *record;
        let payload = record.payload.clone();
        let to = match large_bytes {
            None => self.append_to(to, &payload)?,
            Some(_) => {
                let mut parts = self.open_large(from)?;
                let mut copy = self.append_large(to)?;
                while let Some(part) = parts.next_part()? {
                    copy.append(&part)?;
                }
                copy.finish()?
            }
        };
        let bytes = large_bytes.unwrap_or(payload.len() as u64);
        round.push(Moving { from, payload, bytes, is_large: large_bytes.is_some(), to }, bytes);
        Ok(())
    }

    fn end_round(
        &self,
        round: &mut Round<'_>,
        owner: &dyn RecordOwner,
        drained: &mut Drained,
    ) -> Result<(), DrainError> {
        let wait = |moving: &Moving<'_>| moving.to.wait(Durability::Durable).map(|_| true);
        while let Some(Moving { from, payload, bytes, is_large, to }) = round.settle(wait)? {
            if owner.relocated(from, to.address(), &payload) {
                drained.moved += 1;
                drained.moved_bytes += bytes;
                continue;
            }
            drained.dropped += 1;
            // Cleaning may have found it dead, and freed it, before this.
            if is_large {
                let _gone_already = self.release_large(to.address());
            } else {
                let _gone_already = self.release(to.address(), payload.len());
            }
        }
        Ok(())
    }
}
