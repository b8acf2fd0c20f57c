//! A store does not survive a fork in the child: there it says so, whatever is asked of it, and the parent's goes on as
//! if nothing had been; a store that the child opens itself works (fault matrix row 32).
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/host.rs"]
mod host;
#[path = "common/kernel.rs"]
mod kernel;
#[path = "common/stores.rs"]
mod stores;

use corelog::{
    AppendError, CloseError, Durability, FormatOptions, ReadError, Route, ShardFailure, ShardId, Store, Turn,
    WaitError,
};
use stores::{EXTENT_BYTES, STORE_BYTES, append_durable, assert_there, options, payload};

fn format(path: &std::path::Path) {
    let options = FormatOptions::sized(STORE_BYTES).shards(2).extent_bytes(EXTENT_BYTES).sparse();
    Store::format(&[path], &options).unwrap();
}

const fn is_forked(failure: &ShardFailure) -> bool {
    matches!(failure, ShardFailure::Forked { .. })
}

#[test]
fn a_child_can_do_nothing_with_its_parents_store() {
    let folder = host::folder();
    let path = folder.path().join("store");
    let other = folder.path().join("other");
    format(&path);
    format(&other);
    let store = Store::open(&path, &options().cache_bytes(1 << 20)).unwrap();
    let mut acked: Vec<_> = (0..10).map(|name| append_durable(&store, (name % 2) as u16, name)).collect();
    store.read(acked[0].address).unwrap();
    let ticket = store.append_to(Route::Shard(ShardId(0)), &payload(10)).unwrap();

    let code = kernel::in_fork(|| {
        let appended = store.append_to(Route::Shard(ShardId(1)), b"of the child");
        assert!(matches!(appended, Err(AppendError::Failed(failure)) if is_forked(&failure)));
        let waited = ticket.wait(Durability::Durable);
        assert!(matches!(waited, Err(WaitError::Failed(failure)) if is_forked(&failure)));
        assert!(matches!(store.flush(ShardId(1), Durability::Durable), Ok(()) | Err(WaitError::Failed(_))));
        assert_eq!(store.read_cached(acked[0].address), None);
        assert_eq!(store.read(acked[0].address), Err(ReadError::Forked));
        assert!(matches!(store.close(), Err(CloseError::Failed(failure)) if is_forked(&failure)));
        let handle = store.clone();
        drop(handle);
        let own = Store::open(&other, &options()).unwrap();
        append_durable(&own, 0, 1);
        own.close().is_ok()
    });
    assert_eq!(code, 0);

    ticket.wait(Durability::Durable).unwrap();
    acked.extend((100..200).map(|name| append_durable(&store, (name % 2) as u16, name)));
    assert_there(&store, &acked);
    store.close().unwrap();
    let store = Store::open(&path, &options()).unwrap();
    assert_there(&store, &acked);
    assert_eq!(store.scan(ShardId(0)).unwrap().count() + store.scan(ShardId(1)).unwrap().count(), 111);
    store.close().unwrap();
}

#[test]
fn a_child_turns_no_core_of_its_parent() {
    let folder = host::folder();
    let path = folder.path().join("store");
    format(&path);
    let mut opening = Store::open_owned(&[&path], &options().cores(1)).unwrap();
    let seat = opening.take_seats().remove(0);
    let mut core = seat.start().unwrap();
    let store = opening.store().unwrap();
    let _from_now_on_this_thread_is_known_to_drive_it = core.turn();
    let ticket = store.try_append(Route::Local, payload(1)).unwrap();
    let code = kernel::in_fork(|| {
        core.wait(None);
        core.turn() == Turn::Closed && !core.close(std::time::Duration::from_secs(1))
    });
    assert_eq!(code, 0);
    core.run_until(|| {
        // Asks for it, and says that it cannot wait on this thread.
        let _asked = ticket.wait(Durability::Durable);
        ticket.has_reached(Durability::Durable)
    });
    assert!(ticket.has_reached(Durability::Durable));
    assert!(core.close(std::time::Duration::from_secs(10)));
}
