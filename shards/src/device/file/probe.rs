//! What a file is, as the host tells: kind, size, alignment, whether I/O passes by the page cache.

use crate::limits::SLOT_BYTES_MIN;
use rustix::{
    fs::{
        AtFlags, FileType, OFlags, SeekFrom, StatxFlags, fcntl_getfl, fcntl_setfl, fstat, fstatfs,
        ioctl_blkpbszget, ioctl_blksszget, major, minor, seek, statx,
    },
    io::Errno,
};
use std::{fs, os::fd::BorrowedFd, path::Path};

/// What a store can live on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum FileKind {
    /// A file of a file system.
    Regular,
    /// A block device.
    Block,
}

/// The file is neither of the two kinds.
pub(super) struct NeitherKind {
    pub(super) folder: bool,
}

pub(super) fn kind_of(mode: u32) -> Result<FileKind, NeitherKind> {
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile => Ok(FileKind::Regular),
        FileType::BlockDevice => Ok(FileKind::Block),
        other => Err(NeitherKind { folder: other == FileType::Directory }),
    }
}

/// Size of a file or block device, in bytes.
pub(super) fn bytes_of(file: BorrowedFd<'_>, kind: FileKind) -> Result<u64, Errno> {
    match kind {
        FileKind::Regular => Ok(u64::try_from(fstat(file)?.st_size).unwrap_or(0)),
        // `fstat` says 0 for these. All other I/O here names its offset, so the position is nobody's.
        FileKind::Block => seek(file, SeekFrom::End(0)),
    }
}

/// Whether I/O on a file passes by the page cache, and what it must be aligned to.
pub(super) struct Directness {
    pub(super) direct: bool,
    pub(super) alignment: u64,
    pub(super) read_alignment: u64,
    /// Set if the host does not say and the file system's name had to do.
    pub(super) unconfirmed: bool,
}

/// Switches the file to direct I/O where that is what the host will really do, and else to plain buffered I/O.
///
/// A file system may accept `O_DIRECT` and write through the page cache all the same, so that its word for it
/// (`STATX_DIOALIGN`) decides.
pub(super) fn make_direct(file: BorrowedFd<'_>, kind: FileKind) -> Result<Directness, Errno> {
    let flags = fcntl_getfl(file)?;
    let accepted = match fcntl_setfl(file, flags | OFlags::DIRECT) {
        Ok(()) => true,
        Err(Errno::INVAL) => false,
        Err(errno) => return Err(errno),
    };
    let told = alignment_told(file)?;
    let unconfirmed = accepted && told.is_none();
    let direct = accepted
        && match told {
            Some(alignment) => alignment > 0,
            // Kernels before 6.1 do not say.
            None => kind == FileKind::Block || matches!(magic_of(file)?, EXT4_MAGIC | XFS_MAGIC),
        };
    if !direct && accepted {
        fcntl_setfl(file, flags - OFlags::DIRECT)?;
    }
    let alignment = SLOT_BYTES_MIN.max(told.unwrap_or(0)).max(block_bytes(file, kind));
    let sectors = told.filter(|told| direct && told.is_power_of_two() && *told < alignment);
    let read_alignment = sectors.unwrap_or(alignment);
    Ok(Directness { direct, alignment, read_alignment, unconfirmed: unconfirmed && direct })
}

