//! A batch is in the log as a whole, in its order, where it was committed; or not at all.
#![expect(clippy::unwrap_used, reason = "tests")]

use corelog::{
    AppendError, Durability, FormatOptions, Inspection, Options, Position, Route, ScanFrom, ShardId, Store,
};
use std::path::PathBuf;

const SHARD: ShardId = ShardId(0);
const ROUTE: Route = Route::Shard(SHARD);

struct Case {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Case {
    fn new(bytes: u64) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = folder.path().join("store");
        let format = FormatOptions::sized(bytes).shards(1).extent_bytes(1 << 20).sparse();
        Store::format(&[&path], &format).unwrap();
        Self { _folder: folder, path }
    }

    fn open(&self) -> Store {
        Store::open(&self.path, &Options::default().cores(1).buffer_bytes(16 << 10).buffers(4)).unwrap()
    }
}

fn payload(index: u64) -> Vec<u8> {
    let length = 8 + (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize;
    let mut bytes = index.to_le_bytes().to_vec();
    bytes.resize(length, index as u8);
    bytes
}

fn scanned(store: &Store) -> Vec<Vec<u8>> {
    store.scan(SHARD).unwrap().map(|record| record.unwrap().payload.to_vec()).collect()
}

#[test]
fn records_of_a_batch_come_where_it_was_committed_and_in_its_order() {
    for records in [0, 1, 3, 20, 100, 3000] {
        let case = Case::new(32 << 20);
        let store = case.open();
        let mut expected = vec![b"before".to_vec(), b"meanwhile".to_vec()];
        store.append_to(ROUTE, b"before").unwrap();
        let mut batch = store.batch(ROUTE).unwrap();
        let mut given_up = store.batch(ROUTE).unwrap();
        for index in 0..records {
            batch.append(&payload(index)).unwrap();
            given_up.append(b"never seen").unwrap();
            expected.push(payload(index));
            if index == records / 2 {
                store.append_to(ROUTE, b"meanwhile").unwrap();
            }
        }
        if records == 0 {
            store.append_to(ROUTE, b"meanwhile").unwrap();
        }
        drop(given_up);
        assert_eq!(batch.records(), records);
        let ticket = batch.commit().unwrap();
        store.append_to(ROUTE, b"after").unwrap();
        expected.push(b"after".to_vec());
        ticket.wait(Durability::Durable).unwrap();
        assert!(ticket.has_reached(Durability::Durable));
        assert_eq!((ticket.records(), ticket.frame().is_some()), (records, records > 0));
        let addresses = ticket.addresses().unwrap().to_vec();
        assert_eq!(addresses.len() as u64, records);
        let found = scanned(&store);
        assert!(found == expected, "{records} records: {} of {}", found.len(), expected.len());
        if let Some(begins_at) = ticket.begins_at() {
            let from = store.scan_from(SHARD, ScanFrom::Address(begins_at)).unwrap();
            let found: Vec<_> = from.take(records as usize).map(|record| record.unwrap().address).collect();
            assert_eq!(found, addresses);
        }
        store.close().unwrap();

        let store = case.open();
        assert!(scanned(&store) == expected, "{records} records, opened again");
        for (index, address) in addresses.iter().enumerate() {
            assert_eq!(store.read(*address).unwrap(), payload(index as u64));
        }
        store.close().unwrap();
        let report = Inspection::open(&[&case.path], &Options::default()).unwrap();
        let report = report.verify(None, &mut |_, _| {}).unwrap();
        assert!(report.is_good(), "{report:?}");
        assert_eq!(report.records as usize, expected.len());
    }
}

#[test]
fn a_scan_goes_on_in_the_middle_of_a_batch() {
    let case = Case::new(32 << 20);
    let store = case.open();
    let mut batch = store.batch(ROUTE).unwrap();
    for index in 0..500 {
        batch.append(&payload(index)).unwrap();
    }
    let _ticket = batch.commit().unwrap();
    store.append_to(ROUTE, b"after").unwrap();
    let whole = scanned(&store);
    assert_eq!(whole.len(), 501);
    let mut position: Option<Position> = None;
    let mut found = Vec::new();
    let mut taken = 1;
    loop {
        let from = position.map_or(ScanFrom::Oldest, ScanFrom::Position);
        let mut scan = store.scan_from(SHARD, from).unwrap();
        let records: Vec<_> =
            scan.by_ref().take(taken).map(|record| record.unwrap().payload.to_vec()).collect();
        if records.is_empty() {
            break;
        }
        found.extend(records);
        position = scan.resume_at();
        taken = taken % 37 + 5;
    }
    assert_eq!(found, whole);
}

#[test]
fn a_batch_may_fill_the_store_and_not_more() {
    let case = Case::new(9 << 20);
    let store = case.open();
    let mut batch = store.batch(ROUTE).unwrap();
    let record = vec![1; 4000];
    let error = (0..).find_map(|_| batch.append(&record).err()).unwrap();
    assert!(matches!(error, AppendError::StoreFull { .. }), "{error}");
    assert!(batch.records() > 1500);
    drop(batch);
    assert!(scanned(&store).is_empty());
    let too_large = store.batch(ROUTE).unwrap().append(&vec![0; 16 << 10]).unwrap_err();
    assert!(matches!(too_large, AppendError::TooLarge { .. }), "{too_large}");
}
