//! Loom models of the lock that nobody waits for: one thread at a time is at its value, and sees what the last one did.

use super::BriefLock;
use crate::{
    models::{breaks, holds, started},
    mutant::Mutant,
};
use loom::thread;
use std::sync::Arc;

/// Would have found two threads at the value, or one that does not see what the other did to it: loom tells of the race.
fn two_at_the_value() {
    let lock = Arc::new(BriefLock::new(0));
    let add = |lock: &BriefLock<u64>| u64::from(lock.try_with(|value| *value += 1).is_some());
    let other = {
        let lock = Arc::clone(&lock);
        thread::spawn(move || add(&lock))
    };
    started();
    let own = add(&lock);
    let added = own + other.join().unwrap();
    assert!(added > 0, "both gave up");
    assert_eq!(lock.try_with(|value| *value), Some(added));
}

#[test]
fn loom_two_at_the_value() {
    holds(two_at_the_value);
    breaks(Mutant::BriefLockRelaxed, "Causality violation", two_at_the_value);
}
