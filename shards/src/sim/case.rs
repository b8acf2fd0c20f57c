//! A case: one store over several lives, from its seed.

use super::{
    Tally,
    check::{Look, look, superblock_of},
    cleaning::Index,
    device::{Disks, SharedWorld, lock},
    disk::Crash,
    faults::Faults,
    growing::{Grower, Reserve},
    life::{Course, End, live},
    opened::{Closed, Options, open},
    oracle::Oracle,
    random::{Random, mix},
    world::{Submitted, World},
};
use crate::{
    format::superblock::{DeviceEntry, Features, RegionEntry, ShardEntry, Superblock},
    geometry::Geometry,
    ids::{DeviceIndex, ExtentIndex, StoreId, Term},
    limits::{EXTENT_BYTES_MIN, SLOT_BYTES_MIN, SUPERBLOCK_AREA_BYTES},
    mutant::Mutant,
    opening::write_superblock,
    recovery::TailKind,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
};

/// Tries to open a store whose device fails now and then.
const TRIES_MAX: u32 = 6;

/// What a run of cases has in common.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Of these, each case draws its own.
    pub faults: Faults,
    /// A planted bug.
    pub mutant: Option<Mutant>,
    /// Keep a line for every step.
    pub trace: bool,
    /// Of so many device steps one is a crash point.
    pub probe_one_in: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { faults: Faults::ALL, mutant: None, trace: false, probe_one_in: 2 }
    }
}

/// What came of a case.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What it did.
    pub tally: Tally,
    /// The invariant that was broken, and how.
    pub violation: Option<String>,
    /// A line for every step, if asked for.
    pub trace: Vec<String>,
}

/// Runs the case of a seed. Everything in it follows from the seed and the settings.
#[must_use]
pub fn run_case(seed: u64, settings: &Settings) -> Outcome {
    let _planted = settings.mutant.map(Mutant::plant);
    let mut case = Case::new(seed, settings);
    let ran = catch_unwind(AssertUnwindSafe(|| case.run()));
    let violation = match ran {
        Ok(result) => result.err(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Some(format!("panic: {}", text.unwrap_or_default()))
        }
    };
    let mut world = lock(&case.world);
    case.tally.steps = world.steps;
    case.tally.records = case.oracle.records.len() as u64;
    Outcome { tally: case.tally, violation, trace: world.trace.take().unwrap_or_default() }
}

/// Chosen so that the seeds that tests name are cases without cleaning.
const CLEANS: u64 = 39_459 << 40;

/// A third of the cases have cleaning. Drawn apart, so that the others are what they were before there was any.
fn cleans(seed: u64) -> Option<Index> {
    let drawn = mix(seed.wrapping_add(CLEANS));
    drawn
        .is_multiple_of(3)
        .then(|| Index::new(!drawn.is_multiple_of(2), crashes_in_cleaning(seed), !drawn.is_multiple_of(5)))
}

/// Chosen so that the seeds that tests name are cases without this.
const DRAINS: u64 = 31_392 << 40;

/// In a quarter of the cases shards are retired for good, and emptied.
fn drains(seed: u64) -> bool {
    mix(seed.wrapping_add(DRAINS)).is_multiple_of(4)
}

/// Likewise.
const CRASHES_IN_CLEANING: u64 = 190 << 40;

/// In half of the cases with cleaning less is released than appended, so that there is something to copy, and some crashes
/// come while an extent is half cleaned, which chance seldom makes them.
fn crashes_in_cleaning(seed: u64) -> bool {
    mix(seed.wrapping_add(CRASHES_IN_CLEANING)).is_multiple_of(2)
}

struct Case {
    random: Random,
    world: SharedWorld,
    oracle: Oracle,
    tally: Tally,
    probe_one_in: u64,
    has_mutant: bool,
    geometry: Geometry,
    extents: Vec<u32>,
    /// There is room beyond the store.
    grows: bool,
    seed: u64,
}

