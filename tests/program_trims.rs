//! `trim` frees what lies before a record, says how much in words and as JSON, and refuses what it cannot do by the exit
//! codes that the help names.
#![expect(clippy::unwrap_used, reason = "tests")]

mod program;

use program::{LOCKED, NO_RECORD, USAGE, folder, run, run_with};
use std::path::{Path, PathBuf};

/// A store of small extents, and the addresses of the records that were appended to each of its two shards.
fn store(folder: &Path) -> (PathBuf, Vec<Vec<String>>) {
    let path = folder.join("store");
    run(&path, "format @ --size 17MiB --shards 2 --extent 256KiB --sparse").done();
    let lines: String = (0..300).map(|line| format!("{line} {}\n", "x".repeat(6000))).collect();
    let addresses = ["0", "1"].map(|shard| {
        let line = format!("append @ --shard {shard} --addresses");
        let out = run_with(&path, &line, lines.as_bytes()).done();
        out.lines().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
    });
    (path, addresses.to_vec())
}

#[test]
fn it_says_what_it_freed() {
    let folder = folder();
    let (path, addresses) = store(folder.path());
    let text = run(&path, &format!("trim @ --shard 0 --before {}", addresses[0][200])).done();
    for word in ["freed", "held", "free now"] {
        assert!(text.contains(word), "no {word} in {text}");
    }
    let json = run(&path, &format!("trim @ --shard 1 --before {} --json", addresses[1][200])).json();
    assert_eq!((json["shard"].as_u64(), json["held_extents"].as_u64()), (Some(1), Some(0)));
    let freed = json["freed_extents"].as_u64().unwrap();
    assert!(freed > 2 && json["freed_bytes"].as_u64() == Some(freed << 18), "{json}");
    // Twice changes nothing.
    let json = run(&path, &format!("trim @ --shard 1 --before {} --json", addresses[1][200])).json();
    assert_eq!(json["freed_extents"].as_u64(), Some(0));
    run(&path, &format!("read @ {}", addresses[1][200])).done();
    run(&path, &format!("read @ {}", addresses[1][0])).refused(NO_RECORD, &[]);
    run(&path, "verify @").done();
}

#[test]
fn it_refuses_by_exit_codes() {
    let folder = folder();
    let (path, addresses) = store(folder.path());
    run(&path, &format!("trim @ --shard 7 --before {}", addresses[0][9])).refused(USAGE, &["no shard 7"]);
    run(&path, &format!("trim @ --shard 1 --before {}", addresses[0][9]))
        .refused(NO_RECORD, &["one of shard 0", "not of shard 1"]);
    assert_eq!(run(&path, "trim @ --shard 0").code, Some(USAGE));
    let options = corelog::Options::default().cores(1);
    let store = corelog::Store::open(&path, &options).unwrap();
    run(&path, &format!("trim @ --shard 0 --before {}", addresses[0][9])).refused(LOCKED, &[]);
    store.close().unwrap();
    run(&path, &format!("trim @ --shard 0 --before {}", addresses[0][9])).done();
}
