//! The workloads have to notice an engine that loses records: one that writes a file, and may forget the last of it.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::{Keeper, Setup, durable::Durable, ingest::Ingest, read};
use crate::{
    device::Device,
    engine::{Engine, EngineName, Ground, Load, Place, Reader, Writer},
    error::{Fault, PeerError},
    payload::RecordId,
};
use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

type Records = HashMap<u64, Vec<u8>>;

/// `FORGETS`: the last record of each sync is not written.
struct InFile<const FORGETS: bool> {
    path: PathBuf,
    records: Mutex<Records>,
}

impl<const FORGETS: bool> Engine for InFile<FORGETS> {
    const NAME: EngineName = EngineName::Corelog;
    type Writer<'engine> = InFileWriter<'engine, FORGETS>;
    type Reader<'engine> = MutexGuard<'engine, Records>;

    fn open(ground: &Ground<'_>) -> Result<Self, Fault> {
        let path = ground.folder.join("records");
        let found = if ground.is_new()? { Vec::new() } else { serde_json::from_slice(&fs::read(&path)?)? };
        Ok(Self { path, records: Mutex::new(found.into_iter().collect()) })
    }

    fn writer(&self, _number: u16) -> Result<InFileWriter<'_, FORGETS>, Fault> {
        Ok(InFileWriter { engine: self, last: None })
    }

    fn reader(&self) -> Result<MutexGuard<'_, Records>, Fault> {
        Ok(self.records.lock().unwrap())
    }

    fn close(self) -> Result<(), Fault> {
        let records: Vec<(u64, Vec<u8>)> = self.records.into_inner().unwrap().into_iter().collect();
        Ok(fs::write(self.path, serde_json::to_vec(&records)?)?)
    }
}

struct InFileWriter<'engine, const FORGETS: bool> {
    engine: &'engine InFile<FORGETS>,
    last: Option<u64>,
}

impl<const FORGETS: bool> Writer for InFileWriter<'_, FORGETS> {
    fn append(&mut self, id: RecordId, record: &[u8]) -> Result<Place, Fault> {
        self.engine.records.lock().unwrap().insert(id.key(), record.to_vec());
        self.last = Some(id.key());
        Ok(Place::default())
    }

    fn sync(&mut self) -> Result<(), Fault> {
        if FORGETS {
            self.last.and_then(|last| self.engine.records.lock().unwrap().remove(&last));
        }
        Ok(())
    }
}

impl Reader for MutexGuard<'_, Records> {
    fn read(&mut self, id: RecordId, _place: Place, record: &mut Vec<u8>) -> Result<bool, Fault> {
        let Some(found) = self.get(&id.key()) else { return Ok(false) };
        record.clone_from(found);
        Ok(true)
    }
}

fn with_setup<T>(run: impl FnOnce(&Setup) -> T) -> T {
    let folder = tempfile::tempdir().unwrap();
    run(&Setup { folder: folder.path().to_owned(), size: 1 << 20, time: Duration::from_millis(5) })
}

/// What an ingest, durable acks and reads say of an engine.
fn said<const FORGETS: bool>() -> [Result<f64, PeerError>; 3] {
    let ingest = Ingest { record_bytes: 64, writers: 2 };
    let durable = Durable { waiting: 4, load: Load::Independent };
    let device = Device::below("/nowhere".as_ref());
    with_setup(|setup| {
        [
            ingest.run::<InFile<FORGETS>>(setup),
            durable.run::<InFile<FORGETS>>(setup, &device).map(|acks| acks.unwrap().per_second),
            read::run::<InFile<FORGETS>>(setup).map(|rates| rates.into_iter().fold(f64::INFINITY, f64::min)),
        ]
    })
}

#[test]
fn an_engine_that_keeps_records_gets_figures() {
    for figure in said::<false>() {
        assert!(figure.unwrap() > 0.0);
    }
}

#[test]
fn an_engine_that_loses_records_gets_none() {
    for figure in said::<true>() {
        assert!(matches!(figure, Err(PeerError::Lost { .. })), "{figure:?}");
    }
}

#[test]
fn a_keeper_remembers_a_sample_and_the_last() {
    let mut keeper = Keeper::new(1000, 10);
    (0..777).for_each(|number| keeper.keep(RecordId { writer: 3, number }, Place::default()));
    let numbers: Vec<u64> = keeper.into_kept().iter().map(|kept| kept.id.number).collect();
    assert_eq!(numbers, [0, 100, 200, 300, 400, 500, 600, 700, 776]);
    assert!(Keeper::new(0, 0).into_kept().is_empty());
}