/// What direct I/O has to be aligned to; `Some(0)`: there is none for this file; `None`: the host does not say.
fn alignment_told(file: BorrowedFd<'_>) -> Result<Option<u64>, Errno> {
    match statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) {
        Ok(status) if status.stx_mask & StatxFlags::DIOALIGN.bits() != 0 => {
            let (memory, offset) = (status.stx_dio_mem_align, status.stx_dio_offset_align);
            Ok(Some(if memory == 0 || offset == 0 { 0 } else { u64::from(memory.max(offset)) }))
        }
        Ok(_) | Err(Errno::NOSYS) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn block_bytes(file: BorrowedFd<'_>, kind: FileKind) -> u64 {
    match kind {
        FileKind::Regular => 0,
        FileKind::Block => {
            let logical = ioctl_blksszget(file).unwrap_or(0);
            let physical = ioctl_blkpbszget(file).unwrap_or(0);
            u64::from(logical.max(physical))
        }
    }
}

const EXT4_MAGIC: u64 = 0xEF53;
const XFS_MAGIC: u64 = 0x5846_5342;

fn magic_of(file: BorrowedFd<'_>) -> Result<u64, Errno> {
    // The field's type differs by platform; magics are 32 bits.
    Ok(fstatfs(file)?.f_type as u64 & 0xFFFF_FFFF)
}

/// The file system's name, and what can be done about it where it is buffered.
pub(super) fn file_system_of(file: BorrowedFd<'_>) -> (&'static str, &'static str) {
    match magic_of(file).unwrap_or(0) {
        0x0102_1994 => ("tmpfs", "it keeps files in memory only; use a file system on a disk"),
        0x8584_58F6 => ("ramfs", "it keeps files in memory only; use a file system on a disk"),
        0x9123_683E => ("btrfs", "use ext4, XFS or a block device"),
        EXT4_MAGIC => (
            "ext4",
            "it journals data (`data=journal`), encrypts or inlines it: mount it or set the file otherwise",
        ),
        XFS_MAGIC => ("XFS", "use another file or a block device"),
        0x2FC1_2FC1 => ("ZFS", "use ext4, XFS or a block device"),
        0x6573_5546 => ("FUSE", "use a local file system"),
        0x6969 => ("NFS", "use a local file system"),
        0x794C_7630 => ("overlayfs", "use a volume of ext4 or XFS instead of the container's own layer"),
        _ => ("this file system", "use ext4, XFS or a block device"),
    }
}

/// Whether the file lies on a loop device that itself goes through the page cache.
pub(super) fn is_on_buffered_loop(file: BorrowedFd<'_>, kind: FileKind) -> bool {
    attribute_of(file, kind, "loop/dio", Path::new("/sys")).is_some_and(|text| text.trim() == "0")
}

/// Whether the device below says that it has no FUA, so that the host makes writes durable by flushing its cache.
pub(super) fn has_no_fua(file: BorrowedFd<'_>, kind: FileKind) -> bool {
    attribute_of(file, kind, "queue/fua", Path::new("/sys")).is_some_and(|text| text.trim() == "0")
}

/// What sysfs says of the block device below a file; `None`: there is none, or it does not say.
fn attribute_of(file: BorrowedFd<'_>, kind: FileKind, name: &str, sys: &Path) -> Option<String> {
    let status = fstat(file).ok()?;
    let device = match kind {
        FileKind::Regular => status.st_dev,
        FileKind::Block => status.st_rdev,
    };
    let base = sys.join(format!("dev/block/{}:{}", major(device), minor(device)));
    // A partition has no attributes of its own: those of the disk are in the folder above. The host resolves the link
    // before it goes up.
    [base.join(name), base.join("..").join(name)].iter().find_map(|path| fs::read_to_string(path).ok())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::{fs::File, os::fd::AsFd, os::unix::fs::symlink};

    #[test]
    fn a_partition_says_what_its_disk_says() {
        let folder = tempfile::tempdir().unwrap();
        let (sys, disk) = (folder.path(), folder.path().join("devices/disk"));
        let file = File::open(folder.path()).unwrap();
        let number = fstat(&file).unwrap().st_dev;
        let link = sys.join(format!("dev/block/{}:{}", major(number), minor(number)));
        let read = || attribute_of(file.as_fd(), FileKind::Regular, "queue/fua", sys);
        assert_eq!(read(), None);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        fs::create_dir_all(disk.join("queue")).unwrap();
        fs::create_dir_all(disk.join("disk1")).unwrap();
        fs::write(disk.join("queue/fua"), "1\n").unwrap();
        symlink(&disk, &link).unwrap();
        assert_eq!(read().as_deref(), Some("1\n"));
        fs::remove_file(&link).unwrap();
        symlink(disk.join("disk1"), &link).unwrap();
        assert_eq!(read().as_deref(), Some("1\n"));
    }
}
