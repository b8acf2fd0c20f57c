//! A whole store on a block device (a loop device with direct I/O): formatted, filled, its process killed with -9,
//! opened again and compared, several times over; and a second process is locked out meanwhile (fault matrix rows 1
//! and 33 on a block device).
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/host.rs"]
mod host;
#[path = "common/stores.rs"]
mod stores;

use corelog::{Durability, FormatOptions, OpenError, Options, Route, ShardId, Store};
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::Stdio,
    time::Duration,
};
use stores::{EXTENT_BYTES, STORE_BYTES, append_durable, assert_there, payload};

const TEST: &str = "what_was_acknowledged_survives_kills";

fn options() -> Options {
    stores::options()
}

/// The process that is killed: says each acknowledgement on standard output.
fn append_for_ever(path: &Path) {
    let store = Store::open(path, &options()).unwrap();
    let life = store.term().0;
    for count in 0.. {
        let name = life << 32 | count;
        let ticket = store.append_to(Route::Shard(ShardId((count % 2) as u16)), &payload(name)).unwrap();
        if count % 5 == 0 {
            ticket.wait(Durability::Durable).unwrap();
            let line = format!("{name} {}\n", ticket.address());
            std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
            // So that no device is so fast that the store is full before the kill.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn what_was_acknowledged_survives_kills() {
    if let Some(path) = host::role() {
        return append_for_ever(Path::new(&path));
    }
    let Some(folder) = host::in_child(TEST, &host::As::RootWithOwnMounts) else { return };
    let image = folder.join("image");
    std::fs::write(&image, vec![0; STORE_BYTES as usize]).unwrap();
    let Some(device) = host::Loop::new(TEST, &image) else { return };
    let format = FormatOptions { size_bytes: None, ..FormatOptions::default() };
    Store::format(&[&device.path], &format.shards(2).extent_bytes(EXTENT_BYTES)).unwrap();
    let mut acked = Vec::new();
    for round in 0..5 {
        let mut child = host::start_role(TEST, device.path.to_str().unwrap())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let reader = std::thread::spawn(move || {
            let parse = |line: String| {
                let (name, address) = line.split_once(' ')?;
                Some(stores::Acked { name: name.parse().ok()?, address: address.parse().ok()? })
            };
            output.lines().map_while(Result::ok).filter_map(parse).collect::<Vec<_>>()
        });
        std::thread::sleep(Duration::from_millis(150 + 40 * round));
        if round == 2 {
            let locked = Store::open(&device.path, &options()).unwrap_err();
            assert!(
                matches!(locked, OpenError::Device(_)) && locked.to_string().contains("locked"),
                "{locked}"
            );
        }
        host::kill(child);
        acked.extend(reader.join().unwrap());
        let store = Store::open(&device.path, &options()).unwrap();
        assert!(
            store.warnings().iter().all(|warning| !warning.breaks_durability()),
            "{:?}",
            store.warnings()
        );
        assert_there(&store, &acked);
        append_durable(&store, 0, 1 << 60 | round);
        store.close().unwrap();
    }
    assert!(acked.len() > 20, "{}", acked.len());
}
