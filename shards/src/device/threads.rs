//! The thread-pool backend, for hosts that forbid io_uring: the same semantics by `pread`, `pwrite` and `fdatasync`.
//!
//! Each core has its own few threads, so that cores share nothing here either. Operations travel by value to a
//! worker and back, and their memory with them.

use super::{
    Completion, Counters, Device, DeviceBroken, Errno, Grants, Instant, Operation, Rejected, Token,
    WriteSync, clock::monotonic_now, file::DeviceFile, put_file, signal::Signal,
};
use crate::{
    ids::DeviceIndex,
    limits::{IO_DEPTH_DEFAULT, IO_DEPTH_MAX, IO_THREADS_DEFAULT, IO_THREADS_MAX, SLOT_BYTES_MIN},
    memory::Region,
    park::Bell,
};
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use rustix::{
    fs::{FallocateFlags, fallocate, fdatasync},
    io::{Errno as HostErrno, ReadWriteFlags, pread, pwritev2},
};
use std::{
    fmt,
    io::IoSlice,
    os::fd::BorrowedFd,
    sync::{Arc, PoisonError, RwLock},
    thread::{self, JoinHandle},
    time::Duration,
};

/// How a pool is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadsOptions {
    /// Operations in flight at the same time.
    pub depth: u32,
    /// Threads: operations that the host works on at the same time.
    pub threads: u32,
}

impl Default for ThreadsOptions {
    fn default() -> Self {
        Self { depth: IO_DEPTH_DEFAULT, threads: IO_THREADS_DEFAULT }
    }
}

/// The host gave no threads or descriptors for the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "starting the I/O threads failed: {errno}; raise the limits of threads (`ulimit -u`) and open files (`ulimit -n`)"
)]
pub struct PoolUnavailable {
    /// Why.
    pub errno: Errno,
}

/// The store's devices. A worker takes its file out before it works, so that nobody waits for a device.
type Files = RwLock<Vec<Arc<DeviceFile>>>;

struct Job {
    token: Token,
    operation: Operation,
}

/// One core's pool over the devices of the store.
pub struct ThreadsDevice {
    /// `None` only while it is dropped: the workers end when there is no sender.
    jobs: Option<Sender<Job>>,
    files: Arc<Files>,
    /// Has room for everything in flight, so that a worker never waits for the core.
    done: Receiver<Completion>,
    workers: Vec<JoinHandle<()>>,
    signal: Arc<Signal>,
    bell: Arc<Bell>,
    in_flight: usize,
    depth: usize,
    grants: Grants,
    counters: Counters,
}

impl ThreadsDevice {
    /// Starts the threads.
    pub fn new(files: Vec<Arc<DeviceFile>>, options: ThreadsOptions) -> Result<Self, PoolUnavailable> {
        let depth = options.depth.clamp(1, IO_DEPTH_MAX) as usize;
        let count = options.threads.clamp(1, IO_THREADS_MAX);
        let signal = Signal::new().map(Arc::new).map_err(|errno| PoolUnavailable { errno })?;
        let (jobs, todo) = bounded::<Job>(depth);
        let (results, done) = bounded::<Completion>(depth);
        let mut missing = vec![
            "io_uring: the thread-pool backend was chosen; each operation costs two thread switches"
                .to_owned(),
        ];
        for file in &files {
            missing.extend_from_slice(file.warnings());
        }
        let files = Arc::new(RwLock::new(files));
        let mut device = Self {
            jobs: Some(jobs),
            files: Arc::clone(&files),
            done,
            workers: Vec::with_capacity(count as usize),
            bell: Arc::new(Bell::new(signal.clone())),
            signal,
            in_flight: 0,
            depth,
            grants: Grants { backend: "threads", features: Vec::new(), missing },
            counters: Counters::default(),
        };
        for index in 0..count {
            let worker = Worker {
                files: Arc::clone(&files),
                todo: todo.clone(),
                results: results.clone(),
                signal: Arc::clone(&device.signal),
            };
            let thread =
                thread::Builder::new().name(format!("corelog-io-{index}")).spawn(move || worker.run());
            device.workers.push(thread.map_err(|error| PoolUnavailable { errno: error.into() })?);
        }
        Ok(device)
    }
}

