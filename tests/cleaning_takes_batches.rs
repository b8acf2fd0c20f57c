//! Small stores that are overwritten twenty times over by batches, over shards or longer than a buffer, with single records
//! between them, some given up, and reopened: there is always room, each value is the newest, and a scan gives each once.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/batched.rs"]
mod batched;
mod common;

use batched::{Index, Random, write_batch, write_one, write_over};
use common::{Over, Place};
use corelog::{AppendError, FormatOptions, Options, RecordOwner, Route, ShardId, Store};
use corelog_shards::limits::SUPERBLOCK_AREA_BYTES;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

const EXTENT: u64 = 256 << 10;
/// On the average.
const VALUE: u64 = 1000;

struct Shape {
    shards: u32,
    extents: u64,
    live_percent: u64,
}

impl Shape {
    const fn store_bytes(&self) -> u64 {
        self.extents * EXTENT
    }

    const fn keys(&self) -> u64 {
        self.store_bytes() * self.live_percent / 100 / VALUE
    }

    fn place(&self) -> Place {
        let format = FormatOptions::sized(SUPERBLOCK_AREA_BYTES + self.store_bytes());
        Place::with(&format.shards(self.shards).extent_bytes(EXTENT).sparse())
    }

    fn options(&self) -> Options {
        common::options(self.shards).buffer_bytes(16 << 10).checkpoint_bytes(EXTENT)
    }
}

/// Some keys, none twice, each with a length.
fn some_keys(random: &mut Random, keys: u64, count: u64, step: u64) -> Vec<(u64, usize)> {
    let first = random.below(keys);
    let keys = (0..count.min(keys)).map(|index| (first + index * step) % keys);
    keys.map(|key| (key, 16 + random.below(2 * VALUE - 32) as usize)).collect()
}

fn extents_cleaned(store: &Store) -> u64 {
    store.shards().iter().map(|shard| shard.counters().extents_cleaned.load(Ordering::Relaxed)).sum()
}

/// Overwrites the store so many times its size, closes or drops it in between, and looks at all of it.
fn overwrite(shape: &Shape, times: u64, write: impl Fn(&Store, &Index, &mut Random) -> u64) {
    let place = shape.place();
    let mut random = Random(shape.extents + 77);
    let mut versions = vec![0; shape.keys() as usize];
    for life in 0..4 {
        let store = Store::open(&place.path, &shape.options()).unwrap();
        let index = Arc::new(Index::of(&store, shape.keys()));
        assert_eq!(index.versions(), versions, "after life {life}");
        index.check(&store);
        store.clean_with(Arc::clone(&index) as Arc<dyn RecordOwner>).unwrap();
        let mut written = 0;
        while written < times * shape.store_bytes() / 4 {
            written += write(&store, &index, &mut random);
        }
        index.check(&store);
        index.check_scan(&store);
        assert!(extents_cleaned(&store) > shape.extents / 2, "{} were cleaned", extents_cleaned(&store));
        versions = index.versions();
        if life % 2 == 0 {
            store.close().unwrap();
        }
    }
}

fn bytes_of(keys: &[(u64, usize)]) -> u64 {
    keys.iter().map(|(_, length)| *length as u64 + 8).sum()
}

#[test]
fn batches_over_two_shards() {
    let shape = Shape { shards: 2, extents: 32, live_percent: 35 };
    overwrite(&shape, 20, |store, index, random| {
        let count = 1 + random.below(120);
        let keys = some_keys(random, index.keys(), count, 7);
        write_over(store, index, &keys).unwrap();
        bytes_of(&keys)
    });
}

#[test]
fn long_batches_some_of_which_are_given_up() {
    let shape = Shape { shards: 1, extents: 24, live_percent: 40 };
    overwrite(&shape, 20, |store, index, random| {
        let count = 20 + random.below(300);
        let keys = some_keys(random, index.keys(), count, 5);
        if random.below(6) == 0 {
            let mut batch = store.batch(Route::Shard(ShardId(0))).unwrap();
            for (key, length) in &keys {
                batch.append(&batched::value(*key, u64::MAX, *length)).unwrap();
            }
            // Their owner takes what it has not heard of for wanted, and it is not copied all the same.
            return bytes_of(&keys);
        }
        write_batch(store, index, ShardId(0), &keys).unwrap();
        bytes_of(&keys)
    });
}

#[test]
fn batches_whose_lists_have_several_levels() {
    // Most of what is wanted in one batch.
    let shape = Shape { shards: 1, extents: 80, live_percent: 30 };
    overwrite(&shape, 6, |store, index, random| {
        let keys = some_keys(random, index.keys(), 5000, 1);
        write_batch(store, index, ShardId(0), &keys).unwrap();
        bytes_of(&keys)
    });
}

#[test]
fn batches_of_all_lengths_between_single_records() {
    let shape = Shape { shards: 2, extents: 32, live_percent: 35 };
    overwrite(&shape, 20, |store, index, random| {
        let count = 1 + random.below(60);
        let keys = some_keys(random, index.keys(), count, 2);
        let shard = ShardId((keys[0].0 % 2) as u16);
        match random.below(3) {
            0 => write_over(store, index, &keys).unwrap(),
            1 => write_batch(store, index, shard, &keys).unwrap(),
            _ => keys.iter().for_each(|key| write_one(store, index, shard, *key).unwrap()),
        }
        bytes_of(&keys)
    });
}

#[test]
fn a_scan_beside_it_gives_each_version_once_and_all_that_stay() {
    let shape = Shape { shards: 1, extents: 32, live_percent: 40 };
    let place = shape.place();
    let store = Store::open(&place.path, &shape.options()).unwrap();
    let index = Arc::new(Index::new(shape.keys()));
    // Every other key is written once, the others over and over.
    let mut random = Random(5);
    let kept: Vec<_> = some_keys(&mut random, shape.keys(), shape.keys() / 2, 2);
    let kept: Vec<_> = kept.into_iter().map(|(key, length)| (key / 2 * 2, length)).collect();
    store.clean_with(Arc::clone(&index) as Arc<dyn RecordOwner>).unwrap();
    for keys in kept.chunks(60) {
        write_batch(&store, &index, ShardId(0), keys).unwrap();
        let others: Vec<_> =
            keys.iter().map(|(key, length)| (((key + 1) % shape.keys()) | 1, *length)).collect();
        write_batch(&store, &index, ShardId(0), &others).unwrap();
    }
    let is_over = AtomicBool::new(false);
    // Each goes on until the other has failed, or all is done.
    std::thread::scope(|scope| {
        let _over = Over(&is_over);
        scope.spawn(|| {
            let _over = Over(&is_over);
            let mut random = Random(6);
            while !is_over.load(Ordering::Relaxed) {
                let count = 1 + random.below(100);
                let keys = some_keys(&mut random, shape.keys() / 2, count, 1);
                let keys: Vec<_> = keys.into_iter().map(|(key, length)| (2 * key + 1, length)).collect();
                match write_batch(&store, &index, ShardId(0), &keys) {
                    // What is written while a scan runs is not cleaned before that ends.
                    Ok(()) | Err(AppendError::StoreFull { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let mut scans = 0;
        while (scans < 30 || extents_cleaned(&store) < 6 * shape.extents) && !is_over.load(Ordering::Relaxed)
        {
            let found = Index::of(&store, shape.keys()).versions();
            for (key, _) in &kept {
                assert!(found[*key as usize] > 0, "scan {scans} lacks key {key}");
            }
            scans += 1;
        }
    });
    index.check(&store);
}
