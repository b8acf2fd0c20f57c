//! Runs loom models: each must hold, and must break once its mutant is planted.

use crate::{mutant::Mutant, twins::breaks_with};
use std::cell::Cell;

/// Forced switches between threads that a schedule may have. Two find every bug planted here.
const PREEMPTIONS: usize = 2;
/// Steps of one schedule; a model that takes more does not end.
const STEPS: usize = 20_000;

std::thread_local! {
    static OTHERS_START: Cell<bool> = const { Cell::new(false) };
}

/// Explores the model twice: with its own thread in front, and with the spawned ones. Loom goes back to the last
/// access of an atomic only; a load that another thread repeats before it writes is hidden from it in one order and
/// found in the other.
fn explore(model: impl Fn() + Copy + Sync + Send + 'static) {
    for others_start in [true, false] {
        OTHERS_START.set(others_start);
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound.get_or_insert(PREEMPTIONS);
        builder.max_branches = STEPS;
        builder.check(model);
    }
}

/// To be called by a model once its threads are spawned.
pub(crate) fn started() {
    if OTHERS_START.get() {
        loom::thread::yield_now();
    }
}

/// Every schedule of the model keeps its assertions, without a race.
pub(crate) fn holds(model: impl Fn() + Copy + Sync + Send + 'static) {
    explore(model);
}

/// The broken twin: with the mutant planted some schedule fails, and for the reason named.
pub(crate) fn breaks(mutant: Mutant, reason: &str, model: impl Fn() + Copy + Sync + Send + 'static) {
    breaks_with(mutant, reason, || explore(model));
}
