//! When the open frame of a shard is sealed: for its waiters, or because it lingered.

use super::ShardOwner;
use crate::{
    device::{Device, Instant},
    mutant::{self, Mutant},
};

impl ShardOwner {
    /// Group commit: the open frame is sealed for its waiters once nothing of the shard is on its way to the device,
    /// so records gather while a write or a sync is.
    pub(super) fn wants_seal(&self, is_syncing: bool) -> bool {
        let current = self.shared.ring().current_frame();
        let written_wanted = self.shared.written.wanted() > current;
        let durable_wanted = self.shared.durable.wanted() > current;
        let is_writing = self.flights.iter().any(|flight| !flight.is_written);
        let is_idle = !is_writing && self.next_frame == current;
        is_idle
            && self.gathers_until().is_none()
            && (written_wanted || (durable_wanted && !is_syncing))
            && !self.ring.state(current).is_sealed()
            && self.ring.state(current).offset() > 0
    }

    pub(super) fn seal_what_is_asked(&mut self, device: &dyn Device, is_syncing: bool) -> bool {
        if self.wants_seal(is_syncing) || self.has_lingered(device) {
            self.end_gathering(true);
            let _any_outcome_is_fine = self.shared.ring().seal();
            return true;
        }
        false
    }

    /// When the linger of a part-filled frame ends; starts the clock of a frame that is new.
    pub(crate) fn linger_deadline(&mut self, now: Instant) -> Option<Instant> {
        let linger = self.context.linger?;
        let current = self.shared.ring().current_frame();
        let state = self.ring.state(current);
        let is_busy = !self.flights.is_empty() && !mutant::is_active(Mutant::LingerWhileBusy);
        if state.offset() == 0 || state.is_sealed() || is_busy {
            // On a busy shard the next completion looks again: a timer there would only make writes smaller.
            self.linger_since = None;
            return None;
        }
        let since = match self.linger_since {
            Some((frame, since)) if frame == current => since,
            _ => now,
        };
        self.linger_since = Some((current, since));
        Some(since.after(linger))
    }

    pub(super) fn has_lingered(&mut self, device: &dyn Device) -> bool {
        if self.context.linger.is_none() {
            return false;
        }
        let now = device.now();
        self.linger_deadline(now).is_some_and(|deadline| deadline <= now)
    }
}
