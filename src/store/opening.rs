//! From paths to a store that is ready for its cores: devices, superblock, recovery, the raised term.

use super::superblocks::{self, Found, WriteError, unix_ns};
use crate::{
    error::OpenError,
    options::{Backend, EXTENTS_PER_SHARD_MIN, OptionError, Options},
};
use corelog_shards::{
    device::{
        Errno,
        file::{Access, DeviceFile, FileError, OpenOptions},
        uring::{UringDevice, UringOptions},
    },
    extents::{ExtentEntry, ExtentTable, ExtentUse},
    format::{
        checksum::StoreSeed,
        extent_header::{ExtentHeader, ExtentState},
        superblock::{ShardEntry, Superblock},
    },
    ids::{ExtentOrdinal, ShardId, SlotIndex, Term},
    layout::{Layout, RegionRun},
    limits::{IO_DEPTH_MIN, LOCK_WAIT_MS_MAX, SHARDS_MAX},
    memory::PooledBuffer,
    open::ShardResume,
    recovery::{RecoveryOptions, RecoveryReport, RecoverySource, SourceError, recover_store},
};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// A store between recovery and its cores.
#[derive(Debug)]
pub(crate) struct Opened {
    /// As written for this open.
    pub superblock: Superblock,
    pub devices: Vec<Arc<DeviceFile>>,
    pub layout: Arc<Layout>,
    pub extents: Arc<ExtentTable>,
    pub seed: StoreSeed,
    /// Where each shard goes on, by shard id.
    pub resumes: Vec<ShardResume>,
    pub report: RecoveryReport,
}

/// Makes a ring and drops it, so that a host that forbids io_uring is found out before the store is touched.
pub(crate) fn check_backend(options: &Options) -> Result<(), OpenError> {
    if options.backend != Backend::IoUring {
        return Ok(());
    }
    let how = UringOptions { depth: IO_DEPTH_MIN, ..UringOptions::default() };
    match UringDevice::new(Vec::new(), how) {
        Ok(_works) => Ok(()),
        Err(unavailable) => Err(OpenError::RingUnavailable { unavailable }),
    }
}

/// Opens the devices, recovers, and raises the term. `cores` is how many cores will run; there is at least one shard
/// for each.
pub(crate) fn open<P: AsRef<Path>>(paths: &[P], options: &Options, cores: u32) -> Result<Opened, OpenError> {
    let devices = open_devices(paths, options, Access::ReadWrite)?;
    let Found { superblock, devices, bad_copies } = superblocks::read(devices)?;
    options.check(&superblock.geometry)?;
    superblock.check_writable()?;
    let mut report = recover(&superblock, &devices, options)?;
    report.bad_superblock_copies = bad_copies;
    free_orphans(&superblock, &devices, &report)?;
    // What recovery found may still be in a cache of the device; the next open has to find it too.
    for device in &devices {
        device.sync_data()?;
    }
    let layout = Arc::new(layout_of(&superblock));
    let extents = Arc::new(extent_table(&layout, &report));
    let shards = shard_count(&superblock, options.cores.map(|_asked_for| cores), &extents);
    let superblock = next_superblock(superblock, &report, options, shards);
    superblocks::write(&superblock, &devices)?;
    let resumes = (0..shards).map(|shard| resume(&report, ShardId(shard as u16))).collect();
    let seed = StoreSeed::new(superblock.store);
    Ok(Opened { superblock, devices, layout, extents, seed, resumes, report })
}

pub(crate) fn open_devices<P: AsRef<Path>>(
    paths: &[P],
    options: &Options,
    access: Access,
) -> Result<Vec<Arc<DeviceFile>>, OpenError> {
    if paths.is_empty() {
        return Err(OptionError::Devices { found: 0 }.into());
    }
    let how = OpenOptions {
        access,
        allow_buffered: options.allow_buffered,
        lock_wait: Duration::from_millis(LOCK_WAIT_MS_MAX),
    };
    let open = |path: &P| Ok(Arc::new(DeviceFile::open(path.as_ref(), &how)?));
    paths.iter().map(open).collect()
}

/// Recovers what the superblock describes. Reads only.
pub(crate) fn recover(
    superblock: &Superblock,
    devices: &[Arc<DeviceFile>],
    options: &Options,
) -> Result<RecoveryReport, OpenError> {
    let start = Instant::now();
    let source = DeviceSource { superblock, devices };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let how = RecoveryOptions { verify_bodies: options.verify_on_open, salvage: options.salvage, threads };
    let mut report = recover_store(&source, superblock, how)?;
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// Recovery's view of the devices.
pub(crate) struct DeviceSource<'a> {
    pub superblock: &'a Superblock,
    pub devices: &'a [Arc<DeviceFile>],
}

