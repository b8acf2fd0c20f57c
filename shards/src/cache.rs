//! Records that a core keeps in memory after it read them from the device, so that the next read of them asks nobody.
//!
//! A cache belongs to one core, and so do its locks, for which nobody waits long: threads look into that of the core which
//! reads for them. What it holds is only ever given together with a look at the extent table, so that it is never older than its extent.
//! Filled by single reads and `read_many` of what is on the device; a record that is still in a ring is not kept, for its
//! frame may yet fail, and it is in memory anyway. Why this crate and these sizes: decision 0027.

use crate::{
    address::Address,
    brief_lock::BriefLock,
    extents::{ExtentTable, ExtentUse},
    ids::Generation,
    limits::{CACHE_ENTRY_BYTES, CACHE_GHOST_SHARE, CACHE_PARTS, CACHE_RECORD_SHARE},
    memory::prefetch_to_read,
    mutant::{self, Mutant},
};
use bytes::Bytes;
use crossbeam_utils::CachePadded;
use quick_cache::{Options, OptionsBuilder, Weighter, sync::DefaultLifecycle, unsync::Cache};
use std::{
    fmt,
    hash::{BuildHasher, BuildHasherDefault, Hasher},
    sync::atomic::{AtomicU64, Ordering},
};

/// Figures of a cache since its store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheFigures {
    /// Looks that found the record.
    pub hits: u64,
    /// Looks that did not.
    pub misses: u64,
    /// What it holds, in bytes: payloads, and for each [`CACHE_ENTRY_BYTES`].
    pub bytes: u64,
}

/// A record, and when it was one.
#[derive(Clone)]
struct Record {
    payload: Bytes,
    /// All of it: an address has 18 bits, which come again.
    generation: Generation,
}

/// The records that one core keeps.
pub struct RecordCache {
    parts: [CachePadded<Part>; CACHE_PARTS],
    record_bytes_max: usize,
    /// Looks that found a lock taken.
    turned_away: CachePadded<AtomicU64>,
}

/// A part of them, and its figures: written only while its lock is held, so that counting takes no atomic step.
struct Part {
    held: BriefLock<Held>,
    hits: AtomicU64,
    misses: AtomicU64,
    bytes: AtomicU64,
}

type Held = Cache<Address, Record, Charge, BuildHasherDefault<OfAddress>, DefaultLifecycle<Address, Record>>;

impl RecordCache {
    /// A cache of `budget_bytes` of memory, everything counted. It takes them as it fills. `None`: a budget of 0.
    #[must_use]
    pub fn new(budget_bytes: u64) -> Option<Self> {
        // What was let go of lately is remembered, by its hash, in entries of the same size.
        let ghosts = budget_bytes / CACHE_GHOST_SHARE / CACHE_ENTRY_BYTES;
        let parts = CACHE_PARTS as u64;
        let options = OptionsBuilder::new()
            .ghost_allocation(0.5)
            .estimated_items_capacity((2 * ghosts / parts) as usize)
            .weight_capacity((budget_bytes - ghosts * CACHE_ENTRY_BYTES) / parts)
            .build()
            .ok()
            .filter(|_| budget_bytes > 0)?;
        Some(Self {
            parts: std::array::from_fn(|_| CachePadded::new(Part::new(options.clone()))),
            record_bytes_max: (budget_bytes / CACHE_RECORD_SHARE) as usize,
            turned_away: CachePadded::default(),
        })
    }

    /// The record at `address`, if it is held and its extent has not been freed since. The bytes are shared, not copied;
    /// nothing is allocated.
    #[inline]
    #[must_use]
    pub fn get(&self, extents: &ExtentTable, address: Address) -> Option<Bytes> {
        let part = self.part(address);
        let found = part.held.try_with(|held| {
            let Some(record) = held.get(&address) else {
                add_one(&part.misses);
                return None;
            };
            // The bytes and their count of references lie apart; both are far away, and are fetched at a time.
            prefetch_to_read(&record.payload);
            // Behind the look into the cache: the record was there when this found its extent unchanged.
            if !is_current(extents, address, record.generation) {
                part.forget(held, address);
                return None;
            }
            add_one(&part.hits);
            Some(record.payload.clone())
        });
        found.unwrap_or_else(|| self.turn_away())
    }

