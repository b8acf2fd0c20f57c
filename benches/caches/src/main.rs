//! Measures caches with the work that a read cache of corelog has: what a hit costs, how many of the reads of a skewed
//! load are hits, alone and with scans in between, and how much memory a budget comes to.
//!
//! `cargo run --release [-- NAME...]` prints a row for each; the figures that decided are in decision 0027.

use bytes::Bytes;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::{
    alloc::System,
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    hint::black_box,
    sync::Mutex,
    time::Instant,
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes of a record.
const RECORD: usize = 1024;
/// What a cache may hold, in bytes.
const BUDGET: u64 = 64 << 20;
/// What is charged for an entry beside its payload.
const OVERHEAD: u64 = 192;
/// Records of the store: four times what fits.
const RECORDS: u64 = 4 * BUDGET / RECORD as u64;
/// Reads of a skewed load.
const READS: u32 = 2_000_000;
/// Hits that are timed.
const HITS: u32 = 5_000_000;

/// Addresses are spread already but for their low bits: one multiplication mixes them.
#[derive(Default)]
struct OfAddress(u64);

impl Hasher for OfAddress {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, key: u64) {
        let wide = u128::from(key) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (wide >> 64) as u64 ^ wide as u64;
    }
}

type Mix = BuildHasherDefault<OfAddress>;

/// As corelog holds a record: with the generation of its extent.
#[derive(Clone)]
struct Held {
    payload: Bytes,
    generation: u32,
}

trait Cache: Sync {
    fn get(&self, key: u64) -> Option<Held>;
    fn put(&self, key: u64, held: Held);
    /// Does what is put off.
    fn settle(&self) {}
}

#[derive(Clone)]
struct Weight;

impl quick_cache::Weighter<u64, Held> for Weight {
    fn weight(&self, _: &u64, held: &Held) -> u64 {
        held.payload.len() as u64 + OVERHEAD
    }
}

struct Quick(quick_cache::sync::Cache<u64, Held, Weight, Mix>);

impl Quick {
    fn new(shards: usize) -> Self {
        let items = BUDGET as usize / RECORD;
        let options = quick_cache::OptionsBuilder::new()
            .shards(shards)
            .estimated_items_capacity(items / 2)
            .weight_capacity(BUDGET)
            .build()
            .expect("both capacities are given");
        Self(quick_cache::sync::Cache::with_options(options, Weight, Mix::default(), Default::default()))
    }
}

impl Cache for Quick {
    fn get(&self, key: u64) -> Option<Held> {
        self.0.get(&key)
    }

    fn put(&self, key: u64, held: Held) {
        self.0.insert(key, held);
    }
}

struct Moka(moka::sync::Cache<u64, Held, Mix>);

impl Moka {
    fn new() -> Self {
        let weigh = |_: &u64, held: &Held| (held.payload.len() as u64 + OVERHEAD) as u32;
        Self(
            moka::sync::Cache::builder()
                .weigher(weigh)
                .max_capacity(BUDGET)
                .build_with_hasher(Mix::default()),
        )
    }
}

impl Cache for Moka {
    fn get(&self, key: u64) -> Option<Held> {
        self.0.get(&key)
    }

    fn put(&self, key: u64, held: Held) {
        self.0.insert(key, held);
    }

    fn settle(&self) {
        self.0.run_pending_tasks();
    }
}

struct MiniMoka(mini_moka::sync::Cache<u64, Held, Mix>);

impl MiniMoka {
    fn new() -> Self {
        let weigh = |_: &u64, held: &Held| (held.payload.len() as u64 + OVERHEAD) as u32;
        let builder = mini_moka::sync::Cache::builder().weigher(weigh).max_capacity(BUDGET);
        Self(builder.build_with_hasher(Mix::default()))
    }
}

impl Cache for MiniMoka {
    fn get(&self, key: u64) -> Option<Held> {
        self.0.get(&key)
    }

    fn put(&self, key: u64, held: Held) {
        self.0.insert(key, held);
    }

    fn settle(&self) {
        use mini_moka::sync::ConcurrentCacheExt as _;
        self.0.sync();
    }
}

/// It counts entries, not bytes; all are of one length here.
struct Lru(Mutex<lru::LruCache<u64, Held, Mix>>);

impl Lru {
    fn new() -> Self {
        let entries = (BUDGET / (RECORD as u64 + OVERHEAD)) as usize;
        let entries = std::num::NonZeroUsize::new(entries).expect("the budget holds records");
        Self(Mutex::new(lru::LruCache::with_hasher(entries, Mix::default())))
    }
}

impl Cache for Lru {
    fn get(&self, key: u64) -> Option<Held> {
        self.0.lock().expect("nobody panics").get(&key).cloned()
    }

    fn put(&self, key: u64, held: Held) {
        self.0.lock().expect("nobody panics").put(key, held);
    }
}

/// The bound: a table that never lets go of anything, without a lock.
struct Table(HashMap<u64, Held, Mix>);

impl Cache for Table {
    fn get(&self, key: u64) -> Option<Held> {
        self.0.get(&key).cloned()
    }

    fn put(&self, _: u64, _: Held) {}
}

