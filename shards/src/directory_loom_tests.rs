//! Loom models of a core's mailbox: who sends wakes, and no mail is left with the dead. The channel itself is not
//! explored; what is built around it is.

use super::{CoreHandle, Mail};
use crate::{
    ids::CoreId,
    models::{breaks, holds, started},
    mutant::Mutant,
    park::{Bell, Wakeup},
};
use loom::{
    sync::{Condvar, Mutex},
    thread,
};
use std::sync::Arc;

/// The kernel's part. A wake that is lost shows as a deadlock.
#[derive(Default)]
struct Sleep {
    is_woken: Mutex<bool>,
    rang: Condvar,
}

impl Sleep {
    fn sleep(&self) {
        let mut is_woken = self.is_woken.lock().unwrap();
        while !std::mem::take(&mut *is_woken) {
            is_woken = self.rang.wait(is_woken).unwrap();
        }
    }
}

impl Wakeup for Sleep {
    fn wake(&self) {
        *self.is_woken.lock().unwrap() = true;
        self.rang.notify_one();
    }
}

/// Would have found mail that lies in the box of a core that sleeps.
fn mail_against_parking() {
    let sleep = Arc::new(Sleep::default());
    let bell = Arc::new(Bell::new(sleep.clone()));
    let (handle, mailbox) = CoreHandle::new(CoreId(0), Arc::clone(&bell), 2);
    let sender = thread::spawn(move || handle.send(Mail::Panic).expect("there is room and the core lives"));
    started();
    if bell.may_sleep(|| !mailbox.is_empty()) {
        sleep.sleep();
        bell.awake();
    }
    assert!(mailbox.try_recv().is_ok(), "woken for nothing");
    sender.join().unwrap();
}

#[test]
fn loom_mail_against_parking() {
    holds(mail_against_parking);
    breaks(Mutant::RingWithoutFence, "deadlock", mail_against_parking);
    breaks(Mutant::SleepWithoutSecondLook, "deadlock", mail_against_parking);
}

/// Would have found mail that comes as the core ends and that nobody answers.
fn mail_against_the_end_of_its_core() {
    let (handle, mailbox) = CoreHandle::new(CoreId(0), Arc::new(Bell::new(Arc::new(Sleep::default()))), 2);
    let sender = {
        let handle = Arc::clone(&handle);
        thread::spawn(move || {
            let _taken_or_back = handle.send(Mail::Panic);
        })
    };
    started();
    handle.set_dead(true);
    sender.join().unwrap();
    assert!(mailbox.is_empty(), "mail is left");
}

#[test]
fn loom_mail_against_the_end_of_its_core() {
    holds(mail_against_the_end_of_its_core);
    breaks(Mutant::MailLeftByTheDead, "mail is left", mail_against_the_end_of_its_core);
}
