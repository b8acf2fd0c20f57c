//! A record that is gathered from pieces, or written in place, is a record like any other: it takes exactly its bytes,
//! is read and scanned as such, and holds up the closing of the store until it is done.
#![expect(clippy::unwrap_used, reason = "tests")]

use corelog::{AppendError, AppendPath, CloseError, Durability, FormatOptions, Options, Route, Store};
use std::{io::IoSlice, panic::AssertUnwindSafe, time::Duration};

fn open(folder: &tempfile::TempDir, options: &Options) -> Store {
    let path = folder.path().join("store");
    if !path.exists() {
        Store::format(&[&path], &FormatOptions::sized(16 << 20).shards(1).extent_bytes(1 << 20).sparse())
            .unwrap();
    }
    Store::open(&path, options).unwrap()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

#[test]
fn pieces_become_one_record_on_every_path() {
    for path in [AppendPath::Direct, AppendPath::Routed] {
        let folder = folder();
        let store = open(&folder, &Options { append: path, ..Options::default().cores(1) });
        let lists: [&[&[u8]]; 4] = [&[], &[b""], &[b"one"], &[b"a", b"", b"bcdefgh", b"ijk"]];
        let mut tickets = Vec::new();
        for list in lists {
            let pieces: Vec<_> = list.iter().map(|piece| IoSlice::new(piece)).collect();
            tickets.push((store.append_vectored(Route::Local, &pieces).unwrap(), list.concat()));
        }
        for (ticket, whole) in &tickets {
            ticket.wait(Durability::Durable).unwrap();
            assert_eq!(store.read(ticket.address()).unwrap(), *whole);
        }
        let long = vec![1; store.record_bytes_max() as usize];
        let pieces = [IoSlice::new(&long), IoSlice::new(b"x")];
        let error = store.append_vectored(Route::Local, &pieces).unwrap_err();
        assert!(matches!(error, AppendError::TooLarge { .. }), "{error}");
        let scanned: Vec<_> =
            store.scan(corelog::ShardId(0)).unwrap().map(|record| record.unwrap().payload.to_vec()).collect();
        assert_eq!(scanned, tickets.into_iter().map(|(_, whole)| whole).collect::<Vec<_>>());
    }
}

#[test]
fn a_reservation_lends_its_bytes_and_may_end_shorter() {
    let folder = folder();
    let store = open(&folder, &Options::default().cores(1));
    let mut expected = Vec::new();
    for (reserved, used) in [(100, 100), (100, 99), (100, 96), (100, 3), (9, 0), (1000, 500), (0, 0)] {
        let mut reservation = store.reserve(Route::Local, reserved).unwrap();
        assert_eq!((reservation.len(), reservation.payload_mut().len()), (reserved, reserved));
        reservation.payload_mut().fill(0xab);
        let ticket = reservation.commit_shorter(used);
        expected.push((ticket.address(), vec![0xab; used]));
    }
    drop(store.reserve(Route::Local, 50).unwrap());
    let overrun = std::panic::catch_unwind(AssertUnwindSafe(|| {
        store.reserve(Route::Local, 8).unwrap().commit_shorter(9).id()
    }));
    assert!(overrun.is_err(), "a commit beyond what was reserved");
    let error = store.reserve(Route::Local, usize::MAX).unwrap_err();
    assert!(matches!(error, AppendError::TooLarge { .. }), "{error}");
    store.sync().unwrap();
    store.close().unwrap();

    let store = open(&folder, &Options::default().cores(1));
    for (address, payload) in &expected {
        assert_eq!(store.read(*address).unwrap(), *payload);
    }
    let scanned: Vec<_> = store
        .scan(corelog::ShardId(0))
        .unwrap()
        .map(|record| record.map(|record| (record.address, record.payload.to_vec())).unwrap())
        .collect();
    assert_eq!(scanned, expected);
}

#[test]
fn closing_waits_for_a_reservation() {
    let folder = folder();
    let store = open(&folder, &Options::default().cores(1));
    let mut reservation = store.reserve(Route::Local, 4).unwrap();
    let closing = std::thread::spawn({
        let store = store.clone();
        move || store.close()
    });
    while store.try_append(Route::Local, b"x").is_ok() {
        std::thread::sleep(Duration::from_millis(1));
    }
    // The ring is closed, and only we hold up the cores.
    assert!(!closing.is_finished());
    reservation.payload_mut().copy_from_slice(b"late");
    let address = reservation.commit().address();
    closing.join().unwrap().unwrap();
    drop(store);
    let store = open(&folder, &Options::default().cores(1));
    assert_eq!(store.read(address).unwrap(), "late");
}

/// Closing gave its devices back when it gave up, and the core that closed later had none to write the superblock to.
#[test]
fn closing_gives_up_on_a_reservation_and_the_store_closes_once_it_is_done() {
    let folder = folder();
    let limit = Duration::from_millis(30);
    let store = open(&folder, &Options::default().cores(2).close_wait(limit));
    let before = store.append(b"before").unwrap().address();
    let mut reservation = store.reserve(Route::Local, 4).unwrap();
    for _ in 0..2 {
        let stalled = store.close().unwrap_err();
        assert!(matches!(stalled, CloseError::Stalled { waited } if waited == limit), "{stalled}");
    }
    let refused = store.append(b"after").unwrap_err();
    assert!(matches!(refused, AppendError::Closed), "{refused}");
    reservation.payload_mut().copy_from_slice(b"late");
    let address = reservation.commit().address();
    let closed = (0..1000).find_map(|_| store.close().ok());
    assert!(closed.is_some(), "it does not close");
    drop(store);
    let store = open(&folder, &Options::default().cores(2));
    assert!(store.recovery().shards.iter().all(|shard| shard.tail.kind == corelog::TailKind::Clean));
    assert_eq!(store.read(before).unwrap(), "before");
    assert_eq!(store.read(address).unwrap(), "late");
}
