//! The global allocator: which shard owns which extent, and how often each was claimed.
//!
//! One atomic word per extent. A claim is one compare-exchange, made once per extent and never per append; it is
//! durable through the extent header that the claiming shard writes before the first frame goes into the extent.

use crate::{
    geometry::Geometry,
    ids::{ExtentIndex, ExtentOrdinal, Generation, ShardId},
    mutant::{self, Mutant},
    sync::{AtomicU64, Ordering},
};

const GENERATION_BITS: u32 = 32;
const SHARD_SHIFT: u32 = GENERATION_BITS;
const SHARD_BITS: u32 = 16;
const USE_SHIFT: u32 = SHARD_SHIFT + SHARD_BITS;

/// What an extent is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[repr(u8)]
pub enum ExtentUse {
    /// Nobody's.
    Free = 0,
    /// A shard's.
    Claimed = 1,
    /// Not to be used: its header is damaged, so its past is unknown.
    Quarantined = 2,
}

/// A snapshot of one extent's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentEntry {
    /// Free, claimed or quarantined.
    pub usage: ExtentUse,
    /// Who owns it, or owned it last.
    pub shard: ShardId,
    /// How often it was claimed.
    pub generation: Generation,
}

impl ExtentEntry {
    const fn to_bits(self) -> u64 {
        self.generation.0 as u64 | (self.shard.0 as u64) << SHARD_SHIFT | (self.usage as u64) << USE_SHIFT
    }

    const fn from_bits(bits: u64) -> Self {
        Self {
            usage: match bits >> USE_SHIFT {
                0 => ExtentUse::Free,
                1 => ExtentUse::Claimed,
                _ => ExtentUse::Quarantined,
            },
            shard: ShardId((bits >> SHARD_SHIFT) as u16),
            generation: Generation(bits as u32),
        }
    }
}

/// An extent that a claim won.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Which.
    pub extent: ExtentIndex,
    /// The generation that this claim began.
    pub generation: Generation,
}

/// The owners of all extents of a store.
#[derive(Debug)]
pub struct ExtentTable {
    geometry: Geometry,
    entries: Box<[AtomicU64]>,
    /// Position in its shard's sequence, valid while claimed.
    ordinals: Box<[AtomicU64]>,
    /// Bytes of records that are no longer wanted, of this claim.
    dead: Box<[AtomicU64]>,
    free: AtomicU64,
    /// Free extents that only control records and cleaning may claim.
    reserve: AtomicU64,
}

impl ExtentTable {
    /// A table of `count` extents, all free and never claimed.
    #[must_use]
    pub fn new(geometry: Geometry, count: u32) -> Self {
        let zeros = || (0..count).map(|_| AtomicU64::new(0)).collect();
        let dead = (0..count).map(|_| AtomicU64::new(0)).collect();
        let (free, reserve) = (AtomicU64::new(u64::from(count)), AtomicU64::new(0));
        Self { geometry, entries: zeros(), ordinals: zeros(), dead, free, reserve }
    }

    /// Keeps so many extents free from ordinary appends.
    pub fn set_reserve(&self, extents: u64) {
        self.reserve.store(extents, Ordering::Relaxed);
    }

    /// Free extents that ordinary appends do not get.
    #[must_use]
    pub fn reserve(&self) -> u64 {
        self.reserve.load(Ordering::Relaxed)
    }

    /// Free extents that ordinary appends may claim, as of a moment ago.
    #[must_use]
    pub fn free_for_appends(&self) -> u64 {
        self.free_count().saturating_sub(self.reserve())
    }

