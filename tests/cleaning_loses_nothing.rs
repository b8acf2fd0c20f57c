//! A store that is overwritten many times over, with most of it live: cleaning makes the room, every value is what was
//! written last, and what is written for it is near what theory says.
//!
//! `CORELOG_OVERWRITES` (bytes) and `CORELOG_OVERWRITES_STORE` (bytes) make it longer and larger.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

#[path = "common/overwrites.rs"]
mod overwrites;

use common::Place;
use corelog::{
    CleaningPolicy, Durability, FormatOptions, Inspection, Options, ReadError, RecordOwner, ScanError, Store,
};
use corelog_shards::{
    limits::{CLEAN_LIVE_PERCENT_MAX, CLEAN_READ_BYTES, CLEAN_RECORDS_PER_STEP_MAX, SUPERBLOCK_AREA_BYTES},
    shard::ShardCounters,
};
use overwrites::{Entry, Index, RECORD, Random, check_values, parse, scanned};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

const SHARDS: u32 = 2;

/// Which keys are overwritten.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Skew {
    Uniform,
    /// Nine of ten writes go to a tenth of the keys.
    NineToOne,
}

struct Case {
    store_bytes: u64,
    extent_bytes: u64,
    overwrites: u64,
    skew: Skew,
    policy: CleaningPolicy,
    has_cold: bool,
}

impl Case {
    fn new(skew: Skew, policy: CleaningPolicy) -> Self {
        let bytes = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
        let store_bytes = bytes("CORELOG_OVERWRITES_STORE").unwrap_or(32 << 20);
        let extent_bytes = if store_bytes >= 1 << 30 { 16 << 20 } else { 512 << 10 };
        let overwrites = bytes("CORELOG_OVERWRITES").unwrap_or(4 * store_bytes);
        Self { store_bytes, extent_bytes, overwrites, skew, policy, has_cold: false }
    }

    fn with_cold_shards(self) -> Self {
        if self.is_long() {
            return Self { has_cold: true, ..self };
        }
        // What cold shards take beside what is live has to be little.
        let store_bytes = 2 * self.store_bytes;
        Self { has_cold: true, store_bytes, extent_bytes: store_bytes / 256, ..self }
    }

    /// Then nobody scans meanwhile: scans keep what was written since they began from being cleaned.
    const fn is_long(&self) -> bool {
        self.store_bytes >= 1 << 30
    }

    fn buffer_bytes(&self) -> u64 {
        match (self.is_long(), self.has_cold) {
            (true, _) => 256 << 10,
            (false, true) => 16 << 10,
            (false, false) => 32 << 10,
        }
    }

    /// Steps of a shard's cleaning that one append may wait for. An append waits for cleaning only if there is no room, until
    /// an extent is won; with victims nine tenths live ten have to be cleaned for that, and the other shards may be
    /// faster. An extent takes the reading of its runs twice (to look whether it can be moved, and to move it), a look at each
    /// thousand records, and for each group of copies one step to fill it, one to place it and one to tell of it.
    fn steps_max(&self) -> u64 {
        let reads =
            self.extent_bytes.div_ceil(CLEAN_READ_BYTES - self.buffer_bytes().min(CLEAN_READ_BYTES / 2)) + 1;
        let looks = self.extent_bytes / RECORD / u64::from(CLEAN_RECORDS_PER_STEP_MAX) + 1;
        let groups = self.extent_bytes.div_ceil(self.buffer_bytes() / 2 - 2 * RECORD);
        let extent = 4 * reads + 2 * looks + 3 * groups + 4;
        (100 / (100 - CLEAN_LIVE_PERCENT_MAX) + u64::from(SHARDS)) * extent
    }

    fn keys(&self) -> u64 {
        // Cold shards have extents open and in the reserve that a small store feels, and of small extents only those that
        // are 65 % live at the most can be cleaned.
        let percent = if self.has_cold && !self.is_long() { 60 } else { 70 };
        self.store_bytes * percent / 100 / RECORD
    }

    fn place(&self) -> Place {
        let sized = FormatOptions::sized(SUPERBLOCK_AREA_BYTES + self.store_bytes);
        Place::with(&sized.shards(SHARDS).extent_bytes(self.extent_bytes).sparse())
    }

    fn options(&self) -> Options {
        let options = common::options(SHARDS).buffer_bytes(self.buffer_bytes()).clean_policy(self.policy);
        options.checkpoint_bytes(self.extent_bytes).cold_shards(self.has_cold)
    }

    fn pick(&self, random: &mut Random, first: u64, keys: u64) -> u64 {
        let hot = (keys / 10).max(1);
        match self.skew {
            Skew::Uniform => first + random.below(keys),
            Skew::NineToOne if random.below(10) < 9 => first + random.below(hot),
            Skew::NineToOne => first + hot + random.below(keys - hot),
        }
    }
}

/// Steps of cleaning that appends waited for.
#[derive(Clone, Copy, Debug, Default)]
struct Waits {
    appends: u64,
    /// For more than one.
    more_than_one: u64,
    most: u64,
}

