//! CPUs, cores and NUMA nodes of this host, and the plan that says which CPU each of the store's cores is pinned to.
//!
//! A CPU counts when it is online and the calling thread may run on it: a cpuset, `taskset` and the like are
//! respected. Where sysfs tells less than usual (containers, odd kernels), the answer is a poorer topology with a
//! [`Note`] that says what is missing, not a failure to start.

use crate::{interrupts, sysfs};
use rustix::{io::Errno, thread::CpuSet};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

/// A logical CPU, as the kernel numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CpuId(pub u32);

/// A NUMA node, as the kernel numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u32);

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cpu {}", self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

/// One CPU that this process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// Its number.
    pub id: CpuId,
    /// Its NUMA node; `None` where the host tells of none.
    pub node: Option<NodeId>,
    /// The lowest CPU that shares its physical core (its SMT siblings have the same); itself if it is alone.
    pub core: CpuId,
}

/// Something that the host did not tell, or told in a form that is not understood; the topology does without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Note {
    /// The list of online CPUs is not there: every allowed CPU is taken to be online.
    #[error("{} cannot be read: every allowed CPU is taken to be online", .0.display())]
    OnlineUnknown(PathBuf),
    /// No NUMA nodes are listed: memory is not bound to any.
    #[error("{} cannot be read: NUMA nodes are unknown, memory is bound to none", .0.display())]
    NodesUnknown(PathBuf),
    /// The CPUs of one node are not known: they count as without a node.
    #[error("{} cannot be read: the CPUs of this node are unknown", .0.display())]
    NodeCpusUnknown(PathBuf),
    /// The SMT siblings of a CPU are not known: it counts as a physical core.
    #[error("{} cannot be read: this CPU counts as a physical core of its own", .0.display())]
    SiblingsUnknown(PathBuf),
    /// The kernel did not say which CPUs are allowed: every online one is tried.
    #[error("the allowed CPUs are unknown (errno {0}): every online CPU counts as allowed")]
    AllowedUnknown(i32),
}

/// No topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// Neither the kernel nor sysfs names a CPU that this process may use.
    #[error("no usable CPU: neither the affinity mask nor sysfs names one; run without pinning")]
    NoCpu,
}

/// The CPUs that this process may use, in the order of their numbers; never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    cpus: Vec<Cpu>,
    notes: Vec<Note>,
    /// Those that take the interrupts of the devices that matter.
    interrupted: BTreeSet<CpuId>,
}

impl Topology {
    /// Reads the topology below `sys` (`/sys` on a real host) for the calling thread's affinity mask.
    pub fn read(sys: &Path) -> Result<Self, TopologyError> {
        Self::read_allowed(sys, allowed_to_this_thread())
    }

    /// The same, for an affinity mask that the caller knows: the allowed CPUs, or why they are not known.
    pub fn read_allowed(sys: &Path, allowed: Result<BTreeSet<CpuId>, Errno>) -> Result<Self, TopologyError> {
        let mut notes = Vec::new();
        let ids = usable(sys, allowed, &mut notes);
        if ids.is_empty() {
            return Err(TopologyError::NoCpu);
        }
        let nodes = nodes_by_cpu(sys, &mut notes);
        let cpus = ids
            .into_iter()
            .map(|id| Cpu { id, node: nodes.get(&id).copied(), core: core_of(sys, id, &mut notes) })
            .collect();
        Ok(Self { cpus, notes, interrupted: BTreeSet::new() })
    }

    /// The same as [`Topology::read`], preferring the CPUs that take the interrupts of the devices under `paths`. `proc` is
    /// `/proc` on a real host.
    pub fn read_near<P: AsRef<Path>>(sys: &Path, proc: &Path, paths: &[P]) -> Result<Self, TopologyError> {
        let interrupted =
            paths.iter().flat_map(|path| interrupts::cpus_of(path.as_ref(), sys, proc)).collect();
        Ok(Self::read(sys)?.preferring(interrupted))
    }

    /// The same CPUs, of which `interrupted` take the interrupts of the devices that matter ([`crate::interrupts`]): plans
    /// have these first.
    #[must_use]
    pub fn preferring(self, interrupted: BTreeSet<CpuId>) -> Self {
        Self { interrupted, ..self }
    }

    /// The usable CPUs, by number.
    #[must_use]
    pub fn cpus(&self) -> &[Cpu] {
        &self.cpus
    }

    /// What the host did not tell.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The NUMA nodes that have a usable CPU, by number; empty where the host tells of none.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        self.cpus.iter().filter_map(|cpu| cpu.node).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// How many physical cores the usable CPUs belong to.
    #[must_use]
    pub fn physical_cores(&self) -> usize {
        self.cpus.iter().map(|cpu| cpu.core).collect::<BTreeSet<_>>().len()
    }

