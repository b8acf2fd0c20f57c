//! `cat` prints each shard's records in the order in which it took them, `--follow` goes on, and `verify` finds every
//! byte that was changed.
#![expect(clippy::unwrap_used, reason = "tests")]

mod program;

use program::{DAMAGE, NO_RECORD, USAGE, folder, lines, run, run_with, spawn, store_in, text_of};
use std::{
    fs::{self, OpenOptions},
    io::{BufRead, BufReader, Read},
    os::unix::fs::FileExt,
    path::Path,
};

/// The byte of the file that a record's header begins at.
fn place_of(address: &str) -> u64 {
    let position = u64::from_str_radix(address, 16).unwrap() & ((1 << 43) - 1);
    (1 << 20) + position * 8
}

fn flip(path: &Path, byte: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut found = [0];
    file.read_exact_at(&mut found, byte).unwrap();
    file.write_all_at(&[found[0] ^ 0x10], byte).unwrap();
}

#[test]
fn shards_come_in_their_order_and_together_they_have_everything() {
    let folder = folder();
    let path = store_in(folder.path());
    let lines = lines(20_001);
    run_with(&path, "append @", &text_of(&lines)).done();
    for shard in 0..2 {
        let own: Vec<&String> = lines.iter().skip(shard).step_by(2).collect();
        let text = run(&path, &format!("cat @ --shard {shard}")).done();
        assert!(text.lines().eq(own), "shard {shard}");
    }
    let all = run(&path, "cat @").done();
    let mut found: Vec<&str> = all.lines().collect();
    let mut expected: Vec<&str> = lines.iter().map(String::as_str).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(
        run(&path, "cat @ --limit 7").done(),
        all.lines().take(7).map(|l| format!("{l}\n")).collect::<String>()
    );
    run(&path, "cat @ --shard 2").refused(USAGE, &["no shard 2", "0 to 1"]);
}

#[test]
fn what_cat_prints_can_be_appended_again() {
    let folder = folder();
    let path = store_in(folder.path());
    let records = b"\x03\0\0\0a\nb\0\0\0\0\x02\0\0\0\xff\xfe";
    run_with(&path, "append @ --split u32le --shard 1", records).done();
    let out = run(&path, "cat @ --join u32le").out;
    assert_eq!(out, records);
    let other = folder.path().join("other");
    run(&other, "format @ --size 32MiB --shards 1").done();
    run_with(&other, "append @ --split u32le --cores 1", &out).done();
    assert_eq!(run(&other, "cat @ --join u32le").out, records);
    // A store without a record has nothing to say.
    let empty = folder.path().join("empty");
    run(&empty, "format @ --size 32MiB --shards 3").done();
    assert_eq!(run(&empty, "cat @").done(), "");
    assert_eq!(run(&empty, "verify @ --json").json()["records"], 0);
}

#[test]
fn cat_begins_where_it_is_told_to() {
    let folder = folder();
    let path = store_in(folder.path());
    let lines = lines(3_000);
    let addresses = run_with(&path, "append @ --addresses --shard 1", &text_of(&lines)).done();
    let addresses: Vec<&str> = addresses.lines().collect();
    for line in [0, 1, 1_500, 2_999] {
        let text = run(&path, &format!("cat @ --shard 1 --from {}", addresses[line])).done();
        assert!(text.lines().eq(&lines[line..]), "from line {line}");
    }
    let with_addresses = run(&path, "cat @ --shard 1 --addresses --limit 2").done();
    let expected = format!("{}\t{}\n{}\t{}\n", addresses[0], lines[0], addresses[1], lines[1]);
    assert_eq!(with_addresses, expected);
    run(&path, &format!("cat @ --shard 0 --from {}", addresses[5]))
        .refused(NO_RECORD, &["one of shard 1", "shard 0"]);
    run(&path, "cat @ --shard 0 --from ffffffffffffffff").refused(NO_RECORD, &["ffffffffffffffff"]);
}

