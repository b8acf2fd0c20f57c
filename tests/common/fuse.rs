//! A [`Disk`] as a file: a FUSE file system with one file in it, which bypasses the page cache.
//!
//! FUSE does not promise direct I/O by `statx`, so stores on it are opened with `allow_buffered`; the file is opened
//! in FUSE's own direct mode, so that every read, write and sync of the store arrives here as it was made.
#![allow(dead_code, reason = "each test file uses a part of it")]

use crate::disk::Disk;
use corelog::{FormatOptions, Options, Store};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use std::{
    ffi::OsStr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const NAME: &str = "device";
const FILE: INodeNo = INodeNo(2);
/// Calls that the disk works on at the same time.
const THREADS: usize = 8;

/// A mounted disk. It is unmounted when it is dropped; close the store before.
pub struct Mounted {
    pub disk: Arc<Disk>,
    path: PathBuf,
    session: Option<BackgroundSession>,
    /// Ends the connection when something is written to it.
    abort: PathBuf,
}

impl Mounted {
    pub fn new(folder: &Path, bytes: u64) -> Self {
        let disk = Arc::new(Disk::new(bytes));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("corelog-test".to_owned())];
        config.n_threads = Some(THREADS);
        // A test may mount several, one after the other.
        let folder = tempfile::tempdir_in(folder).unwrap().keep();
        let point = folder.join("mount");
        std::fs::create_dir(&point).unwrap();
        let session = fuser::spawn_mount(OneFile { disk: Arc::clone(&disk) }, &point, &config).unwrap();
        let control = folder.join("control");
        std::fs::create_dir(&control).unwrap();
        crate::host::run("mount", &["-t", "fusectl", "none", control.to_str().unwrap()]);
        // The kernel names a connection by the minor number of its file system.
        let minor = rustix::fs::minor(std::fs::metadata(&point).unwrap().dev());
        let abort = control.join(minor.to_string()).join("abort");
        Self { disk, path: point.join(NAME), session: Some(session), abort }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a store on it.
    pub fn format(&self, shards: u32, extent_bytes: u64) {
        let options = FormatOptions {
            allow_buffered: true,
            ..FormatOptions::sized(self.disk.bytes()).shards(shards).extent_bytes(extent_bytes)
        };
        Store::format(&[self.path()], &options.replace().sparse()).unwrap();
    }

    pub fn open(&self, options: &Options) -> Result<Store, corelog::OpenError> {
        Store::open(self.path(), &options.clone().allow_buffered(true))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.disk.mend();
        let Some(session) = self.session.take() else { return };
        if session.umount_and_join().is_err() {
            // A store that is still open keeps it mounted, and a process whose own threads wait for an answer from
            // itself cannot end. The mount namespace of the test takes the mount away.
            std::fs::write(&self.abort, "1").unwrap();
        }
    }
}

struct OneFile {
    disk: Arc<Disk>,
}

impl OneFile {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let is_root = inode == INodeNo::ROOT;
        let size = if is_root { 0 } else { self.disk.bytes() };
        FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_root { FileType::Directory } else { FileType::RegularFile },
            perm: if is_root { 0o700 } else { 0o600 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

/// Nothing may be remembered by the kernel: the size changes under it.
const NOT_KEPT: Duration = Duration::ZERO;

impl Filesystem for OneFile {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == INodeNo::ROOT && name == NAME {
            reply.entry(&NOT_KEPT, &self.attributes(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&NOT_KEPT, &self.attributes(inode));
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if let Some(size) = size {
            self.disk.resize(size);
        }
        reply.attr(&NOT_KEPT, &self.attributes(inode));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.disk.read(offset, size as usize) {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // The kernel leaves it to us to honour a write with `RWF_DSYNC`.
        let through = flags.0 & libc::O_DSYNC != 0;
        match self.disk.write(offset, data, through) {
            Ok(written) => reply.written(written as u32),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.disk.sync() {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }
}
