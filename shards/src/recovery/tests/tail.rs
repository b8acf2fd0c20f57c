//! How a log ends: torn, with holes, with what earlier opens left behind it.

use super::super::*;
use super::image::Image;
use crate::ids::*;

fn payloads(count: usize, bytes: usize, fill: u8) -> Vec<Vec<u8>> {
    (0..count).map(|record| vec![fill.wrapping_add(record as u8); bytes]).collect()
}

#[test]
fn a_frame_of_which_any_sector_is_missing_is_cut() {
    let mut image = Image::new(1);
    image.append_many(0, 5, 3000);
    // 3 slots, the used bytes end in the 17th sector.
    let last = image.make(0, &payloads(8, 1000, 7));
    let used_sectors = (last.header.used_bytes as usize).div_ceil(512);
    for missing in 0..used_sectors {
        for prefix in [false, true] {
            let mut image = image.clone();
            image.put_sectors(&last, |sector| if prefix { sector < missing } else { sector != missing });
            let shard = image.recover().unwrap().shards.remove(0);
            assert_eq!((shard.next_frame, shard.frames), (FrameNumber(5), 5), "sector {missing}");
            let kind = if missing == 0 { TailKind::EndOfLog } else { TailKind::TornTail };
            assert_eq!(shard.tail.kind, kind, "sector {missing}");
            assert_eq!(shard.next_slot, Some(last.header.base_slot));
            assert_eq!(shard.link, last.header.link);
        }
    }
    image.put_sectors(&last, |sector| sector < used_sectors);
    assert_eq!(image.recover().unwrap().shards[0].next_frame, FrameNumber(6));
}

/// The records of a frame that an earlier open wrote to the same place have good checksums for that place: only the
/// digest in the header tells that they are not the new frame's.
#[test]
fn records_of_an_earlier_open_in_the_same_place_are_not_taken_for_the_new_ones() {
    // Behind the first record each one fills a sector, so that a missing sector leaves a whole old record.
    let filling = |fill: u8| -> Vec<Vec<u8>> {
        let bytes = |record: u8| if record == 0 { 376 } else { 504 };
        (0..12_u8).map(|record| vec![fill + record; bytes(record)]).collect()
    };
    let mut image = Image::new(1);
    image.append_many(0, 5, 3000);
    let old = image.make(0, &filling(1));
    // Its last sector did not arrive, so it is cut.
    let sectors = (old.header.used_bytes as usize).div_ceil(512);
    assert_eq!((sectors, old.header.used_bytes), (12, 12 * 512));
    image.put_sectors(&old, |sector| sector + 1 < sectors);
    image.reopen();
    let new = image.make(0, &filling(100));
    assert_eq!((new.slot(), new.header.number), (old.slot(), old.header.number));
    for missing in 1..sectors {
        let mut image = image.clone();
        image.put_sectors(&new, |sector| sector != missing);
        let shard = image.recover().unwrap().shards.remove(0);
        assert_eq!(
            (shard.next_frame, shard.tail.kind),
            (FrameNumber(5), TailKind::TornTail),
            "sector {missing}"
        );
    }
}

#[test]
fn behind_a_hole_unproven_frames_are_cut_and_proven_ones_are_an_error() {
    let mut image = Image::new(1);
    image.append_many(0, 5, 3000);
    image.sync(0);
    let hole = image.make(0, &payloads(1, 100, 0));
    image.append_many(0, 3, 3000);
    let shard = image.recover().unwrap().shards.remove(0);
    assert_eq!((shard.next_frame, shard.tail.kind), (FrameNumber(5), TailKind::TornTail));
    assert_eq!((shard.tail.cut_frames, shard.tail.highest_seen), (3, Some(FrameNumber(8))));
    assert_eq!(shard.next_slot, Some(hole.header.base_slot));

    // The same hole, and behind it a frame that was submitted when it was durable.
    image.sync(0);
    image.append_many(0, 1, 100);
    match image.recover() {
        Err(RecoveryError::LostWrite { place, durable, .. }) => {
            assert_eq!((place.frame, place.slot), (FrameNumber(5), hole.header.base_slot));
            assert_eq!(place.on_device, Some((DeviceIndex(0), (1 << 20) + hole.slot() * 4096)));
            assert_eq!(durable, FrameNumber(9));
        }
        other => panic!("{other:?}"),
    }
    let report = image.salvage();
    assert_eq!(report.shards[0].tail.kind, TailKind::Salvaged);
    assert_eq!(report.shards[0].losses[0].kind, LossKind::LostWrite);
    assert_eq!(report.shards[0].next_frame, FrameNumber(5));
}

#[test]
fn a_hole_at_the_end_of_an_extent_is_seen_from_the_next_one() {
    let mut image = Image::new(1);
    image.append_many(0, 62, 100);
    image.sync(0);
    image.make(0, &payloads(1, 100, 0));
    image.append_many(0, 2, 100);
    assert_eq!(image.streams[0].extents.len(), 2);
    let shard = image.recover().unwrap().shards.remove(0);
    assert_eq!((shard.next_frame, shard.tail.kind), (FrameNumber(62), TailKind::TornTail));
    assert_eq!((shard.tail.cut_frames, shard.used_extents, shard.extents.len()), (2, 1, 2));
    image.sync(0);
    image.append_many(0, 1, 100);
    assert!(matches!(image.recover(), Err(RecoveryError::LostWrite { .. })));
}

