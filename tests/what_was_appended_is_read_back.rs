//! Records that were appended come back by address, before and after they are flushed, and after a reopen.
#![expect(clippy::unwrap_used, reason = "tests")]

use corelog::{AppendError, Durability, FormatOptions, Options, Route, Store};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

#[test]
fn a_record_is_read_from_the_buffer_then_from_the_device_then_after_a_reopen() {
    let folder = folder();
    let path = folder.path().join("store");
    Store::format(&[&path], &FormatOptions::sized(64 << 20).shards(2).extent_bytes(4 << 20)).unwrap();
    let store = Store::open(&path, &Options::default().cores(2)).unwrap();
    let ticket = store.append(b"hello").unwrap();
    assert_eq!(&store.read(ticket.address()).unwrap()[..], b"hello");
    ticket.wait(Durability::Durable).unwrap();
    assert_eq!(&store.read(ticket.address()).unwrap()[..], b"hello");
    let mut addresses = Vec::new();
    for index in 0..20_000_u32 {
        let payload = index.to_le_bytes().repeat(index as usize % 300);
        addresses.push((store.append_to(Route::RoundRobin, &payload).unwrap().id(), payload));
    }
    store.sync().unwrap();
    for (id, payload) in addresses.iter().step_by(7) {
        assert!(store.ticket(*id).unwrap().has_reached(Durability::Durable));
        assert_eq!(store.read(id.address).unwrap(), payload);
    }
    let address = ticket.address();
    // A handle that outlives the close does not keep the lock.
    store.close().unwrap();
    let closed = store;
    let store = Store::open(&path, &Options::default().cores(2)).unwrap();
    assert_eq!(closed.append(b"late").unwrap_err(), AppendError::Closed);
    assert!(store.recovery().clean, "{:?}", store.recovery());
    assert_eq!(&store.read(address).unwrap()[..], b"hello");
    for (id, payload) in addresses.iter().step_by(13) {
        assert_eq!(store.read(id.address).unwrap(), payload);
    }
}
