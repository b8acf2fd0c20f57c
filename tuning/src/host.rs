//! What this host can grant a store, apart from CPUs and devices: kernel, io_uring, locked memory, huge pages.

use crate::sysfs;
use rustix::process::{Resource, getrlimit};
use serde::{Deserialize, Serialize};
use std::{fmt, path::Path};

/// `CAP_IPC_LOCK`: memory may be locked whatever the limit says.
const CAP_IPC_LOCK_BIT: u32 = 14;

/// What the host can grant; a fact that it does not tell is `None`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostProbe {
    /// The kernel's release, such as `6.18.5`.
    pub kernel: Option<String>,
    /// Whether a sysctl forbids io_uring; whether it really works is known only when a ring is made.
    pub io_uring: Option<IoUringPolicy>,
    /// Whether a seccomp filter is on this process: those of common container engines refuse io_uring.
    pub seccomp: Option<Seccomp>,
    /// How much memory may be locked, which bounds the buffers that can be registered with a ring.
    pub locked_memory: LockedMemory,
    /// Reserved huge pages, by size.
    pub huge_pages: Vec<HugePages>,
    /// The kernel's word for when it merges ordinary pages into huge ones: `always`, `madvise` or `never`.
    pub transparent_huge_pages: Option<String>,
    /// How many CPUs' worth of time the control group grants; `None`: no bound known.
    pub cpu_quota: Option<f64>,
}

/// The sysctl `kernel.io_uring_disabled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IoUringPolicy {
    /// 0: everybody may make rings.
    Allowed,
    /// 1: only privileged processes and one group may.
    Restricted,
    /// 2: nobody may.
    Forbidden,
}

/// The seccomp mode of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// No filter.
    Off,
    /// Only read, write and exit are left.
    Strict,
    /// A filter decides; what it refuses cannot be asked.
    Filter,
}

/// How much memory this process may lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockedMemory {
    /// Any amount: there is no limit, or a capability lifts it.
    Unlimited,
    /// Up to this many bytes (`ulimit -l`).
    Bytes(u64),
}

/// Reserved huge pages of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HugePages {
    /// Bytes of one page.
    pub page_bytes: u64,
    /// Pages reserved.
    pub pages: u64,
    /// Pages that nobody uses yet.
    pub free_pages: u64,
}

/// Something that makes a store slower here than it need be, or keeps io_uring from it; with the remedy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
pub enum HostWarning {
    /// A sysctl forbids io_uring.
    #[error(
        "io_uring is forbidden by kernel.io_uring_disabled=2: the thread pool serves instead; set it to 0"
    )]
    IoUringForbidden,
    /// A sysctl restricts io_uring.
    #[error(
        "io_uring is for privileged processes (kernel.io_uring_disabled=1): join kernel.io_uring_group, or set 0"
    )]
    IoUringRestricted,
    /// A seccomp filter is on.
    #[error(
        "a seccomp filter is on this process; if io_uring is refused, allow io_uring_setup, _enter, _register"
    )]
    SeccompFilter,
    /// The buffers cannot all be registered.
    #[error(
        "{limit} bytes may be locked, and the buffers need {needed}: raise `ulimit -l`, or they stay unregistered"
    )]
    LockedMemorySmall {
        /// The limit, in bytes.
        limit: u64,
        /// What was asked for, in bytes.
        needed: u64,
    },
    /// The control group grants less time than the pinned cores would use.
    #[error(
        "the control group grants {quota} CPUs of time, and {cores} cores are to run: they will be throttled"
    )]
    CpuQuotaSmall {
        /// CPUs of time.
        quota: f64,
        /// Cores to run.
        cores: u32,
    },
}

impl HostProbe {
    /// Reads what `proc` and `sys` (`/proc` and `/sys` on a real host) and the process's limits tell.
    #[must_use]
    pub fn read(proc: &Path, sys: &Path) -> Self {
        Self::read_limited(proc, sys, getrlimit(Resource::Memlock).current)
    }

