//! What goes into a scan and what comes out of it.

use crate::error::WaitError;
use bytes::Bytes;
use corelog_shards::{
    address::Address,
    format::{
        manifest::{Manifest, ManifestError, ManifestOf},
        record::RecordKind,
    },
    ids::{FrameNumber, ShardId},
    reads::ReadError,
    scan::{Damage, Fault, Position, ScanRecord},
};
use std::time::Duration;

/// Where a scan of a shard begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ScanFrom {
    /// At the oldest record that was not trimmed.
    #[default]
    Oldest,
    /// Where another scan of the shard stood, in this open of the store or an earlier one.
    Position(Position),
    /// At the first record at or behind an address.
    Address(Address),
    /// At the first record of a frame, or of the first one behind it that there is.
    Frame(FrameNumber),
}

/// A record that a scan came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Where it is; [`crate::Store::read`] takes this.
    pub address: Address,
    /// Its shard.
    pub shard: ShardId,
    /// The frame that carries it; of a record of a batch, the one that carries the batch's commit.
    pub frame: FrameNumber,
    /// When its frame was submitted, in nanoseconds of the Unix clock.
    pub unix_ns: u64,
    /// Its bytes. They are a part of a read of up to 1 MiB, which stays in memory as long as this does; copy what is
    /// kept for long.
    pub payload: Bytes,
    /// Bytes of a large record, whose payload is not here: [`crate::Store::open_large`] reads it.
    pub large_bytes: Option<u64>,
}

impl Record {
    pub(crate) fn new(shard: ShardId, record: ScanRecord) -> Self {
        let ScanRecord { address, frame, unix_ns, payload, kind, .. } = record;
        if kind == RecordKind::LARGE_MANIFEST {
            // The scanner has checked it.
            let list = Manifest::decode_root(&payload, ManifestOf::Large);
            let large_bytes = Some(list.map_or(0, |list| list.bytes));
            return Self { address, shard, frame, unix_ns, payload: Bytes::new(), large_bytes };
        }
        Self { address, shard, frame, unix_ns, payload, large_bytes: None }
    }
}

/// A scan that could not begin, or go on. What it yielded before is good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// The store has no such shard.
    #[error("the store has no {shard:?}; its shards are 0 to {last}")]
    NoSuchShard {
        /// Asked for.
        shard: ShardId,
        /// The last one.
        last: u16,
    },
    /// The place to begin is one of another shard.
    #[error("the place to begin is one of {found:?}, and the scan is of {shard:?}")]
    OtherShard {
        /// The shard to scan.
        shard: ShardId,
        /// The shard of the place.
        found: ShardId,
    },
    /// The address to begin at is none of this store, or its record was reclaimed.
    #[error(transparent)]
    Begin(ReadError),
    /// What was accepted before the scan began did not all reach the device. Everything that did was yielded.
    #[error("the scan ends early: {0}")]
    Flush(WaitError),
    /// A place is damaged. A scan that [skips](crate::Scan::skip_damage) goes on behind it, another one ends.
    #[error("{0}; run `verify`")]
    Damage(Box<Damage>),
    /// The place to go on from was freed; begin at the oldest record.
    #[error("{shard:?} was trimmed beyond the place to go on from; begin at the oldest record")]
    Reclaimed {
        /// The shard.
        shard: ShardId,
    },
    /// Cleaning moved records out of the cut that is read: what came is not all. Make another cut, and
    /// [hold](crate::Store::hold_cleaning) cleaning before that.
    #[error("cleaning moved records of {shard:?} out of the cut; hold cleaning, and make another cut")]
    Cleaned {
        /// The shard.
        shard: ShardId,
    },
    /// The place to go on from is not in the log: it is of another store, or what was there was cut off by a recovery.
    #[error("the place to go on from is not in the log of {shard:?}: {fault}")]
    NotInLog {
        /// The shard.
        shard: ShardId,
        /// What does not fit.
        fault: Fault,
    },
    /// What the cut says of a batch over several shards cannot be: it is none that [`crate::Store::cut`] made.
    #[error("the cut says of a batch in {shard:?} what cannot be: {error}")]
    NotACut {
        /// The shard.
        shard: ShardId,
        /// What is wrong.
        error: ManifestError,
    },
    /// A core could not read.
    #[error(transparent)]
    Read(ReadError),
    /// Nothing came for the stall time.
    #[error("no answer to a read of {shard:?} within {waited:?}: its device is stalled or slow")]
    Stalled {
        /// The shard.
        shard: ShardId,
        /// How long the call waited.
        waited: Duration,
    },
    /// Waiting on a thread that drives a core would stop that core.
    #[error("this thread drives a core of the store, so it cannot wait for {shard:?}; use the async call")]
    OnCoreThread {
        /// The shard.
        shard: ShardId,
    },
}

/// What came of waiting for a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waited {
    /// The next record.
    Record(Record),
    /// There are no more, and there will be none.
    End,
    /// None came in time; there may be one later.
    TimedOut,
}
