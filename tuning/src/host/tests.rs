//! Hosts made of folders.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::{HostProbe, HostWarning, HugePages, IoUringPolicy, LockedMemory, Seccomp};
use crate::fake::Tree;
use std::path::Path;

const MIB: u64 = 1 << 20;

/// A container: a seccomp filter, io_uring for the privileged, half a CPU, an ordinary user.
fn container() -> Tree {
    let tree = Tree::new();
    tree.file("proc/self/status", "Name:\tx\nCapEff:\t00000000a80425fb\nSeccomp:\t2\nSeccomp_filters:\t1\n");
    tree.file("proc/sys/kernel/osrelease", "6.18.5-arch1-1\n");
    tree.file("proc/sys/kernel/io_uring_disabled", "1\n");
    tree.file("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
    tree.file("sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "0\n");
    tree.file("sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages", "0\n");
    tree.file("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "64\n");
    tree.file("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "60\n");
    tree.file("sys/fs/cgroup/cpu.max", "50000 100000\n");
    tree
}

fn read(tree: &Tree, locked_bytes_max: Option<u64>) -> HostProbe {
    HostProbe::read_limited(&tree.path("proc"), &tree.path("sys"), locked_bytes_max)
}

#[test]
fn a_container_is_read_whole_and_warned_of() {
    let host = read(&container(), Some(8 * MIB));
    assert_eq!(host.kernel_version(), Some((6, 18)));
    assert_eq!(host.io_uring, Some(IoUringPolicy::Restricted));
    assert_eq!(host.seccomp, Some(Seccomp::Filter));
    assert_eq!(host.locked_memory, LockedMemory::Bytes(8 * MIB));
    assert_eq!(host.huge_pages[0], HugePages { page_bytes: 2 * MIB, pages: 64, free_pages: 60 });
    assert_eq!(host.transparent_huge_pages.as_deref(), Some("madvise"));
    assert_eq!(
        host.warnings(1, 9 * MIB),
        [
            HostWarning::IoUringRestricted,
            HostWarning::SeccompFilter,
            HostWarning::LockedMemorySmall { limit: 8 * MIB, needed: 9 * MIB },
            HostWarning::CpuQuotaSmall { quota: 0.5, cores: 1 },
        ]
    );
}

#[test]
fn a_free_host_has_no_warnings() {
    let tree = container();
    tree.file("proc/self/status", "CapEff:\t000001ffffffffff\nSeccomp:\t0\n");
    tree.file("proc/sys/kernel/io_uring_disabled", "0\n");
    tree.file("sys/fs/cgroup/cpu.max", "max 100000\n");
    let host = read(&tree, Some(8 * MIB));
    assert_eq!(host.locked_memory, LockedMemory::Unlimited, "CAP_IPC_LOCK lifts the limit");
    assert_eq!(host.warnings(1024, u64::MAX), []);
}

#[test]
fn an_empty_host_tells_nothing() {
    let host = read(&Tree::new(), None);
    assert_eq!((host.kernel_version(), host.io_uring, host.seccomp), (None, None, None));
    assert_eq!((host.huge_pages.len(), host.cpu_quota), (0, None));
    assert_eq!(host.locked_memory, LockedMemory::Unlimited);
    assert_eq!(host.warnings(1, 1), []);
}

#[test]
fn garbage_is_unknown() {
    let tree = container();
    tree.file("proc/self/status", "CapEff:\tzz\nSeccomp:\t9\n");
    tree.file("proc/sys/kernel/io_uring_disabled", "-1\n");
    tree.file("proc/sys/kernel/osrelease", "six\n");
    tree.file("sys/fs/cgroup/cpu.max", "1 0\n");
    tree.file("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "many\n");
    let host = read(&tree, Some(MIB));
    assert_eq!((host.kernel_version(), host.io_uring, host.seccomp), (None, None, None));
    assert_eq!((host.huge_pages.len(), host.cpu_quota), (1, None));
    assert_eq!(host.locked_memory, LockedMemory::Bytes(MIB));
}

#[test]
fn this_host_can_be_read() {
    let host = HostProbe::read(Path::new("/proc"), Path::new("/sys"));
    assert!(host.kernel_version().is_some(), "{host:?}");
}