    /// The same, with the limit on locked memory given, in bytes; `None`: no limit.
    #[must_use]
    pub fn read_limited(proc: &Path, sys: &Path, locked_bytes_max: Option<u64>) -> Self {
        let status = sysfs::text(&proc.join("self/status")).unwrap_or_default();
        let locked_memory = match locked_bytes_max {
            Some(bytes) if !may_lock_any(&status) => LockedMemory::Bytes(bytes),
            _ => LockedMemory::Unlimited,
        };
        Self {
            kernel: sysfs::text(&proc.join("sys/kernel/osrelease")).filter(|release| !release.is_empty()),
            io_uring: io_uring(proc),
            seccomp: seccomp(&status),
            locked_memory,
            huge_pages: huge_pages(&sys.join("kernel/mm/hugepages")),
            transparent_huge_pages: sysfs::chosen(&sys.join("kernel/mm/transparent_hugepage/enabled")),
            cpu_quota: sysfs::text(&sys.join("fs/cgroup/cpu.max")).and_then(|text| cpu_quota(&text)),
        }
    }

    /// The kernel's version as numbers, `(major, minor)`.
    #[must_use]
    pub fn kernel_version(&self) -> Option<(u32, u32)> {
        let mut parts = self.kernel.as_deref()?.split(|c: char| !c.is_ascii_digit());
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }

    /// What stands in the way of a store with `cores` cores that registers `buffer_bytes` in all.
    #[must_use]
    pub fn warnings(&self, cores: u32, buffer_bytes: u64) -> Vec<HostWarning> {
        let mut warnings = Vec::new();
        match self.io_uring {
            Some(IoUringPolicy::Forbidden) => warnings.push(HostWarning::IoUringForbidden),
            Some(IoUringPolicy::Restricted) => warnings.push(HostWarning::IoUringRestricted),
            Some(IoUringPolicy::Allowed) | None => {}
        }
        if matches!(self.seccomp, Some(Seccomp::Filter | Seccomp::Strict)) {
            warnings.push(HostWarning::SeccompFilter);
        }
        match self.locked_memory {
            LockedMemory::Bytes(limit) if limit < buffer_bytes => {
                warnings.push(HostWarning::LockedMemorySmall { limit, needed: buffer_bytes });
            }
            LockedMemory::Bytes(_) | LockedMemory::Unlimited => {}
        }
        match self.cpu_quota {
            Some(quota) if quota < f64::from(cores) => {
                warnings.push(HostWarning::CpuQuotaSmall { quota, cores });
            }
            _ => {}
        }
        warnings
    }
}

impl fmt::Display for LockedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("unlimited"),
            Self::Bytes(bytes) => write!(f, "{bytes} bytes"),
        }
    }
}

fn io_uring(proc: &Path) -> Option<IoUringPolicy> {
    match sysfs::number(&proc.join("sys/kernel/io_uring_disabled"))? {
        0 => Some(IoUringPolicy::Allowed),
        1 => Some(IoUringPolicy::Restricted),
        2 => Some(IoUringPolicy::Forbidden),
        _ => None,
    }
}

fn seccomp(status: &str) -> Option<Seccomp> {
    match sysfs::status_field(status, "Seccomp")? {
        "0" => Some(Seccomp::Off),
        "1" => Some(Seccomp::Strict),
        "2" => Some(Seccomp::Filter),
        _ => None,
    }
}

fn may_lock_any(status: &str) -> bool {
    sysfs::status_field(status, "CapEff")
        .and_then(|mask| u64::from_str_radix(mask, 16).ok())
        .is_some_and(|mask| mask >> CAP_IPC_LOCK_BIT & 1 == 1)
}

fn huge_pages(folder: &Path) -> Vec<HugePages> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut sizes: Vec<_> = entries.filter_map(|entry| huge_pages_of_size(&entry.ok()?.path())).collect();
    sizes.sort_unstable();
    sizes
}

fn huge_pages_of_size(folder: &Path) -> Option<HugePages> {
    let name = folder.file_name()?.to_str()?;
    let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(HugePages {
        page_bytes: kib.checked_mul(1024)?,
        pages: sysfs::number(&folder.join("nr_hugepages"))?,
        free_pages: sysfs::number(&folder.join("free_hugepages"))?,
    })
}

/// `MAX PERIOD` in microseconds; `max` for no bound.
fn cpu_quota(text: &str) -> Option<f64> {
    let (quota, period) = text.split_once(' ')?;
    let (quota, period): (u32, u32) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0).then(|| f64::from(quota) / f64::from(period))
}

#[cfg(test)]
mod tests;
