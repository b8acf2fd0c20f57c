//! Each kind of bad input that reaches the program gives its own message, says what to do, and loses nothing.
#![expect(clippy::unwrap_used, reason = "tests")]

mod program;

use corelog_shards::format::checksum::crc32c;
use program::{
    DAMAGE, FAILED, LOCKED, NO_RECORD, USAGE, folder, lines, read_all, run, run_with, spawn, store_in,
    text_of,
};
use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

const RECORD_BYTES_MAX: usize = 262_008;

/// A store with some lines, and their addresses.
fn filled(folder: &Path) -> (PathBuf, Vec<String>, String) {
    let path = store_in(folder);
    let lines = lines(500);
    let addresses = run_with(&path, "append @ --addresses", &text_of(&lines)).done();
    (path, lines, addresses)
}

#[track_caller]
fn nothing_is_lost(path: &Path, lines: &[String], addresses: &str) {
    assert_eq!(read_all(path, addresses.lines()), lines);
    run_with(path, "append @", b"one more\n").done();
    assert_eq!(read_all(path, addresses.lines()), lines);
}

#[test]
fn what_is_not_a_store_is_named() {
    let folder = folder();
    let commands = ["append @", "info @", "read @ 0000000000000000"];
    let all = |name: &str, words: &[&str]| {
        let path = folder.path().join(name);
        commands.iter().for_each(|line| {
            run(&path, line).refused(FAILED, words);
        });
    };
    let make = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    all("missing", &["does not exist", "corelog format"]);
    all("", &["is a folder"]);
    all("/dev/null", &["neither a file nor a block device"]);
    make("zeros", &vec![0; 4 << 20]);
    all("zeros", &["never formatted", "format it"]);
    make("text", &b"these are not the bytes of a store\n".repeat(100_000));
    all("text", &["is not a store", "formatting it would destroy"]);
    make("empty", b"");
    all("empty", &["empty"]);
}

#[test]
fn a_truncated_store_is_told_from_a_whole_one_and_is_whole_when_its_bytes_are_back() {
    let folder = folder();
    let (path, lines, addresses) = filled(folder.path());
    let whole = fs::read(&path).unwrap();
    for bytes in [whole.len() - (8 << 20), 4 << 20, 100_000, 70_000] {
        File::options().write(true).open(&path).unwrap().set_len(bytes as u64).unwrap();
        for line in ["append @", "info @", "read @ 0000400000000210"] {
            run(&path, line).refused(FAILED, &["truncated"]);
        }
    }
    fs::write(&path, &whole).unwrap();
    nothing_is_lost(&path, &lines, &addresses);
}

#[test]
fn a_file_that_is_larger_than_its_store_is_used_as_far_as_the_store_goes() {
    let folder = folder();
    let (path, lines, addresses) = filled(folder.path());
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(fs::metadata(&path).unwrap().len() + (8 << 20)).unwrap();
    nothing_is_lost(&path, &lines, &addresses);
}

#[test]
fn a_store_of_a_later_version_is_left_alone() {
    let folder = folder();
    let (path, lines, addresses) = filled(folder.path());
    let whole = fs::read(&path).unwrap();
    let mut later = whole.clone();
    let length = u32::from_le_bytes(later[12..16].try_into().unwrap()) as usize;
    later[8] = 2;
    let checksum = crc32c(&later[..length - 4]);
    later[length - 4..length].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&path, &later).unwrap();
    for line in ["append @", "info @", "read @ 0000400000000210"] {
        run_with(&path, line, b"x\n").refused(FAILED, &["format version 2", "later version of the program"]);
    }
    assert!(fs::read(&path).unwrap() == later, "it was written to");
    fs::write(&path, &whole).unwrap();
    nothing_is_lost(&path, &lines, &addresses);
}

#[test]
fn a_store_without_a_whole_superblock_is_damaged() {
    let folder = folder();
    let (path, lines, addresses) = filled(folder.path());
    let whole = fs::read(&path).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    for copy in 0..4 {
        file.write_all_at(&[0xff], copy * (64 << 10) + 40).unwrap();
    }
    run(&path, "append @").refused(DAMAGE, &["no copy of the superblock", "checksum"]);
    run(&path, "info @").refused(DAMAGE, &["no copy of the superblock"]);
    fs::write(&path, &whole).unwrap();
    nothing_is_lost(&path, &lines, &addresses);
}

