//! Loom models of the watermarks: who waits is woken.

use super::{Mark, Patience, RoomWaiters};
use crate::{
    ids::FrameNumber,
    models::{breaks, holds, started},
    mutant::Mutant,
};
use loom::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};
use std::{
    sync::{Arc, atomic},
    task::{Wake, Waker},
};

/// Plain: it is looked at when all threads are done.
#[derive(Default)]
struct Flag(atomic::AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, atomic::Ordering::SeqCst);
    }
}

impl Flag {
    fn is_set(&self) -> bool {
        self.0.load(atomic::Ordering::SeqCst)
    }
}

/// Would have found a ticket that waits for ever, because its frame arrived between its look at the mark and its
/// registration.
fn publish_against_register() {
    let mark = Arc::new(Mark::new(FrameNumber(0)));
    let owner = {
        let mark = Arc::clone(&mark);
        thread::spawn(move || mark.publish(FrameNumber(1), &mut Vec::new()))
    };
    started();
    let flag = Arc::new(Flag::default());
    let has_arrived = mark.register(FrameNumber(0), &Waker::from(Arc::clone(&flag)));
    assert!(!has_arrived || mark.has(FrameNumber(0)), "told of what has not arrived");
    owner.join().unwrap();
    assert!(has_arrived || flag.is_set(), "never woken");
}

#[test]
fn loom_publish_against_register() {
    holds(publish_against_register);
    breaks(Mutant::WaiterWithoutSecondLook, "never woken", publish_against_register);
}

/// Would have found a thread that sleeps for ever: whoever moved the mark, or ended it, saw nobody asleep yet, and it did not see that.
fn sleep_against(ends: bool) {
    let mark = Arc::new(Mark::new(FrameNumber(0)));
    let has_ended = Arc::new(AtomicBool::new(false));
    let owner = {
        let (mark, has_ended) = (Arc::clone(&mark), Arc::clone(&has_ended));
        thread::spawn(move || {
            if ends {
                has_ended.store(true, Ordering::Release);
                mark.wake_all();
            } else {
                let _told = mark.publish(FrameNumber(1), &mut Vec::new());
            }
        })
    };
    started();
    let has_arrived = mark.wait(FrameNumber(0), Patience::default(), || has_ended.load(Ordering::Acquire));
    assert_eq!(has_arrived, !ends, "it arrives unless nothing does any more");
    owner.join().unwrap();
}

#[test]
fn loom_publish_against_sleep() {
    holds(|| sleep_against(false));
    breaks(Mutant::SleepersCountedEarly, "deadlock", || sleep_against(false));
}

#[test]
fn loom_end_against_sleep() {
    holds(|| sleep_against(true));
    breaks(Mutant::SleepersCountedEarly, "deadlock", || sleep_against(true));
}

/// Would have found an append that waits for room for ever, because the room was made between its try and its
/// registration.
fn room_against_register() {
    let room = Arc::new(RoomWaiters::default());
    let has_room = Arc::new(AtomicBool::new(false));
    let owner = {
        let (room, has_room) = (Arc::clone(&room), Arc::clone(&has_room));
        thread::spawn(move || {
            has_room.store(true, Ordering::Release);
            room.publish(&mut Vec::new());
        })
    };
    started();
    let flag = Arc::new(Flag::default());
    let seen = room.changes();
    let is_refused = !has_room.load(Ordering::Acquire);
    let has_changed = is_refused && room.register(seen, &Waker::from(Arc::clone(&flag)));
    assert!(!has_changed || has_room.load(Ordering::Acquire), "called back for nothing");
    owner.join().unwrap();
    assert!(!is_refused || has_changed || flag.is_set(), "never woken");
}

#[test]
fn loom_room_against_register() {
    holds(room_against_register);
    breaks(Mutant::WaiterWithoutSecondLook, "never woken", room_against_register);
}
