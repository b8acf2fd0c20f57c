//! The store that the bench makes: where, how large, and that nothing else is ever overwritten.
//!
//! Beside the store lies a note with its id. Only a file whose superblock has that id is taken for a bench store. The
//! store is made under a name of its own and renamed when it is whole.

use super::error::BenchError;
use crate::cli::{args::Bench, progress::Progress};
use corelog::{FormatOptions, Formatted, StoreId, limits::EXTENT_BYTES_DEFAULT};
use corelog_shards::{
    device::file::{Access, DeviceFile, OpenError, OpenOptions},
    format::superblock::{COPY_OFFSETS, Superblock},
    limits::{EXTENT_BYTES_MIN, SUPERBLOCK_AREA_BYTES, SUPERBLOCK_COPY_BYTES_MAX},
    memory::PooledBuffer,
};
use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Size of the store when nothing is said.
const STORE_BYTES_DEFAULT: u64 = 4 << 30;
/// The smallest store that the bench makes for itself, for each shard.
const SHARE_BYTES_MIN: u64 = 16 << 20;
/// Extents of a shard; fewer would make one shard's luck decide when the store is full.
pub const EXTENTS_PER_SHARD: u64 = 16;

/// A bench store on the disk.
#[derive(Debug)]
pub struct Ground {
    pub path: PathBuf,
    pub id: StoreId,
    pub shards: u32,
    pub extent_bytes: u64,
    /// Bytes that its extents hold.
    pub room: u64,
    pub making: Duration,
    keep: bool,
}

impl Ground {
    /// Makes the store, with so many extents for each shard; an older one of the bench at the same path goes.
    pub fn make(args: &Bench, shards: u32, extents: u64) -> Result<Self, BenchError> {
        let path = args.store.clone();
        let host = |error| BenchError::Host { path: path.clone(), error };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(host)?;
        }
        remove_own(&path)?;
        let size = size(args, shards)?;
        let fresh = beside(&path, ".bench-making");
        let options = FormatOptions {
            size_bytes: Some(size),
            shards: Some(shards),
            extent_bytes: extent_bytes(size, u64::from(shards) * extents),
            replace: true,
            allow_buffered: args.run.device.allow_buffered,
            ..FormatOptions::default()
        };
        let started = Instant::now();
        let bar = Progress::over_bytes("making the store", Some(size));
        let mut shown = 0;
        let made = corelog::format(&[&fresh], &options, &mut |done, _| {
            bar.advance(done - shown);
            shown = done;
        })?;
        drop(bar);
        fs::write(note(&path), made.store.to_string()).map_err(host)?;
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        rustix::fs::renameat_with(rustix::fs::CWD, &fresh, rustix::fs::CWD, &path, flags)
            .map_err(|errno| host(errno.into()))?;
        let making = started.elapsed();
        let Formatted { store: id, shards, extents, bytes: room, .. } = made;
        let extent_bytes = room / u64::from(extents);
        Ok(Self { id, shards, extent_bytes, room, making, keep: args.keep, path })
    }

    /// The bytes of the superblock copies, as they are now.
    pub fn superblocks(&self) -> Result<Vec<u8>, BenchError> {
        let mut bytes = vec![0; SUPERBLOCK_AREA_BYTES as usize];
        File::open(&self.path)
            .and_then(|file| file.read_exact_at(&mut bytes, 0))
            .map_err(|e| self.host(e))?;
        Ok(bytes)
    }

    /// Puts superblock copies of before back. With those of a store that was open, it looks as a killed process
    /// leaves it. Nobody may have it open.
    pub fn put_back(&self, superblocks: &[u8]) -> Result<(), BenchError> {
        let file = File::options().write(true).open(&self.path).map_err(|error| self.host(error))?;
        file.write_all_at(superblocks, 0).and_then(|()| file.sync_all()).map_err(|error| self.host(error))
    }

    fn host(&self, error: io::Error) -> BenchError {
        BenchError::Host { path: self.path.clone(), error }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if !self.keep {
            // What cannot be removed now is recognised and replaced by the next run.
            let _left_over = fs::remove_file(&self.path);
            let _left_over = fs::remove_file(note(&self.path));
        }
    }
}

/// A file that the bench writes beside its store and that is removed at the end. As for the store, a note beside it
/// says that it is the bench's; what a killed bench left is taken, anything else at the path is an error.
#[cfg(feature = "yardsticks")]
#[derive(Debug)]
pub struct OwnFile(pub PathBuf);