/// Fault 7: a write of a killed process lands after the next open has read the tail, cut there, and gone on.
#[test]
fn a_late_frame_of_an_older_term_is_never_part_of_the_log() {
    let mut image = Image::new(1);
    image.append_many(0, 5, 3000);
    let late = [image.make(0, &payloads(3, 1000, 1)), image.make(0, &payloads(1, 100, 1))];
    image.reopen();
    late.iter().for_each(|frame| image.put(frame));
    let shard = image.recover().unwrap().shards.remove(0);
    assert_eq!((shard.next_frame, shard.tail.kind), (FrameNumber(5), TailKind::EndOfLog));
    assert_eq!(shard.tail.cut_frames, 0);

    // Nor when the new term's own frame was lost behind it.
    let mut lost = image.clone();
    lost.make(0, &payloads(1, 100, 2));
    lost.append_many(0, 1, 100);
    late.iter().for_each(|frame| lost.put(frame));
    assert_eq!(lost.recover().unwrap().shards[0].next_frame, FrameNumber(5));

    // And the new term's frames are the log where they are there.
    image.append_many(0, 4, 100);
    assert_eq!(image.recover().unwrap().shards[0].next_frame, FrameNumber(9));
}

/// Half a header behind the end of a closed log, older than an earlier crash, was taken for a torn tail, and the closed store
/// for one that had crashed.
#[test]
fn what_lies_behind_the_end_of_a_closed_log_is_no_tail() {
    let mut image = Image::new(1);
    image.append_many(0, 5, 100);
    let cut = image.make(0, &payloads(1, 100, 1));
    image.bytes[cut.start()..cut.start() + 64].copy_from_slice(&cut.bytes[..64]);
    assert_eq!(image.recover().unwrap().shards[0].tail.kind, TailKind::TailUncertain);
    image.close();
    let shard = image.recover().unwrap().shards.remove(0);
    assert_eq!((shard.next_frame, shard.tail.kind), (FrameNumber(5), TailKind::Clean));
}

#[test]
fn what_salvage_gave_up_does_not_come_back_to_fail_the_next_open() {
    let mut image = Image::new(1);
    let written = image.append_many(0, 10, 100);
    image.sync(0);
    image.append_many(0, 2, 100);
    image.bytes[written[4].start()..][..4096].fill(0);
    assert!(matches!(image.recover(), Err(RecoveryError::LostWrite { .. })));
    let report = image.salvage();
    assert_eq!(report.shards[0].next_frame, FrameNumber(4));
    image.superblock.term = Term(2);
    image.superblock.shards = report.shard_entries();
    let shard = image.recover().unwrap().shards.remove(0);
    assert_eq!((shard.next_frame, shard.tail.kind), (FrameNumber(4), TailKind::EndOfLog));
}

#[test]
fn frames_of_an_earlier_generation_are_the_end_of_the_log() {
    let mut image = Image::new(1);
    image.append_many(0, 40, 100);
    let mut header = image.streams[0].extents[0];
    // The extent was freed and claimed again; its first frames were written over.
    header.generation = Generation(2);
    image.put_header(&header);
    image.streams[0].extents[0] = header;
    (image.streams[0].number, image.streams[0].link, image.streams[0].slot) = (0, 0, Some(1));
    assert_eq!(image.recover().unwrap().shards[0].next_frame, FrameNumber(0));
    image.append_many(0, 7, 100);
    let shard = image.recover().unwrap().shards.remove(0);
    assert_eq!((shard.next_frame, shard.tail.kind), (FrameNumber(7), TailKind::EndOfLog));
}

/// Everything that was in flight at a crash arrives or not, sector by sector, and the log is always a prefix that
/// holds all that was durable.
#[test]
fn any_subset_of_sectors_in_flight_leaves_a_prefix_with_all_that_was_durable() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for round in 0..200 {
        let mut image = Image::new(1);
        let mut issued = Vec::new();
        for _open in 0..3 {
            image
                .append_many(0, next() % 4, (next() % 9000) as usize)
                .into_iter()
                .for_each(|f| issued.push(f));
            image.sync(0);
            let durable = image.streams[0].number;
            for _ in 0..next() % 6 {
                let frame = image.make(0, &payloads((next() % 30) as usize, 380, next() as u8));
                let (all, mask) = (next() % 3 == 0, next() | next());
                image.put_sectors(&frame, |sector| all || mask >> (sector % 64) & 1 == 1);
                issued.push(frame);
            }
            let shard = image.reopen().shards.remove(0);
            assert!(shard.next_frame.0 >= durable, "round {round}: {shard:?}");
            issued.truncate(shard.next_frame.0 as usize);
            assert_eq!(shard.next_frame.0, issued.len() as u64, "round {round}");
            for frame in &issued {
                let there = &image.bytes[frame.start()..][..frame.header.used_bytes as usize];
                assert!(
                    there == &frame.bytes[..there.len()],
                    "round {round}: other bytes in {:?}",
                    frame.header
                );
            }
        }
    }
}
