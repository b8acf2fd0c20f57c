//! raft-engine: one engine for all, a group of entries for each writer.

use crate::{
    engine::{Engine, EngineName, Ground, Place, Reader, Writer},
    error::Fault,
    limits::BATCH_BYTES,
    payload::RecordId,
};
use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine as Raft, LogBatch, MessageExt, ReadableSize};

/// An entry's frame and its index, more or less.
const RECORD_OVERHEAD: u64 = 16;

/// An open engine.
pub struct RaftEngine {
    raft: Raft,
}

/// Entries are bytes; their index is the record's number, which the bytes begin with.
struct Entries;

impl MessageExt for Entries {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        let key = entry.get_value().first_chunk().map_or(0, |front| u64::from_le_bytes(*front));
        index_of(key)
    }
}

/// An entry's index among those of its group, from 1.
const fn index_of(key: u64) -> u64 {
    (key & ((1 << 40) - 1)) + 1
}

const fn group_of(id: RecordId) -> u64 {
    id.writer as u64 + 1
}

impl Engine for RaftEngine {
    const NAME: EngineName = EngineName::RaftEngine;
    type Writer<'engine> = RaftWriter<'engine>;
    type Reader<'engine> = &'engine Raft;

    fn open(ground: &Ground<'_>) -> Result<Self, Fault> {
        let mut config = Config {
            dir: ground.folder.to_string_lossy().into_owned(),
            batch_compression_threshold: ReadableSize(0),
            ..Config::default()
        };
        if ground.is_new()? {
            // Files full of zeros, made before the clock starts. It makes half as many again as its bound says.
            let limit = ground.room(RECORD_OVERHEAD).div_ceil(3) * 2;
            config.prefill_for_recycle = true;
            config.prefill_limit = Some(ReadableSize(limit.max(config.target_file_size.0)));
        }
        Ok(Self { raft: Raft::open(config)? })
    }

    fn writer(&self, number: u16) -> Result<RaftWriter<'_>, Fault> {
        Ok(RaftWriter {
            raft: &self.raft,
            group: group_of(RecordId { writer: number, number: 0 }),
            batch: LogBatch::default(),
            entries: Vec::new(),
            filled: 0,
            bytes: 0,
        })
    }

    fn reader(&self) -> Result<&Raft, Fault> {
        Ok(&self.raft)
    }

    fn close(self) -> Result<(), Fault> {
        Ok(())
    }
}

/// Collects entries for a batch.
pub struct RaftWriter<'engine> {
    raft: &'engine Raft,
    group: u64,
    batch: LogBatch,
    /// Kept with their memory; the first `filled` are to be written.
    entries: Vec<BytesValue>,
    filled: usize,
    bytes: usize,
}

impl RaftWriter<'_> {
    fn write(&mut self, sync: bool) -> Result<(), Fault> {
        self.batch.add_entries::<Entries>(self.group, &self.entries[..self.filled])?;
        self.filled = 0;
        self.bytes = 0;
        self.raft.write(&mut self.batch, sync)?;
        Ok(())
    }
}

impl Writer for RaftWriter<'_> {
    fn append(&mut self, _id: RecordId, record: &[u8]) -> Result<Place, Fault> {
        // The last batch stays for `sync`: an empty one with `sync` set writes nothing and syncs nothing.
        if self.bytes >= BATCH_BYTES {
            self.write(false)?;
        }
        if self.filled == self.entries.len() {
            self.entries.push(BytesValue::new());
        }
        let value = self.entries[self.filled].mut_value();
        value.clear();
        value.extend_from_slice(record);
        self.filled += 1;
        self.bytes += record.len();
        Ok(Place::default())
    }

    fn sync(&mut self) -> Result<(), Fault> {
        self.write(true)
    }
}

impl Reader for &Raft {
    fn read(&mut self, id: RecordId, _place: Place, record: &mut Vec<u8>) -> Result<bool, Fault> {
        let Some(mut entry) = self.get_entry::<Entries>(group_of(id), index_of(id.key()))? else {
            return Ok(false);
        };
        *record = entry.take_value();
        Ok(true)
    }
}