impl Case {
    fn new(seed: u64, settings: &Settings) -> Self {
        let mut random = Random::new(mix(seed));
        let Ok(geometry) = Geometry::new(SLOT_BYTES_MIN, EXTENT_BYTES_MIN) else {
            unreachable!("the smallest sizes are valid")
        };
        let few = random.pick(&[4, 8, 16, 24]);
        let extents = if random.one_in(4) { vec![few, few] } else { vec![few] };
        let reserve = Reserve::draw(seed);
        let rooms: Vec<u32> = extents.iter().map(|it| it + reserve.beyond).chain(reserve.further).collect();
        let bytes: Vec<u64> =
            rooms.iter().map(|it| SUPERBLOCK_AREA_BYTES + u64::from(*it) * EXTENT_BYTES_MIN).collect();
        let faults = settings.faults.draw(&mut random);
        let mut world = World::new(geometry, random.fork(), faults, &bytes);
        world.trace = settings.trace.then(Vec::new);
        world.note(|| format!("seed {seed}: {extents:?} extents, faults: {faults}"));
        let index = cleans(seed).map(Arc::new);
        world.note(|| format!("cleans: {}", index.is_some()));
        let mut oracle = Oracle::new(geometry, rooms.iter().sum());
        oracle.index = index;
        Self {
            random,
            world: Arc::new(Mutex::new(world)),
            oracle,
            tally: Tally::default(),
            probe_one_in: settings.probe_one_in,
            has_mutant: settings.mutant.is_some(),
            geometry,
            grows: rooms != extents,
            extents,
            seed,
        }
    }

    fn run(&mut self) -> Result<(), String> {
        if !self.format()? {
            return Ok(());
        }
        let mut tries = 0;
        let mut lives = 2 + self.random.below(5);
        while lives > 0 && tries < TRIES_MAX {
            let mut options = Options::draw(&mut self.random);
            // A planted bug is looked for where its seed found it.
            options.gathers &= !self.has_mutant;
            self.plan_crash(12);
            match open(&self.world, &mut self.oracle, &options) {
                Ok(opened) => {
                    (lives, tries) = (lives - 1, 0);
                    self.tally.lives += 1;
                    // An extent has to be filled, cleaned and freed before the crash.
                    let stretch = if self.oracle.index.is_some() { 4 } else { 1 };
                    let reach = stretch * self.random.pick(&[10, 100, 400]);
                    self.plan_crash(reach);
                    let life_seed = self.seed ^ self.tally.lives << 32;
                    let course = Course::draw(
                        &mut self.random,
                        self.probe_one_in,
                        life_seed,
                        self.oracle.index.is_some(),
                    );
                    let course = Course {
                        drains: drains(self.seed),
                        crashes_in_cleaning: self.oracle.index.is_some() && crashes_in_cleaning(self.seed),
                        ..course
                    };
                    lock(&self.world).note(|| format!("OPEN {options:?} {course:?}"));
                    let buffer_bytes = options.buffer_bytes;
                    let grower = Grower::new(life_seed, self.grows);
                    let end = live(
                        opened,
                        &self.world,
                        &mut self.oracle,
                        &mut self.tally,
                        course,
                        buffer_bytes,
                        grower,
                    )?;
                    lock(&self.world).note(|| format!("{end:?}"));
                    if !self.crash(end)? {
                        return Ok(());
                    }
                }
                Err(Ok(Closed::Named)) => return Ok(()),
                Err(Ok(Closed::Failed | Closed::Crashed)) => {
                    tries += 1;
                    if !self.crash(End::Crashed)? {
                        return Ok(());
                    }
                }
                Err(Err(violation)) => return Err(violation),
            }
        }
        Ok(())
    }

    fn plan_crash(&mut self, reach: u64) {
        let mut world = lock(&self.world);
        world.crash_at = None;
        if !self.random.one_in(4) {
            world.crash_at = Some(world.steps + 1 + self.random.below(reach));
        }
    }

