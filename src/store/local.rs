//! Which core is local to the calling thread.

use corelog_shards::ids::CoreId;
use std::cell::{Cell, RefCell};

/// Appends and reads after which a thread looks again at the CPU it runs on.
const LOOK_AGAIN: u32 = 256;

/// Fields of their own, since all but one stay as they are: read together behind a write of one, they would have to wait
/// until that has left the processor's core, and whatever is in front of it.
struct Near {
    store: Cell<u64>,
    core: Cell<CoreId>,
    left: Cell<u32>,
}

std::thread_local! {
    /// The store and core that this thread turned last, if it drives any.
    static DRIVEN: Cell<Option<(u64, CoreId)>> = const { Cell::new(None) };
    /// All that it drives, of any store.
    static ALL_DRIVEN: RefCell<Vec<(u64, CoreId)>> = const { RefCell::new(Vec::new()) };
    static NEAR: Near =
        const { Near { store: Cell::new(0), core: Cell::new(CoreId(0)), left: Cell::new(0) } };
}

/// Notes that the calling thread drives a core.
#[inline]
pub(super) fn drives(store: u64, core: CoreId) {
    if DRIVEN.get() != Some((store, core)) {
        drives_another(store, core);
    }
}

#[cold]
fn drives_another(store: u64, core: CoreId) {
    DRIVEN.set(Some((store, core)));
    ALL_DRIVEN.with_borrow_mut(|all| {
        if !all.contains(&(store, core)) {
            all.push((store, core));
        }
    });
}

/// The core is gone.
pub(super) fn drives_no_more(store: u64, core: CoreId) {
    let _thread_is_ending = ALL_DRIVEN.try_with(|all| {
        let mut all = all.borrow_mut();
        all.retain(|driven| *driven != (store, core));
        if DRIVEN.get() == Some((store, core)) {
            DRIVEN.set(all.last().copied());
        }
    });
}

/// The core of `store` that the calling thread drives; of several, the one that it turned last.
#[inline]
pub(super) fn driven_core(store: u64) -> Option<CoreId> {
    let (last_store, core) = DRIVEN.get()?;
    if last_store == store { Some(core) } else { driven_core_of_several(store) }
}

#[cold]
fn driven_core_of_several(store: u64) -> Option<CoreId> {
    let of_store = |all: &Vec<(u64, CoreId)>| all.iter().rev().find(|(other, _)| *other == store).copied();
    ALL_DRIVEN.with_borrow(of_store).map(|(_, core)| core)
}

/// The core that a thread without one found last, found again by `find` (given the CPU it runs on) from time to time.
#[inline]
pub(super) fn near_core(store: u64, find: impl FnOnce(usize) -> CoreId) -> CoreId {
    NEAR.with(|near| {
        let mut left = near.left.get();
        if near.store.get() != store || left == 0 {
            near.store.set(store);
            near.core.set(find(rustix::thread::sched_getcpu()));
            left = LOOK_AGAIN;
        }
        near.left.set(left - 1);
        near.core.get()
    })
}
