//! The global allocator: which shard owns which extent, and how often each was claimed.
//!
//! One atomic word per extent. A claim is one compare-exchange, made once per extent and never per append; it is
//! durable through the extent header that the claiming shard writes before the first frame goes into the extent.

use crate::{
    cut::Cuts,
    geometry::Geometry,
    ids::{ExtentIndex, ExtentOrdinal, Generation, ShardId},
    limits::REGIONS_MAX,
    mutant::{self, Mutant},
    sync::{AtomicU64, Ordering},
};
use std::sync::OnceLock;

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

/// What is known of one extent.
#[derive(Debug)]
struct Row {
    /// An [`ExtentEntry`].
    word: AtomicU64,
    /// Position in its shard's sequence, valid while claimed.
    ordinal: AtomicU64,
    /// Bytes of records that are no longer wanted, of this claim.
    dead: AtomicU64,
}

fn rows(count: u32) -> Box<[Row]> {
    let zero = || AtomicU64::new(0);
    (0..count).map(|_| Row { word: zero(), ordinal: zero(), dead: zero() }).collect()
}

/// Extents that came while the store was open.
#[derive(Debug)]
struct Grown {
    first: u32,
    rows: Box<[Row]>,
}

/// The owners of all extents of a store.
#[derive(Debug)]
pub struct ExtentTable {
    geometry: Geometry,
    /// The extents that the store was opened with; all that an append usually looks at.
    rows: Box<[Row]>,
    /// Those that came since, in the order in which they came.
    grown: Box<[OnceLock<Grown>]>,
    /// Extents that can be claimed.
    count: AtomicU64,
    free: AtomicU64,
    /// Free extents that only control records and cleaning may claim.
    reserve: AtomicU64,
    /// Here because all rings of a store share this table, and nothing else.
    cuts: Cuts,
}

impl ExtentTable {
    /// A table of `count` extents, all free and never claimed.
    #[must_use]
    pub fn new(geometry: Geometry, count: u32) -> Self {
        let (free, reserve) = (AtomicU64::new(u64::from(count)), AtomicU64::new(0));
        let grown = (0..REGIONS_MAX).map(|_| OnceLock::new()).collect();
        let counted = AtomicU64::new(u64::from(count));
        Self { geometry, rows: rows(count), grown, count: counted, free, reserve, cuts: Cuts::default() }
    }

    /// Adds extents behind the last one, all free and never claimed; the superblock that says so is durable. One
    /// caller at a time. False: it has grown too often since it was made.
    #[must_use]
    pub fn grow(&self, count: u32) -> bool {
        let first = self.len();
        let Some(place) = self.grown.iter().find(|place| place.get().is_none()) else { return false };
        let _free_by_the_search = place.set(Grown { first, rows: rows(count) });
        // Release pairs with the acquire of `len`: whoever counts them finds them.
        self.count.store(u64::from(first + count), Ordering::Release);
        self.free.fetch_add(u64::from(count), Ordering::Relaxed);
        true
    }

    #[inline]
    fn row(&self, extent: ExtentIndex) -> Option<&Row> {
        match self.rows.get(extent.0 as usize) {
            Some(row) => Some(row),
            None => self.grown_row(extent),
        }
    }

    #[cold]
    fn grown_row(&self, extent: ExtentIndex) -> Option<&Row> {
        let chunks = self.grown.iter().map_while(OnceLock::get);
        let chunk = chunks.take_while(|chunk| chunk.first <= extent.0).last()?;
        chunk.rows.get((extent.0 - chunk.first) as usize)
    }

    /// The row of an extent that is the store's.
    #[inline]
    fn known(&self, extent: ExtentIndex) -> &Row {
        match self.row(extent) {
            Some(row) => row,
            None => unreachable!("{extent:?} is none of the store's {}", self.len()),
        }
    }

