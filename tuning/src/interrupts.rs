//! Which CPU takes the interrupts of a device.
//!
//! A thread that waits for completions on another CPU is woken across CPUs each time, which costs more than all else
//! between it and the device. Where each CPU has a queue of the device's, each has its own interrupt, and there is
//! nothing to choose.

use crate::{probe::device_of, sysfs, topology::CpuId};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Vectors of one device that are looked at.
const VECTORS_MAX: usize = 4096;

/// The CPUs that take the interrupts of the block device under `path`, if it has one queue and the host tells; else none.
/// `sys` and `proc` are `/sys` and `/proc` on a real host.
#[must_use]
pub fn cpus_of(path: &Path, sys: &Path, proc: &Path) -> BTreeSet<CpuId> {
    find(path, sys, proc).unwrap_or_default()
}

fn find(path: &Path, sys: &Path, proc: &Path) -> Option<BTreeSet<CpuId>> {
    let (major, minor) = device_of(path).ok()?;
    cpus_of_device(major, minor, sys, proc)
}

fn cpus_of_device(major: u32, minor: u32, sys: &Path, proc: &Path) -> Option<BTreeSet<CpuId>> {
    let device = sys.join(format!("dev/block/{major}:{minor}")).canonicalize().ok()?;
    let disk = if device.join("partition").exists() { device.parent()? } else { &device };
    if entries(&disk.join("mq")).len() != 1 {
        return None;
    }
    let top = sys.canonicalize().ok()?;
    let vectors = disk
        .ancestors()
        .take_while(|folder| folder.starts_with(&top))
        .map(|folder| entries(&folder.join("msi_irqs")))
        .find(|vectors| !vectors.is_empty())?;
    // The others are for changes of its configuration, which are rare.
    let (taken, vector) = vectors.iter().map(|vector| (interrupts(sys, vector), vector)).max()?;
    if taken == 0 {
        return None;
    }
    let folder = proc.join("irq").join(vector.file_name()?);
    ["effective_affinity_list", "smp_affinity_list"]
        .iter()
        .find_map(|name| sysfs::list(&sysfs::text(&folder.join(name))?).filter(|cpus| !cpus.is_empty()))
        .map(|cpus| cpus.into_iter().map(CpuId).collect())
}

/// How many came since the host was started.
fn interrupts(sys: &Path, vector: &Path) -> u64 {
    let counts = vector.file_name().map(|number| sys.join("kernel/irq").join(number).join("per_cpu_count"));
    let text = counts.and_then(|path| sysfs::text(&path)).unwrap_or_default();
    text.split(',').filter_map(|count| count.trim().parse::<u64>().ok()).sum()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.take(VECTORS_MAX).filter_map(|entry| Some(entry.ok()?.path())).collect()
}

#[cfg(test)]
#[path = "interrupts_tests.rs"]
mod tests;
