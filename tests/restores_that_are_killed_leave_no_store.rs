//! A restore that took the place of another store and was killed left a store that opened, with a part of the backup in it.
//! It says what it is now, until it is whole.
#![allow(clippy::unwrap_used, reason = "tests")]

mod program;

use corelog::{OpenError, Options, Store};
use program::{FAILED, lines, run, run_with, spawn, text_of};
use std::{fs, io::Write, path::Path, process::Command};

/// Restores from a pipe that gives so many bytes of the backup, and kills it there.
fn restore_and_kill(store: &Path, restore: &str, pipe: &Path, bytes: &[u8]) {
    let mut child = spawn(store, restore);
    // Waits for the program to read from it.
    let mut input = fs::File::options().write(true).open(pipe).unwrap();
    input.write_all(bytes).unwrap();
    child.kill().unwrap();
    drop(input);
    child.wait().unwrap();
}

#[test]
fn what_was_half_restored_opens_as_nothing() {
    let folder = program::folder();
    let store = program::store_in(folder.path());
    let (copy, new, pipe) =
        (folder.path().join("copy"), folder.path().join("new"), folder.path().join("pipe"));
    run_with(&store, "append @ --key record", &text_of(&lines(20_000))).done();
    run(&store, &format!("backup @ {}", copy.display())).done();
    let bytes = fs::read(&copy).unwrap();
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    run(&new, "format @ --size 32MiB --sparse").done();
    run_with(&new, "append @", b"of the store before\n").done();
    let restore = |from: &Path| format!("restore {} @ --size 32MiB --sparse --force", from.display());
    // What the pipe holds is not restored yet; so much of the rest is.
    for part in [bytes.len() / 4, bytes.len() / 2, bytes.len() - 1] {
        restore_and_kill(&new, &restore(&pipe), &pipe, &bytes[..part]);
        for line in ["cat @", "append @", "info @", "verify @"] {
            run(&new, line).refused(FAILED, &["did not come to its end", "--force"]);
        }
        let opened = Store::open(&new, &Options::default());
        assert!(matches!(opened, Err(OpenError::HalfRestored { .. })), "{opened:?}");
    }
    run(&new, &restore(&copy)).done();
    run(&new, "verify @").done();
    assert_eq!(run(&new, "cat @ --shard 1").done(), run(&store, "cat @ --shard 1").done());
    // A new file has no name before it is whole.
    let other = folder.path().join("other");
    restore_and_kill(&other, &restore(&pipe), &pipe, &bytes[..bytes.len() / 2]);
    assert!(!other.exists());
}

#[test]
fn the_first_example_can_be_run_again() {
    let folder = program::folder();
    let path = folder.path().join("store");
    let format = corelog::FormatOptions::sized(64 << 20).shards(1).extent_bytes(1 << 20).sparse();
    for run in 0..3_u64 {
        let store = Store::open_or_format(&path, &format, &Options::default()).unwrap();
        assert_eq!(store.scan(corelog::ShardId(0)).unwrap().count() as u64, run);
        store.append(b"a record").unwrap();
        store.close().unwrap();
    }
    fs::write(&path, b"something else").unwrap();
    let refused = Store::open_or_format(&path, &format, &Options::default()).unwrap_err();
    assert!(matches!(refused, corelog::OpenOrFormatError::Open(_)), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), b"something else");
}
