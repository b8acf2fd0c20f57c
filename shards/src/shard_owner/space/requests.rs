//! What is asked of a shard about its space, turned into control records one by one.

use super::{Request, ShardOwner, SpaceAsk, SpaceRefusal};
use crate::{
    format::{
        control::{Control, Cursor, FreedExtent, LogPlace},
        manifest::Manifest,
    },
    ids::ExtentOrdinal,
    limits::{CURSOR_NAME_BYTES_MAX, CURSORS_MAX, FREED_PER_RECORD_MAX},
    mutant::{self, Mutant},
    requests::{Reply, Responder},
    ring::Refusal,
};
use std::sync::Arc;

impl ShardOwner {
    /// Appends what the first request asks for. False: there is none, or it has to wait.
    pub(super) fn take_request(&mut self) -> bool {
        match self.space.requests.pop_front() {
            None => false,
            Some(Request::Free(ordinal)) => self.take_frees(ordinal),
            Some(Request::Ask(SpaceAsk::Checkpoint, responder)) => self.take_checkpoint(responder),
            Some(Request::Ask(SpaceAsk::Trim { place, respect_cursors }, responder)) => {
                self.take_trim(place, respect_cursors, responder)
            }
            Some(Request::Ask(SpaceAsk::SetCursor(cursor), responder)) => self.take_cursor(cursor, responder),
            Some(Request::Ask(SpaceAsk::RemoveCursor(name), responder)) => self.take_removal(name, responder),
            Some(Request::Ask(SpaceAsk::Leave(from), responder)) => self.take_leave(from, responder),
            Some(Request::Ask(SpaceAsk::EndCleaning, responder)) => {
                self.end_cleaning_for(responder);
                true
            }
        }
    }

    pub(super) fn put_back(&mut self, ask: SpaceAsk, responder: Responder) -> bool {
        self.space.requests.push_front(Request::Ask(ask, responder));
        false
    }

    /// Begins a checkpoint for what cannot go on without a newer one; if one is under way that is waited for.
    pub(super) fn need_checkpoint(&mut self) {
        if self.space.writing.is_none() {
            self.begin_checkpoint(true);
            self.place_parts();
        }
    }

    /// False if the store is full and little of the reserve is left: that is kept for what frees extents.
    fn has_room_for_notes(&self) -> bool {
        let ring = self.shared.ring();
        let geometry = self.context.layout.geometry();
        let left = ring.position().map_or(u64::MAX, |position| geometry.slots_left(position.base));
        !ring.is_restricted() || left >= geometry.slots_per_extent() / 2
    }

    pub(super) fn take_checkpoint(&mut self, responder: Responder) -> bool {
        if !self.has_room_for_notes() {
            responder.answer(Reply::Space(Err(SpaceRefusal::StoreFull)));
            return true;
        }
        if self.space.writing.is_some() {
            // It does not cover what came since: another one follows.
            return self.put_back(SpaceAsk::Checkpoint, responder);
        }
        self.space.waiting.push(responder);
        self.need_checkpoint();
        true
    }

    /// Void records take what is left of the extent: nothing else would, for nobody appends any more.
    fn take_leave(&mut self, from: Option<ExtentOrdinal>, responder: Responder) -> bool {
        let ring = Arc::clone(self.shared.ring());
        if !ring.is_retired() {
            responder.answer(Reply::Space(Err(SpaceRefusal::NotRetired)));
            return true;
        }
        // A ring that stands nowhere has left its extent.
        let from = from.or_else(|| ring.current_ordinal());
        while from.is_some() && ring.current_ordinal() == from {
            match ring.reserve_privileged(ring.payload_bytes_max() as usize) {
                Ok(reservation) => drop(reservation),
                Err(refusal) => {
                    self.space.wants_room |= refusal == Refusal::NoExtent;
                    return self.put_back(SpaceAsk::Leave(from), responder);
                }
            }
        }
        self.take_checkpoint(responder)
    }

    pub(super) fn take_frees(&mut self, first: ExtentOrdinal) -> bool {
        let mut ordinals = vec![first];
        while let Some(Request::Free(next)) = self.space.requests.front()
            && ordinals.len() < FREED_PER_RECORD_MAX
        {
            ordinals.push(*next);
            self.space.requests.pop_front();
        }
        let victims: Vec<_> = ordinals.iter().filter_map(|ordinal| self.victim(*ordinal)).collect();
        let Some(last) = victims.iter().map(|victim| victim.ordinal).max() else { return true };
        let may_free = self.space.may_free_before(ExtentOrdinal(last.0 + 1));
        let placed =
            if may_free { self.append_control(&Control::Freed(victims.clone()).encode()) } else { None };
        let Some(placed) = placed else {
            let requests = &mut self.space.requests;
            ordinals.into_iter().rev().for_each(|ordinal| requests.push_front(Request::Free(ordinal)));
            if !may_free {
                self.need_checkpoint();
            }
            return false;
        };
        self.note(placed.frame, victims, None);
        true
    }

    pub(super) fn victim(&self, ordinal: ExtentOrdinal) -> Option<FreedExtent> {
        let facts = self.space.live.get(&ordinal)?;
        Some(FreedExtent { ordinal, extent: facts.extent, generation: facts.generation })
    }

