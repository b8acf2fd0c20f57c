//! seglog: one writer by its types, so a file for each.

use crate::{
    engine::{Engine, EngineName, Ground, Place, Reader, Writer},
    error::Fault,
    payload::RecordId,
};
use seglog::{read, write};
use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// A record's header, and the mark of a commit of one record.
const RECORD_OVERHEAD: u64 = 32;
/// Where its records begin.
const START: u64 = 0;

/// Open files, one for each writer.
#[derive(Debug)]
pub struct Seglog {
    logs: Vec<Log>,
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    writer: Mutex<write::Writer<0>>,
}

impl Engine for Seglog {
    const NAME: EngineName = EngineName::Seglog;
    const SHARES_LOG: bool = false;
    type Writer<'engine> = SeglogWriter<'engine>;
    type Reader<'engine> = SeglogReader;

    fn open(ground: &Ground<'_>) -> Result<Self, Fault> {
        let room = (ground.room(RECORD_OVERHEAD) + (64 << 20)) as usize;
        let open = |number: usize| {
            let path = ground.folder.join(format!("{number}.log"));
            let writer = if path.exists() {
                write::Writer::open(&path, room, START)?
            } else {
                write::Writer::create(&path, room, START)?
            };
            Ok(Log { path, writer: Mutex::new(writer) })
        };
        Ok(Self { logs: (0..ground.writers).map(open).collect::<Result<_, Fault>>()? })
    }

    fn writer(&self, number: u16) -> Result<SeglogWriter<'_>, Fault> {
        let log = self.logs.get(usize::from(number)).ok_or("there is no such log")?;
        let writer = log.writer.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(SeglogWriter { writer, number, last: 0 })
    }

    fn reader(&self) -> Result<SeglogReader, Fault> {
        let open = |log: &Log| {
            let flushed = log.writer.lock().unwrap_or_else(PoisonError::into_inner).flushed_offset();
            Ok(read::Reader::open_read_only(&log.path, Some(flushed))?)
        };
        Ok(SeglogReader { logs: self.logs.iter().map(open).collect::<Result<_, Fault>>()? })
    }

    fn close(self) -> Result<(), Fault> {
        for log in self.logs {
            log.writer.into_inner().unwrap_or_else(PoisonError::into_inner).close()?;
        }
        Ok(())
    }
}

/// Appends to one file.
#[derive(Debug)]
pub struct SeglogWriter<'engine> {
    writer: MutexGuard<'engine, write::Writer<0>>,
    number: u16,
    last: u64,
}

impl Writer for SeglogWriter<'_> {
    fn append(&mut self, id: RecordId, record: &[u8]) -> Result<Place, Fault> {
        let (offset, _) = self.writer.append_data(record)?;
        self.last = id.number;
        Ok(Place { log: u64::from(self.number), at: offset })
    }

    fn sync(&mut self) -> Result<(), Fault> {
        // What no mark covers is rolled back when the file is opened.
        self.writer.commit(self.last)?;
        Ok(())
    }
}

/// Reads from the files.
pub struct SeglogReader {
    logs: Vec<read::Reader<0>>,
}

impl Reader for SeglogReader {
    fn read(&mut self, _id: RecordId, place: Place, record: &mut Vec<u8>) -> Result<bool, Fault> {
        let log = self.logs.get_mut(place.log as usize).ok_or("there is no such log")?;
        let found = log.read_record(place.at, read::ReadHint::Random)?;
        record.clear();
        record.extend_from_slice(found.data.as_ref());
        Ok(true)
    }
}
