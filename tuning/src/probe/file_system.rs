//! Which kind of file system a path is on.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::{fmt, path::Path};

/// A kind of file system, by the magic number of `statfs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileSystem {
    /// ext2, ext3 or ext4: one magic number for the three.
    Ext,
    /// XFS.
    Xfs,
    /// F2FS.
    F2fs,
    /// btrfs.
    Btrfs,
    /// bcachefs.
    Bcachefs,
    /// ZFS.
    Zfs,
    /// tmpfs.
    Tmpfs,
    /// ramfs, the initial root of some systems.
    Ramfs,
    /// overlayfs, as containers use it; the files are on another file system below.
    Overlay,
    /// NFS.
    Nfs,
    /// SMB or CIFS.
    Smb,
    /// 9p, as virtual machines use it to reach the host's files.
    Plan9,
    /// Any FUSE file system, virtiofs included.
    Fuse,
    /// Another one, with its magic number.
    Other(u32),
}

/// Magic numbers of `statfs(2)`, which are 32 bits wide whatever the field that carries them.
const BY_MAGIC: [(u32, FileSystem); 14] = [
    (0x0000_ef53, FileSystem::Ext),
    (0x5846_5342, FileSystem::Xfs),
    (0xf2f5_2010, FileSystem::F2fs),
    (0x9123_683e, FileSystem::Btrfs),
    (0xca45_1a4e, FileSystem::Bcachefs),
    (0x2fc1_2fc1, FileSystem::Zfs),
    (0x0102_1994, FileSystem::Tmpfs),
    (0x8584_58f6, FileSystem::Ramfs),
    (0x794c_7630, FileSystem::Overlay),
    (0x0000_6969, FileSystem::Nfs),
    (0xff53_4d42, FileSystem::Smb),
    (0xfe53_4d42, FileSystem::Smb),
    (0x0102_1997, FileSystem::Plan9),
    (0x6573_5546, FileSystem::Fuse),
];

impl FileSystem {
    /// The file system that holds `path`.
    pub fn of_path(path: &Path) -> Result<Self, Errno> {
        let magic = rustix::fs::statfs(path)?.f_type;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the magic is the low 32 bits"
        )]
        Ok(Self::of_magic(magic as u32))
    }

    /// The file system with this magic number.
    #[must_use]
    pub fn of_magic(magic: u32) -> Self {
        BY_MAGIC.iter().find(|(known, _)| *known == magic).map_or(Self::Other(magic), |(_, kind)| *kind)
    }

    /// True if its files are memory and gone after a reboot.
    #[must_use]
    pub const fn is_memory(self) -> bool {
        matches!(self, Self::Tmpfs | Self::Ramfs)
    }

    /// True if it takes `O_DIRECT` and may still write through the page cache.
    #[must_use]
    pub const fn buffers_direct_io(self) -> bool {
        matches!(self, Self::Btrfs | Self::Bcachefs | Self::Zfs)
    }

    /// True if another machine or program keeps the bytes, and what a sync means is up to it.
    #[must_use]
    pub const fn is_remote(self) -> bool {
        matches!(self, Self::Nfs | Self::Smb | Self::Plan9 | Self::Fuse)
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ext => "ext2/3/4",
            Self::Xfs => "xfs",
            Self::F2fs => "f2fs",
            Self::Btrfs => "btrfs",
            Self::Bcachefs => "bcachefs",
            Self::Zfs => "zfs",
            Self::Tmpfs => "tmpfs",
            Self::Ramfs => "ramfs",
            Self::Overlay => "overlayfs",
            Self::Nfs => "nfs",
            Self::Smb => "smb",
            Self::Plan9 => "9p",
            Self::Fuse => "fuse",
            Self::Other(magic) => return write!(f, "file system {magic:#x}"),
        })
    }
}
