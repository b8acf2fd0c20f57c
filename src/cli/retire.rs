//! `corelog retire`.

use super::{
    args::{Retire, RunOptions},
    exit::Exit,
    failure::Failure,
    output::{Facts, Reader, bytes, count},
    setup,
};
use corelog::{
    Address, DrainError, Drained, RecordOwner, RetireError, Route, ShardId, Store, limits::RING_BUFFERS_MIN,
};
use corelog_shards::limits::BUFFER_BYTES_MAX;
use serde::Serialize;
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
    sync::{Mutex, PoisonError},
};

/// What became of the shard.
#[derive(Debug, Serialize)]
struct Report {
    shard: u16,
    retired: bool,
    /// Shards that take appends still.
    active: usize,
    drained: Option<Drained>,
}

/// Wants every record, and writes down where it went.
struct Map(Mutex<Option<BufWriter<File>>>);

impl Map {
    fn create(path: Option<&Path>) -> Result<Self, Failure> {
        let file = path.map(File::create).transpose().map_err(of_map)?;
        Ok(Self(Mutex::new(file.map(BufWriter::new))))
    }

    fn end(self) -> Result<(), Failure> {
        let file = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        file.map_or(Ok(()), |mut file| file.flush()).map_err(of_map)
    }
}

impl RecordOwner for Map {
    fn is_live(&self, _address: Address, _payload: &[u8]) -> bool {
        true
    }

    fn relocated(&self, from: Address, to: Address, _payload: &[u8]) -> bool {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(error)) = file.as_mut().map(|file| writeln!(file, "{from} {to}")) {
            // What is moved is moved; the rest of the map is worth nothing.
            super::failure::say(&format!("the map of addresses ends early: {error}"));
            *file = None;
        }
        true
    }
}

/// Opens the store, retires the shard, empties it if that is asked for, and closes the store.
pub fn run(args: &Retire) -> Result<(), Failure> {
    let run = RunOptions { cores: None, profile: None, sync: None, device: args.device.clone() };
    let mut options = setup::options(&run)?.buffers(RING_BUFFERS_MIN);
    if args.drain {
        // The records may be as long as any store allows.
        let looked = super::read::inspect(&args.store, &args.device)?;
        let geometry = looked.superblock().geometry;
        let buffer = (geometry.extent_bytes() - geometry.slot_bytes()).min(BUFFER_BYTES_MAX);
        options = options.buffer_bytes(buffer - buffer % geometry.slot_bytes());
    }
    let store = Store::open_all(&args.device.paths(&args.store), &options)?;
    setup::announce(&store);
    let done = retire(&store, args);
    let closed = store.close();
    let reader = Reader::from_json_flag(args.json);
    reader.write(&mut std::io::stdout().lock(), &done?, for_person).map_err(Failure::of_output)?;
    closed.map_err(Failure::from)
}

fn retire(store: &Store, args: &Retire) -> Result<Report, Failure> {
    store.retire_shard(args.shard)?;
    let takes: Vec<ShardId> = store.shards().iter().filter(|it| !it.is_retired()).map(|it| it.id()).collect();
    let drained = if args.drain { Some(drain(store, args, &takes)?) } else { None };
    Ok(Report { shard: args.shard.0, retired: true, active: takes.len(), drained })
}

/// All to one shard, so that they keep their order.
fn drain(store: &Store, args: &Retire, takes: &[ShardId]) -> Result<Drained, Failure> {
    let next = takes.iter().find(|shard| **shard > args.shard).or(takes.first());
    let route = next.map_or(Route::RoundRobin, |shard| Route::Shard(*shard));
    let map = Map::create(args.map.as_deref())?;
    let drained = store.drain_shard(args.shard, &map, &mut |_| route);
    // As far as it went.
    map.end()?;
    Ok(drained?)
}

fn of_map(error: std::io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("writing the map of addresses failed: {error}"))
}

impl From<RetireError> for Failure {
    fn from(error: RetireError) -> Self {
        match error {
            RetireError::NoSuchShard { .. } | RetireError::LastShard { .. } | RetireError::Cold { .. } => {
                Self::new(Exit::Usage, error)
            }
            error => Self::new(Exit::Failed, error),
        }
    }
}

impl From<DrainError> for Failure {
    fn from(error: DrainError) -> Self {
        match error {
            DrainError::Scan(error) => error.into(),
            DrainError::Large(error) => error.into(),
            DrainError::Append(error) => error.into(),
            DrainError::Flush(error) => error.into(),
            DrainError::Space(error) => error.into(),
            DrainError::NoSuchShard { .. } | DrainError::Cold { .. } => Self::new(Exit::Usage, error),
            error => Self::new(Exit::Failed, error),
        }
    }
}

fn for_person(report: &Report) -> Facts {
    let mut facts = Facts::default();
    facts.fact("shard", format!("{}, retired; {} take appends", report.shard, report.active));
    if let Some(drained) = &report.drained {
        facts
            .fact("moved", format!("{} records, {}", count(drained.moved), bytes(drained.moved_bytes)))
            .fact("freed", format!("{} extents", count(drained.freed_extents)))
            .fact("left", format!("{} extents", count(drained.left_extents)));
    }
    facts
}
