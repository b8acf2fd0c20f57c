//! Growing an open store: a device of it became larger, or is made larger here, or a further one comes.

use super::{
    Store,
    block::Sleeper,
    format::random_uuid,
    opening::DeviceFiles,
    superblocks::unix_ns,
    warnings::{self, DeviceWarning},
};
use crate::error::GrowError;
use corelog_shards::{
    device::file::{CreateOptions, DeviceFile, Fill},
    directory::{CoreHandle, Mail, MailError},
    failure::SyncFailures,
    growth::{Addition, Growing, Growth},
    ids::{CoreId, DeviceIndex},
    limits::LOCK_WAIT_MS_MAX,
    memory::RegionSlice,
    opening::StoreDevices,
    recovery::SourceError,
    requests::Reply,
};
use std::{
    path::PathBuf,
    sync::{Arc, PoisonError},
    time::Duration,
};

/// What a store grows by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrowBy {
    /// One of its devices. Without a size, what the device is larger now than the store knows; with one, a file is made
    /// as large first.
    Device {
        /// Which, in the order of the superblock.
        device: DeviceIndex,
        /// Bytes that it is to have.
        bytes: Option<u64>,
    },
    /// A further device: a new file of so many bytes, or a block device, all of it unless a size is given.
    NewDevice {
        /// Where.
        path: PathBuf,
        /// Bytes that it is to have.
        bytes: Option<u64>,
        /// Take the place of what is there.
        replace: bool,
    },
}

/// What came of it; durable.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Grown {
    /// The device.
    pub device: DeviceIndex,
    /// Extents that came.
    pub extents: u32,
    /// Bytes that they hold.
    pub bytes: u64,
    /// Extents of the store now.
    pub store_extents: u32,
    /// What a further device says of itself.
    pub warnings: Vec<DeviceWarning>,
}

/// The devices of the store, and one that is to be.
pub(super) struct Devices<'a> {
    pub(super) files: &'a [Arc<DeviceFile>],
    pub(super) failures: &'a SyncFailures,
}

impl StoreDevices for Devices<'_> {
    type Error = corelog_shards::device::file::FileError;

    fn read(&self, device: DeviceIndex, offset: u64, bytes: &mut [u8]) -> Result<(), SourceError> {
        DeviceFiles(self.files).read(device, offset, bytes)
    }

    fn write(&self, device: DeviceIndex, offset: u64, bytes: &RegionSlice) -> Result<(), Self::Error> {
        DeviceFiles(self.files).write(device, offset, bytes)
    }

    fn sync(&self, device: DeviceIndex) -> Result<(), Self::Error> {
        // It may have taken what the shards wrote with it.
        DeviceFiles(self.files).sync(device).inspect_err(|_| self.failures.note(device))
    }

    fn alignment(&self, device: DeviceIndex) -> u64 {
        DeviceFiles(self.files).alignment(device)
    }
}

