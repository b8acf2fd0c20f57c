//! A device that fails a write stops the shard that made it, with the place in the error; the others append, and
//! everything durable can be read (fault matrix rows 10 and 13; P5, P7).
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/fuse.rs"]
mod fuse;
#[path = "common/host.rs"]
mod host;
#[path = "common/stores.rs"]
mod stores;

use corelog::{AppendError, Durability, Route, ShardFailure, ShardId, Store, WaitError};
use disk::{Effect, Fault, Verb};
use fuse::Mounted;
use stores::{HALVES, STORE_BYTES, append_durable, assert_there, options};

fn fail_the_first_shard(test: &str, times: u64) {
    let Some(folder) = host::with_fuse(test) else { return };
    let device = Mounted::new(&folder, STORE_BYTES);
    device.format(2, stores::EXTENT_BYTES);
    let store = device.open(&options()).unwrap();
    let mut acked: Vec<_> = (0..20).map(|name| append_durable(&store, (name % 2) as u16, name)).collect();

    let fault = Fault { times, ..Fault::always(Verb::Write, Effect::Errno(libc::EIO)) };
    device.disk.add(fault.within(HALVES[0].clone()));
    let ticket = store.append_to(Route::Shard(ShardId(0)), b"lost").unwrap();
    let failure = match ticket.wait(Durability::Durable) {
        Err(WaitError::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    };
    assert_names_the_place(&failure, &store);
    assert_eq!(ticket.wait(Durability::Written).unwrap_err(), WaitError::Failed(failure.clone()));

    for name in 100..140 {
        let refused = store.append_to(Route::Shard(ShardId(0)), b"refused").unwrap_err();
        assert_eq!(refused, AppendError::Failed(failure.clone()), "the first failure is the one that counts");
        acked.push(append_durable(&store, 1, name));
    }
    assert_there(&store, &acked);
    assert_eq!(store.failure(ShardId(0)), Some(failure));
    assert_eq!(store.failure(ShardId(1)), None);
    assert!(store.close().is_err(), "closing tells of the failure");

    device.disk.mend();
    let store = device.open(&options()).unwrap();
    assert_there(&store, &acked);
    append_durable(&store, 0, 1000);
    store.close().unwrap();
}

fn assert_names_the_place(failure: &ShardFailure, store: &Store) {
    let ShardFailure::Io { shard, verb, slot, slots, errno, .. } = failure else { panic!("{failure:?}") };
    assert_eq!((shard.0, verb.to_string().as_str(), errno.0), (0, "write", libc::EIO));
    let offset = store.directory().layout.place(*slot).unwrap().offset;
    assert!(*slots > 0 && HALVES[0].contains(&offset), "{failure}");
}

#[test]
fn a_write_that_fails_for_ever() {
    fail_the_first_shard("a_write_that_fails_for_ever", u64::MAX);
}

/// The driver below has tried again already: one failure counts as much as many.
#[test]
fn a_write_that_fails_once() {
    fail_the_first_shard("a_write_that_fails_once", 1);
}
