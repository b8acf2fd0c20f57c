//! Loom models of the ring: the shipped types under every schedule of two or three threads.
//!
//! Each model says what it would have found had rule 4 of the design been broken (a buffer is submitted once, when
//! sealed and without writers; seal, slot choice and hand-over are one step), and is run again with a bug planted.

use super::{
    Refusal, Ring,
    owner::CopyOut,
    reservation::Placed,
    state::{AtomicState, Committed, FrameTag, Reserved, Sealing},
    testing::{Driver, Shape, append},
};
use crate::{
    ids::FrameNumber,
    limits::FRAME_HEADER_BYTES,
    models::{breaks, holds, started},
    mutant::Mutant,
    sync::{AtomicBool, Ordering},
};
use loom::thread;
use std::sync::Arc;

const RACE: &str = "Causality violation";
const LARGE: usize = Shape::TINY_LARGE;
const SMALL: usize = Shape::TINY_SMALL;

fn payload(byte: u8, length: usize) -> Vec<u8> {
    vec![byte; length]
}

fn spawn_append(ring: &Arc<Ring>, byte: u8, length: usize) -> thread::JoinHandle<Result<Placed, Refusal>> {
    let ring = Arc::clone(ring);
    let spawned = thread::spawn(move || append(&ring, &payload(byte, length)));
    started();
    spawned
}

/// Would have found a buffer that is flushed while a writer copies into it: its bytes race with the flush, or the
/// record is missing from the frame.
fn commit_against_seal() {
    let mut driver = Driver::new(Shape::TINY);
    let writer = spawn_append(&driver.ring(), 1, SMALL);
    let _empty_or_sealed = driver.ring().seal();
    driver.submit();
    let placed = writer.join().unwrap().expect("there is room");
    driver.drain();
    driver.check(&[(placed, payload(1, SMALL))]);
}

#[test]
fn loom_commit_against_seal() {
    holds(commit_against_seal);
    breaks(Mutant::FlushIgnoresWriters, RACE, commit_against_seal);
    breaks(Mutant::CommitRelaxed, RACE, commit_against_seal);
}

/// Would have found two threads that both believe to have crossed the end, a record that is stored twice or not at
/// all, and a frame that begins where another lies.
fn two_crossing_reservations() {
    let mut driver = Driver::new(Shape::TINY);
    let ring = driver.ring();
    let first = append(&ring, &payload(1, LARGE)).expect("the ring is empty");
    let other = spawn_append(&ring, 2, LARGE);
    let own = append(&ring, &payload(3, LARGE)).expect("there is room");
    let other = other.join().unwrap().expect("there is room");
    driver.drain();
    driver.check(&[(first, payload(1, LARGE)), (other, payload(2, LARGE)), (own, payload(3, LARGE))]);
}

#[test]
fn loom_two_crossing_reservations() {
    holds(two_crossing_reservations);
    breaks(Mutant::RotateReusesBase, "unreadable", two_crossing_reservations);
    breaks(Mutant::CrossingForgotten, "lost", two_crossing_reservations);
}

/// Would have found a sealed buffer that two parties hand to the owner, or nobody.
fn last_commit_against_explicit_seal() {
    let tag = FrameTag::of(0);
    let word = Arc::new(AtomicState::new(tag));
    assert_eq!(word.reserve(tag, 128, 896), Reserved::At { offset: 0 });
    let committer = {
        let word = Arc::clone(&word);
        thread::spawn(move || word.commit() == Committed::HandedOver)
    };
    started();
    let by_seal = word.seal(tag, false) == Sealing::Sealed { handed_over: true };
    let by_commit = committer.join().unwrap();
    assert!(by_seal != by_commit, "handed over by seal: {by_seal}, by commit: {by_commit}");
    assert_eq!(word.begin_flush(tag), Some(128));
}

#[test]
fn loom_last_commit_against_explicit_seal() {
    holds(last_commit_against_explicit_seal);
    breaks(Mutant::HandOverTwice, "handed over by seal: true", last_commit_against_explicit_seal);
}