impl Store {
    /// Makes the store larger while it runs. When this returns the new extents are durably the store's, and appends
    /// that found it full go on. A crash before leaves the store as it was or as it will be; a further device has to
    /// be given to each open from then on, so make a note of it first.
    ///
    /// With [`Fill::Zeros`] all that comes is written first, which takes its time; `progress` hears the bytes done
    /// and the bytes to do. One growth at a time: another one waits for it.
    pub fn grow(
        &self,
        by: &GrowBy,
        fill: Fill,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Grown, GrowError> {
        if let Some(core) = self.driven_core() {
            return Err(GrowError::OnCoreThread { core });
        }
        let assembly = &self.inner.assembly;
        let _one_at_a_time = assembly.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut files = assembly.devices();
        if files.is_empty() || self.directory().cores.iter().any(|core| core.is_forked()) {
            return Err(GrowError::Closed);
        }
        let before = files.len();
        let addition = self.make_room(by, fill, &mut files, progress)?;
        let mut is_named = false;
        let grown = self.take_in(addition, &files, &mut is_named);
        match &grown {
            Ok(_) => {}
            // The next open may ask for the device.
            Err(_) if is_named => {}
            Err(_) => files.iter().skip(before).for_each(|file| file.remove_if_created()),
        }
        // Shards that found the store full look again.
        self.directory().cores.iter().for_each(|core| core.ring());
        grown.map(|grown| Grown { warnings: warnings::of(&files[before..]), ..grown })
    }

    /// Makes the device larger, or ready; a further one is put behind the others.
    fn make_room(
        &self,
        by: &GrowBy,
        fill: Fill,
        files: &mut Vec<Arc<DeviceFile>>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Addition, GrowError> {
        let superblock = self.inner.assembly.superblock();
        match by {
            GrowBy::Device { device, bytes } => {
                let index = usize::from(device.0);
                let (Some(file), Some(entry)) = (files.get(index), superblock.devices.get(index)) else {
                    return Err(corelog_shards::growth::GrowthRefusal::NoSuchDevice(*device).into());
                };
                let is_zero = fill == Fill::Zeros;
                // What would be refused is refused before anything is written.
                let found = bytes.unwrap_or(file.bytes_now()?);
                let plan = Addition { device: *device, uuid: [0; 16], bytes: found, is_zero };
                let _possible = Growth::new(&superblock, plan, 0)?;
                let enlarged = file.enlarge(*bytes, entry.bytes, fill, progress);
                let bytes = enlarged.inspect_err(|error| {
                    if matches!(error, corelog_shards::device::file::CreateError::File(_)) {
                        self.inner.assembly.opened.sync_failures.note(*device);
                    }
                })?;
                Ok(Addition { bytes, ..plan })
            }
            GrowBy::NewDevice { path, bytes, replace } => {
                let options = CreateOptions {
                    bytes: *bytes,
                    fill,
                    replace: *replace,
                    allow_buffered: self.options().allow_buffered,
                    lock_wait: Duration::from_millis(LOCK_WAIT_MS_MAX),
                };
                let device = DeviceIndex(superblock.devices.len() as u16);
                let uuid = random_uuid().map_err(GrowError::Random)?;
                let plan = Addition { device, uuid, bytes: bytes.unwrap_or(u64::MAX), is_zero: false };
                if bytes.is_some() {
                    let _possible = Growth::new(&superblock, plan, 0)?;
                }
                let file = Arc::new(DeviceFile::create(path, &options, progress)?);
                let slot_bytes = superblock.geometry.slot_bytes();
                if !slot_bytes.is_multiple_of(file.alignment()) {
                    file.remove_if_created();
                    let alignment = file.alignment();
                    return Err(GrowError::Alignment { path: path.clone(), alignment, slot_bytes });
                }
                let (bytes, is_zero) = (file.bytes(), fill == Fill::Zeros);
                files.push(file);
                Ok(Addition { bytes, is_zero, ..plan })
            }
        }
    }

    /// Tells the cores of a further device, and writes the superblock. `is_named`: it may be on a device, also if this
    /// fails.
    fn take_in(
        &self,
        addition: Addition,
        files: &[Arc<DeviceFile>],
        is_named: &mut bool,
    ) -> Result<Grown, GrowError> {
        let Addition { device, .. } = addition;
        let assembly = &self.inner.assembly;
        if usize::from(device.0) == assembly.devices().len() {
            for core in &self.directory().cores {
                self.add_to_core(core, device, &files[usize::from(device.0)])?;
            }
        }
        let directory = self.directory();
        let devices = Devices { files, failures: &assembly.opened.sync_failures };
        // Whoever closes the store waits here for some writes.
        let mut current = assembly.current();
        if current.is_closed {
            return Err(GrowError::Closed);
        }
        let mut growth = Growth::new(&current.superblock, addition, unix_ns())?;
        loop {
            match growth.step(&devices, &directory.layout, &directory.extents) {
                Ok(Growing::More) => {}
                Ok(Growing::Done) => break,
                Err(error) => {
                    *is_named = growth.has_begun();
                    current.superblock.sequence = growth.sequence_after_failure();
                    return Err(error.into());
                }
            }
        }
        current.superblock = growth.superblock().clone();
        // Before anybody else writes a superblock, who would write it to all devices that it names.
        assembly.add_devices(files.get(assembly.devices().len()..).unwrap_or_default());
        let run = growth.run();
        Ok(Grown {
            device,
            extents: run.extents,
            bytes: u64::from(run.extents) * current.superblock.geometry.extent_bytes(),
            store_extents: current.superblock.extent_count(),
            warnings: Vec::new(),
        })
    }

    /// A core that is gone uses no device.
    fn add_to_core(
        &self,
        core: &CoreHandle,
        device: DeviceIndex,
        file: &Arc<DeviceFile>,
    ) -> Result<(), GrowError> {
        let id = core.id();
        let busy = GrowError::Busy { core: id };
        let mut pause = super::block::Pause::until(self.stall());
        loop {
            let Some((mut pending, responder)) = self.requests().open() else { return Err(busy) };
            let file = Arc::clone(file);
            match core.send(Mail::AddDevice { device, file, responder }) {
                Ok(()) => return answer(id, Sleeper::wait(&mut pending, self.stall())),
                Err(MailError::Full(_)) if pause.rest() => {}
                Err(MailError::Full(_)) => return Err(busy),
                Err(MailError::Dead(_)) => return Ok(()),
            }
        }
    }
}

fn answer(core: CoreId, reply: Option<Reply>) -> Result<(), GrowError> {
    match reply {
        Some(Reply::Added(Err(errno))) => Err(GrowError::Core { core, errno }),
        Some(_) => Ok(()),
        None => Err(GrowError::Busy { core }),
    }
}
