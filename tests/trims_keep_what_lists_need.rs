//! Trimming frees no extent that a batch or a large record behind the mark has parts in, nor those of one that is being
//! written; and what has its root before the mark is gone as a whole.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Place, payload};
use corelog::{
    Address, Durability, FormatOptions, Inspection, LargeReadError, Options, ReadError, Route, ShardId, Store,
};
use corelog_shards::limits::{CHECKPOINT_BYTES_MIN, EXTENT_BYTES_MIN, SUPERBLOCK_AREA_BYTES};
use std::io::Read;

const SHARD: ShardId = ShardId(0);
const ROUTE: Route = Route::Shard(SHARD);
const RECORD: usize = 8000;

fn place() -> Place {
    let bytes = SUPERBLOCK_AREA_BYTES + 60 * EXTENT_BYTES_MIN;
    Place::with(&FormatOptions::sized(bytes).shards(1).extent_bytes(EXTENT_BYTES_MIN).sparse())
}

fn options() -> Options {
    common::options(1).buffer_bytes(32 << 10).checkpoint_bytes(CHECKPOINT_BYTES_MIN)
}

fn open(place: &Place) -> Store {
    Store::open(&place.path, &options()).unwrap()
}

/// Some extents' worth of plain records.
fn append_some(store: &Store, records: u64) -> Vec<Address> {
    let tickets = (0..records).map(|index| store.append_to(ROUTE, &payload(1, index, RECORD)).unwrap());
    let addresses = tickets.map(|ticket| ticket.address()).collect();
    store.sync().unwrap();
    addresses
}

fn is_reclaimed(store: &Store, address: Address) -> bool {
    match store.read(address) {
        Ok(_) => false,
        Err(ReadError::Reclaimed { .. }) => true,
        Err(error) => panic!("{address}: {error}"),
    }
}

fn is_good(place: &Place) {
    let inspection = Inspection::open(&[&place.path], &options()).unwrap();
    let report = inspection.verify(None, &mut |_, _| {}).unwrap();
    assert!(report.findings.is_empty(), "{report:?}");
}

#[test]
fn a_batch_behind_the_mark_keeps_what_it_has_before_it() {
    for reopened in [false, true] {
        let place = place();
        let mut store = open(&place);
        let before = append_some(&store, 100);
        let mut batch = store.batch(ROUTE).unwrap();
        for index in 0..60 {
            batch.append(&payload(2, index, RECORD)).unwrap();
            append_some(&store, 1);
        }
        let mark = *append_some(&store, 100).last().unwrap();
        let ticket = batch.commit().unwrap();
        ticket.wait(Durability::Durable).unwrap();
        let addresses = ticket.addresses().unwrap().to_vec();
        let root = ticket.begins_at().unwrap();
        let behind = append_some(&store, 100);
        drop(ticket);
        if reopened {
            store.close().unwrap();
            store = open(&place);
        }
        let done = store.trim(SHARD, mark).unwrap().wait().unwrap();
        assert!(done.freed >= 2 && done.held >= 4 && done.oldest < done.trim.ordinal, "{done:?}");
        assert!(is_reclaimed(&store, before[0]) && !is_reclaimed(&store, mark));
        let again = store.trim(SHARD, mark).unwrap().wait().unwrap();
        assert_eq!((again.freed, again.held), (0, done.held));
        store.close().unwrap();
        is_good(&place);

        let store = open(&place);
        assert_eq!(store.space(SHARD).unwrap().trim, done.trim);
        for (index, address) in (0..).zip(&addresses) {
            assert_eq!(store.read(*address).unwrap(), payload(2, index, RECORD), "record {index}");
        }
        let found = store.scan(SHARD).unwrap().map(|record| record.unwrap().address);
        assert_eq!(found.filter(|address| addresses.contains(address)).count(), 60);
        // Behind the root nobody needs it any more.
        let done = store.trim(SHARD, behind[99]).unwrap().wait().unwrap();
        assert_eq!((done.held, done.oldest), (0, done.trim.ordinal));
        assert!(is_reclaimed(&store, addresses[0]) && is_reclaimed(&store, root));
        store.close().unwrap();
        is_good(&place);
    }
}

