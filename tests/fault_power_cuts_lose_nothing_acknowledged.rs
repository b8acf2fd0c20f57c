//! Power is cut again and again while two shards take appends. Of the writes that no sync covered any subset is lost,
//! some torn. What comes back of each shard is the beginning of what went in, byte for byte, and reaches over
//! everything acknowledged (fault matrix rows 4 and 5 under the real io_uring; P1, P3, P4).
//!
//! `CORELOG_CUTS` sets how many cuts (20 by default), `CORELOG_SEED` the seed.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/fuse.rs"]
mod fuse;
#[path = "common/host.rs"]
mod host;
#[path = "common/stores.rs"]
mod stores;

use corelog::{Durability, FrameOrder, Options, Route, ShardId, Store, SyncMethod};
use disk::Random;
use fuse::Mounted;
use std::time::Duration;
use stores::{STORE_BYTES, payload};

/// What went into one shard since the store was made: names in order, and how many of them are acknowledged.
#[derive(Default)]
struct Log {
    names: Vec<u64>,
    acked: usize,
}

fn options(seed: u64) -> Options {
    let methods = [SyncMethod::Dsync, SyncMethod::Auto, SyncMethod::Fdatasync];
    let sync = methods[(seed % 3) as usize];
    let order = if seed.is_multiple_of(5) { FrameOrder::Serialised } else { FrameOrder::TailLocalised };
    stores::options().cores(1 + (seed % 2) as u32).sync(sync).order(order)
}

/// Appends until the store fails.
fn append_until_the_end(store: &Store, shard: ShardId, log: &mut Log, mut random: Random) {
    loop {
        let name = random.next();
        let Ok(ticket) = store.append_to(Route::Shard(shard), &payload(name)) else { return };
        log.names.push(name);
        if random.below(6) == 0 {
            let Ok(()) = ticket.wait(Durability::Durable) else { return };
            log.acked = log.names.len();
        }
    }
}

/// Compares a shard with what went in, and takes out of the log what was lost.
fn compare(store: &Store, shard: ShardId, log: &mut Log) {
    let mut found = 0;
    for record in store.scan(shard).unwrap() {
        let record = record.unwrap();
        let name = log.names.get(found).unwrap_or_else(|| panic!("record {found} was never appended"));
        assert_eq!(record.payload, payload(*name), "record {found} of {shard:?}");
        found += 1;
    }
    assert!(found >= log.acked, "{shard:?}: {} were acknowledged, {found} are there", log.acked);
    log.names.truncate(found);
}

#[test]
fn what_was_acknowledged_survives_every_cut() {
    let Some(folder) = host::with_fuse("what_was_acknowledged_survives_every_cut") else { return };
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let seed = number("CORELOG_SEED", u64::from(std::process::id()));
    println!("seed: CORELOG_SEED={seed}");
    let mut random = Random(seed);
    let device = Mounted::new(&folder, STORE_BYTES);
    let mut logs = [Log::default(), Log::default()];
    for cut in 0..number("CORELOG_CUTS", 20) {
        if cut % 5 == 0 {
            device.format(2, stores::EXTENT_BYTES);
            logs = Default::default();
        }
        let store = device.open(&options(random.next())).unwrap();
        std::thread::scope(|scope| {
            for (shard, log) in logs.iter_mut().enumerate() {
                let (store, random) = (&store, Random(random.next()));
                scope.spawn(move || append_until_the_end(store, ShardId(shard as u16), log, random));
            }
            std::thread::sleep(Duration::from_millis(random.below(60)));
            device.disk.cut_power(&mut random);
        });
        assert!(store.close().is_err(), "it had no device to close on");
        drop(store);
        device.disk.restore_power();
        let store = device.open(&options(random.next())).unwrap_or_else(|error| panic!("cut {cut}: {error}"));
        let appended: Vec<usize> = logs.iter().map(|log| log.names.len()).collect();
        for (shard, log) in logs.iter_mut().enumerate() {
            compare(&store, ShardId(shard as u16), log);
            println!(
                "cut {cut}, shard {shard}: {} of {}, {} acknowledged",
                log.names.len(),
                appended[shard],
                log.acked
            );
        }
        store.close().unwrap();
    }
    assert!(logs.iter().any(|log| log.acked > 0));
}
