//! From paths to a store that is ready for its cores: devices, superblock, recovery, the raised term.

use super::{
    near,
    superblocks::{self, Found, unix_ns},
    warnings,
};
use crate::{
    error::OpenError,
    options::{Backend, OptionError, Options},
};
use corelog_shards::{
    cleaning::Cleaning,
    device::{
        Errno,
        file::{Access, DeviceFile, FileError, OpenOptions},
        uring::{UringDevice, UringOptions},
    },
    extents::ExtentTable,
    failure::SyncFailures,
    format::{checksum::StoreSeed, superblock::Superblock},
    ids::DeviceIndex,
    layout::Layout,
    limits::{COLD_EXTENTS_MIN, IO_DEPTH_MIN, LOCK_WAIT_MS_MAX},
    memory::RegionSlice,
    nearness::Nearness,
    open::ShardResume,
    opening::{AddedShards, HowToOpen, PrepareError, Prepared, Source, StoreDevices, prepare},
    over::OverTable,
    recovery::{RecoveryOptions, RecoveryReport, SourceError, recover_store},
};
use corelog_tuning::topology::CorePlace;
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
    pub sync_failures: Arc<SyncFailures>,
    pub seed: StoreSeed,
    /// Where each shard goes on, by shard id.
    pub resumes: Vec<ShardResume>,
    pub report: RecoveryReport,
    /// Shards that the store did not have before.
    pub added: AddedShards,
    /// Batches over several shards.
    pub over: Arc<OverTable>,
    /// Which devices the cores are near to.
    pub near: Nearness,
    pub cleaning: Arc<Cleaning>,
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

/// Opens the devices, recovers, and raises the term. `cores` is how many cores will run.
pub(crate) fn open<P: AsRef<Path>>(
    paths: &[P],
    options: &Options,
    cores: u32,
    places: &[CorePlace],
) -> Result<Opened, OpenError> {
    let devices = open_devices(paths, options, Access::ReadWrite)?;
    let found = superblocks::read(devices)?;
    found.check_whole(options)?;
    let Found { superblock, devices, bad_copies } = found;
    options.check(&superblock.geometry)?;
    superblock.check_writable()?;
    let buffer_bytes = options.buffer_bytes_in(&superblock.geometry);
    let start = Instant::now();
    let how = HowToOpen {
        // A number of cores that was asked for gets a shard for each; a default must not change where keys are routed.
        shards_min: options.cores.map_or(0, |_asked_for| cores),
        cold_from: options.cold_shards.then_some(COLD_EXTENTS_MIN),
        buffer_bytes,
        reach_bytes: buffer_bytes * u64::from(options.buffers),
        unix_ns: unix_ns(),
        recovery: recovery_options(options),
        near: near::of(&devices, places, cores),
    };
    let near = how.near.clone();
    let prepared = prepare(&DeviceFiles(&devices), superblock, how)?;
    let Prepared { superblock, layout, extents, sync_failures, resumes, mut report, added, over } = prepared;
    warnings::note_added(&added);
    report.bad_superblock_copies = bad_copies;
    report.seconds = start.elapsed().as_secs_f64();
    let seed = StoreSeed::new(superblock.store);
    let cleaning = Arc::new(Cleaning::new(options.cleaning()));
    Ok(Opened {
        superblock,
        devices,
        layout,
        extents,
        sync_failures,
        seed,
        resumes,
        report,
        added,
        over,
        near,
        cleaning,
    })
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
    let source = Source { superblock, devices: &DeviceFiles(devices) };
    let mut report = recover_store(&source, superblock, recovery_options(options))?;
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

fn recovery_options(options: &Options) -> RecoveryOptions {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    RecoveryOptions {
        verify_bodies: options.verify_on_open,
        salvage: options.salvage,
        threads,
        ..RecoveryOptions::default()
    }
}

/// The devices of a store, as opening and recovery see them.
pub(crate) struct DeviceFiles<'a>(pub &'a [Arc<DeviceFile>]);

impl StoreDevices for DeviceFiles<'_> {
    type Error = FileError;

    fn read(&self, device: DeviceIndex, offset: u64, bytes: &mut [u8]) -> Result<(), SourceError> {
        let file = &self.0[usize::from(device.0)];
        let expected = offset + bytes.len() as u64;
        file.read_exact_into(offset, bytes).map_err(|error| match error {
            FileError::Truncated { found, .. } => {
                SourceError::Truncated { device, expected, found: offset + found as u64 }
            }
            FileError::Failed { errno, .. } => SourceError::Io { device, offset, errno },
            FileError::Full { .. } => SourceError::Io { device, offset, errno: Errno(28) },
        })
    }

    fn write(&self, device: DeviceIndex, offset: u64, bytes: &RegionSlice) -> Result<(), FileError> {
        self.0[usize::from(device.0)].write_all_at(offset, bytes)
    }

    fn sync(&self, device: DeviceIndex) -> Result<(), FileError> {
        self.0[usize::from(device.0)].sync_data()
    }

    fn alignment(&self, device: DeviceIndex) -> u64 {
        self.0[usize::from(device.0)].alignment()
    }
}

impl From<PrepareError<FileError>> for OpenError {
    fn from(error: PrepareError<FileError>) -> Self {
        match error {
            PrepareError::Recovery(error) => error.into(),
            PrepareError::Memory(error) => Self::Memory(error),
            PrepareError::Device(error) => Self::File(error),
        }
    }
}
