//! Whether to clean, and which extent.

use super::{Reading, Stage, Standing, Task};
use crate::{
    cleaning::{Candidate, VictimPolicy},
    format::{
        control::ExtentFacts,
        moved::MovedGroup,
        record::{BodyContents, record_bytes},
    },
    ids::{ExtentOrdinal, FrameNumber},
    limits::{CLEAN_LIVE_PERCENT_MAX, FRAME_HEADER_BYTES, RECORD_HEADER_BYTES},
    mutant::{self, Mutant},
    shard_owner::ShardOwner,
    sync::Ordering,
};

impl ShardOwner {
    pub(super) fn look_at_marks(&mut self) {
        let extents = &self.context.extents;
        let (low, high) = self.context.cleaning.options().marks(extents.len());
        let free = extents.free_for_appends();
        self.cleaner.is_on = if self.cleaner.is_on { free < high } else { free < low };
    }

    fn what_matters(&self) -> Standing {
        Standing {
            releases: self.shared.releases.load(Ordering::Acquire),
            last: self.last_ordinal,
            durable: self.shared.durable.reached(),
            has_free: self.context.extents.free_count() > 0,
            uncounted: self.first_uncounted(),
            unsettled: self.first_unsettled(),
        }
    }

    /// An extent whose cleaning an earlier open began, and whether its copies are in the cold shard.
    pub(super) fn unfinished(&self) -> Option<(super::Move, bool)> {
        if self.cleaner.ends.is_empty() && self.shared.scans().is_paused() {
            // Whoever empties the shard goes by what counted when cleaning was off.
            return None;
        }
        let is_possible = |it: &super::Move| !self.cleaner.left_alone.contains(&it.origin.ordinal);
        let own = self.space.moves.iter().copied().find(is_possible).map(|it| (it, false));
        let parked = self.cleaner.parked.as_ref().map(|task| task.facts.ordinal);
        let durable = self.shared.durable.reached();
        let goes_on = |it: &super::Move| {
            let is_there = self.space.extent(it.origin.ordinal).is_some_and(|facts| {
                // A power loss may have cut the log back into an extent that was sealed when its cleaning began: what has been
                // appended to it since is in no copy, and more may come.
                let is_sealed = facts.ordinal < self.last_ordinal && facts.frames_end() <= durable;
                is_sealed && self.origin(&facts) == it.origin
            });
            is_there && is_possible(it) && parked != Some(it.origin.ordinal)
        };
        own.or_else(|| self.begun_crossings().into_iter().find(goes_on).map(|it| (it, true)))
    }

    /// What was kept from being freed, and can be now.
    fn unparked(&mut self) -> bool {
        let is_scanned = self.cold().is_some_and(|cold| cold.crossing.is_scanned());
        if is_scanned || self.cleaner.parked.is_none() {
            return false;
        }
        self.cleaner.task = self.cleaner.parked.take();
        self.set_hope(true);
        true
    }

    /// True if it is worth looking for an extent to clean.
    pub(super) fn may_begin(&self) -> bool {
        if matches!(self.cleaner.reading, Reading::Flying { .. }) {
            return false;
        }
        let extents = &self.context.extents;
        let (low, high) = self.context.cleaning.options().marks(extents.len());
        let is_on = extents.free_for_appends() < if self.cleaner.is_on { high } else { low };
        let is_unparked =
            || self.cleaner.parked.is_some() && !self.cold().is_some_and(|cold| cold.crossing.is_scanned());
        self.unfinished().is_some()
            || is_unparked()
            || (is_on && self.cleaner.barren_at != Some(self.what_matters()))
    }

