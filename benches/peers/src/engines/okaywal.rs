//! okaywal: one log for all. A commit always syncs; several threads' commits share syncs.

use crate::{
    engine::{Engine, EngineName, Ground, Place, Reader, Writer},
    error::Fault,
    limits::SYNCED_BATCH_BYTES,
    payload::RecordId,
};
use okaywal::{
    Configuration, Entry, EntryId, EntryWriter, LogManager, LogPosition, SegmentReader, WriteAheadLog,
};
use std::io::{self, Read};

/// The frame of a record that is an entry of its own.
const RECORD_OVERHEAD: u64 = 24;
/// Of its buffers, for writing and for recovery.
const BUFFER_BYTES: usize = 256 << 10;

/// An open log.
#[derive(Debug)]
pub struct Okaywal {
    log: WriteAheadLog,
}

/// Keeps every record where it is: nothing is ever copied out of the log.
#[derive(Debug)]
struct Keep;

impl LogManager for Keep {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        // The log leaves it to this call to find out whether an entry is whole: reading it checks its checksums.
        let _whole = entry.read_all_chunks()?;
        Ok(())
    }

    fn checkpoint_to(
        &mut self,
        _last: EntryId,
        _entries: &mut SegmentReader,
        _log: &WriteAheadLog,
    ) -> io::Result<()> {
        Ok(())
    }
}

impl Engine for Okaywal {
    const NAME: EngineName = EngineName::Okaywal;
    type Writer<'engine> = OkaywalWriter<'engine>;
    type Reader<'engine> = &'engine WriteAheadLog;

    fn open(ground: &Ground<'_>) -> Result<Self, Fault> {
        let room = u32::try_from(ground.room(RECORD_OVERHEAD) + (64 << 20)).unwrap_or(u32::MAX);
        let log = Configuration::default_for(ground.folder)
            .preallocate_bytes(room)
            // Checkpoints take records away: never.
            .checkpoint_after_bytes(u64::MAX)
            .buffer_bytes(BUFFER_BYTES)
            .open(Keep)?;
        Ok(Self { log })
    }

    fn writer(&self, _number: u16) -> Result<OkaywalWriter<'_>, Fault> {
        Ok(OkaywalWriter { log: &self.log, entry: None, bytes: 0 })
    }

    fn reader(&self) -> Result<&WriteAheadLog, Fault> {
        Ok(&self.log)
    }

    fn close(self) -> Result<(), Fault> {
        Ok(self.log.shutdown()?)
    }
}

/// Adds chunks to an entry, and commits it.
pub struct OkaywalWriter<'engine> {
    log: &'engine WriteAheadLog,
    entry: Option<EntryWriter<'engine>>,
    bytes: usize,
}

impl Writer for OkaywalWriter<'_> {
    fn append(&mut self, _id: RecordId, record: &[u8]) -> Result<Place, Fault> {
        if self.bytes >= SYNCED_BATCH_BYTES {
            self.sync()?;
        }
        let entry = match &mut self.entry {
            Some(entry) => entry,
            none => none.insert(self.log.begin_entry()?),
        };
        let position = entry.write_chunk(record)?.position;
        self.bytes += record.len();
        place_of(position)
    }

    fn sync(&mut self) -> Result<(), Fault> {
        self.bytes = 0;
        if let Some(entry) = self.entry.take() {
            entry.commit()?;
        }
        Ok(())
    }
}

/// A position's two numbers; they are only given out as bytes.
fn place_of(position: LogPosition) -> Result<Place, Fault> {
    let mut bytes = [0; 16];
    position.serialize_to(&mut bytes[..])?;
    let packed = u128::from_le_bytes(bytes);
    Ok(Place { log: packed as u64, at: (packed >> 64) as u64 })
}

fn position_of(place: Place) -> Result<LogPosition, Fault> {
    let packed = u128::from(place.at) << 64 | u128::from(place.log);
    Ok(LogPosition::deserialize_from(&packed.to_le_bytes()[..])?)
}

impl Reader for &WriteAheadLog {
    fn read(&mut self, _id: RecordId, place: Place, record: &mut Vec<u8>) -> Result<bool, Fault> {
        let mut chunk = self.read_at(position_of(place)?)?;
        record.clear();
        chunk.read_to_end(record)?;
        Ok(chunk.crc_is_valid()?)
    }
}
