//! One store, opened with 1, 2, 3 and 7 cores in turn, by processes that are killed with -9 while they append, or while
//! they open. After each kill the store is opened with each of these numbers: all of them find the same records, whoever
//! runs the shards, and among them everything that was told to be durable.
//!
//! `CORELOG_CORE_KILLS` sets how many kills (12 by default), `CORELOG_SEED` the first seed.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/host.rs"]
mod host;
#[path = "common/stores.rs"]
mod stores;

use corelog::{Durability, FormatOptions, Options, Route, ShardId, Store};
use disk::Random;
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::Stdio,
    sync::mpsc,
    time::Duration,
};
use stores::{Acked, assert_there, payload};

const TEST: &str = "every_number_of_cores_finds_what_was_acknowledged";
const CORES: [u32; 4] = [1, 2, 3, 7];
const THREADS: u64 = 3;

fn options(cores: u32) -> Options {
    stores::options().cores(cores)
}

/// The process that is killed. A line is one write, so that a kill cannot cut one that counts in two.
fn append_for_ever(role: &str) {
    let mut words = role.splitn(3, ' ');
    let mut number = || words.next().unwrap().parse::<u64>().unwrap();
    let (cores, life) = (number() as u32, number());
    let path = words.next().unwrap();
    let say = |line: String| std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    say("begins\n".to_owned());
    let store = Store::open(path, &options(cores)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                for count in 0.. {
                    let name = life << 32 | thread << 28 | count;
                    let route = if count % 2 == 0 { Route::RoundRobin } else { Route::Key(name) };
                    let Ok(ticket) = store.append_to(route, &payload(name)) else { return };
                    if count % 5 == 0 && ticket.wait(Durability::Durable).is_ok() {
                        say(format!("{name} {}\n", ticket.address()));
                    }
                }
            });
        }
    });
}

/// Runs a child with so many cores, kills it some time after it began to open, and gives what it said was durable.
fn live_and_die(path: &Path, cores: u32, life: u64, after: Duration) -> Vec<Acked> {
    let mut child = host::start_role(TEST, &format!("{cores} {life} {}", path.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let (has_begun, begins) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut acked = Vec::new();
        for line in output.lines().map_while(Result::ok) {
            // The harness prints the name of the test on the same line, in front.
            if line.ends_with("begins") {
                has_begun.send(()).unwrap();
            }
            let record = line.split_once(' ').and_then(|(name, address)| {
                Some(Acked { name: name.parse().ok()?, address: address.parse().ok()? })
            });
            acked.extend(record);
        }
        acked
    });
    begins.recv_timeout(Duration::from_secs(60)).unwrap();
    std::thread::sleep(after);
    host::kill(child);
    reader.join().unwrap()
}

/// All records of all shards, by address.
fn everything(store: &Store) -> BTreeMap<u64, (ShardId, u64)> {
    let mut found = BTreeMap::new();
    for record in store.scan_all().unwrap() {
        let record = record.unwrap();
        let name = u64::from_le_bytes(record.payload[..8].try_into().unwrap());
        assert_eq!(record.payload, payload(name), "record {name:x}");
        assert_eq!(
            found.insert(record.address.to_bits(), (record.shard, name)),
            None,
            "record {name:x} comes twice"
        );
    }
    found
}

#[test]
fn every_number_of_cores_finds_what_was_acknowledged() {
    if let Some(role) = host::role() {
        return append_for_ever(&role);
    }
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let kills = number("CORELOG_CORE_KILLS", 12);
    let seed = number("CORELOG_SEED", u64::from(std::process::id()));
    println!("CORELOG_SEED={seed}");
    let mut random = Random(seed);
    let folder = host::folder();
    let path = folder.path().join("store");
    let format = FormatOptions::sized(2 << 30).shards(1).extent_bytes(1 << 20).sparse();
    Store::format(&[&path], &format).unwrap();
    let (mut acked, mut shards) = (Vec::new(), 1);
    for kill in 0..kills {
        // In turn, and now and then any: from seven to one, and the other way.
        let turn = if kill < 8 { kill } else { random.below(4) };
        let cores = CORES[turn as usize % CORES.len()];
        // Every fourth dies while it opens, perhaps between the shards that it makes.
        let bound_us = if kill % 4 == 3 && kill > 4 { 15_000 } else { 120_000 };
        acked.extend(live_and_die(&path, cores, kill + 1, Duration::from_micros(random.below(bound_us))));
        let mut found: Option<BTreeMap<_, _>> = None;
        let first = random.below(4) as usize;
        for look in 0..CORES.len() {
            let cores = CORES[(first + look) % CORES.len()];
            let store = Store::open(&path, &options(cores)).unwrap();
            // A shard for each core, and never fewer than there were.
            shards = shards.max(cores as usize);
            assert_eq!(store.shards().len(), shards, "kill {kill}, {cores} cores");
            assert_there(&store, &acked);
            let now = everything(&store);
            assert!(
                acked
                    .iter()
                    .all(|it| now.get(&it.address.to_bits()).is_some_and(|(_, name)| *name == it.name))
            );
            if let Some(before) = &found {
                assert!(now == *before, "kill {kill}: {cores} cores find other records");
            }
            found = Some(now);
            // Half of the looks end without a close, as a crash does.
            if random.below(2) == 0 {
                store.close().unwrap();
            }
        }
    }
    assert!(acked.len() > 20 || kills < 12, "{} acknowledgements", acked.len());
    assert_eq!(shards, 7);
}

/// Shards that were made by a process that died are run by whoever comes, down to one core; keys keep their shards.
#[test]
fn keys_stay_where_they_are_as_long_as_no_shard_is_added() {
    let folder = host::folder();
    let path = folder.path().join("store");
    Store::format(&[&path], &FormatOptions::sized(256 << 20).shards(3).extent_bytes(1 << 20).sparse())
        .unwrap();
    let routes = |cores: Option<u32>| {
        let mut how = options(1);
        how.cores = cores;
        let store = Store::open(&path, &how).unwrap();
        let routes: Vec<_> = (0..1000).map(|key| store.route(Route::Key(key))).collect();
        store.close().unwrap();
        routes
    };
    let with_one = routes(Some(1));
    assert_eq!(with_one, routes(Some(2)));
    assert_eq!(with_one, routes(Some(3)));
    assert_eq!(with_one, routes(None), "a default adds no shard");
    let with_seven = routes(Some(7));
    assert_ne!(with_one, with_seven);
    assert_eq!(with_seven, routes(Some(1)), "seven shards stay");
}
