//! Processes are killed with -9 at random moments: while they append from several threads, while they open what the last
//! kill left, and while they format. What was told to be durable (or written, which survives a process too) is there
//! after each reopen, byte for byte, and so is what earlier lives left; a buffered record is there whole or not at all
//! (fault matrix rows 1, 2 and 3; P1, P3, P6).
//!
//! `CORELOG_KILLS` sets how many kills (40 by default), `CORELOG_SEED` the first seed.
#![expect(clippy::unwrap_used, reason = "tests")]

use corelog::{Address, Durability, FormatOptions, OpenError, Options, Route, Store, SyncMethod};
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

const CHILD: &str = "CORELOG_KILL_CHILD";
/// Kills after which a fresh store begins: without cleaning, a log only grows.
const KILLS_OF_A_STORE: u64 = 25;
const THREADS: u64 = 4;

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
    let methods = [SyncMethod::Dsync, SyncMethod::Auto, SyncMethod::Fdatasync];
    let sync = methods[(seed / 3 % 3) as usize];
    Options::default().cores(1 + (seed % 3) as u32).sync(sync).buffer_bytes(32 << 10).buffers(4)
}

/// Small enough to be written whole within the time of a kill.
fn format() -> FormatOptions {
    FormatOptions::sized(48 << 20).shards(2).extent_bytes(1 << 20).replace()
}

/// The process that is killed. One write call per line, so that a kill cannot cut one in two that counts.
fn say(line: &str) {
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

#[test]
fn child() {
    let Ok(argument) = std::env::var(CHILD) else { return };
    let (seed, path) = argument.split_once(' ').unwrap();
    say("begins\n");
    let Ok(seed) = seed.parse::<u64>() else {
        Store::format(&[path], &format()).unwrap();
        return say("formatted\n");
    };
    let store = Store::open(path, &options(seed)).unwrap();
    say("opened\n");
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || append_for_ever(store, seed, thread));
        }
    });
}

/// Appends, and reports each acknowledgement: its durability, the record's name, and its address.
fn append_for_ever(store: &Store, seed: u64, thread: u64) {
    let mut random = Random(seed ^ (thread << 32));
    for count in 0.. {
        let name = seed << 40 | thread << 32 | count;
        let route = if random.below(2) == 0 { Route::RoundRobin } else { Route::Key(name) };
        let Ok(ticket) = store.append_to(route, &payload(name)) else { return };
        let durability = match random.below(8) {
            0..4 => Durability::Buffered,
            4..6 => Durability::Written,
            _ => Durability::Durable,
        };
        if ticket.wait(durability).is_ok() {
            say(&format!("{durability} {name} {}\n", ticket.address()));
        }
    }
}

/// What a child said before it was killed.
#[derive(Default)]
struct Told {
    /// It had opened, or formatted: what comes after the beginning.
    is_through: bool,
    buffered: Vec<(u64, Address)>,
    kept: Vec<(u64, Address)>,
    written: u64,
    durable: u64,
}

impl Told {
    fn hear(&mut self, line: &str) -> Option<()> {
        let mut words = line.split(' ');
        let (first, name, address) = (words.next()?, words.next(), words.next());
        self.is_through |= matches!(first, "opened" | "formatted");
        let record = (name?.parse().ok()?, address?.parse().ok()?);
        match first {
            "buffered" => self.buffered.push(record),
            "written" | "durable" => {
                self.written += u64::from(first == "written");
                self.durable += u64::from(first == "durable");
                self.kept.push(record);
            }
            _ => {}
        }
        Some(())
    }
}

