//! Errors: one enum per verb, each variant with what happened, where, and what the caller can do.

use crate::options::OptionError;
use bytes::Bytes;
use corelog_shards::{
    address::Address,
    device::{
        Errno,
        file::{CreateError, FileError, OpenError as DeviceOpenError},
        threads::PoolUnavailable,
        uring::RingUnavailable,
    },
    failure::ShardFailure,
    format::superblock::{ReadOnlyFeature, SuperblockChoiceError},
    growth::GrowthRefusal,
    ids::{CoreId, FrameNumber, ShardId},
    memory::MemoryError,
    open::OpenShardError,
    opening::WriteSuperblockError,
    reads::ReadError,
    recovery::RecoveryError,
    shard_owner::SpaceRefusal,
};
use std::{path::PathBuf, time::Duration};

/// A store that could not be made. A file that was created for it is gone again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// An option is out of its bounds.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// A device could not be made ready.
    #[error(transparent)]
    Device(#[from] CreateError),
    /// The superblock could not be written or synced.
    #[error(transparent)]
    File(#[from] FileError),
    /// No memory for the superblock.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The host's CPUs could not be counted; say the number of shards.
    #[error("{0}; say how many shards the store is to have")]
    Topology(#[from] corelog_tuning::topology::TopologyError),
    /// The host gave no random bytes for the store's id.
    #[error("the host gave no random bytes: {0}")]
    Random(std::io::Error),
}

/// A store that was not opened, and not made either.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenOrFormatError {
    /// There was none, and it could not be made.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// It is there, or was made, and cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Why cleaning was not turned on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CleanError {
    /// It is on, with the owner that was given first.
    #[error("cleaning is on already")]
    AlreadyOn,
    /// Nothing would be left to clean beside what the shards cannot do without.
    #[error(
        "a store of {extents} extents cannot be cleaned with {shards} shards: it takes {needed}; grow it"
    )]
    TooFewExtents {
        /// Of the store.
        extents: u32,
        /// Its shards, retired ones included.
        shards: u32,
        /// The fewest that do.
        needed: u32,
    },
}

/// Why nothing was trimmed, or no cursor set, or no checkpoint written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpaceError {
    /// The store has no such shard.
    #[error("the store has no shard {shard}")]
    NoSuchShard {
        /// As given.
        shard: ShardId,
    },
    /// The place belongs to another shard.
    #[error("the place is one of shard {found}, and not of shard {shard}")]
    OtherShard {
        /// As given.
        shard: ShardId,
        /// Whose it is.
        found: ShardId,
    },
    /// The address leads nowhere, or its extent was freed before.
    #[error(transparent)]
    Place(ReadError),
    /// No record of this length can be at the address.
    #[error("a record of {bytes} bytes is not what was appended at {address}")]
    Length {
        /// As given.
        address: Address,
        /// Bytes of the payload, as given.
        bytes: u64,
    },
    /// The shard said no.
    #[error("shard {shard}: {refusal}")]
    Refused {
        /// The shard.
        shard: ShardId,
        /// Why.
        refusal: SpaceRefusal,
    },
    /// The mailbox of the shard's core is full.
    #[error("the core of shard {shard} has no room for another request; wait for an answer first")]
    Busy {
        /// The shard.
        shard: ShardId,
    },
    /// The core died before it answered; whether it was done is known after the store was reopened.
    #[error("the core of shard {shard} is closed, or died before it answered; reopen the store")]
    CoreDead {
        /// The shard.
        shard: ShardId,
    },
    /// Waiting on a thread that drives a core would stop that core.
    #[error("this thread drives a core, so it cannot wait for shard {shard}; await it, and turn the core")]
    OnCoreThread {
        /// The shard.
        shard: ShardId,
    },
    /// No answer came in time; it may still be done.
    #[error("shard {shard} gave no answer within {waited:?}")]
    Stalled {
        /// The shard.
        shard: ShardId,
        /// How long was waited.
        waited: Duration,
    },
}

