//! Disks made of folders.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::{BlockDevice, DeviceProbe, FileSystem, ProbeError, Warning, WriteCache};
use crate::{fake::Tree, topology::NodeId};
use std::path::Path;

const DISK: &str = "devices/pci0000:00/0000:00:02.0/nvme/nvme0/nvme0n1";

/// An NVMe disk with a volatile cache and one partition, on node 1.
fn disk() -> Tree {
    let tree = Tree::new();
    for (name, content) in [
        ("logical_block_size", "512\n"),
        ("physical_block_size", "4096\n"),
        ("write_cache", "write back\n"),
        ("fua", "1\n"),
        ("discard_max_bytes", "2199023255040\n"),
        ("rotational", "0\n"),
        ("scheduler", "[none] mq-deadline kyber\n"),
        ("nr_requests", "1023\n"),
        ("io_poll", "0\n"),
    ] {
        tree.file(&format!("{DISK}/queue/{name}"), content);
    }
    tree.file(&format!("{DISK}/ro"), "0\n");
    tree.file(&format!("{DISK}/nvme0n1p2/partition"), "2\n");
    tree.file(&format!("{DISK}/nvme0n1p2/ro"), "0\n");
    tree.file("devices/pci0000:00/0000:00:02.0/numa_node", "1\n");
    tree.link("dev/block/259:0", DISK);
    tree.link("dev/block/259:2", &format!("{DISK}/nvme0n1p2"));
    tree
}

fn read(tree: &Tree, minor: u32) -> BlockDevice {
    BlockDevice::read(tree.root(), 259, minor).unwrap()
}

fn warnings(block: BlockDevice) -> Vec<Warning> {
    DeviceProbe { file_system: None, block: Some(block) }.warnings()
}

#[test]
fn a_disk_is_read_whole() {
    let expected = BlockDevice {
        name: "nvme0n1".to_owned(),
        partition: None,
        logical_block_bytes: Some(512),
        physical_block_bytes: Some(4096),
        write_cache: Some(WriteCache::Volatile),
        device_cache: None,
        fua: Some(true),
        discard_bytes_max: Some(2_199_023_255_040),
        rotational: Some(false),
        read_only: Some(false),
        scheduler: Some("none".to_owned()),
        queue_requests_max: Some(1023),
        io_poll: Some(false),
        node: Some(NodeId(1)),
        loop_direct: None,
    };
    assert_eq!(read(&disk(), 0), expected);
    assert_eq!(warnings(expected), []);
}

#[test]
fn a_partition_is_described_by_its_disk() {
    let block = read(&disk(), 2);
    assert_eq!((block.name.as_str(), block.partition.as_deref()), ("nvme0n1", Some("nvme0n1p2")));
    assert_eq!(block.physical_block_bytes, Some(4096));
    assert_eq!(block.node, Some(NodeId(1)));
}

#[test]
fn a_device_number_that_sysfs_does_not_know_is_no_device() {
    assert_eq!(BlockDevice::read(disk().root(), 0, 42), None);
}

#[test]
fn a_node_of_minus_one_is_no_node() {
    let tree = disk();
    tree.file("devices/pci0000:00/0000:00:02.0/numa_node", "-1\n");
    assert_eq!(read(&tree, 0).node, None);
}

#[test]
fn a_volatile_scsi_cache_that_the_kernel_does_not_flush_is_warned_of() {
    let tree = disk();
    tree.file(&format!("{DISK}/queue/write_cache"), "write through\n");
    tree.file(&format!("{DISK}/device/scsi_disk/0:0:0:0/cache_type"), "write back\n");
    let found = warnings(read(&tree, 0));
    assert_eq!(found, [Warning::VolatileCacheUnflushed("nvme0n1".to_owned())]);
    assert!(found[0].breaks_durability());
}

#[test]
fn a_stacked_device_that_hides_a_volatile_cache_is_warned_of() {
    let tree = disk();
    tree.file("devices/virtual/block/dm-0/queue/write_cache", "write through\n");
    tree.link("devices/virtual/block/dm-0/slaves/nvme0n1p2", &format!("{DISK}/nvme0n1p2"));
    tree.link("dev/block/259:9", "devices/virtual/block/dm-0");
    let block = read(&tree, 9);
    assert_eq!(block.device_cache, Some(WriteCache::Volatile));
    assert_eq!(warnings(block), [Warning::VolatileCacheUnflushed("dm-0".to_owned())]);

    tree.file("devices/virtual/block/dm-0/queue/write_cache", "write back\n");
    assert_eq!(warnings(read(&tree, 9)), []);
}

