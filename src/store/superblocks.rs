//! Reading and writing the superblock copies of a store's devices.

use crate::{
    error::{GeometryProblem, OpenError},
    options::Options,
};
use corelog_shards::{
    device::file::{DeviceFile, FileError},
    format::superblock::{COPY_OFFSETS, Chosen, Superblock, SuperblockChoiceError, SuperblockError, choose},
    ids::DeviceIndex,
    limits::SUPERBLOCK_COPY_BYTES_MAX,
    memory::PooledBuffer,
};
use std::sync::Arc;

/// What the superblock copies of all devices say.
#[derive(Debug)]
pub(crate) struct Found {
    /// The newest valid superblock.
    pub superblock: Superblock,
    /// The devices in the order of the superblock.
    pub devices: Vec<Arc<DeviceFile>>,
    /// Copies of no use: device, and byte on it.
    pub bad_copies: Vec<(DeviceIndex, u64)>,
}

/// Reads the copies of all devices, picks the newest superblock and puts the devices in its order.
pub(crate) fn read(devices: Vec<Arc<DeviceFile>>) -> Result<Found, OpenError> {
    let mut chosen_of = Vec::with_capacity(devices.len());
    for device in devices {
        let chosen = read_device(&device)?;
        chosen_of.push((device, chosen));
    }
    let newest = chosen_of.iter().max_by_key(|(_, chosen)| chosen.superblock.sequence);
    let Some(superblock) = newest.map(|(_, chosen)| chosen.superblock.clone()) else {
        return Err(crate::options::OptionError::Devices { found: 0 }.into());
    };
    for (device, chosen) in &chosen_of {
        let other = &chosen.superblock;
        let as_newest = Superblock { device: superblock.device, ..other.clone() };
        let is_tie = other.store == superblock.store && other.sequence == superblock.sequence;
        if is_tie && as_newest != superblock {
            // A device that a growth had begun to add, and that later opens did without.
            let error = SuperblockChoiceError::Contradiction { sequence: superblock.sequence };
            return Err(OpenError::Superblock { path: device.path().to_owned(), error });
        }
    }
    in_order(superblock, chosen_of)
}

fn read_device(device: &DeviceFile) -> Result<Chosen, OpenError> {
    let mut copies = Vec::with_capacity(COPY_OFFSETS.len());
    let mut buffer = PooledBuffer::alone(SUPERBLOCK_COPY_BYTES_MAX as usize)?;
    for offset in COPY_OFFSETS {
        let copy = match device.read_exact_at(offset, &mut buffer) {
            Ok(()) => Superblock::decode_copy(buffer.as_slice()),
            // A file that is too short to be a store is told apart from a device that fails.
            Err(FileError::Truncated { found, expected, .. }) => {
                Err(SuperblockError::Truncated { needed: expected as u64, found: found as u64 })
            }
            Err(error) => return Err(error.into()),
        };
        copies.push(copy);
    }
    choose(&copies).map_err(|error| OpenError::Superblock { path: device.path().to_owned(), error })
}

fn in_order(superblock: Superblock, chosen_of: Vec<(Arc<DeviceFile>, Chosen)>) -> Result<Found, OpenError> {
    let expected = superblock.devices.len();
    let given = chosen_of.len();
    let mut slots: Vec<Option<Arc<DeviceFile>>> = vec![None; expected];
    let mut bad_copies = Vec::new();
    for (device, chosen) in chosen_of {
        let problem = |problem| OpenError::Geometry { path: device.path().to_owned(), problem };
        if chosen.superblock.store != superblock.store {
            return Err(problem(GeometryProblem::OtherStore));
        }
        let index = chosen.superblock.device;
        let too_many = || problem(GeometryProblem::DeviceCount { found: given, expected });
        let slot = slots.get_mut(usize::from(index.0)).ok_or_else(too_many)?;
        if slot.is_some() {
            return Err(problem(GeometryProblem::Duplicate));
        }
        let bytes = superblock.devices[usize::from(index.0)].bytes;
        if device.bytes() < bytes {
            return Err(problem(GeometryProblem::Shorter { found: device.bytes(), expected: bytes }));
        }
        let slot_bytes = superblock.geometry.slot_bytes();
        if !slot_bytes.is_multiple_of(device.alignment()) {
            let alignment = device.alignment();
            return Err(problem(GeometryProblem::Alignment { alignment, slot_bytes }));
        }
        bad_copies.extend(chosen.bad.iter().map(|bad| (index, COPY_OFFSETS[bad.index])));
        *slot = Some(Arc::clone(&device));
    }
    let devices: Vec<_> = slots.into_iter().flatten().collect();
    match devices.first() {
        Some(first) if devices.len() < expected => {
            let problem = GeometryProblem::DeviceCount { found: given, expected };
            Err(OpenError::Geometry { path: first.path().to_owned(), problem })
        }
        _ => Ok(Found { superblock, devices, bad_copies }),
    }
}

impl Found {
    /// Refuses a store that a restore was cut short in, unless that is what is asked for.
    pub(crate) fn check_whole(&self, options: &Options) -> Result<(), OpenError> {
        match self.devices.first() {
            Some(first) if self.superblock.is_restoring() && !options.restoring => {
                Err(OpenError::HalfRestored { path: first.path().to_owned() })
            }
            _ => Ok(()),
        }
    }
}

pub(crate) fn unix_ns() -> u64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
}