/// Why a store did not grow. It has the size that it had; a file that was made larger stays so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GrowError {
    /// The store cannot be so large, or the device is too small, or there is no such device.
    #[error(transparent)]
    Refused(#[from] GrowthRefusal),
    /// The device could not be made ready: it is in use, or there is no space, or something is there.
    #[error(transparent)]
    Device(#[from] CreateError),
    /// The slot is smaller than the device can address.
    #[error("{}: it writes blocks of {alignment} bytes; a store with slots of {slot_bytes} cannot live on it", path.display())]
    Alignment {
        /// The device.
        path: PathBuf,
        /// Its block.
        alignment: u64,
        /// Slot of the store.
        slot_bytes: u64,
    },
    /// The superblock could not be written or synced. What the next open finds is the old size, or the new one: give it
    /// the further device, if there is one.
    #[error(transparent)]
    File(#[from] FileError),
    /// No memory to write from.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A core cannot use the device.
    #[error("{core:?} cannot use the device: {errno}")]
    Core {
        /// The core.
        core: CoreId,
        /// Why.
        errno: Errno,
    },
    /// A core did not take the device in time; try again.
    #[error("{core:?} did not answer in time; try again")]
    Busy {
        /// The core.
        core: CoreId,
    },
    /// Waiting on a thread that drives a core would stop that core.
    #[error("this thread drives {core:?}, and growing waits for the cores; call it on another one")]
    OnCoreThread {
        /// The core.
        core: CoreId,
    },
    /// The store was closed, or this is a child of the process that has it open.
    #[error("the store is closed")]
    Closed,
    /// The host gave no random bytes for the device's name.
    #[error("the host gave no random bytes: {0}")]
    Random(std::io::Error),
}

/// A shard that was not retired.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RetireError {
    /// The store has no such shard.
    #[error("the store has no {shard:?}; its shards are 0 to {last}")]
    NoSuchShard {
        /// Asked for.
        shard: ShardId,
        /// The last one.
        last: u16,
    },
    /// No other shard takes appends.
    #[error("{shard:?} is the last that takes appends; open the store with more cores first")]
    LastShard {
        /// The shard.
        shard: ShardId,
    },
    /// It takes no appends anyway: see [`crate::Store::cold_shard_of`].
    #[error("{shard:?} is a cold shard, which takes no appends; retire the one that it belongs to")]
    Cold {
        /// The shard.
        shard: ShardId,
    },
    /// A growth that is under way may wait for the core of this thread.
    #[error("this thread drives {core:?}, and retiring waits for others; call it on another one")]
    OnCoreThread {
        /// The core.
        core: CoreId,
    },
    /// The superblock could not be written or synced: the shard goes on, and the next open may find it retired.
    #[error(transparent)]
    File(#[from] FileError),
    /// No memory to write from.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The store was closed, or this is a child of the process that has it open.
    #[error("the store is closed")]
    Closed,
}

/// A shard that was not emptied. What was moved before stays moved; call it again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DrainError {
    /// The store has no such shard.
    #[error("the store has no {shard:?}; its shards are 0 to {last}")]
    NoSuchShard {
        /// Asked for.
        shard: ShardId,
        /// The last one.
        last: u16,
    },
    /// It takes appends: what is moved would come again.
    #[error("{shard:?} takes appends; retire it first")]
    NotRetired {
        /// The shard.
        shard: ShardId,
    },
    /// What cleaning copies goes there: see [`crate::Store::cold_shard_of`].
    #[error("{shard:?} is a cold shard, which only cleaning empties; release what is in it")]
    Cold {
        /// The shard.
        shard: ShardId,
    },
    /// Whoever reads by the cursor is not done.
    #[error("the cursor {name:?} stands in {shard:?}; remove it first, once whoever reads by it is done")]
    Cursor {
        /// The shard.
        shard: ShardId,
        /// The first of its cursors.
        name: String,
    },
    /// Somebody empties the shard already.
    #[error("{shard:?} is being emptied by another call")]
    UnderWay {
        /// The shard.
        shard: ShardId,
    },
    /// Waiting on a thread that drives a core would stop that core.
    #[error("this thread drives {core:?}, and draining waits for the cores; call it on another one")]
    OnCoreThread {
        /// The core.
        core: CoreId,
    },
    /// A record of the shard could not be read.
    #[error(transparent)]
    Scan(#[from] crate::scan::ScanError),
    /// A large record of the shard could not be read.
    #[error(transparent)]
    Large(#[from] crate::large::LargeReadError),
    /// A copy could not be appended.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// A copy could not be made durable.
    #[error(transparent)]
    Flush(#[from] WaitError),
    /// The extents could not be freed.
    #[error(transparent)]
    Space(#[from] SpaceError),
}

impl DrainError {
    /// True if a copy found no room.
    pub(crate) const fn is_full(&self) -> bool {
        matches!(self, Self::Append(AppendError::StoreFull { .. }))
    }
}

impl From<WriteSuperblockError<FileError>> for RetireError {
    fn from(error: WriteSuperblockError<FileError>) -> Self {
        match error {
            WriteSuperblockError::Device(error) => Self::File(error),
            WriteSuperblockError::Memory(error) => Self::Memory(error),
        }
    }
}

impl From<DeviceOpenError> for GrowError {
    fn from(error: DeviceOpenError) -> Self {
        Self::Device(error.into())
    }
}

impl From<WriteSuperblockError<FileError>> for GrowError {
    fn from(error: WriteSuperblockError<FileError>) -> Self {
        match error {
            WriteSuperblockError::Device(error) => Self::File(error),
            WriteSuperblockError::Memory(error) => Self::Memory(error),
        }
    }
}

/// A store that could not be opened. Nothing was changed on it, except where a variant says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// An option is out of its bounds.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// A device is missing, forbidden, locked by another process, or of the wrong kind.
    #[error(transparent)]
    Device(#[from] DeviceOpenError),
    /// A device could not be read, written or synced.
    #[error(transparent)]
    File(#[from] FileError),
    /// No store is there, or one that this program cannot use.
    #[error("{}: {error}", path.display())]
    Superblock {
        /// The device.
        path: PathBuf,
        /// What is wrong.
        error: SuperblockChoiceError,
    },
    /// A backup was being restored to the store, and not all of it is there.
    #[error("{}: a restore into this store did not come to its end; restore the backup again, replacing it", path.display())]
    HalfRestored {
        /// The store's first device.
        path: PathBuf,
    },
    /// The store has a feature that a writer must know.
    #[error(transparent)]
    ReadOnlyFeature(#[from] ReadOnlyFeature),
    /// Size, number or identity of the devices do not match the superblock.
    #[error("{}: {problem}", path.display())]
    Geometry {
        /// The device.
        path: PathBuf,
        /// What does not fit.
        problem: GeometryProblem,
    },
    /// The log is damaged where it was durable.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// No memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The host's CPUs could not be counted; say the number of cores.
    #[error("{0}; say how many cores to run")]
    Topology(#[from] corelog_tuning::topology::TopologyError),
    /// The host forbids io_uring, or has no memory for it. The store was not touched.
    #[error("{unavailable}; or choose the `threads` or the `auto` backend")]
    RingUnavailable {
        /// Why.
        unavailable: RingUnavailable,
    },
    /// The host gave no threads for I/O.
    #[error(transparent)]
    PoolUnavailable(#[from] PoolUnavailable),
    /// A core's thread could not be started.
    #[error("starting the thread of {core:?} failed: {error}; raise the limit of threads (`ulimit -u`)")]
    Thread {
        /// The core.
        core: CoreId,
        /// Why.
        error: std::io::Error,
    },
    /// A glommio executor could not be started.
    #[cfg(feature = "glommio")]
    #[error(
        "starting the executor of {core:?} failed: {error}; glommio needs io_uring and 512 KiB of locked memory"
    )]
    Executor {
        /// The core.
        core: CoreId,
        /// Why. Not glommio's own error, which cannot be shared between threads.
        error: std::io::Error,
    },
    /// A shard could not be brought to life. The open term was raised on the devices.
    #[error(transparent)]
    Shard(#[from] OpenShardError),
    /// Another core of the same open failed first.
    #[error("{core:?} did not start because another core failed to")]
    Abandoned {
        /// The core.
        core: CoreId,
    },
}

/// What does not fit between the devices and the superblock.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GeometryProblem {
    /// The device is smaller than the store.
    #[error("it has {found} bytes and the store needs {expected}: it was truncated, or is the wrong device")]
    Shorter {
        /// Bytes there.
        found: u64,
        /// Bytes needed.
        expected: u64,
    },
    /// The store has more or fewer devices.
    #[error("the store has {expected} devices and {found} were given; give them all, in any order")]
    DeviceCount {
        /// Given.
        found: usize,
        /// Of the store.
        expected: usize,
    },
    /// A device of another store.
    #[error("it belongs to another store than the first device given")]
    OtherStore,
    /// A device was given twice, or is a copy of another.
    #[error("it is the same device of the store as another that was given")]
    Duplicate,
    /// The slot is smaller than the device can address.
    #[error(
        "the device writes blocks of {alignment} bytes; a store with slots of {slot_bytes} cannot live on it"
    )]
    Alignment {
        /// Block of the device.
        alignment: u64,
        /// Slot of the store.
        slot_bytes: u64,
    },
}

/// An append that was refused. Nothing of it is in the log, unless the variant says that this is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The record is longer than a flush buffer can hold.
    #[error("the record has {bytes} bytes; at most {max} fit into a flush buffer (`buffer-bytes` sets it)")]
    TooLarge {
        /// Its bytes.
        bytes: u64,
        /// What fits.
        max: u64,
    },
    /// A large record would be longer than the store allows.
    #[error("a large record of this store has at most {max} bytes: 1 GiB, or a quarter of the store")]
    LargeTooLong {
        /// What is allowed.
        max: u64,
    },
    /// All buffers of the shard are on their way to the device; try again when a write has completed.
    #[error("all flush buffers of {shard:?} are full; wait for a write, or append with the waiting call")]
    Full {
        /// The shard.
        shard: ShardId,
    },
    /// No extent is free.
    #[error(
        "the store is full ({shard:?} found no free extent); what is in it can be read; make space, or a larger store"
    )]
    StoreFull {
        /// The shard.
        shard: ShardId,
    },
    /// Another core runs the shard.
    #[error(
        "{shard:?} is run by another core than {core:?}; append through the store, which takes any shard"
    )]
    OtherCore {
        /// The shard.
        shard: ShardId,
        /// The core that was asked.
        core: CoreId,
    },
    /// The shard takes no appends any more.
    #[error("{shard:?} is retired; append to another one, or leave the choice to a key")]
    Retired {
        /// The shard.
        shard: ShardId,
    },
    /// The store has no such shard.
    #[error("the store has no {shard:?}; its shards are 0 to {last}")]
    NoSuchShard {
        /// Asked for.
        shard: ShardId,
        /// The last one.
        last: u16,
    },
    /// The shard failed; other shards go on.
    #[error(transparent)]
    Failed(#[from] ShardFailure),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// Too many batches over several shards are under way, or one that a full shard keeps from being finished is in the
    /// way of forgetting too many others.
    #[error(
        "{max} batches over several shards are under way already, or one has been for too long; finish one first"
    )]
    TooManyBatches {
        /// How many there can be.
        max: usize,
    },
    /// The batch has records of as many shards as it can.
    #[error("a batch has records of at most {max} shards")]
    TooManyShards {
        /// How many there can be.
        max: usize,
    },
    /// The batch counts, and a shard has not got its share of it: the next open gives it.
    #[error("the batch counts, and shard {shard} gets its records at the next open, for now: {why}")]
    Unresolved {
        /// The shard.
        shard: ShardId,
        /// What was in the way.
        why: Box<AppendError>,
    },
    /// The core that should have appended is gone; whether the record is in the log is told by reading it.
    #[error("the core of {shard:?} died before it answered; whether the record was appended is not known")]
    CoreDead {
        /// The shard.
        shard: ShardId,
    },
    /// The core that was sent the record did not answer for the stall time, and may append it yet; whether it did is
    /// told by reading the shard.
    #[error(
        "the core of {shard:?} did not answer within {waited:?}; whether the record is appended is not known"
    )]
    Unanswered {
        /// The shard.
        shard: ShardId,
        /// How long.
        waited: Duration,
    },
    /// Nothing moved for the stall time.
    #[error("{shard:?} made no room within {waited:?}: its device is stalled or slow")]
    Stalled {
        /// The shard.
        shard: ShardId,
        /// How long the call waited.
        waited: Duration,
    },
    /// Waiting on a thread that drives a core would stop that core.
    #[error(
        "this thread drives a core of the store, so it cannot wait for {shard:?}; use `try_append`, and turn the core"
    )]
    OnCoreThread {
        /// The shard.
        shard: ShardId,
    },
}