impl RecoverySource for DeviceSource<'_> {
    fn read(&self, slot: SlotIndex, bytes: &mut [u8]) -> Result<(), SourceError> {
        let (device, offset) = self.superblock.locate(slot).ok_or(SourceError::NoSuchSlot { slot })?;
        let file = self.devices.get(usize::from(device.0)).ok_or(SourceError::NoSuchSlot { slot })?;
        let expected = offset + bytes.len() as u64;
        file.read_exact_into(offset, bytes).map_err(|error| match error {
            FileError::Truncated { found, .. } => {
                SourceError::Truncated { device, expected, found: offset + found as u64 }
            }
            FileError::Failed { errno, .. } => SourceError::Io { device, offset, errno },
            FileError::Full { .. } => SourceError::Io { device, offset, errno: Errno(28) },
        })
    }
}

pub(crate) fn layout_of(superblock: &Superblock) -> Layout {
    let runs = superblock.regions.iter().map(|region| RegionRun {
        device: region.device,
        first_extent: region.first_extent,
        extents: region.extent_count,
        device_offset: region.device_offset,
    });
    Layout::new(superblock.geometry, runs.collect())
}

pub(crate) fn extent_table(layout: &Layout, report: &RecoveryReport) -> ExtentTable {
    let table = ExtentTable::new(*layout.geometry(), layout.extents());
    let free = |generation| ExtentEntry { usage: ExtentUse::Free, shard: ShardId(0), generation };
    for extent in &report.free_extents {
        table.restore(extent.index, free(extent.generation), ExtentOrdinal(0));
    }
    for extent in &report.extents_bad {
        let bad = ExtentEntry { usage: ExtentUse::Quarantined, ..free(Default::default()) };
        table.restore(*extent, bad, ExtentOrdinal(0));
    }
    for shard in &report.shards {
        for extent in &shard.extents {
            let entry =
                ExtentEntry { usage: ExtentUse::Claimed, shard: shard.shard, generation: extent.generation };
            table.restore(extent.index, entry, extent.ordinal);
        }
        for extent in &shard.orphans {
            table.restore(extent.index, free(extent.generation), ExtentOrdinal(0));
        }
    }
    table
}

fn resume(report: &RecoveryReport, shard: ShardId) -> ShardResume {
    let Some(found) = report.shards.get(usize::from(shard.0)) else { return ShardResume::fresh(shard) };
    ShardResume {
        shard,
        next_frame: found.next_frame,
        next_slot: found.next_slot,
        link: found.link,
        first_ordinal: found.extents.first().map_or(ExtentOrdinal(0), |first| first.ordinal),
        extents: found.extents.iter().map(|extent| extent.index).collect(),
        used_extents: found.used_extents,
    }
}

/// Extents that a shard claimed behind a gap can never be part of its log; left as they are, a later claim of the same
/// ordinal would contradict them.
fn free_orphans(
    superblock: &Superblock,
    devices: &[Arc<DeviceFile>],
    report: &RecoveryReport,
) -> Result<(), OpenError> {
    for (shard, extent) in
        report.shards.iter().flat_map(|shard| shard.orphans.iter().map(move |it| (shard, it)))
    {
        let header = ExtentHeader {
            store: superblock.store,
            extent: extent.index,
            generation: extent.generation,
            owner: shard.shard,
            state: ExtentState::Freed,
            ordinal: extent.ordinal,
            term: Term(report.highest_term.0 + 1),
            frame_floor: shard.next_frame,
        };
        let Some((device, offset)) = superblock.locate(superblock.geometry.header_slot(extent.index)) else {
            continue;
        };
        let mut buffer = PooledBuffer::alone(superblock.geometry.slot_bytes() as usize)?;
        header.encode_slot(&superblock.geometry, buffer.as_mut_slice());
        devices[usize::from(device.0)].write_all_at(offset, &buffer.into())?;
    }
    Ok(())
}

/// More shards than cores stay, several to a core. A number of cores that was asked for gets a shard for each, as far as
/// there is room; a default must not change where keys are routed.
fn shard_count(superblock: &Superblock, asked_cores: Option<u32>, extents: &ExtentTable) -> u32 {
    let present = superblock.shards.len() as u32;
    let wanted = asked_cores.map_or(0, |cores| cores.min(SHARDS_MAX).saturating_sub(present));
    let affordable = extents.free_count() / EXTENTS_PER_SHARD_MIN;
    present + wanted.min(u32::try_from(affordable).unwrap_or(u32::MAX))
}

fn next_superblock(
    superblock: Superblock,
    report: &RecoveryReport,
    options: &Options,
    shards: u32,
) -> Superblock {
    let mut entries = report.shard_entries();
    entries.resize(shards as usize, ShardEntry::default());
    Superblock {
        sequence: superblock.sequence + 1,
        term: Term(report.highest_term.0 + 1),
        clean: false,
        reach_bytes: options.buffer_bytes * u64::from(options.buffers),
        written_unix_ns: unix_ns(),
        shards: entries,
        ..superblock
    }
}

impl From<WriteError> for OpenError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::File(error) => Self::File(error),
            WriteError::Memory(error) => Self::Memory(error),
        }
    }
}
