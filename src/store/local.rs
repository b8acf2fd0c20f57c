//! Which shard is local to the calling thread.

use corelog_shards::ids::{CoreId, ShardId};
use std::cell::Cell;

/// Appends after which a thread looks again at the CPU it runs on.
const LOOK_AGAIN: u32 = 256;

#[derive(Clone, Copy)]
struct Near {
    store: usize,
    shard: ShardId,
    left: u32,
}

std::thread_local! {
    /// The store and core that this thread drives, if it does.
    static DRIVEN: Cell<Option<(usize, CoreId)>> = const { Cell::new(None) };
    static NEAR: Cell<Near> = const { Cell::new(Near { store: 0, shard: ShardId(0), left: 0 }) };
}

/// Notes that the calling thread drives a core.
#[inline]
pub(super) fn drives(store: usize, core: CoreId) {
    DRIVEN.with(|driven| driven.set(Some((store, core))));
}

/// The core is gone.
pub(super) fn drives_no_more(store: usize, core: CoreId) {
    let _thread_is_ending = DRIVEN.try_with(|driven| {
        if driven.get() == Some((store, core)) {
            driven.set(None);
        }
    });
}

/// The core of `store` that the calling thread drives.
#[inline]
pub(super) fn driven_core(store: usize) -> Option<CoreId> {
    DRIVEN.with(|driven| driven.get().filter(|(other, _)| *other == store).map(|(_, core)| core))
}

/// The shard that a thread without a core found last, found again by `find` (given the CPU it runs on) from time to
/// time.
#[inline]
pub(super) fn near_shard(store: usize, find: impl FnOnce(usize) -> ShardId) -> ShardId {
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
