//! What a scan can meet in place of the next record.

use crate::{
    address::Address,
    format::{
        frame::{FrameError, Mismatch},
        manifest::ManifestError,
        record::{MalformedFrame, RecordError, RecordKind},
    },
    ids::{FrameNumber, ShardId, SlotIndex},
    reads::ReadError,
};
use serde::Serialize;
use std::fmt;

/// A place in a shard's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ScanPlace {
    /// The shard.
    pub shard: ShardId,
    /// The frame that has to be there; `None` for the first one of a scan that does not know its number.
    pub frame: Option<FrameNumber>,
    /// The slot.
    pub slot: SlotIndex,
}

impl fmt::Display for ScanPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.frame {
            Some(frame) => write!(f, "shard {}, frame {frame}, slot {}", self.shard, self.slot),
            None => write!(f, "shard {}, first frame, slot {}", self.shard, self.slot),
        }
    }
}

/// A place that is not as it should be. What was yielded before is good, and so is what a scan that skips yields
/// afterwards.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {fault}")]
pub struct Damage {
    /// Where.
    pub place: ScanPlace,
    /// What is wrong.
    pub fault: Fault,
    /// The frame that a skipping scan goes on with, if this one is lost as a whole; those between are lost too.
    pub resumed_at: Option<FrameNumber>,
}

/// What is wrong at a place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// No sound frame header is there.
    #[error("{0}")]
    Header(FrameError),
    /// A sound header is there, of another frame.
    #[error("not the next frame of the shard: {0}")]
    OtherFrame(Mismatch),
    /// An earlier open wrote the frame that is there.
    #[error("not the next frame of the shard: an earlier open wrote it")]
    OlderTerm,
    /// The frame does not fit into what its extent holds.
    #[error("the frame does not fit into its extent")]
    Overlong,
    /// The lengths of the records do not lead to the end of the frame.
    #[error(transparent)]
    Malformed(MalformedFrame),
    /// The records are not those that the frame was written with.
    #[error("the records are not those that the frame was written with")]
    OtherRecords,
    /// One record is damaged; the others of the frame are not touched by it.
    #[error("record {address}: {error}")]
    Record {
        /// Its address.
        address: Address,
        /// What is wrong.
        error: RecordError,
    },
    /// A batch or large record has a list that no writer makes.
    #[error("the list at {address} of what belongs together: {error}")]
    Manifest {
        /// Where the list, or the part of it, is.
        address: Address,
        /// What is wrong.
        error: ManifestError,
    },
    /// A good record is where a batch or a large record should go on, and it is none of theirs.
    #[error("the record at {address} ({found}) is not what the list of its batch or large record says")]
    NotAsListed {
        /// Where.
        address: Address,
        /// What is there.
        found: RecordKind,
    },
    /// The position to go on from is not one between two records of the frame.
    #[error("no record begins at byte {offset} of the frame; the position is not one of this log")]
    NotBetweenRecords {
        /// From the start of the frame.
        offset: u32,
    },
    /// The position to go on from is behind the end of the log.
    #[error("the log ends before this frame; the position is not one of this log, or its end was cut off")]
    BehindTheEnd,
    /// The device cannot read it.
    #[error(transparent)]
    Unreadable(ReadError),
    /// The extent that would hold the frame is not there.
    #[error("the extent that would hold the frame is not there")]
    NoExtent,
    /// The extent was freed since: by the owner's wish, what was there is gone. Begin at the oldest record.
    #[error("its extent was freed since; begin at the oldest record")]
    Reclaimed,
}

/// Of two places that could hold the next frame and do not: the one that looks more like damage.
pub(super) const fn weight(fault: &Fault) -> u8 {
    match fault {
        Fault::Header(FrameError::Absent | FrameError::NotAFrame) => 0,
        Fault::OtherFrame(Mismatch::Foreign { .. } | Mismatch::Stale { .. } | Mismatch::Number { .. }) => 1,
        Fault::OlderTerm => 1,
        Fault::OtherFrame(_) => 2,
        _ => 3,
    }
}
