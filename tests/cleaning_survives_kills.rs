//! Processes that clean are killed with -9: after each kill a scan gives every record once, the newest version of each key
//! is no older than what was told to be durable, and the next process goes on with the extent that was being cleaned.
//!
//! `CORELOG_CLEANING_KILLS` sets how many kills (12 by default), `CORELOG_SEED` the first seed.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "common/overwrites.rs"]
mod overwrites;

use common::Place;
use corelog::{FormatOptions, Inspection, Options, RecordOwner, Store};
use corelog_shards::limits::SUPERBLOCK_AREA_BYTES;
use overwrites::{Index, RECORD, Random, check_values, write};
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

const CHILD: &str = "CORELOG_CLEANING_CHILD";
const SHARDS: u32 = 2;
const EXTENT: u64 = 256 << 10;
const EXTENTS: u64 = 40;
/// Six tenths of the store are live.
const KEYS: u64 = EXTENTS * EXTENT * 6 / 10 / RECORD;
/// Writes of a thread between two that it waits for.
const WRITES_PER_ACK: u64 = 16;

fn options() -> Options {
    common::options(SHARDS).buffer_bytes(32 << 10).checkpoint_bytes(EXTENT)
}

/// One write call per line, so that a kill cannot cut one in two that counts.
fn say(line: &str) {
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

/// The process that is killed: builds its index by a scan, and overwrites for ever.
#[test]
fn child() {
    let Ok(argument) = std::env::var(CHILD) else { return };
    // A thread that cannot go on ends all of it, so that whoever comes to kill it sees that.
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::exit(1);
    }));
    let (seed, path) = argument.split_once(' ').unwrap();
    let seed: u64 = seed.parse().unwrap();
    let store = Store::open(path, &options()).unwrap();
    let index = Arc::new(Index::of(&store, KEYS));
    check_values(&store, &index);
    store.clean_with(Arc::clone(&index) as Arc<dyn RecordOwner>).unwrap();
    say("\nbegins 0 0\n");
    let (store, index) = (&store, &*index);
    std::thread::scope(|scope| {
        for thread in 0..u64::from(SHARDS) {
            scope.spawn(move || overwrite_for_ever(store, index, seed, thread));
        }
    });
}

/// Each thread has the keys of a shard, first those that have no value yet, and tells what is durable: the shard's log is
/// then durable up to there.
fn overwrite_for_ever(store: &Store, index: &Index, seed: u64, thread: u64) {
    let mut random = Random(seed * 1000 + thread + 1);
    let keys = || (thread..KEYS).step_by(SHARDS as usize);
    let missing: Vec<u64> =
        keys().filter(|key| index.entry(*key).lock().unwrap().address.is_none()).collect();
    let mut told = Vec::new();
    for count in 0.. {
        let pick = || thread + u64::from(SHARDS) * random.below(KEYS / u64::from(SHARDS));
        let key = missing.get(count as usize).copied().unwrap_or_else(pick);
        let is_ack = count % WRITES_PER_ACK == 0;
        let (version, _) = write(store, index, key, is_ack);
        told.push((key, version));
        if is_ack {
            told.drain(..).for_each(|(key, version)| say(&format!("durable {key} {version}\n")));
            let counters = store.shards()[thread as usize].counters();
            let cleaned = counters.extents_cleaned.load(Ordering::Relaxed);
            let moved = index.relocations.load(Ordering::Relaxed);
            say(&format!("cleaned {cleaned} {moved}\n"));
        }
    }
}

/// What children said before they were killed.
#[derive(Default)]
struct Told {
    has_begun: bool,
    /// By key.
    durable: Vec<u64>,
    cleaned: u64,
    moved: u64,
}

impl Told {
    fn hear(&mut self, line: &str) -> Option<()> {
        let mut words = line.split(' ');
        let (what, one, two) = (words.next()?, words.next()?, words.next()?);
        let (one, two): (u64, u64) = (one.parse().ok()?, two.parse().ok()?);
        match what {
            "begins" => self.has_begun = true,
            "durable" => {
                let known = self.durable.get_mut(one as usize)?;
                *known = two.max(*known);
            }
            "cleaned" => (self.cleaned, self.moved) = (self.cleaned + one.min(1), self.moved + two.min(1)),
            _ => {}
        }
        Some(())
    }
}

/// Runs a child, kills it a while after it has begun its work, and notes what it said.
fn live_and_die(seed: u64, path: &Path, after: Duration, told: &mut Told) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, format!("{seed} {}", path.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    told.has_begun = false;
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    while !told.has_begun {
        let line = lines.next().expect("the child ends before it begins");
        told.hear(&line);
    }
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| lines.for_each(|line| told.hear(&line).unwrap_or_default()));
        std::thread::sleep(after);
        let end = child.try_wait().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(end, None, "the child ended by itself");
        reader.join().unwrap();
    });
}

/// How many extents were being cleaned when the process died.
fn unfinished(path: &Path) -> usize {
    let found = Inspection::open(&[path], &options()).unwrap();
    found.report().shards.iter().map(|shard| shard.space.moves.len()).sum()
}

/// Each version once, each key no older than told, each byte right.
fn check(path: &Path, durable: &[u64]) {
    let store = Store::open(path, &options()).unwrap();
    let index = Index::of(&store, KEYS);
    for (key, told) in durable.iter().enumerate() {
        let found = *index.entry(key as u64).lock().unwrap();
        assert!(
            found.version >= *told,
            "key {key}: version {told} was durable, and {} is there",
            found.version
        );
    }
    check_values(&store, &index);
}

#[test]
fn what_is_cleaned_is_there_once_after_every_kill() {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let kills = number("CORELOG_CLEANING_KILLS", 12);
    let first = number("CORELOG_SEED", u64::from(std::process::id()));
    println!("CORELOG_SEED={first}");
    let format = FormatOptions::sized(SUPERBLOCK_AREA_BYTES + EXTENTS * EXTENT);
    let place = Place::with(&format.shards(SHARDS).extent_bytes(EXTENT).sparse());
    let mut random = Random(first.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut told = Told { durable: vec![0; KEYS as usize], ..Told::default() };
    let mut in_cleaning = 0;
    for kill in 0..kills {
        let after = Duration::from_millis(100 + random.below(700));
        live_and_die(first + kill, &place.path, after, &mut told);
        in_cleaning += unfinished(&place.path).min(1);
        // Now and then the next process opens what nobody has looked at since the kill.
        if random.below(3) > 0 {
            check(&place.path, &told.durable);
        }
    }
    check(&place.path, &told.durable);
    println!("{kills} kills, {in_cleaning} of them while an extent was being cleaned");
    let is_long = kills >= 10;
    assert!((told.cleaned > 0 && told.moved > 0) || !is_long, "nothing was ever cleaned");
    assert!(in_cleaning > 0 || !is_long, "nobody was killed while cleaning");
}
