//! Large records in an extent that is cleaned. What is wanted is found by the lists, in the extent or behind it, that begin
//! in it or before it: their owner is asked for the record, and of one that is wanted all is counted that lies in the extent.
//!
//! They are moved, each as a whole, so that no list leads far back. Those of which too much lies elsewhere are not, and keep
//! the extent, until so many bytes of it more are dead.

use super::{Stage, Task, listing::HeldBack};
use crate::{
    address::Address,
    format::{
        control::{ExtentFacts, LogPlace},
        manifest::{Manifest, ManifestEntry},
        moved::MovedGroup,
        record::{RecordHeader, record_bytes},
    },
    ids::{ExtentIndex, ExtentOrdinal},
    limits::{CLEAN_ELSEWHERE_EXTENT_PARTS, CLEAN_KEPT_TOLD_MAX, FRAME_HEADER_BYTES},
    mutant::{self, Mutant},
    shard_owner::ShardOwner,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A large record that is wanted and has something in the extent.
#[derive(Clone, Debug)]
pub(super) struct LargeRecord {
    pub(super) root: Address,
    /// Where its list begins.
    pub(super) place: LogPlace,
    /// Its parts; `None`: its list has several levels.
    pub(super) parts: Option<Vec<ManifestEntry>>,
    /// The first byte of it in the extent.
    first: u64,
    /// Bytes of it in the extent.
    bytes: u64,
}

/// What the extent has of large records.
#[derive(Debug, Default)]
pub(super) struct Large {
    /// Of all of them.
    bytes: u64,
    /// Those that are wanted, by where they begin in the store.
    wanted: BTreeMap<u64, LargeRecord>,
    /// Parts of them.
    parts: usize,
}

impl Large {
    /// Something in the extent is of the large record at `root`, which is wanted.
    pub(super) fn keep(&mut self, root: (Address, LogPlace), at: u64, bytes: u64) {
        let (root, place) = root;
        let new = || LargeRecord { root, place, parts: None, first: at, bytes: 0 };
        let known = self.wanted.entry(root.byte()).or_insert_with(new);
        known.first = known.first.min(at);
        known.bytes += bytes;
    }

    /// These are the parts of the record at `root`, if anything of it is in the extent.
    pub(super) fn note_parts(&mut self, root: Address, parts: &[ManifestEntry]) {
        if let Some(record) = self.wanted.get_mut(&root.byte()) {
            record.parts = Some(parts.to_vec());
            self.parts += parts.len();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.wanted.len() + self.parts
    }
}

/// What of the large records in an extent is wanted, as it was found last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LargeLive {
    /// Bytes in the extent.
    pub(super) bytes: u64,
    /// Slots that their copies take at the most, with what is copied of other extents.
    pub(super) slots: u64,
    /// Bytes of the extent that were dead then.
    dead_bytes: u64,
}

impl LargeLive {
    /// What it is now at the least: what died since was of large records, each with its share of what lies elsewhere.
    pub(super) fn now(self, dead_bytes: u64) -> Self {
        let bytes = self.bytes.saturating_sub(dead_bytes.saturating_sub(self.dead_bytes));
        let slots = (self.slots * bytes).div_ceil(self.bytes.max(1));
        Self { bytes, slots, dead_bytes }
    }
}

impl Task {
    /// An extent of which copies went to the cold shard had none that was wanted.
    pub(super) const fn asks_for_large(&self) -> bool {
        self.contents.has_large && !(self.is_resumed && self.crosses)
    }

    /// The survey came to a part of a large record, or of its list.
    pub(super) const fn note_large(&mut self, header: &RecordHeader) {
        if header.kind.is_of_large() {
            self.listing.large.bytes += header.stride();
        }
    }
}

impl ShardOwner {
    /// The address of the large record whose list begins at `byte`, if its owner wants it.
    pub(super) fn wanted_large(&self, task: &mut Task, header: &RecordHeader, byte: u64) -> Option<Address> {
        let geometry = self.context.layout.geometry();
        let address = Address::new(geometry, byte, task.walked.generation, u64::from(header.length));
        if !self.context.cleaning.owner().is_some_and(|owner| owner.is_large_live(address)) {
            return None;
        }
        if task.walked.ordinal == task.facts.ordinal {
            let place = LogPlace { ordinal: task.walked.ordinal, byte };
            task.listing.large.keep((address, place), byte, header.stride());
        }
        Some(address)
    }

    /// All lists were looked at: those that are wanted are to be moved, or keep the extent. False: they do.
    pub(super) fn plan_large(&mut self, task: &mut Task) -> Result<bool, &'static str> {
        let Large { bytes, mut wanted, .. } = std::mem::take(&mut task.listing.large);
        self.cleaner.large_live.remove(&task.facts.ordinal);
        if !task.asks_for_large() {
            return Ok(true);
        }
        // What an earlier open looked at was moved by it, or nobody wanted it then.
        wanted.retain(|_, record| record.first >= task.skip_to);
        let wanted_bytes: u64 = wanted.values().map(|record| record.bytes).sum();
        task.dead_bytes += bytes.saturating_sub(wanted_bytes);
        if wanted.is_empty() || mutant::is_active(Mutant::LargeTakenForDead) {
            return Ok(true);
        }
        let (moves, mut stays): (Vec<_>, Vec<_>) =
            wanted.into_values().partition(|record| self.is_large_movable(task, record));
        if task.is_resumed && !stays.is_empty() {
            return Err("a large record of it cannot be moved by this open");
        }
        let dead_bytes = self.context.extents.raise_dead(task.facts.extent, task.dead_bytes);
        let slots = moves.iter().map(|record| self.slots_of_copies(record)).sum();
        let live = LargeLive { bytes: wanted_bytes, slots, dead_bytes };
        if stays.is_empty() && !task.is_resumed && !self.has_room_for_large(task, live) {
            // With what lies elsewhere it is too much.
            let own = task.facts.extent;
            stays.extend(moves.iter().filter(|record| !self.elsewhere_of(own, record).is_empty()).cloned());
        }
        if !stays.is_empty() {
            self.cleaner.large_live.remove(&task.facts.ordinal);
            self.keep_for_large(task, &stays);
            return Ok(false);
        }
        self.cleaner.large_live.insert(task.facts.ordinal, live);
        // A scan tells them by the log that it reads.
        task.crosses = false;
        task.large = moves.into_iter().map(|record| (record.first, record)).collect();
        Ok(true)
    }

    /// False: the extent would be worth cleaning but for what the copies of large records take.
    fn has_room_for_large(&mut self, task: &Task, live: LargeLive) -> bool {
        let Task { mut facts, .. } = *task;
        facts.dead_bytes = live.dead_bytes;
        self.cleaner.contents.insert(facts.ordinal, task.contents);
        if !self.is_worth_it(&facts) {
            return true;
        }
        self.cleaner.large_live.insert(facts.ordinal, live);
        self.is_worth_it(&facts)
    }

    /// True if the record can be moved.
    fn is_large_movable(&self, task: &Task, record: &LargeRecord) -> bool {
        let moves = self.context.cleaning.owner().is_some_and(|owner| owner.moves_large());
        let Some(parts) = record.parts.as_ref().filter(|_| moves) else { return false };
        let room = self.shared.ring().buffer_bytes() - FRAME_HEADER_BYTES;
        let list = record_bytes(Manifest::payload_bytes(parts.len()) as u64);
        if list + record_bytes(MovedGroup::bytes_of(1, true) as u64) > room {
            return false;
        }
        let own = task.facts.ordinal;
        // What was copied and does not count yet is of records that must not be copied again.
        let moves = self.space.moves.iter().copied().chain(self.begun_crossings());
        let busy: BTreeSet<_> = moves.map(|it| it.origin.ordinal).filter(|ordinal| *ordinal != own).collect();
        let mut outside = if record.place.ordinal == own { 0 } else { list };
        for part in parts {
            let Some((ordinal, _)) = self.own_extent(part.address) else { return false };
            let bytes = record_bytes(u64::from(part.length));
            if bytes > room || busy.contains(&ordinal) {
                return false;
            }
            outside += if ordinal == own { 0 } else { bytes };
        }
        let most = self.context.layout.geometry().extent_bytes() / CLEAN_ELSEWHERE_EXTENT_PARTS;
        outside <= most && !busy.contains(&record.place.ordinal)
    }

    /// If each part is in a frame of its own.
    fn slots_of_copies(&self, record: &LargeRecord) -> u64 {
        let slot_bytes = self.context.layout.geometry().slot_bytes();
        let slots = |bytes: u64| (FRAME_HEADER_BYTES + bytes).div_ceil(slot_bytes);
        let parts = record.parts.as_deref().unwrap_or_default();
        let list = record_bytes(Manifest::payload_bytes(parts.len()) as u64);
        let root = slots(list + record_bytes(MovedGroup::bytes_of(1, true) as u64));
        parts.iter().map(|part| slots(record_bytes(u64::from(part.length)))).sum::<u64>() + root
    }

    /// Puts the extent aside until so many bytes of it more are dead.
    fn keep_for_large(&mut self, task: &Task, stays: &[LargeRecord]) {
        let (by, extents) = (task.facts, &self.context.extents);
        // Some of what is wanted may have been released since it was asked for.
        let released = extents.dead_bytes(by.extent).saturating_sub(by.dead_bytes);
        let dead_bytes = extents.raise_dead(by.extent, task.dead_bytes);
        // All of it may have been: then the extent is looked at once more.
        let bytes: u64 = stays.iter().map(|record| record.bytes).sum();
        let until = dead_bytes + bytes.saturating_sub(released);
        let untold = stays.iter().map(|record| record.root).collect();
        self.cleaner.held_back.insert(by.ordinal, HeldBack { by, until, untold, is_told: false });
    }

    /// Nothing is worth cleaning: tells the owner what keeps the emptiest extent, if no more than a few are waited for.
    pub(super) fn ask_for_room(&mut self) {
        let Some(owner) = self.context.cleaning.owner().map(Arc::clone) else { return };
        let keeps = |(ordinal, held): (&ExtentOrdinal, &HeldBack)| {
            let is_told = held.is_told && self.is_held_back(*ordinal);
            is_told && self.space.extent(*ordinal).is_some()
        };
        let told = self.cleaner.held_back.iter().filter(|it| keeps(*it)).count();
        let is_untold = |facts: &ExtentFacts| {
            let held = self.cleaner.held_back.get(&facts.ordinal);
            held.is_some_and(|held| !held.untold.is_empty()) && self.is_held_back(facts.ordinal)
        };
        if told >= CLEAN_KEPT_TOLD_MAX {
            return;
        }
        // Whole records are to be written for it, whatever their other parts lie in.
        let emptiest = self.candidates().filter(is_untold).min_by_key(|facts| self.live_bytes(facts));
        let Some(facts) = emptiest else { return };
        let Some(held) = self.cleaner.held_back.get_mut(&facts.ordinal) else { return };
        held.is_told = true;
        std::mem::take(&mut held.untold).into_iter().for_each(|address| owner.keeps_extent(address));
    }

    /// Bytes by extent, of what is copied of a record and lies elsewhere than in the extent that is cleaned.
    pub(super) fn elsewhere_of(&self, own: ExtentIndex, record: &LargeRecord) -> Vec<(Address, u64)> {
        let geometry = self.context.layout.geometry();
        let parts = record.parts.as_deref().unwrap_or_default();
        let list = (record.root, Manifest::payload_bytes(parts.len()) as u64);
        let parts = parts.iter().map(|part| (part.address, u64::from(part.length)));
        let all = std::iter::once(list).chain(parts);
        all.filter(|(address, _)| address.extent(geometry) != own).collect()
    }

    /// Nobody wants these: they count as dead, each where it lies.
    pub(super) fn note_dead_each(&self, pieces: &[(Address, u64)]) {
        let geometry = self.context.layout.geometry();
        for (address, payload) in pieces.iter().filter(|(address, _)| self.own_extent(*address).is_some()) {
            self.context.extents.note_dead(address.extent(geometry), record_bytes(*payload));
        }
    }
}

impl Task {
    /// The large record of which the first thing in the extent lies at `byte`, if one is to be moved.
    pub(super) fn has_large_at(&self, byte: u64) -> bool {
        self.large.contains_key(&byte)
    }

    /// Goes on with the large record at `byte`.
    pub(super) fn begin_large(&mut self, byte: u64) {
        if let Some(record) = self.large.remove(&byte) {
            self.moving = Some(super::moving::Moving::new(record));
            self.stage = Stage::Large;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::LargeLive;

    #[test]
    fn what_died_since_is_taken_from_large_records() {
        let found = LargeLive { bytes: 40_000, slots: 12, dead_bytes: 1000 };
        let now = |dead_bytes| {
            let now = found.now(dead_bytes);
            (now.bytes, now.slots)
        };
        assert_eq!(now(1000), (40_000, 12));
        assert_eq!(now(11_000), (30_000, 9));
        assert_eq!(now(11_001), (29_999, 9), "a slot too many rather than one too few");
        assert_eq!(now(90_000), (0, 0));
        let none = LargeLive::default();
        assert_eq!((none.now(5).bytes, none.now(5).slots), (0, 0));
    }
}
