//! Images that nobody wrote in good faith: an error or a log, never a panic, never more work than the image is long.

use super::super::*;
use super::image::Image;
use crate::{
    format::{extent_header::ExtentHeader, frame::FrameHeader},
    ids::*,
    limits::COUNTER_MAX,
};
use proptest::prelude::*;

fn filled() -> Image {
    let mut image = Image::new(2);
    for shard in [0, 1] {
        image.append_many(shard, 40, 3000);
        image.append_many(shard, 4, 60_000);
        image.sync(shard);
        image.append_many(shard, 3, 100);
    }
    image
}

fn recover_all_ways(image: &Image) {
    for salvage in [false, true] {
        for verify_bodies in [false, true] {
            let options = RecoveryOptions { verify_bodies, salvage, ..RecoveryOptions::default() };
            let result = image.recover_with(options);
            assert!(result.is_ok() || !salvage, "salvage goes on over {result:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bytes_changed_anywhere(
        changes in proptest::collection::vec((0usize..200, 0usize..4096, any::<u8>()), 1..40),
    ) {
        let mut image = filled();
        for (slot, at, value) in changes {
            image.bytes[slot * 4096 + at] = value;
        }
        recover_all_ways(&image);
    }

    #[test]
    fn headers_forged_with_good_checksums(
        frames in proptest::collection::vec((1u64..200, any::<u32>(), any::<u64>(), any::<u64>(), 0u64..200), 0..10),
        extents in proptest::collection::vec((0u32..8, 1u32.., 0u16..3, 0u64..5, any::<u64>()), 0..4),
    ) {
        let mut image = filled();
        for (slot, used, number, durable, from) in frames {
            let start = from as usize * 4096;
            let Ok(checked) = FrameHeader::decode(&image.bytes[start..]) else { continue };
            let number = number.min(COUNTER_MAX);
            let header = FrameHeader {
                base_slot: SlotIndex(slot),
                used_bytes: (used % (8 << 20)).max(136) / 8 * 8,
                number: FrameNumber(if number % 2 == 0 { checked.header.number.0 } else { number }),
                durable: FrameNumber(durable.min(number)),
                records: 1,
                ..checked.header
            };
            let header = FrameHeader { durable: header.durable.min(header.number), ..header };
            let start = slot as usize * 4096;
            header.encode(&mut image.bytes[start..]);
        }
        for (extent, generation, owner, ordinal, floor) in extents {
            let header = ExtentHeader {
                extent: ExtentIndex(extent),
                generation: Generation(generation),
                owner: ShardId(owner),
                ordinal: ExtentOrdinal(if ordinal == 4 { COUNTER_MAX } else { ordinal }),
                frame_floor: FrameNumber(floor.min(COUNTER_MAX)),
                ..image.streams[0].extents[0]
            };
            image.put_header(&header);
        }
        recover_all_ways(&image);
    }

    #[test]
    fn slots_swapped_and_copied(moves in proptest::collection::vec((0usize..200, 0usize..200, any::<bool>()), 1..20)) {
        let mut image = filled();
        for (from, to, zero) in moves {
            let bytes = image.bytes[from * 4096..][..4096].to_vec();
            image.bytes[to * 4096..][..4096].copy_from_slice(&bytes);
            if zero {
                image.bytes[from * 4096..][..4096].fill(0);
            }
        }
        recover_all_ways(&image);
    }
}
