//! A damaged store gives up every record that is intact, in the order of its shard, and the places of the others.
//!
//! Damage is put into the file: bits, slots, headers. What a record's own bytes still prove is never lost with its
//! neighbours.
#![expect(clippy::unwrap_used, reason = "tests")]

use corelog::{
    Address, Durability, FormatOptions, LossOf, Options, Route, Salvage, SalvageReport, ShardId, Store,
};
use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

const AREA: u64 = 1 << 20;
const SLOT: u64 = 4096;
const EXTENT: u64 = 256 << 10;

/// Address and payload, in the order of a shard.
type Records = Vec<(Address, Vec<u8>)>;

struct Filled {
    _folder: tempfile::TempDir,
    path: PathBuf,
    /// By shard, in order.
    records: [Records; 2],
}

fn options() -> Options {
    Options::default().cores(2).buffer_bytes(16 << 10).buffers(4)
}

fn filled() -> Filled {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("store");
    Store::format(&[&path], &FormatOptions::sized(5 << 20).shards(2).extent_bytes(EXTENT)).unwrap();
    let store = Store::open(&path, &options()).unwrap();
    let mut records = [Vec::new(), Vec::new()];
    for index in 0..1500_usize {
        let shard = index % 2;
        let payload: Vec<u8> = (0..index % 1700).map(|at| (index * 31 + at) as u8).collect();
        let ticket = store.append_to(Route::Shard(ShardId(shard as u16)), &payload).unwrap();
        records[shard].push((ticket.address(), payload));
        if index % 100 == 0 {
            ticket.wait(Durability::Durable).unwrap();
        }
    }
    store.close().unwrap();
    Filled { _folder: folder, path, records }
}

impl Filled {
    fn change(&self, offset: u64, change: impl FnOnce(&mut [u8]), length: u64) {
        let file = OpenOptions::new().read(true).write(true).open(&self.path).unwrap();
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, offset).unwrap();
        change(&mut bytes);
        file.write_all_at(&bytes, offset).unwrap();
    }

    /// Device offsets of slots that begin with these bytes.
    fn slots_with(&self, magic: &[u8]) -> Vec<u64> {
        let image = fs::read(&self.path).unwrap();
        (AREA..image.len() as u64)
            .step_by(SLOT as usize)
            .filter(|at| image[*at as usize..].starts_with(magic))
            .collect()
    }

    /// What salvage gives, by shard, with its report.
    fn salvage(&self) -> ([Records; 2], SalvageReport) {
        let mut taken = [Vec::new(), Vec::new()];
        let salvage = Salvage::open(&[&self.path], &options()).unwrap();
        let report = salvage
            .run(&mut |record| {
                taken[usize::from(record.shard.0)].push((record.address, record.payload.to_vec()));
                Ok::<(), ()>(())
            })
            .unwrap();
        (taken, report)
    }

    /// Salvage gives every record but those that `is_hit` names, in order.
    fn assert_all_but(&self, is_hit: impl Fn(u64) -> bool) -> SalvageReport {
        let (taken, report) = self.salvage();
        for (taken, all) in taken.iter().zip(&self.records) {
            let expected: Vec<_> =
                all.iter().filter(|(address, _)| !is_hit(AREA + address.byte())).cloned().collect();
            let places = |list: &[(Address, Vec<u8>)]| list.iter().map(|it| it.0.byte()).collect::<Vec<_>>();
            assert_eq!(places(taken), places(&expected), "{report:?}");
            assert!(*taken == expected);
        }
        report
    }
}

fn in_range(start: u64, length: u64) -> impl Fn(u64) -> bool {
    move |at| (start..start + length).contains(&at)
}

#[test]
fn a_sound_store_is_copied_whole_and_nothing_counts_as_lost() {
    let report = filled().assert_all_but(|_| false);
    assert_eq!((report.losses, report.records, report.records_without_frame), (0, 1500, 0), "{report:?}");
}

#[test]
fn a_flipped_bit_in_a_payload_costs_that_record() {
    let filled = filled();
    let (address, payload) = filled.records[0].iter().filter(|record| record.1.len() > 100).nth(50).unwrap();
    let at = AREA + address.byte();
    filled.change(at + 8 + payload.len() as u64 / 2, |bytes| bytes[0] ^= 4, 1);
    let report = filled.assert_all_but(|byte| byte == at);
    assert_eq!(report.losses, 1);
    assert!(matches!(report.places[0].of, LossOf::Record { byte, .. } if byte == address.byte()));
    assert_eq!(report.places[0].shard, Some(ShardId(0)));
}