    /// The crash, and what is left after it. False: the device did what nobody can mend, and it was named.
    fn crash(&mut self, end: End) -> Result<bool, String> {
        let kind = self.random.pick(&[Crash::Power, Crash::Power, Crash::Kill]);
        let mut world = lock(&self.world);
        let has_dropped = world.has_dropped;
        for submitted in std::mem::take(&mut world.submitted) {
            match submitted {
                Submitted::Frame(header) => self.oracle.submitted(header)?,
                Submitted::Extent(header) => self.oracle.claimed(&header)?,
            }
        }
        world.crash(kind);
        self.tally.crash_points += 1;
        let kind = if has_dropped { Crash::Power } else { kind };
        if kind == Crash::Power {
            self.oracle.lost_power();
        }
        match look(&mut self.oracle, &world.seen(), kind, true)? {
            Look::Whole(superblock, report) => {
                world.note(|| {
                    format!("recovered {:?}", report.shards.iter().map(|s| s.next_frame).collect::<Vec<_>>())
                });
                report.shards.iter().for_each(|it| self.oracle.found(it.shard, &it.extents));
                let is_clean =
                    superblock.clean && report.shards.iter().all(|it| it.tail.kind == TailKind::Clean);
                if end == End::Closed(true) && world.lies == 0 && !is_clean {
                    return Err("P1: a store that was closed does not open as one".to_owned());
                }
                Ok(true)
            }
            Look::Named(error) => {
                world.note(|| format!("named: {error}"));
                self.tally.named += 1;
                Ok(false)
            }
            Look::NoStore(error) => {
                world.note(|| format!("named: {error}"));
                self.tally.named += 1;
                Ok(false)
            }
            Look::Behind => {
                self.tally.named += 1;
                Ok(false)
            }
        }
    }

    /// Makes the store, through crashes. False: the device did not let it.
    fn format(&mut self) -> Result<bool, String> {
        let superblock = self.first_superblock();
        for _ in 0..TRIES_MAX {
            self.plan_crash(10);
            let made = [0, 1].into_iter().try_for_each(|sequence| {
                let superblock = Superblock { sequence, ..superblock.clone() };
                write_superblock(&superblock, &Disks(&self.world))
            });
            let mut world = lock(&self.world);
            world.crash_at = None;
            if made.is_ok() {
                self.oracle.superblock_sequence = 1;
                return Ok(true);
            }
            let kind = self.random.pick(&[Crash::Power, Crash::Kill]);
            world.crash(kind);
            self.tally.crash_points += 1;
            // Half a store is none: without a whole superblock there is nothing to open.
            if superblock_of(&world.seen()).is_ok_and(|found| found.shards != superblock.shards) {
                return Err("P3: formatting left another store".to_owned());
            }
        }
        Ok(false)
    }

    fn first_superblock(&mut self) -> Superblock {
        let (mut devices, mut regions, mut first_extent) = (Vec::new(), Vec::new(), 0);
        for (index, extents) in self.extents.iter().enumerate() {
            let bytes = SUPERBLOCK_AREA_BYTES + u64::from(*extents) * EXTENT_BYTES_MIN;
            devices.push(DeviceEntry { uuid: [index as u8 + 1; 16], bytes });
            regions.push(RegionEntry {
                device: DeviceIndex(index as u16),
                first_extent: ExtentIndex(first_extent),
                extent_count: *extents,
                device_offset: SUPERBLOCK_AREA_BYTES,
            });
            first_extent += extents;
        }
        let id = (u128::from(self.random.next()) << 64 | u128::from(self.random.next())).to_le_bytes();
        let shards = 1 + self.random.below(3);
        Superblock {
            store: StoreId(id),
            sequence: 0,
            term: Term(0),
            features: Features::default(),
            geometry: self.geometry,
            clean: true,
            device: DeviceIndex(0),
            reach_bytes: 0,
            created_unix_ns: 0,
            written_unix_ns: 0,
            devices,
            regions,
            shards: vec![ShardEntry::default(); shards as usize],
        }
    }
}
