//! sled: one tree for all. Its `flush()` is not durable on Linux, which its rows say.

use crate::{
    engine::{Engine, EngineName, Ground, Place, Reader, Writer},
    error::Fault,
    payload::RecordId,
};
use sled::{Config, Db, Mode};

/// An open database.
#[derive(Debug)]
pub struct Sled {
    database: Db,
}

impl Engine for Sled {
    const NAME: EngineName = EngineName::Sled;
    type Writer<'engine> = &'engine Db;
    type Reader<'engine> = SledReader<'engine>;

    fn open(ground: &Ground<'_>) -> Result<Self, Fault> {
        Ok(Self { database: Config::new().path(ground.folder).mode(Mode::HighThroughput).open()? })
    }

    fn writer(&self, _number: u16) -> Result<&Db, Fault> {
        Ok(&self.database)
    }

    fn reader(&self) -> Result<SledReader<'_>, Fault> {
        Ok(SledReader { database: &self.database })
    }

    fn close(self) -> Result<(), Fault> {
        self.database.flush()?;
        Ok(())
    }
}

impl Writer for &Db {
    fn append(&mut self, id: RecordId, record: &[u8]) -> Result<Place, Fault> {
        self.insert(id.key_bytes(), record)?;
        Ok(Place::default())
    }

    fn sync(&mut self) -> Result<(), Fault> {
        self.flush()?;
        Ok(())
    }
}

/// Reads from the tree.
#[derive(Debug)]
pub struct SledReader<'engine> {
    database: &'engine Db,
}

impl Reader for SledReader<'_> {
    fn read(&mut self, id: RecordId, _place: Place, record: &mut Vec<u8>) -> Result<bool, Fault> {
        let Some(found) = self.database.get(id.key_bytes())? else { return Ok(false) };
        record.clear();
        record.extend_from_slice(&found);
        Ok(true)
    }
}
