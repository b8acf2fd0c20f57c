//! Devices made of folders.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::fake::Tree;

const DISK: &str = "devices/pci0/0000:00:02.0/virtio1/block/vda";

/// A disk with one queue and two vectors, of which the second takes nearly all, on CPU 1.
fn host() -> (Tree, Tree) {
    let (sys, proc) = (Tree::new(), Tree::new());
    sys.file(&format!("{DISK}/mq/0/cpu_list"), "0, 1, 2\n");
    sys.file(&format!("{DISK}/vda1/partition"), "1\n");
    for (vector, counts, cpu) in [(35, "0,1,0\n", "2\n"), (36, "0,86622149,0\n", "1\n")] {
        sys.file(&format!("devices/pci0/0000:00:02.0/msi_irqs/{vector}"), "msix\n");
        sys.file(&format!("kernel/irq/{vector}/per_cpu_count"), counts);
        proc.file(&format!("irq/{vector}/effective_affinity_list"), cpu);
    }
    sys.link("dev/block/254:0", DISK);
    sys.link("dev/block/254:1", &format!("{DISK}/vda1"));
    (sys, proc)
}

fn found(sys: &Tree, proc: &Tree, minor: u32) -> Vec<u32> {
    let cpus = cpus_of_device(254, minor, sys.root(), proc.root()).unwrap_or_default();
    cpus.into_iter().map(|cpu| cpu.0).collect()
}

#[test]
fn one_queue_has_the_cpu_of_its_vector() {
    let (sys, proc) = host();
    assert_eq!(found(&sys, &proc, 0), [1]);
    assert_eq!(found(&sys, &proc, 1), [1], "a partition has that of its disk");
    proc.file("irq/36/effective_affinity_list", "");
    proc.file("irq/36/smp_affinity_list", "0-2\n");
    assert_eq!(found(&sys, &proc, 0), [0, 1, 2]);
}

#[test]
fn several_queues_or_a_host_that_tells_nothing_have_none() {
    let (sys, proc) = host();
    assert_eq!(found(&sys, &proc, 7), [0; 0], "no such device");
    assert_eq!(found(&sys, &Tree::new(), 0), [0; 0]);
    sys.file("kernel/irq/35/per_cpu_count", "0,0,0\n");
    sys.file("kernel/irq/36/per_cpu_count", "garbage\n");
    assert_eq!(found(&sys, &proc, 0), [0; 0], "it was never used");
    let (sys, proc) = host();
    sys.file(&format!("{DISK}/mq/1/cpu_list"), "2\n");
    assert_eq!(found(&sys, &proc, 0), [0; 0], "each queue has an interrupt of its own");
    let (sys, proc) = host();
    std::fs::remove_dir_all(sys.path("devices/pci0/0000:00:02.0/msi_irqs")).unwrap();
    assert_eq!(found(&sys, &proc, 0), [0; 0]);
}

#[test]
fn whatever_is_under_a_path_it_is_a_cpu_of_this_host_or_none() {
    let found = cpus_of(Path::new("/no/such/folder/yet"), Path::new("/sys"), Path::new("/proc"));
    let online = sysfs::list(&sysfs::text(Path::new("/sys/devices/system/cpu/possible")).unwrap()).unwrap();
    assert!(found.iter().all(|cpu| online.contains(&cpu.0)), "{found:?}");
}
