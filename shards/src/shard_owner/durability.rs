//! What a sync of the core means for the shard.

use super::ShardOwner;
use crate::{
    device::{Errno, Verb, WriteSync},
    ids::{DeviceIndex, FrameNumber},
    limits::DEVICES_MAX,
    mutant::{self, Mutant},
    sync::Ordering,
    watermark::Told,
};

/// The devices that hold writes which are not durable yet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unsynced {
    /// A bit for each.
    pub devices: u16,
    /// Of each device, the failed syncs before the first of the writes was submitted.
    failures_before: [u64; DEVICES_MAX as usize],
}

impl Unsynced {
    pub fn add(&mut self, device: DeviceIndex, failures_before: u64) {
        let (bit, place) = (1 << device.0, &mut self.failures_before[usize::from(device.0)]);
        *place = if self.devices & bit == 0 { failures_before } else { failures_before.min(*place) };
        self.devices |= bit;
    }

    /// A device of which a sync failed since the first of the writes was submitted.
    fn first_in_doubt(&self, failures: impl Fn(DeviceIndex) -> u64) -> Option<DeviceIndex> {
        if mutant::is_active(Mutant::SyncFailureForgotten) {
            return None;
        }
        let devices = (0..DEVICES_MAX as u16).map(DeviceIndex).filter(|it| self.devices & 1 << it.0 != 0);
        devices.into_iter().find(|it| failures(*it) > self.failures_before[usize::from(it.0)])
    }
}

impl ShardOwner {
    /// True if somebody waits for durability of something that is written.
    pub(crate) fn wants_sync(&self) -> bool {
        let durable = self.shared.durable.reached();
        self.shared.health.failure().is_none()
            && self.shared.durable.wanted() > durable
            && self.shared.written.reached() > durable
    }

    /// True if somebody waits for durability of what is not durable yet.
    pub(crate) fn is_waited_for(&self) -> bool {
        let durable = &self.shared.durable;
        durable.wanted() > durable.reached() && self.shared.health.failure().is_none()
    }

    /// Whom the last step of durability told.
    pub(crate) const fn told(&self) -> Told {
        self.told
    }

    /// What a sync that is submitted now covers, and the devices that it has to reach. `None`: nothing new.
    pub(crate) fn begin_sync(&mut self) -> Option<(FrameNumber, u16)> {
        let written = self.shared.written.reached();
        let nothing_new = written == self.shared.durable.reached() || self.shared.health.failure().is_some();
        (!nothing_new).then(|| {
            self.syncing = std::mem::take(&mut self.unsynced);
            (written, self.syncing.devices)
        })
    }

    /// The sync that covered the frames below `covered` succeeded.
    pub(crate) fn sync_completed(&mut self, covered: FrameNumber) {
        if self.shared.health.failure().is_some() {
            return;
        }
        self.shared.counters().syncs.fetch_add(1, Ordering::Relaxed);
        let context = &self.context;
        if let Some(device) = self.syncing.first_in_doubt(|device| context.sync_failures.count(device)) {
            // Somebody else's sync failed meanwhile, and took what this shard had in the device's cache with it.
            return self.sync_failed(device, Errno(libc::EIO));
        }
        let covered = if mutant::is_active(Mutant::SyncCoversLater) { self.next_frame } else { covered };
        if covered > self.shared.durable.reached() {
            self.publish_durable(covered);
        }
        self.advance();
    }

    /// A sync failed, of whichever shards: what is in the device's cache is in doubt.
    pub(crate) fn note_failed_sync(&self, device: DeviceIndex) {
        self.context.sync_failures.note(device);
    }

    /// A write failed. Of one that was to be durable the host does not say whether the flush behind it was what failed.
    pub(super) fn note_failed_write(&self, device: DeviceIndex, sync: WriteSync) {
        if sync == WriteSync::Data && !mutant::is_active(Mutant::ThroughFailureForgotten) {
            self.note_failed_sync(device);
        }
    }

    /// The sync failed: what it covered is in an unknown state for ever, so the shard stops.
    pub(crate) fn sync_failed(&mut self, device: DeviceIndex, errno: Errno) {
        let slot = self.shared.written_end();
        self.fail_io(Verb::Sync, device, slot, 0, errno);
    }
}
