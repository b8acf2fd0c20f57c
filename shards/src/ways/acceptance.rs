//! Ways 1 to 4, 7 and 13: what was accepted is stored, once, and by nobody else overwritten.

use super::{LARGE, Options, World};
use crate::{
    device::Verb,
    format::record::{RecordFlags, RecordKind},
    mutant::Mutant,
    twins::proves,
    watermark::Durability,
};
use std::sync::{Arc, atomic::Ordering};

#[test]
fn the_record_that_crosses_the_end_is_stored() {
    // Way 1: the record that triggers the seal was reported as stored and was stored nowhere.
    let scenario = || {
        let mut world = World::open(Options::default());
        let records = [1, 2, 3].map(|byte| (world.append(&[byte; LARGE]), [byte; LARGE]));
        world.ask(Durability::Durable);
        world.turns();
        records.iter().for_each(|(placed, bytes)| world.expect(*placed, bytes));
    };
    proves(scenario, Mutant::CrossingForgotten, "lost");
}

#[test]
fn a_frame_with_a_writer_is_not_submitted() {
    // Way 2: the sealing thread submitted the buffer while another was copying: acknowledged bytes were zero.
    let scenario = || {
        let mut world = World::open(Options::default());
        let shard = Arc::clone(&world.shard);
        let mut slow = shard.try_reserve(100).unwrap();
        world.ask(Durability::Durable);
        world.turns();
        assert_eq!(shard.counters().frames.load(Ordering::Relaxed), 0, "submitted early");
        assert_eq!(shard.failure(), None, "its frame was looked at early");
        slow.payload_mut().fill(7);
        let placed = slow.commit(RecordKind::DATA, RecordFlags::NONE);
        world.turns();
        assert!(world.has(placed, Durability::Durable));
        world.expect(placed, &[7; 100]);
    };
    proves(scenario, Mutant::FlushIgnoresWriters, "its frame was looked at early");
}

#[test]
fn a_slow_writer_keeps_its_buffer() {
    // Way 3: a recycled buffer handed out bytes that a slow writer of its last turn still owned.
    let scenario = || {
        let mut world = World::open(Options::default());
        let shard = Arc::clone(&world.shard);
        let mut slow = shard.try_reserve(100).unwrap();
        let mut accepted = Vec::new();
        for _ in 0..3 {
            accepted.extend(world.fill(&[1; LARGE]));
            world.turns();
        }
        assert_eq!(accepted.len(), 4, "one beside the slow writer, and one for each other buffer");
        slow.payload_mut().fill(7);
        let placed = slow.commit(RecordKind::DATA, RecordFlags::NONE);
        world.ask(Durability::Durable);
        world.turns();
        world.expect(placed, &[7; 100]);
        accepted.into_iter().for_each(|placed| world.expect(placed, &[1; LARGE]));
    };
    proves(scenario, Mutant::FlushIgnoresWriters, "damaged in memory");
}

#[test]
fn a_dropped_reservation_holds_nothing_up() {
    // Way 4: a dropped reservation left the writer count raised for ever, and the buffer was never flushed.
    let scenario = || {
        let mut world = World::open(Options::default());
        drop(world.shard.try_reserve(100).unwrap());
        let placed = world.append_durably(b"behind a void");
        world.expect(placed, b"behind a void");
    };
    proves(scenario, Mutant::DropKeepsWriter, "never durable");
}

#[test]
fn a_full_ring_goes_on_with_the_first_completion() {
    // Way 7: no buffer was free at the moment of rotation: the sealed one was never left, and the ring was wedged
    // although completions arrived.
    let scenario = || {
        let mut world = World::open(Options::default());
        world.hold(Verb::Write);
        let mut accepted = world.fill(&[1; LARGE]);
        assert_eq!(accepted.len(), 4);
        world.turns();
        let held = world.control.held();
        assert!(world.control.release(held[0].id));
        world.turns();
        accepted.push(world.append(&[1; LARGE]));
        world.let_go(Verb::Write);
        world.ask(Durability::Durable);
        world.turns();
        accepted.into_iter().for_each(|placed| world.expect(placed, &[1; LARGE]));
    };
    proves(scenario, Mutant::RotationForgotten, "refused");
}

#[test]
fn a_reservation_lends_its_range_and_no_more() {
    // Way 13: a payload longer than its reservation overwrote its neighbour.
    let scenario = || {
        let mut world = World::open(Options::default());
        let shard = Arc::clone(&world.shard);
        let mut reservation = shard.try_reserve(8).unwrap();
        let mut neighbour = shard.try_reserve(9).unwrap();
        neighbour.payload_mut()[..9].copy_from_slice(b"neighbour");
        let neighbour = neighbour.commit(RecordKind::DATA, RecordFlags::NONE);
        reservation.payload_mut().fill(0xFF);
        let placed = reservation.commit(RecordKind::DATA, RecordFlags::NONE);
        world.ask(Durability::Durable);
        world.turns();
        assert_eq!(shard.failure(), None, "the neighbour's header is damaged");
        world.expect(placed, &[0xFF; 8]);
        world.expect(neighbour, b"neighbour");
    };
    proves(scenario, Mutant::GuardTooLong, "damaged");
}

#[test]
#[should_panic(expected = "length")]
fn a_longer_payload_does_not_fit_into_the_guard() {
    let world = World::open(Options::default());
    world.shard.try_reserve(8).unwrap().payload_mut().copy_from_slice(&[0; 9]);
}
