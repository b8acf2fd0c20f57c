//! Retiring shards: they take no appends any more, and what is in them is read, and trimmed away.

use super::{Store, grow::Devices, superblocks::unix_ns};
use crate::{
    error::RetireError,
    router::{Route, shard_of_key},
};
use corelog_shards::{
    ids::ShardId,
    opening::{retiring_superblock, write_superblock},
};
use std::sync::{PoisonError, atomic::Ordering};

/// Further hashes of a key whose shards are all retired.
const TRIES: u64 = 64;
/// The odd number next to 2^64 by the golden ratio: its multiples are far from each other.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Store {
    /// Retires a shard for good, durably: it takes no appends any more, now and after each reopen. Appends to it by its
    /// id are [`crate::AppendError::Retired`], and so are batches and large records under way in it, but for batches
    /// over several shards that were decided. All other routes pass it by: keys that led to it are dealt out to the
    /// others, and stay where they are from then on; keys that led elsewhere stay. An append that was called before this
    /// returned may still get in.
    ///
    /// What the shard holds stays, and is read, scanned, trimmed and released as before; [`Store::drain_shard`] empties
    /// it. A shard that no core needs costs its ring's memory.
    ///
    /// One shard has to stay. An open that asks for more cores than there are shards that take appends makes new ones.
    pub fn retire_shard(&self, shard: ShardId) -> Result<(), RetireError> {
        if let Some(core) = self.driven_core() {
            return Err(RetireError::OnCoreThread { core });
        }
        let assembly = &self.inner.assembly;
        let last = (self.shards().len() as u16).saturating_sub(1);
        let shared = self.shard(shard).ok_or(RetireError::NoSuchShard { shard, last })?;
        // A growth writes superblocks too, and adds devices between.
        let _one_at_a_time = assembly.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let files = assembly.devices();
        if files.is_empty() || self.directory().cores.iter().any(|core| core.is_forked()) {
            return Err(RetireError::Closed);
        }
        if shared.cold_of().is_some() {
            return Err(RetireError::Cold { shard });
        }
        if shared.is_retired() {
            return Ok(());
        }
        if self.shards().iter().filter(|shard| !shard.is_retired()).count() < 2 {
            return Err(RetireError::LastShard { shard });
        }
        // Whoever closes the store waits here for some writes.
        let mut current = assembly.current();
        if current.is_closed {
            return Err(RetireError::Closed);
        }
        let Some(superblock) = retiring_superblock(&current.superblock, shard, unix_ns()) else {
            return Err(RetireError::NoSuchShard { shard, last });
        };
        let devices = Devices { files: &files, failures: &assembly.opened.sync_failures };
        write_superblock(&superblock, &devices).inspect_err(|_| {
            // It may be on a device: the next one goes to the side that this one was written to.
            current.superblock.sequence = superblock.sequence + 1;
        })?;
        current.superblock = superblock;
        shared.retire();
        self.inner.has_retired.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// True if a shard takes no appends any more. `None`: there is no such shard.
    #[must_use]
    pub fn is_retired(&self, shard: ShardId) -> Option<bool> {
        self.shard(shard).map(|shard| shard.is_retired() && shard.cold_of().is_none())
    }

    /// The shard in a place among those that appends may be routed to.
    fn taker(&self, place: u32) -> ShardId {
        let mut takers = self.shards().iter().filter(|shard| shard.cold_of().is_none());
        takers.nth(place as usize).map_or(ShardId::default(), |shard| shard.id())
    }

    /// The cold shard of a shard, if it has one: what cleaning copies of the shard goes there, and so does what it copies of
    /// the cold shard itself. A cold shard is scanned, read and released as any other, takes no appends and no trims, and
    /// is passed by by all routes; it is emptied by cleaning alone, as what is in it is released.
    ///
    /// **What scans give.** Records move from a shard to its cold shard only while nobody scans either of them. So who
    /// begins the scans of both before the first of them ends gets each record once, as does [`Store::scan_all`]; and who
    /// holds cleaning ([`Store::hold_cleaning`]) from before the first to behind the last, as a backup does. Who scans
    /// the one after the other while cleaning is on may miss, or meet twice, what was moved between; the order of
    /// appends is kept within each of the two. As long as somebody reads, what is cleaned stays in its shard, as it does
    /// without cold shards.
    #[must_use]
    pub fn cold_shard_of(&self, shard: ShardId) -> Option<ShardId> {
        self.shards().iter().find(|it| it.cold_of() == Some(shard)).map(|it| it.id())
    }

    /// Where a route leads that led to a retired shard.
    #[cold]
    pub(super) fn pass_by(&self, route: Route, shard: ShardId) -> ShardId {
        let all = self.inner.takers;
        // What was chosen is a place among the takers; of them all are known to the core that was asked for.
        let shard = if route == Route::Local { shard } else { self.taker(u32::from(shard.0)) };
        let takes = |shard: &ShardId| self.shard(*shard).is_some_and(|shard| !shard.is_retired());
        if takes(&shard) {
            return shard;
        }
        let place =
            self.shards().iter().take(usize::from(shard.0)).filter(|it| it.cold_of().is_none()).count();
        let mut others = (1..all).map(|step| self.taker((place as u32 + step) % all));
        let passed = match route {
            // Each key has an order of shards of its own, so that retiring one moves those keys only that led to it.
            Route::Key(hash) => (1..=TRIES)
                .map(|again| shard_of_key(hash.wrapping_add(again.wrapping_mul(GOLDEN)), all))
                .map(|place| self.taker(u32::from(place.0)))
                .find(takes)
                .or_else(|| others.find(takes)),
            Route::Local => {
                let core = self.directory().runs_on.get(usize::from(shard.0)).copied().unwrap_or_default();
                let of_core = self.inner.local_shards.get(usize::from(core.0)).into_iter().flatten();
                of_core.copied().find(takes).or_else(|| others.find(takes))
            }
            Route::RoundRobin | Route::Shard(_) => others.find(takes),
        };
        passed.unwrap_or(shard)
    }
}
