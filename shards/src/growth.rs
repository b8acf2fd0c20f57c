//! Growing a store that is open: by what became of one of its devices, or by a further one.
//!
//! The order is what a crash cannot break: the new extents' headers read as zeros, durably; then every device has a
//! superblock that names them, the new device first; and only then may anybody claim one. A crash before the end
//! leaves the old size or the new one. It goes step by step, so that the simulator crashes between any two of them.

use crate::{
    extents::ExtentTable,
    format::superblock::{DeviceEntry, RegionEntry, Superblock},
    ids::{DeviceIndex, ExtentIndex},
    layout::{Layout, RegionRun},
    limits::{DEVICES_MAX, EXTENTS_MAX, REGIONS_MAX, STORE_BYTES_MAX, SUPERBLOCK_AREA_BYTES},
    memory::PooledBuffer,
    mutant::{self, Mutant},
    opening::{StoreDevices, WriteSuperblockError, reserve_of, write_superblock_to},
};

/// What a store grows by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addition {
    /// One of the store's devices, or the one behind the last.
    pub device: DeviceIndex,
    /// Names the device, if it is new.
    pub uuid: [u8; 16],
    /// Bytes that it has now.
    pub bytes: u64,
    /// What is behind the store on it reads as zeros.
    pub is_zero: bool,
}

/// Why a store cannot grow so. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GrowthRefusal {
    /// The superblock has no room for a further run of extents.
    #[error("the store has grown {REGIONS_MAX} times already, as often as it can; copy it into a larger one")]
    TooManyRegions,
    /// The superblock has no room for a further device.
    #[error("the store has {DEVICES_MAX} devices, and takes no more")]
    TooManyDevices,
    /// The store has no such device.
    #[error("the store has no {0:?}")]
    NoSuchDevice(DeviceIndex),
    /// There is no room for an extent.
    #[error("the device has {found} bytes; with one more extent it would have {needed}: make it larger")]
    TooSmall {
        /// What it has.
        found: u64,
        /// What it needs at least.
        needed: u64,
    },
    /// The device is smaller than it was.
    #[error("the device has {found} bytes and the store needs {expected}: it was truncated")]
    Shrunk {
        /// What it has.
        found: u64,
        /// What the store has on it.
        expected: u64,
    },
    /// Addresses, or the bounds of a store, do not reach as far.
    #[error("the store would have {extents} extents; it can have {max}")]
    TooManyExtents {
        /// As it would be.
        extents: u64,
        /// The most.
        max: u64,
    },
}

/// Whether there is more to do.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growing {
    /// Another step follows.
    More,
    /// The extents can be claimed.
    Done,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// So many headers are zero.
    Headers(u32),
    /// The zeros are to be made durable.
    Sync,
    /// So many devices have the superblock; the last device is the first.
    Superblock(u16),
    Publish,
    Done,
}

/// A growth under way.
#[derive(Debug)]
pub struct Growth {
    superblock: Superblock,
    run: RegionRun,
    stage: Stage,
    is_published: bool,
}

impl Growth {
    /// Decides what the store will be; `superblock` is the one written last.
    pub fn new(superblock: &Superblock, addition: Addition, unix_ns: u64) -> Result<Self, GrowthRefusal> {
        let geometry = superblock.geometry;
        let known = superblock.devices.get(usize::from(addition.device.0));
        if superblock.regions.len() >= REGIONS_MAX as usize {
            return Err(GrowthRefusal::TooManyRegions);
        }
        match known {
            None if usize::from(addition.device.0) != superblock.devices.len() => {
                return Err(GrowthRefusal::NoSuchDevice(addition.device));
            }
            None if superblock.devices.len() >= DEVICES_MAX as usize => {
                return Err(GrowthRefusal::TooManyDevices);
            }
            Some(known) if addition.bytes < known.bytes => {
                return Err(GrowthRefusal::Shrunk { found: addition.bytes, expected: known.bytes });
            }
            _ => {}
        }
        let offset = end_of(superblock, addition.device);
        let count = addition.bytes.saturating_sub(offset) / geometry.extent_bytes();
        if count == 0 {
            let needed = offset + geometry.extent_bytes();
            return Err(GrowthRefusal::TooSmall { found: addition.bytes, needed });
        }
        let first_extent = ExtentIndex(superblock.extent_count());
        let (extents, max) = (u64::from(first_extent.0) + count, extents_max(superblock));
        if extents > max {
            return Err(GrowthRefusal::TooManyExtents { extents, max });
        }
        let run =
            RegionRun { device: addition.device, first_extent, extents: count as u32, device_offset: offset };
        let bytes = offset + count * geometry.extent_bytes();
        let mut next = Superblock {
            sequence: superblock.sequence + 1,
            clean: false,
            written_unix_ns: unix_ns,
            ..superblock.clone()
        };
        match next.devices.get_mut(usize::from(addition.device.0)) {
            Some(entry) => entry.bytes = bytes,
            None => next.devices.push(DeviceEntry { uuid: addition.uuid, bytes }),
        }
        next.regions.push(RegionEntry {
            device: run.device,
            first_extent,
            extent_count: run.extents,
            device_offset: offset,
        });
        let stage = if addition.is_zero { Stage::Sync } else { Stage::Headers(0) };
        Ok(Self { superblock: next, run, stage, is_published: false })
    }

