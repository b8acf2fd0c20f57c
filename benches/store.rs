//! What a store costs from outside, on a file in the target folder: appends by either path, durable appends by how
//! many wait, point reads, the two ways to give a record's bytes out, and opening after a crash would have left it so.
#![allow(clippy::unwrap_used, reason = "benches")]

use bytes::Bytes;
use corelog::{Address, AppendPath, Durability, FormatOptions, Options, Route, ShardId, Store};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::{
    hint::black_box,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const RECORD_BYTES: usize = 1024;
const STORE_BYTES: u64 = 512 << 20;
/// Payload between two new stores, so that none is ever full.
const RECORDS_PER_STORE: u64 = (STORE_BYTES / 4) / RECORD_BYTES as u64;
const TO_READ: usize = 4096;

struct Ground {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Ground {
    fn new() -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = folder.path().join("store");
        let ground = Self { _folder: folder, path };
        ground.format();
        ground
    }

    fn format(&self) {
        let options = FormatOptions::sized(STORE_BYTES).shards(1).extent_bytes(16 << 20).replace();
        Store::format(&[&self.path], &options).unwrap();
    }
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

fn recovery(criterion: &mut Criterion) {
    let ground = Ground::new();
    let store = open(&ground.path, AppendPath::Direct);
    filled(&store);
    store.close().unwrap();
    drop(store);
    criterion.bench_function("open and close", |bencher| {
        bencher.iter(|| open(&ground.path, AppendPath::Direct).close().unwrap());
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(10);
    targets = append, durable, read, bytes_out, recovery
}
criterion_main!(benches);
