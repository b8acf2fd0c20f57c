//! A sync that failed is never made good by a later one: whatever it should have covered is not acknowledged, on any
//! shard, although the device says afterwards that all is well (fault matrix row 11; P1, P5).
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/fuse.rs"]
mod fuse;
#[path = "common/host.rs"]
mod host;
#[path = "common/stores.rs"]
mod stores;

use corelog::{AppendError, Durability, Route, ShardFailure, ShardId, WaitError};
use disk::{Effect, Fault, Verb};
use fuse::Mounted;
use stores::{Acked, STORE_BYTES, append_durable, assert_there, options, payload};

#[test]
fn the_shard_that_synced_stops() {
    let Some(folder) = host::with_fuse("the_shard_that_synced_stops") else { return };
    let device = Mounted::new(&folder, STORE_BYTES);
    device.format(2, stores::EXTENT_BYTES);
    let store = device.open(&options()).unwrap();
    let acked: Vec<_> = (0..10).map(|name| append_durable(&store, (name % 2) as u16, name)).collect();

    device.disk.add(Fault::once(Verb::Sync, Effect::Errno(libc::EIO)));
    let ticket = store.append_to(Route::Shard(ShardId(0)), b"not durable").unwrap();
    let failure = match ticket.wait(Durability::Durable) {
        Err(WaitError::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    };
    assert!(matches!(failure, ShardFailure::Io { errno, .. } if errno.0 == libc::EIO), "{failure}");
    let syncs = device.disk.counts().syncs;
    assert_eq!(ticket.wait(Durability::Durable), Err(WaitError::Failed(failure.clone())));
    let refused = store.append_to(Route::Shard(ShardId(0)), b"refused").unwrap_err();
    assert_eq!(refused, AppendError::Failed(failure));
    assert_eq!(device.disk.counts().syncs, syncs, "the sync is not tried again");
    // Nothing of the other shard was at stake.
    append_durable(&store, 1, 11);
    assert_there(&store, &acked);

    assert!(store.close().is_err());
    device.disk.cut_power_and_lose_the_cache();
    device.disk.restore_power();
    let store = device.open(&options()).unwrap();
    assert_there(&store, &acked);
    store.close().unwrap();
}

/// Two cores sync the same device. The failed sync of the first lost what the second had written, and the next sync of
/// the second succeeded, since the host tells of a failure once: the second acknowledged what was gone.
#[test]
fn what_another_shard_wrote_before_is_not_acknowledged() {
    let test = "what_another_shard_wrote_before_is_not_acknowledged";
    let Some(folder) = host::with_fuse(test) else { return };
    let device = Mounted::new(&folder, STORE_BYTES);
    device.format(2, stores::EXTENT_BYTES);
    let store = device.open(&options()).unwrap();
    let mut acked: Vec<_> = (0..10).map(|name| append_durable(&store, (name % 2) as u16, name)).collect();

    let second = store.append_to(Route::Shard(ShardId(1)), &payload(100)).unwrap();
    second.wait(Durability::Written).unwrap();
    device.disk.add(Fault::once(Verb::Sync, Effect::Errno(libc::EIO)));
    let first = store.append_to(Route::Shard(ShardId(0)), &payload(101)).unwrap();
    assert!(matches!(first.wait(Durability::Durable), Err(WaitError::Failed(_))));
    if second.wait(Durability::Durable).is_ok() {
        acked.push(Acked { name: 100, address: second.address() });
    }
    let _failed = store.close();
    device.disk.cut_power_and_lose_the_cache();
    device.disk.restore_power();
    let store = device.open(&options()).unwrap();
    assert_there(&store, &acked);
}