#[test]
fn a_locked_store_can_be_looked_at_and_nothing_else() {
    let folder = folder();
    let (path, lines, addresses) = filled(folder.path());
    let mut owner = spawn(&path, "append @ --addresses");
    let mut stdin = owner.stdin.take().unwrap();
    stdin.write_all(b"from the owner\n").unwrap();
    // It has the lock when it has answered.
    let mut answer = [0; 17];
    std::io::Read::read_exact(owner.stdout.as_mut().unwrap(), &mut answer).unwrap();
    let refused = run_with(&path, "append @", b"from another\n");
    refused.refused(LOCKED, &["is locked", "close that one"]);
    run(&path, "format @ --size 32MiB --force").refused(LOCKED, &["is locked"]);
    let info = run(&path, "info @");
    assert!(info.error.contains("another process has it open"), "{}", info.error);
    assert!(info.done().contains("shard"));
    let address = std::str::from_utf8(&answer).unwrap().trim();
    assert_eq!(run(&path, &format!("read @ {address}")).done(), "from the owner\n");
    drop(stdin);
    assert!(owner.wait().unwrap().success());
    nothing_is_lost(&path, &lines, &addresses);
}

#[test]
fn what_exists_is_not_formatted_over() {
    let folder = folder();
    let (path, lines, addresses) = filled(folder.path());
    run(&path, "format @ --size 32MiB").refused(FAILED, &["exists", "--force"]);
    let nowhere = folder.path().join("no").join("store");
    run(&nowhere, "format @ --size 32MiB").refused(FAILED, &["folder does not exist"]);
    nothing_is_lost(&path, &lines, &addresses);
}

#[test]
fn records_of_no_byte_and_of_all_that_fit_come_back_and_one_more_byte_is_refused() {
    let folder = folder();
    let path = store_in(folder.path());
    let largest = "y".repeat(RECORD_BYTES_MAX);
    let text = format!("\n{largest}\n\nlast");
    let addresses = run_with(&path, "append @ --addresses", text.as_bytes()).done();
    assert_eq!(read_all(&path, addresses.lines()), ["", &largest, "", "last"]);

    let longer = format!("first\n{largest}y\nnever\n");
    let refused = run_with(&path, "append @ --addresses", longer.as_bytes());
    let words = ["line 2 (byte 6) has 262009 bytes", "at most 262008", "first 1 records", "durable"];
    refused.refused(FAILED, &words);
    assert_eq!(read_all(&path, refused.text().lines()), ["first"]);

    // As a whole it is a large record, of which the store takes a quarter of its own size.
    let whole = folder.path().join("whole");
    fs::File::create(&whole).unwrap().set_len(1 << 30).unwrap();
    let line = format!("append @ {} --split none", whole.display());
    run(&path, &line).refused(USAGE, &["a large record of this store has at most", "no record of the input"]);

    // With larger buffers it fits.
    let profile = folder.path().join("profile.toml");
    fs::write(&profile, "buffer-bytes = 1048576\n").unwrap();
    let line = format!("append @ --addresses --profile {}", profile.display());
    let addresses = run_with(&path, &line, longer.as_bytes()).done();
    assert_eq!(read_all(&path, addresses.lines()), ["first", &format!("{largest}y"), "never"]);
}

#[test]
fn a_record_that_is_cut_off_is_named_with_its_byte_and_those_before_it_are_kept() {
    let folder = folder();
    let path = store_in(folder.path());
    let input = b"\x03\0\0\0one\0\0\0\0\x05\0\0\0fou";
    let refused = run_with(&path, "append @ --split u32le --addresses", input);
    let words =
        ["record 3 at byte 11 is cut off", "9 bytes", "after 7", "first 2 records of the input (3 bytes)"];
    refused.refused(FAILED, &words);
    assert_eq!(read_all(&path, refused.text().lines()), ["one", ""]);
    let summary = run_with(&path, "append @ --split u32le --json", input);
    let report: serde_json::Value = serde_json::from_slice(&summary.out).unwrap();
    assert_eq!((report["records"].as_u64(), report["bytes"].as_u64()), (Some(2), Some(3)));
    assert!(report["error"].as_str().unwrap().contains("cut off"), "{report}");
}

#[test]
fn an_input_that_is_not_there_is_told_before_the_store_is_touched() {
    let folder = folder();
    let (path, ..) = filled(folder.path());
    let before = fs::read(&path).unwrap();
    run(&path, "append @ /nowhere/at/all").refused(FAILED, &["/nowhere/at/all", "No such file"]);
    run(&path, "append @ /tmp").refused(FAILED, &["/tmp", "is a folder"]);
    assert!(fs::read(&path).unwrap() == before, "the store was opened");
}

