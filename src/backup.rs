//! Copies of a cut, as a stream of bytes that a store can be made from again. `docs/FORMAT.md` has its layout.

use crate::{
    cut::Cut,
    error::{AppendError, WaitError},
    large::LargeReadError,
    router::Route,
    scan::{Record, ScanError},
    store::{LargeWriter, Store},
};
use corelog_shards::{
    device::file::FileError,
    format::checksum::crc32c,
    ids::{ShardId, StoreId},
    limits::{BUFFER_BYTES_MAX, SHARDS_MAX},
    memory::MemoryError,
    watermark::Durability,
};
use serde::Serialize;
use std::io::{self, Read, Write};

const MAGIC: [u8; 8] = *b"coreLOGb";
const VERSION: u16 = 1;
const HEAD_BYTES: usize = 48;
const ITEM_BYTES: usize = 12;
const END_BYTES: usize = 20;

const RECORD: u8 = 1;
const PART: u8 = 2;
const LAST_PART: u8 = 3;
const END: u8 = 4;

/// The store that a backup is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BackupHead {
    /// The store.
    pub store: StoreId,
    /// Its shards.
    pub shards: u32,
    /// Bytes of its slots.
    pub slot_bytes: u64,
    /// Bytes of its extents.
    pub extent_bytes: u64,
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BackupReport {
    /// Records, large ones included.
    pub records: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
}

/// A copy that is not whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The cut could not be brought to the devices.
    #[error(transparent)]
    Flush(#[from] WaitError),
    /// A record of the cut could not be read; it may have been trimmed meanwhile.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// A large record could not be read.
    #[error(transparent)]
    Large(#[from] LargeReadError),
    /// Whoever takes the copy could not.
    #[error("writing the backup failed: {0}")]
    Output(#[from] io::Error),
}

/// A backup that no whole store came of. What was appended before stays in the store: make it anew.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The bytes are no backup, or one of a later version.
    #[error("this is no backup that this program knows")]
    NotABackup,
    /// It ends early.
    #[error("the backup ends in its middle; take it from where it is whole")]
    Truncated,
    /// Bytes of it are not what was written.
    #[error("the backup is damaged behind its record {records}")]
    Damaged {
        /// Records that were good.
        records: u64,
    },
    /// The store has fewer shards than the one that the backup is of.
    #[error("the backup has {needed} shards, and the store {found}")]
    Shards {
        /// Of the backup.
        needed: u32,
        /// Of the store.
        found: u32,
    },
    /// A record could not be appended.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// What was appended could not be made durable.
    #[error(transparent)]
    Flush(#[from] WaitError),
    /// That all of it is there could not be written.
    #[error(transparent)]
    Superblock(#[from] FileError),
    /// No memory to write that from.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The store was closed meanwhile.
    #[error("the store is closed")]
    Closed,
    /// The backup could not be read.
    #[error("reading the backup failed: {0}")]
    Input(io::Error),
}

impl From<io::Error> for RestoreError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            _ => Self::Input(error),
        }
    }
}

/// Counts and sums what goes by, on both sides.
#[derive(Debug, Default)]
struct Tally {
    report: BackupReport,
    digest: u32,
}

impl Tally {
    fn add(&mut self, kind: u8, length: usize, checksum: u32) {
        self.report.records += u64::from(kind != PART);
        self.report.bytes += length as u64;
        let chained = [self.digest.to_le_bytes(), checksum.to_le_bytes()].concat();
        self.digest = crc32c(&chained);
    }

    fn end(&self) -> Vec<u8> {
        let BackupReport { records, bytes } = self.report;
        [&records.to_le_bytes()[..], &bytes.to_le_bytes(), &self.digest.to_le_bytes()].concat()
    }
}

