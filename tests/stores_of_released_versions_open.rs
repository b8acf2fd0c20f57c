//! A store that a released version wrote opens for ever, with every record in its place.
//!
//! `tests/golden/` has one image per format version, without its zeros, and a list of what is in it. To make those of
//! a new version: `CORELOG_WRITE_GOLDEN=1 cargo test --test stores_of_released_versions_open`, once, when the version
//! is released; an image that is there is never written again.
#![expect(clippy::unwrap_used, reason = "tests")]

use corelog::{Address, Durability, FormatOptions, Options, Route, ShardId, Store};
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
    let mut image = Vec::new();
    let mut file = fs::File::open(&path).unwrap();
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
    create(format!("version-{version}.image"), &pack(&image));
    create(format!("version-{version}.list"), list.as_bytes());
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
