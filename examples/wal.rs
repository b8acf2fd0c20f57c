//! A write-ahead log: a table in memory whose changes are durable before they are seen, and which a restart replays.
//!
//! `wal [FOLDER]` makes its store in a temporary folder of FOLDER (the working folder by default), lets eight threads
//! change the table at the same time, so that their commits share syncs, and replays it.
use corelog::{Durability, FormatOptions, Options, Route, ShardId, Store};
use std::{
    collections::HashMap,
    error::Error,
    path::Path,
    sync::{Mutex, PoisonError},
};

/// All changes go through one shard, so that the log has one order.
const LOG: ShardId = ShardId(0);

struct Table {
    log: Store,
    rows: Mutex<HashMap<String, String>>,
}

impl Table {
    /// Opens the log and replays what it holds.
    fn open(path: &Path) -> Result<Self, Box<dyn Error>> {
        let log = Store::open(path, &Options::default())?;
        let mut rows = HashMap::new();
        for record in log.scan(LOG)? {
            let change = String::from_utf8(record?.payload.to_vec())?;
            if let Some((key, value)) = change.split_once('=') {
                rows.insert(key.to_owned(), value.to_owned());
            }
        }
        Ok(Self { log, rows: Mutex::new(rows) })
    }

    /// Returns when the change is durable. The lock orders the log like the table; the wait is outside of it, so that
    /// changes of several threads become durable with one sync.
    fn set(&self, key: &str, value: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
        let ticket = {
            let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
            let ticket = self.log.append_to(Route::Shard(LOG), format!("{key}={value}").as_bytes())?;
            rows.insert(key.to_owned(), value.to_owned());
            ticket
        };
        Ok(ticket.wait(Durability::Durable)?)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir_in(std::env::args().nth(1).unwrap_or_else(|| ".".to_owned()))?;
    let path = folder.path().join("wal.corelog");
    Store::format(&[&path], &FormatOptions::sized(64 << 20).extent_bytes(4 << 20).shards(1))?;

    let table = Table::open(&path)?;
    std::thread::scope(|scope| {
        let change =
            |thread| (0..100).try_for_each(|n| table.set(&format!("{thread}/{}", n % 10), &n.to_string()));
        let threads: Vec<_> = (0..8).map(|thread| scope.spawn(move || change(thread))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Err("a thread panicked".into())))
    })
    .map_err(|error| error.to_string())?;
    let syncs = table.log.shards()[0].counters().syncs.load(std::sync::atomic::Ordering::Relaxed);
    println!("800 durable changes by 8 threads took {syncs} syncs");
    table.log.close()?;

    let replayed = Table::open(&path)?;
    let rows = replayed.rows.lock().unwrap_or_else(PoisonError::into_inner);
    println!("replayed: {} rows, 3/7 = {:?}", rows.len(), rows.get("3/7"));
    assert!(rows.len() == 80 && rows.get("3/7").is_some_and(|value| value == "97"));
    Ok(())
}
