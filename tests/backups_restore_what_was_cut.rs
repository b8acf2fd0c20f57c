//! A backup of a running store is its cut, record for record and shard by shard; a store that is made from it holds
//! that; and one that was cut short or changed is refused.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
mod program;

use common::Place;
use corelog::{Backup, BackupReport, FormatOptions, RestoreError, Route, ShardId, Store};
use program::{DAMAGE, FAILED, run, run_with, text_of};
use std::sync::atomic::{AtomicBool, Ordering};

fn format() -> FormatOptions {
    FormatOptions::sized(256 << 20).shards(3).extent_bytes(1 << 20).sparse()
}

/// Records of a shard before a cut; of a large one, all of its bytes.
fn contents(store: &Store, cut: &corelog::Cut, shard: u16) -> Vec<Vec<u8>> {
    let whole = |record: corelog::Record| match record.large_bytes {
        None => record.payload.to_vec(),
        Some(length) => {
            let mut bytes = Vec::new();
            std::io::copy(&mut store.open_large(record.address).unwrap(), &mut bytes).unwrap();
            assert_eq!(bytes.len() as u64, length);
            bytes
        }
    };
    store.scan_cut(cut, ShardId(shard)).unwrap().map(|record| whole(record.unwrap())).collect()
}

fn restored(stream: &[u8], into: &Store) -> Result<BackupReport, RestoreError> {
    Backup::open(stream)?.restore(into)
}

#[test]
fn a_backup_beside_appends_is_the_cut() {
    let (place, other) = (Place::with(&format()), Place::with(&format()));
    let store = Store::open(&place.path, &common::options(2)).unwrap();
    for index in 0..3000 {
        store.append_to(Route::RoundRobin, &common::payload(1, index, (index % 500) as usize)).unwrap();
    }
    for length in [0, 10, 3_000_000] {
        let mut large = store.append_large(Route::Shard(ShardId(1))).unwrap();
        large.append(&common::payload(2, length, length as usize)).unwrap();
        large.finish().unwrap();
    }
    let is_over = AtomicBool::new(false);
    let (cut, stream, report) = std::thread::scope(|scope| {
        let (store, is_over) = (&store, &is_over);
        scope.spawn(move || {
            for index in 0..100_000 {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                store.append_to(Route::RoundRobin, &common::payload(3, index, 200)).unwrap();
            }
        });
        let (cut, mut stream) = (store.cut(), Vec::new());
        let report = store.backup(&cut, &mut stream).unwrap();
        is_over.store(true, Ordering::Relaxed);
        (cut, stream, report)
    });
    assert!(report.records >= 3003, "{report:?}");
    let into = Store::open(&other.path, &common::options(2)).unwrap();
    assert_eq!(restored(&stream, &into).unwrap(), report);
    let all = into.cut();
    for shard in 0..3 {
        let (expected, found) = (contents(&store, &cut, shard), contents(&into, &all, shard));
        assert!(expected == found, "shard {shard}: {} and {} records", expected.len(), found.len());
    }
    for cut_at in [0, 20, 48, 60, stream.len() / 2, stream.len() - 1] {
        let short = restored(&stream[..cut_at], &into).unwrap_err();
        assert!(matches!(short, RestoreError::Truncated), "{cut_at}: {short}");
    }
    for byte in [3, 50, 57, stream.len() / 2, stream.len() - 3] {
        let mut changed = stream.clone();
        changed[byte] ^= 1;
        let refused = restored(&changed, &into).unwrap_err();
        let is_named = matches!(refused, RestoreError::NotABackup | RestoreError::Damaged { .. });
        assert!(is_named || matches!(refused, RestoreError::Truncated), "{byte}: {refused}");
    }
    into.close().unwrap();
    store.close().unwrap();
}

/// Takes a copy, and trims the store as soon as the first bytes come.
struct Trimming<'a> {
    store: &'a Store,
    to: corelog::Address,
    bytes: Vec<u8>,
    held: Option<u64>,
}