/// Would have found a thread that reads the current position, sleeps through a whole turn of the ring, and reserves
/// in a buffer that holds another frame by then.
fn rotation_against_a_sleeping_reserver() {
    let mut driver = Driver::new(Shape { buffers: 2, buffer_bytes: 2048, ..Shape::TINY });
    let ring = driver.ring();
    let sleeper = spawn_append(&ring, 9, SMALL);
    let mut appended = Vec::new();
    for byte in 0..2 {
        if let Ok(placed) = append(&ring, &payload(byte, SMALL)) {
            appended.push((placed, payload(byte, SMALL)));
        }
        let _sealed_or_not = ring.seal();
        driver.offer();
        driver.submit();
        driver.complete();
    }
    if let Ok(placed) = sleeper.join().unwrap() {
        appended.push((placed, payload(9, SMALL)));
    }
    driver.drain();
    driver.check(&appended);
}

#[test]
fn loom_rotation_against_a_sleeping_reserver() {
    holds(rotation_against_a_sleeping_reserver);
    breaks(Mutant::ReserveIgnoresTag, "unreadable", rotation_against_a_sleeping_reserver);
}

/// Would have found a buffer that is opened again while somebody still owns bytes of its last turn, and one that a
/// late reserver of its last turn gets into.
fn recycle_against_a_late_writer() {
    let mut driver = Driver::new(Shape::TINY);
    let ring = driver.ring();
    let late = spawn_append(&ring, 1, SMALL);
    let own = append(&ring, &payload(2, SMALL)).expect("there is room");
    let _sealed = ring.seal();
    driver.submit();
    driver.complete();
    let late = late.join().unwrap().expect("there is room");
    driver.drain();
    driver.check(&[(late, payload(1, SMALL)), (own, payload(2, SMALL))]);
}

#[test]
fn loom_recycle_against_a_late_writer() {
    holds(recycle_against_a_late_writer);
    breaks(Mutant::RecycleKeepsTag, "told the wrong frame", recycle_against_a_late_writer);
    breaks(Mutant::FlushIgnoresWriters, RACE, recycle_against_a_late_writer);
}

/// Would have found a writer that is refused, although buffers are free, because the thread that sealed the current
/// one sleeps before it rotates.
fn rotation_is_finished_by_another() {
    let mut driver = Driver::new(Shape::TINY);
    let ring = driver.ring();
    let first = append(&ring, &payload(1, LARGE)).expect("the ring is empty");
    let sealer = {
        let ring = Arc::clone(&ring);
        thread::spawn(move || {
            let _sealed_or_before = ring.seal();
        })
    };
    started();
    let own = append(&ring, &payload(2, LARGE)).expect("buffers are free");
    sealer.join().unwrap();
    driver.drain();
    driver.check(&[(first, payload(1, LARGE)), (own, payload(2, LARGE))]);
}

#[test]
fn loom_rotation_is_finished_by_another_than_the_sealer() {
    holds(rotation_is_finished_by_another);
    breaks(Mutant::OnlySealerRotates, "buffers are free", rotation_is_finished_by_another);
}

/// Would have found an extent that two rotators both enter, one that is skipped, and one that is entered again.
fn spare_is_used_once() {
    // The first frame lies at the end of its extent.
    let mut driver = Driver::new(Shape { first_slot: 6, ..Shape::TINY });
    let ring = driver.ring();
    driver.offer();
    let first = append(&ring, &payload(1, LARGE)).expect("the ring is empty");
    let other = spawn_append(&ring, 2, LARGE);
    let own = append(&ring, &payload(3, LARGE)).expect("the spare is there");
    driver.offer();
    let other = other.join().unwrap().expect("the spare is there");
    driver.drain();
    driver.check(&[(first, payload(1, LARGE)), (other, payload(2, LARGE)), (own, payload(3, LARGE))]);
}

#[test]
fn loom_a_spare_extent_is_used_once_by_two_rotators() {
    holds(spare_is_used_once);
    breaks(Mutant::SpareUsedAgain, "unreadable", spare_is_used_again);
    holds(spare_is_used_again);
}

/// Would have found a ring that goes back to the start of the extent it fills, because no new spare is there yet.
fn spare_is_used_again() {
    let mut driver = Driver::new(Shape { first_slot: 6, ..Shape::TINY });
    let ring = driver.ring();
    driver.offer();
    let mut appended = Vec::new();
    let owner = spawn_append(&ring, 7, LARGE);
    for byte in 0..4 {
        if let Ok(placed) = append(&ring, &payload(byte, LARGE)) {
            appended.push((placed, payload(byte, LARGE)));
        }
        driver.submit();
        driver.complete();
    }
    if let Ok(placed) = owner.join().unwrap() {
        appended.push((placed, payload(7, LARGE)));
    }
    driver.drain();
    driver.check(&appended);
}