    /// The cuts through all rings of the store.
    #[must_use]
    pub const fn cuts(&self) -> &Cuts {
        &self.cuts
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
        if let Some(row) = self.row(extent) {
            row.dead.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// So many bytes at least are no longer wanted: somebody looked. Gives what counts now.
    pub(crate) fn raise_dead(&self, extent: ExtentIndex, bytes: u64) -> u64 {
        self.row(extent).map_or(0, |row| row.dead.fetch_max(bytes, Ordering::Relaxed).max(bytes))
    }

    /// Bytes of records in an extent that were noted as no longer wanted, in this claim.
    #[must_use]
    pub fn dead_bytes(&self, extent: ExtentIndex) -> u64 {
        self.row(extent).map_or(0, |row| row.dead.load(Ordering::Relaxed))
    }

    /// Sets what recovery found. Only while the store is being opened.
    pub fn restore_dead(&self, extent: ExtentIndex, bytes: u64) {
        if let Some(row) = self.row(extent) {
            row.dead.store(bytes, Ordering::Relaxed);
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
        // Acquire pairs with the release of `grow`.
        self.count.load(Ordering::Acquire) as u32
    }

    /// True if the store has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Extents that nobody owns, as of a moment ago.
    #[must_use]
    pub fn free_count(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// What is known of an extent; `None` if the store has no such extent.
    #[inline]
    #[must_use]
    pub fn get(&self, extent: ExtentIndex) -> Option<ExtentEntry> {
        Some(ExtentEntry::from_bits(self.row(extent)?.word.load(Ordering::Acquire)))
    }

    /// The generation of an extent that the caller knows to be claimed.
    #[inline]
    pub(crate) fn generation(&self, extent: ExtentIndex) -> Generation {
        // Relaxed: a writer holds a buffer whose base is in the extent, and learned of it through an acquire.
        Generation(self.known(extent).word.load(Ordering::Relaxed) as u32)
    }

    /// Position of a claimed extent in its shard's sequence.
    #[must_use]
    pub fn ordinal(&self, extent: ExtentIndex) -> Option<ExtentOrdinal> {
        Some(ExtentOrdinal(self.row(extent)?.ordinal.load(Ordering::Acquire)))
    }

    /// Sets what recovery found. Only while the store is being opened.
    pub fn restore(&self, extent: ExtentIndex, entry: ExtentEntry, ordinal: ExtentOrdinal) {
        let row = self.known(extent);
        let before = ExtentEntry::from_bits(row.word.swap(entry.to_bits(), Ordering::AcqRel));
        row.ordinal.store(ordinal.0, Ordering::Release);
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
        let all = (0..count).map(|step| ExtentIndex((from.0 % count + step) % count));
        self.claim_one_of(all, shard, ordinal)
    }

    /// Claims the first of these that is free.
    pub(crate) fn claim_one_of(
        &self,
        mut extents: impl Iterator<Item = ExtentIndex>,
        shard: ShardId,
        ordinal: ExtentOrdinal,
    ) -> Option<Claim> {
        extents.find_map(|extent| {
            // One that is still being added is not there yet.
            let row = self.row(extent)?;
            let claim = Self::try_claim(&row.word, shard, extent)?;
            self.free.fetch_sub(1, Ordering::Relaxed);
            row.dead.store(0, Ordering::Relaxed);
            row.ordinal.store(ordinal.0, Ordering::Release);
            Some(claim)
        })
    }

    fn try_claim(word: &AtomicU64, shard: ShardId, extent: ExtentIndex) -> Option<Claim> {
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
        Some(Claim { extent, generation })
    }

    /// Takes an extent from its owner without giving it to anybody: while it is being discarded. [`ExtentTable::free`]
    /// ends that.
    pub(crate) fn withdraw(&self, extent: ExtentIndex) {
        let word = &self.known(extent).word;
        let entry = ExtentEntry::from_bits(word.load(Ordering::Relaxed));
        word.store(ExtentEntry { usage: ExtentUse::Quarantined, ..entry }.to_bits(), Ordering::Release);
    }

    /// Gives an extent back. The freeing is durable already: a record in its shard's log says so.
    pub fn free(&self, extent: ExtentIndex) {
        let word = &self.known(extent).word;
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

    /// Two growths, one of them of a single extent, beside what was there from the start.
    #[test]
    fn extents_that_come_later_are_claimed_freed_and_counted_like_the_others() {
        let table = table(2);
        assert!(table.grow(1) && table.grow(3));
        assert_eq!((table.len(), table.free_count()), (6, 6));
        assert_eq!(table.get(ExtentIndex(6)), None);
        let claim = |from| table.claim(ShardId(3), ExtentOrdinal(9), ExtentIndex(from)).unwrap().extent.0;
        assert_eq!([claim(2), claim(3), claim(5), claim(5)], [2, 3, 5, 0]);
        for extent in [2, 3, 5].map(ExtentIndex) {
            assert_eq!(table.get(extent).unwrap().shard, ShardId(3));
            assert_eq!(
                (table.generation(extent), table.ordinal(extent)),
                (Generation(1), Some(ExtentOrdinal(9)))
            );
        }
        table.note_dead(ExtentIndex(5), 7);
        assert_eq!((table.dead_bytes(ExtentIndex(5)), table.dead_bytes(ExtentIndex(4))), (7, 0));
        table.free(ExtentIndex(5));
        assert_eq!(table.free_count(), 3);
        (2..REGIONS_MAX).for_each(|_| assert!(table.grow(1)));
        assert!(!table.grow(1), "as often as a superblock has regions");
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
