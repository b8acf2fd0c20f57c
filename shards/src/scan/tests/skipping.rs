//! What comes out of a log that is damaged.

use super::image::*;
use crate::{
    format::{frame::FrameError, record::RecordError},
    ids::{FrameNumber, ShardId, SlotIndex},
    scan::*,
};
use proptest::prelude::*;

/// Frames of three records each, of `bytes` each.
fn image(frames: usize, bytes: usize) -> Image {
    let mut image = Image::new(4);
    for frame in 0..frames {
        let payloads: Vec<_> = (0..3).map(|part| vec![(frame * 3 + part) as u8; bytes]).collect();
        image.append(&payloads);
    }
    image
}

fn payloads(records: &[ScanRecord]) -> Vec<u8> {
    records.iter().map(|record| record.payload[0]).collect()
}

#[test]
fn a_damaged_record_is_named_and_its_neighbours_come_out() {
    let mut image = image(5, 100);
    image.flip(2, 128 + 112 + 20);
    let (records, damages) = image.drain(&mut image.skipping());
    assert_eq!(payloads(&records), [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14]);
    let place = ScanPlace { shard: SHARD, frame: Some(FrameNumber(2)), slot: SlotIndex(image.frames[2]) };
    let [Damage { place: found, fault: Fault::Record { address, error }, .. }] = &damages[..] else {
        panic!("{damages:?}");
    };
    assert_eq!((*found, *address), (place, image.addresses[7]));
    assert!(matches!(error, RecordError::Checksum { .. }));
}

