//! Opening a device that exists.

use super::{
    DeviceFile, FileKind,
    lock::{is_locked, lock_exclusive, retry_while},
    probe::{NeitherKind, bytes_of, file_system_of, has_no_fua, is_on_buffered_loop, kind_of, make_direct},
};
use crate::{device::Errno, limits::LOCK_WAIT_MS_MAX};
use rustix::{
    fs::{Mode, OFlags, fstat, stat},
    io::Errno as HostErrno,
};
use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

/// What a device is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read and write. Nobody else can have it at the same time.
    ReadWrite,
    /// To look at it, also while somebody else writes it.
    Inspect,
}

/// How a device is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// What for.
    pub access: Access,
    /// Accept a file system that puts the page cache between store and device.
    pub allow_buffered: bool,
    /// How long to wait for the lock.
    pub lock_wait: Duration,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            access: Access::ReadWrite,
            allow_buffered: false,
            lock_wait: Duration::from_millis(LOCK_WAIT_MS_MAX),
        }
    }
}

/// A device that could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is nothing at the path.
    #[error("{path} does not exist; check the path, or make a store there with `corelog format`")]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// The path is a folder.
    #[error("{path} is a folder; give the path of a file or of a block device")]
    Folder {
        /// The path.
        path: PathBuf,
    },
    /// The path is a pipe, a socket or a character device.
    #[error("{path} is neither a file nor a block device; give the path of one")]
    WrongKind {
        /// The path.
        path: PathBuf,
    },
    /// The host does not let this user do it.
    #[error("{path}: {errno}; run as a user who may read and write it, or change its mode")]
    Forbidden {
        /// The path.
        path: PathBuf,
        /// `EACCES` or `EPERM`.
        errno: Errno,
    },
    /// The file system or the device is read-only.
    #[error("{path} is on a read-only file system or device; remount it, or open the store for inspection")]
    ReadOnly {
        /// The path.
        path: PathBuf,
    },
    /// Somebody else has it.
    #[error(
        "{path} is locked: another store handle or process has it open, or it is mounted (waited {waited:?}); close that one, or open for inspection"
    )]
    Locked {
        /// The path.
        path: PathBuf,
        /// How long it stayed so.
        waited: Duration,
    },
    /// I/O on it would go through the page cache.
    #[error(
        "{path}: {file_system} does not do direct I/O here: {remedy}, or allow buffered I/O and lose the meaning of the figures"
    )]
    NotDirect {
        /// The path.
        path: PathBuf,
        /// Which file system it is.
        file_system: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// There is no space for the file.
    #[error("{path}: no space left, not even for an empty file; free some, or choose another place")]
    Full {
        /// The path.
        path: PathBuf,
    },
    /// The host failed in another way.
    #[error("{path}: {during} failed: {errno}")]
    Host {
        /// The path.
        path: PathBuf,
        /// Which call.
        during: &'static str,
        /// Why.
        errno: Errno,
    },
}

impl OpenError {
    /// The error for an errno that any of the calls on a path may give.
    pub(super) fn host(path: &Path, during: &'static str, errno: HostErrno) -> Self {
        let path = path.to_owned();
        match errno {
            HostErrno::NOENT | HostErrno::NOTDIR | HostErrno::NXIO => Self::Missing { path },
            HostErrno::ISDIR => Self::Folder { path },
            HostErrno::ACCESS | HostErrno::PERM => Self::Forbidden { path, errno: errno.into() },
            HostErrno::ROFS => Self::ReadOnly { path },
            HostErrno::NOSPC | HostErrno::DQUOT => Self::Full { path },
            errno => Self::Host { path, during, errno: errno.into() },
        }
    }
}

