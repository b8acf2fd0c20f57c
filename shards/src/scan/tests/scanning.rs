//! What comes out of a log that is as it should be.

use super::image::*;
use crate::{
    format::record::RecordKind,
    ids::{ExtentOrdinal, FrameNumber, SlotIndex},
    scan::*,
};

#[test]
fn every_record_comes_out_once_and_in_order_over_extents_and_reads() {
    let image = Image::varied(3, 45);
    let (records, damages) = image.drain(&mut image.scanner(Start::Oldest));
    assert_eq!(damages, []);
    image.assert_from(0, &records);
    assert!(records.windows(2).all(|pair| pair[0].frame <= pair[1].frame));
    assert!(records.iter().all(|record| record.unix_ns == 1_000 + record.frame.0));
}

#[test]
fn reads_of_any_size_give_the_same_records() {
    let image = Image::varied(3, 45);
    for chunk_slots in [1, 2, 3, 7, 16, 64, 1_000] {
        let setup = ScanSetup { chunk_bytes: chunk_slots * SLOT as u64, ..image.setup() };
        let mut scanner = Scanner::new(setup, Start::Oldest, image.limit(), &image);
        let (records, damages) = image.drain(&mut scanner);
        assert_eq!(damages, []);
        image.assert_from(0, &records);
    }
}

#[test]
fn a_scan_goes_on_from_every_position_as_if_it_had_never_stopped() {
    let image = Image::varied(3, 45);
    let mut whole = image.scanner(Start::Oldest);
    for first in 0..=image.payloads.len() {
        let position = whole.position();
        let (records, damages) = image.drain(&mut image.scanner(Start::Position(position)));
        assert_eq!(damages, []);
        image.assert_from(first, &records);
        let step = image.drive(&mut whole);
        assert_eq!(matches!(step, Step::Record(_)), first < image.payloads.len());
    }
}

#[test]
fn a_scan_from_an_address_begins_with_its_record() {
    let image = Image::varied(3, 45);
    for (first, address) in image.addresses.iter().enumerate() {
        let extent = address.extent(&geometry());
        let ordinal = image.extents.iter().position(|other| other.extent == extent).unwrap() as u64;
        let start = Start::Address { address: *address, ordinal: ExtentOrdinal(ordinal) };
        let (records, damages) = image.drain(&mut image.scanner(start));
        assert_eq!(damages, []);
        image.assert_from(first, &records);
    }
}

#[test]
fn a_scan_from_a_frame_finds_its_extent_by_a_few_reads() {
    let image = Image::varied(5, 90);
    for target in 0..95 {
        let target = FrameNumber(target);
        let mut locate = Locate::new(STORE, SHARD, geometry(), target, &image.limit(), &image);
        let mut reads = 0;
        let ordinal = loop {
            match locate.step(&image) {
                LocateStep::Need(run) => {
                    reads += 1;
                    locate.supply(Some(&image.read(run).unwrap()));
                }
                LocateStep::Found(ordinal) => break ordinal.unwrap(),
            }
        };
        assert!(reads <= 4, "{reads} reads to choose among {} extents", image.extents.len());
        let (records, damages) = image.drain(&mut image.scanner(Start::Frame { frame: target, ordinal }));
        assert_eq!(damages, []);
        let first = records.first().map(|record| record.address);
        let index = first.map_or(image.payloads.len(), |first| {
            image.addresses.iter().position(|address| *address == first).unwrap()
        });
        image.assert_from(index, &records);
        assert!(records.first().is_none_or(|record| record.frame >= target));
        assert_eq!(records.is_empty(), target.0 >= 90);
    }
}

#[test]
fn a_log_whose_beginning_was_freed_begins_where_it_begins_now() {
    let mut image = Image::varied(4, 70);
    image.extents.remove(0);
    image.first_ordinal = 1;
    let (records, damages) = image.drain(&mut image.scanner(Start::Oldest));
    assert_eq!(damages, []);
    assert!(!records.is_empty());
    image.assert_from(image.payloads.len() - records.len(), &records);
}

#[test]
fn a_position_in_a_freed_extent_is_reclaimed_and_not_damage_of_something_else() {
    let mut image = Image::varied(4, 70);
    let mut scanner = image.scanner(Start::Oldest);
    assert!(matches!(image.drive(&mut scanner), Step::Record(_)));
    let position = scanner.position();
    image.extents.remove(0);
    image.first_ordinal = 1;
    let (records, damages) = image.drain(&mut image.scanner(Start::Position(position)));
    assert_eq!(records, []);
    assert!(matches!(damages[..], [Damage { fault: Fault::Reclaimed, .. }]), "{damages:?}");
}