#[test]
fn a_scan_stops_at_damage_and_says_so_as_often_as_it_is_asked() {
    let mut image = image(5, 100);
    image.flip(2, 128 + 112 + 20);
    let mut scanner = image.scanner(Start::Oldest);
    let (records, damages) = image.drain(&mut scanner);
    assert_eq!(payloads(&records), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(damages.len(), 1);
    assert!(matches!(image.drive(&mut scanner), Step::Damage(_)));
}

#[test]
fn a_frame_whose_record_headers_differ_from_its_own_is_lost_as_a_whole() {
    let mut image = image(5, 100);
    image.flip(2, 128 + 1);
    let (records, damages) = image.drain(&mut image.skipping());
    assert_eq!(payloads(&records), [0, 1, 2, 3, 4, 5, 9, 10, 11, 12, 13, 14]);
    assert!(matches!(damages[..], [Damage { fault: Fault::OtherRecords, .. }]), "{damages:?}");
}

/// A write of which only the header arrived, over a frame that an earlier open left in the same place: its records
/// have good checksums and are not the frame's.
#[test]
fn good_records_of_an_earlier_write_do_not_come_out_as_the_frames_own() {
    let mut image = image(3, 100);
    let before = image.clone();
    let (start, mut other) = (image.frames[2] as usize * SLOT, before.clone());
    other.slot = image.frames[2];
    other.number = 2;
    other.append(&[vec![99; 100], vec![98; 100], vec![97; 100]]);
    image.bytes[start + 128..start + SLOT].copy_from_slice(&other.bytes[start + 128..start + SLOT]);
    let (records, damages) = image.drain(&mut image.skipping());
    assert_eq!(payloads(&records), [0, 1, 2, 3, 4, 5]);
    assert!(matches!(damages[..], [Damage { fault: Fault::OtherRecords, .. }]), "{damages:?}");
}

#[test]
fn behind_a_damaged_header_the_next_frame_is_found_and_the_loss_is_counted() {
    let mut image = image(33, 9_000);
    for lost in [7, 8, 20] {
        image.flip(lost, 60);
    }
    let (records, damages) = image.drain(&mut image.skipping());
    let expected: Vec<u8> =
        (0..99).filter(|record| ![7, 8, 20].contains(&(record / 3))).map(|record| record as u8).collect();
    assert_eq!(payloads(&records), expected);
    let of = |damage: &Damage| (damage.place.frame.unwrap().0, damage.resumed_at.unwrap().0);
    assert_eq!(damages.iter().map(of).collect::<Vec<_>>(), [(7, 9), (20, 21)]);
    assert!(matches!(damages[0].fault, Fault::Header(FrameError::Checksum { .. })));
}

#[test]
fn damage_up_to_the_end_is_told_and_the_scan_ends_there() {
    let mut image = image(10, 9_000);
    image.flip(8, 60);
    image.flip(9, 60);
    let mut scanner = image.skipping();
    let (records, damages) = image.drain(&mut scanner);
    assert_eq!(records.len(), 24);
    assert_eq!(damages.iter().map(|damage| damage.resumed_at).collect::<Vec<_>>(), [None]);
    assert_eq!(image.drive(&mut scanner), Step::End);
    image.append(&[vec![77; 10]]);
    scanner.set_limit(image.limit());
    let (records, damages) = image.drain(&mut scanner);
    assert_eq!((payloads(&records), damages), (vec![77], vec![]));
}

#[test]
fn a_slot_that_cannot_be_read_costs_its_frame_only() {
    let mut image = image(12, 9_000);
    image.unreadable.insert(image.frames[4] + 2);
    image.unreadable.insert(image.frames[9]);
    let (records, damages) = image.drain(&mut image.skipping());
    let expected: Vec<u8> = (0..36).filter(|record| ![4, 9].contains(&(record / 3))).collect();
    assert_eq!(payloads(&records), expected);
    assert!(damages.iter().all(|damage| matches!(damage.fault, Fault::Unreadable(_))), "{damages:?}");
    assert_eq!(damages[0].place.slot.0, image.frames[4] + 2);
    assert_eq!(damages[1].resumed_at, Some(FrameNumber(10)));
    let (records, damages) = image.drain(&mut image.scanner(Start::Oldest));
    assert_eq!((records.len(), damages.len()), (12, 1), "a scan that stops stops there");
}

#[test]
fn a_frame_of_another_shard_or_an_earlier_open_is_not_taken_in() {
    let mut of_other_shard = image(6, 100);
    let setup = ScanSetup { shard: ShardId(4), ..of_other_shard.setup() };
    let mut scanner = Scanner::new(setup, Start::Oldest, of_other_shard.limit(), &of_other_shard);
    let (records, damages) = of_other_shard.drain(&mut scanner);
    assert_eq!((records.len(), damages.len()), (0, 1));

    of_other_shard.term = 2;
    of_other_shard.append(&[vec![1; 10]]);
    of_other_shard.term = 1;
    of_other_shard.append(&[vec![2; 10]]);
    let (_, damages) = of_other_shard.drain(&mut of_other_shard.scanner(Start::Oldest));
    assert!(matches!(damages[..], [Damage { fault: Fault::OlderTerm, .. }]), "{damages:?}");
}

#[test]
fn positions_that_are_not_of_this_log_are_refused() {
    let image = image(6, 100);
    let mut scanner = image.scanner(Start::Oldest);
    assert!(matches!(image.drive(&mut scanner), Step::Record(_)));
    let good = scanner.position();
    let fault_of = |position| {
        let (records, damages) = image.drain(&mut image.scanner(Start::Position(position)));
        assert_eq!(records, []);
        damages[0].fault.clone()
    };
    let between = Position { offset: good.offset + 8, ..good };
    assert!(matches!(fault_of(between), Fault::NotBetweenRecords { .. }));
    let other_link = Position { link: Some(1), ..good };
    assert!(matches!(fault_of(other_link), Fault::OtherFrame(_)));
    let behind = Position { frame: Some(FrameNumber(100)), ..good };
    assert_eq!(fault_of(behind), Fault::BehindTheEnd);
    let elsewhere = Position { slot: Some(SlotIndex(u64::MAX >> 20)), ..good };
    assert!(matches!(fault_of(elsewhere), Fault::NoExtent), "{:?}", fault_of(elsewhere));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Whatever is on the device: no panic, no endless loop, and nothing that was not appended.
    #[test]
    fn hostile_bytes_never_come_out_as_records(
        frames in 1_usize..30, hits in proptest::collection::vec((0_usize..4 * 64 * SLOT, any::<u8>(), 1_usize..5_000), 1..20),
        chunk_slots in 1_u64..9, skip: bool,
    ) {
        let good = image(frames, 9_000);
        let mut bad = good.clone();
        for (at, byte, length) in hits {
            let end = (at + length).min(bad.bytes.len());
            bad.bytes[at..end].fill(byte);
        }
        let on_damage = if skip { OnDamage::Skip } else { OnDamage::Stop };
        let setup = ScanSetup { chunk_bytes: chunk_slots * SLOT as u64, on_damage, ..bad.setup() };
        let mut scanner = Scanner::new(setup, Start::Oldest, bad.limit(), &bad);
        let (records, damages) = bad.drain(&mut scanner);
        for record in &records {
            let index = good.addresses.iter().position(|address| *address == record.address).unwrap();
            prop_assert_eq!(&record.payload, &good.payloads[index]);
        }
        prop_assert!(records.len() == good.payloads.len() || !damages.is_empty(), "a loss that nobody was told of");
    }

    /// A position is the caller's to keep, so anything may come back as one.
    #[test]
    fn hostile_positions_are_refused(
        ordinal in 0_u64..6, slot: Option<u64>, frame in proptest::option::of(0_u64..12), link: Option<u32>, offset: u32,
        of_batch: u64,
    ) {
        let good = image(10, 9_000);
        let slot = slot.map(|slot| SlotIndex(slot % 300));
        let position = Position {
            shard: SHARD, ordinal: ExtentOrdinal(ordinal), slot, frame: frame.map(FrameNumber), link, offset,
            of_batch,
        };
        let (records, _) = good.drain(&mut good.scanner(Start::Position(position)));
        for record in &records {
            let index = good.addresses.iter().position(|address| *address == record.address).unwrap();
            prop_assert_eq!(&record.payload, &good.payloads[index]);
        }
    }
}
