//! What a store costs from outside, on a file in the target folder: appends by either path, durable appends by how
//! many wait, point reads, scans, the two ways to give a record's bytes out, and opening a store that was closed or was not.
//!
//! With `CORELOG_BENCH_SMALL` set, or as a test (`-- --test`), scans and recovery have little to read.
#![allow(clippy::unwrap_used, reason = "benches")]

use bytes::Bytes;
use corelog::{Address, AppendPath, Durability, FormatOptions, Options, Route, ShardId, Store};
use corelog_shards::limits::{CHECKPOINT_BYTES_MAX, QUIET_MS_MAX, QUIET_MS_MIN, SUPERBLOCK_AREA_BYTES};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::{
    fs::File,
    hint::black_box,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const RECORD_BYTES: usize = 1024;
const STORE_BYTES: u64 = 512 << 20;
/// Payload between two new stores, so that none is ever full.
const RECORDS_PER_STORE: u64 = (STORE_BYTES / 4) / RECORD_BYTES as u64;
const TO_READ: usize = 4096;
/// Payload of all shards that scans and recovery go through.
const FULL_BYTES: u64 = 256 << 20;
const FULL_BYTES_SMALL: u64 = 8 << 20;

struct Ground {
    _folder: tempfile::TempDir,
    path: PathBuf,
    shards: u32,
}

impl Ground {
    fn new() -> Self {
        Self::with_shards(1)
    }

    fn with_shards(shards: u32) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = folder.path().join("store");
        let ground = Self { _folder: folder, path, shards };
        ground.format();
        ground
    }

    fn format(&self) {
        let options = FormatOptions::sized(STORE_BYTES).shards(self.shards).extent_bytes(16 << 20).replace();
        Store::format(&[&self.path], &options).unwrap();
    }

    /// A core for each shard.
    fn open(&self) -> Store {
        Store::open(&self.path, &Options::default().cores(self.shards)).unwrap()
    }

    fn superblocks(&self) -> Vec<u8> {
        let mut bytes = vec![0; SUPERBLOCK_AREA_BYTES as usize];
        File::open(&self.path).unwrap().read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn put_back(&self, superblocks: &[u8]) {
        let file = File::options().write(true).open(&self.path).unwrap();
        file.write_all_at(superblocks, 0).unwrap();
        file.sync_all().unwrap();
    }
}

/// Payload to go through.
fn full_bytes() -> u64 {
    let is_small = std::env::var_os("CORELOG_BENCH_SMALL").is_some();
    // `cargo bench` says `--bench`; without it criterion only tests.
    let says = |flag: &str| std::env::args().any(|argument| argument == flag);
    if is_small || says("--test") || !says("--bench") { FULL_BYTES_SMALL } else { FULL_BYTES }
}

/// Appends this much payload, the shards in turn, and gives how many records that were.
fn fill(store: &Store, bytes: u64) -> u64 {
    let payload = vec![0x5a; RECORD_BYTES];
    let records = bytes / RECORD_BYTES as u64;
    for _ in 0..records {
        store.append_to(Route::RoundRobin, &payload).unwrap();
    }
    store.sync().unwrap();
    records
}

fn open(path: &Path, append: AppendPath) -> Store {
    Store::open(path, &Options { append, ..Options::default().cores(1) }).unwrap()
}

/// Times `records` appends in portions that fit into a store each.
fn appends(ground: &Ground, path: AppendPath, records: u64, portion: impl Fn(&Store, u64)) -> Duration {
    let mut left = records;
    let mut taken = Duration::ZERO;
    while left > 0 {
        ground.format();
        let store = open(&ground.path, path);
        let now = left.min(RECORDS_PER_STORE);
        let start = Instant::now();
        portion(&store, now);
        taken += start.elapsed();
        store.close().unwrap();
        left -= now;
    }
    taken
}

fn append(criterion: &mut Criterion) {
    let ground = Ground::new();
    let payload = vec![0x5a; RECORD_BYTES];
    let mut group = criterion.benchmark_group("append/1 KiB");
    group.throughput(Throughput::Bytes(RECORD_BYTES as u64));
    for (name, path) in [("direct", AppendPath::Direct), ("routed", AppendPath::Routed)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|records| {
                appends(&ground, path, records, |store, records| {
                    for _ in 0..records {
                        black_box(store.append_to(Route::Shard(ShardId(0)), &payload).unwrap());
                    }
                })
            });
        });
    }
    group.finish();
}

