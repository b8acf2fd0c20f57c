//! One io_uring, one file and a few buffers, all registered: the only unsafe code of this crate.
//!
//! Why the pointers that the kernel gets stay valid: [`Ring`] owns the buffers (their memory does not move when the
//! struct does) and the file. A buffer is lent out only while it is idle, and from the push of an operation until
//! its completion is reaped it is not idle. Dropping the ring waits for everything in flight; should that fail,
//! the buffers are leaked rather than freed under the device.

use corelog_shards::{
    limits::{BUFFER_BYTES_MAX, IO_DEPTH_MAX},
    memory::{BufferPool, MemoryError, PooledBuffer},
};
use io_uring::{IoUring, opcode, squeue, types};
use rustix::io::Errno;
use std::{fs::File, io, os::fd::AsRawFd};

/// What went wrong in the ring.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The kernel gives no such ring; these yardsticks need Linux 6.1 and a sandbox that permits io_uring.
    #[error("io_uring (single issuer, deferred task work) is not available: {errno}")]
    Unavailable {
        /// Why.
        errno: Errno,
    },
    /// The buffers or the file could not be registered; raise the memlock limit or use fewer, smaller buffers.
    #[error("registering {bytes} bytes of buffers failed: {errno}; raise the memlock limit")]
    Register {
        /// Bytes of all buffers.
        bytes: usize,
        /// Why.
        errno: Errno,
    },
    /// No memory for the buffers.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Entering the kernel failed.
    #[error("io_uring_enter failed: {errno}")]
    Enter {
        /// Why.
        errno: Errno,
    },
    /// An operation failed.
    #[error("an operation at byte {offset} failed: {errno}")]
    Failed {
        /// Where in the file.
        offset: u64,
        /// Why.
        errno: Errno,
    },
    /// An operation moved fewer bytes than asked.
    #[error("an operation at byte {offset} moved {moved} of {asked} bytes")]
    Short {
        /// Where in the file.
        offset: u64,
        /// Bytes asked for.
        asked: u32,
        /// Bytes moved.
        moved: u32,
    },
    /// More operations than the ring has room for, or an operation on a buffer that is under I/O or too small.
    #[error("the ring has no room or no such idle buffer")]
    Misuse,
}

/// What a write promises, and what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    /// Nothing about power loss.
    Plain,
    /// On stable media when it completes.
    Durable,
    /// The next operation begins when it has succeeded.
    Linked,
}

/// Names one of a ring's buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BufferIndex(pub(crate) u16);

/// What was completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// A read or write; the buffer is idle again.
    Transfer(BufferIndex),
    /// A flush of the device cache.
    Sync,
}

#[derive(Debug, Clone, Copy)]
enum Use {
    Idle,
    UnderIo { offset: u64, bytes: u32 },
}

struct Slot {
    memory: PooledBuffer,
    in_use: Use,
}

/// See the file's head.
pub(crate) struct Ring {
    ring: IoUring,
    slots: Vec<Slot>,
    in_flight: usize,
    /// Keeps the descriptor that is registered open for error messages and calls outside the ring.
    _file: File,
}

/// The completion of a sync; no buffer has this index, since there are fewer.
const SYNC: u64 = u64::MAX;
const FILE: types::Fixed = types::Fixed(0);

impl Ring {
    /// A ring with `count` buffers of `buffer_bytes`, issued from the calling thread only.
    pub(crate) fn new(file: &File, count: u16, buffer_bytes: usize) -> Result<Self, RingError> {
        if count == 0 || u32::from(count) > IO_DEPTH_MAX || buffer_bytes as u64 > BUFFER_BYTES_MAX {
            return Err(RingError::Misuse);
        }
        let file = file.try_clone().map_err(|error| RingError::Unavailable { errno: errno_of(&error) })?;
        // Two entries for each buffer: a write and the sync linked to it.
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(2 * u32::from(count))
            .map_err(|error| RingError::Unavailable { errno: errno_of(&error) })?;
        let pool = BufferPool::new(buffer_bytes, usize::from(count))?;
        let slots: Vec<Slot> = std::iter::from_fn(|| pool.take(buffer_bytes))
            .map(|memory| Slot { memory, in_use: Use::Idle })
            .collect();
        let ring = Self { ring, slots, in_flight: 0, _file: file };
        ring.register(buffer_bytes * usize::from(count))?;
        Ok(ring)
    }