impl Waits {
    fn add(self, other: Self) -> Self {
        let (appends, most) = (self.appends + other.appends, self.most.max(other.most));
        Self { appends, more_than_one: self.more_than_one + other.more_than_one, most }
    }
}

/// Several threads, each with keys of its own, and one that reads what others write.
fn overwrite(store: &Store, index: &Index, case: &Case, bytes: u64, seed: u64) -> Waits {
    let threads = 2;
    let share = index.entries.len() as u64 / threads;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let is_over = &is_over;
        let writers: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let mut random = Random(seed * 1000 + thread + 1);
                    let mut waits = Waits::default();
                    for _ in 0..bytes / threads / RECORD {
                        let key = case.pick(&mut random, thread * share, share);
                        let (_, steps) = overwrites::write(store, index, key, false);
                        let one = Waits { appends: 1, more_than_one: u64::from(steps > 1), most: steps };
                        waits = waits.add(one);
                    }
                    waits
                })
            })
            .collect();
        scope.spawn(move || {
            let mut random = Random(seed * 1000 + 77);
            while !is_over.load(Ordering::Relaxed) {
                let key = random.below(index.entries.len() as u64);
                let before = *index.entry(key).lock().unwrap();
                let Some(address) = before.address else { continue };
                match store.read(address) {
                    Ok(found) => assert_eq!(parse(&found), (key, before.version), "at {address}"),
                    Err(ReadError::Reclaimed { .. }) => {
                        let now = index.entry(key).lock().unwrap();
                        assert_ne!(now.address, Some(address), "key {key} was cleaned away");
                    }
                    Err(error) => panic!("key {key}: {error}"),
                }
            }
        });
        let scans = scope.spawn(move || {
            let mut checked = 0;
            while !is_over.load(Ordering::Relaxed) && !case.is_long() {
                checked += scan_beside_cleaning(store, index);
                read_a_cut(store, index, is_over);
            }
            checked
        });
        let ends: Vec<_> = writers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Relaxed);
        assert!(scans.join().unwrap() > 0 || case.is_long(), "no record stayed the same during a scan");
        let waits = ends.into_iter().map(|end| end.expect("a writer came to an end of its own"));
        waits.fold(Waits::default(), Waits::add)
    })
}

/// A cut that cleaning is held for has each key, in a version that is no older than the cut. One that it is not held for
/// has so too, or says that it cannot be read any more.
fn read_a_cut(store: &Store, index: &Index, is_over: &AtomicBool) {
    for is_held in [true, false] {
        index.holds.fetch_add(u64::from(is_held), Ordering::AcqRel);
        let hold = is_held.then(|| store.hold_cleaning());
        let before: Vec<u64> = index.entries.iter().map(|it| it.lock().unwrap().version).collect();
        let cut = store.cut();
        let mut newest: HashMap<u64, u64> = HashMap::new();
        let mut gone = None;
        for record in store.scan_all_cut(&cut).unwrap() {
            match record {
                Ok(record) => {
                    let (key, version) = parse(&record.payload);
                    assert!(cut.has(record.shard, record.frame), "it is not of the cut");
                    let known = newest.entry(key).or_default();
                    *known = version.max(*known);
                }
                Err(ScanError::Cleaned { shard }) => gone = Some(shard),
                Err(error) => panic!("{error}"),
            }
        }
        drop(hold);
        if is_held {
            // Then there is hope again, and a full store is one to wait for.
            let cleaned = || figures(store).2;
            let before = cleaned();
            while cleaned() == before && !is_over.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            index.holds.fetch_add(1, Ordering::AcqRel);
        }
        assert!(gone.is_none() || !is_held, "{gone:?} was cleaned, though that was held");
        if gone.is_none() {
            for (key, version) in before.iter().enumerate() {
                let found = newest.get(&(key as u64)).copied();
                assert!(found >= Some(*version), "key {key}: {found:?} in a cut that was made at {version}");
            }
        }
    }
}

/// A scan while records are moved: none comes twice, and what was not overwritten meanwhile comes.
fn scan_beside_cleaning(store: &Store, index: &Index) -> u64 {
    let versions = || -> Vec<u64> { index.entries.iter().map(|it| it.lock().unwrap().version).collect() };
    let before = versions();
    let found = scanned(store);
    let mut checked = 0;
    for (key, (before, after)) in before.into_iter().zip(versions()).enumerate() {
        if before == after {
            let version = found.get(&(key as u64)).map(|(version, _)| *version);
            assert_eq!(version, Some(before), "key {key} did not change, and the scan gave another version");
            checked += 1;
        }
    }
    checked
}

/// Live share of the extents that are full: all but the reserve, what cleaning keeps free, and for each shard the one that
/// is half written and the one claimed ahead.
fn occupancy(store: &Store, case: &Case) -> f64 {
    let (extents, options) = (&store.directory().extents, store.options());
    let all = f64::from(extents.len());
    let free = all * f64::from(options.clean_low_percent + options.clean_high_percent) / 200.0;
    let full = all - extents.reserve() as f64 - free - 1.5 * f64::from(SHARDS);
    (case.keys() * RECORD) as f64 / (full * case.extent_bytes as f64)
}

