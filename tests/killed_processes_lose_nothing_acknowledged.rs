//! A process that appends from several threads is killed with -9 at random moments. What it was told is durable (or
//! written, which survives a process too) is there after each reopen, byte for byte; and so is what earlier lives left.
//!
//! `CORELOG_KILLS` sets how many kills (30 by default), `CORELOG_SEED` the first seed.
#![expect(clippy::unwrap_used, reason = "tests")]

use corelog::{Address, Durability, FormatOptions, Options, Route, Store, SyncMethod};
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

const CHILD: &str = "CORELOG_KILL_CHILD";

/// SplitMix64: a seed gives the whole run again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// A payload that says what it is, so that any other bytes in its place are noticed.
fn payload(name: u64) -> Vec<u8> {
    let length = 8 + Random(name).below(700) as usize;
    let mut bytes = name.to_le_bytes().to_vec();
    bytes.extend((8..length).map(|at| (name as usize).wrapping_mul(31).wrapping_add(at) as u8));
    bytes
}

fn options(seed: u64) -> Options {
    let sync = if seed.is_multiple_of(3) { SyncMethod::Dsync } else { SyncMethod::Fdatasync };
    Options::default().cores(1 + (seed % 3) as u32).sync(sync).buffer_bytes(32 << 10).buffers(4)
}

/// The process that is killed: four threads append for ever and report each acknowledgement.
#[test]
fn child() {
    let Ok(argument) = std::env::var(CHILD) else { return };
    let (seed, path) = argument.split_once(' ').unwrap();
    let seed: u64 = seed.parse().unwrap();
    let store = Store::open(path, &options(seed)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let store = &store;
            scope.spawn(move || {
                let mut random = Random(seed ^ (thread << 32));
                for count in 0.. {
                    let name = seed << 40 | thread << 32 | count;
                    let route = if random.below(2) == 0 { Route::RoundRobin } else { Route::Key(name) };
                    let Ok(ticket) = store.append_to(route, &payload(name)) else { return };
                    let durability = match random.below(8) {
                        0..4 => continue,
                        4..6 => Durability::Written,
                        _ => Durability::Durable,
                    };
                    if ticket.wait(durability).is_ok() {
                        // One write call per line, so that a kill cannot cut one in two that counts.
                        let line = format!("{name} {}\n", ticket.address());
                        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                    }
                }
            });
        }
    });
}

fn start(seed: u64, path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, format!("{seed} {}", path.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Runs a child for a random time, kills it, and gives what it was told.
fn live_and_die(seed: u64, path: &Path, random: &mut Random) -> Vec<(u64, Address)> {
    let mut child = start(seed, path);
    let output = BufReader::new(child.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        let lines = output.lines().map_while(Result::ok);
        let parse = |line: String| {
            let (name, address) = line.split_once(' ')?;
            Some((name.parse().ok()?, address.parse().ok()?))
        };
        lines.filter_map(parse).collect()
    });
    // From "while it opens" to "after thousands of groups".
    std::thread::sleep(Duration::from_millis(random.below(250)));
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

#[test]
fn what_was_acknowledged_is_there_after_every_kill() {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let kills = number("CORELOG_KILLS", 30);
    let first = number("CORELOG_SEED", u64::from(std::process::id()));
    println!("CORELOG_SEED={first}");
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("store");
    let format = FormatOptions::sized(1 << 30).shards(2).extent_bytes(1 << 20).sparse();
    let mut acknowledged: Vec<(u64, Address)> = Vec::new();
    let mut random = Random(first);
    let mut checked = 0;
    for kill in 0..kills {
        // A fresh store now and then: without cleaning, a log only grows.
        if kill % 25 == 0 {
            acknowledged.clear();
            Store::format(&[&path], &format.clone().replace()).unwrap();
        }
        // 16 bits of a seed name a life; names of records carry it.
        let seed = (first + kill) & 0xffff;
        acknowledged.extend(live_and_die(seed, &path, &mut random));
        let store = Store::open(&path, &options(seed + 1)).unwrap();
        for (name, address) in &acknowledged {
            let found =
                store.read(*address).unwrap_or_else(|error| panic!("kill {kill}, record {name:x}: {error}"));
            assert_eq!(found, payload(*name), "kill {kill}, record {name:x}");
        }
        checked += acknowledged.len();
    }
    println!("{kills} kills, {checked} acknowledged records checked");
    assert!(checked > 0 || kills < 10, "no child ever got an acknowledgement");
}
