//! Why a bench ended early.

use crate::cli::{exit::Exit, failure::Failure};
use corelog::{
    Address, AppendError, CleanError, CloseError, FormatError, OpenError, ReadError, ShardFailure, ShardId,
    SpaceError, WaitError,
};
use std::{io, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Wait(#[from] WaitError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Space(#[from] SpaceError),
    #[error(transparent)]
    Clean(#[from] CleanError),
    #[error(transparent)]
    Shard(#[from] ShardFailure),
    #[error(transparent)]
    Close(#[from] CloseError),
    /// Bytes came back that were not appended there: the reason for checking.
    #[error(
        "the record at {address} is not the one that was appended there (record {number} of lane {lane})"
    )]
    Damage { address: Address, lane: u16, number: u64 },
    #[error("a record of {bytes} bytes does not fit into a flush buffer; at most {max} do")]
    RecordTooLarge { bytes: u64, max: u64 },
    #[error(
        "{} was not made by `bench`, which never overwrites anything else; name another path", path.display()
    )]
    NotOurs { path: PathBuf },
    #[error("{}: another process has it; wait for it, or name another path", path.display())]
    InUse { path: PathBuf },
    #[error("{} has {free} bytes left, too little for a bench store of {needed}; free some, or name another path", path.display())]
    NoSpace { path: PathBuf, free: u64, needed: u64 },
    #[error("{}: {error}", path.display())]
    Host { path: PathBuf, error: io::Error },
    #[error(
        "the device is so fast that the store was full before the runs were over; give each more by --bytes, or less time by --seconds"
    )]
    TooFast,
    #[error("overwrite measures a store of its own; name it alone")]
    NotAlone,
    #[error("the overwrite workload needs records of {min} bytes at least; {bytes} were asked for")]
    RecordTooSmall { bytes: u64, min: u64 },
    #[error(
        "the store is full, and no extent gives more room than the copies of what lives in it take: ask for less than {live}% to live, or for a larger store"
    )]
    TooMuchAlive { live: u8 },
    #[error("the core of shard {shard} closed in the middle of the run")]
    CoreClosed { shard: ShardId },
    #[error("a thread of the bench ended early")]
    LaneDied,
    #[error("the plot could not be drawn: {0}")]
    Plot(String),
    #[cfg(feature = "yardsticks")]
    #[error(transparent)]
    NullCore(#[from] corelog_shards::null_core::NullCoreError),
    #[cfg(feature = "yardsticks")]
    #[error(transparent)]
    Yardstick(#[from] corelog_yardstick::RunError),
    #[cfg(feature = "yardsticks")]
    #[error(transparent)]
    Fio(#[from] corelog_yardstick::fio::FioError),
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Format(error) => error.into(),
            BenchError::Open(error) => error.into(),
            BenchError::Append(error) => error.into(),
            BenchError::Wait(error) => error.into(),
            BenchError::Read(error) => error.into(),
            BenchError::Close(error) => error.into(),
            BenchError::Damage { .. } => Self::new(Exit::Damage, error),
            BenchError::RecordTooLarge { .. } | BenchError::RecordTooSmall { .. } | BenchError::NotAlone => {
                Self::new(Exit::Usage, error)
            }
            BenchError::TooMuchAlive { .. } => Self::new(Exit::Full, error),
            BenchError::InUse { .. } => Self::new(Exit::Locked, error),
            BenchError::NoSpace { .. } => Self::new(Exit::Full, error),
            error => Self::new(Exit::Failed, error),
        }
    }
}
