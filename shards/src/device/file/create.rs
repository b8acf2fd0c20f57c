//! Making a device ready for a store: a new file of zeros, or a block device filled with them.

use super::{
    Access, DeviceFile, FileError, FileKind, OpenError, OpenOptions,
    open::{kind_at, open_fd},
    probe::bytes_of,
};
use crate::{
    limits::{FORMAT_WRITE_BYTES, SUPERBLOCK_AREA_BYTES},
    memory::{MemoryError, PooledBuffer, RegionSlice},
};
use rustix::{
    fs::{FallocateFlags, Mode, OFlags, fallocate, fsync, ftruncate},
    io::Errno,
};
use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

/// What the bytes of a new device are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fill {
    /// Written zeros. Slow, and the only fill after which a direct write is never lost for want of the file
    /// system's own bookkeeping, and the store cannot run out of space.
    #[default]
    Zeros,
    /// Nothing: blocks are taken when they are first written. A block device is left as it is, but for the
    /// superblock area.
    Sparse,
}

/// How a device is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateOptions {
    /// Bytes; a multiple of the alignment. `None`: all of a block device.
    pub bytes: Option<u64>,
    /// What to fill it with.
    pub fill: Fill,
    /// Take the place of a file that exists, or of a block device that holds something.
    pub replace: bool,
    /// Accept a file system that puts the page cache between store and device.
    pub allow_buffered: bool,
    /// How long to wait for the lock of what is replaced.
    pub lock_wait: Duration,
}

impl Default for CreateOptions {
    fn default() -> Self {
        let OpenOptions { allow_buffered, lock_wait, .. } = OpenOptions::default();
        Self { bytes: None, fill: Fill::default(), replace: false, allow_buffered, lock_wait }
    }
}

/// A device that could not be made ready. A file that was created for it is gone again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// There is a file already.
    #[error("{path} exists; choose another path, or ask for it to be replaced")]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// The block device holds something.
    #[error(
        "{path} is not empty: it begins with data of something else; check that it is the right device, and ask for it to be replaced if so"
    )]
    Occupied {
        /// The path.
        path: PathBuf,
    },
    /// A file needs a size.
    #[error("{path}: how large the file is to be must be said")]
    SizeMissing {
        /// The path.
        path: PathBuf,
    },
    /// The size does not fit the device's blocks, or there is no room behind the superblock area.
    #[error("{path}: {bytes} bytes is not a multiple of {alignment} above {SUPERBLOCK_AREA_BYTES}")]
    Size {
        /// The path.
        path: PathBuf,
        /// Asked for.
        bytes: u64,
        /// Needed.
        alignment: u64,
    },
    /// The block device is smaller than asked.
    #[error("{path} has {available} bytes, {bytes} are asked for; ask for less")]
    TooSmall {
        /// The path.
        path: PathBuf,
        /// Asked for.
        bytes: u64,
        /// There.
        available: u64,
    },
    /// The host has no space for the file.
    #[error("{path}: no space left for {bytes} bytes; free space, ask for less, or choose another place")]
    Full {
        /// The path.
        path: PathBuf,
        /// Asked for.
        bytes: u64,
    },
    /// The folder of the file does not exist.
    #[error("{path}: its folder does not exist; make it first")]
    FolderMissing {
        /// The path of the file.
        path: PathBuf,
    },
    /// It could not be opened, locked or used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A write or sync failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// No memory to write from.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

impl DeviceFile {
    /// Makes a device: creates the file (mode 0600) or takes the block device, locks it, fills it, and syncs it and
    /// its folder. `progress` is told the bytes done and the bytes in total. It holds no store before a superblock
    /// is written.
    pub fn create(
        path: impl AsRef<Path>,
        options: &CreateOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, CreateError> {
        let path = path.as_ref();
        let (fd, kind, created) = create_fd(path, options)?;
        let made = make(fd, path, kind, created, options, progress);
        if created && made.is_err() {
            // The first error is the one to report.
            let _left_over = rustix::fs::unlink(path);
        }
        made
    }
}

impl DeviceFile {
    /// Makes room at the end of a device that is in use: a file is given the size if it is smaller; `None`: nothing is
    /// made larger, what is there counts. With [`Fill::Zeros`] everything from `from` on is written. Synced when this
    /// returns, which gives the bytes that it has now. `progress` is told the bytes done and the bytes in total.
    ///
    /// A failed sync takes what others wrote with it: see [`crate::failure::SyncFailures::note`].
    pub fn enlarge(
        &self,
        bytes: Option<u64>,
        from: u64,
        fill: Fill,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<u64, CreateError> {
        let available = self.bytes_now()?;
        let path = || self.path().to_owned();
        let wanted = bytes.unwrap_or(available - available % self.alignment());
        if !wanted.is_multiple_of(self.alignment()) || wanted < from {
            return Err(CreateError::Size { path: path(), bytes: wanted, alignment: self.alignment() });
        }
        if wanted > available {
            if self.kind() == FileKind::Block {
                return Err(CreateError::TooSmall { path: path(), bytes: wanted, available });
            }
            extend(self, wanted, fill)?;
        }
        if fill == Fill::Zeros {
            write_zeros_from(self, from, wanted, progress).map_err(|error| full_at(error, wanted))?;
        }
        self.sync_all()?;
        Ok(wanted.min(self.bytes_now()?))
    }

    /// Size of this moment, in bytes.
    pub fn bytes_now(&self) -> Result<u64, OpenError> {
        bytes_of(self.as_fd(), self.kind())
            .map_err(|errno| OpenError::host(self.path(), "asking for the size", errno))
    }
}

fn open_options(options: &CreateOptions) -> OpenOptions {
    OpenOptions {
        access: Access::ReadWrite,
        allow_buffered: options.allow_buffered,
        lock_wait: options.lock_wait,
    }
}

/// The open file, and whether it is a new one.
fn create_fd(path: &Path, options: &CreateOptions) -> Result<(OwnedFd, FileKind, bool), CreateError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR) {
        Ok(fd) => Ok((fd, FileKind::Regular, true)),
        Err(Errno::EXIST) => {
            let kind = kind_at(path)?;
            if kind == FileKind::Regular && !options.replace {
                return Err(CreateError::Exists { path: path.to_owned() });
            }
            Ok((open_fd(path, kind, &open_options(options))?, kind, false))
        }
        Err(Errno::NOENT) => Err(CreateError::FolderMissing { path: path.to_owned() }),
        Err(errno) => Err(OpenError::host(path, "creating the file", errno).into()),
    }
}