    fn register(&self, bytes: usize) -> Result<(), RingError> {
        let failed = |error: io::Error| RingError::Register { bytes, errno: errno_of(&error) };
        let iovecs: Vec<libc::iovec> = self
            .slots
            .iter()
            .map(|slot| libc::iovec {
                iov_base: slot.memory.region().as_ptr().wrapping_add(slot.memory.offset()).cast(),
                iov_len: slot.memory.len(),
            })
            .collect();
        // SAFETY: the buffers are mapped, and stay so until the ring is closed, see the file's head.
        unsafe { self.ring.submitter().register_buffers(&iovecs) }.map_err(failed)?;
        self.ring.submitter().register_files(&[self._file.as_raw_fd()]).map_err(failed)
    }

    /// A buffer that is not under I/O, if there is one.
    #[inline]
    pub(crate) fn idle(&self) -> Option<BufferIndex> {
        let place = self.slots.iter().position(|slot| matches!(slot.in_use, Use::Idle))?;
        Some(BufferIndex(place as u16))
    }

    /// The bytes of an idle buffer.
    #[inline]
    pub(crate) fn bytes_mut(&mut self, index: BufferIndex) -> Result<&mut [u8], RingError> {
        match self.slots.get_mut(usize::from(index.0)) {
            Some(slot) if matches!(slot.in_use, Use::Idle) => Ok(slot.memory.as_mut_slice()),
            _ => Err(RingError::Misuse),
        }
    }

    /// Operations whose completion was not reaped yet.
    pub(crate) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Queues a write of the first `bytes` of an idle buffer.
    pub(crate) fn write(
        &mut self,
        index: BufferIndex,
        bytes: usize,
        offset: u64,
        kind: Write,
    ) -> Result<(), RingError> {
        let (address, length) = self.claim(index, bytes, offset)?;
        let flags = if kind == Write::Durable { libc::RWF_DSYNC } else { 0 };
        let entry =
            opcode::WriteFixed::new(FILE, address, length, index.0).offset(offset).rw_flags(flags).build();
        let links = if kind == Write::Linked { squeue::Flags::IO_LINK } else { squeue::Flags::empty() };
        self.push(entry.flags(links).user_data(u64::from(index.0)))
    }

    /// Queues a read into the first `bytes` of an idle buffer.
    pub(crate) fn read(&mut self, index: BufferIndex, bytes: usize, offset: u64) -> Result<(), RingError> {
        let (address, length) = self.claim(index, bytes, offset)?;
        let entry = opcode::ReadFixed::new(FILE, address, length, index.0).offset(offset).build();
        self.push(entry.user_data(u64::from(index.0)))
    }

    /// Queues a flush of the device cache (fdatasync).
    pub(crate) fn sync(&mut self) -> Result<(), RingError> {
        self.push(opcode::Fsync::new(FILE).flags(types::FsyncFlags::DATASYNC).build().user_data(SYNC))
    }

    fn claim(&mut self, index: BufferIndex, bytes: usize, offset: u64) -> Result<(*mut u8, u32), RingError> {
        let slot = self.slots.get_mut(usize::from(index.0)).ok_or(RingError::Misuse)?;
        let length = u32::try_from(bytes).map_err(|_| RingError::Misuse)?;
        if !matches!(slot.in_use, Use::Idle) || bytes > slot.memory.len() {
            return Err(RingError::Misuse);
        }
        slot.in_use = Use::UnderIo { offset, bytes: length };
        Ok((slot.memory.as_mut_slice().as_mut_ptr(), length))
    }

    fn push(&mut self, entry: squeue::Entry) -> Result<(), RingError> {
        // SAFETY: the memory of a transfer is a buffer of ours that `claim` took out of use until its completion; a
        // sync has none.
        unsafe { self.ring.submission().push(&entry) }.map_err(|_| RingError::Misuse)?;
        self.in_flight += 1;
        Ok(())
    }

    /// Hands what is queued to the kernel and waits until `completions` are there to be reaped.
    pub(crate) fn submit_and_wait(&mut self, completions: usize) -> Result<(), RingError> {
        let wanted = completions.min(self.in_flight);
        loop {
            match self.ring.submit_and_wait(wanted) {
                Ok(_) if self.ring.submission().is_empty() => return Ok(()),
                // The kernel took a part and will take more: it answers with an error when it can take nothing.
                Ok(_) => {}
                Err(error) if errno_of(&error) == Errno::INTR => {}
                Err(error) => return Err(RingError::Enter { errno: errno_of(&error) }),
            }
        }
    }