#[test]
fn a_scan_ends_at_its_limit_and_goes_on_with_a_later_one() {
    let mut image = Image::new(3);
    let mut scanner = image.scanner(Start::Oldest);
    assert_eq!(image.drive(&mut scanner), Step::End, "an empty log ends at once");
    let mut seen = 0;
    for round in 0..60 {
        image.append(&[vec![round as u8; 5_000], vec![round as u8; 100]]);
        assert_eq!(image.drive(&mut scanner), Step::End, "nothing comes before the limit moves");
        scanner.set_limit(image.limit());
        let (records, damages) = image.drain(&mut scanner);
        assert_eq!(damages, []);
        assert_eq!(records.len(), 2, "round {round}");
        assert_eq!(records[0].payload, image.payloads[seen]);
        seen += 2;
    }
}

#[test]
fn frames_behind_the_limit_are_not_yielded_though_they_are_there() {
    let image = Image::varied(3, 45);
    for frames in 0..45 {
        let end = image.frames.get(frames).map_or(image.slot, |slot| *slot);
        // Where the limit is the start of an extent the frame before it ended in another.
        let limit = Limit { frames: FrameNumber(frames as u64), end: SlotIndex(end) };
        let mut scanner = Scanner::new(image.setup(), Start::Oldest, limit, &image);
        let (records, damages) = image.drain(&mut scanner);
        assert_eq!(damages, []);
        assert!(records.iter().all(|record| record.frame < limit.frames));
        assert_eq!(records.last().map_or(0, |last| last.frame.0 + 1), frames as u64);
    }
}

#[test]
fn only_data_comes_out_unless_all_is_asked_for() {
    let mut image = Image::new(1);
    image.append_kinds(&[
        (RecordKind::VOID, b"dropped"),
        (RecordKind::DATA, b"kept"),
        (RecordKind::PADDING, b""),
        (RecordKind::CONTROL, &[4]),
        (RecordKind::BATCH_DATA, b""),
        (RecordKind::LARGE_PART, b""),
        (RecordKind::from_code(29).unwrap(), b"of a later version"),
    ]);
    let (records, _) = image.drain(&mut image.scanner(Start::Oldest));
    image.assert_from(0, &records);
    let setup = ScanSetup { wanted: Wanted::All, ..image.setup() };
    let mut scanner = Scanner::new(setup, Start::Oldest, image.limit(), &image);
    let (records, _) = image.drain(&mut scanner);
    assert_eq!(records.len(), 7);
    assert_eq!(records[6].kind.code(), 29);
}

#[test]
fn a_payload_within_one_read_is_not_copied() {
    let mut image = Image::new(1);
    image.append(&[b"one".to_vec(), b"two".to_vec()]);
    let (records, _) = image.drain(&mut image.scanner(Start::Oldest));
    let distance = records[1].payload.as_ptr() as usize - records[0].payload.as_ptr() as usize;
    assert_eq!(distance, 16, "both are parts of one read");
}

#[test]
fn a_shard_without_extents_has_nothing_to_scan() {
    let mut image = Image::new(1);
    image.extents.clear();
    let limit = image.limit();
    let mut scanner = Scanner::new(image.setup(), Start::Oldest, limit, &image);
    assert_eq!(scanner.step(&image), Step::End);
}

/// An open cut the last frame of an extent off and came with larger buffers, which did not fit in its place: the frame of
/// that number went to the next extent. The one that was cut off came out of scans instead, and then damage.
#[test]
fn a_frame_that_was_cut_off_is_not_taken_for_the_one_that_replaced_it_in_the_next_extent() {
    let mut image = Image::new(4);
    image.append(&[vec![1; 100]]);
    let (link, number) = (image.link, image.number);
    image.append(&[b"cut off".to_vec()]);
    image.payloads.pop();
    image.addresses.pop();
    (image.link, image.number, image.term) = (link, number, 2);
    image.frames_end = vec![number];
    image.claim();
    image.append(&[b"in its place".to_vec()]);
    image.append(&[b"behind it".to_vec()]);
    let (records, damages) = image.drain(&mut image.scanner(Start::Oldest));
    assert_eq!(damages, []);
    image.assert_from(0, &records);
}