fn item(kind: u8, shard: ShardId, payload: &[u8]) -> ([u8; ITEM_BYTES], u32) {
    let mut head = [0; ITEM_BYTES];
    head[0] = kind;
    head[2..4].copy_from_slice(&shard.0.to_le_bytes());
    head[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    let checksum = crc32c(&[&head[..8], &crc32c(payload).to_le_bytes()].concat());
    head[8..].copy_from_slice(&checksum.to_le_bytes());
    (head, checksum)
}

fn write_item(
    out: &mut dyn Write,
    tally: &mut Tally,
    kind: u8,
    shard: ShardId,
    payload: &[u8],
) -> io::Result<()> {
    let (head, checksum) = item(kind, shard, payload);
    tally.add(kind, payload.len(), checksum);
    out.write_all(&head)?;
    out.write_all(payload)
}

impl Store {
    /// Copies all records of a cut, shard by shard in their order, while the store runs. It waits until the cut is
    /// durable first, and reads as a scan does. Addresses, cursors and what was trimmed are no part of it. A trim that is
    /// asked for meanwhile frees nothing yet: [`crate::SpaceDone::held`] says so, and trimming again once the copy is made frees
    /// it. What is in a cold shard is copied as of the shard that it was appended to. Cleaning that was not [held](Store::hold_cleaning) when the cut was made makes it fail.
    pub fn backup(&self, cut: &Cut, out: &mut dyn Write) -> Result<BackupReport, BackupError> {
        let _held: Vec<_> = self.shards().iter().map(|shard| shard.hold_trims()).collect();
        self.wait_for_cut(cut, Durability::Durable)?;
        let geometry = *self.directory().layout.geometry();
        let mut head = [0; HEAD_BYTES];
        head[..8].copy_from_slice(&MAGIC);
        head[8..10].copy_from_slice(&VERSION.to_le_bytes());
        let takers = self.shards().iter().filter(|shard| shard.cold_of().is_none());
        let shards = takers.map(|shard| u32::from(shard.id().0) + 1).max().unwrap_or(0);
        head[12..16].copy_from_slice(&shards.to_le_bytes());
        head[16..32].copy_from_slice(&self.id().0);
        head[32..36].copy_from_slice(&(geometry.slot_bytes() as u32).to_le_bytes());
        head[36..44].copy_from_slice(&geometry.extent_bytes().to_le_bytes());
        let checksum = crc32c(&head[..44]);
        head[44..].copy_from_slice(&checksum.to_le_bytes());
        out.write_all(&head)?;
        let mut tally = Tally::default();
        for shard in self.shards() {
            for record in self.scan_cut(cut, shard.id())? {
                self.back_up(&record?, out, &mut tally)?;
            }
        }
        let (head, _) = item(END, ShardId(0), &tally.end());
        out.write_all(&head)?;
        out.write_all(&tally.end())?;
        out.flush()?;
        Ok(tally.report)
    }

    fn back_up(&self, record: &Record, out: &mut dyn Write, tally: &mut Tally) -> Result<(), BackupError> {
        let cold_of = self.shard(record.shard).and_then(|shard| shard.cold_of());
        let shard = cold_of.unwrap_or(record.shard);
        if record.large_bytes.is_none() {
            return Ok(write_item(out, tally, RECORD, shard, &record.payload)?);
        }
        let mut parts = self.open_large(record.address)?;
        if !parts.is_whole()? {
            // It was released, and is given up.
            return Ok(());
        }
        while let Some(part) = parts.next_part()? {
            write_item(out, tally, PART, shard, &part)?;
        }
        Ok(write_item(out, tally, LAST_PART, shard, &[])?)
    }
}

/// A backup that is read.
#[derive(Debug)]
pub struct Backup<R> {
    input: R,
    head: BackupHead,
}

impl<R: Read> Backup<R> {
    /// Reads what the backup is of.
    pub fn open(mut input: R) -> Result<Self, RestoreError> {
        let mut head = [0; HEAD_BYTES];
        input.read_exact(&mut head)?;
        let number = |from: usize, bytes: usize| {
            let mut wide = [0; 8];
            wide[..bytes].copy_from_slice(&head[from..from + bytes]);
            u64::from_le_bytes(wide)
        };
        let mut store = [0; 16];
        store.copy_from_slice(&head[16..32]);
        let shards = number(12, 4) as u32;
        let is_known = head[..8] == MAGIC && number(8, 2) == u64::from(VERSION);
        if !is_known || number(44, 4) != u64::from(crc32c(&head[..44])) || shards > SHARDS_MAX {
            return Err(RestoreError::NotABackup);
        }
        let head = BackupHead {
            store: StoreId(store),
            shards,
            slot_bytes: number(32, 4),
            extent_bytes: number(36, 8),
        };
        Ok(Self { input, head })
    }

    /// What it is of.
    pub const fn head(&self) -> &BackupHead {
        &self.head
    }

    /// Appends every record to the shard that it was in, checks that all are there and as they were, and makes them
    /// durable. The store has at least as many shards, and buffers for the longest record. If it was made for this
    /// ([`crate::FormatOptions::restoring`]), it opens as any other once this returned: one that a crash or an error left half
    /// restored is [`crate::OpenError::HalfRestored`].
    pub fn restore(mut self, store: &Store) -> Result<BackupReport, RestoreError> {
        let (needed, found) = (self.head.shards, store.shards().len() as u32);
        if found < needed {
            return Err(RestoreError::Shards { needed, found });
        }
        let mut tally = Tally::default();
        let mut large: Option<LargeWriter<'_>> = None;
        let mut payload = Vec::new();
        loop {
            let (kind, shard, checksum) = self.next(&mut payload, &tally)?;
            let route = Route::Shard(shard);
            match kind {
                RECORD => _ = store.append_to(route, &payload)?,
                PART | LAST_PART => {
                    let mut writer = match large.take() {
                        Some(writer) => writer,
                        None => store.append_large(route)?,
                    };
                    writer.append(&payload)?;
                    if kind == PART {
                        large = Some(writer);
                    } else {
                        writer.finish()?;
                    }
                }
                END if payload.len() == END_BYTES && payload == tally.end() => {
                    store.sync()?;
                    store.end_restore()?;
                    return Ok(tally.report);
                }
                _ => return Err(RestoreError::Damaged { records: tally.report.records }),
            }
            tally.add(kind, payload.len(), checksum);
        }
    }

    fn next(&mut self, payload: &mut Vec<u8>, tally: &Tally) -> Result<(u8, ShardId, u32), RestoreError> {
        let damaged = RestoreError::Damaged { records: tally.report.records };
        let mut head = [0; ITEM_BYTES];
        self.input.read_exact(&mut head)?;
        let shard = ShardId(u16::from_le_bytes([head[2], head[3]]));
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        if u64::from(length) > BUFFER_BYTES_MAX || u32::from(shard.0) >= self.head.shards {
            return Err(damaged);
        }
        payload.resize(length as usize, 0);
        self.input.read_exact(payload)?;
        let (expected, checksum) = item(head[0], shard, payload);
        if expected == head { Ok((head[0], shard, checksum)) } else { Err(damaged) }
    }
}