/// The finaliser of SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Draws from a Zipf distribution by its summed weights.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(records: u64, skew: f64) -> Self {
        let mut sum = 0.0;
        let summed = (1..=records).map(|rank| {
            sum += (rank as f64).powf(-skew);
            sum
        });
        Self(summed.collect())
    }

    fn draw(&self, random: &mut Random) -> u64 {
        let top = self.0.last().copied().unwrap_or_default();
        let at = (random.next() >> 11) as f64 / (1_u64 << 53) as f64 * top;
        self.0.partition_point(|sum| *sum < at) as u64
    }
}

fn record(key: u64) -> Held {
    // As the store makes it: the reader has a handle too, which is what makes it shared.
    let payload = Bytes::copy_from_slice(&[key as u8; RECORD]);
    let _of_the_reader = payload.clone();
    Held { payload, generation: 1 }
}

/// An address: in units of 8 bytes, with a generation on top.
const fn address(record: u64) -> u64 {
    record * (RECORD as u64 + 8) / 8 | 1 << 46
}

/// Nanoseconds of a hit, and allocations of a thousand, of `entries` that are all there.
fn hits(cache: &dyn Cache, entries: u64) -> (f64, f64) {
    let mut random = Random(1);
    let mut get = |times: u32| {
        let mut found = 0_u32;
        for _ in 0..times {
            let held = cache.get(address(random.next() % entries));
            found +=
                u32::from(held.is_some_and(|held| held.generation == 1 && black_box(held.payload).len() > 0));
        }
        found
    };
    get(HITS / 10);
    let (region, start) = (Region::new(ALLOCATOR), Instant::now());
    let found = get(HITS);
    let ns = start.elapsed().as_nanos() as f64 / f64::from(HITS);
    let allocations = region.change().allocations as f64 * 1000.0 / f64::from(HITS);
    assert!(f64::from(found) > 0.99 * f64::from(HITS), "{found} hits of {HITS}");
    (ns, allocations)
}

/// Share of the skewed reads that are hits, in percent; `scan`: after every 100,000 of them, half of what the budget
/// holds is read once, in order.
fn hit_rate(cache: &dyn Cache, zipf: &Zipf, scan: bool) -> f64 {
    let (mut random, mut hits, mut next) = (Random(7), 0_u32, 0_u64);
    let scanned = BUDGET / RECORD as u64 / 2;
    let read = |key: u64| {
        let is_hit = cache.get(address(key)).is_some();
        if !is_hit {
            cache.put(address(key), record(key));
        }
        is_hit
    };
    for count in 0..READS {
        // Scattered, so that what is hot lies everywhere.
        let key = zipf.draw(&mut random).wrapping_mul(0x9e37_79b1) % RECORDS;
        hits += u32::from(read(key) && count >= READS / 4);
        if scan && count % 100_000 == 0 {
            for _ in 0..scanned {
                read(RECORDS + next);
                next += 1;
            }
        }
    }
    100.0 * f64::from(hits) / f64::from(READS - READS / 4)
}

fn measure(name: &str, make: impl Fn() -> Box<dyn Cache>, zipf: &Zipf) {
    if !is_asked_for(name) {
        return;
    }
    let (fits, few) = (BUDGET / (RECORD as u64 + OVERHEAD) * 9 / 10, 4096);
    let of_hits = |entries| {
        let cache = make();
        (0..entries).for_each(|key| cache.put(address(key), record(key)));
        cache.settle();
        hits(&*cache, entries)
    };
    let ((near, _), (far, allocations)) = (of_hits(few), of_hits(fits));
    let region = Region::new(ALLOCATOR);
    let cache = make();
    let alone = hit_rate(&*cache, zipf, false);
    cache.settle();
    let change = region.change();
    let held = (change.bytes_allocated as i64 - change.bytes_deallocated as i64) as f64;
    drop(cache);
    let cache = make();
    let scanned = hit_rate(&*cache, zipf, true);
    println!(
        "| {name} | {near:.0} | {far:.0} | {allocations:.1} | {alone:.1} % | {scanned:.1} % | {:.0} % |",
        100.0 * held / BUDGET as f64
    );
}

/// Everything, or those whose names begin with an argument.
fn is_asked_for(name: &str) -> bool {
    let mut asked = std::env::args().skip(1).peekable();
    asked.peek().is_none() || asked.any(|start| name.starts_with(&start))
}

fn main() {
    let zipf = Zipf::new(RECORDS, 0.99);
    println!(
        "| cache | ns a hit, 4 Ki records | ns a hit, all that fits | allocations in 1000 hits | hits, zipf 0.99 | hits, with scans | of the budget |"
    );
    println!("|---|---|---|---|---|---|---|");
    let lock = if cfg!(feature = "parking_lot") { "parking_lot" } else { "std" };
    for shards in [1, 4] {
        let name = format!("quick_cache, {shards} parts, {lock}");
        measure(&name, || Box::new(Quick::new(shards)), &zipf);
    }
    measure("moka", || Box::new(Moka::new()), &zipf);
    measure("mini-moka", || Box::new(MiniMoka::new()), &zipf);
    measure("lru in a mutex", || Box::new(Lru::new()), &zipf);
    let entries = BUDGET / (RECORD as u64 + OVERHEAD) * 9 / 10;
    for count in [4096, entries].into_iter().filter(|_| is_asked_for("bound")) {
        let table = Table((0..count).map(|key| (address(key), record(key))).collect());
        let (ns, _) = hits(&table, count);
        println!("bound: a table without a lock, {count} records: {ns:.0} ns a hit");
    }
}