    #[cold]
    fn turn_away(&self) -> Option<Bytes> {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Keeps a record that was read from the device, and checked, while its extent had this generation; unless it is too
    /// long, or somebody is at work there.
    pub fn keep(&self, address: Address, generation: Generation, payload: &Bytes) {
        if payload.len() > self.record_bytes_max {
            return;
        }
        let record = Record { payload: payload.clone(), generation };
        let part = self.part(address);
        // What makes room for it is let go of when others can look again.
        let mut pushed_out = [None, None];
        let _read_again_if_busy = part.held.try_with(|held| {
            held.insert_with_lifecycle(address, record, &mut pushed_out);
            part.bytes.store(held.weight(), Ordering::Relaxed);
        });
    }

    #[inline]
    fn part(&self, address: Address) -> &Part {
        // Bits that neither choose a place in the part's table nor tell neighbours there from each other.
        &self.parts[(hash_of(address) >> 40) as usize % CACHE_PARTS]
    }

    /// Lets go of everything.
    pub(crate) fn clear(&self) {
        for part in &self.parts {
            // Who is at work there is done soon, unless the host put it aside; then this part goes with the cache.
            let _goes_with_the_cache = part.held.try_with(|held| {
                held.clear();
                part.bytes.store(0, Ordering::Relaxed);
            });
        }
    }

    /// Its figures. Takes no lock.
    #[must_use]
    pub fn figures(&self) -> CacheFigures {
        let sum = |figure: fn(&Part) -> &AtomicU64| {
            self.parts.iter().map(|part| figure(part).load(Ordering::Relaxed)).sum::<u64>()
        };
        CacheFigures {
            hits: sum(|part| &part.hits),
            misses: sum(|part| &part.misses) + self.turned_away.load(Ordering::Relaxed),
            bytes: sum(|part| &part.bytes),
        }
    }
}

impl Part {
    fn new(options: Options) -> Self {
        let lifecycle = DefaultLifecycle::default();
        Self {
            held: BriefLock::new(Held::with_options(
                options,
                Charge,
                BuildHasherDefault::default(),
                lifecycle,
            )),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// Removes a record that was found to be of a freed extent.
    #[cold]
    fn forget(&self, held: &mut Held, address: Address) {
        add_one(&self.misses);
        drop(held.remove(&address));
        self.bytes.store(held.weight(), Ordering::Relaxed);
    }
}

/// Only for who holds the lock that the counter belongs to.
#[inline]
fn add_one(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

#[inline]
fn hash_of(address: Address) -> u64 {
    BuildHasherDefault::<OfAddress>::default().hash_one(address)
}

#[inline]
fn is_current(extents: &ExtentTable, address: Address, generation: Generation) -> bool {
    if mutant::is_active(Mutant::CachedPastReuse) {
        return true;
    }
    let entry = extents.get(address.extent(extents.geometry()));
    entry.is_some_and(|entry| entry.usage == ExtentUse::Claimed && entry.generation == generation)
}

impl fmt::Debug for RecordCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordCache").field("figures", &self.figures()).finish_non_exhaustive()
    }
}

/// What an entry counts for.
#[derive(Clone)]
struct Charge;

impl Weighter<Address, Record> for Charge {
    fn weight(&self, _address: &Address, held: &Record) -> u64 {
        held.payload.len() as u64 + CACHE_ENTRY_BYTES
    }
}

/// Spreads addresses, most of which differ in a few low bits, over all bits of a hash: the halves of a product, folded.
#[derive(Default)]
struct OfAddress(u64);

impl Hasher for OfAddress {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        unreachable!("an address is hashed as one number, not as {} bytes", bytes.len())
    }

    fn write_u64(&mut self, address: u64) {
        // 2^64 divided by the golden ratio.
        let product = u128::from(address) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

#[cfg(all(test, not(loom)))]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{
        geometry::Geometry,
        ids::{ExtentIndex, ExtentOrdinal, ShardId},
    };

    fn table() -> ExtentTable {
        ExtentTable::new(Geometry::new(4096, 1 << 20).unwrap(), 4)
    }

