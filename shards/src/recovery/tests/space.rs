//! Checkpoints, and extents that were freed in the middle of a log.

use super::super::*;
use super::image::{Image, STORE};
use crate::{
    address::Address,
    format::{
        control::{Checkpoint, Control, Cursor, ExtentFacts, FreedExtent, LogPlace},
        extent_header::{ExtentHeader, ExtentState},
        manifest::Manifest,
        record::RecordKind,
    },
    ids::*,
};

fn control(image: &mut Image, control: &Control) {
    let frame = image.make_of(0, &[(RecordKind::CONTROL, control.encode())]);
    image.put(&frame);
}

fn facts(image: &Image, index: usize, first: u64, frames: u32) -> ExtentFacts {
    let header = image.streams[0].extents[index];
    ExtentFacts {
        ordinal: header.ordinal,
        extent: header.extent,
        generation: header.generation,
        first_frame: FrameNumber(first),
        first_link: 0,
        frames,
        records: u64::from(frames),
        bytes: u64::from(frames) * 240,
        dead_bytes: 7,
        unix_ns: 0,
        lists_from: None,
    }
}

/// Three extents of 63 frames and a part of a fourth, with a checkpoint in this that is stated to be durable.
fn with_checkpoint(change: impl FnOnce(&mut Checkpoint)) -> Image {
    let mut image = Image::new(1);
    image.append_many(0, 3 * 63 + 5, 100);
    let (number, link, slot) = {
        let stream = &image.streams[0];
        (stream.number, stream.link, stream.slot.unwrap())
    };
    let address = Address::new(&image.geometry(), slot * 4096, Generation(1), 0);
    let cursor = Cursor { name: "reader".to_owned(), place: LogPlace::default(), address };
    let mut checkpoint = Checkpoint {
        covers: FrameNumber(number),
        link,
        trim: LogPlace::default(),
        extents: [(0, 0, 63), (1, 63, 63), (2, 126, 63), (3, 189, 5)]
            .map(|(index, first, frames)| facts(&image, index, first, frames))
            .to_vec(),
        cursors: vec![cursor],
    };
    change(&mut checkpoint);
    image.append_many(0, 1, 100);
    for part in checkpoint.split(300) {
        control(&mut image, &Control::Checkpoint(part));
    }
    image.sync(0);
    image.streams[0].checkpoint = Some(address);
    image.append_many(0, 1, 100);
    image
}

fn free(image: &mut Image, index: usize) {
    let ExtentHeader { ordinal, extent, generation, .. } = image.streams[0].extents[index];
    control(image, &Control::Freed(vec![FreedExtent { ordinal, extent, generation }]));
    image.sync(0);
}

/// Somebody else's claim over an extent of shard 0.
fn claim_anew(image: &mut Image, index: usize) -> ExtentIndex {
    let extent = image.streams[0].extents[index].extent;
    let header = ExtentHeader {
        store: STORE,
        extent,
        generation: Generation(2),
        owner: ShardId(0),
        state: ExtentState::Freed,
        ordinal: ExtentOrdinal(0),
        term: Term(1),
        frame_floor: FrameNumber(0),
    };
    image.put_header(&header);
    extent
}

#[test]
fn recovery_begins_at_the_checkpoint_and_knows_what_is_before() {
    let mut image = with_checkpoint(|_| {});
    // Whatever became of the frames before: they are not read.
    let start = image.streams[0].extents[1].extent.0 as usize * 64 * 4096 + 4096;
    image.bytes[start..start + 63 * 4096].fill(0xee);
    let report = image.recover().unwrap();
    let shard = &report.shards[0];
    assert_eq!((shard.first_frame, shard.next_frame), (FrameNumber(0), FrameNumber(198)));
    assert_eq!((shard.began_at, shard.frames), (Some(FrameNumber(194)), 198));
    assert_eq!((shard.extents.len(), shard.used_extents), (4, 4));
    assert_eq!(shard.space.extents[3].frames, 9);
    assert_eq!(shard.space.extents[1].dead_bytes, 7);
    assert_eq!(shard.space.cursors[0].name, "reader");
}

#[test]
fn an_extent_that_was_freed_in_the_middle_is_nobodys_whatever_its_header_says() {
    let mut image = with_checkpoint(|_| {});
    free(&mut image, 1);
    for claimed_anew in [false, true] {
        if claimed_anew {
            claim_anew(&mut image, 1);
        }
        let report = image.recover().unwrap();
        let shard = &report.shards[0];
        let ordinals: Vec<_> = shard.extents.iter().map(|extent| extent.ordinal.0).collect();
        assert_eq!((ordinals, shard.used_extents), (vec![0, 2, 3], 3));
        assert_eq!((shard.next_frame, shard.frames), (FrameNumber(199), 199 - 63));
        let freed = image.streams[0].extents[1].extent;
        let generation = Generation(1 + u32::from(claimed_anew));
        assert!(report.free_extents.contains(&FreeExtent { index: freed, generation }));
    }
}