#[cfg(feature = "yardsticks")]
impl OwnFile {
    pub fn claim(path: PathBuf) -> Result<Self, BenchError> {
        let is_there = fs::symlink_metadata(&path).is_ok();
        if is_there && !fs::symlink_metadata(note(&path)).is_ok_and(|found| found.is_file()) {
            return Err(BenchError::NotOurs { path });
        }
        let made = fs::write(note(&path), "a bare loop's file");
        made.map_err(|error| BenchError::Host { path: path.clone(), error })?;
        Ok(Self(path))
    }
}

#[cfg(feature = "yardsticks")]
impl Drop for OwnFile {
    fn drop(&mut self) {
        let _never_made = fs::remove_file(&self.0);
        let _left_over = fs::remove_file(note(&self.0));
    }
}

/// The path with something behind its name.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn note(path: &Path) -> PathBuf {
    beside(path, ".made-by-bench")
}

/// Removes an older store of the bench. Anything else at the path is an error.
fn remove_own(path: &Path) -> Result<(), BenchError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(BenchError::Host { path: path.to_owned(), error }),
        Ok(found) if !found.is_file() => return Err(BenchError::NotOurs { path: path.to_owned() }),
        Ok(_) => {}
    }
    let not_ours = || BenchError::NotOurs { path: path.to_owned() };
    let noted = fs::read_to_string(note(path)).map_err(|_| not_ours())?;
    // With the lock held, so that no store in use is taken away from its process.
    let how = OpenOptions { access: Access::ReadWrite, allow_buffered: true, ..OpenOptions::default() };
    let device = DeviceFile::open(path, &how).map_err(|error| match error {
        OpenError::Locked { .. } => BenchError::InUse { path: path.to_owned() },
        _ => not_ours(),
    })?;
    let mut copy = PooledBuffer::alone(SUPERBLOCK_COPY_BYTES_MAX as usize).map_err(|_| not_ours())?;
    let is_ours = COPY_OFFSETS.iter().any(|&offset| {
        let read = device.read_exact_at(offset, &mut copy);
        let found = Superblock::decode_copy(copy.as_slice());
        read.is_ok() && found.is_ok_and(|found| found.store.to_string() == noted)
    });
    if !is_ours {
        return Err(not_ours());
    }
    fs::remove_file(path).map_err(|error| BenchError::Host { path: path.to_owned(), error })
}

/// As asked, or the default, or half of what the disk has left.
fn size(args: &Bench, shards: u32) -> Result<u64, BenchError> {
    if let Some(size) = args.size {
        return Ok(size.0);
    }
    let folder =
        args.store.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let host = |errno: rustix::io::Errno| BenchError::Host { path: folder.to_owned(), error: errno.into() };
    let disk = rustix::fs::statvfs(folder).map_err(host)?;
    let free = disk.f_bavail * disk.f_frsize;
    let needed = SUPERBLOCK_AREA_BYTES + SHARE_BYTES_MIN * u64::from(shards);
    let size = STORE_BYTES_DEFAULT.max(needed).min(free / 2);
    if size < needed {
        return Err(BenchError::NoSpace { path: folder.to_owned(), free, needed });
    }
    Ok(size / SUPERBLOCK_AREA_BYTES * SUPERBLOCK_AREA_BYTES)
}

fn extent_bytes(size: u64, extents: u64) -> u64 {
    let share = size.saturating_sub(SUPERBLOCK_AREA_BYTES) / extents.max(1);
    let largest_power = share.checked_ilog2().map_or(0, |bits| 1 << bits);
    largest_power.clamp(EXTENT_BYTES_MIN.max(1 << 20), EXTENT_BYTES_DEFAULT)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::{extent_bytes, note, remove_own};
    use crate::cli::bench::error::BenchError;
    use corelog::FormatOptions;
    use std::fs;

    #[test]
    fn only_a_store_that_the_note_names_is_removed() {
        let folder = tempfile::tempdir_in(".").unwrap();
        let path = folder.path().join("store");
        remove_own(&path).unwrap();
        let is_refused = || matches!(remove_own(&path), Err(BenchError::NotOurs { .. }));
        fs::write(&path, "letters").unwrap();
        assert!(is_refused());
        fs::write(note(&path), "0123").unwrap();
        assert!(is_refused(), "a note alone does not make it a bench store");
        let options = FormatOptions::sized(64 << 20).shards(1).extent_bytes(4 << 20).sparse().replace();
        let made = corelog::format(&[&path], &options, &mut |_, _| {}).unwrap();
        assert!(is_refused(), "another store");
        fs::write(note(&path), made.store.to_string()).unwrap();
        remove_own(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn extents_are_small_enough_for_all_shards() {
        assert_eq!(extent_bytes(4 << 30, 2 * 16), 64 << 20);
        assert_eq!(extent_bytes(4 << 30, 64 * 16), 2 << 20);
        assert_eq!(extent_bytes(0, 1), 1 << 20);
    }
}
