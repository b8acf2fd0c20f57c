//! Machines made of folders.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::{CpuId, Granted, NodeId, Note, Topology, TopologyError};
use crate::fake::Tree;
use rustix::io::Errno;
use std::{collections::BTreeSet, num::NonZeroU32, path::Path};

/// Two nodes of two physical cores with two threads each: cpu N and N + 4 share a core.
fn two_nodes() -> Tree {
    let tree = Tree::new();
    tree.file("devices/system/cpu/online", "0-7\n");
    for cpu in 0..8 {
        let siblings = format!("{},{}\n", cpu % 4, cpu % 4 + 4);
        tree.file(&format!("devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"), &siblings);
    }
    tree.file("devices/system/node/online", "0-1\n");
    tree.file("devices/system/node/node0/cpulist", "0-1,4-5\n");
    tree.file("devices/system/node/node1/cpulist", "2-3,6-7\n");
    tree
}

fn allowed(cpus: impl IntoIterator<Item = u32>) -> Result<BTreeSet<CpuId>, Errno> {
    Ok(cpus.into_iter().map(CpuId).collect())
}

fn planned(topology: &Topology, cores: Option<u32>) -> Vec<u32> {
    topology.plan(cores.and_then(NonZeroU32::new)).places.iter().map(|place| place.cpu.0).collect()
}

#[test]
fn a_plan_takes_physical_cores_first_and_goes_round_the_nodes() {
    let topology = Topology::read_allowed(two_nodes().root(), allowed(0..8)).unwrap();
    assert_eq!(topology.notes(), []);
    assert_eq!(topology.nodes(), [NodeId(0), NodeId(1)]);
    assert_eq!(topology.physical_cores(), 4);
    assert_eq!(planned(&topology, None), [0, 2, 1, 3, 4, 6, 5, 7]);
    assert_eq!(planned(&topology, Some(3)), [0, 2, 1]);
    assert_eq!(topology.plan(None).granted, Granted::All);
    assert_eq!(topology.plan(None).places[1].node, Some(NodeId(1)));
}

#[test]
fn those_that_take_interrupts_come_first() {
    let plan = |interrupted: &[u32], cores| {
        let topology = Topology::read_allowed(two_nodes().root(), allowed(0..8)).unwrap();
        planned(&topology.preferring(interrupted.iter().copied().map(CpuId).collect()), cores)
    };
    assert_eq!(plan(&[3], Some(1)), [3]);
    assert_eq!(plan(&[3], None), [3, 0, 2, 1, 6, 4, 7, 5], "still round the nodes, and physical cores first");
    assert_eq!(plan(&[5], None), [5, 2, 0, 3, 1, 6, 4, 7], "a sibling before its lower neighbour");
    assert_eq!(plan(&[0, 1, 2, 3, 4, 5, 6, 7], None), plan(&[], None));
    assert_eq!(plan(&[99], None), plan(&[], None), "one that may not be used is none");
}

#[test]
fn a_smaller_cpuset_is_respected_and_the_shortfall_is_named() {
    let topology = Topology::read_allowed(two_nodes().root(), allowed([1, 5, 6])).unwrap();
    assert_eq!(planned(&topology, None), [1, 6, 5]);
    let plan = topology.plan(NonZeroU32::new(4));
    assert_eq!(plan.places.len(), 3);
    assert_eq!(plan.granted, Granted::Fewer { asked: 4, available: 3 });
}

#[test]
fn an_offline_cpu_is_not_used_although_it_is_allowed() {
    let tree = two_nodes();
    tree.file("devices/system/cpu/online", "0,2-7\n");
    tree.file("devices/system/cpu/cpu5/topology/thread_siblings_list", "5\n");
    let topology = Topology::read_allowed(tree.root(), allowed(0..8)).unwrap();
    assert_eq!(topology.physical_cores(), 4);
    assert_eq!(planned(&topology, None), [0, 2, 5, 3, 4, 6, 7]);
}

#[test]
fn nodes_of_different_size_are_used_up_in_turn() {
    let tree = two_nodes();
    tree.file("devices/system/node/node0/cpulist", "0\n");
    tree.file("devices/system/node/node1/cpulist", "1-7\n");
    let topology = Topology::read_allowed(tree.root(), allowed(0..4)).unwrap();
    assert_eq!(planned(&topology, None), [0, 1, 2, 3]);
}

#[test]
fn without_a_node_folder_there_is_no_node() {
    let tree = two_nodes();
    std::fs::remove_dir_all(tree.path("devices/system/node")).unwrap();
    let topology = Topology::read_allowed(tree.root(), allowed(0..8)).unwrap();
    assert_eq!(topology.nodes(), []);
    assert!(matches!(topology.notes(), [Note::NodesUnknown(_)]));
    assert_eq!(planned(&topology, None), [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_node_without_a_readable_list_leaves_its_cpus_without_a_node() {
    let tree = two_nodes();
    tree.file("devices/system/node/node1/cpulist", "two to three\n");
    let topology = Topology::read_allowed(tree.root(), allowed(0..8)).unwrap();
    assert!(matches!(topology.notes(), [Note::NodeCpusUnknown(_)]));
    assert_eq!(topology.cpus()[2].node, None);
    assert_eq!(topology.cpus()[0].node, Some(NodeId(0)));
    assert_eq!(planned(&topology, None).len(), 8);
}

#[test]
fn garbage_everywhere_still_gives_the_allowed_cpus() {
    let tree = two_nodes();
    tree.file("devices/system/cpu/online", "\0\u{1}-/");
    tree.file("devices/system/node/online", "0-4294967295");
    for cpu in 0..8 {
        // A sibling list that does not name the CPU itself is no list of its siblings.
        tree.file(&format!("devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"), "99\n");
    }
    let topology = Topology::read_allowed(tree.root(), allowed(0..2)).unwrap();
    assert_eq!(topology.notes().len(), 4);
    assert_eq!(topology.physical_cores(), 2);
    assert_eq!(planned(&topology, None), [0, 1]);
}

#[test]
fn with_nothing_known_there_is_no_topology() {
    let unknown = Topology::read_allowed(Path::new("/nonexistent"), Err(Errno::INVAL));
    assert_eq!(unknown, Err(TopologyError::NoCpu));
    let nothing_allowed_is_online = Topology::read_allowed(two_nodes().root(), allowed([64]));
    assert_eq!(nothing_allowed_is_online, Err(TopologyError::NoCpu));
}

#[test]
fn an_unknown_mask_falls_back_to_the_online_cpus_and_says_so() {
    let topology = Topology::read_allowed(two_nodes().root(), Err(Errno::INVAL)).unwrap();
    assert_eq!(topology.cpus().len(), 8);
    assert!(matches!(topology.notes(), [Note::AllowedUnknown(22)]));
}

#[test]
fn this_host_can_be_read() {
    let topology = Topology::read(Path::new("/sys")).unwrap();
    let plan = topology.plan(None);
    assert_eq!(plan.places.len(), topology.cpus().len());
    assert_eq!(plan.granted, Granted::All);
}
