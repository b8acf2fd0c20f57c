//! What the oracle knows of a shard's space: trims and cursors, asked for and promised.

use super::oracle::{Fate, Oracle, Record};
use crate::{
    address::Address,
    format::{control::LogPlace, extent_header::ExtentHeader},
    ids::{ExtentOrdinal, FrameNumber, ShardId},
    recovery::RecoveredShard,
    shard_owner::{SpaceDone, SpaceStart},
};
use std::collections::BTreeMap;

/// The values that a cursor may have: what was promised last, and what was asked for since.
type Values = Vec<Option<Address>>;

/// One shard's space over all lives.
#[derive(Debug, Default)]
pub(super) struct SpaceHistory {
    /// What is before may be gone, unless something behind needs it.
    asked: LogPlace,
    /// This far it is trimmed at least.
    promised: LogPlace,
    /// Extents with lower ordinals have to be gone.
    gone: ExtentOrdinal,
    cursors: BTreeMap<String, Values>,
}

impl SpaceHistory {
    pub(super) fn may_be_gone(&self, ordinal: Option<ExtentOrdinal>) -> bool {
        ordinal.is_some_and(|ordinal| ordinal < self.asked.ordinal)
    }

    /// A life begins: what recovery found is so from now on.
    pub(super) fn resume(&mut self, found: &SpaceStart) {
        (self.asked, self.promised) = (found.trim, found.trim);
        self.gone = found.extents.first().map_or(self.gone, |oldest| oldest.ordinal);
        let found = found.cursors.iter().map(|cursor| (cursor.name.clone(), vec![Some(cursor.address)]));
        self.cursors = found.collect();
    }

    fn check(&self, found: &RecoveredShard) -> Result<(), String> {
        let shard = found.shard;
        let (trim, asked) = (found.space.trim, self.asked);
        if trim < self.promised {
            return Err(format!("S1: {shard:?} was trimmed up to {:?}, and is to {trim:?}", self.promised));
        }
        if trim > asked {
            return Err(format!(
                "S1: {shard:?} is trimmed up to {trim:?}, and nobody asked for more than {asked:?}"
            ));
        }
        if let Some(back) = found.extents.iter().find(|extent| extent.ordinal < self.gone) {
            return Err(format!("S1: {shard:?} holds {back:?} again, which was trimmed"));
        }
        let of =
            |name: &str| found.space.cursors.iter().find(|cursor| cursor.name == name).map(|it| it.address);
        for (name, values) in &self.cursors {
            if !values.contains(&of(name)) {
                return Err(format!("S2: cursor {name} of {shard:?} is {:?}, and was {values:?}", of(name)));
            }
        }
        let unknown = found.space.cursors.iter().find(|cursor| !self.cursors.contains_key(&cursor.name));
        unknown
            .map_or(Ok(()), |cursor| Err(format!("S2: {shard:?} has a cursor that nobody set: {cursor:?}")))
    }
}

impl Oracle {
    pub(super) fn ask_trim(&mut self, shard: ShardId, place: LogPlace) {
        let space = &mut self.shards[usize::from(shard.0)].space;
        space.asked = space.asked.max(place);
    }

    pub(super) fn trimmed(&mut self, shard: ShardId, done: &SpaceDone) {
        let space = &mut self.shards[usize::from(shard.0)].space;
        space.promised = space.promised.max(done.trim);
        space.gone = space.gone.max(done.oldest);
    }

    /// True if what makes a record count lies in an extent behind all that was asked to be trimmed: then the record is
    /// there, wherever it lies itself.
    pub(super) fn is_wanted(&self, record: &Record) -> bool {
        let Fate::Placed(placed) = record.fate else { return false };
        let history = &self.shards[usize::from(record.shard.0)];
        let ordinal = history.frames.get(placed.frame.0 as usize).and_then(|frame| frame.ordinal);
        ordinal.is_some_and(|ordinal| ordinal > history.space.asked.ordinal)
    }

    pub(super) fn ask_cursor(&mut self, shard: ShardId, name: &str, value: Option<Address>) {
        let cursors = &mut self.shards[usize::from(shard.0)].space.cursors;
        cursors.entry(name.to_owned()).or_insert_with(|| vec![None]).push(value);
    }

    /// The last that was asked for is a promise.
    pub(super) fn cursor_moved(&mut self, shard: ShardId, name: &str) {
        let cursors = &mut self.shards[usize::from(shard.0)].space.cursors;
        if let Some(values) = cursors.get_mut(name) {
            values.drain(..values.len() - 1);
        }
    }

    pub(super) fn check_space(&self, found: &RecoveredShard) -> Result<(), String> {
        self.shards[usize::from(found.shard.0)].space.check(found)
    }

    /// True if the address leads to an extent that may have been freed.
    pub(super) fn may_be_reclaimed(&self, shard: ShardId, address: Address) -> bool {
        let extent = address.extent(&self.geometry);
        let is_it = |claim: &&ExtentHeader| {
            claim.owner == shard && claim.extent == extent && address.is_of(claim.generation)
        };
        let mut claims = self.claimed.iter().filter(is_it);
        claims.any(|claim| self.shards[usize::from(shard.0)].space.may_be_gone(Some(claim.ordinal)))
    }

    /// True if the frame lies in an extent that may have been freed.
    pub(super) fn may_be_gone(&self, shard: ShardId, frame: FrameNumber) -> bool {
        let history = &self.shards[usize::from(shard.0)];
        let ordinal = history.frames.get(frame.0 as usize).and_then(|frame| frame.ordinal);
        history.space.may_be_gone(ordinal)
    }
}