    pub(super) fn take_trim(&mut self, place: LogPlace, respect_cursors: bool, responder: Responder) -> bool {
        if self.is_cold() {
            // What counts there next may lie in front of a place that somebody has read up to.
            responder.answer(Reply::Space(Err(SpaceRefusal::Cold)));
            return true;
        }
        if !self.is_behind(place) {
            responder.answer(Reply::Space(Err(SpaceRefusal::Ahead)));
            return true;
        }
        let slowest = self.space.cursors.values().map(|cursor| cursor.place).min();
        let mark = if respect_cursors { slowest.map_or(place, |slowest| slowest.min(place)) } else { place };
        // An earlier trim may have had to leave extents that can go now.
        let mark = mark.max(self.space.trim);
        let kept_from = self.kept_from(mark.ordinal);
        let victims: Vec<_> =
            self.space.live.range(..kept_from).filter_map(|(ordinal, _)| self.victim(*ordinal)).collect();
        if victims.is_empty() && mark == self.space.trim {
            // Done before; it may still be on its way.
            self.answer_later(responder);
            return true;
        }
        if victims.is_empty() && !self.has_room_for_notes() {
            responder.answer(Reply::Space(Err(SpaceRefusal::StoreFull)));
            return true;
        }
        let may_free = victims.is_empty() || self.space.may_free_before(kept_from);
        let control = Control::Trim { place: mark, kept_from };
        let placed = if may_free { self.append_control(&control.encode()) } else { None };
        let Some(placed) = placed else {
            self.put_back(SpaceAsk::Trim { place, respect_cursors }, responder);
            if !may_free {
                self.need_checkpoint();
            }
            return false;
        };
        self.space.trim = mark;
        self.note(placed.frame, victims, Some(responder));
        true
    }

    /// The first extent that has to stay if nothing before the extent `mark` is wanted: what lies behind, or is being
    /// written, may have parts in front of it.
    fn kept_from(&self, mark: ExtentOrdinal) -> ExtentOrdinal {
        let lists = self.space.live.range(mark..).filter_map(|(_, facts)| facts.lists_from);
        let lists = lists.filter(|_| !mutant::is_active(Mutant::TrimIgnoresLists));
        // Frames up to here are counted above.
        lists.chain(self.first_unsettled()).fold(mark, Ord::min)
    }

    /// The first extent that has something of what is being written, or of a batch that is decided and not done here: a list
    /// that is not there yet may need it.
    pub(in crate::shard_owner) fn first_unsettled(&self) -> Option<ExtentOrdinal> {
        let writers = self.shared.writers.oldest(self.next_frame);
        let writers = writers.filter(|_| !mutant::is_active(Mutant::TrimIgnoresWriters));
        let unresolved = self.space.unresolved.iter().filter_map(|it| Manifest::peek_from(&it.list));
        unresolved.chain(writers).min()
    }

    /// True if something was appended at the place, or behind it.
    pub(super) fn is_behind(&self, place: LogPlace) -> bool {
        let ring = self.shared.ring();
        let geometry = self.context.layout.geometry();
        let Some(position) = ring.position() else {
            return self.parked_at.is_none_or(|next| place.ordinal < next);
        };
        let Some(current) = self.context.extents.ordinal(geometry.extent_of(position.base)) else {
            return false;
        };
        let end = geometry.byte_of(position.base) + ring.buffer_bytes();
        place.ordinal < current || (place.ordinal == current && place.byte < end)
    }

    pub(super) fn take_cursor(&mut self, cursor: Cursor, responder: Responder) -> bool {
        let is_new = !self.space.cursors.contains_key(&cursor.name);
        let refusal = if cursor.name.is_empty() || cursor.name.len() > CURSOR_NAME_BYTES_MAX {
            Some(SpaceRefusal::CursorName)
        } else if is_new && self.space.cursors.len() >= CURSORS_MAX {
            Some(SpaceRefusal::TooManyCursors)
        } else if !self.is_behind(cursor.place) {
            Some(SpaceRefusal::Ahead)
        } else if !self.has_room_for_notes() {
            Some(SpaceRefusal::StoreFull)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            responder.answer(Reply::Space(Err(refusal)));
            return true;
        }
        let Some(placed) = self.append_control(&Control::CursorSet(cursor.clone()).encode()) else {
            return self.put_back(SpaceAsk::SetCursor(cursor), responder);
        };
        self.space.cursors.insert(cursor.name.clone(), cursor);
        self.note(placed.frame, Vec::new(), Some(responder));
        true
    }

    pub(super) fn take_removal(&mut self, name: String, responder: Responder) -> bool {
        let is_known = self.space.cursors.contains_key(&name);
        if !is_known || !self.has_room_for_notes() {
            let refusal = if is_known { SpaceRefusal::StoreFull } else { SpaceRefusal::NoSuchCursor };
            responder.answer(Reply::Space(Err(refusal)));
            return true;
        }
        let Some(placed) = self.append_control(&Control::CursorRemoved(name.clone()).encode()) else {
            return self.put_back(SpaceAsk::RemoveCursor(name), responder);
        };
        self.space.cursors.remove(&name);
        self.note(placed.frame, Vec::new(), Some(responder));
        true
    }
}