fn durable(criterion: &mut Criterion) {
    let ground = Ground::new();
    let payload = vec![0x5a; RECORD_BYTES];
    let mut group = criterion.benchmark_group("durable append/1 KiB");
    for waiting in [1_u64, 8, 64] {
        group.bench_function(BenchmarkId::new("waiting", waiting), |bencher| {
            bencher.iter_custom(|records| {
                appends(&ground, AppendPath::Direct, records, |store, records| {
                    for _ in 0..records.div_ceil(waiting) {
                        for _ in 1..waiting {
                            black_box(store.append(&payload).unwrap());
                        }
                        // The last of a group is durable when all of it is.
                        store.append(&payload).unwrap().wait(Durability::Durable).unwrap();
                    }
                })
            });
        });
    }
    group.finish();
}

fn filled(store: &Store) -> Vec<Address> {
    let payload = vec![0x5a; RECORD_BYTES];
    let addresses = (0..TO_READ).map(|_| store.append(&payload).unwrap().address()).collect();
    store.sync().unwrap();
    addresses
}

fn read(criterion: &mut Criterion) {
    let ground = Ground::new();
    let store = open(&ground.path, AppendPath::Direct);
    let addresses = filled(&store);
    let mut next = 0_usize;
    criterion.bench_function("point read/1 KiB", |bencher| {
        bencher.iter(|| {
            next = (next + 1021) % addresses.len();
            store.read(addresses[next]).unwrap()
        });
    });
    store.close().unwrap();
}

/// A record's bytes out of a read buffer: copied, or sharing the buffer.
fn bytes_out(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("bytes out");
    for length in [64_usize, 1024, 16 << 10] {
        let buffer = vec![0x5a_u8; length + 4096];
        group.bench_function(BenchmarkId::new("copy", length), |bencher| {
            bencher.iter(|| Bytes::copy_from_slice(black_box(&buffer[8..8 + length])));
        });
        let shared = std::sync::Arc::new(buffer);
        group.bench_function(BenchmarkId::new("from owner", length), |bencher| {
            bencher.iter(|| Bytes::from_owner(Shared(black_box(&shared).clone())).slice(8..8 + length));
        });
    }
    group.finish();
}