    fn claim(extents: &ExtentTable) -> Generation {
        extents.claim(ShardId(0), ExtentOrdinal(0), ExtentIndex(0)).unwrap().generation
    }

    #[test]
    fn a_record_of_a_freed_extent_is_forgotten_also_when_the_extent_is_used_again() {
        let (extents, cache) = (table(), RecordCache::new(1 << 20).unwrap());
        let generation = claim(&extents);
        let address = Address::new(extents.geometry(), 4096, generation, 5);
        let payload = Bytes::from_static(b"bytes");
        assert_eq!(cache.get(&extents, address), None);
        cache.keep(address, generation, &payload);
        assert_eq!(cache.get(&extents, address), Some(payload.clone()));
        extents.free(ExtentIndex(0));
        assert_eq!(cache.get(&extents, address), None);
        assert_eq!(claim(&extents), Generation(2));
        assert_eq!(cache.get(&extents, address), None);
        let (hits, misses) = (cache.figures().hits, cache.figures().misses);
        assert_eq!((hits, misses, cache.figures().bytes), (1, 3, 0), "the look that found it old removed it");
    }

    /// An address has the low 18 bits of the generation: 262,144 claims later the same 64 bits name another record.
    #[test]
    fn an_address_that_comes_again_does_not_give_the_record_of_before() {
        let (extents, cache) = (table(), RecordCache::new(1 << 20).unwrap());
        let generation = claim(&extents);
        let address = Address::new(extents.geometry(), 4096, generation, 5);
        cache.keep(address, generation, &Bytes::from_static(b"before"));
        for _ in 0..1 << 18 {
            extents.free(ExtentIndex(0));
            claim(&extents);
        }
        let again = extents.get(ExtentIndex(0)).unwrap().generation;
        assert!(address.is_of(again) && again != generation);
        assert_eq!(cache.get(&extents, address), None);
        cache.keep(address, again, &Bytes::from_static(b"after"));
        assert_eq!(cache.get(&extents, address).unwrap(), "after");
    }

    #[test]
    fn long_records_are_not_kept_and_short_ones_make_room_for_each_other() {
        let (extents, budget) = (table(), 1 << 20);
        let cache = RecordCache::new(budget).unwrap();
        let generation = claim(&extents);
        let at = |index: u64| Address::new(extents.geometry(), 4096 + 8 * index, generation, 1000);
        cache.keep(at(0), generation, &Bytes::from(vec![1; (budget / CACHE_RECORD_SHARE) as usize + 1]));
        assert_eq!(cache.figures().bytes, 0);
        for index in 0..10_000 {
            cache.keep(at(index), generation, &Bytes::from(vec![1; 1000]));
            assert!(cache.figures().bytes <= budget);
        }
        assert!(cache.figures().bytes > budget / 10 * 9, "{:?}", cache.figures());
        cache.clear();
        assert_eq!(cache.figures().bytes, 0);
    }

    #[test]
    fn a_budget_of_nothing_is_no_cache_and_one_of_little_is_one() {
        assert!(RecordCache::new(0).is_none());
        for budget in [1, 100, 4096, 1 << 40] {
            let cache = RecordCache::new(budget).unwrap();
            cache.keep(Address::from_bits(8), Generation(1), &Bytes::from_static(b"x"));
            assert!(cache.figures().bytes <= budget);
        }
    }

    /// The parts of the cache, and the places in them, are chosen by few bits of the hash.
    #[test]
    fn addresses_of_neighbours_are_spread() {
        let geometry = Geometry::new(4096, 64 << 20).unwrap();
        for stride in [8, 16, 1032, 4096, 64 << 20] {
            let hash = |index: u64| {
                let mut hasher = OfAddress::default();
                std::hash::Hash::hash(
                    &Address::new(&geometry, index * stride, Generation(1), 8),
                    &mut hasher,
                );
                hasher.finish()
            };
            for (shift, name) in [(0, "low"), (32, "middle"), (40, "the part's"), (57, "high")] {
                let mut counts = [0_u32; 64];
                (0..6400).for_each(|index| counts[(hash(index) >> shift & 63) as usize] += 1);
                let worst = counts.iter().max().unwrap();
                assert!(*worst < 300, "{name} bits of a stride of {stride}: {worst} of 6400 in one of 64");
            }
        }
    }
}