impl Device for ThreadsDevice {
    fn submit(&mut self, token: Token, operation: Operation) -> Result<(), Box<Rejected>> {
        let job = Job { token, operation };
        let refused = match &self.jobs {
            Some(jobs) if self.in_flight < self.depth => {
                jobs.try_send(job).err().map(|error| error.into_inner())
            }
            _ => Some(job),
        };
        match refused {
            Some(Job { token, operation }) => Err(Box::new(Rejected { operation, token })),
            None => {
                self.in_flight += 1;
                self.counters.sqes += 1;
                Ok(())
            }
        }
    }

    fn read_alignment(&self, device: DeviceIndex) -> u64 {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        files.get(usize::from(device.0)).map_or(SLOT_BYTES_MIN, |file| file.read_alignment())
    }

    fn flushes_write_through(&self, device: DeviceIndex) -> bool {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        files.get(usize::from(device.0)).is_some_and(|file| file.flushes_write_through())
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) -> Result<(), DeviceBroken> {
        // Lowered first: what is sent after this raises it again.
        self.signal.lower();
        loop {
            match self.done.try_recv() {
                Ok(completion) => {
                    self.in_flight -= 1;
                    self.counters.cqes += 1;
                    completions.push(completion);
                }
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => {
                    return Err(DeviceBroken {
                        during: "running the I/O threads",
                        errno: Errno(libc::EPIPE),
                    });
                }
            }
        }
    }

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> Result<(), DeviceBroken> {
        let before = completions.len();
        self.poll(completions)?;
        let mut rung = self.signal.take_ring();
        if completions.len() == before && !rung {
            self.counters.enters += 1;
            self.signal
                .wait(timeout)
                .map_err(|errno| DeviceBroken { during: "waiting for the I/O threads", errno })?;
            self.poll(completions)?;
            rung = self.signal.take_ring();
        }
        self.counters.wakes += u64::from(rung);
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn depth(&self) -> usize {
        self.depth
    }

    fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.bell)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.signal.fd())
    }

    fn register(&mut self, _region: &Arc<Region>) {}

    fn add(&mut self, device: DeviceIndex, file: Arc<DeviceFile>) -> Result<(), Errno> {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        put_file(&mut files, device, file)
    }

    fn grants(&self) -> &Grants {
        &self.grants
    }

    fn now(&self) -> Instant {
        monotonic_now()
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

impl Drop for ThreadsDevice {
    /// Waits until the workers have done all that was submitted.
    fn drop(&mut self) {
        self.jobs = None;
        for worker in self.workers.drain(..) {
            // A worker that panicked has nothing in hand any more.
            let _panicked = worker.join();
        }
    }
}

impl fmt::Debug for ThreadsDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadsDevice")
            .field("threads", &self.workers.len())
            .field("in_flight", &self.in_flight)
            .field("depth", &self.depth)
            .finish_non_exhaustive()
    }
}

struct Worker {
    files: Arc<Files>,
    todo: Receiver<Job>,
    results: Sender<Completion>,
    signal: Arc<Signal>,
}

impl Worker {
    fn run(self) {
        while let Ok(Job { token, mut operation }) = self.todo.recv() {
            let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
            let file = files.get(usize::from(operation.device().0)).cloned();
            drop(files);
            let result = match file {
                Some(file) => perform(&file, &mut operation).map_err(Errno::from),
                None => Err(Errno(libc::EBADF)),
            };
            // The device may be gone already; then nobody wants to know, and the memory is freed here.
            let _unwanted = self.results.send(Completion { token, operation, result });
            self.signal.raise();
        }
    }
}

fn perform(file: &DeviceFile, operation: &mut Operation) -> Result<u64, HostErrno> {
    loop {
        let result = match operation {
            Operation::Read { offset, buffer, .. } => pread(file, buffer.as_mut_slice(), *offset),
            Operation::Write { offset, bytes, sync, .. } => {
                let flags = match sync {
                    WriteSync::None => ReadWriteFlags::empty(),
                    WriteSync::Data => ReadWriteFlags::DSYNC,
                };
                pwritev2(file, &[IoSlice::new(bytes.as_slice())], *offset, flags)
            }
            // Not tried again: a sync that was interrupted has said nothing about what it had done.
            Operation::Sync { .. } => return fdatasync(file).map(|()| 0),
            Operation::Discard { offset, length, .. } => {
                fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, *offset, *length)
                    .map(|()| 0)
            }
        };
        // A signal that came before anything was done; the others go up as they are.
        if result != Err(HostErrno::INTR) {
            return result.map(|transferred| transferred as u64);
        }
    }
}