    pub(super) fn begin_cleaning(&mut self) -> bool {
        self.cleaner.awaits_mate = false;
        if !self.may_begin() {
            self.note_barren();
            return false;
        }
        self.cleaner.reading = Reading::Idle;
        if let Some((known, crosses)) = self.unfinished() {
            return self.resume_cleaning(&known, crosses);
        }
        if self.unparked() {
            return true;
        }
        // Before the look: what is released after it changes the number.
        let standing = self.what_matters();
        let chosen = self.choose().or_else(|| self.uncounted().map(|facts| (f64::MIN, facts)));
        let Some((worth, facts)) = chosen else {
            self.note_barren();
            if standing.unsettled.is_some() {
                self.shared.writers.ring_at_next_end(self.shared.ring().bell());
            }
            self.cleaner.barren_at = Some(standing);
            if let Some(frame) = self.next_to_be_durable() {
                // Nobody else may ever ask for it, and those who wait for room wait for this.
                self.shared.durable.want(frame);
                self.set_hope(true);
                return false;
            }
            self.shared.wants_releases.store(true, Ordering::Release);
            self.ask_for_room();
            self.set_hope(false);
            return false;
        };
        if !self.takes_turn(worth) {
            self.cleaner.awaits_mate = self.is_mate_busy();
            self.set_hope(true);
            return false;
        }
        let geometry = self.context.layout.geometry();
        let first = geometry.first_frame_slot(facts.extent);
        let contents = self.cleaner.contents.get(&facts.ordinal);
        let is_plain = contents
            .is_some_and(|it| !it.has_batch_data && !it.has_large && !self.leads_back(facts.ordinal, it));
        let stage = if is_plain { Stage::Copy } else { Stage::Survey };
        let task = Task::begin(facts, first, geometry.byte_of(first), stage);
        self.cleaner.task = Some(Task { crosses: self.crosses(), ..task });
        self.set_hope(true);
        true
    }

    fn note_barren(&self) {
        if let Some(mate) = &self.mate {
            mate.crossing.note_barren(mate.side);
        }
    }

    fn resume_cleaning(&mut self, known: &super::Move, crosses: bool) -> bool {
        let Some(facts) = self.space.extent(known.origin.ordinal) else {
            self.cleaner.left_alone.insert(known.origin.ordinal);
            return true;
        };
        let geometry = self.context.layout.geometry();
        let first = geometry.first_frame_slot(facts.extent);
        let begun = || {
            if mutant::is_active(Mutant::CleaningBeginsAgain) {
                Task::begin(facts, first, geometry.byte_of(first), Stage::Copy)
            } else {
                Task::resume(facts, first, known)
            }
        };
        if !crosses {
            // Where the first copies are, only the chain of groups knows.
            self.shared.scans().note_copies(Some(facts.ordinal));
        }
        self.cleaner.task = Some(Task { crosses, ..begun() });
        self.set_hope(true);
        true
    }

    /// The extent that the policy likes best, among those that give more room than their copies take.
    fn choose(&self) -> Option<(f64, ExtentFacts)> {
        let policy = &self.context.cleaning.options().policy;
        let now = super::super::submission::unix_ns();
        let mut best: Option<(f64, ExtentFacts)> = None;
        for facts in self.candidates().filter(|facts| self.is_worth_it(facts)) {
            let candidate = Candidate {
                ordinal: facts.ordinal,
                live_bytes: self.live_bytes(&facts),
                extent_bytes: self.context.layout.geometry().extent_bytes(),
                age_ns: now.saturating_sub(facts.unix_ns),
            };
            let score = policy.score(&candidate);
            if best.as_ref().is_none_or(|(other, _)| score > *other) {
                best = Some((score, facts));
            }
        }
        best
    }

    /// The last frame of the oldest extent that would do if it were durable.
    fn next_to_be_durable(&self) -> Option<FrameNumber> {
        let durable = self.shared.durable.reached();
        let would_do = |facts: &ExtentFacts| self.is_worth_it(facts) || !self.is_counted(facts);
        let mut ends = self.sealed_candidates().filter(would_do).map(|facts| facts.frames_end());
        ends.find(|end| *end > durable).map(|end| FrameNumber(end.0 - 1))
    }

    /// The oldest extent of which only an earlier open knew what was released: what that noted since its last checkpoint
    /// is forgotten, and whoever built an index by a scan releases nothing of what was overwritten before. Its owner is
    /// asked, once in an open. Nor does anybody release what a batch wrote that was given up.
    fn uncounted(&self) -> Option<ExtentFacts> {
        self.candidates().find(|facts| !self.is_counted(facts))
    }

