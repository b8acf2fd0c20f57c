//! Which shard is local to the calling thread.

use corelog_shards::ids::{CoreId, ShardId};
use std::cell::{Cell, RefCell};

/// Appends after which a thread looks again at the CPU it runs on.
const LOOK_AGAIN: u32 = 256;

#[derive(Clone, Copy)]
struct Near {
    store: u64,
    shard: ShardId,
    left: u32,
}

std::thread_local! {
    /// The store and core that this thread turned last, if it drives any.
    static DRIVEN: Cell<Option<(u64, CoreId)>> = const { Cell::new(None) };
    /// All that it drives, of any store.
    static ALL_DRIVEN: RefCell<Vec<(u64, CoreId)>> = const { RefCell::new(Vec::new()) };
    static NEAR: Cell<Near> = const { Cell::new(Near { store: 0, shard: ShardId(0), left: 0 }) };
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

/// The shard that a thread without a core found last, found again by `find` (given the CPU it runs on) from time to
/// time.
#[inline]
pub(super) fn near_shard(store: u64, find: impl FnOnce(usize) -> ShardId) -> ShardId {
    NEAR.with(|near| {
        let mut last = near.get();
        if last.store != store || last.left == 0 {
            last = Near { store, shard: find(rustix::thread::sched_getcpu()), left: LOOK_AGAIN };
        }
        last.left -= 1;
        near.set(last);
        last.shard
    })
}
