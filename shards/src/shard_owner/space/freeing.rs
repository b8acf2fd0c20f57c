//! What follows once a control record is durable: answers, and extents that are anybody's.

use super::{Note, ShardOwner, Space, SpaceDone};
use crate::{
    device::{Completion, Device, Operation},
    format::control::FreedExtent,
    ids::{ExtentIndex, FrameNumber},
    mutant::{self, Mutant},
    requests::{Reply, Responder},
    shard_owner::Move,
    sync::Ordering,
    token::Purpose,
};

impl ShardOwner {
    pub(super) fn note(
        &mut self,
        frame: FrameNumber,
        victims: Vec<FreedExtent>,
        responder: Option<Responder>,
    ) {
        for victim in &victims {
            self.space.live.remove(&victim.ordinal);
            // From here on the copies count, if there are any.
            let own = self.shared.id();
            let is_of = |it: &Move| it.origin.shard == own && it.origin.ordinal == victim.ordinal;
            self.space.moves.retain(|it| !is_of(it));
        }
        self.oldest = self.space.oldest().unwrap_or(self.last_ordinal);
        let done = self.space_done(victims.len() as u64);
        let mut note = Note { frame, victims, responder, done };
        if mutant::is_active(Mutant::FreedBeforeDurable) {
            self.release(std::mem::take(&mut note.victims));
        }
        if mutant::is_active(Mutant::TrimNotDurable)
            && let Some(responder) = note.responder.take()
        {
            responder.answer(Reply::Space(Ok(done)));
        }
        self.space.notes.push_back(note);
    }

    /// What is so once what was appended is durable.
    pub(in crate::shard_owner) fn space_done(&self, freed: u64) -> SpaceDone {
        let Space { trim, live, .. } = &self.space;
        let oldest = self.space.oldest().unwrap_or(self.last_ordinal);
        SpaceDone { trim: *trim, oldest, freed, held: live.range(..trim.ordinal).count() as u64 }
    }

    pub(super) fn answer_later(&mut self, responder: Responder) {
        let done = self.space_done(0);
        match self.space.notes.back().map(|note| note.frame) {
            Some(frame) => {
                self.space.notes.push_back(Note {
                    frame,
                    victims: Vec::new(),
                    responder: Some(responder),
                    done,
                });
            }
            None => responder.answer(Reply::Space(Ok(done))),
        }
    }

    pub(super) fn end_notes(&mut self) -> bool {
        let durable = self.shared.durable.reached();
        let mut progress = false;
        while self.space.notes.front().is_some_and(|note| note.frame < durable)
            && let Some(note) = self.space.notes.pop_front()
        {
            progress = true;
            let (cursors, is_last) = (self.space.cursors(), self.space.notes.is_empty());
            self.shared.publish_space(|space| {
                space.trim = space.trim.max(note.done.trim);
                // Those of a later record that is not durable yet come with that.
                if is_last {
                    space.cursors = cursors;
                }
            });
            // A scan that finds an extent gone has to find that it was trimmed.
            self.release(note.victims);
            if let Some(responder) = note.responder {
                responder.answer(Reply::Space(Ok(note.done)));
            }
        }
        progress
    }

    /// Gives extents back: nobody finds them by the shard any more, and whoever has an address hears that it is gone.
    pub(super) fn release(&mut self, victims: Vec<FreedExtent>) {
        for victim in victims {
            self.shared.remove_extent(victim.ordinal);
            self.forget_extent(victim.ordinal);
            if self.context.discard {
                self.context.extents.withdraw(victim.extent);
                self.space.discards.push_back(victim.extent);
            } else {
                self.set_free(victim.extent);
            }
        }
    }

    pub(super) fn set_free(&mut self, extent: ExtentIndex) {
        self.context.extents.free(extent);
        self.space.released += 1;
        self.shared.publish_space(|space| space.freed += 1);
        tracing::debug!(shard = %self.shared.id(), %extent, "extent freed");
        self.shared.counters().extents_freed.fetch_add(1, Ordering::Relaxed);
    }

    /// One extent at a time: a discard may take long, and others use the queue.
    pub(in crate::shard_owner) fn pump_discards(&mut self, device: &mut dyn Device) -> bool {
        if self.space.discarding.is_some() {
            return false;
        }
        let Some(extent) = self.space.discards.pop_front() else { return false };
        let geometry = *self.context.layout.geometry();
        let first = geometry.first_frame_slot(extent);
        let Some(place) = self.context.layout.place(first) else { return false };
        let length = geometry.slots_left(first) * geometry.slot_bytes();
        let operation = Operation::Discard { device: place.device, offset: place.offset, length };
        self.space.discarding = Some(extent);
        self.submit_or_hold(device, Purpose::Discard(self.local).into(), operation);
        true
    }

    /// What the device makes of a discard is its own affair: the extent is free in any case.
    pub(crate) fn discard_completed(&mut self, device: &mut dyn Device, completion: &Completion) {
        if let Err(errno) = completion.result {
            tracing::warn!(shard = %self.shared.id(), %errno, "an extent was freed, and not discarded");
        }
        if let Some(extent) = self.space.discarding.take() {
            self.set_free(extent);
        }
        self.pump_discards(device);
    }
}
