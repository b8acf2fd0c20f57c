//! Why a store, or a part of it, could not be recovered.

use super::report::Place;
use crate::{
    address::Address,
    device::Errno,
    format::{
        extent_header::ExtentHeaderError,
        frame::{FrameError, Mismatch},
    },
    ids::{DeviceIndex, ExtentIndex, ExtentOrdinal, FrameNumber, Generation, ShardId, SlotIndex},
    memory::MemoryError,
};

/// A read of a recovery source failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The device said no.
    #[error("reading device {device} at byte {offset} failed: {errno}")]
    Io {
        /// Which device.
        device: DeviceIndex,
        /// Byte on it.
        offset: u64,
        /// Why.
        errno: Errno,
    },
    /// The device ends too early.
    #[error("device {device} ends at byte {found}, but the store goes on to byte {expected}")]
    Truncated {
        /// Which device.
        device: DeviceIndex,
        /// The byte that has to be there.
        expected: u64,
        /// Where it ends.
        found: u64,
    },
    /// The store has no such slot.
    #[error("the store has no slot {slot}")]
    NoSuchSlot {
        /// Which was asked for.
        slot: SlotIndex,
    },
}

/// What is wrong with a frame that was durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameFault {
    /// No sound header is there.
    #[error("{0}")]
    Header(FrameError),
    /// A sound header is there, of another frame.
    #[error("{0}")]
    Other(Mismatch),
    /// The header's term is older than what the place can hold.
    #[error("an earlier open wrote it")]
    OlderTerm,
    /// The frame does not fit into its extent.
    #[error("it does not fit into its extent")]
    Overlong,
    /// Records are damaged.
    #[error("its records do not match their checksums")]
    Body,
    /// The extent that would hold it is not there.
    #[error("the extent that would hold it has no header")]
    NoExtent,
}

/// Recovery found something that it must not pass over. Salvage goes on over all but [`RecoveryError::NewerVersion`]
/// and [`RecoveryError::Memory`], and lists what it gave up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// A durable frame is damaged. Restore it from elsewhere, or open with salvage.
    #[error("{place}: a durable frame is corrupt: {fault}; salvage would cut or skip it")]
    Corrupt {
        /// Where.
        place: Place,
        /// What is wrong.
        fault: FrameFault,
        /// Frames below this number were durable.
        durable: FrameNumber,
    },
    /// A durable frame is not there: the device acknowledged a write or a flush that it did not do.
    #[error(
        "{place}: a durable frame is missing ({fault}): frames below {durable} were durable; the device lost a write"
    )]
    LostWrite {
        /// Where.
        place: Place,
        /// What is there instead.
        fault: FrameFault,
        /// Frames below this number were durable.
        durable: FrameNumber,
    },
    /// Where a durable frame was is one that belongs elsewhere: the device wrote to the wrong place.
    #[error("{place}: a durable frame was overwritten: {fault}")]
    Misdirected {
        /// Where.
        place: Place,
        /// What is there instead.
        fault: FrameFault,
        /// Frames below this number were durable.
        durable: FrameNumber,
    },
    /// The device cannot read a place that recovery needs.
    #[error("slot {slot} of the store cannot be read: {source}")]
    Unreadable {
        /// The first slot of the read.
        slot: SlotIndex,
        /// Why.
        source: SourceError,
    },
    /// What a frame states as the shard's newest durable checkpoint is not there as a whole.
    #[error("{place}: the checkpoint that begins here was durable and is lost: {why}")]
    Checkpoint {
        /// Where it begins.
        place: Place,
        /// What is missing.
        why: &'static str,
    },
    /// What a shard was to have of a batch over several shards that counts is not in its log.
    #[error(
        "{address}: shard {shard}'s share of a batch over several shards was durable before the batch counted, and is lost"
    )]
    ShareLost {
        /// The shard.
        shard: ShardId,
        /// Where its list was.
        address: Address,
    },
    /// An extent that the shard's log holds carries another claim, or none.
    #[error(
        "extent {extent} holds frames of shard {shard} (ordinal {ordinal}, generation {generation}, from frame {frame} on), \
         and its header does not say so: the claim is lost"
    )]
    ExtentLost {
        /// The shard.
        shard: ShardId,
        /// Its place in the shard's sequence.
        ordinal: ExtentOrdinal,
        /// Which.
        extent: ExtentIndex,
        /// The generation that it has to be of.
        generation: Generation,
        /// The first frame in it.
        frame: FrameNumber,
    },
    /// Neither copy of an extent's header is one.
    #[error("extent {extent}: no copy of its header is good: {error}")]
    ExtentHeader {
        /// Which.
        extent: ExtentIndex,
        /// What is wrong with it.
        error: ExtentHeaderError,
    },
    /// Two extents claim one place in a shard's sequence.
    #[error("extents {one} and {other} both say that they are number {ordinal} of shard {shard}")]
    DuplicateOrdinal {
        /// The shard.
        shard: ShardId,
        /// The place.
        ordinal: ExtentOrdinal,
        /// One of them.
        one: ExtentIndex,
        /// The other.
        other: ExtentIndex,
    },
    /// An extent is owned by a shard that the store does not have.
    #[error("extent {extent} is owned by shard {shard}, and the store has {shards} shards")]
    UnknownShard {
        /// Which extent.
        extent: ExtentIndex,
        /// Its owner.
        shard: ShardId,
        /// Shards of the store.
        shards: u32,
    },
    /// A later program wrote this part; use it.
    #[error("slot {slot} was written in version {found} of the format, which this program does not know")]
    NewerVersion {
        /// Where.
        slot: SlotIndex,
        /// The version.
        found: u16,
    },
    /// No memory to read into.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}
