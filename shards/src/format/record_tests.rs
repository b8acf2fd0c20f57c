#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]
use super::*;
use crate::ids::StoreId;
use proptest::prelude::*;

const GENERATION: Generation = Generation(3);
const BYTE: u64 = (64 << 20) + 4096 + 128;

fn store_seed() -> StoreSeed {
    StoreSeed::new(StoreId(*b"records of tests"))
}

fn seed() -> u32 {
    store_seed().record_seed(GENERATION, BYTE)
}

fn sealed(payload: &[u8], kind: RecordKind, flags: u8, seed: u32) -> Vec<u8> {
    let mut bytes = vec![0xee; 8];
    bytes.extend_from_slice(payload);
    seal_record(&mut bytes, kind, RecordFlags::from_bits(flags).unwrap(), seed);
    bytes
}

fn body_of(payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut body = Vec::new();
    for payload in payloads {
        let seed = store_seed().record_seed(GENERATION, BYTE + body.len() as u64);
        body.extend(sealed(payload, RecordKind::DATA, 0, seed));
        body.resize(body.len().next_multiple_of(8), 0);
    }
    body
}

proptest! {
    #[test]
    fn a_record_comes_back_as_it_was(
        payload in proptest::collection::vec(any::<u8>(), 0..2000),
        kind in 1u8..32,
        flags in 0u8..8,
        behind in proptest::collection::vec(any::<u8>(), 0..50),
    ) {
        let kind = RecordKind::from_code(kind).unwrap();
        let mut bytes = sealed(&payload, kind, flags, seed());
        bytes.extend(behind);
        let view = check_record(&bytes, seed()).unwrap();
        prop_assert_eq!((view.kind, view.flags.bits(), view.payload), (kind, flags, payload.as_slice()));
        let header = RecordHeader::peek(&bytes).unwrap();
        prop_assert_eq!((header.length as usize, header.kind), (payload.len(), kind));
        prop_assert_eq!(view.stride(), record_bytes(payload.len() as u64));
    }

    #[test]
    fn a_body_comes_back_record_by_record(
        payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
    ) {
        let body = body_of(&payloads);
        prop_assert_eq!(summarise_body(&body).unwrap().records as usize, payloads.len());
        let read: Vec<Vec<u8>> =
            records(&body, store_seed(), GENERATION, BYTE).map(|record| record.unwrap().1.payload.to_vec()).collect();
        prop_assert_eq!(read, payloads);
    }

    #[test]
    fn random_bytes_are_no_records_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), seed: u32) {
        prop_assert!(check_record(&bytes, seed).is_err());
        let _ = summarise_body(&bytes);
        prop_assert!(records(&bytes, store_seed(), GENERATION, BYTE).count() <= 1);
    }
}

#[test]
fn every_single_flipped_bit_of_a_record_is_seen() {
    for length in [0, 1, 7, 8, 64, 100] {
        let good = sealed(&vec![0x5a; length], RecordKind::DATA, 0, seed());
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            // The bytes go on, so that a longer length finds something to read.
            bytes.resize(1 << 10, 0);
            assert!(check_record(&bytes, seed()).is_err(), "bit {bit} of a record of {length} bytes");
        }
    }
}

#[test]
fn a_record_is_good_only_in_its_place_its_generation_and_its_store() {
    let bytes = sealed(b"payload", RecordKind::DATA, 0, seed());
    let other_store = StoreSeed::new(StoreId([9; 16]));
    for wrong in [
        store_seed().record_seed(GENERATION, BYTE + 8),
        store_seed().record_seed(Generation(4), BYTE),
        other_store.record_seed(GENERATION, BYTE),
    ] {
        assert!(matches!(check_record(&bytes, wrong), Err(RecordError::Checksum { .. })));
    }
}

#[test]
fn zeros_are_absent_and_a_cut_record_says_what_it_needs() {
    assert_eq!(check_record(&[0; 64], 0), Err(RecordError::Absent));
    let bytes = sealed(&[1; 100], RecordKind::DATA, 0, seed());
    assert_eq!(check_record(&bytes[..50], seed()), Err(RecordError::Truncated { needed: 108, found: 50 }));
    assert_eq!(check_record(&bytes[..7], seed()), Err(RecordError::Truncated { needed: 8, found: 7 }));
}

#[test]
fn a_hole_or_an_overrun_in_a_body_is_malformed() {
    let body = body_of(&[vec![1; 20], vec![2; 20]]);
    let mut hole = body.clone();
    hole[32..].fill(0);
    assert_eq!(summarise_body(&hole), Err(MalformedFrame { offset: 32, body_bytes: 64 }));
    assert!(summarise_body(&body[..56]).is_err());
    assert_eq!(summarise_body(&[]).unwrap().records, 0);
}

/// Cleaning thought that extents of many small records needed room for copies of the checkpoints between them, and left
/// them alone until the store was full.
#[test]
fn what_is_a_copy_is_told_by_kind_and_flags_and_by_nothing_else() {
    // A scan once made up a header without a length to ask this of a record that it had taken apart.
    let flags = |bits| RecordFlags::from_bits(bits).unwrap();
    for (kind, bits) in (1..32).flat_map(|code| (0..8).map(move |bits| (code, bits))) {
        let expected = match (RecordKind::from_code(kind).unwrap(), flags(bits)) {
            // Later versions may give flags to it; it stays a copy.
            (RecordKind::MOVED, _) => true,
            (RecordKind::LARGE_MANIFEST, flags) => flags == RecordFlags::MOVED,
            _ => false,
        };
        assert_eq!(RecordKind::from_code(kind).unwrap().is_copy(flags(bits)), expected, "{kind}, {bits}");
        for payload in [&b""[..], b"some bytes"] {
            let bytes = sealed(payload, RecordKind::from_code(kind).unwrap(), bits, seed());
            assert_eq!(RecordHeader::peek(&bytes).unwrap().is_copy(), expected, "{kind}, {bits}");
        }
    }
}

#[test]
fn the_longest_is_one_that_cleaning_would_copy() {
    let mut body = body_of(&[vec![1; 24], vec![2; 20]]);
    assert_eq!(summarise_body(&body).unwrap().contents.longest, 24);
    body.extend(sealed(&[4; 1000], RecordKind::CONTROL, 0, seed()));
    body.extend(sealed(&[0; 2000], RecordKind::PADDING, 0, seed()));
    assert_eq!(summarise_body(&body).unwrap().contents.longest, 24);
    body.extend(sealed(&[5; 40], RecordKind::MOVED, 0, seed()));
    assert_eq!(summarise_body(&body).unwrap().contents.longest, 40);
}

#[test]
fn the_digest_tells_a_record_that_was_swapped_for_another_good_one() {
    let ours = body_of(&[vec![1; 24], vec![2; 24]]);
    let theirs = body_of(&[vec![1; 24], vec![3; 24]]);
    let (ours, theirs) = (summarise_body(&ours).unwrap(), summarise_body(&theirs).unwrap());
    assert_eq!(ours.records, theirs.records);
    assert_ne!(ours.digest, theirs.digest);
}