impl DeviceFile {
    /// Opens a device and takes its lock (unless it is only inspected). Nothing of it is read before the lock is
    /// held.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self, OpenError> {
        let path = path.as_ref();
        // Before the open, because opening a pipe waits for its other end.
        let kind = kind_at(path)?;
        let fd = open_fd(path, kind, options)?;
        Self::take(fd, path, kind, options)
    }

    /// Locks and checks what was opened.
    pub(super) fn take(
        fd: OwnedFd,
        path: &Path,
        kind: FileKind,
        options: &OpenOptions,
    ) -> Result<Self, OpenError> {
        let mut warnings = Vec::new();
        lock(&fd, path, kind, options, &mut warnings)?;
        let status = fstat(&fd).map_err(|errno| OpenError::host(path, "fstat", errno))?;
        if kind_of(status.st_mode).ok() != Some(kind) {
            return Err(OpenError::WrongKind { path: path.to_owned() });
        }
        let directness = make_direct(fd.as_fd(), kind)
            .map_err(|errno| OpenError::host(path, "asking for direct I/O", errno))?;
        let (file_system, remedy) = file_system_of(fd.as_fd());
        if !directness.direct {
            if options.access == Access::ReadWrite && !options.allow_buffered {
                return Err(OpenError::NotDirect { path: path.to_owned(), file_system, remedy });
            }
            warnings.push(format!(
                "{}: I/O is buffered: {file_system} does not do direct I/O here",
                path.display()
            ));
        }
        if directness.unconfirmed {
            warnings.push(format!(
                "{}: this kernel does not say whether I/O is direct (6.1 and later do); {file_system} usually is",
                path.display()
            ));
        }
        if is_on_buffered_loop(fd.as_fd(), kind) {
            warnings.push(format!(
                "{}: the loop device below is buffered; make it with `losetup --direct-io=on`",
                path.display()
            ));
        }
        let bytes = bytes_of(fd.as_fd(), kind)
            .map_err(|errno| OpenError::host(path, "asking for the size", errno))?;
        let flushes_write_through = has_no_fua(fd.as_fd(), kind);
        Ok(Self {
            fd,
            path: path.to_owned(),
            bytes,
            alignment: directness.alignment,
            read_alignment: directness.read_alignment,
            flushes_write_through,
            direct: directness.direct,
            kind,
            access: options.access,
            created: false,
            warnings,
        })
    }
}

pub(super) fn kind_at(path: &Path) -> Result<FileKind, OpenError> {
    let status = stat(path).map_err(|errno| OpenError::host(path, "stat", errno))?;
    kind_of(status.st_mode).map_err(|NeitherKind { folder }| {
        let path = path.to_owned();
        if folder { OpenError::Folder { path } } else { OpenError::WrongKind { path } }
    })
}

pub(super) fn open_fd(path: &Path, kind: FileKind, options: &OpenOptions) -> Result<OwnedFd, OpenError> {
    let flags = OFlags::CLOEXEC
        | match (options.access, kind) {
            (Access::Inspect, _) => OFlags::RDONLY,
            (Access::ReadWrite, FileKind::Regular) => OFlags::RDWR,
            (Access::ReadWrite, FileKind::Block) => OFlags::RDWR | OFlags::EXCL,
        };
    retry_while(HostErrno::BUSY, options.lock_wait, || rustix::fs::open(path, flags, Mode::empty())).map_err(
        |errno| match errno {
            HostErrno::BUSY => OpenError::Locked { path: path.to_owned(), waited: options.lock_wait },
            errno => OpenError::host(path, "open", errno),
        },
    )
}

fn lock(
    fd: &OwnedFd,
    path: &Path,
    kind: FileKind,
    options: &OpenOptions,
    warnings: &mut Vec<String>,
) -> Result<(), OpenError> {
    match (options.access, kind) {
        // `O_EXCL` has done it, and does not tell an inspector whether somebody else has it.
        (_, FileKind::Block) => Ok(()),
        (Access::Inspect, FileKind::Regular) => {
            if is_locked(fd.as_fd()) {
                warnings.push(format!(
                    "{}: another process has it open and may write it meanwhile",
                    path.display()
                ));
            }
            Ok(())
        }
        (Access::ReadWrite, FileKind::Regular) => {
            lock_exclusive(fd.as_fd(), options.lock_wait).map_err(|errno| match errno {
                HostErrno::WOULDBLOCK => {
                    OpenError::Locked { path: path.to_owned(), waited: options.lock_wait }
                }
                errno => OpenError::host(path, "flock", errno),
            })
        }
    }
}
