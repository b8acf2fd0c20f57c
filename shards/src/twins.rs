//! Broken twins: a scenario that holds must fail once its bug is planted, or it proves nothing.

use crate::mutant::Mutant;
use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Once,
};

std::thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs a scenario with a bug planted. It has to fail, and for the reason named: its message contains `reason`.
pub(crate) fn breaks_with(mutant: Mutant, reason: &str, scenario: impl FnOnce()) {
    silence();
    IS_QUIET.set(true);
    let planted = mutant.plant();
    let outcome = catch_unwind(AssertUnwindSafe(scenario));
    drop(planted);
    IS_QUIET.set(false);
    let Err(panic) = outcome else { panic!("{mutant:?} was not found") };
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
    assert!(text.contains(reason), "{mutant:?} was found for another reason: {text}");
}

/// A scenario that holds, and whose twin does not.
#[cfg(not(loom))]
pub(crate) fn proves(scenario: impl Fn(), mutant: Mutant, reason: &str) {
    scenario();
    breaks_with(mutant, reason, scenario);
}

/// An expected failure prints nothing.
fn silence() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !IS_QUIET.get() {
                print(panic);
            }
        }));
    });
}