/// Uniform overwrites, extents cleaned at a live share u: where the live share of the whole is rho,
/// `rho = (u - 1) / ln u` for the oldest first, which greedy comes down to with large extents
/// (`docs/decisions/0018-cleaning.md`); and each byte is written `1 / (1 - u)` times.
fn write_amplification_in_theory(rho: f64) -> f64 {
    let (mut low, mut high) = (1e-9, 1.0 - 1e-9);
    for _ in 0..100 {
        let middle: f64 = (low + high) / 2.0;
        if (middle - 1.0) / middle.ln() < rho { low = middle } else { high = middle }
    }
    1.0 / (1.0 - low)
}

fn figures(store: &Store) -> (f64, f64, u64) {
    let sum = |of: fn(&ShardCounters) -> &AtomicU64| -> u64 {
        store.shards().iter().map(|shard| of(shard.counters()).load(Ordering::Relaxed)).sum()
    };
    let (bytes, moved) = (sum(|it| &it.bytes), sum(|it| &it.bytes_moved));
    let cleaned = sum(|it| &it.extents_cleaned);
    let extent_bytes = store.directory().layout.geometry().extent_bytes();
    let live = moved as f64 / (cleaned.max(1) * extent_bytes) as f64;
    (sum(|it| &it.device_bytes) as f64 / (bytes - moved) as f64, live, cleaned)
}

fn run(case: &Case) {
    let place = case.place();
    let index = Arc::new(Index::new(case.keys()));
    let store = Store::open(&place.path, &case.options()).unwrap();
    store.clean_with(Arc::clone(&index) as Arc<dyn RecordOwner>).unwrap();
    let again = store.clean_with(Arc::clone(&index) as Arc<dyn RecordOwner>);
    assert_eq!(again, Err(corelog::CleanError::AlreadyOn), "one owner is enough");
    (0..case.keys()).for_each(|key| {
        overwrites::write(&store, &index, key, false);
    });
    let waits = overwrite(&store, &index, case, case.overwrites / 2, 1);
    println!("{:?}: {waits:?}, at most {} steps", case.skew, case.steps_max());
    assert!(waits.most <= case.steps_max(), "{waits:?}");
    let (amplification, live, cleaned) = figures(&store);
    let occupancy = occupancy(&store, case);
    let theory = write_amplification_in_theory(occupancy);
    println!(
        "{:?} {:?}: write amplification {amplification:.2}, victims {:.0}% live, {cleaned} extents; uniform overwrites \
         in theory {theory:.2}, with full extents {:.1}% live",
        case.skew,
        case.policy,
        live * 100.0,
        occupancy * 100.0,
    );
    println!("{:?}", store.stats().total);
    if case.is_long() {
        // Not before the mixture of live and dead is what it stays, for which a short run has no time.
        assert!(amplification < 1.35 * theory, "{amplification:.2}, and {theory:.2} in theory");
    }
    assert!(cleaned > 10, "{cleaned} extents were cleaned");
    assert!(index.relocations.load(Ordering::Relaxed) > 0);
    check_values(&store, &index);
    store.sync().unwrap();
    store.close().unwrap();
    drop(store);

    // Opened again: the scan gives each version once, and the newest of each key is what it was.
    let store = Store::open(&place.path, &case.options()).unwrap();
    let found = scanned(&store);
    let again = Arc::new(Index::new(case.keys()));
    for (key, entry) in index.entries.iter().enumerate() {
        let Entry { version, .. } = *entry.lock().unwrap();
        let (newest, address) = found[&(key as u64)];
        assert_eq!(newest, version, "key {key}");
        *again.entry(key as u64).lock().unwrap() = Entry { version, address: Some(address) };
    }
    store.clean_with(Arc::clone(&again) as Arc<dyn RecordOwner>).unwrap();
    let _waits = overwrite(&store, &again, case, case.overwrites / 2, 2);
    check_values(&store, &again);
    store.shards().iter().for_each(|shard| store.flush(shard.id(), Durability::Durable).unwrap());
    drop(store);
    let report = Inspection::open(&[&place.path], &case.options()).unwrap();
    let report = report.verify(None, &mut |_, _| {}).unwrap();
    assert!(report.findings.is_empty(), "{report:?}");
}

#[test]
fn uniform_overwrites_with_the_emptiest_extent_first() {
    run(&Case::new(Skew::Uniform, CleaningPolicy::Greedy));
}

#[test]
fn skewed_overwrites_by_benefit_and_cost() {
    run(&Case::new(Skew::NineToOne, CleaningPolicy::CostBenefit));
}

#[test]
fn skewed_overwrites_with_cold_shards() {
    run(&Case::new(Skew::NineToOne, CleaningPolicy::CostBenefit).with_cold_shards());
}

#[test]
fn uniform_overwrites_with_cold_shards() {
    run(&Case::new(Skew::Uniform, CleaningPolicy::Greedy).with_cold_shards());
}

#[test]
fn uniform_overwrites_with_the_oldest_extent_first() {
    run(&Case::new(Skew::Uniform, CleaningPolicy::Fifo));
}