#[test]
fn an_address_without_a_record_is_named() {
    let folder = folder();
    let (path, lines, addresses) = filled(folder.path());
    let good = addresses.lines().next().unwrap();
    run(&path, "read @ ffffffffffffffff").refused(NO_RECORD, &["ffffffffffffffff", "behind the end"]);
    // An extent's header, and a place that nothing was appended to yet.
    run(&path, "read @ 0000400000000000").refused(NO_RECORD, &["nothing was appended there"]);
    let behind = u64::from_str_radix(good, 16).unwrap() + (1 << 18);
    run(&path, &format!("read @ {behind:016x}")).refused(NO_RECORD, &["0000400000"]);
    // What is in front of a bad address is printed.
    let ran = run(&path, &format!("read @ {good} ffffffffffffffff"));
    assert_eq!(ran.refused(NO_RECORD, &[]).text(), format!("{}\n", lines[0]));
    // Not at a record's start: other bytes are never given out.
    let within = u64::from_str_radix(addresses.lines().nth(100).unwrap(), 16).unwrap() + 1;
    let ran = run(&path, &format!("read @ {within:016x}"));
    assert!(ran.refused(DAMAGE, &["damage at slot"]).out.is_empty());
    run(&path, "read @ notanaddress").done_nothing();
    nothing_is_lost(&path, &lines, &addresses);
}

impl program::Ran {
    /// Refused by the command line itself.
    #[track_caller]
    fn done_nothing(&self) {
        assert_eq!(self.code, Some(USAGE), "{}", self.error);
        assert!(self.error.contains("16 hexadecimal digits"), "{}", self.error);
    }
}

#[test]
fn options_out_of_bounds_are_named_with_their_bounds() {
    let folder = folder();
    let new = folder.path().join("new");
    // It was called size-bytes, which no flag is.
    run(&new, "format @ --size 1MiB").refused(USAGE, &["corelog: size is 1048576; it goes from"]);
    run(&new, "format @ --size 32MiB --slot 5000").refused(USAGE, &["slot size 5000", "power of two"]);
    run(&new, "format @ --size 32MiB --slot 1MiB").refused(USAGE, &["1048576", "65536"]);
    run(&new, "format @ --size 32MiB --shards 2000").refused(USAGE, &["shards is 2000", "1024"]);
    run(&new, "format @ --size 2MiB --shards 64").refused(USAGE, &["too small for 64 shards"]);
    run(&new, "format @").refused(USAGE, &["how large", "--size"]);
    assert!(!new.exists(), "a file was left");

    let (path, lines, addresses) = filled(folder.path());
    run(&path, "append @ --cores 5000").refused(USAGE, &["cores is 5000", "1 to 1024"]);
    run_with(&path, "append @ --shard 7", b"x\n").refused(USAGE, &["no shard 7", "0 to 1"]);
    let profile = folder.path().join("profile.toml");
    let line = format!("append @ --profile {}", profile.display());
    for (text, words) in [
        ("buffers = 3", &["buffers is 3"][..]),
        ("io-depth = 1", &["io-depth is 1", "8 to 4096"]),
        ("bufers = 8", &["profile", "line 1", "unknown field `bufers`"]),
        ("cores = 2\nbuffers = \"eight\"", &["profile", "line 2"]),
    ] {
        fs::write(&profile, text).unwrap();
        run(&path, &line).refused(USAGE, words);
    }
    fs::remove_file(&profile).unwrap();
    run(&path, &line).refused(FAILED, &["profile", "No such file"]);
    nothing_is_lost(&path, &lines, &addresses);
}

#[test]
fn a_store_that_is_full_keeps_what_it_said_it_has() {
    let folder = folder();
    let path = folder.path().join("store");
    run(&path, "format @ --size 4MiB --shards 2").done();
    let lines = lines(100_000);
    let full = run_with(&path, "append @ --addresses --in-flight 1000", &text_of(&lines));
    full.refused(program::FULL, &["the store is full", "make space, or a larger store", "durable"]);
    let addresses: Vec<&str> = full.text().lines().collect();
    assert!(!addresses.is_empty());
    assert_eq!(read_all(&path, addresses.iter().copied()), lines[..addresses.len()]);
}