#[test]
fn cat_follows_a_store_that_others_append_to_in_turn() {
    let folder = folder();
    let path = store_in(folder.path());
    run_with(&path, "append @ --shard 0", b"before\n").done();
    let mut cat = spawn(&path, "cat @ --follow --limit 6");
    let mut printed = BufReader::new(cat.stdout.take().unwrap()).lines();
    let mut next = || printed.next().unwrap().unwrap();
    assert_eq!(next(), "before");
    for (shard, text) in [(1, "one"), (0, "two"), (1, "three")] {
        run_with(&path, &format!("append @ --shard {shard}"), format!("{text}\n").as_bytes()).done();
        assert_eq!(next(), text);
    }
    run_with(&path, "append @ --shard 0", b"four\nfive\nsix\n").done();
    assert_eq!([next(), next()], ["four", "five"]);
    assert!(cat.wait().unwrap().success(), "it did not end at its limit");
}

#[test]
fn a_reader_that_goes_away_ends_cat_without_an_error() {
    let folder = folder();
    let path = store_in(folder.path());
    run_with(&path, "append @", &text_of(&lines(50_000))).done();
    let mut child = spawn(&path, "cat @");
    let mut first = [0; 4];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn verify_counts_what_is_good() {
    let folder = folder();
    let path = store_in(folder.path());
    let lines = lines(5_000);
    run_with(&path, "append @", &text_of(&lines)).done();
    let report = run(&path, "verify @ --json").json();
    assert_eq!((report["records"].as_u64(), report["findings_count"].as_u64()), (Some(5_000), Some(0)));
    let bytes: usize = lines.iter().map(String::len).sum();
    assert_eq!(report["bytes"].as_u64(), Some(bytes as u64));
    assert_eq!(run(&path, "verify @ --json --shard 1").json()["records"], 2_500);
    assert!(run(&path, "verify @").done().contains("damage   none"));
}

/// The place is named, the exit code is 1, and what is not damaged is still read.
#[test]
fn verify_finds_each_changed_byte_and_names_its_place() {
    let folder = folder();
    let path = store_in(folder.path());
    let lines = lines(4_000);
    let addresses = run_with(&path, "append @ --addresses --shard 0", &text_of(&lines)).done();
    let addresses: Vec<&str> = addresses.lines().collect();
    let whole = fs::read(&path).unwrap();
    let second_frame = {
        let info = run(&path, "info @ --json").json();
        assert!(info["shards"][0]["frames"].as_u64().unwrap() > 1, "{info}");
        // Frames begin with their magic, at a slot.
        let slots = (1 << 20..whole.len()).step_by(4096).skip(1);
        slots
            .filter(|slot| whole[*slot] != 0 && place_of(addresses[0]) - 128 < *slot as u64)
            .find(|slot| whole[*slot..*slot + 4] == whole[place_of(addresses[0]) as usize - 128..][..4])
            .unwrap() as u64
    };
    for (byte, words) in [
        (place_of(addresses[1_000]) + 12, &["shard 0", "record", addresses[1_000]][..]),
        (place_of(addresses[1_000]) + 1, &["shard 0", "frame"]),
        (second_frame + 40, &["shard 0", "frame", "header"]),
        (64, &["superblock copy (device 0, byte 0)"]),
        ((1 << 20) + 33, &["copy 0 of the header of extent 0"]),
    ] {
        flip(&path, byte);
        let ran = run(&path, "verify @");
        ran.refused(DAMAGE, &["damaged"]);
        words.iter().for_each(|word| assert!(ran.text().contains(word), "{byte}: {word}: {}", ran.text()));
        let json = run(&path, "verify @ --json");
        let report: serde_json::Value = serde_json::from_slice(&json.out).unwrap();
        assert!(report["findings_count"].as_u64() >= Some(1), "{report}");
        // Whatever is printed is what was appended.
        let text = run(&path, "cat @ --shard 0");
        assert!(text.text().lines().zip(&lines).all(|(found, line)| found == line), "{byte}");
        fs::write(&path, &whole).unwrap();
    }
    run(&path, "verify @").done();
}
