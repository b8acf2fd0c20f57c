//! Where the store's slots are on its devices.

use crate::{
    geometry::Geometry,
    ids::{DeviceIndex, ExtentIndex, SlotIndex},
};

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

/// All runs of a store, in the order of their extents and without holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    geometry: Geometry,
    runs: Vec<RegionRun>,
}

impl Layout {
    /// A layout over `runs`, which follow each other without holes (the superblock's decoder checks that).
    #[must_use]
    pub fn new(geometry: Geometry, runs: Vec<RegionRun>) -> Self {
        debug_assert!(
            runs.windows(2).all(|pair| pair[0].first_extent.0 + pair[0].extents == pair[1].first_extent.0)
        );
        Self { geometry, runs }
    }

    /// Slot and extent size.
    #[must_use]
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The runs.
    #[must_use]
    pub fn runs(&self) -> &[RegionRun] {
        &self.runs
    }

    /// Extents of the store.
    #[must_use]
    pub fn extents(&self) -> u32 {
        self.runs.last().map_or(0, |run| run.first_extent.0 + run.extents)
    }

    /// Where a slot is; `None` if the store has no such slot.
    #[must_use]
    pub fn place(&self, slot: SlotIndex) -> Option<Place> {
        let extent = u32::try_from(slot.0 / self.geometry.slots_per_extent()).ok()?;
        let run =
            self.runs.get(self.runs.partition_point(|run| run.first_extent.0 <= extent).checked_sub(1)?)?;
        if extent >= run.first_extent.0 + run.extents {
            return None;
        }
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
    }
}
