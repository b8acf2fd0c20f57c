//! Nothing is acknowledged as durable while it is in a cache of the device: the disk counts the syncs and the writes
//! that passed by its cache, and at each acknowledgement its cache holds nothing of the shard (flush ring, way 17;
//! ground truth 12).
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/fuse.rs"]
mod fuse;
#[path = "common/host.rs"]
mod host;
#[path = "common/stores.rs"]
mod stores;

use corelog::{Durability, Route, ShardId, SyncMethod};
use fuse::Mounted;
use stores::{STORE_BYTES, append_durable, options, payload};

#[test]
fn each_acknowledgement_follows_a_flush_of_its_own() {
    let Some(folder) = host::with_fuse("each_acknowledgement_follows_a_flush_of_its_own") else { return };
    let device = Mounted::new(&folder, STORE_BYTES);
    device.format(2, stores::EXTENT_BYTES);
    for sync in [SyncMethod::Auto, SyncMethod::Fdatasync, SyncMethod::Dsync] {
        let store = device.open(&options().cores(1).sync(sync)).unwrap();
        append_durable(&store, 0, 0);
        for name in 1..100 {
            let before = device.disk.counts();
            append_durable(&store, 0, name);
            let after = device.disk.counts();
            let flushes = after.syncs - before.syncs + after.writes_through - before.writes_through;
            assert!(flushes > 0, "{sync:?}: acknowledged without a flush");
            assert!(flushes <= 2, "{sync:?}: {flushes} flushes for one acknowledgement");
            assert_eq!(device.disk.cached(), 0, "{sync:?}: acknowledged while in the cache");
        }
        store.close().unwrap();
    }
}

#[test]
fn appends_that_wait_together_share_a_flush() {
    let Some(folder) = host::with_fuse("appends_that_wait_together_share_a_flush") else { return };
    let device = Mounted::new(&folder, STORE_BYTES);
    device.format(2, stores::EXTENT_BYTES);
    let store = device.open(&options()).unwrap();
    let before = device.disk.counts().syncs;
    let tickets: Vec<_> = (0..400)
        .map(|name| store.append_to(Route::Shard(ShardId((name % 2) as u16)), &payload(name)).unwrap())
        .collect();
    assert!(tickets.iter().any(|ticket| !ticket.has_reached(Durability::Durable)));
    for ticket in &tickets {
        ticket.wait(Durability::Durable).unwrap();
    }
    let syncs = device.disk.counts().syncs - before;
    assert!((1..100).contains(&syncs), "{syncs} syncs for 400 acknowledgements");
    store.close().unwrap();
}
