//! RocksDB, as Debian ships it: one database for all.

mod library;

use crate::{
    engine::{Engine, EngineName, Ground, Place, Reader, Writer},
    error::Fault,
    limits::BATCH_BYTES,
    payload::RecordId,
};
use library::{Batch, Database, Tuning};

/// An open database.
#[derive(Debug)]
pub struct Rocksdb {
    database: Database,
}

impl Engine for Rocksdb {
    const NAME: EngineName = EngineName::Rocksdb;
    type Writer<'engine> = RocksdbWriter<'engine>;
    type Reader<'engine> = &'engine Database;

    fn open(ground: &Ground<'_>) -> Result<Self, Fault> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let tuning = Tuning { threads: threads as i32, write_buffer_bytes: 256 << 20, recycled_logs: 4 };
        Ok(Self { database: Database::open(ground.folder, tuning)? })
    }

    fn writer(&self, _number: u16) -> Result<RocksdbWriter<'_>, Fault> {
        Ok(RocksdbWriter { database: &self.database, batch: Batch::new(), bytes: 0 })
    }

    fn reader(&self) -> Result<&Database, Fault> {
        Ok(&self.database)
    }

    fn settle(&self) -> Result<(), Fault> {
        Ok(self.database.flush()?)
    }

    fn close(self) -> Result<(), Fault> {
        Ok(())
    }
}

/// Collects records for a batch.
#[derive(Debug)]
pub struct RocksdbWriter<'engine> {
    database: &'engine Database,
    batch: Batch,
    bytes: usize,
}

impl RocksdbWriter<'_> {
    fn write(&mut self, sync: bool) -> Result<(), Fault> {
        self.database.write(&mut self.batch, sync)?;
        self.bytes = 0;
        Ok(())
    }
}

impl Writer for RocksdbWriter<'_> {
    fn append(&mut self, id: RecordId, record: &[u8]) -> Result<Place, Fault> {
        // The last batch stays for `sync`: a write that syncs takes along what was written before it.
        if self.bytes >= BATCH_BYTES {
            self.write(false)?;
        }
        self.batch.put(&id.key_bytes(), record);
        self.bytes += record.len();
        Ok(Place::default())
    }

    fn sync(&mut self) -> Result<(), Fault> {
        self.write(true)
    }
}

impl Reader for &Database {
    fn read(&mut self, id: RecordId, _place: Place, record: &mut Vec<u8>) -> Result<bool, Fault> {
        Ok(self.get(&id.key_bytes(), record)?)
    }
}
