//! Shards that have gone quiet: a checkpoint, and a frame behind it that states it, so that a reopen has next to nothing
//! to walk over; and then nothing, however long it stays quiet.

use super::{CheckpointPlace, ShardOwner};
use crate::{
    device::{Device, Instant},
    format::{control::Control, frame::FrameHeader},
    ids::FrameNumber,
    limits::QUIET_FRAMES_MIN,
    mutant::{self, Mutant},
    sync::Ordering,
};

/// The frame that is being filled, and how far: as long as it stays the same, nobody appends.
type Standing = (FrameNumber, u64);

/// What a quiet shard has yet to write.
#[derive(Debug, Default)]
pub(in crate::shard_owner) struct Quiet {
    /// Frames were submitted that no checkpoint covers, and that hold more than checkpoints.
    has_news: bool,
    /// No frame states the newest checkpoint.
    is_unstated: bool,
    /// One is to be written that does.
    wants_mark: bool,
    /// Since when the ring stands as it does; looked at when the core is about to sleep.
    since: Option<(Standing, Instant)>,
}

impl Quiet {
    /// `frames`: behind the checkpoint that the shard was opened with.
    pub(super) fn new(frames: u64) -> Self {
        Self { has_news: frames >= QUIET_FRAMES_MIN, ..Self::default() }
    }

    /// A checkpoint covers what was submitted so far. Gives what [`Quiet::checkpoint_failed`] takes.
    pub(super) fn checkpoint_begins(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// It came to nothing.
    pub(super) const fn checkpoint_failed(&mut self, had_news: bool) {
        self.has_news |= had_news;
    }

    /// It is durable. `wants_mark`: nobody may come and state it.
    pub(super) const fn checkpoint_ends(&mut self, wants_mark: bool) {
        self.is_unstated = true;
        self.wants_mark |= wants_mark;
    }

    /// A frame was submitted.
    pub(in crate::shard_owner) fn note_frame(
        &mut self,
        header: &FrameHeader,
        has_news: bool,
        newest: Option<&CheckpointPlace>,
    ) {
        self.has_news |= has_news || mutant::is_active(Mutant::QuietWritesAgain);
        if header.checkpoint == newest.map(|newest| newest.address) {
            (self.is_unstated, self.wants_mark) = (false, false);
        }
    }
}

impl ShardOwner {
    fn standing(&self) -> Standing {
        let current = self.shared.ring().current_frame();
        (current, self.ring.state(current).offset())
    }

    /// True if there is something to write, and nothing is under way that does.
    fn wants_quiet(&self) -> bool {
        let quiet = &self.space.quiet;
        let is_able = !self.is_closing
            && self.shared.health.failure().is_none()
            && !self.shared.is_starved.load(Ordering::Acquire);
        is_able && self.space.writing.is_none() && !quiet.wants_mark && (quiet.has_news || quiet.is_unstated)
    }

    /// When the shard will have been quiet for long enough; starts the clock. `None`: it has nothing to write then.
    pub(crate) fn quiet_deadline(&mut self, now: Instant) -> Option<Instant> {
        let limit = self.context.quiet?;
        if !self.wants_quiet() {
            self.space.quiet.since = None;
            return None;
        }
        let standing = self.standing();
        let since = match self.space.quiet.since {
            Some((before, since)) if before == standing => since,
            _ => now,
        };
        self.space.quiet.since = Some((standing, since));
        Some(since.after(limit))
    }

    /// Writes what a quiet shard has to, once it was quiet for long enough. True if anything was begun.
    pub(in crate::shard_owner) fn pump_quiet(&mut self, device: &dyn Device) -> bool {
        let (Some((standing, since)), Some(limit)) = (self.space.quiet.since, self.context.quiet) else {
            return false;
        };
        if standing != self.standing() || !self.wants_quiet() {
            // The clock starts again when the core is about to sleep.
            self.space.quiet.since = None;
            return false;
        }
        if device.now() < since.after(limit) {
            return false;
        }
        self.space.quiet.since = None;
        if self.space.quiet.has_news {
            self.begin_checkpoint(true);
        } else {
            self.space.quiet.wants_mark = true;
        }
        true
    }

    /// The frame that states a checkpoint behind which nobody appends. True if it was appended.
    pub(super) fn place_mark(&mut self) -> bool {
        if !self.space.quiet.wants_mark {
            return false;
        }
        if self.shared.is_starved.load(Ordering::Acquire) {
            // What room is left is not for this.
            self.space.quiet.wants_mark = false;
            return false;
        }
        let is_placed = self.append_control(&Control::IdleMark.encode()).is_some();
        self.space.quiet.wants_mark &= !is_placed;
        is_placed
    }
}
