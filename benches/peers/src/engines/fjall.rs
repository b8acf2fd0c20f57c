//! fjall: one keyspace for all.

use crate::{
    engine::{Engine, EngineName, Ground, Place, Reader, Writer},
    error::Fault,
    limits::BATCH_BYTES,
    payload::RecordId,
};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};

/// Its key and the journal's frame.
const RECORD_OVERHEAD: u64 = 64;
/// Between two flushes of a tree's memory: as its documentation has it for write-heavy loads.
const TREE_MEMORY_BYTES: u64 = 64 << 20;
/// Its smallest bound on journals.
const JOURNAL_BYTES_MIN: u64 = 512 << 20;

/// An open database.
pub struct Fjall {
    database: Database,
    records: Keyspace,
}

impl Engine for Fjall {
    const NAME: EngineName = EngineName::Fjall;
    type Writer<'engine> = FjallWriter<'engine>;
    type Reader<'engine> = &'engine Keyspace;

    fn open(ground: &Ground<'_>) -> Result<Self, Fault> {
        let database = Database::builder(ground.folder)
            .manual_journal_persist(true)
            .max_journaling_size(ground.room(RECORD_OVERHEAD).max(JOURNAL_BYTES_MIN))
            .open()?;
        let options = || {
            KeyspaceCreateOptions::default()
                .manual_journal_persist(true)
                .max_memtable_size(TREE_MEMORY_BYTES)
                .expect_point_read_hits(true)
        };
        let records = database.keyspace("records", options)?;
        Ok(Self { database, records })
    }

    fn writer(&self, _number: u16) -> Result<FjallWriter<'_>, Fault> {
        Ok(FjallWriter { engine: self, batch: self.database.batch(), bytes: 0 })
    }

    fn reader(&self) -> Result<&Keyspace, Fault> {
        Ok(&self.records)
    }

    fn settle(&self) -> Result<(), Fault> {
        Ok(self.records.rotate_memtable_and_wait()?)
    }

    fn close(self) -> Result<(), Fault> {
        // Dropping it persists the journal.
        Ok(())
    }
}

/// Collects records for a batch.
pub struct FjallWriter<'engine> {
    engine: &'engine Fjall,
    batch: OwnedWriteBatch,
    bytes: usize,
}

impl FjallWriter<'_> {
    fn take(&mut self) -> OwnedWriteBatch {
        self.bytes = 0;
        std::mem::replace(&mut self.batch, self.engine.database.batch())
    }
}

impl Writer for FjallWriter<'_> {
    fn append(&mut self, id: RecordId, record: &[u8]) -> Result<Place, Fault> {
        self.batch.insert(&self.engine.records, id.key_bytes(), record);
        self.bytes += record.len();
        if self.bytes >= BATCH_BYTES {
            self.take().commit()?;
        }
        Ok(Place::default())
    }

    fn sync(&mut self) -> Result<(), Fault> {
        if self.batch.is_empty() {
            return Ok(self.engine.database.persist(PersistMode::SyncData)?);
        }
        Ok(self.take().durability(Some(PersistMode::SyncData)).commit()?)
    }
}

impl Reader for &Keyspace {
    fn read(&mut self, id: RecordId, _place: Place, record: &mut Vec<u8>) -> Result<bool, Fault> {
        let Some(found) = self.get(id.key_bytes())? else { return Ok(false) };
        record.clear();
        record.extend_from_slice(&found);
        Ok(true)
    }
}
