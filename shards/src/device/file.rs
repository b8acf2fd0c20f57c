//! The files and block devices that a store lives on: opened, checked, locked, filled with zeros.
//!
//! A [`DeviceFile`] is shared by the backends of all cores. Its own reads and writes are for opening, formatting and
//! repair, where one thread works through a few blocks; everything else goes through a [`super::Device`].

use super::Errno;
use crate::memory::{PooledBuffer, RegionSlice};
use rustix::{
    fs::{FallocateFlags, fallocate, fdatasync, fsync},
    io::{Errno as HostErrno, pread, pwrite},
};
use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
};

mod create;
mod lock;
mod open;
mod probe;

pub use create::{CreateError, CreateOptions, Fill};
pub use open::{Access, OpenError, OpenOptions};
pub use probe::FileKind;

/// One device of a store, open. The lock on it lasts until the last user has dropped it and the kernel has finished
/// what was in flight.
#[derive(Debug)]
pub struct DeviceFile {
    fd: OwnedFd,
    path: PathBuf,
    bytes: u64,
    alignment: u64,
    read_alignment: u64,
    flushes_write_through: bool,
    direct: bool,
    kind: FileKind,
    access: Access,
    /// Whether this value made the file, and so may remove it.
    created: bool,
    warnings: Vec<String>,
}

impl DeviceFile {
    /// The path that it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size when it was opened, in bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What offsets, lengths and memory must be multiples of: at least 4096, more where the device's blocks are
    /// larger.
    #[must_use]
    pub const fn alignment(&self) -> u64 {
        self.alignment
    }

    /// What offsets and lengths of reads must be multiples of: a sector, where the host takes reads of single ones, else
    /// the same as [`DeviceFile::alignment`].
    #[must_use]
    pub const fn read_alignment(&self) -> u64 {
        self.read_alignment
    }

    /// Whether the host makes a write with `RWF_DSYNC` durable by a flush of the device's cache: so it does where the
    /// device below claims no FUA. False also where the host does not say.
    #[must_use]
    pub const fn flushes_write_through(&self) -> bool {
        self.flushes_write_through
    }

    /// Whether I/O passes by the page cache.
    #[must_use]
    pub const fn is_direct(&self) -> bool {
        self.direct
    }

    /// Regular file or block device.
    #[must_use]
    pub const fn kind(&self) -> FileKind {
        self.kind
    }

    /// Whether it can be written.
    #[must_use]
    pub const fn access(&self) -> Access {
        self.access
    }

    /// What the user should know about this device: one line each, with the remedy.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Fills the whole buffer from `offset`. Interrupted and short reads are continued.
    pub fn read_exact_at(&self, offset: u64, buffer: &mut PooledBuffer) -> Result<(), FileError> {
        self.read_exact_into(offset, buffer.as_mut_slice())
    }

    /// The same into memory of the caller's; direct I/O wants it page-aligned.
    pub fn read_exact_into(&self, offset: u64, bytes: &mut [u8]) -> Result<(), FileError> {
        let expected = bytes.len();
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match pread(&self.fd, rest, offset + done as u64) {
                Ok(0) => {
                    return Err(FileError::Truncated {
                        path: self.path.clone(),
                        offset,
                        expected,
                        found: done,
                    });
                }
                Ok(read) => done += self.resumable(read),
                Err(HostErrno::INTR) => {}
                // Direct I/O cannot go on from the middle of a block, and only the end of a file lies in one.
                Err(HostErrno::INVAL) if !(done as u64).is_multiple_of(self.alignment) => {
                    return Err(FileError::Truncated {
                        path: self.path.clone(),
                        offset,
                        expected,
                        found: done,
                    });
                }
                Err(errno) => return Err(self.failed("read", offset, errno)),
            }
        }
        Ok(())
    }

    /// Writes the whole slice to `offset`. Interrupted and short writes are continued. Nothing is stable before
    /// [`DeviceFile::sync_data`].
    pub fn write_all_at(&self, offset: u64, bytes: &RegionSlice) -> Result<(), FileError> {
        let bytes = bytes.as_slice();
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            match pwrite(&self.fd, rest, offset + done as u64) {
                Ok(0) => return Err(self.failed("write", offset, HostErrno::NOSPC)),
                Ok(written) => done += self.resumable(written),
                Err(HostErrno::INTR) => {}
                Err(errno) => return Err(self.failed("write", offset, errno)),
            }
        }
        Ok(())
    }

    /// Of a short transfer, the bytes after which direct I/O can go on. Less than one block moved counts as all of
    /// it, so that a loop always ends: the next call reports what is wrong.
    const fn resumable(&self, transferred: usize) -> usize {
        let whole = transferred - transferred % self.alignment as usize;
        if self.direct && whole > 0 { whole } else { transferred }
    }

    /// Makes what was written stable (`fdatasync`).
    pub fn sync_data(&self) -> Result<(), FileError> {
        fdatasync(&self.fd).map_err(|errno| self.failed("sync", 0, errno))
    }

    /// Makes what was written stable, size and times too (`fsync`).
    pub fn sync_all(&self) -> Result<(), FileError> {
        fsync(&self.fd).map_err(|errno| self.failed("sync", 0, errno))
    }

    /// Gives bytes back: punches a hole, or discards blocks of a device. They read as anything afterwards.
    pub fn discard(&self, offset: u64, length: u64) -> Result<(), FileError> {
        fallocate(&self.fd, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length)
            .map_err(|errno| self.failed("discard", offset, errno))
    }

    /// Removes the file if this value created it; for a format that fails after [`DeviceFile::create`].
    pub fn remove_if_created(&self) {
        if self.created {
            // The error that led here is the one to report, and what is left over is not a store.
            let _left_over = rustix::fs::unlink(&self.path);
        }
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    fn failed(&self, verb: &'static str, offset: u64, errno: HostErrno) -> FileError {
        let path = self.path.clone();
        match errno {
            HostErrno::NOSPC | HostErrno::DQUOT => FileError::Full { path, offset },
            errno => FileError::Failed { path, verb, offset, errno: errno.into() },
        }
    }
}

impl AsFd for DeviceFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A read, write or sync outside the rings that did not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// The file ends before the bytes that were asked for.
    #[error(
        "{path} ends {found} bytes behind {offset} where {expected} bytes were expected: it was truncated"
    )]
    Truncated {
        /// The device.
        path: PathBuf,
        /// Where the read began.
        offset: u64,
        /// Bytes asked for.
        expected: usize,
        /// Bytes there.
        found: usize,
    },
    /// The host has no space for the write.
    #[error("{path}: no space left for the write at {offset}; free space on its file system, or use another")]
    Full {
        /// The device.
        path: PathBuf,
        /// Where the write began.
        offset: u64,
    },
    /// The device failed. A failed sync or write must not be taken as done, nor tried again.
    #[error("{path}: {verb} at {offset} failed: {errno}; check the device (`dmesg`)")]
    Failed {
        /// The device.
        path: PathBuf,
        /// What was tried.
        verb: &'static str,
        /// Where.
        offset: u64,
        /// Why.
        errno: Errno,
    },
}