impl std::io::Write for Trimming<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.held.is_none() {
            let done = self.store.trim(ShardId(2), self.to).unwrap().wait().unwrap();
            assert_eq!(done.freed, 0);
            self.held = Some(done.held);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_trim_beside_a_backup_frees_nothing_before_it_is_made() {
    let (place, other) = (Place::with(&format()), Place::with(&format()));
    let store = Store::open(&place.path, &common::options(2)).unwrap();
    let route = Route::Shard(ShardId(2));
    let append = |index| store.append_to(route, &common::payload(4, index, 20_000)).unwrap().address();
    let addresses: Vec<_> = (0..500).map(append).collect();
    let cut = store.cut();
    let mut out = Trimming { store: &store, to: addresses[450], bytes: Vec::new(), held: None };
    let report = store.backup(&cut, &mut out).unwrap();
    assert_eq!(report.records, 500);
    let Trimming { bytes: stream, held, .. } = out;
    assert!(held > Some(5), "{held:?}");
    let freed = store.trim(ShardId(2), addresses[450]).unwrap().wait().unwrap().freed;
    assert_eq!(Some(freed), held, "now they are free");
    let into = Store::open(&other.path, &common::options(2)).unwrap();
    assert_eq!(restored(&stream, &into).unwrap(), report);
    assert_eq!(contents(&into, &into.cut(), 2)[0], common::payload(4, 0, 20_000));

    // What was trimmed before is no part of a copy, also of a cut that was made before that.
    let report = store.backup(&cut, &mut Vec::new()).unwrap();
    assert!(report.records >= 50 && report.records < 150, "{report:?}");
}

#[test]
fn a_restore_that_fails_leaves_no_store() {
    let folder = program::folder();
    let store = program::store_in(folder.path());
    let (copy, new) = (folder.path().join("copy"), folder.path().join("new"));
    run_with(&store, "append @ --key record", &text_of(&program::lines(2000))).done();
    run(&store, &format!("backup @ {}", copy.display())).done();
    let bytes = std::fs::read(&copy).unwrap();
    std::fs::write(&copy, &bytes[..bytes.len() / 2]).unwrap();
    let restore = format!("restore {} @ --size 32MiB --sparse", copy.display());
    let names = || std::fs::read_dir(folder.path()).unwrap().count();
    let before = names();
    run(&new, &restore).refused(DAMAGE, &["ends in its middle", "gone again"]);
    assert_eq!(names(), before, "something is left");
    // One that takes the place of another store cannot have a name of its own before.
    std::fs::write(&copy, &bytes).unwrap();
    run(&new, &restore).done();
    std::fs::write(&copy, &bytes[..bytes.len() / 2]).unwrap();
    run(&new, &format!("{restore} --force")).refused(DAMAGE, &["gone again"]);
    run(&new, "cat @").refused(FAILED, &["new", "never formatted"]);
    std::fs::write(&copy, &bytes).unwrap();
    run(&new, &format!("{restore} --force")).done();
    run(&new, "verify @").done();
}

#[test]
fn the_program_backs_up_and_restores() {
    let folder = program::folder();
    let store = program::store_in(folder.path());
    let (copy, new) = (folder.path().join("copy"), folder.path().join("new"));
    let lines = program::lines(2000);
    run_with(&store, "append @ --key record", &text_of(&lines)).done();
    let line = format!("backup @ {} --json", copy.display());
    assert_eq!(run(&store, &line).json()["records"], 2000);
    run(&store, &line).refused(FAILED, &["exists"]);
    let restore = format!("restore {} @ --size 32MiB --sparse", copy.display());
    assert!(run(&new, &restore).done().contains("2_000"));
    assert_eq!(run(&new, "cat @ --shard 1").done(), run(&store, "cat @ --shard 1").done());
    run(&new, "verify @").done();
    let bytes = std::fs::read(&copy).unwrap();
    std::fs::write(&copy, &bytes[..bytes.len() - 5]).unwrap();
    run(&new, &format!("{restore} --force")).refused(DAMAGE, &["ends in its middle"]);
}
