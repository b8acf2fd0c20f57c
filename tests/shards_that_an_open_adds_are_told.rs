//! `corelog append --cores 999` on a small store made as many shards as there was room for, 15 or so, without a word, and they
//! are there for good. Now whoever opens a store is told which shards that added and why not more, and the program adds none
//! for cores that no CPU is there for.
#![allow(clippy::unwrap_used, reason = "tests")]

mod program;

use corelog::{AddedShards, FewerShards, FormatOptions, Inspection, Options, Store};
use program::{USAGE, folder, run, run_with, skipped};
use std::path::Path;

const SHARDS: u32 = 2;

/// With extents of which so many are free that 12 more shards have room.
fn format(path: &Path) {
    let options = FormatOptions::sized(29 << 20).shards(SHARDS).extent_bytes(1 << 20).sparse();
    assert_eq!(Store::format(&[path], &options).unwrap().extents, 28);
}

/// Small, for shards that are many.
fn options() -> Options {
    Options::default().pin(false).huge_pages(false).buffer_bytes(16 << 10).buffers(4)
}

fn shards_on_disk(path: &Path) -> usize {
    Inspection::open(&[path], &Options::default()).unwrap().superblock().shards.len()
}

#[test]
fn the_library_tells_how_many_and_why_not_more() {
    let folder = folder();
    let path = folder.path().join("store");
    format(&path);
    let fewer = |lacking| Some(FewerShards::NoRoom { lacking });
    for (cores, added, shards, text) in [
        (None, AddedShards::default(), 2, "good: 0"),
        (Some(2), AddedShards::default(), 2, "good: 0"),
        (Some(5), AddedShards { active: 3, ..AddedShards::default() }, 5, "good: 3"),
        (Some(5), AddedShards::default(), 5, "good: 0"),
        (Some(40), AddedShards { active: 9, cold: 0, fewer: fewer(26) }, 14, "good: 9; 26 more, for"),
        // A shard that had an extent was taken to need no other, and each such open added a few more shards, until the store was
        // one that cannot be formatted and no shard had an extent to go on to.
        (Some(40), AddedShards { active: 0, cold: 0, fewer: fewer(26) }, 14, "good: 0; 26 more, for"),
        (Some(15), AddedShards { active: 0, cold: 0, fewer: fewer(1) }, 14, "good: 0; 1 more, for"),
        (None, AddedShards::default(), 14, "good: 0"),
    ] {
        let store = Store::open(&path, &Options { cores, ..options() }).unwrap();
        assert_eq!(store.added_shards(), added, "{cores:?} cores");
        assert_eq!(store.shards().len(), shards, "{cores:?} cores");
        assert!(added.to_string().contains(text), "{added}");
        store.close().unwrap();
        drop(store);
        assert_eq!(shards_on_disk(&path), shards, "{cores:?} cores");
    }
}

#[test]
fn the_program_refuses_cores_that_would_add_shards_and_have_no_cpu() {
    let folder = folder();
    let path = folder.path().join("store");
    format(&path);
    let acks = folder.path().join("acks");
    let line = format!("append @ --cores 999 --acks {}", acks.display());
    let words =
        ["cores is 999", "CPUs that this process may run on", "the shards of the store (2)", "at most"];
    run_with(&path, &line, b"a line\n").refused(USAGE, &words);
    assert!(!acks.exists(), "a file was made");
    let profile = folder.path().join("profile.toml");
    std::fs::write(&profile, "cores = 999").unwrap();
    let line = format!("append @ --profile {}", profile.display());
    run_with(&path, &line, b"a line\n").refused(USAGE, &words);
    assert_eq!(shards_on_disk(&path), 2);
    // What the command line says comes before the profile, and needs no shard.
    run_with(&path, &format!("{line} --cores 1"), b"a line\n").done();
    assert_eq!(run(&path, "cat @").text(), "a line\n");
}

#[test]
fn the_program_runs_cores_that_share_a_cpu_where_they_have_shards() {
    let folder = folder();
    let path = folder.path().join("store");
    let cpus = std::thread::available_parallelism().unwrap().get();
    let line = format!("format @ --size 64MiB --extent 512KiB --sparse --shards {}", cpus + 2);
    run(&path, &line).done();
    let ran = run_with(&path, &format!("append @ --json --cores {}", cpus + 2), b"a line\n");
    assert!(!ran.error.contains("shards added"), "{}", ran.error);
    assert_eq!(ran.json()["shards_added"], 0);
    run_with(&path, &format!("append @ --cores {}", cpus + 3), b"x\n")
        .refused(USAGE, &[&format!("ask for {} at most", cpus + 2)]);
}

#[test]
fn the_program_says_in_one_line_what_was_added() {
    if std::thread::available_parallelism().unwrap().get() < 2 {
        return skipped("one CPU");
    }
    let folder = folder();
    let path = folder.path().join("store");
    run(&path, "format @ --size 32MiB --shards 1").done();
    let ran = run_with(&path, "append @ --json --cores 2", b"a line\n");
    assert_eq!(
        ran.error.lines().filter(|line| line.contains("shard")).collect::<Vec<_>>(),
        ["corelog: note: shards added to the store for good: 1"]
    );
    assert_eq!(ran.json()["shards_added"], 1);
    assert_eq!(shards_on_disk(&path), 2);
    let ran = run_with(&path, "append @ --cores 2", b"a line\n");
    assert!(!ran.error.contains("shard"), "{}", ran.error);
    ran.done();
}
