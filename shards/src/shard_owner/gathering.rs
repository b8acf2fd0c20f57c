//! Gathering: threads that were told together that their records are durable are about to append the next ones. A frame that is sealed for
//! the first of them leaves the others to wait for two writes, so a core that watches anyway lets them come first.
//!
//! It waits for as many bytes as were told of and were there already, and for [`GATHER_US_MAX`] at most; those who do not come
//! back are not waited for again soon.

use super::ShardOwner;
use crate::{
    core::Callers,
    device::Instant,
    ids::FrameNumber,
    limits::{FRAME_HEADER_BYTES, GATHER_CALLERS_MAX, GATHER_US_MAX, SYNC_SPIN_CALLERS_MIN},
    mutant::{self, Mutant},
    watermark::Told,
};
use std::time::Duration;

/// After so many misses in a row no more groups are skipped than before.
const MISSES_MAX: u32 = 6;

/// What a shard's owner expects of those whom it told.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    /// The last step of durability, and the bytes of the open frame before it; the core has not looked at it yet.
    told: Option<(Told, u64)>,
    round: Option<Round>,
    /// Groups that are still sealed at once, since they did not come back.
    skips: u32,
    misses: u32,
}

/// Until when, and for how much in the open frame, it is left open.
#[derive(Clone, Copy, Debug)]
struct Round {
    until: Instant,
    bytes: u64,
    /// Bytes that were there when it began.
    began_with: u64,
}

impl ShardOwner {
    /// The frames below `durable` are.
    pub(super) fn publish_durable(&mut self, durable: FrameNumber) {
        // Before anybody can come back.
        let open_bytes = self.open_bytes();
        self.told = self.shared.durable.publish(durable, &mut self.woken);
        self.gathering.told = Some((self.told, open_bytes));
    }

    /// Tells those who block whether the device is so slow that nobody should watch.
    pub(crate) fn tell_callers(&self, is_slow: bool) {
        self.shared.durable.set_slow(is_slow);
        self.shared.written.set_slow(is_slow);
    }

    /// Begins to gather for those who were told since the last call, and ends it when the time is over.
    pub(crate) fn settle_gathering(&mut self, callers: Callers, now: impl Fn() -> Instant) {
        if let Some((told, open_bytes)) = self.gathering.told.take() {
            self.begin_gathering(told, open_bytes, callers, &now);
        }
        let Some(round) = self.gathering.round else { return };
        if now() < round.until || mutant::is_active(Mutant::GatheringWithoutEnd) {
            return;
        }
        let came = self.open_bytes().saturating_sub(round.began_with);
        let expected = round.bytes - round.began_with;
        self.end_gathering(2 * came >= expected);
    }

    fn begin_gathering(&mut self, told: Told, began_with: u64, callers: Callers, now: &impl Fn() -> Instant) {
        self.gathering.round = None;
        let are_awake = callers == Callers::Beside && told.all() >= SYNC_SPIN_CALLERS_MIN;
        let are_some = told.watching > 1 || are_awake;
        if !are_some || told.all() > GATHER_CALLERS_MAX {
            return;
        }
        if self.gathering.skips > 0 {
            self.gathering.skips -= 1;
            return;
        }
        let bytes = began_with + self.last.1.saturating_sub(FRAME_HEADER_BYTES);
        // Of long records a frame is soon full, and then nobody waits for more of them.
        if 2 * bytes <= self.shared.ring().buffer_bytes() {
            let until = now().after(Duration::from_micros(GATHER_US_MAX));
            self.gathering.round = Some(Round { until, bytes, began_with });
        }
    }

    /// `is_hit`: they came back, or most of them.
    pub(super) fn end_gathering(&mut self, is_hit: bool) {
        if self.gathering.round.take().is_none() {
            return;
        }
        let misses = if is_hit { 0 } else { (self.gathering.misses + 1).min(MISSES_MAX) };
        self.gathering.misses = misses;
        self.gathering.skips = if is_hit { 0 } else { 1 << misses };
    }

    /// Until when the open frame is left open for those who were told.
    pub(crate) fn gathers_until(&self) -> Option<Instant> {
        let is_open = |round: &Round| self.open_bytes() < round.bytes;
        self.gathering.round.filter(is_open).map(|round| round.until)
    }

    /// Bytes of records in the open frame.
    fn open_bytes(&self) -> u64 {
        self.ring.state(self.shared.ring().current_frame()).offset()
    }
}
