//! A record that is longer than any buffer goes in and comes out in a stream, as a whole or not at all.
#![expect(clippy::unwrap_used, reason = "tests")]

use corelog::{
    AppendError, Durability, FormatOptions, Inspection, LargeReadError, Options, ReadError, Route, ShardId,
    Store,
};
use std::{
    io::{Read, Write},
    path::PathBuf,
};

const SHARD: ShardId = ShardId(0);
const ROUTE: Route = Route::Shard(SHARD);

struct Case {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = folder.path().join("store");
        let format = FormatOptions::sized(65 << 20).shards(1).extent_bytes(1 << 20).sparse();
        Store::format(&[&path], &format).unwrap();
        Self { _folder: folder, path }
    }

    fn open(&self) -> Store {
        Store::open(&self.path, &Options::default().cores(1).buffer_bytes(16 << 10).buffers(4)).unwrap()
    }

    fn inspect(&self) -> Inspection {
        Inspection::open(&[&self.path], &Options::default()).unwrap()
    }
}

fn bytes(length: usize, seed: u64) -> Vec<u8> {
    (0..length as u64).map(|at| (at.wrapping_mul(seed | 1) >> 7) as u8).collect()
}

#[test]
fn large_records_of_any_length_come_back() {
    let case = Case::new();
    let store = case.open();
    let mut written = Vec::new();
    // Nothing, less than a part, around one and two parts, and enough for a second level of the list.
    for (index, length) in [0, 1, 8119, 8120, 8121, 16_240, 100_000, 6_000_000].into_iter().enumerate() {
        let whole = bytes(length, index as u64 * 77 + 5);
        let mut writer = store.append_large(ROUTE).unwrap();
        for piece in whole.chunks(1 + index * 3331) {
            writer.write_all(piece).unwrap();
            if piece.len() % 7 == 0 {
                store.append_to(ROUTE, b"small").unwrap();
            }
        }
        assert_eq!(writer.bytes(), length as u64);
        let ticket = writer.finish().unwrap();
        written.push((ticket.address(), whole));
        let mut reader = store.open_large(ticket.address()).unwrap();
        let mut back = Vec::new();
        reader.read_to_end(&mut back).unwrap();
        assert!(back == written[index].1, "{length} bytes, before they are durable");
    }
    let mut given_up = store.append_large(ROUTE).unwrap();
    given_up.write_all(&bytes(50_000, 3)).unwrap();
    drop(given_up);
    store.sync().unwrap();
    let listed: Vec<_> = store
        .scan(SHARD)
        .unwrap()
        .map(Result::unwrap)
        .filter_map(|record| Some((record.address, record.large_bytes?, record.payload.len())))
        .collect();
    let expected: Vec<_> = written.iter().map(|(address, whole)| (*address, whole.len() as u64, 0)).collect();
    assert_eq!(listed, expected);
    store.close().unwrap();

    let store = case.inspect();
    for (address, whole) in &written {
        let mut reader = store.open_large(*address).unwrap();
        assert_eq!((reader.len(), reader.is_empty()), (whole.len() as u64, whole.is_empty()));
        let mut back = Vec::new();
        while let Some(part) = reader.next_part().unwrap() {
            back.extend_from_slice(&part);
        }
        assert!(back == *whole, "{} bytes, read beside the store", whole.len());
        for offset in [0, 1, 8119, 8120, 77_777, whole.len().saturating_sub(3), whole.len(), usize::MAX] {
            for length in [0, 1, 10_000] {
                let mut range = vec![0; length];
                let read = reader.read_at(offset as u64, &mut range).unwrap();
                let rest = whole.get(offset..).unwrap_or_default();
                assert_eq!(range[..read], rest[..rest.len().min(length)], "{offset} {length}");
            }
        }
    }
    let report = store.verify(None, &mut |_, _| {}).unwrap();
    assert!(report.is_good(), "{report:?}");
}

#[test]
fn other_calls_say_what_to_use() {
    let case = Case::new();
    let store = case.open();
    let small = store.append_to(ROUTE, b"small").unwrap();
    let mut writer = store.append_large(ROUTE).unwrap();
    writer.append(&bytes(20_000, 1)).unwrap();
    let large = writer.finish().unwrap();
    for durability in [Durability::Buffered, Durability::Durable] {
        large.wait(durability).unwrap();
        let error = store.read(large.address()).unwrap_err();
        assert_eq!(error, ReadError::Large { address: large.address(), bytes: 20_000 });
        assert_eq!(store.read_many(&[large.address()]), [Err(error)]);
    }
    let error = store.open_large(small.address()).unwrap_err();
    assert!(matches!(error, LargeReadError::NotLarge { .. }), "{error}");
}

#[test]
fn a_record_that_is_too_long_for_the_store_is_refused_as_it_grows() {
    let case = Case::new();
    let store = case.open();
    let max = store.large_bytes_max();
    assert_eq!(max, 16 << 20);
    let mut writer = store.append_large(ROUTE).unwrap();
    let mebibyte = bytes(1 << 20, 9);
    (0..16).for_each(|_| writer.append(&mebibyte).unwrap());
    let error = writer.append(b"x").unwrap_err();
    assert_eq!(error, AppendError::LargeTooLong { max });
    let ticket = writer.finish().unwrap();
    ticket.wait(Durability::Durable).unwrap();
    let mut last = [0; 100];
    assert_eq!(store.open_large(ticket.address()).unwrap().read_at(max - 100, &mut last).unwrap(), 100);
    assert_eq!(last[..], mebibyte[(1 << 20) - 100..]);
}

#[test]
fn damage_in_a_part_is_named_and_ranges_elsewhere_are_read() {
    let case = Case::new();
    let store = case.open();
    let mut whole = bytes(100_000, 21);
    let needle = b"nothing else is here like this";
    whole[50_000..50_000 + needle.len()].copy_from_slice(needle);
    let mut writer = store.append_large(ROUTE).unwrap();
    writer.append(&whole).unwrap();
    let ticket = writer.finish().unwrap();
    ticket.wait(Durability::Durable).unwrap();
    let address = ticket.address();
    store.close().unwrap();
    drop(store);

    let mut image = std::fs::read(&case.path).unwrap();
    let at = image.windows(needle.len()).position(|window| window == needle).unwrap();
    image[at] ^= 1;
    std::fs::write(&case.path, &image).unwrap();
    let store = case.inspect();
    let mut reader = store.open_large(address).unwrap();
    let damage = std::iter::from_fn(|| reader.next_part().transpose()).find_map(Result::err).unwrap();
    assert!(matches!(damage, LargeReadError::Damage { .. }), "{damage}");
    let reader = store.open_large(address).unwrap();
    let mut range = vec![0; 1000];
    assert_eq!(reader.read_at(90_000, &mut range).unwrap(), 1000);
    assert_eq!(range, whole[90_000..91_000]);
    let mut hit = [0; 16];
    assert!(reader.read_at(50_000, &mut hit).is_err());
    assert!(!store.verify(None, &mut |_, _| {}).unwrap().is_good());
}
