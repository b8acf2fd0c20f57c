//! Tests of the ring without a device.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::{
    Refusal,
    reservation::Placed,
    state::Sealing,
    testing::{Driver, Shape, append},
};
use crate::{
    geometry::Geometry,
    ids::{ExtentIndex, ExtentOrdinal, FrameNumber, ShardId},
    limits::{BUFFER_BYTES_MAX, BUFFER_BYTES_MIN, FRAME_HEADER_BYTES},
};
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

const WRITERS: u64 = 4;

fn shape(buffer_bytes: u64) -> Shape {
    Shape {
        geometry: Geometry::new(4096, 16 << 20).unwrap(),
        buffer_bytes,
        buffers: 4,
        extents: 16,
        first_frame: 0,
        first_slot: 1,
    }
}

/// Bytes that name their writer and record, of a length that changes from record to record.
fn payload(writer: u64, record: u64, longest: u64) -> Vec<u8> {
    let mixed = (writer << 32 | record).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let length = (mixed >> 20) % longest;
    (0..length).map(|byte| (mixed.rotate_left((byte % 64) as u32) ^ byte) as u8).collect()
}

type Appended = Vec<(Placed, Vec<u8>)>;

/// Appends until done; every 16th reservation is dropped. Gives what was appended and how many were dropped.
fn write(driver_ring: &super::Ring, writer: u64, records: u64, longest: u64) -> (Appended, u32) {
    let (mut appended, mut dropped) = (Vec::new(), 0);
    for record in 0..records {
        let bytes = payload(writer, record, longest);
        loop {
            if record % 16 == 7 {
                if let Ok(mut reservation) = driver_ring.reserve(bytes.len()) {
                    reservation.payload_mut().fill(0xEE);
                    drop(reservation);
                    dropped += 1;
                    break;
                }
            } else if let Ok(placed) = append(driver_ring, &bytes) {
                appended.push((placed, bytes));
                break;
            }
            thread::yield_now();
        }
    }
    (appended, dropped)
}

/// Four writers against an owner that flushes, recycles and seals in between.
fn stress(shape: Shape, records: u64, longest: u64) {
    let mut driver = Driver::new(shape);
    let ring = driver.ring();
    let running = AtomicU32::new(WRITERS as u32);
    let outcomes: Vec<(Appended, u32)> = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (ring, running) = (&ring, &running);
                scope.spawn(move || {
                    let outcome = write(ring, writer, records, longest);
                    running.fetch_sub(1, Ordering::Release);
                    outcome
                })
            })
            .collect();
        let mut turns = 0_u64;
        while running.load(Ordering::Acquire) > 0 {
            turns += 1;
            let mut progress = driver.offer();
            progress |= driver.submit();
            progress |= driver.complete();
            if turns.is_multiple_of(64) {
                let _sealed_or_not = ring.seal();
            }
            if !progress {
                thread::yield_now();
            }
        }
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    driver.drain();
    let dropped: u32 = outcomes.iter().map(|(_, dropped)| dropped).sum();
    let appended: Appended = outcomes.into_iter().flat_map(|(appended, _)| appended).collect();
    let addresses: BTreeSet<u64> = appended.iter().map(|(placed, _)| placed.address.to_bits()).collect();
    assert_eq!(addresses.len(), appended.len(), "an address was given twice");
    assert_eq!(driver.voids(), dropped as usize, "each dropped reservation is one void record");
    let expected = driver.first_to_last();
    assert!(driver.frames.keys().copied().eq(expected), "frames follow each other without a hole");
    driver.check(&appended);
}

#[test]
fn what_four_writers_commit_is_in_one_frame_each_at_its_address() {
    stress(shape(BUFFER_BYTES_MIN), 20_000, 700);
}

#[test]
fn many_small_extents_are_crossed_in_order() {
    let geometry = Geometry::new(4096, 256 << 10).unwrap();
    stress(Shape { geometry, extents: 600, first_slot: 50, ..shape(BUFFER_BYTES_MIN) }, 20_000, 700);
}

#[test]
fn frame_tags_wrap_without_a_trace() {
    stress(Shape { first_frame: (1 << 30) - 50, ..shape(BUFFER_BYTES_MIN) }, 2_000, 2_000);
}

#[test]
fn records_that_fill_a_buffer_each_cross() {
    stress(shape(BUFFER_BYTES_MIN), 200, BUFFER_BYTES_MIN - FRAME_HEADER_BYTES - 7);
}

#[test]
fn the_shortest_and_the_longest_record_fit_and_one_byte_more_does_not() {
    for bytes in [BUFFER_BYTES_MIN, BUFFER_BYTES_MAX] {
        let mut driver = Driver::new(shape(bytes));
        let ring = driver.ring();
        let max = ring.payload_bytes_max();
        assert_eq!(max, bytes - FRAME_HEADER_BYTES - 8);
        let mut appended = Vec::new();
        for length in [0, 1, max, max - 1] {
            let _at_most_one_spare = driver.offer();
            let bytes: Vec<u8> = (0..length).map(|byte| (byte * 7 + length) as u8).collect();
            appended.push((append(&ring, &bytes).unwrap(), bytes));
        }
        assert_eq!(ring.reserve(max as usize + 1).unwrap_err(), Refusal::TooLarge { max });
        driver.drain();
        driver.check(&appended);
    }
}