    /// True if nothing more can be found out by reading it, now.
    fn is_counted(&self, facts: &ExtentFacts) -> bool {
        let contents = self.cleaner.contents.get(&facts.ordinal);
        contents.is_some_and(|contents| {
            !(contents.has_batch_data || contents.has_large)
                || self.cleaner.listed.contains(&facts.ordinal)
                || !self.is_movable(contents)
                || !self.is_settled(facts.ordinal, contents)
        })
    }

    /// Extents that may be read and freed.
    pub(super) fn candidates(&self) -> impl Iterator<Item = ExtentFacts> + '_ {
        let durable = self.shared.durable.reached();
        self.sealed_candidates().filter(move |facts| facts.frames_end() <= durable)
    }

    /// Extents that may be once they are durable.
    fn sealed_candidates(&self) -> impl Iterator<Item = ExtentFacts> + '_ {
        let end = self.end_of_candidates();
        let sealed = self.sealed_extents().take_while(move |sealed| sealed.facts.ordinal < end);
        let facts = sealed.filter(|sealed| !sealed.is_freeing).map(|sealed| sealed.facts);
        let begun: Vec<_> = self.begun_crossings().iter().map(|it| it.origin.ordinal).collect();
        facts.filter(move |facts| {
            !self.cleaner.left_alone.contains(&facts.ordinal) && !begun.contains(&facts.ordinal)
        })
    }

    /// Extents from here on are not cleaned: a cursor stands in front, and whoever reads from it reads in order; or
    /// they may hold copies that do not count yet; or a scan began before what is in them was written.
    fn end_of_candidates(&self) -> ExtentOrdinal {
        let cursors = self.space.slowest_cursor();
        let moves = self.space.moves.iter().map(|it| it.origin.ordinal);
        cursors
            .into_iter()
            .chain(moves)
            .chain(self.shared.scans().first())
            .chain(self.first_uncounted())
            .min()
            .unwrap_or(ExtentOrdinal(u64::MAX))
    }

    pub(super) fn is_worth_it(&self, facts: &ExtentFacts) -> bool {
        let contents = self.cleaner.contents.get(&facts.ordinal);
        let may_go = |it| {
            self.is_movable(it) && self.is_settled(facts.ordinal, it) && !self.is_held_back(facts.ordinal)
        };
        if !contents.is_none_or(may_go) {
            return false;
        }
        let live = self.live_bytes(facts);
        let extent_bytes = self.context.layout.geometry().extent_bytes();
        live * 100 <= extent_bytes * CLEAN_LIVE_PERCENT_MAX
            && (live == 0 || self.fits_one_extent(facts, live))
    }

    /// True if one extent, which may be the last of the reserve, takes all copies and what freeing needs. What is not
    /// known of the extent yet is taken for the best.
    fn fits_one_extent(&self, facts: &ExtentFacts, live: u64) -> bool {
        let geometry = self.context.layout.geometry();
        let contents = self.cleaner.contents.get(&facts.ordinal).copied().unwrap_or_default();
        let BodyContents { longest, has_batch_data, .. } = contents;
        let large = self.cleaner.large_live.get(&facts.ordinal).copied().unwrap_or_default();
        let large = large.now(facts.dead_bytes);
        let copies = Copies {
            has_roots: has_batch_data,
            live: live.saturating_sub(large.bytes),
            records: facts.records,
            longest: record_bytes(u64::from(longest)),
            group: self.group_bytes_max(),
            slot: geometry.slot_bytes(),
        };
        let slots = copies.slots() + large.slots;
        let since = slots * geometry.slot_bytes() / self.context.checkpoint_bytes;
        // One that freeing needs, and one that was due. The reserve has an extent more where copies go to another log.
        let notes = 1 + (2 + since) * self.space.checkpoint_slots(geometry.slot_bytes(), copies.group);
        // No frame begins where a buffer would not fit any more; and whoever appends has to win a frame by each extent, or
        // cleaning would go round for ever.
        let tail = self.shared.ring().buffer_bytes() / geometry.slot_bytes();
        let first = geometry.first_frame_slot(facts.extent);
        slots + notes + tail <= geometry.slots_left(first)
    }

    fn is_movable(&self, contents: &BodyContents) -> bool {
        let list = record_bytes(MovedGroup::bytes_of(1, contents.has_batch_data) as u64);
        let alone = list + record_bytes(u64::from(contents.longest));
        !contents.is_fixed && alone <= self.shared.ring().buffer_bytes() - FRAME_HEADER_BYTES
    }

    /// At the most: what nobody released counts as live.
    pub(super) fn live_bytes(&self, facts: &ExtentFacts) -> u64 {
        let headers = u64::from(facts.frames) * FRAME_HEADER_BYTES;
        let idle = self.cleaner.contents.get(&facts.ordinal).map_or(0, |contents| contents.idle_bytes);
        facts.bytes.saturating_sub(headers + idle).saturating_sub(facts.dead_bytes)
    }
}

