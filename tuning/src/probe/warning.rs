//! What a probe says that a store should hear of.

use super::{BlockDevice, DeviceProbe, FileSystem, WriteCache};
use serde::{Deserialize, Serialize};

/// Something about a device that weakens what a store on it can promise, or how fast it can be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Warning {
    /// The file system is memory.
    #[error("{0} is memory: nothing survives a reboot; use a file on a disk")]
    MemoryFileSystem(FileSystem),
    /// The block device is memory.
    #[error("{0} is memory: nothing survives a reboot; use another device")]
    MemoryDevice(String),
    /// The device has a cache that forgets, and the kernel does not flush it.
    #[error(
        "{0} says that its write cache is volatile, and the kernel sends it no flushes: acknowledged records can be \
         lost with the power; set queue/write_cache to \"write back\", or turn the device's cache off"
    )]
    VolatileCacheUnflushed(String),
    /// The kernel does not say what cache the device has.
    #[error("{0} does not say whether its write cache is volatile: durability is as good as its flush")]
    CacheUnknown(String),
    /// A loop device goes through the page cache.
    #[error("{0} is a loop device without direct I/O: writes are cached twice; make it with --direct-io=on")]
    LoopBuffered(String),
    /// The file system takes direct I/O and buffers all the same.
    #[error(
        "{0} may write direct I/O through the page cache: syncs are slow; prefer ext4, xfs or a block device"
    )]
    BufferedFileSystem(FileSystem),
    /// The bytes are kept elsewhere.
    #[error("{0} keeps its files elsewhere: what a sync promises is up to it")]
    RemoteFileSystem(FileSystem),
    /// No block device was found, so its cache and queue are unknown.
    #[error("no block device was found below {0}: its cache and queue are unknown")]
    DeviceUnknown(FileSystem),
    /// The device refuses writes.
    #[error("{0} is read-only: it can be inspected, not appended to")]
    ReadOnly(String),
}

impl Warning {
    /// True if an acknowledged record may be lost although every write and sync succeeded: reason to refuse
    /// durable appends unless the user insists.
    #[must_use]
    pub const fn breaks_durability(&self) -> bool {
        matches!(self, Self::MemoryFileSystem(_) | Self::MemoryDevice(_) | Self::VolatileCacheUnflushed(_))
    }
}

/// All warnings of a probe, those of the file system first.
pub(super) fn of(probe: &DeviceProbe) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if let Some(kind) = probe.file_system {
        warnings.extend(of_file_system(kind, probe.block.is_some()));
    }
    if let Some(block) = &probe.block {
        of_block(block, &mut warnings);
    }
    warnings
}

fn of_file_system(kind: FileSystem, device_found: bool) -> Option<Warning> {
    if kind.is_memory() {
        Some(Warning::MemoryFileSystem(kind))
    } else if kind.is_remote() {
        Some(Warning::RemoteFileSystem(kind))
    } else if kind.buffers_direct_io() {
        Some(Warning::BufferedFileSystem(kind))
    } else if device_found {
        None
    } else {
        Some(Warning::DeviceUnknown(kind))
    }
}

fn of_block(block: &BlockDevice, warnings: &mut Vec<Warning>) {
    let name = || block.name.clone();
    if block.is_memory() {
        warnings.push(Warning::MemoryDevice(name()));
    } else {
        match (block.device_cache, block.write_cache) {
            (Some(WriteCache::Volatile), Some(WriteCache::Safe) | None) => {
                warnings.push(Warning::VolatileCacheUnflushed(name()));
            }
            (Some(WriteCache::Safe) | None, None) => warnings.push(Warning::CacheUnknown(name())),
            (_, Some(WriteCache::Volatile)) | (Some(WriteCache::Safe) | None, Some(WriteCache::Safe)) => {}
        }
    }
    if block.loop_direct == Some(false) {
        warnings.push(Warning::LoopBuffered(name()));
    }
    if block.read_only == Some(true) {
        warnings.push(Warning::ReadOnly(name()));
    }
}
