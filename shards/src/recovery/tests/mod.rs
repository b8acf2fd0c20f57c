#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests"
)]

mod damage;
mod extents;
mod hostile;
mod image;
mod space;
mod tail;

use super::*;
use crate::ids::*;
use image::{EXTENTS, Image, SLOTS_PER_EXTENT};

#[test]
fn a_store_without_frames_begins_at_frame_zero() {
    let mut image = Image::new(2);
    let report = image.recover().unwrap();
    assert_eq!(report.extents_free, u64::from(EXTENTS));
    for shard in &report.shards {
        assert_eq!((shard.next_frame, shard.next_slot, shard.link), (FrameNumber(0), None, 0));
        assert_eq!(shard.tail.kind, TailKind::EndOfLog);
    }
    image.claim(1);
    let report = image.recover().unwrap();
    assert_eq!((report.shards[1].extents.len(), report.shards[1].used_extents), (1, 0));
    assert_eq!(report.shards[1].next_frame, FrameNumber(0));
}

#[test]
fn a_log_goes_on_behind_its_last_frame() {
    for frames in [1, 2, 10, 40] {
        let mut image = Image::new(1);
        let written = image.append_many(0, frames, 3000);
        let report = image.recover().unwrap();
        let shard = &report.shards[0];
        assert_eq!((shard.first_frame, shard.next_frame), (FrameNumber(0), FrameNumber(frames)));
        assert_eq!((shard.frames, shard.records, shard.frames_checked), (frames, frames, frames));
        assert_eq!(shard.bytes, written.iter().map(|frame| u64::from(frame.header.used_bytes)).sum());
        assert_eq!(shard.next_slot, Some(SlotIndex(1 + frames)));
        assert_eq!(shard.link, written.last().unwrap().link);
        assert_eq!(shard.tail.kind, TailKind::EndOfLog);
    }
}

#[test]
fn a_log_is_followed_over_its_extents_whether_a_frame_fits_or_not() {
    // 63 frame slots: frames of 1 slot fill an extent, frames of 5 leave 3 over, frames of 20 are jumped over.
    for (slots, frames) in [(1, 63), (1, 64), (1, 200), (5, 12), (5, 13), (5, 60), (20, 3), (20, 4), (20, 15)]
    {
        let mut image = Image::new(1);
        image.append_many(0, frames, slots * 4096 - 200);
        let report = image.recover().unwrap();
        let shard = &report.shards[0];
        assert_eq!(shard.next_frame, FrameNumber(frames), "{frames} frames of {slots} slots");
        let expected = image.streams[0].slot.unwrap();
        let inside = !expected.is_multiple_of(SLOTS_PER_EXTENT);
        assert_eq!(shard.next_slot, inside.then_some(SlotIndex(expected)));
        assert_eq!(shard.used_extents, shard.extents.len());
        assert_eq!(shard.extents.len(), image.streams[0].extents.len());
    }
}

#[test]
fn any_number_of_threads_finds_the_same() {
    let mut image = Image::new(4);
    for round in 0..30 {
        for shard in 0..4 {
            image.append_many(shard, 1, 500 * (shard + 1) + round);
        }
    }
    let alone = image.recover().unwrap();
    for threads in [2, 3, 64] {
        let options = RecoveryOptions { threads, ..RecoveryOptions::default() };
        assert_eq!(image.recover_with(options).unwrap(), alone);
    }
    assert_eq!(alone.shards.iter().map(|shard| shard.frames).sum::<u64>(), 120);
}

#[test]
fn only_frames_that_nothing_proves_are_read_again() {
    let mut image = Image::new(1);
    image.append_many(0, 10, 100);
    image.sync(0);
    image.append_many(0, 3, 100);
    let shard = &image.recover().unwrap().shards[0];
    assert_eq!((shard.frames, shard.frames_checked, shard.durable_witness), (13, 3, FrameNumber(10)));
    assert_eq!(image.verify().unwrap().shards[0].frames_checked, 13);
}

#[test]
fn a_clean_close_is_recognised_and_proves_everything() {
    let mut image = Image::new(2);
    image.append_many(0, 70, 100);
    image.close();
    let report = image.recover().unwrap();
    assert!(report.clean && report.shards.iter().all(|shard| shard.tail.kind == TailKind::Clean));
    assert_eq!(report.shards[0].frames_checked, 0);
    let last = image.bytes.iter().rposition(|byte| *byte != 0).unwrap() / 4096 * 4096;
    image.bytes[last..].fill(0);
    assert!(matches!(image.recover(), Err(RecoveryError::LostWrite { .. })));
}

#[test]
fn a_log_goes_on_over_many_opens() {
    let mut image = Image::new(2);
    for open in 0..20 {
        image.append_many(0, 3, 2000);
        image.append_many(1, open % 3, 9000);
        image.reopen();
    }
    let report = image.verify().unwrap();
    assert_eq!(report.shards[0].frames, 60);
    assert_eq!(report.highest_term, Term(21));
}
