//! corelog: an embeddable, thread-per-core, log-structured storage engine for Linux.
//!
//! A store has one *shard* per core. Each shard is an append stream with its own ring of flush buffers, its own
//! io_uring and its own extents of the device. An append copies a record into a ring and returns with its address; a
//! ticket tells when it is written, and when it is durable.
#![forbid(unsafe_code)]

#[cfg(feature = "fuzzing")]
extern crate self as corelog;

mod backup;
#[cfg(feature = "fuzzing")]
#[allow(
    dead_code,
    unreachable_patterns,
    reason = "only words are taken apart here; and within this crate a non-exhaustive enum is exhaustive"
)]
mod cli;
mod cut;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "glommio")]
pub mod glommio;
mod inspect;
mod large;
mod options;
mod read;
mod read_many;
mod router;
mod salvage;
mod scan;
mod scrub;
mod space;
mod stats;
mod store;
mod ticket;

pub use backup::{Backup, BackupError, BackupHead, BackupReport, RestoreError};
pub use corelog_shards::{
    address::{Address, ParseAddressError},
    cleaning::{RecordOwner, VictimPolicy},
    core::Turn,
    device::Counters as DeviceCounters,
    failure::ShardFailure,
    format::control::{Cursor, LogPlace},
    growth::GrowthRefusal,
    ids::{CoreId, DeviceIndex, FrameNumber, ShardId, SlotIndex, StoreId, Term},
    limits,
    opening::{AddedShards, FewerShards},
    reads::ReadError,
    recovery::{RecoveredShard, RecoveryError, RecoveryReport, TailKind},
    scan::{Damage, Fault, Position, ScanPlace},
    shard::ShardSpace,
    shard_owner::{SpaceDone, SpaceRefusal},
    watermark::{Durability, Watermarks},
};
pub use corelog_tuning::probe::Warning;
pub use cut::{Cut, HeldCleaning};
pub use error::{
    AppendError, CleanError, CloseError, DrainError, FormatError, GeometryProblem, GrowError, OpenError,
    OpenOrFormatError, Refused, RetireError, SpaceError, WaitError,
};
pub use inspect::{Finding, FindingPlace, Inspection, InspectionScan, VerifyReport};
pub use large::{LargeReadError, LargeReader};
pub use options::{
    AppendPath, Backend, CleaningPolicy, Fill, FormatOptions, FrameOrder, OptionError, Options, SyncMethod,
};
pub use read::Reading;
pub use read_many::ReadingMany;
pub use router::Route;
pub use salvage::{LossOf, Salvage, SalvageError, SalvageLoss, SalvageReport, SalvagedPart, SalvagedRecord};
pub use scan::{Record, Scan, ScanAll, ScanError, ScanFrom, Waited};
pub use scrub::{ScrubOptions, ScrubReport};
pub use space::{SpaceChange, TrimTo};
pub use stats::{CleaningStats, ReadStats, ShardStats, Stats, StoreStats};
pub use store::{
    Batch, BatchTicket, Core, CoreGrants, DeviceWarning, Drained, Formatted, GrowBy, Grown, LargeWriter,
    Opening, OverBatch, OverTicket, Reservation, Room, Seat, Store, format,
};
pub use ticket::{Reached, Ticket, TicketId};

/// Its example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
