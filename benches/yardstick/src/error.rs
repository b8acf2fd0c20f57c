//! Why a yardstick gave no figure.

use crate::{ring::RingError, space::SpaceError};
use corelog_shards::memory::MemoryError;
use rustix::io::Errno;
use std::ops::RangeInclusive;

/// Why a run gave no figure.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An option is outside its bounds; choose one inside.
    #[error("{name} is {value}, but must be between {least} and {most}")]
    Option {
        /// Which one.
        name: &'static str,
        /// What was given.
        value: u64,
        /// The smallest allowed.
        least: u64,
        /// The largest allowed.
        most: u64,
    },
    /// There are fewer cores than pinned threads; ask for fewer, or do not pin.
    #[error("{asked} pinned threads asked for, but this process may use {usable} cores")]
    TooFewCores {
        /// Threads asked for.
        asked: usize,
        /// Cores that the process may use.
        usable: usize,
    },
    /// The kernel did not move a thread to its core; run unpinned.
    #[error("a thread could not be pinned to core {core}")]
    Pin {
        /// The core.
        core: usize,
    },
    /// No file to run on; choose another path.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// The ring or an operation in it failed.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// No memory for the buffers; use fewer or smaller ones.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A call to the device outside the ring failed.
    #[error("{step} failed: {errno}")]
    Device {
        /// What was under way.
        step: Step,
        /// Why.
        errno: Errno,
    },
    /// What is on the device is not what was appended: the figure would be worthless.
    #[error("the record at byte {position} is not what was appended")]
    Damage {
        /// Where, in bytes from the start of the file (or of the buffers, without one).
        position: u64,
    },
    /// A worker panicked; its message is on standard error.
    #[error("a worker thread panicked")]
    WorkerPanicked,
    /// Another worker failed, so this one did not run.
    #[error("stopped because another worker failed")]
    Abandoned,
}

/// A device call outside the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Flushing the device cache.
    Sync,
    /// Reading back what was written.
    ReadBack,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sync => "fdatasync",
            Self::ReadBack => "reading back",
        })
    }
}

/// Checks an option against its bounds.
pub(crate) fn bounded(name: &'static str, value: u64, bounds: RangeInclusive<u64>) -> Result<(), RunError> {
    if bounds.contains(&value) {
        return Ok(());
    }
    Err(RunError::Option { name, value, least: *bounds.start(), most: *bounds.end() })
}
