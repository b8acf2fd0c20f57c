//! What sysfs says of a block device.

use crate::{sysfs, topology::NodeId};
use serde::{Deserialize, Serialize};
use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

/// Devices below a stacked one (dm, md) that are looked at.
const DEVICES_BELOW_MAX: usize = 64;

/// Whether a device's cache forgets on power loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriteCache {
    /// It may: only a flush makes writes durable.
    Volatile,
    /// There is none, or it survives: a completed write is durable, and the kernel sends no flushes.
    Safe,
}

impl fmt::Display for WriteCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Volatile => "write back",
            Self::Safe => "write through",
        })
    }
}

/// A whole disk, as its `queue` folder describes it. A partition is described by its disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockDevice {
    /// The disk's name, such as `nvme0n1`.
    pub name: String,
    /// The partition's name, when the path is on one.
    pub partition: Option<String>,
    /// The smallest unit of I/O, in bytes.
    pub logical_block_bytes: Option<u64>,
    /// The unit that the device writes without reading first, in bytes.
    pub physical_block_bytes: Option<u64>,
    /// What the kernel takes the cache for; it sends flushes only to a volatile one.
    pub write_cache: Option<WriteCache>,
    /// What the device itself, or one below it, says of its cache, where the kernel passes that on.
    pub device_cache: Option<WriteCache>,
    /// True if one write can be made durable without a flush of the whole cache.
    pub fua: Option<bool>,
    /// The most that one discard covers, in bytes; 0: no discard.
    pub discard_bytes_max: Option<u64>,
    /// True if it calls itself a rotating disk; virtual disks often do so without being one.
    pub rotational: Option<bool>,
    /// True if it refuses writes.
    pub read_only: Option<bool>,
    /// The I/O scheduler in use.
    pub scheduler: Option<String>,
    /// Requests that its queue takes.
    pub queue_requests_max: Option<u64>,
    /// True if completions can be polled for.
    pub io_poll: Option<bool>,
    /// The NUMA node that it is attached to.
    pub node: Option<NodeId>,
    /// For a loop device: true if it goes past the page cache to its file.
    pub loop_direct: Option<bool>,
}

impl BlockDevice {
    /// The disk with this device number, or that holds the partition with it; `None` if sysfs below `sys` knows none.
    #[must_use]
    pub fn read(sys: &Path, major: u32, minor: u32) -> Option<Self> {
        let device = sys.join(format!("dev/block/{major}:{minor}")).canonicalize().ok()?;
        let is_partition = device.join("partition").exists();
        let disk = if is_partition { device.parent()?.to_owned() } else { device.clone() };
        let queue = disk.join("queue");
        Some(Self {
            name: name_of(&disk)?,
            partition: if is_partition { name_of(&device) } else { None },
            logical_block_bytes: sysfs::number(&queue.join("logical_block_size")),
            physical_block_bytes: sysfs::number(&queue.join("physical_block_size")),
            write_cache: cache(&queue.join("write_cache")),
            device_cache: device_cache(&disk),
            fua: sysfs::flag(&queue.join("fua")),
            discard_bytes_max: sysfs::number(&queue.join("discard_max_bytes")),
            rotational: sysfs::flag(&queue.join("rotational")),
            read_only: sysfs::flag(&device.join("ro")),
            scheduler: sysfs::chosen(&queue.join("scheduler")),
            queue_requests_max: sysfs::number(&queue.join("nr_requests")),
            io_poll: sysfs::flag(&queue.join("io_poll")),
            node: node_of(&disk, sys),
            loop_direct: sysfs::flag(&disk.join("loop/dio")),
        })
    }

    /// True if it is memory that calls itself a disk.
    #[must_use]
    pub fn is_memory(&self) -> bool {
        ["zram", "ram"].iter().any(|kind| {
            self.name.strip_prefix(kind).is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
        })
    }
}

fn name_of(folder: &Path) -> Option<String> {
    Some(folder.file_name()?.to_str()?.to_owned())
}

fn cache(path: &Path) -> Option<WriteCache> {
    match sysfs::text(path)?.as_str() {
        "write back" => Some(WriteCache::Volatile),
        "write through" => Some(WriteCache::Safe),
        _ => None,
    }
}

/// The worst that the device and those below it say. SCSI disks and virtio disks have an attribute of their own; of
/// a stacked device's parts the kernel's view counts too, since the parts are flushed only if the top passes it on.
fn device_cache(disk: &Path) -> Option<WriteCache> {
    let mut said: Vec<WriteCache> = Vec::new();
    said.extend(cache(&disk.join("cache_type")));
    said.extend(
        children(&disk.join("device/scsi_disk"))
            .iter()
            .filter_map(|scsi| scsi_cache(&scsi.join("cache_type"))),
    );
    for part in children(&disk.join("slaves")) {
        let Ok(part) = part.canonicalize() else { continue };
        let part = if part.join("partition").exists() { part.join("..") } else { part };
        said.extend(cache(&part.join("queue/write_cache")));
    }
    if said.contains(&WriteCache::Volatile) { Some(WriteCache::Volatile) } else { said.first().copied() }
}

/// SCSI has longer words: `write back, no read (daft)` and `none`.
fn scsi_cache(path: &Path) -> Option<WriteCache> {
    let text = sysfs::text(path)?;
    if text.starts_with("write back") {
        Some(WriteCache::Volatile)
    } else if text.starts_with("write through") || text == "none" {
        Some(WriteCache::Safe)
    } else {
        None
    }
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.take(DEVICES_BELOW_MAX).filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// The nearest `numa_node` on the way up to the bus; -1, for unknown, is not a number here.
fn node_of(disk: &Path, sys: &Path) -> Option<NodeId> {
    let top = sys.canonicalize().ok()?;
    let attached = disk.join("device/numa_node");
    let path = std::iter::once(attached)
        .chain(
            disk.ancestors()
                .take_while(|folder| folder.starts_with(&top))
                .map(|folder| folder.join("numa_node")),
        )
        .find(|path| path.exists())?;
    Some(NodeId(u32::try_from(sysfs::number(&path)?).ok()?))
}