fn start(what: &str, path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, format!("{what} {}", path.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Runs a child for a while from where it begins its work, kills it, and gives what it said.
fn live_and_die(what: &str, path: &Path, after: Duration) -> Told {
    let mut child = start(what, path);
    let output = BufReader::new(child.stdout.take().unwrap());
    let (has_begun, begins) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut told = Told::default();
        for line in output.lines().map_while(Result::ok) {
            // The harness prints the name of the test on the same line, in front.
            if line.ends_with("begins") {
                has_begun.send(()).unwrap();
            }
            let _other_lines_are_the_harness = told.hear(&line);
        }
        told
    });
    begins.recv_timeout(Duration::from_secs(60)).unwrap();
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

/// Everything that counts of the run.
#[derive(Debug, Default)]
struct Tally {
    in_append: u64,
    in_open: u64,
    in_format: u64,
    /// Acknowledgements by durability: told in the child's life.
    buffered: u64,
    written: u64,
    durable: u64,
    /// Reads of acknowledged records that were compared, and of buffered ones that were still there.
    compared: u64,
    buffered_kept: u64,
}

/// A format that is killed leaves what is no store, or a whole empty one.
fn kill_in_format(path: &Path, random: &mut Random, tally: &mut Tally) {
    let told = live_and_die("format", path, Duration::from_micros(random.below(60_000)));
    tally.in_format += u64::from(!told.is_through);
    match Store::open(path, &options(1)) {
        Ok(store) => {
            let mut records = store.shards().iter().flat_map(|shard| store.scan(shard.id()).unwrap());
            assert!(records.next().is_none(), "a new store has records");
            drop(records);
            store.close().unwrap();
        }
        Err(OpenError::Superblock { .. } | OpenError::Device(_)) if !told.is_through => {}
        Err(error) => panic!("after a killed format: {error:?}"),
    }
    let _was_never_made = std::fs::remove_file(path);
}

#[test]
fn what_was_acknowledged_is_there_after_every_kill() {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let kills = number("CORELOG_KILLS", 40);
    let first = number("CORELOG_SEED", u64::from(std::process::id()));
    println!("CORELOG_SEED={first}");
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("store");
    let sparse = FormatOptions::sized(1 << 30).shards(2).extent_bytes(1 << 20).sparse();
    let mut acknowledged: Vec<(u64, Address)> = Vec::new();
    let mut random = Random(first);
    let mut tally = Tally::default();
    for kill in 0..kills {
        if kill % KILLS_OF_A_STORE == 0 {
            acknowledged.clear();
            Store::format(&[&path], &sparse.clone().replace()).unwrap();
        }
        if random.below(8) == 0 {
            kill_in_format(&folder.path().join("formatted"), &mut random, &mut tally);
            continue;
        }
        // Every third is to die while it opens, which takes some milliseconds; the others after thousands of groups.
        let bound_us = if random.below(3) == 0 { 10_000 } else { 250_000 };
        // 16 bits of a seed name a life; names of records carry it.
        let seed = (first + kill) & 0xffff;
        let told = live_and_die(&seed.to_string(), &path, Duration::from_micros(random.below(bound_us)));
        tally.in_open += u64::from(!told.is_through);
        tally.in_append += u64::from(told.is_through);
        tally.buffered += told.buffered.len() as u64;
        (tally.written, tally.durable) = (tally.written + told.written, tally.durable + told.durable);
        acknowledged.extend(told.kept);
        // Now and then the next process opens what nobody has looked at since the last kill.
        if random.below(3) == 0 && kill + 1 < kills && (kill + 1) % KILLS_OF_A_STORE != 0 {
            continue;
        }
        let store = Store::open(&path, &options(seed + 1)).unwrap();
        for (name, address) in &acknowledged {
            let found =
                store.read(*address).unwrap_or_else(|error| panic!("kill {kill}, record {name:x}: {error}"));
            assert_eq!(found, payload(*name), "kill {kill}, record {name:x}");
        }
        tally.compared += acknowledged.len() as u64;
        for (name, address) in &told.buffered {
            let Ok(found) = store.read(*address) else { continue };
            assert_eq!(found, payload(*name), "kill {kill}, buffered record {name:x}");
            tally.buffered_kept += 1;
        }
    }
    println!("{kills} kills: {tally:?}");
    let is_long = kills >= 30;
    let saw_all =
        [tally.in_append, tally.buffered, tally.written, tally.durable].iter().all(|seen| *seen > 0);
    assert!(saw_all || !is_long, "no child ever got as far as an acknowledgement of each kind: {tally:?}");
    assert!(tally.in_open + tally.in_format > 0 || !is_long, "nobody was killed early: {tally:?}");
}