/// Would have found a record that is accepted by a closed ring and belongs to no frame.
fn close_against_reserve() {
    let mut driver = Driver::new(Shape::TINY);
    let writer = spawn_append(&driver.ring(), 1, SMALL);
    let last = driver.owner.close();
    driver.submit();
    let outcome = writer.join().unwrap();
    driver.drain();
    match outcome {
        Ok(placed) => {
            assert!(placed.frame <= last, "accepted behind the end");
            driver.check(&[(placed, payload(1, SMALL))]);
        }
        Err(refusal) => {
            assert_eq!(refusal, Refusal::Closed);
            driver.check(&[]);
        }
    }
}

#[test]
fn loom_close_against_reserve() {
    holds(close_against_reserve);
    breaks(Mutant::CloseWithoutSeal, "lost", close_against_reserve);
    breaks(Mutant::CloseSealsFirst, "lost", close_against_reserve);
}

/// Would have found a read from memory that sees bytes which a writer is copying.
fn copy_out_against_a_writer() {
    let mut driver = Driver::new(Shape::TINY);
    let ring = driver.ring();
    let first = append(&ring, &payload(1, SMALL)).expect("the ring is empty");
    let writer = spawn_append(&ring, 2, SMALL);
    let mut out = payload(0, 2 * SMALL);
    match driver.owner.copy_out(FrameNumber(0), FRAME_HEADER_BYTES + 8, &mut out[..SMALL + 8]) {
        CopyOut::Copied => assert!(out[..SMALL] == payload(1, SMALL), "read what was not committed"),
        CopyOut::Busy | CopyOut::Gone => {}
    }
    let second = writer.join().unwrap().expect("there is room");
    driver.drain();
    driver.check(&[(first, payload(1, SMALL)), (second, payload(2, SMALL))]);
}

#[test]
fn loom_copy_out_against_a_writer() {
    holds(copy_out_against_a_writer);
    breaks(Mutant::CopyIgnoresWriters, RACE, copy_out_against_a_writer);
}

/// Would have found a frame number that is 2^30 too high, because the position and what it is relative to are read
/// from two moments: a flush would wait for that frame for ever.
fn frame_number_while_the_ring_turns() {
    let mut driver = Driver::new(Shape::TINY);
    let ring = driver.ring();
    let reader = {
        let ring = Arc::clone(&ring);
        thread::spawn(move || ring.current_frame())
    };
    started();
    for byte in 0..3 {
        append(&ring, &payload(byte, SMALL)).expect("there is room");
        let _sealed = ring.seal();
        driver.offer();
        driver.submit();
        driver.complete();
    }
    let seen = reader.join().unwrap();
    assert!(seen <= FrameNumber(3), "the ring never stood at {seen:?}");
}

#[test]
fn loom_frame_number_while_the_ring_turns() {
    holds(frame_number_while_the_ring_turns);
    breaks(Mutant::OldestRelaxed, "never stood at", frame_number_while_the_ring_turns);
}

/// Would have found a flush that returns without waiting for what was accepted before it: another thread moves the
/// ring on between its two looks, and it takes the empty frame behind for proof that there is nothing to wait for.
fn flush_against_rotation() {
    let driver = Driver::new(Shape::TINY);
    let ring = driver.ring();
    let accepted = append(&ring, &payload(1, SMALL)).expect("the ring is empty");
    let sealer = {
        let ring = Arc::clone(&ring);
        thread::spawn(move || {
            let _sealed_or_before = ring.seal();
        })
    };
    started();
    let waits_for = ring.seal_accepted();
    assert!(waits_for >= Some(accepted.frame), "waits for {waits_for:?} only");
    sealer.join().unwrap();
}

#[test]
fn loom_flush_against_rotation() {
    holds(flush_against_rotation);
    breaks(Mutant::FlushLooksTwice, "waits for None only", flush_against_rotation);
}

