//! The device trait: the one seam between the engine and the world below it.
//!
//! A [`Device`] is what one core holds: it takes [`Operation`]s and gives back [`Completion`]s, each with the
//! operation (and so the memory) that it was submitted for. It may finish them in any order, transfer less than
//! asked, or fail; what that means is decided above. Time comes through the same seam.
//!
//! Backends: [`uring`] (the product), [`threads`] (hosts that forbid io_uring), [`null`] and [`ram`] (tests and
//! benches). [`mod@file`] opens what the first two work on.

use self::file::DeviceFile;
use crate::{
    ids::DeviceIndex,
    memory::{PooledBuffer, Region, RegionSlice},
    park::Bell,
};
use std::{fmt, os::fd::BorrowedFd, sync::Arc, time::Duration};

pub mod clock;
pub mod file;
pub mod null;
pub mod ram;
mod signal;
pub mod threads;
pub mod uring;

/// Chosen by the submitter, given back with the completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// Monotonic time of a device, in nanoseconds from an arbitrary start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// Time passed since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The instant `duration` later.
    #[must_use]
    pub const fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_nanos() as u64))
    }
}

/// What a write promises when it completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteSync {
    /// Nothing about power loss; a [`Operation::Sync`] has to follow.
    None,
    /// The bytes are on stable media (`RWF_DSYNC`).
    Data,
}

/// One device operation. It owns its memory until its completion gives it back.
#[derive(Debug)]
pub enum Operation {
    /// Fills the whole buffer from `offset`.
    Read {
        /// Which device of the store.
        device: DeviceIndex,
        /// Byte on the device; a multiple of the alignment.
        offset: u64,
        /// Where to; its whole length is asked for.
        buffer: PooledBuffer,
    },
    /// Writes the whole slice to `offset`.
    Write {
        /// Which device of the store.
        device: DeviceIndex,
        /// Byte on the device; a multiple of the alignment.
        offset: u64,
        /// What to write; nobody changes it until the completion.
        bytes: RegionSlice,
        /// What completion promises.
        sync: WriteSync,
    },
    /// Makes all writes that *completed before this was submitted* stable (`fdatasync`).
    Sync {
        /// Which device of the store.
        device: DeviceIndex,
    },
    /// Gives the bytes back to the device (hole punch or block discard). They read as anything afterwards.
    Discard {
        /// Which device of the store.
        device: DeviceIndex,
        /// Byte on the device.
        offset: u64,
        /// Bytes.
        length: u64,
    },
}

impl Operation {
    /// Bytes that a full transfer moves; 0 for a sync or a discard.
    #[must_use]
    pub fn transfer_bytes(&self) -> u64 {
        match self {
            Self::Read { buffer, .. } => buffer.len() as u64,
            Self::Write { bytes, .. } => bytes.len() as u64,
            Self::Sync { .. } | Self::Discard { .. } => 0,
        }
    }

    /// The verb, for errors.
    #[must_use]
    pub const fn verb(&self) -> Verb {
        match self {
            Self::Read { .. } => Verb::Read,
            Self::Write { .. } => Verb::Write,
            Self::Sync { .. } => Verb::Sync,
            Self::Discard { .. } => Verb::Discard,
        }
    }

    /// The device it goes to.
    #[must_use]
    pub const fn device(&self) -> DeviceIndex {
        match self {
            Self::Read { device, .. }
            | Self::Write { device, .. }
            | Self::Sync { device }
            | Self::Discard { device, .. } => *device,
        }
    }

    /// The byte on the device where it begins; 0 for a sync.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        match self {
            Self::Read { offset, .. } | Self::Write { offset, .. } | Self::Discard { offset, .. } => *offset,
            Self::Sync { .. } => 0,
        }
    }
}

/// What was asked of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Bytes from the device.
    Read,
    /// Bytes to the device.
    Write,
    /// Flush of the device's cache.
    Sync,
    /// Space given back.
    Discard,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Discard => "discard",
        })
    }
}

/// An errno of the host, as it came.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl From<rustix::io::Errno> for Errno {
    fn from(errno: rustix::io::Errno) -> Self {
        Self(errno.raw_os_error())
    }
}

impl From<std::io::Error> for Errno {
    /// An error without an errno (none of the calls made here gives one) reads as `EIO`.
    fn from(error: std::io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::io::Error::from_raw_os_error(self.0))
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "errno {}", self.0)
    }
}

/// The end of an operation.
#[derive(Debug)]
pub struct Completion {
    /// As submitted.
    pub token: Token,
    /// As submitted, with its memory.
    pub operation: Operation,
    /// Bytes transferred (0 for a sync or discard), possibly fewer than asked; or the errno.
    pub result: Result<u64, Errno>,
}

