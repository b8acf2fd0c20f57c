//! Whether to clean, and which extent.

use super::{Contents, Reading, Stage, Standing, Task};
use crate::{
    cleaning::{Candidate, VictimPolicy},
    format::{control::ExtentFacts, moved::MovedGroup, record::record_bytes},
    ids::{ExtentOrdinal, FrameNumber},
    limits::{CLEAN_LIVE_PERCENT_MAX, FRAME_HEADER_BYTES, MOVED_ENTRY_BYTES},
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
        }
    }

    /// An extent whose cleaning an earlier open began.
    fn unfinished(&self) -> Option<super::Move> {
        let is_possible = |it: &&super::Move| !self.cleaner.left_alone.contains(&it.origin.ordinal);
        self.space.moves.iter().find(is_possible).copied()
    }

    /// True if it is worth looking for an extent to clean.
    pub(super) fn may_begin(&self) -> bool {
        if matches!(self.cleaner.reading, Reading::Flying { .. }) {
            return false;
        }
        let extents = &self.context.extents;
        let (low, high) = self.context.cleaning.options().marks(extents.len());
        let is_on = extents.free_for_appends() < if self.cleaner.is_on { high } else { low };
        self.unfinished().is_some() || (is_on && self.cleaner.barren_at != Some(self.what_matters()))
    }

    pub(super) fn begin_cleaning(&mut self) -> bool {
        if !self.may_begin() {
            return false;
        }
        self.cleaner.reading = Reading::Idle;
        if let Some(known) = self.unfinished() {
            return self.resume_cleaning(&known);
        }
        // Before the look: what is released after it changes the number.
        let standing = self.what_matters();
        let Some(facts) = self.choose() else {
            self.cleaner.barren_at = Some(standing);
            if let Some(frame) = self.next_to_be_durable() {
                // Nobody else may ever ask for it, and those who wait for room wait for this.
                self.shared.durable.want(frame);
                self.set_hope(true);
                return false;
            }
            self.shared.wants_releases.store(true, Ordering::Release);
            self.set_hope(false);
            return false;
        };
        let geometry = self.context.layout.geometry();
        let first = geometry.first_frame_slot(facts.extent);
        let is_known = self.cleaner.contents.contains_key(&facts.ordinal);
        let stage = if is_known { Stage::Copy } else { Stage::Survey };
        self.cleaner.task = Some(Task::begin(facts, first, geometry.byte_of(first), stage));
        self.set_hope(true);
        true
    }

    fn resume_cleaning(&mut self, known: &super::Move) -> bool {
        let Some(facts) = self.space.extent(known.origin.ordinal) else {
            self.cleaner.left_alone.insert(known.origin.ordinal);
            return true;
        };
        let geometry = self.context.layout.geometry();
        let first = geometry.first_frame_slot(facts.extent);
        // Where the first copies are, only the chain of groups knows.
        self.shared.scans().note_copies(Some(facts.ordinal));
        self.cleaner.task = Some(Task::resume(facts, first, known));
        self.set_hope(true);
        true
    }

    /// The extent that the policy likes best, among those that give more room than their copies take.
    fn choose(&self) -> Option<ExtentFacts> {
        let policy = &self.context.cleaning.options().policy;
        let now = super::super::submission::unix_ns();
        let end = self.end_of_candidates();
        let durable = self.shared.durable.reached();
        let mut best: Option<(f64, ExtentFacts)> = None;
        for sealed in self.sealed_extents().take_while(|sealed| sealed.facts.ordinal < end) {
            let facts = sealed.facts;
            let is_durable = facts.frames_end() <= durable;
            if sealed.is_freeing || !is_durable || !self.is_worth_it(&facts) {
                continue;
            }
            let candidate = Candidate {
                ordinal: facts.ordinal,
                live_bytes: live_bytes(&facts),
                extent_bytes: self.context.layout.geometry().extent_bytes(),
                age_ns: now.saturating_sub(facts.unix_ns),
            };
            let score = policy.score(&candidate);
            if best.as_ref().is_none_or(|(other, _)| score > *other) {
                best = Some((score, facts));
            }
        }
        best.map(|(_, facts)| facts)
    }

    /// The last frame of the oldest extent that would be a candidate if it were durable.
    fn next_to_be_durable(&self) -> Option<FrameNumber> {
        let (end, durable) = (self.end_of_candidates(), self.shared.durable.reached());
        self.sealed_extents()
            .take_while(|sealed| sealed.facts.ordinal < end)
            .filter(|sealed| !sealed.is_freeing && self.is_worth_it(&sealed.facts))
            .map(|sealed| sealed.facts.frames_end())
            .find(|end| *end > durable)
            .map(|end| FrameNumber(end.0 - 1))
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
            .min()
            .unwrap_or(ExtentOrdinal(u64::MAX))
    }

    fn is_worth_it(&self, facts: &ExtentFacts) -> bool {
        let contents = self.cleaner.contents.get(&facts.ordinal);
        let is_movable = contents.is_none_or(|contents| self.is_movable(contents));
        if !is_movable || self.cleaner.left_alone.contains(&facts.ordinal) {
            return false;
        }
        let geometry = self.context.layout.geometry();
        let (extent_bytes, buffer_bytes) = (geometry.extent_bytes(), self.shared.ring().buffer_bytes());
        let live = live_bytes(facts);
        // Copies, their lists, slots that are not full, and the buffer that does not fit at the end of an extent: all
        // has to go into one extent, which may be the last of the reserve.
        let needs = live + live / 16 + facts.records * MOVED_ENTRY_BYTES as u64 + 2 * buffer_bytes;
        let room = extent_bytes - geometry.slot_bytes() - buffer_bytes.min(extent_bytes / 4);
        live * 100 <= extent_bytes * CLEAN_LIVE_PERCENT_MAX && (needs <= room || live == 0)
    }

    pub(super) fn is_movable(&self, contents: &Contents) -> bool {
        let alone = record_bytes(MovedGroup::bytes_of(1) as u64) + record_bytes(u64::from(contents.longest));
        !contents.is_fixed && alone <= self.shared.ring().buffer_bytes() - FRAME_HEADER_BYTES
    }
}

/// At the most: what nobody released counts as live.
fn live_bytes(facts: &ExtentFacts) -> u64 {
    let headers = u64::from(facts.frames) * FRAME_HEADER_BYTES;
    facts.bytes.saturating_sub(headers).saturating_sub(facts.dead_bytes)
}