    /// The extents that come.
    #[must_use]
    pub const fn run(&self) -> &RegionRun {
        &self.run
    }

    /// The superblock that says so.
    #[must_use]
    pub const fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// True once a superblock that names the extents may be on a device: then the next one needs a higher sequence,
    /// whatever came of this growth.
    #[must_use]
    pub const fn has_begun(&self) -> bool {
        matches!(self.stage, Stage::Superblock(_) | Stage::Publish | Stage::Done)
    }

    /// The sequence that the superblock has to go on from after a growth that failed: the one after it goes to the side
    /// that this one was written to, and spares the other.
    #[must_use]
    pub const fn sequence_after_failure(&self) -> u64 {
        if self.has_begun() { self.superblock.sequence + 1 } else { self.superblock.sequence - 1 }
    }

    /// One step. After an error the growth is over, and the store has the size that it had.
    pub fn step<D: StoreDevices>(
        &mut self,
        devices: &D,
        layout: &Layout,
        extents: &ExtentTable,
    ) -> Result<Growing, WriteSuperblockError<D::Error>> {
        if mutant::is_active(Mutant::GrowBeforeSync) {
            self.publish(layout, extents);
        }
        self.stage = match self.stage {
            Stage::Headers(done) if done < self.run.extents => {
                self.clear_header(devices, done)?;
                Stage::Headers(done + 1)
            }
            Stage::Headers(_) => Stage::Sync,
            Stage::Sync => {
                devices.sync(self.run.device).map_err(WriteSuperblockError::Device)?;
                Stage::Superblock(0)
            }
            Stage::Superblock(done) if usize::from(done) < self.superblock.devices.len() => {
                // A device that is new has to say that it is one before another says that there is one.
                let last = self.superblock.devices.len() as u16 - 1;
                write_superblock_to(DeviceIndex(last - done), &self.superblock, devices)?;
                Stage::Superblock(done + 1)
            }
            Stage::Superblock(_) => Stage::Publish,
            Stage::Publish | Stage::Done => {
                self.publish(layout, extents);
                Stage::Done
            }
        };
        Ok(if matches!(self.stage, Stage::Done) { Growing::Done } else { Growing::More })
    }

    fn clear_header<D: StoreDevices>(
        &self,
        devices: &D,
        extent: u32,
    ) -> Result<(), WriteSuperblockError<D::Error>> {
        let geometry = self.superblock.geometry;
        let zeros =
            PooledBuffer::alone(geometry.slot_bytes() as usize).map_err(WriteSuperblockError::Memory)?;
        let offset = self.run.device_offset + u64::from(extent) * geometry.extent_bytes();
        devices.write(self.run.device, offset, &zeros.into()).map_err(WriteSuperblockError::Device)
    }

    fn publish(&mut self, layout: &Layout, extents: &ExtentTable) {
        if std::mem::replace(&mut self.is_published, true) {
            return;
        }
        // In this order: who claims an extent finds its slots.
        let is_laid_out = layout.add(self.run);
        let states: Vec<_> = self.superblock.shards.iter().map(|shard| shard.state).collect();
        extents.set_reserve(reserve_of(&states, layout.extents()));
        let is_counted = extents.grow(self.run.extents);
        debug_assert!(is_laid_out && is_counted, "{:?} has no room in memory", self.run);
    }
}

/// The byte of a device behind all regions on it.
fn end_of(superblock: &Superblock, device: DeviceIndex) -> u64 {
    let on_device = superblock.regions.iter().filter(|region| region.device == device);
    let ends = on_device.map(|region| {
        region.device_offset + u64::from(region.extent_count) * superblock.geometry.extent_bytes()
    });
    ends.max().unwrap_or(SUPERBLOCK_AREA_BYTES)
}

fn extents_max(superblock: &Superblock) -> u64 {
    (STORE_BYTES_MAX / superblock.geometry.extent_bytes()).min(u64::from(EXTENTS_MAX))
}

#[cfg(all(test, not(loom)))]
#[expect(clippy::unwrap_used, reason = "tests")]
#[path = "growth_tests.rs"]
mod tests;
