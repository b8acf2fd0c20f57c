//! A verification of a good store finds nothing; one flipped bit anywhere in the log is found and named by its place,
//! and everything else still comes out.
#![expect(clippy::unwrap_used, reason = "tests")]

use corelog::{Backend, FindingPlace, FormatOptions, Inspection, Options, Route, ShardId, Store};
use std::{fs, path::Path};

const SHARD: ShardId = ShardId(1);

fn options() -> Options {
    Options::default().cores(2).pin(false).buffer_bytes(64 << 10).backend(Backend::Auto)
}

fn payload(index: u32) -> Vec<u8> {
    index.to_le_bytes().repeat(1 + index as usize % 300)
}

fn make(path: &Path, records: u32) -> Vec<u64> {
    let format = FormatOptions::sized(32 << 20).shards(2).extent_bytes(1 << 20).sparse();
    Store::format(&[path], &format).unwrap();
    let store = Store::open(path, &options()).unwrap();
    let append = |index| store.append_to(Route::Shard(SHARD), &payload(index)).unwrap().address();
    let bytes = (0..records).map(|index| append(index).byte()).collect();
    store.close().unwrap();
    bytes
}

fn inspect(path: &Path) -> Inspection {
    Inspection::open(&[path], &options().salvage(true)).unwrap()
}

#[test]
fn one_flipped_bit_is_one_finding_with_its_place() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("store");
    let bytes = make(&path, 3_000);
    let good = fs::read(&path).unwrap();
    let report = inspect(&path).verify(None, &mut |_, _| {}).unwrap();
    assert!(report.is_good(), "{report:?}");
    assert_eq!((report.shards, report.records), (2, 3_000));
    let records: Vec<_> = inspect(&path).scan(SHARD).unwrap().map(|record| record.unwrap().payload).collect();
    assert!((0..3_000).map(payload).eq(records.iter().map(|record| record.to_vec())));

    for index in (0..3_000_usize).step_by(311) {
        // Extents begin behind the superblocks' area; a flip in the payload harms its record alone.
        let at = ((1 << 20) + bytes[index] + 8) as usize;
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, &bad).unwrap();
        let inspection = inspect(&path);
        let report = inspection.verify(Some(SHARD), &mut |_, _| {}).unwrap();
        assert_eq!((report.findings_count, report.records), (1, 2_999), "{report:?}");
        let FindingPlace::Log { place, .. } = &report.findings[0].place else { panic!("{report:?}") };
        assert_eq!(place.shard, SHARD);
        assert!(serde_json::to_string(&report).unwrap().contains("\"what\":\"log\""));
        let scan = inspection.scan(SHARD).unwrap().skip_damage();
        assert_eq!(scan.filter(Result::is_ok).count(), 2_999);
        let scan = inspection.scan(SHARD).unwrap();
        assert_eq!(
            scan.take_while(Result::is_ok).count(),
            index,
            "without skipping it ends before the record"
        );
    }
}

#[test]
fn a_damaged_frame_header_costs_that_frame_and_no_other() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("store");
    make(&path, 3_000);
    let records: Vec<_> = inspect(&path).scan(SHARD).unwrap().map(Result::unwrap).collect();
    let frame = records[1_500].frame;
    let in_frame = records.iter().filter(|record| record.frame == frame).count();
    let first = records.iter().find(|record| record.frame == frame).unwrap();
    let mut bad = fs::read(&path).unwrap();
    bad[((1 << 20) + first.address.byte() - 100) as usize] ^= 1;
    fs::write(&path, &bad).unwrap();
    let report = inspect(&path).verify(None, &mut |_, _| {}).unwrap();
    assert_eq!(report.findings_count, 1, "{report:?}");
    assert_eq!(report.records as usize, 3_000 - in_frame);
}
