//! Stores that become larger while they are in use: by a file that grows, by one that somebody else made larger, by a
//! further device. Appends that found the store full go on, and what was there before stays where it is.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/host.rs"]
mod host;
#[path = "common/stores.rs"]
mod stores;

use corelog::{
    AppendError, Backend, DeviceIndex, Fill, FormatOptions, GeometryProblem, GrowBy, GrowError,
    GrowthRefusal, Inspection, OpenError, Options, Route, ShardId, Store,
};
use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};
use stores::{Acked, assert_there, payload};

const EXTENT: u64 = 256 << 10;

fn bytes(extents: u64) -> u64 {
    (1 << 20) + extents * EXTENT
}

fn options() -> Options {
    stores::options().buffer_bytes(16 << 10)
}

fn formatted(folder: &Path, extents: u64) -> PathBuf {
    let path = folder.join("store");
    Store::format(&[&path], &FormatOptions::sized(bytes(extents)).shards(2).extent_bytes(EXTENT).sparse())
        .unwrap();
    path
}

/// Appends to both shards until they are full; at least some records.
fn fill(store: &Store, first: u64) -> Vec<Acked> {
    let mut acked = Vec::new();
    let mut full = [false; 2];
    for name in first.. {
        let shard = (name % 2) as u16;
        match store.append_to(Route::Shard(ShardId(shard)), &payload(name)) {
            Ok(ticket) => acked.push(Acked { name, address: ticket.address() }),
            Err(AppendError::StoreFull { .. }) => full[usize::from(shard)] = true,
            Err(error) => panic!("{error}"),
        }
        if full == [true; 2] {
            break;
        }
    }
    store.sync().unwrap();
    acked
}

fn larger(bytes: Option<u64>) -> GrowBy {
    GrowBy::Device { device: DeviceIndex(0), bytes }
}

fn further(path: &Path, extents: u64) -> GrowBy {
    GrowBy::NewDevice { path: path.to_owned(), bytes: Some(bytes(extents)), replace: false }
}

fn verified(paths: &[&Path]) {
    let inspection = Inspection::open(paths, &options()).unwrap();
    let report = inspection.verify(None, &mut |_, _| {}).unwrap();
    assert!(report.findings.is_empty(), "{report:?}");
}

/// Full, larger by the call, full again, larger by somebody else, full again, and a second device; reopened, closed or
/// not, in between.
#[test]
fn a_full_store_grows_and_takes_appends_again() {
    for (backend, fill_with) in [(Backend::IoUring, Fill::Sparse), (Backend::Threads, Fill::Zeros)] {
        let folder = host::folder();
        let path = formatted(folder.path(), 8);
        let second = folder.path().join("second");
        let options = options().backend(backend);
        let mut store = Store::open(&path, &options).unwrap();
        let mut acked = fill(&store, 0);
        for (round, by) in
            [larger(Some(bytes(14))), larger(None), further(&second, 9)].into_iter().enumerate()
        {
            if round == 1 {
                std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(bytes(20) + 77).unwrap();
            }
            let extents = store.directory().extents.len();
            let grown = store.grow(&by, fill_with, &mut |done, all| assert!(done <= all)).unwrap();
            assert_eq!(u64::from(grown.extents), [6, 6, 9][round], "round {round}: {grown:?}");
            assert_eq!(grown.store_extents, extents + grown.extents);
            let more = fill(&store, 1 << 32 | (round as u64) << 20);
            assert!(more.len() > 500, "round {round}: {} records", more.len());
            acked.extend(more);
            assert_there(&store, &acked);
            let paths: &[&Path] = if round < 2 { &[&path] } else { &[&second, &path] };
            if round % 2 == 0 {
                store.close().unwrap();
            }
            drop(store);
            verified(paths);
            store = Store::open_all(paths, &options).unwrap();
            assert_eq!(store.directory().extents.len(), extents + grown.extents);
            assert_there(&store, &acked);
        }
        drop(store);
        let alone = Store::open(&path, &options).unwrap_err();
        let OpenError::Geometry { problem, .. } = &alone else { panic!("{alone}") };
        assert_eq!(*problem, GeometryProblem::DeviceCount { found: 1, expected: 2 });
        std::fs::OpenOptions::new().write(true).open(&second).unwrap().set_len(bytes(3)).unwrap();
        let cut = Store::open_all(&[&path, &second], &options).unwrap_err();
        assert!(matches!(cut, OpenError::Geometry { problem: GeometryProblem::Shorter { .. }, .. }), "{cut}");
    }
}