struct Shared(std::sync::Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// All records of one shard in their order, and of two shards by time.
fn scan(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scan/1 KiB");
    group.throughput(Throughput::Bytes(full_bytes()));
    for shards in [1, 2] {
        let ground = Ground::with_shards(shards);
        let store = ground.open();
        let records = fill(&store, full_bytes());
        group.bench_function(BenchmarkId::new("shards", shards), |bencher| {
            bencher.iter(|| {
                let seen = match shards {
                    1 => store.scan(ShardId(0)).unwrap().map(Result::unwrap).map(black_box).count(),
                    _ => store.scan_all().unwrap().map(Result::unwrap).map(black_box).count(),
                };
                assert_eq!(seen as u64, records);
            });
        });
        store.close().unwrap();
    }
    group.finish();
}

/// Opening a store that was closed, and one as a killed process leaves it, whose frames all have to be found.
fn recovery(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open");
    for shards in [1, 2] {
        let ground = Ground::with_shards(shards);
        let store = ground.open();
        let records = fill(&store, full_bytes());
        // The superblock of an open store says so: put back, it is all that tells a closed store from one whose
        // process was killed when everything was durable.
        let superblocks = ground.superblocks();
        store.close().unwrap();
        drop(store);
        let timed_open = |clean: bool| {
            let start = Instant::now();
            let store = ground.open();
            let taken = start.elapsed();
            let recovery = store.recovery();
            assert_eq!(recovery.clean, clean);
            // Those of checkpoints count too.
            assert!(clean || recovery.shards.iter().map(|shard| shard.records).sum::<u64>() >= records);
            store.close().unwrap();
            taken
        };
        group.bench_function(BenchmarkId::new("closed, shards", shards), |bencher| {
            bencher.iter_custom(|opens| (0..opens).map(|_| timed_open(true)).sum());
        });
        group.bench_function(BenchmarkId::new("not closed, shards", shards), |bencher| {
            bencher.iter_custom(|opens| {
                let open = |_| {
                    ground.put_back(&superblocks);
                    timed_open(false)
                };
                (0..opens).map(open).sum()
            });
        });
    }
    group.finish();
}

/// How the log of a store that is opened again ends.
#[derive(Clone, Copy, PartialEq)]
enum Ending {
    /// Without a checkpoint anywhere.
    Unmarked,
    /// With a checkpoint, and a 64th of a full store behind it.
    Checkpoint,
    /// As that of a shard that went quiet.
    Quiet,
}

/// Quiet at once.
const SHORT: Duration = Duration::from_millis(QUIET_MS_MIN);

/// Waits until the first shard has written what a quiet one writes.
fn rest(store: &Store) {
    let frames = || store.shards()[0].watermarks().durable;
    let mut before = frames();
    loop {
        std::thread::sleep(100 * SHORT);
        let now = std::mem::replace(&mut before, frames());
        if now == before && store.space(ShardId(0)).is_some_and(|space| space.checkpoint.is_some()) {
            return;
        }
    }
}

/// Opening a store that was not closed, by the length of its log: what came since the last checkpoint counts, and not
/// what is before it.
fn recovery_by_checkpoint(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open by length of log");
    let since = full_bytes() / 64;
    for length in [full_bytes() / 4, full_bytes() / 2, full_bytes()] {
        for ending in [Ending::Unmarked, Ending::Checkpoint, Ending::Quiet] {
            let ground = Ground::new();
            let long = Duration::from_millis(QUIET_MS_MAX);
            let options = Options::default().cores(1).checkpoint_bytes(CHECKPOINT_BYTES_MAX).quiet(long);
            let filling =
                if ending == Ending::Quiet { options.clone().quiet(SHORT) } else { options.clone() };
            let store = Store::open(&ground.path, &filling).unwrap();
            let before = fill(&store, length - since);
            if ending == Ending::Checkpoint {
                store.checkpoint().unwrap();
            }
            let records = before + fill(&store, since);
            if ending == Ending::Quiet {
                rest(&store);
            }
            let superblocks = ground.superblocks();
            store.close().unwrap();
            drop(store);
            let what = match ending {
                Ending::Unmarked => "no checkpoint, MiB",
                Ending::Checkpoint => "checkpoint near the end, MiB",
                Ending::Quiet => "gone quiet, MiB",
            };
            group.bench_function(BenchmarkId::new(what, length >> 20), |bencher| {
                bencher.iter_custom(|opens| {
                    let open = |_| {
                        ground.put_back(&superblocks);
                        let store = Store::open(&ground.path, &options).unwrap();
                        let recovery = store.recovery();
                        assert_eq!(recovery.shards[0].began_at.is_some(), ending != Ending::Unmarked);
                        assert!(recovery.shards[0].records >= records);
                        let seconds = recovery.seconds;
                        store.close().unwrap();
                        Duration::from_secs_f64(seconds)
                    };
                    (0..opens).map(open).sum()
                });
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(10);
    targets = append, durable, read, scan, bytes_out, recovery, recovery_by_checkpoint
}
criterion_main!(benches);
