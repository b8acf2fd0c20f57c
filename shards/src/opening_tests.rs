//! Opening with hardly any extent left.

use super::*;
use crate::{
    format::superblock::{DeviceEntry, Features, RegionEntry},
    geometry::Geometry,
    ids::{ExtentIndex, StoreId},
    limits::{BUFFER_BYTES_MIN, EXTENT_BYTES_MIN, SUPERBLOCK_AREA_BYTES},
    recovery::RecoveredExtent,
};
use std::{collections::HashSet, sync::Mutex};

/// One device, in memory.
struct Memory(Mutex<Vec<u8>>);

impl StoreDevices for Memory {
    type Error = std::convert::Infallible;

    fn read(&self, _: DeviceIndex, offset: u64, bytes: &mut [u8]) -> Result<(), SourceError> {
        let image = self.0.lock().unwrap();
        bytes.copy_from_slice(&image[offset as usize..offset as usize + bytes.len()]);
        Ok(())
    }

    fn write(&self, _: DeviceIndex, offset: u64, bytes: &RegionSlice) -> Result<(), Self::Error> {
        let bytes = bytes.as_slice();
        self.0.lock().unwrap()[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&self, _: DeviceIndex) -> Result<(), Self::Error> {
        Ok(())
    }

    fn alignment(&self, _: DeviceIndex) -> u64 {
        4096
    }
}

/// A store whose superblock says `shards`, none of which has claimed an extent: it crashed right behind the superblock.
fn crashed(shards: usize, extents: u32) -> (Memory, Superblock) {
    let bytes = SUPERBLOCK_AREA_BYTES + u64::from(extents) * EXTENT_BYTES_MIN;
    let superblock = Superblock {
        store: StoreId(*b"a store of tests"),
        sequence: 1,
        term: Term(1),
        features: Features::default(),
        geometry: Geometry::new(4096, EXTENT_BYTES_MIN).unwrap(),
        clean: false,
        device: DeviceIndex(0),
        reach_bytes: 4 * BUFFER_BYTES_MIN,
        created_unix_ns: 0,
        written_unix_ns: 0,
        devices: vec![DeviceEntry { uuid: [1; 16], bytes }],
        regions: vec![RegionEntry {
            device: DeviceIndex(0),
            first_extent: ExtentIndex(0),
            extent_count: extents,
            device_offset: SUPERBLOCK_AREA_BYTES,
        }],
        shards: vec![ShardEntry::default(); shards],
    };
    (Memory(Mutex::new(vec![0; bytes as usize])), superblock)
}

fn how(shards_min: u32) -> HowToOpen {
    HowToOpen {
        shards_min,
        cold_from: None,
        buffer_bytes: BUFFER_BYTES_MIN,
        reach_bytes: 4 * BUFFER_BYTES_MIN,
        unix_ns: 0,
        recovery: RecoveryOptions::default(),
        near: Nearness::default(),
    }
}

#[test]
fn shards_without_an_extent_come_before_further_shards() {
    // A crash between the superblock that added shards and their first claims: the next open counted the free extents
    // as if they were all for further shards, and then had none for the last of them.
    for (present, extents, shards_min, expected) in
        [(2, 2, 3, 2), (2, 4, 3, 2), (2, 5, 3, 2), (2, 6, 3, 3), (3, 8, 9, 4), (1, 1, 4, 1)]
    {
        let (devices, superblock) = crashed(present, extents);
        let prepared = prepare(&devices, superblock, how(shards_min)).unwrap();
        assert_eq!(prepared.resumes.len(), expected, "{present} shards on {extents} extents");
        assert_eq!(prepared.superblock.shards.len(), expected);
        // Nobody who claims from now on takes what a shard needs to begin.
        let begins: HashSet<_> = prepared.resumes.iter().map(|it| it.claim.unwrap().extent).collect();
        assert_eq!(begins.len(), expected);
        assert_eq!(prepared.extents.free_count(), u64::from(extents) - expected as u64);
        while let Some(claim) = prepared.extents.claim(ShardId(0), ExtentOrdinal(1), ExtentIndex(0)) {
            assert!(!begins.contains(&claim.extent), "{claim:?} was set aside");
        }
    }
}

#[test]
fn a_shard_for_which_there_is_no_extent_is_opened_without_room() {
    let (devices, superblock) = crashed(3, 2);
    let prepared = prepare(&devices, superblock, how(0)).unwrap();
    let claims: Vec<_> = prepared.resumes.iter().map(|resume| resume.claim.is_some()).collect();
    assert_eq!(claims, [true, true, false]);
}

#[test]
fn an_open_says_how_many_shards_it_added_and_why_not_more() {
    // 999 cores on a store of 31 extents made 15 shards of one, for good, and nobody was told.
    let no_room = |lacking| Some(FewerShards::NoRoom { lacking });
    let too_many = |lacking| Some(FewerShards::TooMany { lacking });
    let most = SHARDS_MAX as usize;
    for (present, extents, shards_min, active, fewer) in [
        (1, 31, 999, 14, no_room(984)),
        (1, 31, 3, 2, None),
        (1, 31, 1, 0, None),
        (3, 31, 0, 0, None),
        (2, 4, 3, 0, no_room(1)),
        (most - 1, 2 * SHARDS_MAX, SHARDS_MAX, 1, None),
        (most - 1, 2 * SHARDS_MAX, SHARDS_MAX + 5, 1, too_many(5)),
        // Both: more room would not help all of them, and helps the first.
        (most - 1, 2 * SHARDS_MAX - 1, SHARDS_MAX + 5, 0, no_room(6)),
    ] {
        let (devices, superblock) = crashed(present, extents);
        let prepared = prepare(&devices, superblock, how(shards_min)).unwrap();
        let context = format!("{present} shards on {extents} extents, {shards_min} wanted");
        assert_eq!(prepared.added, AddedShards { active, cold: 0, fewer }, "{context}");
        assert_eq!(prepared.superblock.shards.len(), present + active as usize, "{context}");
        assert_eq!(prepared.added.is_nothing(), active == 0 && fewer.is_none(), "{context}");
    }
}

#[test]
fn a_retired_shard_is_none_that_a_core_was_asked_for() {
    let (devices, mut superblock) = crashed(3, 31);
    superblock.shards[1].state = ShardState::Retired;
    let prepared = prepare(&devices, superblock, how(3)).unwrap();
    assert_eq!(prepared.added, AddedShards { active: 1, cold: 0, fewer: None });
}

#[test]
fn every_shard_keeps_two_extents_and_a_retired_one_keeps_one() {
    // A shard that had an extent was taken to need no other, and opens that asked for more cores each added a few shards more.
    let states = [ShardState::Active, ShardState::Retired];
    let geometry = Geometry::new(4096, EXTENT_BYTES_MIN).unwrap();
    for (states, extents, owned, expected) in [
        (&states[..1], 3, 1, 0),
        (&states[..1], 4, 1, 1),
        (&states[..1], 6, 1, 2),
        (&states[..1], 6, 3, 1),
        (&states[..], 4, 1, 0),
        (&states[..], 5, 1, 1),
    ] {
        let (devices, superblock) = crashed(states.len(), extents);
        let Prepared { mut report, layout, .. } = prepare(&devices, superblock, how(0)).unwrap();
        for shard in &mut report.shards {
            shard.extents = (0..owned)
                .map(|ordinal| RecoveredExtent {
                    index: report.free_extents.pop().unwrap().index,
                    generation: Generation(1),
                    ordinal: ExtentOrdinal(ordinal),
                })
                .collect();
            // It stopped in the first, which has room to go on.
            shard.used_extents = 1;
            shard.next_slot = Some(geometry.first_frame_slot(shard.extents[0].index));
        }
        let table = extent_table(&layout, &report);
        let affordable = affordable_shards(states, &report, &how(9), &table);
        assert_eq!(affordable, expected, "{states:?}, {owned} of {extents} extents each");
    }
}

#[test]
fn cold_shards_are_told_where_they_were_added_and_not_where_there_was_no_room() {
    for (extents, cold) in [(31, 2), (8, 0)] {
        let (devices, superblock) = crashed(2, extents);
        let prepared = prepare(&devices, superblock, HowToOpen { cold_from: Some(1), ..how(0) }).unwrap();
        assert_eq!(prepared.added, AddedShards { active: 0, cold, fewer: None }, "{extents} extents");
        assert_eq!(prepared.superblock.shards.len(), 2 + cold as usize);
    }
}
