//! Whoever empties a shard needs each record in one place, and its owner to know that one: while an extent is half cleaned,
//! the owner looks for copies at the new place, and a scan gives the records at the old one.

use super::Stage;
use crate::{
    requests::{Reply, Responder},
    shard_owner::{ShardOwner, SpaceRefusal},
};

impl ShardOwner {
    /// Answers once no extent is half cleaned.
    pub(in crate::shard_owner) fn end_cleaning_for(&mut self, responder: Responder) {
        self.cleaner.ends.push(responder);
    }

    /// Answers those who wait, if nothing is half cleaned, or cannot come to its end.
    pub(super) fn answer_ends(&mut self) -> bool {
        if self.cleaner.ends.is_empty() {
            return false;
        }
        match self.end_of_cleaning() {
            None => return false,
            Some(Ok(())) => {
                let done = self.space_done(0);
                self.cleaner.ends.drain(..).for_each(|it| it.answer(Reply::Space(Ok(done))));
            }
            Some(Err(why)) => self.refuse_end_of_cleaning(&why),
        }
        true
    }

    /// `None`: it goes on.
    fn end_of_cleaning(&self) -> Option<Result<(), SpaceRefusal>> {
        // What an earlier open copied and nobody is told of does not count.
        let is_off = self.context.cleaning.owner().is_none();
        let is_whole = is_off || self.space.moves.is_empty();
        let Some(task) = &self.cleaner.task else {
            return match (self.cleaner.pending.is_empty(), is_whole) {
                (true, true) => Some(Ok(())),
                (true, false) if self.unfinished().is_none() => Some(Err(SpaceRefusal::CleaningStopped)),
                _ => None,
            };
        };
        if task.crosses && task.stage == Stage::Settle && self.cleaner.pending.is_empty() {
            // Their owner was told, and the copies are not in this shard: they are not lost with it.
            return Some(Ok(()));
        }
        let is_held = task.stage == Stage::Settle && self.shared.scans().is_held();
        match (is_held, self.cleaner.is_blocked) {
            (true, _) => Some(Err(SpaceRefusal::CleaningHeld)),
            (false, true) => Some(Err(SpaceRefusal::StoreFull)),
            (false, false) => None,
        }
    }

    /// True if some of an extent is copied, and it is not free.
    #[cfg(feature = "sim")]
    pub(crate) fn is_half_cleaned(&self) -> bool {
        !self.space.moves.is_empty()
    }

    pub(in crate::shard_owner) fn refuse_end_of_cleaning(&mut self, why: &SpaceRefusal) {
        let ends = self.cleaner.ends.drain(..);
        ends.for_each(|responder| responder.answer(Reply::Space(Err(why.clone()))));
    }
}
