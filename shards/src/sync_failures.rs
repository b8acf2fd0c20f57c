//! Failed syncs of a store's devices, known to all of its cores.
//!
//! Each core syncs for its own shards. A device, or the host's cache in front of it, may drop what a failed sync
//! should have made stable, tell of it once, and go on as if nothing had been. So a failure met by one core is the
//! failure of every shard with writes at risk on that device: their own next sync would succeed and prove nothing.

use crate::{
    device::Errno,
    ids::DeviceIndex,
    limits::DEVICES_MAX,
    sync::{AtomicU64, Ordering},
};

/// Counts failed syncs by device. Shared by the cores of a store; nobody touches it on the append path.
#[derive(Debug, Default)]
pub struct SyncFailures {
    /// How many, above the errno of the last one in the low 32 bits.
    devices: [AtomicU64; DEVICES_MAX as usize],
}

impl SyncFailures {
    /// A sync of `device` failed.
    pub(crate) fn note(&self, device: DeviceIndex, errno: Errno) {
        let Some(word) = self.devices.get(usize::from(device.0)) else { return };
        let mut seen = word.load(Ordering::Relaxed);
        loop {
            let noted = ((seen >> 32) + 1) << 32 | u64::from(errno.0.unsigned_abs());
            // Release pairs with the acquire of `of`.
            match word.compare_exchange_weak(seen, noted, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// What is known of `device`: compares equal as long as no further sync of it has failed.
    pub(crate) fn of(&self, device: DeviceIndex) -> Known {
        // Acquire pairs with the release of `note`.
        Known(self.devices.get(usize::from(device.0)).map_or(0, |word| word.load(Ordering::Acquire)))
    }
}

/// What was known of one device at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known(u64);

impl Known {
    /// Of the last failure.
    pub(crate) const fn errno(self) -> Errno {
        Errno((self.0 & u32::MAX as u64) as i32)
    }
}

/// The devices on which a shard has writes that are not known to be stable, each with what was known of it when the
/// first of them began.
#[derive(Debug, Default)]
pub(crate) struct AtRisk {
    since: [Option<Known>; DEVICES_MAX as usize],
}

impl AtRisk {
    /// A write to `device` begins.
    pub(crate) fn add(&mut self, device: DeviceIndex, failures: &SyncFailures) {
        if let Some(since) = self.since.get_mut(usize::from(device.0)) {
            since.get_or_insert_with(|| failures.of(device));
        }
    }

    /// Everything that was written is stable, and nothing is on its way.
    pub(crate) fn clear(&mut self) {
        self.since = Default::default();
    }

    /// The first device of which a sync has failed since something is at risk on it.
    pub(crate) fn lost(&self, failures: &SyncFailures) -> Option<(DeviceIndex, Errno)> {
        self.since.iter().enumerate().find_map(|(index, since)| {
            let device = DeviceIndex(index as u16);
            let now = failures.of(device);
            since.is_some_and(|since| since != now).then(|| (device, now.errno()))
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_failure_concerns_what_was_at_risk_on_its_device_and_nothing_later() {
        let failures = SyncFailures::default();
        let (mut early, mut late, mut elsewhere) = (AtRisk::default(), AtRisk::default(), AtRisk::default());
        early.add(DeviceIndex(1), &failures);
        elsewhere.add(DeviceIndex(0), &failures);
        failures.note(DeviceIndex(1), Errno(5));
        early.add(DeviceIndex(1), &failures);
        late.add(DeviceIndex(1), &failures);
        assert_eq!(early.lost(&failures), Some((DeviceIndex(1), Errno(5))));
        assert_eq!((late.lost(&failures), elsewhere.lost(&failures)), (None, None));
        early.clear();
        assert_eq!(early.lost(&failures), None);
        failures.note(DeviceIndex(1), Errno(5));
        assert!(late.lost(&failures).is_some(), "the same errno again is another failure");
    }
}
