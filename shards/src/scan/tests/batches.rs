//! Batches come out where they were committed; what is missing of one is told, or passed over, and nothing else is lost.

use super::{
    super::*,
    image::{Image, Payload, SLOT, geometry},
};
use crate::format::{
    manifest::{Manifest, ManifestEntry, ManifestError},
    record::{RecordKind, record_bytes},
};

/// Records of a batch in one frame.
fn append_group(image: &mut Image, payloads: &[Payload]) -> ManifestEntry {
    let records: Vec<_> = payloads.iter().map(|it| (RecordKind::BATCH_DATA, it.as_slice())).collect();
    image.append_kinds(&records);
    let byte = image.frames.last().unwrap() * SLOT as u64 + 128;
    let generation = image.extents.last().unwrap().generation;
    let bytes: u64 = payloads.iter().map(|it| record_bytes(it.len() as u64)).sum();
    let address = Address::new(&geometry(), byte, generation, payloads[0].len() as u64);
    ManifestEntry { address, length: bytes as u32, bytes, records: payloads.len() as u64 }
}

fn commit(image: &mut Image, entries: &[ManifestEntry]) {
    let mut payload = vec![0; Manifest::payload_bytes(entries.len())];
    Manifest::encode(0, None, entries, &mut payload);
    image.append_kinds(&[(RecordKind::DATA, b"with it"), (RecordKind::BATCH_COMMIT, &payload)]);
}

fn payload(index: usize) -> Payload {
    vec![index as u8; 100 + index * 997 % 6000]
}

/// Three groups of records with data between, over more than one extent, and what a scan gives.
fn image() -> (Image, Vec<ManifestEntry>, Vec<Payload>) {
    let mut image = Image::new(6);
    let (mut entries, mut inside, mut outside) = (Vec::new(), Vec::new(), Vec::new());
    for group in 0..3 {
        let payloads: Vec<_> = (0..5).map(|index| payload(group * 5 + index)).collect();
        entries.push(append_group(&mut image, &payloads));
        inside.extend(payloads);
        let between: Vec<_> = (0..20).map(|index| vec![0xee; 9000 + index]).collect();
        image.append(&between);
        outside.extend(between);
    }
    assert!(image.extents.len() >= 2, "the test wants several extents");
    commit(&mut image, &entries);
    outside.push(b"with it".to_vec());
    outside.extend(inside);
    image.append(&[b"after".to_vec()]);
    outside.push(b"after".to_vec());
    (image, entries, outside)
}

fn payloads(records: &[ScanRecord]) -> Vec<&[u8]> {
    records.iter().map(|record| &record.payload[..]).collect()
}

#[test]
fn a_batch_comes_where_it_was_committed_and_a_scan_can_go_on_anywhere_in_it() {
    let (image, _, expected) = image();
    let (records, damages) = image.drain(&mut image.scanner(Start::Oldest));
    assert!(damages.is_empty(), "{damages:?}");
    assert!(payloads(&records) == expected);
    for cut in 0..=expected.len() {
        let mut scanner = image.scanner(Start::Oldest);
        for _ in 0..cut {
            assert!(matches!(image.drive(&mut scanner), Step::Record(_)));
        }
        let (rest, damages) = image.drain(&mut image.scanner(Start::Position(scanner.position())));
        assert!(damages.is_empty() && payloads(&rest) == expected[cut..], "behind {cut} records");
    }
}

#[test]
fn a_damaged_record_of_a_batch_hides_no_other() {
    let (mut image, entries, expected) = image();
    // The last byte of the second record of the second group.
    let first = entries[1].address.byte() as usize;
    let second = first + record_bytes(payload(5).len() as u64) as usize;
    image.bytes[second + 8] ^= 1;
    let (records, damages) = image.drain(&mut image.skipping());
    // Once where it lies, once where it counts.
    assert!(
        damages.iter().all(|it| matches!(it.fault, Fault::Record { .. })) && damages.len() == 2,
        "{damages:?}"
    );
    let left: Vec<_> = expected.iter().filter(|it| **it != payload(6)).collect();
    assert!(payloads(&records) == left);
    let mut scanner = image.scanner(Start::Oldest);
    let (records, damages) = image.drain(&mut scanner);
    assert_eq!(damages.len(), 1);
    assert!(scanner.is_stopped() && payloads(&records) == expected[..records.len()]);
}

#[test]
fn what_was_reclaimed_of_a_batch_is_passed_over() {
    let (mut image, entries, expected) = image();
    image.extents[0].generation = Generation(99);
    let gone = geometry().extent_of_byte(entries[0].address.byte());
    let lost = entries.iter().filter(|it| it.address.extent(&geometry()) == gone).count();
    let limit = image.limit();
    let ordinal = ExtentOrdinal(1);
    let start = Start::Frame { frame: FrameNumber(0), ordinal };
    let mut scanner = Scanner::new(image.setup(), start, limit, &image);
    let (records, damages) = image.drain(&mut scanner);
    assert!(damages.is_empty() && lost > 0 && lost < 3, "{damages:?} {lost}");
    let inside = &expected[expected.len() - 1 - (3 - lost) * 5..];
    assert!(payloads(&records[records.len() - inside.len()..]) == inside);
}

#[test]
fn a_list_that_no_writer_makes_is_damage_and_costs_no_more_than_it_admits() {
    let (mut image, entries, expected) = image();
    let mut wrong = entries[0];
    wrong.records += 1;
    commit(&mut image, &[wrong]);
    let data = ManifestEntry { address: image.addresses[0], ..entries[0] };
    commit(&mut image, &[data]);
    commit(&mut image, &vec![entries[0]; 200]);
    image.append_kinds(&[(RecordKind::BATCH_COMMIT, b"")]);
    image.append(&[b"end".to_vec()]);
    let (records, damages) = image.drain(&mut image.skipping());
    assert!(payloads(&records[..expected.len()]) == expected);
    assert_eq!(records.last().unwrap().payload, "end");
    let faults: Vec<_> = damages.iter().map(|damage| &damage.fault).collect();
    assert!(matches!(faults[0], Fault::NotAsListed { .. }), "{faults:?}");
    assert!(matches!(faults[1], Fault::NotAsListed { found: RecordKind::DATA, .. }), "{faults:?}");
    let too_long = |it: &&Fault| matches!(it, Fault::Manifest { error: ManifestError::TooLong(_), .. });
    assert!(too_long(&faults[2]), "{faults:?}");
    assert!(matches!(faults[3], Fault::Manifest { error: ManifestError::Length { .. }, .. }), "{faults:?}");
    assert_eq!(faults.len(), 4);
    // Once as it should be, and then no more bytes than the shard has.
    let again = records.iter().filter(|record| record.payload == payload(0)).count() as u64;
    let shard_bytes = image.extents.len() as u64 * geometry().extent_bytes();
    assert!(again <= 2 + shard_bytes / entries[0].bytes, "one group was given {again} times");
}
