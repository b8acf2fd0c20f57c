//! Looking at a store without running it: no lock, nothing written, also beside a process that has it open.

use crate::{
    error::OpenError,
    options::Options,
    store::{
        opening::{self, DeviceFiles},
        superblocks::{self, Found},
    },
};
use bytes::Bytes;
use corelog_shards::{
    address::Address,
    device::{
        Errno,
        file::{Access, DeviceFile},
    },
    extents::{ExtentEntry, ExtentTable, ExtentUse},
    format::{
        checksum::StoreSeed,
        record::{RecordHeader, check_record},
        superblock::Superblock,
    },
    ids::{DeviceIndex, ExtentIndex, ExtentOrdinal, Generation, SlotIndex},
    limits::INSPECTION_TRIES_MAX,
    memory::PooledBuffer,
    opening::{Source, extent_table, layout_of},
    reads::{ReadError, payload_of},
    recovery::{RecoveredShard, RecoveryReport, RecoverySource, SourceError},
};
use std::{path::Path, sync::Arc};

mod lists;
mod scanning;
mod verify;

pub use scanning::InspectionScan;
pub(crate) use scanning::Recovered;
pub use verify::{Finding, FindingPlace, VerifyReport};

/// A store as it was found, read-only.
///
/// Another process may write it meanwhile ([`Inspection::warnings`] says so where that can be seen); then the report
/// is that of one moment, and records that were appended later are not seen.
#[derive(Debug)]
pub struct Inspection {
    superblock: Superblock,
    devices: Vec<Arc<DeviceFile>>,
    extents: ExtentTable,
    report: RecoveryReport,
    seed: StoreSeed,
}

impl Inspection {
    /// Opens a store for inspection and finds out what an open would find. Of the options, those about recovery
    /// count, and the buffer's bounds.
    pub fn open<P: AsRef<Path>>(paths: &[P], options: &Options) -> Result<Self, OpenError> {
        let mut tries = 1;
        loop {
            match Self::look(paths, options) {
                // A writer's frames arrive in any order, so that a look beside it may see a later frame and miss an
                // earlier one, which is there the next time. Damage stays.
                Err(OpenError::Recovery(_)) if tries < INSPECTION_TRIES_MAX => tries += 1,
                result => return result,
            }
        }
    }

    fn look<P: AsRef<Path>>(paths: &[P], options: &Options) -> Result<Self, OpenError> {
        let devices = opening::open_devices(paths, options, Access::Inspect)?;
        let found = superblocks::read(devices)?;
        found.check_whole(options)?;
        let Found { superblock, devices, bad_copies } = found;
        let mut report = opening::recover(&superblock, &devices, options)?;
        report.bad_superblock_copies = bad_copies;
        let extents = extent_table(&layout_of(&superblock), &report);
        let seed = StoreSeed::new(superblock.store);
        Ok(Self { superblock, devices, extents, report, seed })
    }

    /// What the store is made of.
    #[must_use]
    pub const fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// What opening it would find.
    #[must_use]
    pub const fn report(&self) -> &RecoveryReport {
        &self.report
    }

    /// The devices, in the order of the superblock.
    #[must_use]
    pub fn devices(&self) -> &[Arc<DeviceFile>] {
        &self.devices
    }

    /// Who has an extent, and its place in that shard's sequence. `None`: the store has no such extent.
    #[must_use]
    pub fn extent(&self, extent: ExtentIndex) -> Option<(ExtentEntry, Option<ExtentOrdinal>)> {
        Some((self.extents.get(extent)?, self.extents.ordinal(extent)))
    }

    /// What may make the result doubtful: another process that writes, a page cache in between.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.devices.iter().flat_map(|device| device.warnings().iter().cloned()).collect()
    }

    /// Reads the record at `address`, with the checks of [`crate::Store::read`].
    pub fn read(&self, address: Address) -> Result<Bytes, ReadError> {
        let geometry = &self.superblock.geometry;
        let entry = self.owner(address)?;
        let slot = address.slot(geometry);
        let in_extent = geometry.slots_left(slot);
        let in_slot = (address.byte() % geometry.slot_bytes()) as usize;
        let mut buffer = self.slots(slot, address.slots_hint().min(in_extent))?;
        if let Some(header) = RecordHeader::peek(&buffer.as_slice()[in_slot..]) {
            let slots = geometry.slots_for(in_slot as u64 + header.stride());
            if slots * geometry.slot_bytes() > buffer.len() as u64 && slots <= in_extent {
                buffer = self.slots(slot, slots)?;
            }
        }
        let seed = self.seed.record_seed(entry.generation, address.byte());
        let device = self.superblock.locate(slot).map_or(DeviceIndex(0), |(device, _)| device);
        let corrupt = |error| ReadError::Corrupt { shard: entry.shard, slot, device, address, error };
        let view = check_record(&buffer.as_slice()[in_slot..], seed).map_err(corrupt)?;
        payload_of(&view, address)
    }

    pub(crate) fn owner(&self, address: Address) -> Result<ExtentEntry, ReadError> {
        let no_such = |why| ReadError::NoSuchAddress { address, why };
        let geometry = &self.superblock.geometry;
        let extent = address.extent(geometry);
        let entry = self.extents.get(extent).ok_or(no_such("it lies behind the end"))?;
        if entry.generation == Generation(0) {
            return Err(no_such("its extent was never used"));
        }
        if entry.usage == ExtentUse::Free || !address.is_of(entry.generation) {
            return Err(ReadError::Reclaimed { address });
        }
        let slot = address.slot(geometry);
        let shard = self.report.shards.get(usize::from(entry.shard.0));
        if slot == geometry.header_slot(extent) || shard.is_none_or(|shard| !is_in_log(shard, extent, slot)) {
            return Err(no_such("nothing was appended there"));
        }
        Ok(entry)
    }

    pub(crate) fn slots(&self, slot: SlotIndex, slots: u64) -> Result<PooledBuffer, ReadError> {
        let bytes = slots * self.superblock.geometry.slot_bytes();
        let mut buffer = PooledBuffer::alone(bytes as usize).map_err(|_| ReadError::NoMemory { bytes })?;
        let source = Source { superblock: &self.superblock, devices: &DeviceFiles(&self.devices) };
        source.read(slot, buffer.as_mut_slice()).map_err(|error| match error {
            SourceError::Io { device, errno, .. } => ReadError::Io { device, slot, slots, errno },
            SourceError::Truncated { device, expected, found } => {
                ReadError::Truncated { device, slot, expected, found }
            }
            // The extent is one of the store's, and so are its slots.
            SourceError::NoSuchSlot { .. } => {
                ReadError::Io { device: DeviceIndex(0), slot, slots, errno: Errno(0) }
            }
        })?;
        Ok(buffer)
    }
}

/// True if the shard's log has a frame in the slot. What lies behind its end was cut off, however good it looks.
fn is_in_log(shard: &RecoveredShard, extent: ExtentIndex, slot: SlotIndex) -> bool {
    let used = shard.extents.get(..shard.used_extents).unwrap_or(&shard.extents);
    match used.iter().position(|of_log| of_log.index == extent) {
        None => false,
        Some(place) if place + 1 == used.len() => shard.next_slot.is_none_or(|next| slot < next),
        Some(_) => true,
    }
}