/// A submission that the device did not take; it hands the operation back.
#[derive(Debug)]
pub struct Rejected {
    /// As submitted.
    pub operation: Operation,
    /// `EAGAIN`-like: the queue is full and a completion will make room.
    pub token: Token,
}

/// The device as a whole no longer works (the ring lost a completion, a worker died). The core that holds it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the device queue broke during {during}: {errno}; reopen the store")]
pub struct DeviceBroken {
    /// The call that failed.
    pub during: &'static str,
    /// Why.
    pub errno: Errno,
}

/// What the host granted to one core's device, and why something is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Grants {
    /// `io_uring`, `threads`, `null` or the simulator's name.
    pub backend: &'static str,
    /// Features in use, by name (`SINGLE_ISSUER`, `DEFER_TASKRUN`, `fixed files`, `registered buffers`, ...).
    pub features: Vec<&'static str>,
    /// One line for each thing that was asked for and not granted: what, why, and the remedy.
    pub missing: Vec<String>,
}

/// What a backend did so far: what its work costs in system calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counters {
    /// System calls that submitted or waited.
    pub enters: u64,
    /// Of these, the ones that were interrupted or refused for the moment, and made again.
    pub retries: u64,
    /// Operations passed to the kernel or to a worker, those of the backend itself included.
    pub sqes: u64,
    /// Completions taken, those of the backend itself included.
    pub cqes: u64,
    /// Rings of the bell that reached this core.
    pub wakes: u64,
}

/// What one core submits its I/O to. It is used by one thread at a time, the one that runs the core.
pub trait Device: Send {
    /// Takes an operation. It may be held back until the next [`Device::poll`]; once taken it completes exactly
    /// once. `Err` hands it back: the queue is full.
    fn submit(&mut self, token: Token, operation: Operation) -> Result<(), Box<Rejected>>;

    /// What offset and length of a read of `device` must be multiples of, in bytes: a power of two.
    fn read_alignment(&self, device: DeviceIndex) -> u64;

    /// True if a write with [`WriteSync::Data`] to `device` is known to be a write and then a flush of the device's cache.
    /// A device may take such a write with a flag of its own (FUA) instead, and some that claim to do ignore it.
    fn flushes_write_through(&self, device: DeviceIndex) -> bool;

    /// Passes on what was submitted and appends what has completed, without waiting.
    fn poll(&mut self, completions: &mut Vec<Completion>) -> Result<(), DeviceBroken>;

    /// As [`Device::poll`], but sleeps in the kernel until there is a completion, the bell rings, or `timeout` is
    /// over. A bell that rang since [`Bell::prepare_sleep`] makes it return at once, also if a [`Device::poll`]
    /// came between. May return early for no reason.
    fn wait(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> Result<(), DeviceBroken>;

    /// Operations taken and not yet given back.
    fn in_flight(&self) -> usize;

    /// Operations that can be in flight at the same time.
    fn depth(&self) -> usize;

    /// What wakes a core that sleeps in [`Device::wait`].
    fn bell(&self) -> Arc<Bell>;

    /// Readable when [`Device::wait`] would return, where the backend has such a thing. Whoever sleeps on it calls
    /// [`Device::poll`] first and [`Bell::prepare_sleep`] second, for a poll in between takes the bell's signal.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Announces memory that operations will use again and again. Failing to register it is not an error, it
    /// shows in [`Device::grants`].
    fn register(&mut self, region: &Arc<Region>);

    /// Takes a further device, or another file for one that nothing was submitted to yet. Operations on it may be
    /// submitted once this has returned.
    fn add(&mut self, _device: DeviceIndex, _file: Arc<DeviceFile>) -> Result<(), Errno> {
        Err(Errno(libc::EOPNOTSUPP))
    }

    /// What the host granted.
    fn grants(&self) -> &Grants;

    /// Now.
    fn now(&self) -> Instant;

    /// What it did so far.
    fn counters(&self) -> Counters {
        Counters::default()
    }
}

/// Puts a file in the place of a device, which is there already or behind the last.
fn put_file(
    files: &mut Vec<Arc<DeviceFile>>,
    device: DeviceIndex,
    file: Arc<DeviceFile>,
) -> Result<(), Errno> {
    let (index, count) = (usize::from(device.0), files.len());
    match files.get_mut(index) {
        Some(place) => *place = file,
        None if index == count => files.push(file),
        None => return Err(Errno(libc::EINVAL)),
    }
    Ok(())
}
