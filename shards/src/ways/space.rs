//! What a core does for its shards' space by itself: freeing in the middle of a log, and checkpoints of the quiet.

use super::{EXTENT_BYTES, EXTENTS, LARGE, Options, STORE, World};
use crate::{
    device::ram::MemoryImage,
    format::{
        moved::Origin,
        superblock::{DeviceEntry, Features, RegionEntry, ShardEntry, Superblock},
    },
    ids::{DeviceIndex, ExtentIndex, ExtentOrdinal, ShardId, SlotIndex, Term},
    limits::{BUFFER_BYTES_MIN, SUPERBLOCK_AREA_BYTES},
    mutant::Mutant,
    recovery::{RecoveryOptions, RecoveryReport, RecoverySource, SourceError, recover_store},
    scan::{ExtentSequence, LiveExtents},
    twins::proves,
    watermark::Durability,
};
use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

struct Disk(Arc<MemoryImage>, Superblock);

impl RecoverySource for Disk {
    fn read(&self, slot: SlotIndex, bytes: &mut [u8]) -> Result<(), SourceError> {
        let (device, offset) = self.1.locate(slot).ok_or(SourceError::NoSuchSlot { slot })?;
        let copied = self.0.with(device, |image| {
            bytes.copy_from_slice(&image[offset as usize..offset as usize + bytes.len()]);
        });
        copied.ok_or(SourceError::NoSuchSlot { slot })
    }
}

/// What an open would find after a crash at this moment.
fn recover(world: &World) -> RecoveryReport {
    let superblock = Superblock {
        store: STORE,
        sequence: 1,
        term: Term(1),
        features: Features::default(),
        geometry: *world.layout.geometry(),
        clean: false,
        device: DeviceIndex(0),
        reach_bytes: 4 * BUFFER_BYTES_MIN,
        created_unix_ns: 0,
        written_unix_ns: 0,
        devices: vec![DeviceEntry {
            uuid: [1; 16],
            bytes: SUPERBLOCK_AREA_BYTES + u64::from(EXTENTS) * EXTENT_BYTES,
        }],
        regions: vec![RegionEntry {
            device: DeviceIndex(0),
            first_extent: ExtentIndex(0),
            extent_count: EXTENTS,
            device_offset: SUPERBLOCK_AREA_BYTES,
        }],
        shards: vec![ShardEntry::default()],
    };
    let disk = Disk(Arc::clone(&world.image), superblock);
    recover_store(&disk, &disk.1, RecoveryOptions::default()).unwrap()
}

#[test]
fn an_extent_in_the_middle_of_a_log_is_freed_and_used_again() {
    let mut world = World::open(Options::default());
    let payload = [7; LARGE];
    let placed: Vec<_> = (0..70).map(|_| world.append_durably(&payload)).collect();
    let geometry = *world.layout.geometry();
    let in_extent = |ordinal: u64, world: &World| {
        let extent = world.shard.extent_at(ExtentOrdinal(ordinal));
        placed.iter().filter(|it| Some(it.address.extent(&geometry)) == extent).count()
    };
    assert!(in_extent(1, &world) > 10 && in_extent(2, &world) > 10);
    let (victim, free) = (world.shard.extent_at(ExtentOrdinal(1)).unwrap(), world.table.free_count());
    let last = world.shard.ordinals().end - 1;
    let owner = &mut world.core.shards_mut()[0];
    assert!(!owner.free_extent(ExtentOrdinal(last)), "the last one, which takes no frames yet");
    assert!(owner.free_extent(ExtentOrdinal(1)));
    assert!(!owner.free_extent(ExtentOrdinal(1)), "it is being freed");
    assert!(owner.sealed_extents().any(|it| it.facts.ordinal == ExtentOrdinal(1) && it.is_freeing));
    world.turns();
    assert_eq!(world.shard.extent_at(ExtentOrdinal(1)), None);
    assert_eq!(world.table.free_count(), free + 1);
    assert!(!world.core.shards_mut()[0].free_extent(ExtentOrdinal(1)), "it is gone");
    for placed in placed.iter().filter(|it| it.address.extent(&geometry) != victim) {
        world.expect(*placed, &payload);
    }
    let ordinals = |report: &RecoveryReport| -> Vec<u64> {
        report.shards[0].extents.iter().map(|extent| extent.ordinal.0).collect()
    };
    let expected: Vec<u64> = (0..=last).filter(|ordinal| *ordinal != 1).collect();
    assert_eq!(ordinals(&recover(&world)), expected);
    // Somebody claims it: the shard itself, until all others are in use.
    let more: Vec<_> = (0..100).map(|_| world.append_durably(&payload)).collect();
    assert!(more.iter().any(|it| it.address.extent(&geometry) == victim));
    let report = recover(&world);
    assert!(ordinals(&report).starts_with(&[0, 2]));
    assert_eq!(report.shards[0].next_frame, world.shard.durable.reached());
    more.iter().for_each(|placed| world.expect(*placed, &payload));
}

