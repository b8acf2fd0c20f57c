//! Writing checkpoints: a list of what is so before a frame, in as many records as it takes.

use super::{CheckpointPlace, ShardOwner, Space, Writing};
use crate::{
    address::Address,
    format::control::{Checkpoint, Control, ExtentFacts},
    ids::ExtentIndex,
    limits::{CHECKPOINT_ENTRY_BYTES, CHECKPOINT_HEAD_BYTES, CURSOR_NAME_BYTES_MAX},
    mutant::{self, Mutant},
    requests::Reply,
};

impl Space {
    /// Slots that a checkpoint takes in frames of its own, with the mark behind it, in parts of so many bytes.
    pub(in crate::shard_owner) fn checkpoint_slots(&self, slot_bytes: u64, part_bytes: u64) -> u64 {
        let cursors = self.cursors.len() * 2 * CURSOR_NAME_BYTES_MAX;
        let listed = CHECKPOINT_HEAD_BYTES + self.live.len() * CHECKPOINT_ENTRY_BYTES + cursors;
        let bytes = listed as u64;
        bytes.div_ceil(slot_bytes) + bytes / part_bytes + 2
    }
}

impl ShardOwner {
    /// `wants_mark`: nobody may append behind it.
    pub(super) fn begin_checkpoint(&mut self, wants_mark: bool) {
        let forgets = usize::from(mutant::is_active(Mutant::CheckpointForgetsExtent));
        let live = self.space.live.values().skip(forgets);
        let dead = |extent: ExtentIndex| self.context.extents.dead_bytes(extent);
        let cursors = if mutant::is_active(Mutant::CursorLost) { Vec::new() } else { self.space.cursors() };
        let whole = Checkpoint {
            covers: self.next_frame,
            link: self.link,
            trim: self.space.trim,
            extents: live.map(|facts| ExtentFacts { dead_bytes: dead(facts.extent), ..*facts }).collect(),
            cursors,
        };
        let most = self.shared.ring().payload_bytes_max() as usize;
        // Behind what it covers, so that recovery meets how far cleaning has come.
        let crossings = self.crossings_to_repeat();
        let moves = self.space.moves.iter().chain(&crossings).map(|it| Control::Moved(it.repeated()));
        let listed = whole.split(most).into_iter().map(Control::Checkpoint);
        // Recovery takes these wherever it meets them, and it begins before them.
        let parts = moves.chain(listed).chain(self.space.over.records()).map(|it| it.encode()).collect();
        let had_news = self.space.quiet.checkpoint_begins();
        let (covers, last) = (whole.covers, whole.covers);
        self.space.writing = Some(Writing { covers, start: None, parts, last, wants_mark, had_news });
        self.space.since = 0;
    }

    pub(super) fn place_parts(&mut self) -> bool {
        let mut progress = false;
        while let Some(part) = self.space.writing.as_mut().and_then(|writing| writing.parts.pop_front()) {
            let placed = self.append_control(&part);
            let Some(writing) = &mut self.space.writing else { break };
            match placed {
                Some(placed) => {
                    writing.last = placed.frame;
                    progress = true;
                }
                None => {
                    writing.parts.push_front(part);
                    break;
                }
            }
        }
        progress
    }

    /// What is in the log of it is no checkpoint.
    pub(super) fn give_up_checkpoint(&mut self) {
        if let Some(writing) = self.space.writing.take() {
            self.space.quiet.checkpoint_failed(writing.had_news);
        }
    }

    pub(super) fn end_checkpoint(&mut self) -> bool {
        let durable = self.shared.durable.reached();
        let is_durable = |writing: &mut Writing| writing.parts.is_empty() && writing.last < durable;
        let Some(Writing { covers, start: Some((base, ordinal)), wants_mark, .. }) =
            self.space.writing.take_if(is_durable)
        else {
            return false;
        };
        let geometry = self.context.layout.geometry();
        let generation = self.context.extents.generation(geometry.extent_of(base));
        let address = Address::new(geometry, geometry.byte_of(base), generation, 0);
        self.space.checkpoint = Some(CheckpointPlace { address, ordinal, frame: covers });
        self.space.quiet.checkpoint_ends(wants_mark);
        self.shared.publish_space(|space| space.checkpoint = Some(covers));
        let done = self.space_done(0);
        self.space.waiting.drain(..).for_each(|waiting| waiting.answer(Reply::Space(Ok(done))));
        true
    }
}