/// Appends go on in four threads while the store grows over and over, by larger files and further ones.
#[test]
fn growth_stops_nobody() {
    let folder = host::folder();
    let path = formatted(folder.path(), 8);
    let store = Store::open(&path, &options()).unwrap();
    let is_over = AtomicBool::new(false);
    let acked = std::thread::scope(|scope| {
        let (is_over, store) = (&is_over, &store);
        let threads: Vec<_> = (0..4_u64)
            .map(|thread| {
                scope.spawn(move || {
                    let mut acked = Vec::new();
                    for count in 0.. {
                        let name = thread << 32 | count;
                        match store.append_to(Route::Key(name), &payload(name)) {
                            Ok(ticket) => acked.push(Acked { name, address: ticket.address() }),
                            Err(AppendError::StoreFull { .. }) if is_over.load(Ordering::Relaxed) => break,
                            Err(AppendError::StoreFull { .. }) => std::thread::yield_now(),
                            Err(error) => panic!("{error}"),
                        }
                    }
                    acked
                })
            })
            .collect();
        let grow = |round: u64| {
            let by = match round % 3 {
                2 => further(&folder.path().join(format!("device {round}")), 6),
                _ => larger(Some(bytes(8 + 4 * (round + 1)))),
            };
            store.grow(&by, Fill::Sparse, &mut |_, _| {})
        };
        let failed = (0..12).map(grow).find(Result::is_err);
        // Before anything else: who appends goes on until then.
        is_over.store(true, Ordering::Relaxed);
        assert!(failed.is_none(), "{failed:?}");
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    store.sync().unwrap();
    assert_there(&store, &acked);
    let all: Vec<_> = store.scan_all().unwrap().map(|record| record.unwrap()).collect();
    assert_eq!(all.len(), acked.len());
    let devices = store.directory().layout.runs().map(|run| run.device.0).max();
    assert_eq!(devices, Some(4));
    store.close().unwrap();
}

#[test]
fn what_cannot_be_is_named_and_changes_nothing() {
    let folder = host::folder();
    let path = formatted(folder.path(), 8);
    let store = Store::open(&path, &options()).unwrap();
    let grow = |by: &GrowBy| store.grow(by, Fill::Sparse, &mut |_, _| {}).unwrap_err();
    let nothing = grow(&larger(None));
    assert!(matches!(nothing, GrowError::Refused(GrowthRefusal::TooSmall { .. })), "{nothing}");
    let shrunk = grow(&larger(Some(bytes(4))));
    assert!(matches!(shrunk, GrowError::Refused(GrowthRefusal::Shrunk { .. })), "{shrunk}");
    let unknown = grow(&GrowBy::Device { device: DeviceIndex(3), bytes: None });
    assert!(unknown.to_string().contains("no device 3"), "{unknown}");
    let own = grow(&GrowBy::NewDevice { path: path.clone(), bytes: Some(bytes(2)), replace: true });
    assert!(own.to_string().contains("locked"), "{own}");
    let other = folder.path().join("something");
    std::fs::write(&other, b"else").unwrap();
    let occupied = grow(&further(&other, 4));
    assert!(occupied.to_string().contains("exists"), "{occupied}");
    let tiny = grow(&further(&folder.path().join("tiny"), 0));
    assert!(matches!(tiny, GrowError::Refused(GrowthRefusal::TooSmall { .. })), "{tiny}");
    assert!(!folder.path().join("tiny").exists());
    assert_eq!(store.directory().extents.len(), 8);
    store.close().unwrap();
    let closed = grow(&larger(Some(bytes(12))));
    assert!(matches!(closed, GrowError::Closed), "{closed}");
}

/// A growth that meets a close has grown the store, or says that it is closed and leaves it as it was; and the close is one.
#[test]
fn growth_beside_a_close_is_done_or_refused() {
    let mut outcomes = [0; 2];
    for round in 0..16_u64 {
        let folder = host::folder();
        let path = formatted(folder.path(), 8);
        let second = folder.path().join("second");
        let store = Store::open(&path, &options()).unwrap();
        let acked = fill(&store, 0);
        let by = if round.is_multiple_of(2) { larger(Some(bytes(12))) } else { further(&second, 4) };
        let grown = std::thread::scope(|scope| {
            let growing = scope.spawn(|| store.grow(&by, Fill::Sparse, &mut |_, _| {}));
            // From at once to after it.
            std::thread::sleep(std::time::Duration::from_micros(round * 400));
            store.close().unwrap();
            growing.join().unwrap()
        });
        drop(store);
        let is_grown = match grown {
            Ok(_) => true,
            Err(GrowError::Closed) => false,
            Err(error) => panic!("{error}"),
        };
        outcomes[usize::from(is_grown)] += 1;
        let paths: Vec<&Path> = if is_grown && round % 2 == 1 { vec![&path, &second] } else { vec![&path] };
        let store = Store::open_all(&paths, &options()).unwrap();
        assert_eq!(store.directory().extents.len(), if is_grown { 12 } else { 8 }, "round {round}");
        assert!(store.recovery().clean, "round {round}: the close did not say so");
        assert_there(&store, &acked);
        store.close().unwrap();
        verified(&paths);
    }
    println!("{} closed first, {} grew", outcomes[0], outcomes[1]);
}

/// The process died when the further device had its superblock and the first one had not: the store has the new size
/// with both, and the old size without the further one, which then is no part of it any more.
#[test]
fn half_a_growth_is_one_or_none() {
    let folder = host::folder();
    let path = formatted(folder.path(), 8);
    let second = folder.path().join("second");
    let store = Store::open(&path, &options()).unwrap();
    let acked = fill(&store, 0);
    let before = std::fs::read(&path).unwrap();
    let _grown = store.grow(&further(&second, 4), Fill::Sparse, &mut |_, _| {}).unwrap();
    let begun = std::fs::read(&second).unwrap();
    drop(store);
    std::fs::write(&path, &before).unwrap();
    std::fs::write(&second, &begun).unwrap();
    let store = Store::open_all(&[&second, &path], &options()).unwrap();
    assert_eq!(store.directory().extents.len(), 12, "it is the new size");
    assert_there(&store, &acked);
    drop(store);
    std::fs::write(&path, &before).unwrap();
    std::fs::write(&second, &begun).unwrap();
    let store = Store::open(&path, &options()).unwrap();
    assert_eq!(store.directory().extents.len(), 8, "it is the old size");
    assert_there(&store, &acked);
    // As if this one had been killed: its superblock has the number that the growth had given.
    let opened = std::fs::read(&path).unwrap();
    drop(store);
    let refused = || Store::open_all(&[&path, &second], &options()).unwrap_err();
    let late = refused();
    assert!(
        matches!(late, OpenError::Geometry { problem: GeometryProblem::DeviceCount { .. }, .. }),
        "{late}"
    );
    std::fs::write(&path, &opened).unwrap();
    let tie = refused();
    assert!(matches!(tie, OpenError::Superblock { .. }) && tie.to_string().contains("differ"), "{tie}");
}