/// What cleaning knows of an extent was kept when a trim freed it: a log that is trimmed for years would have filled memory.
#[test]
fn nothing_is_remembered_of_extents_that_are_gone() {
    let mut world = World::open(Options::default());
    for ordinal in 0..40 {
        while world.shard.ordinals().end <= ordinal + 2 {
            world.append_durably(&[7; LARGE]);
        }
        assert!(world.core.shards_mut()[0].free_extent(ExtentOrdinal(ordinal)));
        world.turns();
    }
    let there = world.shard.extents().len();
    let known = world.core.shards_mut()[0].extents_known_to_cleaning();
    assert!(known <= there, "{known} of {there} extents");
}

#[test]
fn a_quiet_shard_writes_a_checkpoint_that_a_frame_states_and_then_nothing() {
    let quiet = Duration::from_millis(4);
    let scenario = || {
        let mut world = World::open(Options { quiet: Some(quiet), ..Options::default() });
        let frames = |world: &World| world.shard.counters().frames.load(Ordering::Relaxed);
        assert_eq!(world.core.timer(), None, "nothing was written");
        for _ in 0..20 {
            world.append_durably(b"news");
        }
        assert_eq!(frames(&world), 20);
        // What a core does that sleeps until its timer is due.
        for _ in 0..8 {
            if let Some(timer) = world.core.timer() {
                thread::sleep(timer);
            }
            world.turns();
        }
        assert!(world.core.timer().is_none() && frames(&world) == 22, "writes on and on: {}", frames(&world));
        let found = recover(&world);
        assert_eq!((found.shards[0].began_at.unwrap().0, found.shards[0].next_frame.0), (20, 22));
        // Something new, and it begins again.
        let placed = world.append(b"more");
        world.ask(Durability::Durable);
        world.turns();
        assert!(world.has(placed, Durability::Durable) && world.core.timer().is_some());
    };
    proves(scenario, Mutant::QuietWritesAgain, "writes on and on");
}

/// What is freed is taken from its shard first and from the table of owners then, by a thread that may rest in between. A
/// scan on another one found it gone by the one and there by the other: it passed over the originals, and took the copies
/// for those of an extent that was still there; or it gave what a batch has in it, and the copies too.
#[test]
fn an_extent_that_is_being_freed_is_gone_for_a_scan_in_all_it_asks() {
    let world = World::open(Options::default());
    let directory = world.directory();
    let extents = LiveExtents { directory: &directory, shard: &world.shard, given_up: None };
    let ordinal = ExtentOrdinal(0);
    let there = extents.extent_at(ordinal).unwrap();
    let origin = Origin { shard: ShardId(0), ordinal, extent: there.extent, generation: there.generation };
    assert!(!extents.is_gone(&origin));
    assert_eq!(extents.generation_of(there.extent), Some(there.generation));
    world.shard.remove_extent(ordinal);
    assert_eq!(extents.extent_at(ordinal), None);
    assert_eq!(extents.generation_of(there.extent), None);
    assert!(extents.is_gone(&origin));
}
