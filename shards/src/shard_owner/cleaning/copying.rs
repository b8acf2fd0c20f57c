//! Groups of copies, from the records that were gathered to the ring.

use super::{Pending, Task};
use crate::{
    format::{
        control::Control,
        moved::MovedGroup,
        record::{RecordKind, record_bytes},
    },
    ids::ExtentOrdinal,
    limits::{CLEAN_GROUPS_PENDING_MAX, FRAME_HEADER_BYTES},
    mutant::{self, Mutant},
    ring::{Refusal, group::RecordGroup},
    shard_owner::{Move, ShardOwner},
    sync::Ordering,
};
use std::sync::Arc;

impl ShardOwner {
    /// True if a record of this length can be added to the group: it has at most half a buffer, but for a longer
    /// record, which is one by itself.
    pub(super) fn has_room(&self, task: &Task, payload: usize) -> bool {
        let records = task.records.len() + 1;
        let control = record_bytes(MovedGroup::bytes_of(records, task.contents.has_batch_data) as u64);
        task.records.is_empty() || control + task.copies.bytes_with(payload) <= self.group_bytes_max()
    }

    /// A frame with one group fills half of a buffer's slots, and one with two all of them.
    pub(super) fn group_bytes_max(&self) -> u64 {
        self.shared.ring().buffer_bytes() / 2 - FRAME_HEADER_BYTES
    }

    /// Makes a group of what was gathered, if anything was. Records before `up_to` were looked at.
    pub(super) fn make_ready(&self, task: &mut Task, up_to: u64) {
        if task.records.is_empty() {
            return;
        }
        let moved = MovedGroup {
            origin: self.origin(&task.facts),
            from: task.from,
            up_to,
            previous: task.last,
            records: std::mem::take(&mut task.records),
        };
        let control = Control::Moved(moved.clone());
        let mut group = RecordGroup::new();
        group.push(&control.encode(), RecordKind::CONTROL);
        group.append(&task.copies);
        task.copies.clear();
        task.from = up_to;
        task.ready = Some((group, moved.records));
    }

    /// Writes the group that is ready.
    pub(super) fn place_group(&mut self) -> bool {
        if self.cleaner.pending.len() >= CLEAN_GROUPS_PENDING_MAX {
            return false;
        }
        let Some(mut task) = self.cleaner.task.take() else { return false };
        let Some((group, records)) = task.ready.take() else { return false };
        let mut addresses = Vec::with_capacity(records.len() + 1);
        let crosses = task.crosses;
        let target = Arc::clone(self.target(crosses));
        if !crosses {
            // Before the copies are there. They go to the extent that is written to, or a later one.
            self.shared.scans().note_copies(Some(self.last_ordinal));
        }
        // The extent that is written to, or the one before it.
        let first = ExtentOrdinal(target.ordinals().end.saturating_sub(2));
        let crossing = self.cold().filter(|_| crosses).map(|cold| Arc::clone(&cold.crossing));
        let copying = crossing.as_ref().map(|crossing| crossing.begin_copy());
        let reserved = target.ring().reserve_privileged(group.reserve_length());
        let placed = reserved.map(|room| room.commit_group(&group, &mut |address| addresses.push(address)));
        if mutant::is_active(Mutant::RelocatedTwice)
            && let Ok(room) = target.ring().reserve_privileged(group.reserve_length())
        {
            room.commit_group(&group, &mut |_address| ());
        }
        let placed = match placed {
            Ok(placed) => placed,
            Err(refusal) => {
                task.ready = Some((group, records));
                self.cleaner.task = Some(task);
                drop(copying);
                return self.has_no_room(refusal, crosses);
            }
        };
        let origin = self.origin(&task.facts);
        task.last = Some(placed.address);
        let state = Move { origin, up_to: task.from, last: task.last };
        match copying {
            Some(mut copying) => copying.note(state, first),
            None => self.note_move(state),
        }
        self.note_room_taken(crosses);
        target.durable.want(placed.frame);
        if crosses {
            target.ring().bell().ring();
        }
        self.count_group(&group, &records);
        let (frame, elsewhere) = (placed.frame, std::mem::take(&mut task.elsewhere));
        let placed = Pending { crosses, frame, origin, group, records, addresses, elsewhere };
        self.cleaner.pending.push_back(placed);
        self.cleaner.task = Some(task);
        true
    }

    /// Some of the copies found room.
    pub(super) fn note_room_taken(&mut self, crosses: bool) {
        self.cleaner.is_blocked = false;
        self.set_hope(true);
        self.target(crosses).wants_room.store(false, Ordering::Release);
    }

    pub(super) fn has_no_room(&mut self, refusal: Refusal, crosses: bool) -> bool {
        let is_claiming = if crosses { self.is_cold_claiming() } else { self.is_claiming() };
        match refusal {
            Refusal::NoExtent if self.context.extents.free_count() > 0 => {
                self.cleaner.is_blocked = false;
                self.set_hope(true);
                if crosses { self.want_room_in_cold() } else { self.want_room() }
            }
            Refusal::NoExtent if !is_claiming => {
                self.cleaner.is_blocked = true;
                self.set_hope(false);
            }
            // A completed write makes room; a closed ring takes nothing any more.
            Refusal::NoExtent | Refusal::Exhausted | Refusal::Closed | Refusal::Retired => {}
            Refusal::TooLarge { .. } => return self.leave_alone("a record of it is too long"),
        }
        false
    }

    fn note_move(&mut self, state: Move) {
        match self.space.moves.iter_mut().find(|known| known.origin == state.origin) {
            Some(known) => *known = state,
            None => self.space.moves.push(state),
        }
    }

    fn count_group(&self, group: &RecordGroup, records: &[crate::format::moved::MovedRecord]) {
        let counters = self.shared.counters();
        counters.records_moved.fetch_add(records.len() as u64, Ordering::Relaxed);
        counters.bytes_moved.fetch_add(group.bytes().len() as u64, Ordering::Relaxed);
    }
}
