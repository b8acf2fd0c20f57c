//! What a sync of the core means for the shard.

use super::{NextExtent, ShardOwner};
use crate::{
    device::{Errno, Verb},
    ids::{DeviceIndex, FrameNumber},
    mutant::{self, Mutant},
    sync::Ordering,
};

impl ShardOwner {
    /// True if somebody waits for durability of something that is written.
    pub(crate) fn wants_sync(&self) -> bool {
        let durable = self.shared.durable.reached();
        self.shared.health.failure().is_none()
            && self.shared.durable.wanted() > durable
            && self.shared.written.reached() > durable
    }

    /// What a sync that is submitted now covers, and the devices that it has to reach. `None`: nothing new.
    pub(crate) fn begin_sync(&mut self) -> Option<(FrameNumber, u16)> {
        let written = self.shared.written.reached();
        let nothing_new = written == self.shared.durable.reached() || self.shared.health.failure().is_some();
        (!nothing_new).then(|| (written, std::mem::take(&mut self.unsynced_devices)))
    }

    /// A sync of the core failed: every core of the store hears of it, before it acknowledges anything else.
    pub(crate) fn note_sync_failure(&self, device: DeviceIndex, errno: Errno) {
        self.context.sync_failures.note(device, errno);
    }

    /// The sync that covered the frames below `covered` succeeded.
    pub(crate) fn sync_completed(&mut self, covered: FrameNumber) {
        if self.shared.health.failure().is_some() {
            return;
        }
        if let Some((device, errno)) = self.at_risk.lost(&self.context.sync_failures) {
            return self.sync_failed(device, errno);
        }
        if self.has_nothing_at_risk() {
            self.at_risk.clear();
        }
        self.shared.counters().syncs.fetch_add(1, Ordering::Relaxed);
        let covered = if mutant::is_active(Mutant::SyncCoversLater) { self.next_frame } else { covered };
        if covered > self.shared.durable.reached() {
            self.shared.durable.publish(covered, &mut self.woken);
        }
        self.advance();
    }

    /// After a sync: nothing was written since it began, and nothing is on its way.
    fn has_nothing_at_risk(&self) -> bool {
        self.unsynced_devices == 0
            && self.flights.iter().all(|flight| flight.is_written)
            && matches!(self.next_extent, NextExtent::Idle)
    }

    /// The sync failed: what it covered is in an unknown state for ever, so the shard stops.
    pub(crate) fn sync_failed(&mut self, device: DeviceIndex, errno: Errno) {
        let slot = self.shared.written_end();
        self.fail_io(Verb::Sync, device, slot, 0, errno);
    }
}
