//! A superblock that could not be written retires nothing: the shard goes on, as far as anybody was told, and can be retired
//! once the device is mended. If the process dies before, the next open finds it retired, or not.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/fuse.rs"]
mod fuse;
#[path = "common/host.rs"]
mod host;
#[path = "common/stores.rs"]
mod stores;

use corelog::{AppendError, RetireError, Route, ShardId, Store};
use corelog_shards::limits::SUPERBLOCK_AREA_BYTES;
use disk::{Effect, Fault, Verb};
use fuse::Mounted;
use stores::{STORE_BYTES, append_durable, assert_there, options};

const SHARD: ShardId = ShardId(1);

fn refused(store: &Store) -> bool {
    matches!(store.append_to(Route::Shard(SHARD), b"no"), Err(AppendError::Retired { .. }))
}

#[test]
fn it_goes_on_and_is_retired_later() {
    let Some(folder) = host::with_fuse("it_goes_on_and_is_retired_later") else { return };
    let device = Mounted::new(&folder, STORE_BYTES);
    device.format(2, stores::EXTENT_BYTES);
    let store = device.open(&options()).unwrap();
    let mut acked: Vec<_> = (0..20).map(|name| append_durable(&store, (name % 2) as u16, name)).collect();
    let fault = Fault::always(Verb::Write, Effect::Errno(libc::EIO));
    device.disk.add(fault.within(0..SUPERBLOCK_AREA_BYTES));
    for name in 20..23 {
        let error = store.retire_shard(SHARD).unwrap_err();
        assert!(matches!(error, RetireError::File(_)), "{error}");
        assert_eq!(store.is_retired(SHARD), Some(false));
        acked.push(append_durable(&store, 1, name));
    }
    device.disk.mend();
    store.retire_shard(SHARD).unwrap();
    assert!(refused(&store));
    store.close().unwrap();
    drop(store);
    let store = device.open(&options()).unwrap();
    assert!(refused(&store) && store.is_retired(SHARD) == Some(true));
    assert_there(&store, &acked);
    store.close().unwrap();
}

/// The first copies of the superblock were written, and the rest was not: the one that closes the store has a number of
/// its own, and the shard takes appends again, or does not, and holds what it held.
#[test]
fn one_that_was_written_in_part_makes_no_store_that_cannot_be_opened() {
    let test = "one_that_was_written_in_part_makes_no_store_that_cannot_be_opened";
    let Some(folder) = host::with_fuse(test) else { return };
    for (verb, times) in [(Verb::Write, 1), (Verb::Write, 2), (Verb::Sync, 1)] {
        let device = Mounted::new(&folder, STORE_BYTES);
        device.format(2, stores::EXTENT_BYTES);
        let store = device.open(&options()).unwrap();
        let acked: Vec<_> = (0..20).map(|name| append_durable(&store, (name % 2) as u16, name)).collect();
        let fault = Fault { times, ..Fault::always(verb, Effect::Errno(libc::EIO)) };
        device.disk.add(if matches!(verb, Verb::Sync) {
            fault
        } else {
            fault.within(0..SUPERBLOCK_AREA_BYTES)
        });
        let error = store.retire_shard(SHARD).unwrap_err();
        assert!(matches!(error, RetireError::File(_)), "{error}");
        device.disk.mend();
        // Without another superblock: as a process leaves it that is killed.
        let image = store.close();
        drop((image, store));
        let store = device.open(&options()).unwrap();
        assert_eq!(refused(&store), store.is_retired(SHARD).unwrap());
        assert_there(&store, &acked);
        store.close().unwrap();
    }
}
