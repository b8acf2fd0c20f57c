//! A store that grows in the middle of its life, step by step, so that everybody else acts between the steps and a crash
//! may come at each.

use super::{
    device::{Disks, SharedWorld, lock},
    oracle::Oracle,
    random::{Random, mix},
    world::Stopped,
};
use crate::{
    directory::Directory,
    failure::SyncFailures,
    format::superblock::Superblock,
    growth::{Addition, Growing, Growth},
    ids::DeviceIndex,
    limits::EXTENT_BYTES_MIN,
    memory::RegionSlice,
    opening::StoreDevices,
    recovery::SourceError,
};

/// What a case has in reserve.
#[derive(Clone, Debug, Default)]
pub(super) struct Reserve {
    /// Extents that each disk has room for beyond those of the store.
    pub beyond: u32,
    /// Extents of a disk that is no part of the store yet.
    pub further: Option<u32>,
}

impl Reserve {
    /// A quarter of the cases grow. By a generator of its own, so that the others are what they were.
    pub(super) fn draw(seed: u64) -> Self {
        let mut random = Random::new(mix(seed ^ 0x6772_6f77));
        if !random.one_in(4) {
            return Self::default();
        }
        let further = random.one_in(2).then(|| 1 + random.below(6) as u32);
        Self { beyond: random.pick(&[0, 2, 8]), further }
    }
}

/// The devices, for a growth beside running cores.
pub(super) struct Grounds<'a> {
    pub world: &'a SharedWorld,
    pub failures: &'a SyncFailures,
}

impl StoreDevices for Grounds<'_> {
    type Error = Stopped;

    fn read(&self, device: DeviceIndex, offset: u64, bytes: &mut [u8]) -> Result<(), SourceError> {
        Disks(self.world).read(device, offset, bytes)
    }

    fn write(&self, device: DeviceIndex, offset: u64, bytes: &RegionSlice) -> Result<(), Stopped> {
        Disks(self.world).write(device, offset, bytes)
    }

    fn sync(&self, device: DeviceIndex) -> Result<(), Stopped> {
        Disks(self.world).sync(device).inspect_err(|_| self.failures.note(device))
    }

    fn alignment(&self, device: DeviceIndex) -> u64 {
        Disks(self.world).alignment(device)
    }
}

/// Whoever makes the store of a life larger.
pub(super) struct Grower {
    random: Random,
    growth: Option<Growth>,
    /// Growths that it may still begin.
    left: u32,
    /// It begins once the store is full.
    waits: bool,
    /// Of so many of its turns it uses one, so that more happens between the steps.
    pace: u64,
}

impl Grower {
    pub(super) fn new(seed: u64, can_grow: bool) -> Self {
        let mut random = Random::new(mix(seed));
        let left = if can_grow { random.below(3) as u32 } else { 0 };
        let (waits, pace) = (random.one_in(2), random.pick(&[1, 10, 40]));
        Self { random, growth: None, left, waits, pace }
    }

    /// Nobody else writes superblocks meanwhile.
    pub(super) const fn is_busy(&self) -> bool {
        self.growth.is_some()
    }

    pub(super) fn can_step(&self, directory: &Directory) -> bool {
        let may_begin = !self.waits || directory.extents.free_for_appends() == 0;
        self.growth.is_some() || (self.left > 0 && may_begin)
    }

    /// One step of the growth under way, or the beginning of one.
    pub(super) fn step(
        &mut self,
        superblock: &mut Superblock,
        world: &SharedWorld,
        failures: &SyncFailures,
        directory: &Directory,
        oracle: &mut Oracle,
    ) {
        if !self.random.one_in(self.pace) {
            return;
        }
        let Some(growth) = &mut self.growth else {
            self.left -= 1;
            self.growth = self.begin(superblock, world);
            return;
        };
        match growth.step(&Grounds { world, failures }, &directory.layout, &directory.extents) {
            Ok(Growing::More) => {}
            Ok(Growing::Done) => {
                *superblock = growth.superblock().clone();
                oracle.superblock_sequence = superblock.sequence;
                directory.cores.iter().for_each(|core| core.ring());
                self.growth = None;
            }
            Err(_) => self.give_up(superblock),
        }
    }

    /// The life goes on, or ends, without the growth.
    pub(super) fn give_up(&mut self, superblock: &mut Superblock) {
        if let Some(growth) = self.growth.take() {
            superblock.sequence = growth.sequence_after_failure();
        }
    }

    fn begin(&mut self, superblock: &Superblock, world: &SharedWorld) -> Option<Growth> {
        let mut world = lock(world);
        let choices: Vec<Addition> = (0..world.disks.len())
            .filter_map(|index| {
                let has = world.disks[index].visible.bytes();
                let known = superblock.devices.get(index).map(|device| device.bytes);
                let more = has.saturating_sub(known.unwrap_or(0)) / EXTENT_BYTES_MIN;
                let bytes = match known {
                    // Not all of it, so that it can grow again.
                    Some(known) if more > 0 => known + (1 + self.random.below(more)) * EXTENT_BYTES_MIN,
                    Some(_) => return None,
                    None if index == superblock.devices.len() => has,
                    None => return None,
                };
                let device = DeviceIndex(index as u16);
                Some(Addition { device, uuid: [index as u8 + 1; 16], bytes, is_zero: false })
            })
            .collect();
        let addition = *choices.get(self.random.index(choices.len().max(1)))?;
        let growth = Growth::new(superblock, addition, world.now_ns).ok()?;
        world.note(|| format!("GROWS by {:?}", growth.run()));
        Some(growth)
    }
}
