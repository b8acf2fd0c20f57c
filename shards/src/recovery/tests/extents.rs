//! Extent headers: damaged, missing, claimed twice.

use super::super::*;
use super::image::{EXTENTS, Image, SLOTS_PER_EXTENT};
use crate::{format::extent_header::ExtentState, ids::*};

/// A log over three extents; its last frame proves all but itself.
fn three_extents() -> Image {
    let mut image = Image::new(2);
    image.append_many(0, 150, 100);
    image.sync(0);
    image.append_many(0, 1, 100);
    assert_eq!(image.streams[0].extents.len(), 3);
    image
}

fn header_start(image: &Image, extent: usize) -> usize {
    (u64::from(image.streams[0].extents[extent].extent.0) * SLOTS_PER_EXTENT * 4096) as usize
}

#[test]
fn one_bad_copy_of_a_header_is_reported_and_two_are_an_error() {
    for extent in 0..3 {
        let mut image = three_extents();
        let start = header_start(&image, extent);
        image.bytes[start + 40] ^= 1;
        let report = image.recover().unwrap();
        let extent = image.streams[0].extents[extent].extent;
        assert_eq!(report.bad_header_copies, [BadHeaderCopy { extent, copy: 0 }]);
        assert_eq!(report.shards[0].next_frame, FrameNumber(151));
        image.bytes[start + 2048 + 40] ^= 1;
        let named = image.recover().unwrap_err();
        assert!(matches!(named, RecoveryError::ExtentHeader { extent: at, .. } if at == extent), "{named}");
        assert_eq!(image.salvage().extents_bad, [extent]);
    }
}

#[test]
fn an_extent_whose_header_is_gone_is_missed_by_what_was_durable() {
    for extent in 0..3 {
        let mut image = three_extents();
        image.sync(0);
        image.append_many(0, 1, 100);
        let start = header_start(&image, extent);
        image.bytes[start..start + 4096].fill(0);
        let error = image.recover().unwrap_err();
        let frame = match &error {
            RecoveryError::LostWrite { place, .. } => place.frame.0,
            other => panic!("{other}"),
        };
        assert_eq!(frame, [62, 63, 126][extent], "{error}");
    }
}

#[test]
fn an_unsynced_claim_may_be_lost_and_what_lies_behind_it_is_given_back() {
    let mut image = Image::new(1);
    image.append_many(0, 63, 100);
    image.sync(0);
    image.append_many(0, 64, 100);
    assert_eq!(image.streams[0].extents.len(), 3);
    let start = header_start(&image, 1);
    image.bytes[start..start + 4096].fill(0);
    let report = image.recover().unwrap();
    let shard = &report.shards[0];
    assert_eq!((shard.next_frame, shard.tail.kind), (FrameNumber(63), TailKind::TornTail));
    assert_eq!((shard.extents.len(), shard.orphans.len()), (1, 1));
    let lost = image.streams[0].extents[1].extent;
    let free = report.free_extents.iter().find(|free| free.index == lost).unwrap();
    assert_eq!(
        free.generation,
        Generation(1),
        "its frames are remembered, so that the next claim is told apart"
    );
}

#[test]
fn claims_that_contradict_each_other_are_named() {
    let image = three_extents();
    let mut header = image.streams[0].extents[1];
    header.extent = ExtentIndex(EXTENTS - 1);
    let mut twice = image.clone();
    twice.put_header(&header);
    match twice.recover() {
        Err(RecoveryError::DuplicateOrdinal { one, other, .. }) => {
            assert_eq!((one, other), (image.streams[0].extents[1].extent, header.extent));
        }
        other => panic!("{other:?}"),
    }
    header.owner = ShardId(2);
    let mut unknown = image.clone();
    unknown.put_header(&header);
    let error = unknown.recover().unwrap_err();
    assert_eq!(error, RecoveryError::UnknownShard { extent: header.extent, shard: ShardId(2), shards: 2 });
}

#[test]
fn a_log_whose_beginning_was_freed_begins_at_its_oldest_extent() {
    let mut image = three_extents();
    let mut oldest = image.streams[0].extents[0];
    oldest.state = ExtentState::Freed;
    image.put_header(&oldest);
    // Nothing in the log says that the extent was given up.
    assert!(matches!(image.recover(), Err(RecoveryError::LostWrite { .. })));
    image.streams[0].oldest = 1;
    image.append_many(0, 1, 100);
    let report = image.recover().unwrap();
    let shard = &report.shards[0];
    assert_eq!((shard.first_frame, shard.next_frame, shard.frames), (FrameNumber(63), FrameNumber(152), 89));
    assert!(report.free_extents.contains(&FreeExtent { index: oldest.extent, generation: Generation(1) }));
    // The extent that now is the oldest has to begin with a frame, or it is lost.
    let start = header_start(&image, 1) + 4096;
    image.bytes[start..start + 4096].fill(0);
    assert!(matches!(image.recover(), Err(RecoveryError::LostWrite { .. })));
}

#[test]
fn an_extent_claimed_ahead_is_where_the_log_goes_on() {
    let mut image = Image::new(1);
    image.append_many(0, 63, 100);
    image.claim(0);
    let shard = image.recover().unwrap().shards.remove(0);
    assert_eq!((shard.next_slot, shard.used_extents, shard.extents.len()), (None, 1, 2));
    assert_eq!(shard.tail.kind, TailKind::EndOfLog);
}

/// The extent had been claimed for the second time when the power went: the header was lost again, and a frame behind it was
/// not. The piece that the first claim had left kept the store from opening.
#[test]
fn a_claim_that_was_cut_short_is_none_whatever_is_behind() {
    let mut image = Image::new(1);
    image.append_many(0, 63, 100);
    image.sync(0);
    image.append_many(0, 2, 100);
    assert_eq!(image.streams[0].extents.len(), 2);
    let start = header_start(&image, 1);
    image.bytes[start + 125..start + 4096].fill(0);
    let report = image.recover().unwrap();
    assert_eq!(report.shards[0].next_frame, FrameNumber(63));
    assert!(report.free_extents.iter().any(|free| free.index == image.streams[0].extents[1].extent));
}
