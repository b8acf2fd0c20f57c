//! A process killed in the middle of a format leaves what is no store, and says so, or a whole one; one killed in the
//! middle of opening, again and again, leaves a store that opens to the same (fault matrix rows 2 and 3; P6).
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/host.rs"]
mod host;
#[path = "common/stores.rs"]
mod stores;

use corelog::{FormatOptions, OpenError, ShardId, Store};
use std::{path::Path, process::Stdio, time::Duration};
use stores::{EXTENT_BYTES, append_durable, assert_there, options};

const FORMAT: &str = "a_killed_format_is_not_a_store";
const OPEN: &str = "a_killed_open_changes_nothing_that_counts";

fn format() -> FormatOptions {
    FormatOptions::sized(256 << 20).shards(2).extent_bytes(EXTENT_BYTES).replace()
}

/// Starts this file's test in a process that does its part on `path`, and kills it after a while. True: it was killed.
fn start_and_kill(test: &str, path: &Path, after: Duration) -> bool {
    let mut child = host::start_role(test, path.to_str().unwrap())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(after);
    let is_killed = child.try_wait().unwrap().is_none();
    host::kill(child);
    is_killed
}

#[test]
fn a_killed_format_is_not_a_store() {
    if let Some(path) = host::role() {
        Store::format(&[path], &format()).unwrap();
        return;
    }
    let folder = host::folder();
    let path = folder.path().join("store");
    let (mut none, mut whole) = (0, 0);
    for round in 0..25 {
        // From "not begun" to "done".
        start_and_kill(FORMAT, &path, Duration::from_millis(4 + round * round));
        match Store::open(&path, &options()) {
            Ok(store) => {
                append_durable(&store, 0, 1);
                store.close().unwrap();
                whole += 1;
                // The next one has to begin where nothing is.
                std::fs::remove_file(&path).unwrap();
            }
            Err(OpenError::Superblock { .. }) => none += 1,
            // Killed before it had made the file, or given it its size.
            Err(OpenError::Device(error)) if error.to_string().contains("does not exist") => none += 1,
            Err(error) => panic!("round {round}: {error:?}"),
        }
        // A format over what is left of another works.
    }
    println!("{none} were none, {whole} were whole");
    assert!(none > 0);
    Store::format(&[&path], &format()).unwrap();
    Store::open(&path, &options()).unwrap().close().unwrap();
}

#[test]
fn a_killed_open_changes_nothing_that_counts() {
    if let Some(path) = host::role() {
        // Opened, and never closed; the kill comes sooner or later.
        for _ in 0..1000 {
            let _store = std::mem::ManuallyDrop::new(Store::open(&path, &options()).unwrap());
            std::thread::sleep(Duration::from_secs(1));
        }
        return;
    }
    let folder = host::folder();
    let path = folder.path().join("store");
    Store::format(&[&path], &format().sparse()).unwrap();
    let store = Store::open(&path, &options()).unwrap();
    let acked: Vec<_> = (0..300).map(|name| append_durable(&store, (name % 2) as u16, name)).collect();
    store.close().unwrap();
    drop(store);
    let mut killed = 0;
    for round in 0..30 {
        killed += u32::from(start_and_kill(OPEN, &path, Duration::from_millis(3 + round)));
        if round % 10 == 9 {
            let store = Store::open(&path, &options()).unwrap();
            assert_there(&store, &acked);
            let records = [0, 1].map(|shard| store.scan(ShardId(shard)).unwrap().count());
            assert_eq!(records, [150, 150]);
            drop(store);
        }
    }
    assert_eq!(killed, 30);
}
