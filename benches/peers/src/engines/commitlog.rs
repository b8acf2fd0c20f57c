//! commitlog: one writer by its types, so a log for each. Its `flush()` sends no flush to the device: an fdatasync of the
//! log's file is added.

use crate::{
    engine::{Engine, EngineName, Ground, Place, Reader, Writer},
    error::Fault,
    limits::BATCH_BYTES,
    payload::RecordId,
};
use commitlog::{
    CommitLog, LogOptions, ReadLimit,
    message::{MessageBuf, MessageSet},
};
use std::{
    fs::File,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// The frame of a record, more or less.
const RECORD_OVERHEAD: u64 = 32;
/// Its positions have 32 bits.
const FILE_BYTES_MAX: u64 = u32::MAX as u64;
/// The longest record and its frame.
const READ_BYTES: usize = 8192;

/// Open logs, one for each writer.
pub struct Commitlog {
    logs: Vec<Log>,
}

struct Log {
    log: RwLock<CommitLog>,
    /// The file that the log appends to. There is only one: it is large enough for all.
    file: File,
}

impl Engine for Commitlog {
    const NAME: EngineName = EngineName::Commitlog;
    const SHARES_LOG: bool = false;
    type Writer<'engine> = CommitlogWriter<'engine>;
    type Reader<'engine> = CommitlogReader<'engine>;

    fn open(ground: &Ground<'_>) -> Result<Self, Fault> {
        let room = ground.room(RECORD_OVERHEAD) + (64 << 20);
        if room > FILE_BYTES_MAX {
            return Err("a file of its log holds 4 GiB at most: ask for a smaller size".into());
        }
        let open = |number: usize| {
            let folder = ground.folder.join(format!("log-{number}"));
            let mut options = LogOptions::new(&folder);
            options.segment_max_bytes(room as usize);
            options.index_max_items(ground.records as usize + 1);
            options.message_max_bytes(2 * BATCH_BYTES);
            let log = CommitLog::new(options)?;
            let file = File::options().write(true).open(folder.join(format!("{:020}.log", 0)))?;
            Ok(Log { log: RwLock::new(log), file })
        };
        Ok(Self { logs: (0..ground.writers).map(open).collect::<Result<_, Fault>>()? })
    }

    fn writer(&self, number: u16) -> Result<CommitlogWriter<'_>, Fault> {
        let Log { log, file } = self.logs.get(usize::from(number)).ok_or("there is no such log")?;
        let log = log.write().unwrap_or_else(PoisonError::into_inner);
        let next = log.next_offset();
        Ok(CommitlogWriter { log, file, number, next, batch: MessageBuf::default() })
    }

    fn reader(&self) -> Result<CommitlogReader<'_>, Fault> {
        let logs = self.logs.iter().map(|log| log.log.read().unwrap_or_else(PoisonError::into_inner));
        Ok(CommitlogReader { logs: logs.collect() })
    }

    fn close(self) -> Result<(), Fault> {
        Ok(())
    }
}

/// Collects records for an append.
pub struct CommitlogWriter<'engine> {
    log: RwLockWriteGuard<'engine, CommitLog>,
    file: &'engine File,
    number: u16,
    /// Offset of the next record.
    next: u64,
    batch: MessageBuf,
}

impl CommitlogWriter<'_> {
    fn write(&mut self) -> Result<(), Fault> {
        if !self.batch.is_empty() {
            self.log.append(&mut self.batch)?;
            self.batch.clear();
        }
        Ok(())
    }
}

impl Writer for CommitlogWriter<'_> {
    fn append(&mut self, _id: RecordId, record: &[u8]) -> Result<Place, Fault> {
        self.batch.push(record).map_err(|error| format!("{error:?}"))?;
        let place = Place { log: u64::from(self.number), at: self.next };
        self.next += 1;
        if self.batch.bytes().len() >= BATCH_BYTES {
            self.write()?;
        }
        Ok(place)
    }

    fn sync(&mut self) -> Result<(), Fault> {
        self.write()?;
        self.log.flush()?;
        Ok(self.file.sync_data()?)
    }
}

/// Reads from the logs.
pub struct CommitlogReader<'engine> {
    logs: Vec<RwLockReadGuard<'engine, CommitLog>>,
}

impl Reader for CommitlogReader<'_> {
    fn read(&mut self, _id: RecordId, place: Place, record: &mut Vec<u8>) -> Result<bool, Fault> {
        let log = self.logs.get(place.log as usize).ok_or("there is no such log")?;
        // The limit is on the range that is read: a frame and some bytes of the next records.
        let limit = ReadLimit::max_bytes(record.capacity().clamp(1, READ_BYTES - 64) + 64);
        let found = log.read(place.at, limit)?;
        let Some(message) = found.iter().next() else { return Ok(false) };
        record.clear();
        record.extend_from_slice(message.payload());
        Ok(message.offset() == place.at && message.verify_hash())
    }
}
