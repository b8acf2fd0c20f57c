//! Loom models of the bell: no wake-up is lost, and none is made twice.

use super::{Bell, Wakeup};
use crate::{
    ids::FrameNumber,
    models::{breaks, holds, started},
    mutant::Mutant,
    watermark::Mark,
};
use loom::{
    sync::{
        Condvar, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};
use std::{
    sync::Arc,
    task::{Wake, Waker},
};

/// The kernel's part: a count of wakes that a sleeper waits for.
#[derive(Default)]
struct Sleep {
    wakes: Mutex<u32>,
    rang: Condvar,
}

impl Sleep {
    /// Sleeps until it is woken, and says how often that was. A wake that is lost shows as a deadlock.
    fn sleep(&self) -> u32 {
        let mut wakes = self.wakes.lock().unwrap();
        while *wakes == 0 {
            wakes = self.rang.wait(wakes).unwrap();
        }
        *wakes
    }
}

impl Wakeup for Sleep {
    fn wake(&self) {
        *self.wakes.lock().unwrap() += 1;
        self.rang.notify_one();
    }
}

/// Would have found a core that sleeps although work was given to it while it lay down.
fn wake_against_parking() {
    let sleep = Arc::new(Sleep::default());
    let bell = Arc::new(Bell::new(sleep.clone()));
    let work = Arc::new(AtomicU32::new(0));
    let giver = {
        let (bell, work) = (Arc::clone(&bell), Arc::clone(&work));
        thread::spawn(move || {
            work.store(1, Ordering::Relaxed);
            bell.ring();
        })
    };
    started();
    if bell.may_sleep(|| work.load(Ordering::Relaxed) != 0) {
        assert_eq!(sleep.sleep(), 1);
        bell.awake();
    }
    assert_eq!(work.load(Ordering::Relaxed), 1, "woken for nothing");
    giver.join().unwrap();
}

#[test]
fn loom_wake_against_parking() {
    holds(wake_against_parking);
    breaks(Mutant::RingWithoutFence, "deadlock", wake_against_parking);
    breaks(Mutant::SleepWithoutSecondLook, "deadlock", wake_against_parking);
}

/// Would have found a sleep that is paid for with a system call by each of those who ring.
fn two_who_ring_wake_once() {
    let sleep = Arc::new(Sleep::default());
    let bell = Arc::new(Bell::new(sleep.clone()));
    assert!(bell.may_sleep(|| false));
    let others: Vec<_> = (0..2)
        .map(|_| {
            let bell = Arc::clone(&bell);
            thread::spawn(move || bell.ring())
        })
        .collect();
    started();
    sleep.sleep();
    others.into_iter().for_each(|other| other.join().unwrap());
    assert_eq!(*sleep.wakes.lock().unwrap(), 1, "woken more than once");
}

#[test]
fn loom_two_who_ring_wake_once() {
    holds(two_who_ring_wake_once);
    breaks(Mutant::WakePerRing, "woken more than once", two_who_ring_wake_once);
}

/// Would have found a frame that somebody waits for and whose owner sleeps: the wish is written without order, the
/// bell's fences alone make it visible.
fn want_against_parking() {
    let sleep = Arc::new(Sleep::default());
    let bell = Arc::new(Bell::new(sleep.clone()));
    let mark = Arc::new(Mark::new(FrameNumber(0)));
    let waiter = {
        let (bell, mark) = (Arc::clone(&bell), Arc::clone(&mark));
        thread::spawn(move || {
            if mark.want(FrameNumber(0)) {
                bell.ring();
            }
        })
    };
    started();
    let is_wanted = || mark.wanted() > FrameNumber(0);
    if bell.may_sleep(is_wanted) {
        sleep.sleep();
        bell.awake();
    }
    assert!(is_wanted(), "woken for nothing");
    waiter.join().unwrap();
}

#[test]
fn loom_want_against_parking() {
    holds(want_against_parking);
    breaks(Mutant::RingWithoutFence, "deadlock", want_against_parking);
}

/// A core that is a task of an executor: its waker, beside the kernel's sleeper that nobody may wake then.
#[derive(Default)]
struct Task(Sleep);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        Wakeup::wake(&self.0);
    }
}

/// Would have found a core on an executor that nobody polls again although work was given to it, twice.
fn wake_against_a_parking_task() {
    let kernel = Arc::new(Sleep::default());
    let bell = Arc::new(Bell::new(kernel.clone()));
    let work = Arc::new(AtomicU32::new(0));
    let givers: Vec<_> = (0..2)
        .map(|_| {
            let (bell, work) = (Arc::clone(&bell), Arc::clone(&work));
            thread::spawn(move || {
                work.fetch_add(1, Ordering::Relaxed);
                bell.ring();
            })
        })
        .collect();
    started();
    let mut seen = 0;
    while seen < 2 {
        let task = Arc::new(Task::default());
        bell.leave_waker(&Waker::from(Arc::clone(&task)));
        if bell.may_sleep(|| work.load(Ordering::Relaxed) > seen) {
            assert_eq!(task.0.sleep(), 1, "woken more than once");
            bell.awake();
        }
        bell.forget_waker();
        seen = work.load(Ordering::Relaxed);
    }
    givers.into_iter().for_each(|giver| giver.join().unwrap());
}

#[test]
fn loom_wake_against_a_parking_task() {
    holds(wake_against_a_parking_task);
    breaks(Mutant::RingWithoutFence, "deadlock", wake_against_a_parking_task);
    breaks(Mutant::SleepWithoutSecondLook, "deadlock", wake_against_a_parking_task);
}