#[test]
fn sealing_says_what_it_found() {
    let mut driver = Driver::new(shape(BUFFER_BYTES_MIN));
    let ring = driver.ring();
    assert_eq!(ring.seal(), Sealing::Empty);
    assert_eq!(ring.seal_accepted(), None, "nothing was ever accepted");
    let placed = append(&ring, b"one").unwrap();
    assert_eq!(ring.seal(), Sealing::Sealed { handed_over: true });
    assert_eq!(ring.seal(), Sealing::Empty, "the ring moved on");
    assert_eq!(ring.seal_accepted(), Some(placed.frame));
    let second = append(&ring, b"two").unwrap();
    assert_eq!(ring.seal_accepted(), Some(second.frame));
    driver.drain();
    driver.check(&[(placed, b"one".to_vec()), (second, b"two".to_vec())]);
}

#[test]
fn a_part_filled_frame_costs_less_than_a_slot() {
    let mut driver = Driver::new(shape(BUFFER_BYTES_MIN));
    let ring = driver.ring();
    let appended: Appended = (0..3)
        .map(|_| {
            let placed = append(&ring, &[7; 5000]).unwrap();
            let _sealed = ring.seal();
            (placed, vec![7; 5000])
        })
        .collect();
    driver.drain();
    driver.check(&appended);
    let bases: Vec<u64> = driver.frames.values().map(|frame| frame.base.0).collect();
    assert_eq!(bases, [1, 3, 5]);
}

#[test]
fn a_closed_ring_refuses_and_its_last_frame_is_flushed() {
    let mut driver = Driver::new(shape(BUFFER_BYTES_MIN));
    let ring = driver.ring();
    let placed = append(&ring, b"last").unwrap();
    assert_eq!(driver.owner.close(), placed.frame);
    assert_eq!(driver.owner.close(), placed.frame, "closing twice changes nothing");
    assert_eq!(append(&ring, b"late"), Err(Refusal::Closed));
    assert_eq!(ring.seal(), Sealing::AlreadySealed);
    assert_eq!(ring.seal_accepted(), Some(placed.frame));
    driver.drain();
    driver.check(&[(placed, b"last".to_vec())]);
    assert_eq!(ring.seal_accepted(), Some(placed.frame), "also when it was recycled");
}

#[test]
fn an_empty_closed_ring_has_nothing_to_wait_for() {
    let mut driver = Driver::new(Shape { first_frame: 9, ..shape(BUFFER_BYTES_MIN) });
    driver.owner.close();
    assert_eq!(driver.ring().seal_accepted(), Some(FrameNumber(8)), "frame 9 is empty and is never written");
}

/// The header of the next extent was on its way when the store was closed; its completion found a ring that needs no
/// spare, and the assertion about that killed the core in the middle of the close.
#[test]
fn a_spare_may_come_after_the_close() {
    let mut driver = Driver::new(shape(16 << 10));
    assert!(driver.offer());
    let _last = driver.owner.close();
    let claim = driver.table.claim(ShardId(0), ExtentOrdinal(2), ExtentIndex(0)).unwrap();
    driver.owner.offer_spare(claim);
}

#[test]
fn without_a_free_buffer_the_answer_is_exhausted_until_one_is_recycled() {
    let mut driver = Driver::new(shape(BUFFER_BYTES_MIN));
    let ring = driver.ring();
    let bytes = vec![5; ring.payload_bytes_max() as usize];
    let mut appended: Appended = (0..4).map(|_| (append(&ring, &bytes).unwrap(), bytes.clone())).collect();
    for _ in 0..3 {
        assert_eq!(append(&ring, b"more"), Err(Refusal::Exhausted));
    }
    while driver.submit() {}
    assert_eq!(append(&ring, b"more"), Err(Refusal::Exhausted), "submitted is not recycled");
    assert!(driver.complete());
    appended.push((append(&ring, b"more").unwrap(), b"more".to_vec()));
    driver.drain();
    driver.check(&appended);
}

#[test]
fn without_a_spare_extent_the_answer_is_no_extent_until_one_is_offered() {
    let geometry = Geometry::new(4096, 256 << 10).unwrap();
    // One buffer fits behind this slot.
    let mut driver = Driver::new(Shape { geometry, first_slot: 60, ..shape(BUFFER_BYTES_MIN) });
    let ring = driver.ring();
    let bytes = vec![5; ring.payload_bytes_max() as usize];
    let first = append(&ring, &bytes).unwrap();
    assert_eq!(append(&ring, &bytes), Err(Refusal::NoExtent));
    assert!(driver.submit(), "the full frame goes out all the same");
    assert!(!driver.complete(), "and its buffer stays until the ring can leave it");
    assert!(driver.offer());
    let second = append(&ring, &bytes).unwrap();
    assert_eq!(second.address.byte(), (256 << 10) + 4096 + FRAME_HEADER_BYTES);
    driver.drain();
    driver.check(&[(first, bytes.clone()), (second, bytes)]);
}

#[test]
fn more_writers_than_a_word_counts_go_to_the_next_buffer() {
    // The refusal that there was here is mended by no completion: an append that waited for room slept for ever.
    let mut driver = Driver::new(shape(BUFFER_BYTES_MAX));
    let ring = driver.ring();
    let held: Vec<_> = (0..1025).map(|_| ring.reserve(8).unwrap()).collect();
    assert_eq!(ring.current_frame(), FrameNumber(1));
    drop(held);
    driver.drain();
    assert_eq!(driver.voids(), 1025);
}
