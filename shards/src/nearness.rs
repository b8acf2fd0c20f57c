//! Which devices a core is near to: a shard goes on in extents of the devices of its core's NUMA node, as long as there
//! are any, and then anywhere.

use crate::{
    extents::{Claim, ExtentTable},
    ids::{DeviceIndex, ExtentIndex, ExtentOrdinal, ShardId},
    layout::{Layout, RegionRun},
};
use std::sync::Arc;

/// The near devices of each core. With none, all devices are alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nearness(Arc<[Vec<DeviceIndex>]>);

impl Nearness {
    /// `devices`: by core. A core without any prefers none.
    #[must_use]
    pub fn by_core(devices: Vec<Vec<DeviceIndex>>) -> Self {
        Self(devices.into())
    }

    /// Shard `n` of `m` cores is run by core `n % m`.
    fn of(&self, shard: ShardId) -> &[DeviceIndex] {
        let core = usize::from(shard.0).checked_rem(self.0.len());
        core.and_then(|core| self.0.get(core)).map(Vec::as_slice).unwrap_or_default()
    }

    fn runs<'a>(&'a self, shard: ShardId, layout: &'a Layout) -> impl Iterator<Item = &'a RegionRun> {
        let near = self.of(shard);
        layout.runs().filter(move |run| near.contains(&run.device))
    }

    /// Where shard `shard` of `shards` looks first: its home region, on a near device.
    #[must_use]
    pub fn home(&self, shard: ShardId, shards: u32, layout: &Layout, extents: &ExtentTable) -> ExtentIndex {
        let all: u64 = self.runs(shard, layout).map(|run| u64::from(run.extents)).sum();
        let shards = u64::from(shards.max(1));
        let mut left = all / shards * (u64::from(shard.0) % shards);
        for run in self.runs(shard, layout) {
            if left < u64::from(run.extents) {
                return ExtentIndex(run.first_extent.0 + left as u32);
            }
            left -= u64::from(run.extents);
        }
        extents.home(shard, shards as u32)
    }

    /// Claims the first free extent at or after `from` on a near device, going round once; if there is none, on any.
    /// `None`: the store is full.
    pub fn claim(
        &self,
        shard: ShardId,
        ordinal: ExtentOrdinal,
        from: ExtentIndex,
        layout: &Layout,
        extents: &ExtentTable,
    ) -> Option<Claim> {
        let of = |run: &RegionRun| (run.first_extent.0, run.first_extent.0 + run.extents);
        let behind = self.runs(shard, layout).map(of).map(|(first, end)| first.max(from.0)..end);
        let before = self.runs(shard, layout).map(of).map(|(first, end)| first..end.min(from.0));
        let near = behind.chain(before).flatten().map(ExtentIndex);
        extents.claim_one_of(near, shard, ordinal).or_else(|| extents.claim(shard, ordinal, from))
    }
}

#[cfg(all(test, not(loom)))]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::geometry::Geometry;

    /// Two devices, the first of which grew: extents 0 to 3 and 7 to 9, and 4 to 6.
    fn ground() -> (Layout, ExtentTable) {
        let geometry = Geometry::new(4096, 1 << 20).unwrap();
        let run = |device, first, extents| RegionRun {
            device: DeviceIndex(device),
            first_extent: ExtentIndex(first),
            extents,
            device_offset: (1 + u64::from(first)) << 20,
        };
        let layout = Layout::new(geometry, vec![run(0, 0, 4), run(1, 4, 3), run(0, 7, 3)]);
        (layout, ExtentTable::new(geometry, 10))
    }

    fn claims(near: &Nearness, shard: u16, count: u64) -> Vec<u32> {
        let (layout, extents) = ground();
        let mut from = near.home(ShardId(shard), 2, &layout, &extents);
        let mut next = |ordinal| {
            from = near.claim(ShardId(shard), ExtentOrdinal(ordinal), from, &layout, &extents)?.extent;
            Some(from.0)
        };
        (0..count).map_while(&mut next).collect()
    }

    #[test]
    fn near_extents_come_first_and_all_others_after_them() {
        let near = Nearness::by_core(vec![vec![DeviceIndex(1)], vec![DeviceIndex(0)]]);
        assert_eq!(claims(&near, 0, 20), [4, 5, 6, 7, 8, 9, 0, 1, 2, 3]);
        assert_eq!(claims(&near, 1, 20), [3, 7, 8, 9, 0, 1, 2, 4, 5, 6]);
        assert_eq!(claims(&near, 2, 4), [4, 5, 6, 7], "the third shard is run by the first core");
    }

    #[test]
    fn without_a_near_device_all_are_alike() {
        for none in [Nearness::default(), Nearness::by_core(vec![Vec::new(), vec![DeviceIndex(9)]])] {
            assert_eq!(claims(&none, 0, 20), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
            assert_eq!(claims(&none, 1, 3), [5, 6, 7]);
        }
    }
}
