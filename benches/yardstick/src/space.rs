//! The files under a yardstick: opened for direct I/O, their space prepared, and read back afterwards.

use crate::{
    error::{RunError, Step, bounded},
    frame::{Shape, check_frame},
    limits::{FILE_BYTES_MAX, FILL_BYTES, FRAMES_READ_BACK_MAX},
    payload::Payload,
};
use corelog_shards::{
    limits::SLOT_BYTES_MIN,
    memory::{MemoryError, PooledBuffer},
};
use rustix::{
    fs::{FallocateFlags, Mode, OFlags, fallocate, ftruncate, open},
    io::Errno,
};
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// In which state the file's space is when the run begins. It decides much: a write into space that was never
/// written also changes the file system's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Space {
    /// Every byte was written before.
    PreWritten,
    /// Allocated, never written.
    Fallocated,
}

/// Why there is no file to run on.
#[derive(Debug, thiserror::Error)]
pub enum SpaceError {
    /// The file system has no direct I/O; choose a path on another one.
    #[error("{path} is on a file system without direct I/O; choose another folder")]
    NotDirect {
        /// The file.
        path: PathBuf,
    },
    /// The device is full; free some space or ask for less.
    #[error("no space for {bytes} bytes at {path}")]
    Full {
        /// The file.
        path: PathBuf,
        /// What it needed.
        bytes: u64,
    },
    /// The file could not be opened or prepared.
    #[error("{path} could not be prepared: {errno}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// No memory to fill it from.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// A file that is ready to be measured on.
pub(crate) struct Ground {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

impl Ground {
    /// Makes `path` a file of `bytes` in the state `space`; what was in it is lost.
    pub(crate) fn prepare(path: &Path, bytes: u64, space: Space) -> Result<Self, RunError> {
        let mut ground = Self::empty(path, bytes)?;
        match space {
            Space::PreWritten => ground.fill(FILL_BYTES, |_, _| ())?,
            Space::Fallocated => ground.allocate()?,
        }
        Ok(ground)
    }

    /// Makes `path` an empty file that is going to have `bytes`.
    pub(crate) fn empty(path: &Path, bytes: u64) -> Result<Self, RunError> {
        bounded("file_bytes", bytes, SLOT_BYTES_MIN..=FILE_BYTES_MAX)?;
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
        let file = open(path, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| match errno {
            Errno::INVAL => SpaceError::NotDirect { path: path.into() },
            errno => SpaceError::Io { path: path.into(), errno },
        })?;
        Ok(Self { file: File::from(file), path: path.into(), bytes })
    }

    /// Gives the space back and allocates it again, so that it counts as never written.
    pub(crate) fn allocate(&mut self) -> Result<(), RunError> {
        let failed = |errno| self.failed(errno);
        ftruncate(&self.file, 0).map_err(failed)?;
        fallocate(&self.file, FallocateFlags::empty(), 0, self.bytes).map_err(failed)?;
        self.file.sync_all().map_err(|error| self.failed(errno_of(&error)))?;
        Ok(())
    }

    /// Writes the file from end to end in pieces of `piece_bytes`, each made by `make(piece, offset)`.
    pub(crate) fn fill(
        &mut self,
        piece_bytes: usize,
        mut make: impl FnMut(&mut [u8], u64),
    ) -> Result<(), RunError> {
        let mut piece = PooledBuffer::alone(piece_bytes).map_err(SpaceError::from)?;
        let mut offset = 0;
        while offset < self.bytes {
            let length = piece_bytes.min((self.bytes - offset) as usize);
            make(&mut piece.as_mut_slice()[..length], offset);
            let written = self.file.write_all_at(&piece.as_slice()[..length], offset);
            written.map_err(|error| self.failed(errno_of(&error)))?;
            offset += length as u64;
        }
        self.file.sync_all().map_err(|error| self.failed(errno_of(&error)))?;
        Ok(())
    }

    /// Flushes the device cache.
    pub(crate) fn sync(&self) -> Result<(), RunError> {
        self.file.sync_data().map_err(|error| RunError::Device { step: Step::Sync, errno: errno_of(&error) })
    }

    /// Reads frames of a log of `records` records back, spread over the whole of it, and checks every byte of them.
    pub(crate) fn check_sample(
        &self,
        shape: &Shape,
        records: u64,
        payload: &mut Payload,
    ) -> Result<(), RunError> {
        let frames = shape.frames(records);
        let samples = frames.min(FRAMES_READ_BACK_MAX);
        for sample in 0..samples {
            // The first, the last, and evenly between them.
            let frame = if samples == 1 { 0 } else { sample * (frames - 1) / (samples - 1) };
            let in_frame = shape.records_per_frame.min(records - frame * shape.records_per_frame);
            self.check_frame(shape, frame, frame * shape.full_frame_bytes(), in_frame, payload)?;
        }
        Ok(())
    }

    /// Reads the frame at `base` back and checks every byte of it.
    pub(crate) fn check_frame(
        &self,
        shape: &Shape,
        frame: u64,
        base: u64,
        records: u64,
        payload: &mut Payload,
    ) -> Result<(), RunError> {
        let mut buffer = PooledBuffer::alone(shape.frame_bytes(records) as usize)?;
        self.file
            .read_exact_at(buffer.as_mut_slice(), base)
            .map_err(|error| RunError::Device { step: Step::ReadBack, errno: errno_of(&error) })?;
        check_frame(buffer.as_slice(), shape, frame, base, records, payload)
    }

    fn failed(&self, errno: Errno) -> SpaceError {
        match errno {
            Errno::NOSPC | Errno::DQUOT => SpaceError::Full { path: self.path.clone(), bytes: self.bytes },
            Errno::INVAL => SpaceError::NotDirect { path: self.path.clone() },
            errno => SpaceError::Io { path: self.path.clone(), errno },
        }
    }
}

/// The errno inside a standard error. An end of file or a zero-length write has none and counts as an I/O error.
fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
