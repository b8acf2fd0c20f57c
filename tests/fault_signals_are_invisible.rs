//! Signals that interrupt every thread of a store all the time, in format, open, append, wait, read, scan and close: no
//! caller sees one, and nothing is lost (fault matrix row 29).
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/host.rs"]
mod host;
#[path = "common/kernel.rs"]
mod kernel;
#[path = "common/stores.rs"]
mod stores;

use corelog::{Backend, FormatOptions, ShardId, Store};
use std::path::Path;
use stores::{Acked, EXTENT_BYTES, append_durable, assert_there, options};

const LIVES: u64 = 6;
const RECORDS: u64 = 60;

/// Some lives of a store, each with threads that append and wait beside one that reads.
fn live(path: &Path, backend: Backend) {
    let format = FormatOptions::sized(40 << 20).shards(2).extent_bytes(EXTENT_BYTES).replace();
    Store::format(&[path], &format).unwrap();
    let mut acked: Vec<Acked> = Vec::new();
    for life in 0..LIVES {
        let store = Store::open(path, &options().backend(backend)).unwrap();
        assert_there(&store, &acked);
        let append = |shard: u16| {
            let names = (0..RECORDS).map(move |count| life << 32 | u64::from(shard) << 16 | count);
            names.map(|name| append_durable(&store, shard, name)).collect::<Vec<_>>()
        };
        let new = std::thread::scope(|scope| {
            let writers = [0, 1].map(|shard| scope.spawn(move || append(shard)));
            assert_there(&store, &acked);
            writers.map(|writer| writer.join().unwrap()).concat()
        });
        acked.extend(new);
        let scanned: usize =
            [0, 1].map(|shard| store.scan(ShardId(shard)).unwrap().map(Result::unwrap).count()).iter().sum();
        assert_eq!(scanned, acked.len());
        store.close().unwrap();
    }
}

#[test]
fn a_store_in_a_storm_of_alarms_with_io_uring() {
    storm(Backend::IoUring);
}

#[test]
fn a_store_in_a_storm_of_alarms_with_threads() {
    storm(Backend::Threads);
}

fn storm(backend: Backend) {
    let folder = host::folder();
    let ((), alarms) = kernel::in_a_storm_of_alarms(|| live(&folder.path().join("store"), backend));
    println!("{alarms} alarms");
    assert!(alarms > 100, "{alarms}");
}
