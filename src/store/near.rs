//! Which devices of a store lie at the NUMA node of which core.

use corelog_shards::{device::file::DeviceFile, ids::DeviceIndex, nearness::Nearness};
use corelog_tuning::{
    probe::DeviceProbe,
    topology::{CorePlace, NodeId},
};
use std::{path::Path, sync::Arc};

/// Asks the host, where there is a choice: several devices, and cores on several nodes.
pub(super) fn of(devices: &[Arc<DeviceFile>], places: &[CorePlace], cores: u32) -> Nearness {
    let has_nodes = places.iter().any(|place| place.node != places[0].node);
    if devices.len() < 2 || !has_nodes {
        return Nearness::default();
    }
    let node =
        |device: &Arc<DeviceFile>| DeviceProbe::of_path(device.path(), Path::new("/sys")).ok()?.block?.node;
    let nodes: Vec<Option<NodeId>> = devices.iter().map(node).collect();
    by_node(&nodes, places, cores)
}

fn by_node(devices: &[Option<NodeId>], places: &[CorePlace], cores: u32) -> Nearness {
    let near = |core: u32| {
        let node = places.get(core as usize % places.len().max(1)).and_then(|place| place.node);
        let is_near = |device: &u16| node.is_some() && devices[usize::from(*device)] == node;
        (0..devices.len() as u16).filter(is_near).map(DeviceIndex).collect()
    };
    Nearness::by_core((0..cores).map(near).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_tuning::topology::CpuId;

    fn nodes(nodes: &[i32]) -> Vec<Option<NodeId>> {
        nodes.iter().map(|node| u32::try_from(*node).ok().map(NodeId)).collect()
    }

    #[test]
    fn a_core_is_near_to_the_devices_of_its_node_and_to_no_others() {
        let places: Vec<CorePlace> =
            nodes(&[0, 1, -1, 2]).into_iter().map(|node| CorePlace { cpu: CpuId(0), node }).collect();
        let near = by_node(&nodes(&[1, 0, -1, 1]), &places, 5);
        let expected = [vec![1], vec![0, 3], vec![], vec![], vec![1]];
        let expected = expected.map(|devices| devices.into_iter().map(DeviceIndex).collect());
        assert_eq!(near, Nearness::by_core(expected.to_vec()));
    }
}
