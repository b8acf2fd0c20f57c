//! What is promised of shards that are retired and emptied.

use super::{
    check::View,
    cleaning::release,
    clients::Scene,
    draining::Moving,
    oracle::{Fate, Oracle},
    payload::identify,
};
use crate::{
    format::superblock::{ShardState, Superblock},
    ids::ShardId,
    recovery::RecoveryReport,
    scan::ScanRecord,
};
use std::collections::{BTreeMap, HashSet};

/// The memory of a case with retired shards.
#[derive(Debug, Default)]
pub(super) struct Drains {
    /// Shards that may be retired, and whether they have to be.
    pub retired: BTreeMap<ShardId, bool>,
    /// The copies of a record that its owner was told of.
    pub moved: BTreeMap<u64, Vec<u64>>,
    /// A mark could not be written.
    pub has_unmarked: bool,
}

impl Oracle {
    /// The record that a scan gave.
    pub(super) fn id_of(&self, shard: ShardId, record: &ScanRecord) -> Option<u64> {
        let is_it = |id: &u64| {
            let known = self.records.get(*id as usize);
            known.is_some_and(|known| known.shard == shard)
        };
        let is_root = |fate: &Fate| matches!(fate, Fate::Placed(placed) if placed.address.byte() == record.address.byte());
        let moved = || self.index.as_ref()?.large_at(record.address.byte());
        identify(&record.payload).filter(is_it).or_else(moved).or_else(|| {
            let mut newest = self.records.iter().enumerate().rev();
            let found = newest.find(|(_, it)| it.shard == shard && it.is_large && is_root(&it.fate));
            found.map(|(id, _)| id as u64)
        })
    }

    /// The owner of the records hears of a durable copy.
    pub(super) fn tell(&mut self, moving: &Moving, scene: &Scene<'_>) {
        if let Some(index) = self.index.clone()
            && !index.move_away(moving.original, moving.from)
        {
            return release(&index, scene.directory, &self.geometry, moving.copy, moving.bytes);
        }
        self.drains.moved.entry(moving.original).or_default().push(moving.copy);
    }

    /// D1: a shard that was retired is, and no other.
    pub(super) fn check_retired(&self, superblock: &Superblock) -> Result<(), String> {
        for (shard, entry) in (0..).map(ShardId).zip(&superblock.shards) {
            let known = self.drains.retired.get(&shard);
            match (entry.state, known) {
                (ShardState::Active, Some(true)) => {
                    return Err(format!("D1: {shard:?} was retired, and takes appends again"));
                }
                (ShardState::Retired, None) => {
                    return Err(format!("D1: {shard:?} is retired, and nobody asked for it"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// D2: what was moved out of a shard is there, or its copy is.
    pub(super) fn check_moved(&self, view: &View<'_>, report: &RecoveryReport) -> Result<(), String> {
        if self.drains.moved.is_empty() {
            return Ok(());
        }
        let mut given = HashSet::new();
        for shard in &report.shards {
            let all = view.scan(shard);
            let all = all.map_err(|damage| format!("D2: a scan of {:?} ends: {damage}", shard.shard))?;
            given.extend(all.into_iter().map(|(id, _)| id));
        }
        let lost = self.drains.moved.keys().find(|id| !self.is_kept(**id, &given));
        lost.map_or(Ok(()), |id| {
            let (record, copies) = (self.records[*id as usize], &self.drains.moved[id]);
            let copies: Vec<_> = copies.iter().map(|copy| self.records[*copy as usize]).collect();
            Err(format!(
                "D2: record {id} ({record:?}) was moved, and neither it nor a copy is there: {copies:?}"
            ))
        })
    }

    fn is_kept(&self, id: u64, given: &HashSet<u64>) -> bool {
        let copies = self.drains.moved.get(&id);
        given.contains(&id)
            || copies.is_some_and(|copies| {
                copies.iter().any(|copy| self.is_unwanted(*copy) || self.is_kept(*copy, given))
            })
    }

    /// Some user released it, or trimmed it away.
    fn is_unwanted(&self, id: u64) -> bool {
        let record = &self.records[id as usize];
        let is_trimmed = match record.fate {
            Fate::Placed(placed) => self.may_be_gone(record.shard, placed.frame),
            Fate::Issued | Fate::Decided | Fate::Gone => false,
        };
        let index = self.index.as_ref();
        let may_move = index.is_some_and(|index| index.is_trimmed(self, record.shard, id));
        let was_moved = self.drains.moved.contains_key(&id);
        let is_released = index.is_some_and(|index| index.is_released(id));
        !was_moved && (is_trimmed || may_move || is_released)
    }

    /// A life begins: what recovery found is so.
    pub(super) fn resume_drains(&mut self, superblock: &Superblock) {
        let retired = (0..).map(ShardId).zip(&superblock.shards);
        let retired = retired.filter(|(_, entry)| entry.state == ShardState::Retired);
        self.drains.retired = retired.map(|(shard, _)| (shard, true)).collect();
        let records = &self.records;
        for copies in self.drains.moved.values_mut() {
            copies.retain(|copy| records[*copy as usize].fate != Fate::Gone);
        }
        self.drains.moved.retain(|_, copies| !copies.is_empty());
    }
}