fn make(
    fd: OwnedFd,
    path: &Path,
    kind: FileKind,
    created: bool,
    options: &CreateOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<DeviceFile, CreateError> {
    let mut file = DeviceFile::take(fd, path, kind, &open_options(options))?;
    file.created = created;
    let bytes = checked_bytes(&file, options)?;
    match kind {
        FileKind::Regular => resize(&file, bytes, options.fill)?,
        FileKind::Block if options.replace => {}
        FileKind::Block => check_empty(&file)?,
    }
    let filled = match options.fill {
        Fill::Zeros => bytes,
        Fill::Sparse if kind == FileKind::Block => SUPERBLOCK_AREA_BYTES,
        Fill::Sparse => 0,
    };
    write_zeros(&file, filled, progress).map_err(|error| full_at(error, bytes))?;
    file.sync_all()?;
    if kind == FileKind::Regular {
        sync_folder(path)?;
    }
    file.bytes =
        bytes_of(file.as_fd(), kind).map_err(|errno| OpenError::host(path, "asking for the size", errno))?;
    Ok(file)
}

fn checked_bytes(file: &DeviceFile, options: &CreateOptions) -> Result<u64, CreateError> {
    let path = || file.path().to_owned();
    let alignment = file.alignment();
    let available = file.bytes() - file.bytes() % alignment;
    let bytes = match (options.bytes, file.kind()) {
        (Some(bytes), _) => bytes,
        (None, FileKind::Block) => available,
        (None, FileKind::Regular) => return Err(CreateError::SizeMissing { path: path() }),
    };
    if !bytes.is_multiple_of(alignment) || bytes <= SUPERBLOCK_AREA_BYTES {
        return Err(CreateError::Size { path: path(), bytes, alignment });
    }
    if file.kind() == FileKind::Block && bytes > available {
        return Err(CreateError::TooSmall { path: path(), bytes, available });
    }
    Ok(bytes)
}

/// Gives a file its size. What was in it is gone.
fn resize(file: &DeviceFile, bytes: u64, fill: Fill) -> Result<(), CreateError> {
    ftruncate(file, 0).map_err(|errno| no_size(file, bytes, errno))?;
    extend(file, bytes, fill)
}

/// Makes a file longer; what was in it stays.
fn extend(file: &DeviceFile, bytes: u64, fill: Fill) -> Result<(), CreateError> {
    ftruncate(file, bytes).map_err(|errno| no_size(file, bytes, errno))?;
    if fill == Fill::Zeros {
        // Only so that blocks lie together and a lack of space shows before an hour of writing.
        match fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) | Ok(()) => {}
            Err(errno) => return Err(no_size(file, bytes, errno)),
        }
    }
    Ok(())
}

fn no_size(file: &DeviceFile, bytes: u64, errno: Errno) -> CreateError {
    let path = file.path();
    match errno {
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => CreateError::Full { path: path.to_owned(), bytes },
        errno => OpenError::host(path, "giving the file its size", errno).into(),
    }
}

/// A block device counts as empty if its first megabyte is zero: every file system and partition table that is in
/// use has its mark there.
fn check_empty(file: &DeviceFile) -> Result<(), CreateError> {
    let mut buffer = PooledBuffer::alone(SUPERBLOCK_AREA_BYTES as usize)?;
    file.read_exact_at(0, &mut buffer)?;
    if buffer.as_slice().iter().any(|&byte| byte != 0) {
        return Err(CreateError::Occupied { path: file.path().to_owned() });
    }
    Ok(())
}

fn write_zeros(file: &DeviceFile, bytes: u64, progress: &mut dyn FnMut(u64, u64)) -> Result<(), CreateError> {
    write_zeros_from(file, 0, bytes, progress)
}

fn write_zeros_from(
    file: &DeviceFile,
    from: u64,
    to: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), CreateError> {
    let bytes = to.saturating_sub(from);
    if bytes == 0 {
        return Ok(());
    }
    let zeros = |length: u64| PooledBuffer::alone(length as usize).map(RegionSlice::from);
    let whole = zeros(FORMAT_WRITE_BYTES.min(bytes))?;
    let mut done = 0;
    progress(done, bytes);
    while done < bytes {
        let left = bytes - done;
        if left >= whole.len() as u64 {
            file.write_all_at(from + done, &whole)?;
            done += whole.len() as u64;
        } else {
            file.write_all_at(from + done, &zeros(left)?)?;
            done = bytes;
        }
        progress(done, bytes);
    }
    Ok(())
}

fn full_at(error: CreateError, bytes: u64) -> CreateError {
    match error {
        CreateError::File(FileError::Full { path, .. }) => CreateError::Full { path, bytes },
        error => error,
    }
}

/// Without this the file's name can be gone after a power loss, and all that was acknowledged with it.
fn sync_folder(path: &Path) -> Result<(), CreateError> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    rustix::fs::open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .and_then(fsync)
        .map_err(|errno| OpenError::host(folder, "syncing the folder", errno).into())
}
