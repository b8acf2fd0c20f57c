//! Reading many records at once gives, in the order that was asked for, exactly what reading each by itself gives.
#![expect(clippy::unwrap_used, reason = "tests")]

use corelog::{Address, Backend, Durability, FormatOptions, Options, ReadError, Route, ShardId, Store};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn make(folder: &tempfile::TempDir) -> Store {
    let path = folder.path().join("store");
    let format = FormatOptions::sized(64 << 20).shards(2).extent_bytes(1 << 20).sparse();
    Store::format(&[&path], &format).unwrap();
    let options = Options::default().cores(2).pin(false).buffer_bytes(512 << 10).backend(Backend::Auto);
    Store::open(&path, &options).unwrap()
}

fn payload(index: u32) -> Vec<u8> {
    let long = if index.is_multiple_of(97) { 40_000 } else { 150 };
    index.to_le_bytes().repeat(1 + (index as usize * 131) % long)
}

/// A fixed order that is none.
fn shuffled(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(move |step| (step * 7_919 + 13) % count)
}

#[test]
fn neighbours_strangers_duplicates_and_records_still_in_memory() {
    let folder = folder();
    let store = make(&folder);
    let addresses: Vec<Address> = (0..3_000)
        .map(|index| store.append_to(Route::RoundRobin, &payload(index)).unwrap().address())
        .collect();
    let check = |indices: &[u32]| {
        let asked: Vec<Address> = indices.iter().map(|index| addresses[*index as usize]).collect();
        let results = store.read_many(&asked);
        assert_eq!(results.len(), indices.len());
        for (index, result) in indices.iter().zip(results) {
            assert_eq!(result.unwrap(), payload(*index), "record {index}");
        }
    };
    let all: Vec<u32> = (0..3_000).collect();
    // Part of them is on the device, part is not.
    check(&all);
    store.sync().unwrap();
    check(&all);
    check(&shuffled(3_000).collect::<Vec<_>>());
    check(&shuffled(3_000).step_by(40).collect::<Vec<_>>());
    check(&[5, 5, 4, 5, 2_999]);
    check(&[]);
}

#[test]
fn an_address_that_is_none_fails_alone() {
    let folder = folder();
    let store = make(&folder);
    let ticket = store.append_to(Route::Shard(ShardId(0)), b"good").unwrap();
    ticket.wait(Durability::Written).unwrap();
    let good = ticket.address();
    let skewed = Address::from_bits(good.to_bits() + 1);
    let outside = Address::from_bits(u64::MAX);
    let asked = [outside, good, skewed, good];
    let results = store.read_many(&asked);
    let singly: Vec<_> = asked.iter().map(|address| store.read(*address)).collect();
    assert_eq!(results, singly);
    assert!(results[1].is_ok() && results[3].is_ok());
    assert!(matches!(results[2], Err(ReadError::Corrupt { .. })), "{:?}", results[2]);
    store.close().unwrap();
    assert!(store.read_many(&asked).iter().all(Result::is_err));
}
