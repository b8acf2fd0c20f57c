#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]
use super::*;
use crate::limits::{EXTENTS_MAX, SUPERBLOCK_AREA_BYTES};
use proptest::prelude::*;

fn example(shards: usize) -> Superblock {
    let geometry = Geometry::new(4096, 1 << 20).unwrap();
    let region = |device, first_extent, extent_count, device_offset| RegionEntry {
        device: DeviceIndex(device),
        first_extent: ExtentIndex(first_extent),
        extent_count,
        device_offset,
    };
    Superblock {
        store: StoreId(*b"superblock tests"),
        sequence: 8,
        term: Term(5),
        features: Features { compatible: 1 << 40, read_only_compatible: 0, incompatible: 0 },
        geometry,
        clean: true,
        device: DeviceIndex(1),
        reach_bytes: 8 << 18,
        created_unix_ns: 1,
        written_unix_ns: 2,
        devices: vec![
            DeviceEntry { uuid: [1; 16], bytes: 101 << 20 },
            DeviceEntry { uuid: [2; 16], bytes: 51 << 20 },
        ],
        regions: vec![
            region(0, 0, 60, SUPERBLOCK_AREA_BYTES),
            region(1, 60, 50, SUPERBLOCK_AREA_BYTES),
            region(0, 110, 40, SUPERBLOCK_AREA_BYTES + (60 << 20)),
        ],
        shards: (0..shards)
            .map(|shard| ShardEntry {
                state: match shard % 5 {
                    3 => ShardState::Cold(ShardId(shard as u16 - 1)),
                    4 => ShardState::Retired,
                    _ => ShardState::Active,
                },
                durable: FrameNumber(shard as u64 * 10),
                tail_slot: (shard > 0).then_some(SlotIndex(shard as u64 + 3)),
                tail_link: shard as u32,
            })
            .collect(),
    }
}

fn encoded(superblock: &Superblock) -> Vec<u8> {
    let mut bytes = vec![0xff; SUPERBLOCK_COPY_BYTES_MAX as usize];
    superblock.encode_copy(superblock.device, &mut bytes);
    bytes
}

fn resealed(mut bytes: Vec<u8>, superblock: &Superblock) -> Vec<u8> {
    let end = superblock.encoded_bytes() - CHECKSUM_BYTES;
    let crc = crc32c(&bytes[..end]);
    bytes[end..end + 4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn a_superblock_comes_back_as_it_was_up_to_the_most_shards() {
    for shards in [1, 2, 17, SHARDS_MAX as usize] {
        let mut superblock = example(shards);
        superblock.devices[0].bytes += 1 << 30;
        superblock.regions[2].extent_count += 1 << 10;
        assert_eq!(Superblock::decode_copy(&encoded(&superblock)), Ok(superblock));
    }
}

/// A made-up superblock could state 2^28 extents on a sparse file, or 1024 shards with buffers each on a tiny one.
#[test]
fn more_extents_than_opening_keeps_in_memory_or_more_shards_than_extents_cannot_be() {
    let mut superblock = example(151);
    let refused = |superblock: &Superblock| match Superblock::decode_copy(&encoded(superblock)) {
        Err(SuperblockError::Impossible { field, value }) => (field, value),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&superblock), ("shards", 151));
    superblock.devices[0].bytes = 64 << 40;
    superblock.regions[2].extent_count = EXTENTS_MAX;
    assert_eq!(refused(&superblock), ("extents", 110 + u64::from(EXTENTS_MAX)));
}

#[test]
fn every_single_flipped_bit_is_seen() {
    let superblock = example(3);
    let good = encoded(&superblock);
    for bit in 0..superblock.encoded_bytes() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Superblock::decode_copy(&bytes).is_err(), "bit {bit}");
    }
}

proptest! {
    #[test]
    fn random_bytes_are_no_superblock(bytes in proptest::collection::vec(any::<u8>(), 0..1000)) {
        prop_assert!(Superblock::decode_copy(&bytes).is_err());
    }

    #[test]
    fn a_forged_superblock_is_refused_or_sound(
        changes in proptest::collection::vec((16usize..500, any::<u8>()), 1..20),
    ) {
        let superblock = example(5);
        let mut bytes = encoded(&superblock);
        for (at, value) in changes {
            bytes[at % (superblock.encoded_bytes() - 4)] = value;
        }
        if let Ok(read) = Superblock::decode_copy(&resealed(bytes, &superblock)) {
            prop_assert_eq!(read.check(), Ok(()));
            let _ = read.locate(SlotIndex(u64::MAX));
        }
    }
}