    /// The next completion that the last wait brought, if one is left.
    pub(crate) fn reap(&mut self) -> Option<Result<Done, RingError>> {
        let completion = self.ring.completion().next()?;
        self.in_flight -= 1;
        let (result, data) = (completion.result(), completion.user_data());
        if data == SYNC {
            let failed = |errno| RingError::Failed { offset: 0, errno };
            return Some(moved(result).map(|_| Done::Sync).map_err(failed));
        }
        let index = BufferIndex(data as u16);
        let slot = self.slots.get_mut(usize::from(index.0))?;
        let Use::UnderIo { offset, bytes } = std::mem::replace(&mut slot.in_use, Use::Idle) else {
            return Some(Err(RingError::Misuse));
        };
        Some(match moved(result) {
            Ok(moved) if moved == bytes => Ok(Done::Transfer(index)),
            Ok(moved) => Err(RingError::Short { offset, asked: bytes, moved }),
            Err(errno) => Err(RingError::Failed { offset, errno }),
        })
    }

    /// Waits for everything in flight; gives how many writes or reads that were.
    pub(crate) fn drain(&mut self) -> Result<u64, RingError> {
        let mut transfers = 0;
        while self.in_flight > 0 {
            self.submit_and_wait(self.in_flight)?;
            while let Some(done) = self.reap() {
                transfers += u64::from(matches!(done?, Done::Transfer(_)));
            }
        }
        Ok(transfers)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        while self.in_flight > 0 {
            if self.submit_and_wait(self.in_flight).is_err() {
                std::mem::forget(std::mem::take(&mut self.slots));
                return;
            }
            while self.reap().is_some() {}
        }
    }
}

/// Bytes moved, or the error that the kernel encodes as a negative result.
fn moved(result: i32) -> Result<u32, Errno> {
    u32::try_from(result).map_err(|_| Errno::from_raw_os_error(result.wrapping_neg()))
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn ring() -> Option<(tempfile::NamedTempFile, Ring)> {
        let file = tempfile::NamedTempFile::new_in(".").unwrap();
        match Ring::new(file.as_file(), 2, 4096) {
            Ok(ring) => Some((file, ring)),
            Err(error) => {
                eprintln!("skipped: {error}");
                None
            }
        }
    }

    #[test]
    fn a_buffer_under_io_is_lent_to_nobody() {
        let Some((_file, mut ring)) = ring() else { return };
        let index = ring.idle().unwrap();
        ring.bytes_mut(index).unwrap().fill(7);
        ring.write(index, 4096, 0, Write::Plain).unwrap();
        assert!(matches!(ring.bytes_mut(index), Err(RingError::Misuse)));
        assert!(matches!(ring.write(index, 4096, 0, Write::Plain), Err(RingError::Misuse)));
        assert_ne!(ring.idle(), Some(index));
        assert_eq!(ring.drain().unwrap(), 1);
        assert!(ring.bytes_mut(index).is_ok());
    }

    #[test]
    fn a_short_read_is_an_error_with_its_place() {
        let Some((_file, mut ring)) = ring() else { return };
        ring.read(BufferIndex(0), 4096, 8192).unwrap();
        assert!(matches!(ring.drain(), Err(RingError::Short { offset: 8192, asked: 4096, moved: 0 })));
    }

    #[test]
    fn a_sync_linked_to_a_write_comes_after_it() {
        let Some((file, mut ring)) = ring() else { return };
        ring.bytes_mut(BufferIndex(1)).unwrap().fill(9);
        ring.write(BufferIndex(1), 4096, 0, Write::Linked).unwrap();
        ring.sync().unwrap();
        ring.submit_and_wait(2).unwrap();
        assert_eq!(ring.reap().unwrap().unwrap(), Done::Transfer(BufferIndex(1)));
        assert_eq!(ring.reap().unwrap().unwrap(), Done::Sync);
        assert_eq!(std::fs::read(file.path()).unwrap(), [9; 4096]);
    }

    #[test]
    fn dropping_waits_for_what_is_in_flight() {
        let Some((file, mut ring)) = ring() else { return };
        ring.bytes_mut(BufferIndex(0)).unwrap().fill(3);
        ring.write(BufferIndex(0), 4096, 0, Write::Plain).unwrap();
        drop(ring);
        assert_eq!(std::fs::read(file.path()).unwrap(), [3; 4096]);
    }
}