#[test]
fn every_pair_of_cache_reports_has_its_answer() {
    use WriteCache::{Safe, Volatile};
    let unflushed = || vec![Warning::VolatileCacheUnflushed("nvme0n1".to_owned())];
    let unknown = || vec![Warning::CacheUnknown("nvme0n1".to_owned())];
    for (device, kernel, expected) in [
        (None, None, unknown()),
        (None, Some(Safe), vec![]),
        (None, Some(Volatile), vec![]),
        (Some(Safe), None, unknown()),
        (Some(Safe), Some(Safe), vec![]),
        (Some(Safe), Some(Volatile), vec![]),
        (Some(Volatile), None, unflushed()),
        (Some(Volatile), Some(Safe), unflushed()),
        (Some(Volatile), Some(Volatile), vec![]),
    ] {
        let block = BlockDevice { device_cache: device, write_cache: kernel, ..read(&disk(), 0) };
        assert_eq!(warnings(block), expected, "device {device:?}, kernel {kernel:?}");
    }
}

#[test]
fn a_loop_device_without_direct_io_is_warned_of() {
    let tree = disk();
    tree.file(&format!("{DISK}/loop/dio"), "0\n");
    assert_eq!(warnings(read(&tree, 0)), [Warning::LoopBuffered("nvme0n1".to_owned())]);
    tree.file(&format!("{DISK}/loop/dio"), "1\n");
    assert_eq!(warnings(read(&tree, 0)), []);
}

#[test]
fn garbage_in_an_attribute_is_an_unknown_attribute() {
    let tree = disk();
    for name in ["logical_block_size", "write_cache", "fua", "scheduler", "rotational"] {
        tree.file(&format!("{DISK}/queue/{name}"), "\u{7f}? ?\n");
    }
    let block = read(&tree, 0);
    assert_eq!((block.logical_block_bytes, block.fua, block.rotational), (None, None, None));
    assert_eq!((block.write_cache, &block.scheduler), (None, &None));
    assert_eq!(warnings(block), [Warning::CacheUnknown("nvme0n1".to_owned())]);
}

#[test]
fn memory_and_read_only_devices_are_warned_of() {
    let named = |name: &str| BlockDevice { name: name.to_owned(), ..read(&disk(), 0) };
    assert_eq!(warnings(named("zram0")), [Warning::MemoryDevice("zram0".to_owned())]);
    assert_eq!(warnings(named("ram12")), [Warning::MemoryDevice("ram12".to_owned())]);
    assert_eq!(warnings(named("ramble0")), []);
    let read_only = BlockDevice { read_only: Some(true), ..named("sda") };
    assert_eq!(warnings(read_only), [Warning::ReadOnly("sda".to_owned())]);
}

#[test]
fn each_kind_of_file_system_has_its_warning() {
    let warned = |kind| DeviceProbe { file_system: Some(kind), block: None }.warnings();
    assert_eq!(warned(FileSystem::Tmpfs), [Warning::MemoryFileSystem(FileSystem::Tmpfs)]);
    assert_eq!(warned(FileSystem::Btrfs), [Warning::BufferedFileSystem(FileSystem::Btrfs)]);
    assert_eq!(warned(FileSystem::Nfs), [Warning::RemoteFileSystem(FileSystem::Nfs)]);
    assert_eq!(warned(FileSystem::Overlay), [Warning::DeviceUnknown(FileSystem::Overlay)]);
    assert_eq!(FileSystem::of_magic(0xef53), FileSystem::Ext);
    assert_eq!(FileSystem::of_magic(7), FileSystem::Other(7));
    let sound = DeviceProbe { file_system: Some(FileSystem::Ext), block: Some(read(&disk(), 0)) };
    assert_eq!(sound.warnings(), []);
}

#[test]
fn a_file_yet_to_be_made_is_probed_by_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let of_folder = DeviceProbe::of_path(folder.path(), Path::new("/sys")).unwrap();
    let of_file = DeviceProbe::of_path(&folder.path().join("not/there/yet"), Path::new("/sys")).unwrap();
    assert_eq!(of_folder, of_file);
    assert!(of_folder.file_system.is_some());
}

#[test]
fn a_path_through_a_file_cannot_be_examined() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let probe = DeviceProbe::of_path(&file.path().join("store"), Path::new("/sys"));
    assert!(matches!(probe, Err(ProbeError::Examine { errno: rustix::io::Errno::NOTDIR, .. })), "{probe:?}");
}

#[test]
fn a_probe_survives_serde() {
    let probe = DeviceProbe { file_system: Some(FileSystem::Other(7)), block: Some(read(&disk(), 0)) };
    let json = serde_json::to_string(&probe).unwrap();
    assert_eq!(serde_json::from_str::<DeviceProbe>(&json).unwrap(), probe);
}
