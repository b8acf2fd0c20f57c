//! `corelog retire --drain` is killed with -9 in the middle of it, again and again: each record stays, what its map named is
//! where it says, and what was moved before the last round is not moved again.
#![allow(clippy::unwrap_used, reason = "tests")]

mod program;

use corelog::limits::DRAIN_RECORDS_MAX;
use program::{lines, run, run_with, spawn, text_of};
use std::{
    collections::HashMap,
    fs::File,
    io::{ErrorKind, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::Command,
    time::Duration,
};

/// Lines in the shard that is emptied: some rounds.
const LINES: usize = 5 * DRAIN_RECORDS_MAX;

/// Empties shard 1 until the map has so many lines, and kills it there. The lines that it has by then.
fn drain_and_kill(store: &Path, map: &Path, wanted: usize) -> Vec<String> {
    // It opens at once, whoever else has it open.
    let mut pipe = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(map).unwrap();
    let mut child = spawn(store, &format!("retire @ --shard 1 --drain --map {}", map.display()));
    let (mut text, mut part) = (Vec::new(), [0; 4096]);
    while text.iter().filter(|byte| **byte == b'\n').count() < wanted {
        match pipe.read(&mut part) {
            Ok(read) => text.extend_from_slice(&part[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                assert_eq!(child.try_wait().unwrap(), None, "it ended before it was killed");
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let text = String::from_utf8(text).unwrap();
    text.lines().take(wanted).map(str::to_owned).collect()
}

/// How often each line is there.
fn count(store: &Path) -> HashMap<String, usize> {
    let mut counted = HashMap::new();
    run(store, "cat @").done().lines().for_each(|line| *counted.entry(line.to_owned()).or_default() += 1);
    counted
}

#[test]
fn each_record_is_there_after_every_kill() {
    let folder = program::folder();
    let path = folder.path().join("store");
    run(&path, "format @ --size 256MiB --shards 2 --extent 1MiB --sparse").done();
    let lines = lines(LINES);
    run_with(&path, "append @ --shard 1", &text_of(&lines)).done();
    let map = folder.path().join("map");
    assert!(Command::new("mkfifo").arg(&map).status().unwrap().success());
    let kills = [10, DRAIN_RECORDS_MAX / 2, DRAIN_RECORDS_MAX + 10, 2 * DRAIN_RECORDS_MAX];
    for wanted in kills {
        let moved = drain_and_kill(&path, &map, wanted);
        let counted = count(&path);
        assert!(lines.iter().all(|line| counted.contains_key(line)), "a line is gone");
        let places: Vec<&str> = moved.iter().map(|line| line.split_once(' ').unwrap().1).collect();
        let read = program::read_all(&path, places.iter().copied().step_by(97));
        assert!(read.iter().all(|line| counted.contains_key(line)));
        run(&path, "verify @").done();
    }
    let done = folder.path().join("done");
    run(&path, &format!("retire @ --shard 1 --drain --map {}", done.display())).done();
    assert_eq!(run(&path, "cat @ --shard 1").done(), "");
    let counted = count(&path);
    assert!(lines.iter().all(|line| counted.contains_key(line)), "a line is gone");
    let again: usize = counted.values().map(|count| count - 1).sum();
    assert!(again <= kills.len() * (DRAIN_RECORDS_MAX + 1), "{again} lines were moved again");
    run(&path, "verify @").done();
}
