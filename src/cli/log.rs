//! The log of a shard, read forward through an inspection.

use super::{exit::Exit, failure::Failure};
use bytes::Bytes;
use corelog::{Inspection, ReadError, RecoveredShard, ShardId, SlotIndex};
use corelog_shards::{
    device::{Errno, file::FileError},
    ids::{DeviceIndex, ExtentOrdinal},
    limits::SCAN_CHUNK_BYTES,
    memory::PooledBuffer,
    scan::{
        Damage, ExtentSequence, Fault, Limit, OnDamage, Position, Run, ScanRecord, ScanSetup, Scanner,
        SequencedExtent, Start, Step, Wanted,
    },
};
use std::ops::Range;

/// How a log is read.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// From where.
    pub start: Start,
    /// Which records.
    pub wanted: Wanted,
    /// Whether it goes on behind damage.
    pub on_damage: OnDamage,
}

/// A log on its way.
#[derive(Debug)]
pub struct Log<'a> {
    store: &'a Inspection,
    extents: Extents<'a>,
    scanner: Scanner,
    on_damage: OnDamage,
    is_over: bool,
}

/// What stops, or disturbs, the reading of a log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A place is damaged.
    #[error("{0}")]
    Damage(Box<Damage>),
    /// The scanner wants nothing and has nothing.
    #[error("the scan of {0:?} has lost its way; this is a bug")]
    Lost(ShardId),
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        let exit = match &error {
            LogError::Damage(damage) => match &damage.fault {
                Fault::Unreadable(_) => Exit::Failed,
                Fault::Reclaimed | Fault::BehindTheEnd => Exit::NoRecord,
                _ => Exit::Damage,
            },
            LogError::Lost(_) => Exit::Failed,
        };
        Self::new(exit, format!("{error}; run `verify`"))
    }
}

/// The extents that a shard's log reaches, as recovery found them.
#[derive(Debug, Clone, Copy)]
struct Extents<'a>(&'a RecoveredShard);

impl ExtentSequence for Extents<'_> {
    fn extent_at(&self, ordinal: ExtentOrdinal) -> Option<SequencedExtent> {
        let index = usize::try_from(ordinal.0.checked_sub(self.ordinals().start)?).ok()?;
        let found = self.0.extents.get(index).filter(|_| index < self.0.used_extents)?;
        Some(SequencedExtent { extent: found.index, generation: found.generation })
    }

    fn ordinals(&self) -> Range<u64> {
        let first = self.0.extents.first().map_or(0, |extent| extent.ordinal.0);
        first..first + self.0.used_extents as u64
    }
}

impl<'a> Log<'a> {
    /// The log of a shard, from a place on.
    pub fn new(store: &'a Inspection, shard: &'a RecoveredShard, reading: Reading) -> Self {
        let superblock = store.superblock();
        let extents = Extents(shard);
        let setup = ScanSetup {
            store: superblock.store,
            shard: shard.shard,
            geometry: superblock.geometry,
            chunk_bytes: SCAN_CHUNK_BYTES,
            wanted: reading.wanted,
            on_damage: reading.on_damage,
        };
        let limit = Limit { frames: shard.next_frame, end: end_of(store, shard) };
        let scanner = Scanner::new(setup, reading.start, limit, &extents);
        Self { store, extents, scanner, on_damage: reading.on_damage, is_over: false }
    }

    /// Where to go on from: behind the last record.
    pub fn position(&self) -> Position {
        self.scanner.position()
    }

    /// Reads what was asked for. A run that cannot be read as a whole is a fault at its place, for the scanner to tell.
    fn read(&mut self, run: Run) {
        match self.read_run(run) {
            Ok(bytes) => self.scanner.supply(run.slot, bytes),
            Err(error) => self.scanner.supply_failure(run.slot, error),
        }
    }

    fn read_run(&self, Run { slot, slots }: Run) -> Result<Bytes, ReadError> {
        let superblock = self.store.superblock();
        let bytes = slots * superblock.geometry.slot_bytes();
        let failed = |device, errno| ReadError::Io { device, slot, slots, errno };
        let (device, offset) = superblock.locate(slot).ok_or_else(|| failed(DeviceIndex(0), NO_SUCH_SLOT))?;
        let file = self.store.devices().get(usize::from(device.0));
        let file = file.ok_or_else(|| failed(device, NO_SUCH_SLOT))?;
        let mut buffer = PooledBuffer::alone(bytes as usize).map_err(|_| ReadError::NoMemory { bytes })?;
        file.read_exact_at(offset, &mut buffer).map_err(|error| match error {
            FileError::Truncated { found, .. } => {
                ReadError::Truncated { device, slot, expected: bytes, found: found as u64 }
            }
            FileError::Failed { errno, .. } => failed(device, errno),
            FileError::Full { .. } => failed(device, NO_SUCH_SLOT),
        })?;
        Ok(Bytes::from_owner(buffer))
    }
}

/// `EINVAL`: the superblock does not have the slot. Recovery has seen to it that no extent is without a place.
const NO_SUCH_SLOT: Errno = Errno(22);

/// The slot behind the log's last frame, or behind its last extent if the next frame goes elsewhere.
fn end_of(store: &Inspection, shard: &RecoveredShard) -> SlotIndex {
    let geometry = &store.superblock().geometry;
    let last = shard.extents.get(..shard.used_extents).and_then(<[_]>::last);
    let behind_last =
        last.map(|last| geometry.header_slot(last.index).offset_by(geometry.slots_per_extent()));
    shard.next_slot.or(behind_last).unwrap_or_default()
}

impl Iterator for Log<'_> {
    type Item = Result<ScanRecord, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        // A shard that never had a frame has no extent to begin in.
        if self.extents.0.frames == 0 {
            return None;
        }
        while !self.is_over {
            match self.scanner.step(&self.extents) {
                Step::Record(record) => return Some(Ok(record)),
                Step::End => return None,
                Step::Damage(damage) => {
                    let goes_on = self.on_damage == OnDamage::Skip
                        && !matches!(damage.fault, Fault::NoExtent | Fault::BehindTheEnd);
                    self.is_over = !goes_on;
                    return Some(Err(LogError::Damage(damage)));
                }
                Step::Need => match self.scanner.ask(1, &self.extents) {
                    Some(run) => self.read(run),
                    None => {
                        self.is_over = true;
                        return Some(Err(LogError::Lost(self.extents.0.shard)));
                    }
                },
            }
        }
        None
    }
}
