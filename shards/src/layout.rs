//! Where the store's slots are on its devices.

use crate::{
    geometry::Geometry,
    ids::{DeviceIndex, ExtentIndex, SlotIndex},
    limits::REGIONS_MAX,
};
use std::sync::OnceLock;

/// A run of extents on one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RegionRun {
    /// The device.
    pub device: DeviceIndex,
    /// First extent of the run.
    pub first_extent: ExtentIndex,
    /// Extents in the run.
    pub extents: u32,
    /// Byte of the device where the run begins.
    pub device_offset: u64,
}

/// A place on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The device.
    pub device: DeviceIndex,
    /// Byte of the device.
    pub offset: u64,
}

/// All runs of a store, in the order of their extents and without holes. Runs may be added while it is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    geometry: Geometry,
    /// Filled from the front.
    runs: Box<[OnceLock<RegionRun>]>,
}

impl Layout {
    /// A layout over `runs`, which follow each other without holes (the superblock's decoder checks that).
    ///
    /// # Panics
    /// If there are more than [`REGIONS_MAX`].
    #[must_use]
    pub fn new(geometry: Geometry, runs: Vec<RegionRun>) -> Self {
        assert!(runs.len() <= REGIONS_MAX as usize, "{} runs", runs.len());
        let layout = Self { geometry, runs: (0..REGIONS_MAX).map(|_| OnceLock::new()).collect() };
        for run in runs {
            let is_added = layout.add(run);
            debug_assert!(is_added, "{run:?} does not follow the others");
        }
        layout
    }

    /// Adds a run behind the last one. One caller at a time. False: there is no room for it, or it does not follow.
    #[must_use]
    pub fn add(&self, run: RegionRun) -> bool {
        let follows = run.first_extent.0 == self.extents();
        let place = self.runs.iter().find(|place| place.get().is_none());
        follows && place.is_some_and(|place| place.set(run).is_ok())
    }

    /// Slot and extent size.
    #[must_use]
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The runs.
    pub fn runs(&self) -> impl Iterator<Item = &RegionRun> {
        self.runs.iter().map_while(OnceLock::get)
    }

    /// Extents of the store.
    #[must_use]
    pub fn extents(&self) -> u32 {
        self.runs().last().map_or(0, |run| run.first_extent.0 + run.extents)
    }

    /// Where a slot is; `None` if the store has no such slot.
    #[must_use]
    pub fn place(&self, slot: SlotIndex) -> Option<Place> {
        let extent = u32::try_from(slot.0 / self.geometry.slots_per_extent()).ok()?;
        let run = self.runs().find(|run| extent < run.first_extent.0 + run.extents)?;
        let first_slot = self.geometry.header_slot(run.first_extent);
        let offset = run.device_offset + (slot.0 - first_slot.0) * self.geometry.slot_bytes();
        Some(Place { device: run.device, offset })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_found_on_its_device_and_nowhere_behind_the_last() {
        let geometry = Geometry::new(4096, 1 << 20).unwrap();
        let run = |device, first, extents, device_offset| RegionRun {
            device: DeviceIndex(device),
            first_extent: ExtentIndex(first),
            extents,
            device_offset,
        };
        let layout =
            Layout::new(geometry, vec![run(0, 0, 2, 1 << 20), run(1, 2, 1, 1 << 20), run(0, 3, 1, 3 << 20)]);
        let place = |slot| layout.place(SlotIndex(slot)).map(|place| (place.device.0, place.offset));
        assert_eq!(place(0), Some((0, 1 << 20)));
        assert_eq!(place(511), Some((0, (1 << 20) + 511 * 4096)));
        assert_eq!(place(512), Some((1, 1 << 20)));
        assert_eq!(place(768), Some((0, 3 << 20)));
        assert_eq!(place(1024), None);
        assert_eq!(place(u64::MAX), None);
        assert!(!layout.add(run(1, 5, 1, 2 << 20)), "it leaves a hole");
        assert!(layout.add(run(1, 4, 2, 2 << 20)));
        assert_eq!((place(1024), place(1535)), (Some((1, 2 << 20)), Some((1, (4 << 20) - 4096))));
        assert_eq!((place(1536), layout.extents()), (None, 6));
    }
}
