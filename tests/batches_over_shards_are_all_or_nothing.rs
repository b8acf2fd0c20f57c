//! A batch over several shards is in all their logs or in none, also where a process is killed in the middle of its commit;
//! each shard's scan gives its share once, where it was resolved.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{block_on, payload};
use corelog::{AppendError, Durability, FormatOptions, Inspection, Options, Route, ShardId, Store};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const CHILD: &str = "CORELOG_OVER_CHILD";
const SHARDS: u16 = 3;
const KILLS: u64 = 12;

fn options() -> Options {
    common::options(2).buffer_bytes(16 << 10).checkpoint_bytes(64 << 10)
}

fn formatted() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("store");
    let format = FormatOptions::sized(64 << 20).shards(SHARDS.into()).extent_bytes(1 << 20).sparse();
    Store::format(&[&path], &format).unwrap();
    (folder, path)
}

const fn route(shard: u16) -> Route {
    Route::Shard(ShardId(shard))
}

fn scanned(store: &Store, shard: u16) -> Vec<Vec<u8>> {
    store.scan(ShardId(shard)).unwrap().map(|record| record.unwrap().payload.to_vec()).collect()
}

fn is_good(path: &Path) {
    let report = Inspection::open(&[path], &options()).unwrap().verify(None, &mut |_, _| {}).unwrap();
    assert!(report.is_good(), "{report:?}");
}

#[test]
fn each_shard_gets_its_share_in_its_order() {
    for records in [1, 5, 200] {
        let (_folder, path) = formatted();
        let store = Store::open(&path, &options()).unwrap();
        let mut expected: Vec<Vec<Vec<u8>>> = vec![Vec::new(); SHARDS.into()];
        let mut batch = store.batch_over().unwrap();
        let mut given_up = store.batch_over().unwrap();
        for index in 0..records {
            // The last shard has no share.
            let shard = (index % 2) as u16;
            let bytes = payload(1, index, 900);
            batch.append_to(route(shard), &bytes).unwrap();
            given_up.append_to(route(shard), b"never seen").unwrap();
            expected[usize::from(shard)].push(bytes);
        }
        drop(given_up);
        let ticket = if records == 5 { block_on(batch.commit_async()) } else { batch.commit() }.unwrap();
        let shards: Vec<ShardId> = ticket.shards().collect();
        assert_eq!(shards.len(), records.min(2) as usize);
        for shard in shards {
            ticket.ticket(shard).unwrap().wait(Durability::Durable).unwrap();
            let addresses = ticket.addresses(shard).unwrap();
            let own = &expected[usize::from(shard.0)];
            assert_eq!(addresses.len(), own.len());
            for (address, bytes) in addresses.iter().zip(own) {
                assert_eq!(store.read(*address).unwrap(), *bytes);
            }
        }
        let check = |store: &Store| {
            for shard in 0..SHARDS {
                assert!(scanned(store, shard) == expected[usize::from(shard)], "shard {shard}");
            }
        };
        check(&store);
        drop(ticket);
        store.close().unwrap();
        is_good(&path);
        let store = Store::open(&path, &options()).unwrap();
        check(&store);
        store.close().unwrap();
    }
}

#[test]
fn so_many_at_a_time_and_no_more() {
    let (_folder, path) = formatted();
    let store = Store::open(&path, &options()).unwrap();
    let mut open: Vec<_> = (0..64).map(|_| store.batch_over().unwrap()).collect();
    let error = store.batch_over().unwrap_err();
    assert!(matches!(error, AppendError::TooManyBatches { max: 64 }), "{error}");
    let empty = open.pop().unwrap().commit().unwrap();
    assert_eq!(empty.shards().count(), 0);
    drop(empty);
    let again = store.batch_over().unwrap();
    drop((open, again));
    store.close().unwrap();
}

/// The process that is killed: batches of one name in all shards, told once they are committed.
#[test]
fn child() {
    let Ok(argument) = std::env::var(CHILD) else { return };
    let (life, path) = argument.split_once(' ').unwrap();
    let life: u64 = life.parse().unwrap();
    let store = Store::open(path, &options()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..3_u64 {
            let store = &store;
            scope.spawn(move || {
                for count in 0.. {
                    let name = life << 32 | thread << 24 | count;
                    let mut batch = store.batch_over().unwrap();
                    for shard in 0..SHARDS {
                        for part in 0..1 + name % 7 {
                            let mut bytes = name.to_le_bytes().to_vec();
                            bytes.extend(payload(name, part, 500 + 1000 * usize::from(shard)));
                            batch.append_to(route(shard), &bytes).unwrap();
                        }
                    }
                    let _ticket = batch.commit().unwrap();
                    std::io::stdout().lock().write_all(format!("done {name}\n").as_bytes()).unwrap();
                }
            });
        }
    });
}

/// The names of the batches in a shard, and how often each record of them is there.
fn names(store: &Store, shard: u16) -> BTreeMap<u64, u64> {
    let mut names = BTreeMap::new();
    for bytes in scanned(store, shard) {
        let name = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        let part = *names.entry(name).and_modify(|count| *count += 1).or_insert(1) - 1;
        assert!(bytes[8..] == payload(name, part, 500 + 1000 * usize::from(shard)), "{name:x}, part {part}");
    }
    names
}

#[test]
fn processes_that_are_killed_leave_no_half_batch() {
    let (_folder, path) = formatted();
    let mut done = Vec::new();
    for life in 1..=KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(CHILD, format!("{life} {}", path.display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let wanted = 1 + life * 5 % 23;
        let told = |line: &String| line.strip_prefix("done ").map(|name| name.parse::<u64>().unwrap());
        let heard = lines.by_ref().map_while(Result::ok).filter_map(|line| told(&line));
        done.extend(heard.take(wanted as usize));
        child.kill().unwrap();
        done.extend(lines.map_while(Result::ok).filter_map(|line| told(&line)));
        child.wait().unwrap();

        let store = Store::open(&path, &options()).unwrap();
        // What the open had to resolve is there once the cores have come round.
        store.checkpoint().unwrap();
        let found: Vec<_> = (0..SHARDS).map(|shard| names(&store, shard)).collect();
        for (name, count) in &found[0] {
            assert_eq!(*count, 1 + name % 7, "batch {name:x}");
        }
        assert!(found.iter().all(|names| *names == found[0]), "life {life}: half a batch");
        let lost: Vec<_> = done.iter().filter(|name| !found[0].contains_key(name)).collect();
        assert!(lost.is_empty(), "life {life}: {lost:x?} of {} batches are lost", done.len());
        store.close().unwrap();
        is_good(&path);
    }
    assert!(done.len() as u64 > 3 * KILLS);
}