/// A refused append, with what was to be appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Refused<P = Bytes> {
    /// Why.
    pub error: AppendError,
    /// The payload, unchanged.
    pub payload: P,
}

/// A wait that did not reach what it was for. The record may still become durable; it was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The shard failed before.
    #[error(transparent)]
    Failed(#[from] ShardFailure),
    /// The time was over.
    #[error("frame {frame} of {shard:?} did not arrive within {waited:?}: its device is stalled or slow")]
    Stalled {
        /// The shard.
        shard: ShardId,
        /// The frame.
        frame: FrameNumber,
        /// How long the call waited.
        waited: Duration,
    },
    /// Waiting on a thread that drives a core would stop that core.
    #[error("this thread drives a core of the store, so it cannot wait for {shard:?}; turn the core instead")]
    OnCoreThread {
        /// The shard.
        shard: ShardId,
    },
}

/// A store that was not closed as it should be. What was acknowledged is safe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseError {
    /// A shard had failed.
    #[error(transparent)]
    Failed(#[from] ShardFailure),
    /// Waiting on a thread that drives a core would stop that core. The cores were asked to close: turn them until
    /// they are.
    #[error("this thread drives {core:?}, so it cannot wait for the close; turn the core until it is closed")]
    OnCoreThread {
        /// The core.
        core: CoreId,
    },
    /// The cores did not drain in time.
    #[error("the cores did not bring everything to the devices within {waited:?}")]
    Stalled {
        /// How long the call waited.
        waited: Duration,
    },
    /// The closing superblock could not be written; the next open recovers as after a crash.
    #[error(transparent)]
    File(#[from] FileError),
    /// No memory for the closing superblock.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

// Errors travel between threads and into boxes of any kind, with every feature.
const _: () = {
    const fn travels<T: Send + Sync + 'static>() {}
    travels::<FormatError>();
    travels::<OpenError>();
    travels::<GrowError>();
    travels::<Refused>();
    travels::<WaitError>();
    travels::<CloseError>();
};
