//! redb: one table for all. It has one write transaction at a time.

use crate::{
    engine::{Engine, EngineName, Ground, Place, Reader, Writer},
    error::Fault,
    limits::TRANSACTION_BYTES,
    payload::RecordId,
};
use redb::{Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition};

const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");

/// An open database.
pub struct Redb {
    database: Database,
}

impl Engine for Redb {
    const NAME: EngineName = EngineName::Redb;
    type Writer<'engine> = RedbWriter<'engine>;
    type Reader<'engine> = RedbReader;

    fn open(ground: &Ground<'_>) -> Result<Self, Fault> {
        let database = Database::create(ground.folder.join("records.redb"))?;
        Ok(Self { database })
    }

    fn writer(&self, _number: u16) -> Result<RedbWriter<'_>, Fault> {
        Ok(RedbWriter { database: &self.database, keys: Vec::new(), bytes: Vec::new() })
    }

    fn reader(&self) -> Result<RedbReader, Fault> {
        Ok(RedbReader { table: self.database.begin_read()?.open_table(RECORDS)? })
    }

    fn close(self) -> Result<(), Fault> {
        Ok(())
    }
}

/// Collects records for a transaction: a table that is open borrows from it, and opening one for each record would cost
/// more than the insert.
pub struct RedbWriter<'engine> {
    database: &'engine Database,
    /// Keys, and where their records end in `bytes`.
    keys: Vec<(u64, usize)>,
    bytes: Vec<u8>,
}

impl RedbWriter<'_> {
    fn write(&mut self, durability: Durability) -> Result<(), Fault> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(durability)?;
        {
            let mut table = transaction.open_table(RECORDS)?;
            let mut begin = 0;
            for &(key, end) in &self.keys {
                table.insert(key, &self.bytes[begin..end])?;
                begin = end;
            }
        }
        transaction.commit()?;
        self.keys.clear();
        self.bytes.clear();
        Ok(())
    }
}

impl Writer for RedbWriter<'_> {
    fn append(&mut self, id: RecordId, record: &[u8]) -> Result<Place, Fault> {
        if self.bytes.len() >= TRANSACTION_BYTES {
            self.write(Durability::None)?;
        }
        self.bytes.extend_from_slice(record);
        self.keys.push((id.key(), self.bytes.len()));
        Ok(Place::default())
    }

    fn sync(&mut self) -> Result<(), Fault> {
        self.write(Durability::Immediate)
    }
}

/// Reads from the table as it was when the reader was made.
pub struct RedbReader {
    table: ReadOnlyTable<u64, &'static [u8]>,
}

impl Reader for RedbReader {
    fn read(&mut self, id: RecordId, _place: Place, record: &mut Vec<u8>) -> Result<bool, Fault> {
        let Some(found) = self.table.get(id.key())? else { return Ok(false) };
        record.clear();
        record.extend_from_slice(found.value());
        Ok(true)
    }
}