#[test]
fn a_trim_frees_all_before_it_and_a_checkpoint_need_not_list_it() {
    let mut image = with_checkpoint(|checkpoint| {
        checkpoint.extents.remove(0);
    });
    let place = LogPlace { ordinal: ExtentOrdinal(2), byte: 9 };
    control(&mut image, &Control::Trim { place, kept_from: ExtentOrdinal(2) });
    let report = image.recover().unwrap();
    let shard = &report.shards[0];
    assert_eq!((shard.first_frame, shard.space.trim), (FrameNumber(126), place));
    assert_eq!(shard.freed.len(), 2);
    // The frame that holds the trim is torn: it did not happen, and the extent is there.
    let last = image.streams[0].slot.unwrap() as usize - 1;
    image.bytes[last * 4096 + 140] ^= 1;
    let report = image.recover().unwrap();
    assert_eq!(report.shards[0].first_frame, FrameNumber(63));
    assert_eq!(report.shards[0].freed.len(), 1);
}

/// What lies behind the place has a part in the second extent.
#[test]
fn a_trim_leaves_the_extents_that_it_says_it_keeps() {
    let mut image = with_checkpoint(|checkpoint| checkpoint.extents[2].lists_from = Some(ExtentOrdinal(1)));
    let place = LogPlace { ordinal: ExtentOrdinal(2), byte: 9 };
    control(&mut image, &Control::Trim { place, kept_from: ExtentOrdinal(1) });
    let report = image.recover().unwrap();
    let shard = &report.shards[0];
    assert_eq!((shard.first_frame, shard.space.trim), (FrameNumber(63), place));
    assert_eq!(shard.freed.len(), 1);
    let from: Vec<_> = shard.space.extents.iter().map(|facts| facts.lists_from).collect();
    assert_eq!(from, [None, Some(ExtentOrdinal(1)), None]);
}

/// The root of a list lies behind the checkpoint, in the extent in which that begins: the frame's header says so.
#[test]
fn what_a_root_behind_the_checkpoint_leads_to_is_known() {
    let mut image = with_checkpoint(|checkpoint| checkpoint.extents[3].lists_from = Some(ExtentOrdinal(3)));
    let mut root = vec![0; Manifest::payload_bytes(0)];
    Manifest::encode(0, Some(ExtentOrdinal(1)), &[], &mut root);
    let frame = image.make_of(0, &[(RecordKind::LARGE_MANIFEST, root)]);
    image.put(&frame);
    let report = image.recover().unwrap();
    assert_eq!(report.shards[0].space.extents[3].lists_from, Some(ExtentOrdinal(1)));
}

#[test]
fn an_extent_that_is_listed_and_not_there_is_lost() {
    let mut image = with_checkpoint(|_| {});
    let extent = claim_anew(&mut image, 1);
    match image.recover() {
        Err(RecoveryError::ExtentLost { ordinal, extent: lost, frame, .. }) => {
            assert_eq!((ordinal, lost, frame), (ExtentOrdinal(1), extent, FrameNumber(63)));
        }
        other => panic!("{other:?}"),
    }
    let salvaged = image.salvage();
    assert_eq!(salvaged.shards[0].losses[0].kind, LossKind::LostWrite);
}

#[test]
fn a_checkpoint_that_is_not_whole_is_named() {
    let image = with_checkpoint(|_| {});
    let first = image.streams[0].slot.unwrap() as usize - 4;
    for (slot, why) in [(first, "part"), (first, "sound")] {
        let mut image = image.clone();
        match why {
            // Its parts are there, and say that they are of another one.
            "part" => image = with_checkpoint(|checkpoint| checkpoint.covers = FrameNumber(3)),
            _ => image.bytes[slot * 4096..slot * 4096 + 512].fill(0),
        }
        let error = image.recover().unwrap_err();
        assert!(
            matches!(error, RecoveryError::Checkpoint { .. }) && error.to_string().contains(why),
            "{error}"
        );
        assert_eq!(image.salvage().shards[0].losses[0].kind, LossKind::HeaderCorrupt);
    }
}

#[test]
fn a_gap_that_nothing_explains_is_a_loss() {
    let mut image = Image::new(1);
    image.append_many(0, 150, 100);
    image.sync(0);
    image.append_many(0, 1, 100);
    claim_anew(&mut image, 1);
    assert!(matches!(image.recover(), Err(RecoveryError::LostWrite { .. })));
}
