//! A store that a released version wrote opens for ever, with every record in its place.
//!
//! `tests/golden/` has one image per format version, without its zeros, and a list of what is in it. To make those of
//! a new version: `CORELOG_WRITE_GOLDEN=1 cargo test --test stores_of_released_versions_open`, once, when the version
//! is released; an image that is there is never written again.
#![expect(clippy::unwrap_used, reason = "tests")]

use corelog::{Address, Durability, FormatOptions, Options, ReadError, Route, ShardId, Store};
use std::{
    fs,
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

const SECTOR: usize = 512;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn options() -> Options {
    Options::default().cores(2).buffer_bytes(16 << 10).buffers(4)
}

/// The image without its zeros: runs of sectors, each behind its offset and length.
fn pack(image: &[u8]) -> Vec<u8> {
    let mut packed = (image.len() as u64).to_le_bytes().to_vec();
    let mut at = 0;
    while at < image.len() {
        let is_zero = |at: usize| image[at..(at + SECTOR).min(image.len())].iter().all(|byte| *byte == 0);
        if is_zero(at) {
            at += SECTOR;
            continue;
        }
        let start = at;
        while at < image.len() && !is_zero(at) {
            at += SECTOR;
        }
        packed.extend((start as u64).to_le_bytes());
        packed.extend(((at - start) as u64).to_le_bytes());
        packed.extend(&image[start..at]);
    }
    packed
}

fn unpack(packed: &[u8], path: &Path) {
    let number = |at: usize| u64::from_le_bytes(packed[at..at + 8].try_into().unwrap());
    let file = fs::File::create(path).unwrap();
    file.set_len(number(0)).unwrap();
    let mut at = 8;
    while at < packed.len() {
        let (offset, length) = (number(at), number(at + 8) as usize);
        file.write_all_at(&packed[at + 16..at + 16 + length], offset).unwrap();
        at += 16 + length;
    }
    file.sync_all().unwrap();
}

fn payload(index: usize) -> Vec<u8> {
    (0..index * index % 3000).map(|at| (index * 7 + at) as u8).collect()
}

fn write_golden(version: u32) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("store");
    Store::format(&[&path], &FormatOptions::sized(3 << 20).shards(2).extent_bytes(256 << 10)).unwrap();
    let mut list = String::new();
    // Three lives: the second follows a clean close, and the third leaves a dropped reservation behind.
    for life in 0..3 {
        let store = Store::open(&path, &options()).unwrap();
        for index in life * 40..(life + 1) * 40 {
            let shard = ShardId((index % 2) as u16);
            let ticket = store.append_to(Route::Shard(shard), &payload(index)).unwrap();
            if index % 10 == 0 {
                ticket.wait(Durability::Durable).unwrap();
            }
            list.push_str(&format!("{index} {}\n", ticket.address()));
        }
        drop(store.try_reserve(Route::Shard(ShardId(0)), 100).unwrap());
        store.close().unwrap();
    }
    keep(&path, &format!("version-{version}"), &list);
}

fn keep(path: &Path, name: &str, list: &str) {
    let mut image = Vec::new();
    let mut file = fs::File::open(path).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut image).unwrap();
    // Never over an image that is there.
    let create = |name: String, bytes: &[u8]| {
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(golden(&name))
            .unwrap()
            .write_all(bytes)
            .unwrap();
    };
    create(format!("{name}.image"), &pack(&image));
    create(format!("{name}.list"), list.as_bytes());
}

/// A store that was trimmed, with checkpoints, a cursor, extents that were used again, and one life that was not closed.
fn write_golden_with_space() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("store");
    let format = FormatOptions::sized(4 << 20).shards(1).extent_bytes(256 << 10).sparse();
    Store::format(&[&path], &format).unwrap();
    let mut written: Vec<(usize, Address)> = Vec::new();
    let mut list = String::new();
    for life in 0..3 {
        let store = Store::open(&path, &options_with_space()).unwrap();
        for index in life * 600..(life + 1) * 600 {
            let ticket = store.append_to(Route::Shard(ShardId(0)), &payload(index)).unwrap();
            written.push((index, ticket.address()));
            if index % 50 == 0 {
                ticket.wait(Durability::Durable).unwrap();
            }
        }
        store.sync().unwrap();
        let (_, mark) = written[written.len() - 200];
        assert!(store.trim(ShardId(0), mark).unwrap().wait().unwrap().freed > 1);
        store.set_cursor(ShardId(0), "reader", mark).unwrap().wait().unwrap();
        if life == 2 {
            for (index, address) in &written {
                let is_there = store.read(*address).is_ok();
                list.push_str(&format!("{index} {address} {}\n", if is_there { "kept" } else { "gone" }));
            }
            // As it is now, and not as closing would leave it.
            keep(&path, "version-1-space", &list);
        }
        store.close().unwrap();
    }
}

fn options_with_space() -> Options {
    options().cores(1).checkpoint_bytes(64 << 10).discard(true)
}

#[test]
fn a_trimmed_store_of_version_1_opens_with_what_was_kept() {
    if std::env::var_os("CORELOG_WRITE_GOLDEN").is_some() && !golden("version-1-space.image").exists() {
        write_golden_with_space();
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("store");
    unpack(&fs::read(golden("version-1-space.image")).unwrap(), &path);
    let list = fs::read_to_string(golden("version-1-space.list")).unwrap();
    for life in 0..2 {
        let store = Store::open(&path, &options_with_space().verify_on_open(true)).unwrap();
        assert!(store.recovery().shards[0].began_at.is_some(), "it has a checkpoint");
        assert_eq!(store.cursors(ShardId(0))[0].name, "reader");
        let mut kept = 0;
        for line in list.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let (index, address): (usize, Address) = (fields[0].parse().unwrap(), fields[1].parse().unwrap());
            match store.read(address) {
                Ok(bytes) => {
                    assert_eq!(
                        (fields[2], bytes.as_ref()),
                        ("kept", payload(index).as_slice()),
                        "record {index}"
                    );
                    kept += 1;
                }
                Err(ReadError::Reclaimed { .. }) => assert_eq!(fields[2], "gone", "record {index}"),
                Err(error) => panic!("life {life}, record {index}: {error}"),
            }
        }
        assert!(kept >= 200, "{kept}");
        store.close().unwrap();
    }
}

fn check(version: u32) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("store");
    unpack(&fs::read(golden(&format!("version-{version}.image"))).unwrap(), &path);
    let list = fs::read_to_string(golden(&format!("version-{version}.list"))).unwrap();
    let records: Vec<(usize, Address)> = list
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(index, address)| (index.parse().unwrap(), address.parse().unwrap()))
        .collect();
    assert_eq!(records.len(), 120);
    // Twice: what this version adds does not hide what was there.
    for _ in 0..2 {
        let store = Store::open(&path, &options().verify_on_open(true)).unwrap();
        for (index, address) in &records {
            assert_eq!(store.read(*address).unwrap(), payload(*index), "version {version}, record {index}");
        }
        store.append(b"of a later version").unwrap().wait(Durability::Durable).unwrap();
        store.close().unwrap();
    }
}

#[test]
fn a_store_of_version_1_opens_with_all_its_records() {
    if std::env::var_os("CORELOG_WRITE_GOLDEN").is_some() && !golden("version-1.image").exists() {
        write_golden(1);
    }
    check(1);
}