#[test]
fn every_slot_is_located_on_one_device() {
    let superblock = example(1);
    let locate = |slot| superblock.locate(SlotIndex(slot)).map(|(device, offset)| (device.0, offset));
    assert_eq!(superblock.extent_count(), 150);
    assert_eq!(locate(0), Some((0, 1 << 20)));
    assert_eq!(locate(59 * 256 + 255), Some((0, (61 << 20) - 4096)));
    assert_eq!(locate(60 * 256), Some((1, 1 << 20)));
    assert_eq!(locate(110 * 256 + 1), Some((0, (61 << 20) + 4096)));
    assert_eq!(locate(150 * 256 - 1), Some((0, (101 << 20) - 4096)));
    assert_eq!(locate(150 * 256), None);
    assert_eq!(locate(u64::MAX), None);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let refused = |change: fn(&mut Superblock)| {
        let mut superblock = example(2);
        change(&mut superblock);
        match Superblock::decode_copy(&encoded(&superblock)) {
            Err(SuperblockError::Impossible { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(|s| s.regions[1].device_offset = 4096), "device offset of a region");
    assert_eq!(refused(|s| s.regions[2].device_offset -= 4096), "device offset of a region");
    assert_eq!(refused(|s| s.regions[2].device_offset += 4096), "extents of a region");
    assert_eq!(refused(|s| s.regions[1].first_extent.0 += 1), "first extent of a region");
    assert_eq!(refused(|s| s.regions[2].extent_count = u32::MAX), "extents of a region");
    assert_eq!(refused(|s| s.regions[0].device = DeviceIndex(2)), "device of a region");
    assert_eq!(refused(|s| s.device = DeviceIndex(2)), "device");
    assert_eq!(refused(|s| s.reach_bytes = u64::MAX), "reach bytes");
    assert_eq!(refused(|s| s.shards[1].tail_slot = Some(SlotIndex(u64::MAX))), "tail slot");
    let of = "shard of a cold shard";
    assert_eq!(refused(|s| s.shards[1].state = ShardState::Cold(ShardId(1))), of);
    assert_eq!(refused(|s| s.shards[1].state = ShardState::Cold(ShardId(2))), of);
    assert_eq!(
        refused(|s| {
            s.shards.push(ShardEntry { state: ShardState::Cold(ShardId(0)), ..s.shards[0] });
            s.shards[1].state = ShardState::Cold(ShardId(0));
        }),
        of
    );
    assert_eq!(refused(|s| s.devices.clear()), "devices");
    assert_eq!(refused(|s| s.shards.clear()), "shards");
}

fn copies_of(superblocks: [&Superblock; 2]) -> Vec<Result<Superblock, SuperblockError>> {
    let mut copies = vec![Err(SuperblockError::Absent); COPY_OFFSETS.len()];
    for superblock in superblocks {
        for offset in superblock.side() {
            let index = COPY_OFFSETS.iter().position(|place| *place == offset).unwrap();
            copies[index] = Superblock::decode_copy(&encoded(superblock));
        }
    }
    copies
}

#[test]
fn the_newer_valid_copy_counts_and_one_side_survives_the_loss_of_the_other() {
    let old = example(2);
    let new = Superblock { sequence: 9, term: Term(6), ..old.clone() };
    let copies = copies_of([&old, &new]);
    assert_eq!(choose(&copies).unwrap().superblock, new);
    for lost in 0..16_usize {
        let mut copies = copies.clone();
        for (index, copy) in copies.iter_mut().enumerate() {
            if lost >> index & 1 == 1 {
                *copy = Err(SuperblockError::Checksum { expected: 0, found: 1 });
            }
        }
        let expected = match (lost & 0b1010 == 0b1010, lost & 0b0101 == 0b0101) {
            (false, _) => Some(&new),
            (true, false) => Some(&old),
            (true, true) => None,
        };
        match choose(&copies) {
            Ok(chosen) => {
                assert_eq!(Some(&chosen.superblock), expected);
                assert_eq!(chosen.bad.len(), lost.count_ones() as usize);
            }
            Err(error) => {
                assert_eq!(expected, None);
                assert!(matches!(error, SuperblockChoiceError::NoValidCopy { .. }), "{error}");
            }
        }
    }
}

#[test]
fn what_is_no_store_says_what_it_is() {
    let read = |bytes: &[u8]| choose(&[Superblock::decode_copy(bytes)]).unwrap_err();
    assert_eq!(read(&[0; 65536]), SuperblockChoiceError::NotFormatted);
    assert_eq!(read(&[7; 65536]), SuperblockChoiceError::NotAStore);
    assert_eq!(read(&[]), SuperblockChoiceError::NotFormatted);
    let mut newer = encoded(&example(1));
    newer[8] = 2;
    let error = read(&resealed(newer, &example(1)));
    assert_eq!(error, SuperblockChoiceError::NewerVersion { found: 2, supported: 1 });
    let mut unknown = example(1);
    unknown.features.incompatible = 1 << 17;
    assert_eq!(read(&encoded(&unknown)), SuperblockChoiceError::UnknownFeature { bit: 17 });
}

#[test]
fn a_feature_that_a_writer_has_to_know_allows_reading() {
    let mut superblock = example(1);
    superblock.features.read_only_compatible = 1 << 3;
    let read = Superblock::decode_copy(&encoded(&superblock)).unwrap();
    assert_eq!(read.check_writable(), Err(ReadOnlyFeature { bit: 3 }));
    assert_eq!(example(1).check_writable(), Ok(()));
}

#[test]
fn copies_of_two_stores_or_two_truths_are_refused() {
    let one = example(2);
    let other = Superblock { store: StoreId([9; 16]), ..one.clone() };
    let error = choose(&[Ok(one.clone()), Ok(other.clone())]).unwrap_err();
    assert_eq!(error, SuperblockChoiceError::TwoStores { one: one.store, other: other.store });
    let contradicting = Superblock { clean: false, ..one.clone() };
    let error = choose(&[Ok(one.clone()), Ok(contradicting)]).unwrap_err();
    assert_eq!(error, SuperblockChoiceError::Contradiction { sequence: 8 });
    let for_another_device = Superblock { device: DeviceIndex(0), ..one.clone() };
    assert!(choose(&[Ok(one), Ok(for_another_device)]).is_ok());
}

/// docs/FORMAT.md states the layout; what is stored depends on it for ever.
#[test]
fn the_layout_never_changes() {
    let superblock = example(5);
    let bytes = encoded(&superblock);
    let field = |at: usize, size: usize| {
        let mut value = [0; 8];
        value[..size].copy_from_slice(&bytes[at..at + size]);
        u64::from_le_bytes(value)
    };
    let total = 128 + 24 * (2 + 3 + 5) + 8;
    assert_eq!(&bytes[..8], b"coreLOGs");
    assert_eq!((field(8, 2), field(10, 2), field(12, 4)), (1, 1, total as u64));
    assert_eq!(&bytes[16..32], &superblock.store.0);
    assert_eq!((field(32, 8), field(40, 8), field(48, 8), field(56, 8), field(64, 8)), (8, 5, 1 << 40, 0, 0));
    assert_eq!((field(72, 1), field(73, 1), field(74, 1)), (12, 20, 1));
    assert_eq!((field(76, 4), field(80, 4), field(84, 4)), (2, 3, 5));
    assert_eq!((field(88, 8), field(96, 8), field(104, 8)), (superblock.reach_bytes, 1, 2));
    assert_eq!((&bytes[152..168], field(168, 8)), (&[2_u8; 16][..], 51 << 20));
    let third_region = 128 + 2 * 24 + 2 * 24;
    assert_eq!(
        (field(third_region, 2), field(third_region + 4, 4), field(third_region + 8, 4)),
        (0, 110, 40)
    );
    assert_eq!(field(third_region + 16, 8), (1 << 20) + (60 << 20));
    let last_shard = total - 8 - 24;
    assert_eq!((field(last_shard, 1), field(last_shard + 4, 4)), (2, 4));
    assert_eq!((field(last_shard + 8, 8), field(last_shard + 16, 8)), (40, 7));
    assert_eq!(field(total - 4, 4), u64::from(crc32c(&bytes[..total - 4])));
}