    /// The CPUs to pin `cores` cores to, one each; `None` asks for one per usable CPU.
    ///
    /// Physical cores come before SMT siblings, and neighbours in the plan lie on different nodes as long as there
    /// are several. Otherwise those come first that take interrupts ([`Topology::preferring`]), then lower numbers. What was asked for but is not there is in [`Plan::granted`]: two cores never share a CPU
    /// unless the caller decides so.
    pub fn plan(&self, cores: Option<NonZeroU32>) -> Plan {
        let mut places = self.in_order_of_preference();
        let available = u32::try_from(places.len()).unwrap_or(u32::MAX);
        let asked = cores.map_or(available, NonZeroU32::get);
        places.truncate(usize::try_from(asked).unwrap_or(usize::MAX));
        let granted = if asked > available { Granted::Fewer { asked, available } } else { Granted::All };
        Plan { places, granted }
    }

    fn in_order_of_preference(&self) -> Vec<CorePlace> {
        // (rank among its siblings, rank of its core in the node, whether the node has no interrupts, node): sorting by
        // this takes the first sibling of every core before any second one, and goes round the nodes within each rank.
        let mut siblings_seen = BTreeMap::<CpuId, usize>::new();
        let mut cores_seen = BTreeMap::<(usize, Option<NodeId>), usize>::new();
        let mut ranked = Vec::with_capacity(self.cpus.len());
        let (first, then): (Vec<Cpu>, Vec<Cpu>) =
            self.cpus.iter().partition(|cpu| self.interrupted.contains(&cpu.id));
        let first_nodes: BTreeSet<_> = first.iter().map(|cpu| cpu.node).collect();
        for cpu in first.into_iter().chain(then) {
            let sibling = take_next(siblings_seen.entry(cpu.core).or_default());
            let in_node = take_next(cores_seen.entry((sibling, cpu.node)).or_default());
            let rank = (sibling, in_node, !first_nodes.contains(&cpu.node), cpu.node);
            ranked.push((rank, CorePlace { cpu: cpu.id, node: cpu.node }));
        }
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, place)| place).collect()
    }
}

/// Where one of the store's cores runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorePlace {
    /// The CPU to pin it to.
    pub cpu: CpuId,
    /// The node to bind its memory to; `None` where the host tells of none.
    pub node: Option<NodeId>,
}

/// A place for each core that the host can give one to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[must_use]
pub struct Plan {
    /// One place per core, best first; never empty.
    pub places: Vec<CorePlace>,
    /// Whether that is all that was asked for.
    pub granted: Granted,
}

/// How a plan answers what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Granted {
    /// As many places as asked for.
    All,
    /// The process may use fewer CPUs than cores were asked for; each of them has a place.
    Fewer {
        /// Cores asked for.
        asked: u32,
        /// CPUs there are.
        available: u32,
    },
}

impl fmt::Display for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all cores have a CPU"),
            Self::Fewer { asked, available } => {
                write!(f, "{asked} cores were asked for, and {available} CPUs may be used")
            }
        }
    }
}

fn take_next(counter: &mut usize) -> usize {
    let taken = *counter;
    *counter += 1;
    taken
}

fn allowed_to_this_thread() -> Result<BTreeSet<CpuId>, Errno> {
    let set = rustix::thread::sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|cpu| set.is_set(*cpu))
        .filter_map(|cpu| Some(CpuId(u32::try_from(cpu).ok()?)))
        .collect())
}

fn usable(sys: &Path, allowed: Result<BTreeSet<CpuId>, Errno>, notes: &mut Vec<Note>) -> BTreeSet<CpuId> {
    let path = sys.join("devices/system/cpu/online");
    let online = cpu_list(&path);
    if online.is_none() {
        notes.push(Note::OnlineUnknown(path));
    }
    match (allowed, online) {
        (Ok(allowed), Some(online)) => allowed.intersection(&online).copied().collect(),
        (Ok(allowed), None) => allowed,
        (Err(errno), online) => {
            notes.push(Note::AllowedUnknown(errno.raw_os_error()));
            online.unwrap_or_default()
        }
    }
}

fn nodes_by_cpu(sys: &Path, notes: &mut Vec<Note>) -> BTreeMap<CpuId, NodeId> {
    let folder = sys.join("devices/system/node");
    let online = folder.join("online");
    let Some(nodes) = sysfs::text(&online).and_then(|text| sysfs::list(&text)) else {
        notes.push(Note::NodesUnknown(online));
        return BTreeMap::new();
    };
    let mut by_cpu = BTreeMap::new();
    for node in nodes {
        let path = folder.join(format!("node{node}/cpulist"));
        match cpu_list(&path) {
            Some(cpus) => by_cpu.extend(cpus.into_iter().map(|cpu| (cpu, NodeId(node)))),
            None => notes.push(Note::NodeCpusUnknown(path)),
        }
    }
    by_cpu
}

fn core_of(sys: &Path, id: CpuId, notes: &mut Vec<Note>) -> CpuId {
    let path = sys.join(format!("devices/system/cpu/cpu{}/topology/thread_siblings_list", id.0));
    match cpu_list(&path)
        .filter(|siblings| siblings.contains(&id))
        .and_then(|siblings| siblings.first().copied())
    {
        Some(first) => first,
        None => {
            notes.push(Note::SiblingsUnknown(path));
            id
        }
    }
}

fn cpu_list(path: &Path) -> Option<BTreeSet<CpuId>> {
    Some(sysfs::list(&sysfs::text(path)?)?.into_iter().map(CpuId).collect())
}

#[cfg(test)]
mod tests;