/// Would have found a record that follows one behind the cut, and is in front of it: a thread appends to two rings, one
/// after the other, while another thread cuts them in the other order, or in the same.
fn cut_against_appends_to_two_rings() {
    let first = Driver::new(Shape::TINY);
    let second = Driver::sharing(Shape::TINY, &first.table);
    let rings = [first.ring(), second.ring()];
    let appender = {
        let rings = rings.clone();
        thread::spawn(move || rings.map(|ring| append(&ring, &payload(1, SMALL)).expect("there is room")))
    };
    started();
    let cuts = rings[0].extents.cuts();
    let frames = cuts.take(rings.iter().map(|ring| &**ring));
    let [before, after] = appender.join().unwrap();
    let (has_before, has_after) = (before.frame < frames[0], after.frame < frames[1]);
    assert!(has_before || !has_after, "the cut has what follows, and not what it follows: {frames:?}");
}

#[test]
fn loom_cut_against_appends_to_two_rings() {
    holds(cut_against_appends_to_two_rings);
    breaks(Mutant::CutWithoutHelp, "the cut has what follows", cut_against_appends_to_two_rings);
}

/// Would have found a record of the owner's in front of one that the owner had seen in the ring.
fn run_against_an_append() {
    let mut driver = Driver::new(Shape::TINY);
    // The first is a run of its own; the second has room for another behind it.
    let mut own =
        |byte| (driver.owner.append(&payload(byte, SMALL)).expect("there is room"), payload(byte, SMALL));
    let mut appended = vec![own(1), own(2)];
    let is_there = Arc::new(AtomicBool::new(false));
    let other = {
        let (ring, is_there) = (driver.ring(), Arc::clone(&is_there));
        thread::spawn(move || {
            let placed = append(&ring, &payload(9, SMALL)).expect("there is room");
            is_there.store(true, Ordering::Release);
            placed
        })
    };
    started();
    let saw = is_there.load(Ordering::Acquire);
    let last = driver.owner.append(&payload(3, SMALL)).expect("there is room");
    appended.push((last, payload(3, SMALL)));
    let other = other.join().unwrap();
    assert!(!saw || other.address.byte() < last.address.byte(), "in front of what its owner had seen");
    appended.push((other, payload(9, SMALL)));
    driver.drain();
    driver.check(&appended);
}

#[test]
fn loom_run_against_an_append() {
    holds(run_against_an_append);
    breaks(Mutant::RunIgnoresOthers, "in front of what", run_against_an_append);
    breaks(Mutant::RunNotPadded, "unreadable", run_against_an_append);
}

/// Would have found a record that follows one behind the cut, and is in front of it, in room that was taken before.
fn cut_against_a_run() {
    let first = Driver::new(Shape::TINY);
    let mut second = Driver::sharing(Shape::TINY, &first.table);
    let rings = [first.ring(), second.ring()];
    let appender = {
        let ring = first.ring();
        thread::spawn(move || {
            let mut own = || second.owner.append(&payload(1, SMALL)).expect("there is room");
            let _to_take_room = [own(), own()];
            let before = append(&ring, &payload(1, SMALL)).expect("there is room");
            let after = own();
            second.owner.end_run();
            [before, after]
        })
    };
    started();
    let cuts = rings[0].extents.cuts();
    let frames = cuts.take(rings.iter().map(|ring| &**ring));
    let [before, after] = appender.join().unwrap();
    let (has_before, has_after) = (before.frame < frames[0], after.frame < frames[1]);
    assert!(has_before || !has_after, "the cut has what follows, and not what it follows: {frames:?}");
}

#[test]
fn loom_cut_against_a_run() {
    holds(cut_against_a_run);
    breaks(Mutant::RunIgnoresOthers, "the cut has what follows", cut_against_a_run);
}

/// Would have found a frame that is flushed while the owner writes into it, and one that is never handed over.
fn run_against_seal() {
    let mut driver = Driver::new(Shape::TINY);
    let mut own =
        |byte| (driver.owner.append(&payload(byte, SMALL)).expect("there is room"), payload(byte, SMALL));
    let mut appended = vec![own(1), own(2)];
    let sealer = {
        let ring = driver.ring();
        thread::spawn(move || _ = ring.seal())
    };
    started();
    appended.push((driver.owner.append(&payload(3, SMALL)).expect("there is room"), payload(3, SMALL)));
    sealer.join().unwrap();
    driver.drain();
    driver.check(&appended);
}

#[test]
fn loom_run_against_seal() {
    holds(run_against_seal);
    breaks(Mutant::RunNotPadded, "unreadable", run_against_seal);
}
