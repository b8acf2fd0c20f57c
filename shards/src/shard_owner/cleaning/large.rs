//! Large records in an extent that is cleaned. They are not moved: their parts go with the extent once nobody wants any
//! record that has one in it, and until then it stays.
//!
//! What is wanted is found by the lists, in the extent or behind it, that begin in it or before it: their owner is asked
//! for the record, and of one that is wanted all is counted that lies in the extent. It is not looked at again before so many
//! bytes of it more are dead.

use super::{Task, listing::HeldBack};
use crate::{
    address::Address,
    format::{control::ExtentFacts, record::RecordHeader},
    ids::ExtentOrdinal,
    limits::CLEAN_KEPT_TOLD_MAX,
    mutant::{self, Mutant},
    shard_owner::ShardOwner,
};
use std::{collections::BTreeMap, sync::Arc};

/// What the extent has of large records.
#[derive(Debug, Default)]
pub(super) struct Large {
    /// Of all of them.
    bytes: u64,
    /// Of those that are wanted.
    wanted_bytes: u64,
    /// These, by where they begin in the store.
    wanted: BTreeMap<u64, Address>,
}

impl Large {
    /// Something of the large record at `root` is wanted.
    pub(super) fn keep(&mut self, root: Address, bytes: u64) {
        self.wanted.insert(root.byte(), root);
        self.wanted_bytes += bytes;
    }

    pub(super) fn roots(&self) -> usize {
        self.wanted.len()
    }
}

impl Task {
    /// What an earlier open found nobody to want is not asked for again: some of the extent is gone by now.
    pub(super) const fn asks_for_large(&self) -> bool {
        self.contents.has_large && !self.is_resumed
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
            task.listing.large.keep(address, header.stride());
        }
        Some(address)
    }

    /// All lists were looked at. True: a large record that is wanted keeps the extent.
    pub(super) fn is_kept_by_large(&mut self, task: &mut Task) -> bool {
        let Large { bytes, wanted_bytes, wanted } = std::mem::take(&mut task.listing.large);
        if !task.asks_for_large() {
            return false;
        }
        let by = task.facts;
        let (extents, is_wanted) = (&self.context.extents, !wanted.is_empty());
        // Some of what is wanted may have been released since it was asked for.
        let released = extents.dead_bytes(by.extent).saturating_sub(by.dead_bytes);
        task.dead_bytes += bytes.saturating_sub(wanted_bytes);
        if !is_wanted || mutant::is_active(Mutant::LargeTakenForDead) {
            return false;
        }
        let dead_bytes = extents.raise_dead(by.extent, task.dead_bytes);
        // All of it may have been: then the extent is looked at once more.
        let until = dead_bytes + wanted_bytes.saturating_sub(released);
        let held = HeldBack { by, until, untold: wanted.into_values().collect(), is_told: false };
        self.cleaner.held_back.insert(by.ordinal, held);
        true
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
}
