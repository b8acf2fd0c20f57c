//! A device without space for a block of a sparse store stops the shard with a name that says so; nothing of it is
//! acknowledged, everything durable is read, and after space was made the store goes on (fault matrix row 14).
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/fuse.rs"]
mod fuse;
#[path = "common/host.rs"]
mod host;
#[path = "common/stores.rs"]
mod stores;

use corelog::{Durability, Route, ShardFailure, ShardId, WaitError};
use disk::{Effect, Fault, Verb};
use fuse::Mounted;
use stores::{HALVES, STORE_BYTES, append_durable, assert_there, options, payload};

#[test]
fn no_space_is_named_and_mended_by_making_some() {
    let Some(folder) = host::with_fuse("no_space_is_named_and_mended_by_making_some") else { return };
    let device = Mounted::new(&folder, STORE_BYTES);
    device.format(2, stores::EXTENT_BYTES);
    let store = device.open(&options()).unwrap();
    let mut acked: Vec<_> = (0..10).map(|name| append_durable(&store, (name % 2) as u16, name)).collect();
    device.disk.add(Fault::always(Verb::Write, Effect::Errno(libc::ENOSPC)).within(HALVES[0].clone()));
    let ticket = store.append_to(Route::Shard(ShardId(0)), &payload(100)).unwrap();
    match ticket.wait(Durability::Durable) {
        Err(WaitError::Failed(ShardFailure::DeviceFull { shard: ShardId(0), .. })) => {}
        other => panic!("{other:?}"),
    }
    acked.push(append_durable(&store, 1, 101));
    assert_there(&store, &acked);
    assert!(store.close().is_err());
    device.disk.mend();
    let store = device.open(&options()).unwrap();
    assert_there(&store, &acked);
    append_durable(&store, 0, 102);
    store.close().unwrap();
}
