//! Making a store.

use super::{opening::DeviceFiles, superblocks::unix_ns};
use crate::{
    Store,
    error::{FormatError, OpenOrFormatError},
    options::{FormatOptions, OptionError, Options},
};
use corelog_shards::{
    device::file::{CreateError, CreateOptions, DeviceFile, FileError},
    format::superblock::{DeviceEntry, Features, RegionEntry, ShardEntry, Superblock},
    geometry::Geometry,
    ids::{DeviceIndex, ExtentIndex, StoreId, Term},
    limits::{EXTENTS_MAX, LOCK_WAIT_MS_MAX, SHARDS_MAX, STORE_BYTES_MAX, SUPERBLOCK_AREA_BYTES},
    opening::{WriteSuperblockError, extents_to_clean, write_superblock},
};
use corelog_tuning::topology::Topology;
use std::{path::Path, sync::Arc, time::Duration};

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Formatted {
    /// The store's id.
    pub store: StoreId,
    /// Shards.
    pub shards: u32,
    /// Extents.
    pub extents: u32,
    /// Bytes that the extents hold, over all devices.
    pub bytes: u64,
    /// Fewer extents than this and the store cannot be cleaned ([`Store::clean_with`]), only trimmed.
    pub extents_to_clean: u32,
}

/// Makes a store on one device (file or block device) or several. `progress` hears the bytes filled and the bytes to
/// fill.
///
/// When this returns, the store is on stable media: the devices and the folders of new files were synced. A crash
/// before leaves a file that is not a store, and opening it says so.
pub fn format<P: AsRef<Path>>(
    paths: &[P],
    options: &FormatOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Formatted, FormatError> {
    let geometry = options.check(paths.len())?;
    let shards = match options.shards {
        Some(shards) => shards,
        None => default_shards()?,
    };
    let create = CreateOptions {
        bytes: options.size_bytes,
        fill: options.fill,
        replace: options.replace,
        allow_buffered: options.allow_buffered,
        lock_wait: Duration::from_millis(LOCK_WAIT_MS_MAX),
    };
    if let Some(size) = options.size_bytes {
        // Before anything is created, where it can be known.
        let extents = (size - SUPERBLOCK_AREA_BYTES) / options.extent_bytes * paths.len() as u64;
        FormatOptions::check_extents(extents, shards)?;
    }
    let mut devices = Vec::with_capacity(paths.len());
    let made = make(paths, options, geometry, shards, &create, progress, &mut devices);
    if made.is_err() {
        devices.iter().for_each(|device| device.remove_if_created());
    }
    made
}

fn make<P: AsRef<Path>>(
    paths: &[P],
    options: &FormatOptions,
    geometry: Geometry,
    shards: u32,
    create: &CreateOptions,
    progress: &mut dyn FnMut(u64, u64),
    devices: &mut Vec<Arc<DeviceFile>>,
) -> Result<Formatted, FormatError> {
    for (index, path) in paths.iter().enumerate() {
        let (before, count) = (index as u64, paths.len() as u64);
        let mut part = |done: u64, total: u64| progress(before * total + done, count * total);
        devices.push(Arc::new(DeviceFile::create(path.as_ref(), create, &mut part)?));
    }
    let (entries, regions) = lay_out(devices, options.extent_bytes)?;
    let extents = regions.last().map_or(0, |region| region.first_extent.0 + region.extent_count);
    FormatOptions::check_extents(u64::from(extents), shards)?;
    let store = StoreId(random()?);
    let superblock = Superblock {
        store,
        sequence: 0,
        term: Term(0),
        features: if options.restoring { Features::RESTORING } else { Features::default() },
        geometry,
        clean: true,
        device: DeviceIndex(0),
        reach_bytes: 0,
        created_unix_ns: unix_ns(),
        written_unix_ns: unix_ns(),
        devices: entries,
        regions,
        shards: vec![ShardEntry::default(); shards as usize],
    };
    // Both sides: a store that was never opened has as many copies as one that was.
    for sequence in [0, 1] {
        write_superblock(&Superblock { sequence, ..superblock.clone() }, &DeviceFiles(devices))?;
    }
    for device in devices.iter() {
        device.sync_all()?;
    }
    let bytes = u64::from(extents) * options.extent_bytes;
    Ok(Formatted { store, shards, extents, bytes, extents_to_clean: extents_to_clean(shards) })
}

fn lay_out(
    devices: &[Arc<DeviceFile>],
    extent_bytes: u64,
) -> Result<(Vec<DeviceEntry>, Vec<RegionEntry>), FormatError> {
    let mut entries = Vec::with_capacity(devices.len());
    let mut regions = Vec::with_capacity(devices.len());
    let mut first_extent = 0_u32;
    for (index, device) in devices.iter().enumerate() {
        let count = device.bytes().saturating_sub(SUPERBLOCK_AREA_BYTES) / extent_bytes;
        let most = (STORE_BYTES_MAX / extent_bytes).min(u64::from(EXTENTS_MAX)) - u64::from(first_extent);
        if count == 0 || count > most {
            let (min, max) = (SUPERBLOCK_AREA_BYTES + extent_bytes, most * extent_bytes);
            return Err(OptionError::Range { name: "size", value: device.bytes(), min, max }.into());
        }
        let extent_count = count as u32;
        entries.push(DeviceEntry { uuid: random()?, bytes: SUPERBLOCK_AREA_BYTES + count * extent_bytes });
        regions.push(RegionEntry {
            device: DeviceIndex(index as u16),
            first_extent: ExtentIndex(first_extent),
            extent_count,
            device_offset: SUPERBLOCK_AREA_BYTES,
        });
        first_extent += extent_count;
    }
    Ok((entries, regions))
}

fn default_shards() -> Result<u32, FormatError> {
    let topology = Topology::read(Path::new("/sys"))?;
    let places = topology.plan(None).places.len();
    Ok(u32::try_from(places).unwrap_or(SHARDS_MAX).min(SHARDS_MAX))
}

fn random() -> Result<[u8; 16], FormatError> {
    random_uuid().map_err(FormatError::Random)
}

pub(super) fn random_uuid() -> Result<[u8; 16], std::io::Error> {
    let mut bytes = [0_u8; 16];
    let mut done = 0;
    while done < bytes.len() {
        done += rustix::rand::getrandom(&mut bytes[done..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

impl Store {
    /// Opens a store on one device, and makes it first if there is none. What is there and is no store stays, and is an
    /// error: a format that was cut short leaves such a file.
    pub fn open_or_format(
        path: impl AsRef<Path>,
        format: &FormatOptions,
        options: &Options,
    ) -> Result<Self, OpenOrFormatError> {
        let format = FormatOptions { replace: false, ..format.clone() };
        match Self::format(&[path.as_ref()], &format) {
            Ok(_) | Err(FormatError::Device(CreateError::Exists { .. } | CreateError::Occupied { .. })) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Self::open(path, options)?)
    }
}

impl From<WriteSuperblockError<FileError>> for FormatError {
    fn from(error: WriteSuperblockError<FileError>) -> Self {
        match error {
            WriteSuperblockError::Device(error) => Self::File(error),
            WriteSuperblockError::Memory(error) => Self::Memory(error),
        }
    }
}
