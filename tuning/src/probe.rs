//! One look at the device under a path: what it says of itself, and what in that should worry a store.
//!
//! Nothing is opened for writing and nothing is measured; whether direct I/O really works is asked where the file
//! is opened (`STATX_DIOALIGN`). For a path that does not exist yet its nearest existing folder is looked at.

mod block;
mod file_system;
mod warning;

pub use block::{BlockDevice, WriteCache};
pub use file_system::FileSystem;
pub use warning::Warning;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::{
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

/// A path that cannot be looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The path, or the folder it would be in, cannot be examined.
    #[error("cannot examine {}: {errno}", path.display())]
    Examine {
        /// What was examined.
        path: PathBuf,
        /// Why it failed.
        errno: Errno,
    },
}

/// What one look at a path tells of the device under it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceProbe {
    /// The file system; `None` when the path is a block device itself.
    pub file_system: Option<FileSystem>,
    /// The block device; `None` where there is none to be found (tmpfs, network, btrfs and other file systems with
    /// devices of their own making).
    pub block: Option<BlockDevice>,
}

impl DeviceProbe {
    /// Looks at `path`: a file, a folder, a block device, or a file that is yet to be made. `sys` is `/sys` on a
    /// real host.
    pub fn of_path(path: &Path, sys: &Path) -> Result<Self, ProbeError> {
        let path = nearest_existing(path)?;
        let (is_device, number) = examine(&path)?;
        let block = BlockDevice::read(sys, rustix::fs::major(number), rustix::fs::minor(number));
        if is_device {
            return Ok(Self { file_system: None, block });
        }
        let file_system = FileSystem::of_path(&path).map_err(|errno| ProbeError::Examine { path, errno })?;
        Ok(Self { file_system: Some(file_system), block })
    }

    /// What a store on this device should know before it promises anything; empty when all is well.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        warning::of(self)
    }
}

/// Major and minor number of the block device that `path` is, or is on.
pub(crate) fn device_of(path: &Path) -> Result<(u32, u32), ProbeError> {
    let (_, number) = examine(&nearest_existing(path)?)?;
    Ok((rustix::fs::major(number), rustix::fs::minor(number)))
}

/// Whether it is a block device, and the number of that or of the one below.
fn examine(path: &Path) -> Result<(bool, u64), ProbeError> {
    let failed = |error| ProbeError::Examine { path: path.to_owned(), errno: errno_of(&error) };
    let metadata = path.metadata().map_err(failed)?;
    let is_device = metadata.file_type().is_block_device();
    Ok((is_device, if is_device { metadata.rdev() } else { metadata.dev() }))
}

fn nearest_existing(path: &Path) -> Result<PathBuf, ProbeError> {
    let absolute = std::path::absolute(path)
        .map_err(|error| ProbeError::Examine { path: path.to_owned(), errno: errno_of(&error) })?;
    let mut candidate = absolute.as_path();
    loop {
        match candidate.symlink_metadata() {
            Ok(_) => return Ok(candidate.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match candidate.parent() {
                Some(parent) => candidate = parent,
                None => return Err(ProbeError::Examine { path: absolute.clone(), errno: errno_of(&error) }),
            },
            Err(error) => {
                return Err(ProbeError::Examine { path: candidate.to_owned(), errno: errno_of(&error) });
            }
        }
    }
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::INVAL)
}

#[cfg(test)]
mod tests;