/// What is to be copied.
struct Copies {
    /// Bytes of the records, at the most.
    live: u64,
    /// How many there are, at the most.
    records: u64,
    /// Bytes of the longest.
    longest: u64,
    /// Bytes of a group.
    group: u64,
    slot: u64,
    /// Some are of batch data.
    has_roots: bool,
}

impl Copies {
    /// Slots that they take, at the most, if each group is a frame of its own.
    fn slots(&self) -> u64 {
        let entry = MovedGroup::entry_bytes(self.has_roots) as u64;
        let list = record_bytes(MovedGroup::bytes_of(0, self.has_roots) as u64);
        let bytes = self.live + self.records.min(self.live / RECORD_HEADER_BYTES) * entry;
        // What does not fit any more ends a group, and any two in a row have more than one's room.
        let room = self.group - list;
        let fill = room.saturating_sub(self.longest + entry).max(room / 2);
        let groups = bytes / fill + 1;
        let most = (bytes + groups * (list + FRAME_HEADER_BYTES)).div_ceil(self.slot) + groups;
        // One record alone may be longer than a group.
        let is_bounded = list + entry + self.longest <= self.group;
        let by_groups = groups * (self.group + FRAME_HEADER_BYTES).div_ceil(self.slot);
        if is_bounded { most.min(by_groups) } else { most }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Groups as `copying` makes them, each in a frame of its own, of random lengths up to some bound.
    #[test]
    fn no_more_slots_are_taken_than_was_thought() {
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut below = |bound: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % bound
        };
        let sizes = [(8 << 10, 4 << 10), (16 << 10, 4 << 10), (128 << 10, 4 << 10), (32 << 10, 64 << 10)];
        let cases = sizes.into_iter().flat_map(|sizes| [(sizes, false), (sizes, true)]);
        for ((group, slot), has_roots) in cases {
            for longest in [1, 100, 1000, 5000, 15_000] {
                let group = group - FRAME_HEADER_BYTES;
                let records: Vec<u64> = (0..500).map(|_| record_bytes(below(longest))).collect();
                let (mut slots, mut count, mut bytes) = (0, 0, 0);
                let of = |count: usize, bytes: u64| {
                    record_bytes(MovedGroup::bytes_of(count, has_roots) as u64) + bytes
                };
                let frame = |bytes: u64| (FRAME_HEADER_BYTES + bytes).div_ceil(slot);
                for record in &records {
                    if count > 0 && of(count + 1, bytes + record) > group {
                        slots += frame(of(count, bytes));
                        (count, bytes) = (0, 0);
                    }
                    (count, bytes) = (count + 1, bytes + record);
                }
                slots += frame(of(count, bytes));
                let copies = Copies {
                    live: records.iter().sum(),
                    records: records.len() as u64,
                    longest: records.iter().copied().max().unwrap_or(0),
                    group,
                    slot,
                    has_roots,
                };
                let thought = copies.slots();
                assert!(slots <= thought, "{slots} slots, {thought} thought: {group} {slot} {longest}");
            }
        }
    }
}