#[test]
fn a_damaged_record_header_does_not_hide_the_records_behind_it() {
    let filled = filled();
    let (address, _) = filled.records[1][300];
    let at = AREA + address.byte();
    filled.change(at + 4, |bytes| bytes.fill(0xff), 4);
    let report = filled.assert_all_but(|byte| byte == at);
    assert_eq!(report.losses, 1, "{report:?}");
}

#[test]
fn a_frame_without_its_header_gives_up_its_records_all_the_same() {
    let filled = filled();
    let frame = filled.slots_with(b"coreLOGf")[20];
    filled.change(frame, |bytes| bytes.fill(0), 128);
    let report = filled.assert_all_but(|_| false);
    assert!(report.records_without_frame > 0);
    assert!(matches!(report.places[0].of, LossOf::Frames { count: 1, .. }), "{report:?}");
}

#[test]
fn zeroed_slots_cost_the_records_that_lay_in_them() {
    let filled = filled();
    let frame = filled.slots_with(b"coreLOGf")[12];
    filled.change(frame, |bytes| bytes.fill(0), SLOT);
    let touches = |address: &Address, payload: &[u8]| {
        let start = AREA + address.byte();
        start < frame + SLOT && start + 8 + payload.len() as u64 > frame
    };
    let hit: Vec<u64> = filled
        .records
        .iter()
        .flatten()
        .filter(|(address, payload)| touches(address, payload))
        .map(|(address, _)| AREA + address.byte())
        .collect();
    assert!(!hit.is_empty());
    let report = filled.assert_all_but(|byte| hit.contains(&byte));
    assert!(report.is_damaged());
}

#[test]
fn an_extent_without_its_header_is_known_by_its_frames() {
    let filled = filled();
    let extents = filled.slots_with(b"coreLOGe");
    filled.change(extents[0], |bytes| bytes.fill(0), SLOT);
    filled.change(extents[2], |bytes| bytes.fill(0xa5), SLOT);
    let report = filled.assert_all_but(|_| false);
    let headers = report.places.iter().filter(|loss| loss.of == LossOf::ExtentHeader).count();
    assert_eq!((headers, report.losses), (2, 2), "{report:?}");
}

#[test]
fn an_extent_that_is_gone_costs_its_records_and_no_others() {
    let filled = filled();
    let extent = filled.slots_with(b"coreLOGe")[1];
    filled.change(extent, |bytes| bytes.fill(0), EXTENT);
    let report = filled.assert_all_but(in_range(extent, EXTENT));
    assert!(report.places.iter().any(|loss| matches!(loss.of, LossOf::Frames { .. })), "{report:?}");
}

#[test]
fn the_program_makes_a_new_store_and_a_map_of_addresses() {
    let filled = filled();
    let (address, payload) = filled.records[0].iter().find(|record| record.1.len() > 100).unwrap();
    filled.change(AREA + address.byte() + 8 + payload.len() as u64 / 2, |bytes| bytes[0] ^= 1, 1);
    let folder = filled.path.parent().unwrap();
    let (out, map) = (folder.join("out"), folder.join("map"));
    let salvage = |out: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_corelog"));
        command.arg("salvage").arg(&filled.path).arg(out).arg("--map").arg(&map).arg("--json");
        command.output().unwrap()
    };
    let before = fs::read(&filled.path).unwrap();
    let done = salvage(&out);
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((report["records"].as_u64(), report["losses"].as_u64()), (Some(1499), Some(1)), "{report}");
    assert!(fs::read(&filled.path).unwrap() == before, "the damaged store is not written to");
    let store = Store::open(&out, &options().verify_on_open(true)).unwrap();
    let map = fs::read_to_string(&map).unwrap();
    let mut old: std::collections::HashMap<Address, Vec<u8>> =
        filled.records.iter().flatten().cloned().collect();
    for line in map.lines() {
        let (from, to) = line.split_once(' ').unwrap();
        let payload = old.remove(&from.parse().unwrap()).unwrap();
        assert_eq!(store.read(to.parse().unwrap()).unwrap(), payload);
    }
    assert_eq!(old.len(), 1);
    // A second time: what is there is not overwritten.
    assert_eq!(salvage(&out).status.code(), Some(3));
}
