//! Damage at rest, blocks in wrong places, devices that end or cannot read.

use super::super::*;
use super::image::{Image, Written};
use crate::ids::*;

/// Ten frames, of which the first seven are proven by the last.
fn proven() -> (Image, Vec<Written>) {
    let mut image = Image::new(2);
    let mut written = image.append_many(0, 7, 3000);
    image.sync(0);
    written.extend(image.append_many(0, 3, 3000));
    (image, written)
}

fn flip(image: &mut Image, byte: usize, bit: usize) {
    image.bytes[byte] ^= 1 << bit;
}

#[test]
fn every_flipped_bit_of_a_proven_header_is_an_error_with_its_place() {
    let (image, written) = proven();
    for bit in 0..128 * 8 {
        let mut image = image.clone();
        flip(&mut image, written[3].start() + bit / 8, bit % 8);
        match image.recover() {
            Err(RecoveryError::Corrupt { place, .. } | RecoveryError::LostWrite { place, .. }) => {
                assert_eq!((place.frame, place.slot.0), (FrameNumber(3), written[3].slot()));
            }
            other => panic!("bit {bit}: {other:?}"),
        }
    }
}

#[test]
fn every_flipped_bit_of_the_last_header_is_reported() {
    let (image, written) = proven();
    for bit in 0..128 * 8 {
        let mut image = image.clone();
        flip(&mut image, written[9].start() + bit / 8, bit % 8);
        let shard = image.recover().unwrap().shards.remove(0);
        assert_eq!(shard.next_frame, FrameNumber(9));
        // In the magic it is no header any more.
        let kind = if bit < 64 { TailKind::EndOfLog } else { TailKind::TailUncertain };
        assert_eq!(shard.tail.kind, kind, "bit {bit}");
    }
}

#[test]
fn a_flipped_bit_in_records_is_found_by_verify_and_cuts_only_what_is_unproven() {
    let (image, written) = proven();
    for (frame, offset) in [(2, 128), (2, 140), (2, 3000), (6, 700)] {
        let mut image = image.clone();
        flip(&mut image, written[frame].start() + offset, 3);
        assert_eq!(image.recover().unwrap().shards[0].next_frame, FrameNumber(10));
        match image.verify() {
            Err(RecoveryError::Corrupt { place, fault: FrameFault::Body, .. }) => {
                assert_eq!(place.frame, FrameNumber(frame as u64));
            }
            other => panic!("{other:?}"),
        }
        let shard = image.salvage().shards.remove(0);
        assert_eq!((shard.next_frame, shard.losses.len()), (FrameNumber(10), 1));
        assert_eq!(shard.losses[0].kind, LossKind::BodyCorrupt);
    }
    let mut image = image;
    flip(&mut image, written[8].start() + 2000, 3);
    let shard = image.recover().unwrap().shards.remove(0);
    assert_eq!((shard.next_frame, shard.tail.kind), (FrameNumber(8), TailKind::TornTail));
    assert_eq!((shard.tail.cut_frames, shard.frames, shard.records), (2, 8, 8));
}

#[test]
fn damage_inside_a_sector_that_arrived_is_told_from_a_torn_write() {
    let mut image = Image::new(1);
    let frame = image.append(0, &[vec![1; 100], vec![2; 100], vec![3; 3000]]);
    for (offset, kind) in
        [(140, TailKind::TailUncertain), (250, TailKind::TailUncertain), (600, TailKind::TornTail)]
    {
        let mut image = image.clone();
        flip(&mut image, frame.start() + offset, 0);
        assert_eq!(image.recover().unwrap().shards[0].tail.kind, kind, "byte {offset}");
    }
}

#[test]
fn a_misdirected_frame_is_named_where_a_proven_one_was() {
    let (mut image, written) = proven();
    let other = image.append_many(1, 1, 3000).remove(0);
    for guest in [&written[5], &other] {
        let mut image = image.clone();
        let bytes = guest.bytes.clone();
        image.bytes[written[3].start()..][..bytes.len()].copy_from_slice(&bytes);
        match image.recover() {
            Err(RecoveryError::Misdirected { place, fault: FrameFault::Other(_), .. }) => {
                assert_eq!(place.frame, FrameNumber(3));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(image.salvage().shards[0].losses[0].kind, LossKind::Misdirected);
        // Over an unproven frame nothing tells what was there.
        let mut image = image.clone();
        image.put(&written[3]);
        image.bytes[written[8].start()..][..bytes.len()].copy_from_slice(&bytes);
        let shard = image.recover().unwrap().shards.remove(0);
        assert_eq!((shard.next_frame, shard.tail.kind), (FrameNumber(8), TailKind::TailUncertain));
    }
}

#[test]
fn a_frame_behind_another_one_than_it_says_is_not_chained() {
    let (image, written) = proven();
    let mut other = written[8].clone();
    other.header.link ^= 1;
    other.header.encode(&mut other.bytes);
    let mut image = image;
    image.put(&other);
    let shard = image.recover().unwrap().shards.remove(0);
    assert_eq!((shard.next_frame, shard.tail.kind), (FrameNumber(8), TailKind::TailUncertain));
}

#[test]
fn a_device_that_ends_too_early_says_so() {
    let (mut image, _) = proven();
    image.bytes.truncate(image.bytes.len() - 4096);
    assert!(image.recover().is_ok(), "nothing needs the last slot");
    image.bytes.truncate(5 * 4096);
    match image.recover() {
        Err(RecoveryError::Unreadable { source: SourceError::Truncated { found, .. }, .. }) => {
            assert_eq!(found, 5 * 4096);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_slot_that_cannot_be_read_is_named_and_does_not_hide_its_neighbours() {
    let (image, written) = proven();
    let mut tail = image.clone();
    tail.unreadable.insert(written[9].slot());
    match tail.recover() {
        Err(RecoveryError::Unreadable { slot, .. }) => assert_eq!(slot.0, written[9].slot()),
        other => panic!("{other:?}"),
    }
    let shard = tail.salvage().shards.remove(0);
    assert_eq!(shard.next_frame, FrameNumber(9));
    assert_eq!(shard.losses[0].kind, LossKind::Unreadable);
    // Behind the log, out of its reach, nothing needs it.
    let mut behind = image.clone();
    behind.unreadable.insert(60);
    assert_eq!(behind.recover().unwrap().shards[0].next_frame, FrameNumber(10));
}
