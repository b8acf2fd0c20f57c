//! What a store may grow by, and what it may not.

use super::*;
use crate::{
    format::superblock::{Features, ShardEntry},
    geometry::Geometry,
    ids::{StoreId, Term},
    limits::EXTENT_BYTES_MIN,
};

const EXTENT: u64 = EXTENT_BYTES_MIN;

fn bytes(extents: u64) -> u64 {
    SUPERBLOCK_AREA_BYTES + extents * EXTENT
}

/// A store of four extents on one device.
fn store() -> Superblock {
    Superblock {
        store: StoreId([7; 16]),
        sequence: 5,
        term: Term(3),
        features: Features::default(),
        geometry: Geometry::new(4096, EXTENT).unwrap(),
        clean: false,
        device: DeviceIndex(0),
        reach_bytes: 0,
        created_unix_ns: 0,
        written_unix_ns: 0,
        devices: vec![DeviceEntry { uuid: [1; 16], bytes: bytes(4) }],
        regions: vec![RegionEntry {
            device: DeviceIndex(0),
            first_extent: ExtentIndex(0),
            extent_count: 4,
            device_offset: SUPERBLOCK_AREA_BYTES,
        }],
        shards: vec![ShardEntry::default(); 2],
    }
}

fn plan(superblock: &Superblock, device: u16, bytes: u64) -> Result<Growth, GrowthRefusal> {
    let addition = Addition { device: DeviceIndex(device), uuid: [9; 16], bytes, is_zero: false };
    Growth::new(superblock, addition, 1)
}

#[test]
fn a_larger_device_and_a_further_one_are_numbered_on() {
    let larger = plan(&store(), 0, bytes(7) + 5).unwrap();
    let expected = RegionRun {
        device: DeviceIndex(0),
        first_extent: ExtentIndex(4),
        extents: 3,
        device_offset: bytes(4),
    };
    assert_eq!(*larger.run(), expected);
    let larger = larger.superblock().clone();
    assert_eq!((larger.sequence, larger.extent_count(), larger.devices[0].bytes), (6, 7, bytes(7)));
    let further = plan(&larger, 1, bytes(2)).unwrap();
    assert_eq!(
        (further.run().first_extent, further.run().device_offset),
        (ExtentIndex(7), SUPERBLOCK_AREA_BYTES)
    );
    let grown = further.superblock();
    assert_eq!((grown.devices[1].uuid, grown.devices[1].bytes, grown.extent_count()), ([9; 16], bytes(2), 9));
    let mut copy = vec![0; grown.encoded_bytes()];
    grown.encode_copy(DeviceIndex(1), &mut copy);
    let decoded = Superblock::decode_copy(&copy).unwrap();
    assert_eq!(Superblock { device: DeviceIndex(0), ..decoded }, *grown);
}

#[test]
fn what_cannot_be_is_named() {
    let refused = |superblock: &Superblock, device, bytes| plan(superblock, device, bytes).unwrap_err();
    let store = store();
    let too_small = GrowthRefusal::TooSmall { found: bytes(5) - 1, needed: bytes(5) };
    assert_eq!(refused(&store, 0, bytes(5) - 1), too_small);
    let shrunk = GrowthRefusal::Shrunk { found: bytes(3), expected: bytes(4) };
    assert_eq!(refused(&store, 0, bytes(3)), shrunk);
    assert_eq!(refused(&store, 2, bytes(3)), GrowthRefusal::NoSuchDevice(DeviceIndex(2)));
    assert_eq!(refused(&store, 1, 17), GrowthRefusal::TooSmall { found: 17, needed: bytes(1) });
    let huge = refused(&store, 0, STORE_BYTES_MAX);
    assert!(matches!(huge, GrowthRefusal::TooManyExtents { .. }), "{huge}");
    let mut grown = store;
    for _ in 1..REGIONS_MAX {
        grown = plan(&grown, 0, grown.devices[0].bytes + EXTENT).unwrap().superblock().clone();
    }
    assert_eq!(refused(&grown, 0, grown.devices[0].bytes + EXTENT), GrowthRefusal::TooManyRegions);
}

/// A growth whose superblock may be on a device has used up its sequence: the same one with other content would be a
/// contradiction, and the next but one would overwrite the side that is whole.
#[test]
fn the_sequence_after_a_failure_spares_the_side_that_counts() {
    let mut growth = plan(&store(), 0, bytes(5)).unwrap();
    assert_eq!(growth.sequence_after_failure(), 5);
    growth.stage = Stage::Superblock(0);
    let next = Superblock { sequence: growth.sequence_after_failure() + 1, ..store() };
    assert_eq!((next.sequence, next.side()), (8, growth.superblock().side()));
}
