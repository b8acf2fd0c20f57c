//! The async calls of batches, large records, and appends gathered or written in place wait for room like the blocking
//! ones do, and give the same.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::block_on;
use corelog::{AppendError, Durability, FormatOptions, Options, Route, ShardId, Store, Turn};
use std::io::IoSlice;

const ROUTE: Route = Route::Shard(ShardId(0));

#[test]
fn what_is_written_by_futures_comes_back() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("store");
    Store::format(&[&path], &FormatOptions::sized(32 << 20).shards(1).extent_bytes(1 << 20).sparse())
        .unwrap();
    let store = Store::open(&path, &Options::default().cores(1).buffer_bytes(16 << 10).buffers(4)).unwrap();
    let whole: Vec<u8> = (0..500_000_u32).flat_map(u32::to_le_bytes).collect();
    let (batch, large) = block_on(async {
        let mut batch = store.batch(ROUTE).unwrap();
        for index in 0..2000_u32 {
            batch.append_async(&index.to_le_bytes().repeat(100)).await.unwrap();
        }
        let mut large = store.append_large(ROUTE).unwrap();
        large.append_async(&whole).await.unwrap();
        (batch.commit_async().await.unwrap(), large.finish_async().await.unwrap())
    });
    let (gathered, in_place) = block_on(async {
        let pieces = [IoSlice::new(b"gathered "), IoSlice::new(b"later")];
        let gathered = store.append_vectored_async(ROUTE, &pieces).await.unwrap();
        let mut reservation = store.reserve_async(ROUTE, 8).await.unwrap();
        reservation.payload_mut().copy_from_slice(b"in place");
        (gathered, reservation.commit())
    });
    in_place.wait(Durability::Durable).unwrap();
    assert!(batch.has_reached(Durability::Durable) && large.has_reached(Durability::Durable));
    assert_eq!(store.read(gathered.address()).unwrap(), "gathered later");
    assert_eq!(store.read(in_place.address()).unwrap(), "in place");
    for (index, address) in (0_u32..).zip(batch.addresses().unwrap()) {
        assert_eq!(store.read(*address).unwrap(), index.to_le_bytes().repeat(100));
    }
    let (back, range) = block_on(async {
        let mut reader = store.open_large_async(large.address()).await.unwrap();
        let mut back = Vec::new();
        while let Some(part) = reader.next_part_async().await.unwrap() {
            back.extend_from_slice(&part);
        }
        let mut range = [0; 12];
        assert_eq!(reader.read_at_async(1_000_000, &mut range).await.unwrap(), range.len());
        (back, range)
    });
    assert!(back == whole);
    assert_eq!(range[..], whole[1_000_000..1_000_012]);
}

/// Nothing turns the core, so the ring fills: the calls that never wait say so, and lose nothing.
#[test]
fn calls_that_never_wait_give_back_what_they_could_not_take() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("store");
    Store::format(&[&path], &FormatOptions::sized(16 << 20).shards(1).extent_bytes(1 << 20).sparse())
        .unwrap();
    let options = Options::default().cores(1).buffer_bytes(16 << 10).buffers(4);
    let mut opening = Store::open_owned(&[&path], &options).unwrap();
    let mut core = opening.take_seats().remove(0).start().unwrap();
    let store = opening.store().unwrap();
    let mut batch = store.batch(ROUTE).unwrap();
    let mut taken = 0_u32;
    let error = loop {
        match batch.try_append(&taken.to_le_bytes().repeat(500)) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AppendError::Full { .. }), "{error}");
    let (error, mut batch) = batch.try_commit().unwrap_err();
    assert!(matches!(error, AppendError::Full { .. }), "{error}");
    let ticket = loop {
        if core.turn() == Turn::Idle {
            core.wait(None);
        }
        match batch.try_commit() {
            Ok(ticket) => break ticket,
            Err((_, back)) => batch = back,
        }
    };
    assert_eq!((ticket.records(), ticket.addresses().unwrap().len()), (taken.into(), taken as usize));
    drop(ticket);
    assert!(core.close(std::time::Duration::from_secs(20)));
    drop((core, store));
    let store = Store::open(&path, &Options::default().cores(1)).unwrap();
    let records: Vec<_> = store.scan(ShardId(0)).unwrap().map(|record| record.unwrap().payload).collect();
    assert_eq!(records.len(), taken as usize);
    assert!((0..taken).zip(&records).all(|(index, it)| **it == index.to_le_bytes().repeat(500)));
}