    /// Counts bytes of records in a claimed extent that are no longer wanted. Lost at a crash, as far as no
    /// checkpoint lists them.
    pub fn note_dead(&self, extent: ExtentIndex, bytes: u64) {
        if let Some(dead) = self.dead.get(extent.0 as usize) {
            dead.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Bytes of records in an extent that were noted as no longer wanted, in this claim.
    #[must_use]
    pub fn dead_bytes(&self, extent: ExtentIndex) -> u64 {
        self.dead.get(extent.0 as usize).map_or(0, |dead| dead.load(Ordering::Relaxed))
    }

    /// Sets what recovery found. Only while the store is being opened.
    pub fn restore_dead(&self, extent: ExtentIndex, bytes: u64) {
        if let Some(dead) = self.dead.get(extent.0 as usize) {
            dead.store(bytes, Ordering::Relaxed);
        }
    }

    /// Slot and extent size.
    #[must_use]
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Extents of the store.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.entries.len() as u32
    }

    /// True if the store has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Extents that nobody owns, as of a moment ago.
    #[must_use]
    pub fn free_count(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// What is known of an extent; `None` if the store has no such extent.
    #[must_use]
    pub fn get(&self, extent: ExtentIndex) -> Option<ExtentEntry> {
        let word = self.entries.get(extent.0 as usize)?;
        Some(ExtentEntry::from_bits(word.load(Ordering::Acquire)))
    }

    /// The generation of an extent that the caller knows to be claimed.
    #[inline]
    pub(crate) fn generation(&self, extent: ExtentIndex) -> Generation {
        // Relaxed: a writer holds a buffer whose base is in the extent, and learned of it through an acquire.
        Generation(self.entries[extent.0 as usize].load(Ordering::Relaxed) as u32)
    }

    /// Position of a claimed extent in its shard's sequence.
    #[must_use]
    pub fn ordinal(&self, extent: ExtentIndex) -> Option<ExtentOrdinal> {
        Some(ExtentOrdinal(self.ordinals.get(extent.0 as usize)?.load(Ordering::Acquire)))
    }

    /// Sets what recovery found. Only while the store is being opened.
    pub fn restore(&self, extent: ExtentIndex, entry: ExtentEntry, ordinal: ExtentOrdinal) {
        let index = extent.0 as usize;
        let before = ExtentEntry::from_bits(self.entries[index].swap(entry.to_bits(), Ordering::AcqRel));
        self.ordinals[index].store(ordinal.0, Ordering::Release);
        match (before.usage, entry.usage) {
            (ExtentUse::Free, ExtentUse::Claimed | ExtentUse::Quarantined) => {
                self.free.fetch_sub(1, Ordering::Relaxed);
            }
            (ExtentUse::Claimed | ExtentUse::Quarantined, ExtentUse::Free) => {
                self.free.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    /// Where shard `shard` of `shards` looks first: its home region.
    #[must_use]
    pub fn home(&self, shard: ShardId, shards: u32) -> ExtentIndex {
        let share = u64::from(self.len()) / u64::from(shards.max(1));
        ExtentIndex((share * (u64::from(shard.0) % u64::from(shards.max(1)))) as u32)
    }

    /// Claims the first free extent at or after `from`, going round once. `None`: the store is full.
    pub fn claim(&self, shard: ShardId, ordinal: ExtentOrdinal, from: ExtentIndex) -> Option<Claim> {
        let count = self.len();
        (0..count).map(|step| ExtentIndex((from.0 % count + step) % count)).find_map(|extent| {
            let claim = self.try_claim(shard, extent)?;
            self.dead[extent.0 as usize].store(0, Ordering::Relaxed);
            self.ordinals[extent.0 as usize].store(ordinal.0, Ordering::Release);
            Some(claim)
        })
    }

    fn try_claim(&self, shard: ShardId, extent: ExtentIndex) -> Option<Claim> {
        let word = &self.entries[extent.0 as usize];
        let seen = word.load(Ordering::Acquire);
        let entry = ExtentEntry::from_bits(seen);
        if entry.usage != ExtentUse::Free {
            return None;
        }
        // After four billion claims an extent retires: a generation that begins again would make old records good.
        let raise = u32::from(entry.generation.0 == 0 || !mutant::is_active(Mutant::ResurrectedExtent));
        let generation = Generation(entry.generation.0.checked_add(raise)?);
        let claimed = ExtentEntry { usage: ExtentUse::Claimed, shard, generation }.to_bits();
        if mutant::is_active(Mutant::ClaimNotAtomic) {
            word.store(claimed, Ordering::Release);
        } else {
            // Acquire pairs with the release of `free`: the last owner is done. Losing means that another shard has
            // it; the caller goes on to the next.
            word.compare_exchange(seen, claimed, Ordering::AcqRel, Ordering::Relaxed).ok()?;
        }
        self.free.fetch_sub(1, Ordering::Relaxed);
        Some(Claim { extent, generation })
    }

    /// Takes an extent from its owner without giving it to anybody: while it is being discarded. [`ExtentTable::free`]
    /// ends that.
    pub(crate) fn withdraw(&self, extent: ExtentIndex) {
        let word = &self.entries[extent.0 as usize];
        let entry = ExtentEntry::from_bits(word.load(Ordering::Relaxed));
        word.store(ExtentEntry { usage: ExtentUse::Quarantined, ..entry }.to_bits(), Ordering::Release);
    }

    /// Gives an extent back. The freeing is durable already: a record in its shard's log says so.
    pub fn free(&self, extent: ExtentIndex) {
        let word = &self.entries[extent.0 as usize];
        let entry = ExtentEntry::from_bits(word.load(Ordering::Relaxed));
        debug_assert_ne!(entry.usage, ExtentUse::Free, "{extent:?} freed twice");
        let freed = ExtentEntry { usage: ExtentUse::Free, ..entry }.to_bits();
        word.store(freed, Ordering::Release);
        if mutant::is_active(Mutant::FreeBeforeDone) {
            word.store(freed, Ordering::Release);
        }
        self.free.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(all(test, loom))]
#[path = "extents_loom_tests.rs"]
mod loom_tests;

#[cfg(all(test, not(loom)))]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn table(count: u32) -> ExtentTable {
        ExtentTable::new(Geometry::new(4096, 1 << 20).unwrap(), count)
    }

    #[test]
    fn a_claim_raises_the_generation_and_a_full_table_says_so() {
        let table = table(3);
        let claims: Vec<_> =
            (0..3).map(|i| table.claim(ShardId(0), ExtentOrdinal(i), ExtentIndex(1)).unwrap()).collect();
        assert_eq!(claims.iter().map(|c| c.extent.0).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(table.claim(ShardId(1), ExtentOrdinal(0), ExtentIndex(0)), None);
        assert_eq!(table.free_count(), 0);
        table.free(ExtentIndex(2));
        let again = table.claim(ShardId(1), ExtentOrdinal(0), ExtentIndex(0)).unwrap();
        assert_eq!(again, Claim { extent: ExtentIndex(2), generation: Generation(2) });
        assert_eq!(table.get(ExtentIndex(2)).unwrap().shard, ShardId(1));
    }

    /// The generation of a free extent was forged (or used up): claimed once more, it wrapped to 0, which no header
    /// may say, and the next open refused the extent with all its records.
    #[test]
    fn an_extent_whose_generations_are_used_up_is_not_claimed() {
        let table = table(2);
        let used_up =
            ExtentEntry { usage: ExtentUse::Free, shard: ShardId(0), generation: Generation(u32::MAX) };
        table.restore(ExtentIndex(0), used_up, ExtentOrdinal(0));
        let claim = |table: &ExtentTable| table.claim(ShardId(0), ExtentOrdinal(0), ExtentIndex(0));
        assert_eq!(claim(&table).unwrap().extent, ExtentIndex(1));
        assert_eq!(claim(&table), None);
    }

    #[test]
    fn homes_are_spread_over_the_store() {
        let table = table(100);
        assert_eq!((0..4).map(|s| table.home(ShardId(s), 4).0).collect::<Vec<_>>(), [0, 25, 50, 75]);
        assert_eq!(table.home(ShardId(9), 4).0, 25, "a shard beyond the count still has a home");
    }

    #[test]
    fn threads_that_claim_at_once_never_share_an_extent() {
        let table = table(200);
        let claimed: Vec<Vec<u32>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|shard| {
                    let table = &table;
                    scope.spawn(move || {
                        std::iter::from_fn(|| table.claim(ShardId(shard), ExtentOrdinal(0), ExtentIndex(0)))
                            .map(|claim| claim.extent.0)
                            .collect()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut all: Vec<u32> = claimed.concat();
        all.sort_unstable();
        assert_eq!(all, (0..200).collect::<Vec<_>>());
    }
}