#[test]
fn a_writer_that_is_open_keeps_what_it_has_written() {
    let place = place();
    let store = open(&place);
    append_some(&store, 100);
    let bytes = payload(3, 0, 300_000);
    let mut large = store.append_large(ROUTE).unwrap();
    let mut given_up = store.append_large(ROUTE).unwrap();
    large.append(&bytes[..100_000]).unwrap();
    let mark = append_some(&store, 200)[199];
    given_up.append(&bytes).unwrap();
    let done = store.trim(SHARD, mark).unwrap().wait().unwrap();
    assert!(done.freed >= 2 && done.held >= 4, "{done:?}");
    large.append(&bytes[100_000..]).unwrap();
    drop(given_up);
    let address = large.finish().unwrap().address();
    let last = append_some(&store, 100)[99];
    let still = store.trim(SHARD, mark).unwrap().wait().unwrap();
    assert_eq!((still.freed, still.held), (0, done.held), "the record itself needs it now");
    store.close().unwrap();

    let store = open(&place);
    let mut read = Vec::new();
    store.open_large(address).unwrap().read_to_end(&mut read).unwrap();
    assert!(read == bytes);
    let done = store.trim(SHARD, last).unwrap().wait().unwrap();
    assert_eq!(done.held, 0);
    assert!(matches!(store.open_large(address), Err(LargeReadError::Read(ReadError::Reclaimed { .. }))));
    store.close().unwrap();
    is_good(&place);
}

/// Two pairs of a batch and a large record overlap, and the mark lies between their roots: the extents that the second
/// pair keeps hold the roots of the first, and some of its parts.
#[test]
fn what_lost_its_beginning_to_a_trim_is_not_given_by_halves() {
    let place = place();
    let store = open(&place);
    let begin = |writer: u64| {
        let mut pair = (store.batch(ROUTE).unwrap(), store.append_large(ROUTE).unwrap());
        for index in 0..20 {
            pair.0.append(&payload(writer, index, RECORD)).unwrap();
            pair.1.append(&payload(writer, index, RECORD)).unwrap();
        }
        pair
    };
    let mut first = begin(2);
    append_some(&store, 100);
    let second = begin(3);
    for index in 20..40 {
        first.0.append(&payload(2, index, RECORD)).unwrap();
        first.1.append(&payload(2, index, RECORD)).unwrap();
    }
    let (batch, large) = (first.0.commit().unwrap(), first.1.finish().unwrap().address());
    let lost = batch.addresses().unwrap().to_vec();
    drop(batch);
    let mark = append_some(&store, 100)[99];
    let (batch, kept_large) = (second.0.commit().unwrap(), second.1.finish().unwrap().address());
    let kept = batch.addresses().unwrap().to_vec();
    drop(batch);
    append_some(&store, 1);
    let done = store.trim(SHARD, mark).unwrap().wait().unwrap();
    assert!(done.freed > 0 && done.held > 0, "{done:?}");
    assert!(is_reclaimed(&store, lost[0]) && !is_reclaimed(&store, lost[39]));
    let scanned = |store: &Store| -> Vec<Address> {
        store.scan(SHARD).unwrap().map(|record| record.unwrap().address).collect()
    };
    let check = |found: &[Address]| {
        assert!(
            !found.iter().any(|it| lost.contains(it) || *it == large),
            "half a batch, or of a large record"
        );
        assert_eq!(found.iter().filter(|it| kept.contains(it)).count(), 20);
        assert!(found.contains(&kept_large) && found.contains(&mark));
    };
    check(&scanned(&store));
    store.close().unwrap();
    is_good(&place);
    let store = open(&place);
    check(&scanned(&store));
    store.open_large(kept_large).unwrap().read_to_end(&mut Vec::new()).unwrap();
    store.close().unwrap();
}
