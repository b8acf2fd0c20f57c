//! Salvage gives the records of a batch and the parts of a large record where what makes them count is intact, and
//! nothing of those that were given up.
#![expect(clippy::unwrap_used, reason = "tests")]

use corelog::{Durability, FormatOptions, Options, Route, Salvage, SalvagedRecord, ShardId, Store};
use std::path::Path;

const ROUTE: Route = Route::Shard(ShardId(0));

fn salvage(path: &Path) -> (Vec<SalvagedRecord>, u64, u64) {
    let store = Salvage::open(&[path], &Options::default()).unwrap();
    let mut records = Vec::new();
    let report = store
        .run(&mut |record| {
            records.push(record);
            Ok::<_, std::convert::Infallible>(())
        })
        .unwrap();
    (records, report.records, report.losses)
}

#[test]
fn what_counts_is_given_and_what_was_given_up_is_not() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("store");
    Store::format(&[&path], &FormatOptions::sized(16 << 20).shards(1).extent_bytes(1 << 20).sparse())
        .unwrap();
    let store = Store::open(&path, &Options::default().cores(1).buffer_bytes(16 << 10).buffers(4)).unwrap();
    let whole: Vec<u8> = (0..12_500_u32).flat_map(u32::to_le_bytes).collect();
    let mut batch = store.batch(ROUTE).unwrap();
    let mut given_up = store.batch(ROUTE).unwrap();
    for index in 0..40 {
        batch.append(&[index; 1000]).unwrap();
        given_up.append(b"given up").unwrap();
        given_up.append(&[0xff; 2000]).unwrap();
    }
    let mut large = store.append_large(ROUTE).unwrap();
    large.append(&whole).unwrap();
    drop(given_up);
    batch.commit().unwrap();
    let ticket = large.finish().unwrap();
    store.append_to(ROUTE, b"last").unwrap().wait(Durability::Durable).unwrap();
    let address = ticket.address();
    store.close().unwrap();

    let (records, counted, losses) = salvage(&path);
    assert_eq!((counted, losses), (42, 0));
    for (index, record) in records[..40].iter().enumerate() {
        assert_eq!((&record.payload[..], record.part), (&[index as u8; 1000][..], None));
    }
    let parts = &records[40..records.len() - 1];
    assert!(parts.iter().all(|it| it.address == address && it.part.unwrap().bytes == 50_000));
    assert!(parts.iter().flat_map(|it| it.payload.to_vec()).eq(whole.iter().copied()));
    assert_eq!(records.last().unwrap().payload, "last");

    // A record of the batch and a part of the large record are damaged.
    let mut image = std::fs::read(&path).unwrap();
    for needle in [&[17; 1000][..], &whole[20_000..20_100]] {
        let at = image.windows(needle.len()).position(|window| window == needle).unwrap();
        image[at] ^= 1;
    }
    std::fs::write(&path, &image).unwrap();
    let (records, _, losses) = salvage(&path);
    assert!(losses >= 2, "{losses}");
    let in_batch = records.iter().filter(|it| it.payload.len() == 1000 && it.part.is_none()).count();
    assert_eq!(in_batch, 39);
    let bytes: usize = records.iter().filter(|it| it.part.is_some()).map(|it| it.payload.len()).sum();
    assert!(bytes > 10_000 && bytes < 20_100, "the parts in front of the damage: {bytes}");
    assert_eq!(records.last().unwrap().payload, "last");
}
