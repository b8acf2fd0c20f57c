//! The io_uring backend: one ring per core, entered only when there is something to pass on or to fetch.
//!
//! The ring is made disabled and belongs to the thread that first polls it. Every operation is owned by
//! `InFlight` from its submission until its completion was taken; where a ring cannot be drained, what
//! it holds is leaked, for the kernel may still write to it. The bell is an eventfd that the ring itself polls, so
//! that one call waits for completions and for the bell.
//!
//! This file holds unsafe code.

use super::{
    Completion, Counters, Device, DeviceBroken, Errno, Grants, Instant, Operation, Rejected, Token,
    clock::monotonic_now, file::DeviceFile, put_file,
};
use crate::{
    ids::DeviceIndex,
    limits::{IO_DEPTH_DEFAULT, IO_DEPTH_MAX, IO_DRAIN_MS_MAX, IO_STALL_MS_MAX, SLOT_BYTES_MIN},
    memory::Region,
    park::{Bell, Wakeup},
};
use entry::{Place, Target};
use in_flight::{InFlight, Key};
use io_uring::{
    IoUring, cqueue, opcode, squeue,
    types::{Fd, SubmitArgs, Timespec},
};
use registered::Registered;
use rustix::{
    event::{EventfdFlags, eventfd},
    io::write,
};
use std::{
    fmt,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::Arc,
    time::Duration,
};

mod entry;
mod in_flight;
mod registered;
mod setup;

pub use setup::{Completing, RingUnavailable};

/// No operation has this key: see [`in_flight::Key`].
const BELL_KEY: u64 = u64::MAX;

/// How a ring is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UringOptions {
    /// Operations in flight at the same time.
    pub depth: u32,
    /// What to ask for first.
    pub completing: Completing,
    /// Ask for registered buffers.
    pub register_buffers: bool,
    /// [`Device::fd`] is wanted. It rules deferred completions out: such a ring tells a sleeping `poll(2)` nothing.
    pub pollable: bool,
}

impl Default for UringOptions {
    fn default() -> Self {
        Self {
            depth: IO_DEPTH_DEFAULT,
            completing: Completing::default(),
            register_buffers: true,
            pollable: false,
        }
    }
}

struct BellFd(OwnedFd);

impl Wakeup for BellFd {
    fn wake(&self) {
        // The counter is never read back (the ring's poll is told of each write), and 2^64 rings do not happen.
        while write(&self.0, &1_u64.to_ne_bytes()) == Err(rustix::io::Errno::INTR) {}
    }
}

/// One core's ring over the devices of the store.
pub struct UringDevice {
    ring: IoUring,
    enabled: bool,
    /// Completions are deferred, and the ring's descriptor is no use to `poll(2)`.
    deferred: bool,
    in_flight: InFlight,
    /// Operations that never reached the kernel and fail with the next poll.
    refused: Vec<Completion>,
    files: Vec<Arc<DeviceFile>>,
    fixed_files: bool,
    /// Devices that came later and that the kernel did not register: a bit for each. It looks them up each time.
    unregistered: u16,
    registered: Registered,
    bell: Arc<Bell>,
    bell_fd: Arc<BellFd>,
    /// Whether the ring polls the bell.
    bell_armed: bool,
    /// The bell rang, and no wait has returned for it yet.
    rung: bool,
    /// Since when the kernel has refused to take submissions.
    stalled_since: Option<Instant>,
    grants: Grants,
    counters: Counters,
}

/// Why the kernel was entered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Enter {
    Submit,
    Wait { until: Option<Instant> },
}

/// How entering it went.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entered {
    Done,
    /// A signal, or the kernel is short of something for the moment.
    Again,
}

impl UringDevice {
    /// Makes a ring. It may be built on any thread; the one that first polls it owns it.
    pub fn new(files: Vec<Arc<DeviceFile>>, options: UringOptions) -> Result<Self, RingUnavailable> {
        let depth = options.depth.clamp(1, IO_DEPTH_MAX);
        let ceiling = if options.pollable { Completing::Cooperative } else { Completing::Deferred };
        let completing = options.completing.min(ceiling);
        let empty = || Grants { backend: "io_uring", ..Grants::default() };
        let fds: Vec<RawFd> = files.iter().map(|file| file.raw_fd()).collect();
        let make = |disabled, grants: &mut Grants| {
            let ring = setup::build(depth.next_power_of_two(), completing, disabled, grants)?;
            setup::bound_workers(&ring, grants);
            let fixed_files = setup::fix_files(&ring, &fds, grants);
            Ok((ring, fixed_files))
        };
        let mut grants = empty();
        let (mut ring, mut fixed_files) = make(true, &mut grants)?;
        let enabled = !fixed_files;
        if enabled {
            // Where registering is forbidden, so is enabling: such a ring belongs to this thread from the start.
            grants = empty();
            (ring, fixed_files) = make(false, &mut grants)?;
        }
        let registered = Registered::new(&ring, options.register_buffers, &mut grants);
        let bell_fd = eventfd(0, EventfdFlags::CLOEXEC)
            .map(|fd| Arc::new(BellFd(fd)))
            .map_err(|errno| setup::unavailable_because(errno.into()))?;
        for file in &files {
            grants.missing.extend_from_slice(file.warnings());
        }
        Ok(Self {
            ring,
            enabled,
            deferred: grants.features.contains(&setup::DEFERRED),
            in_flight: InFlight::new(depth),
            refused: Vec::new(),
            files,
            fixed_files,
            unregistered: 0,
            registered,
            bell: Arc::new(Bell::new(bell_fd.clone())),
            bell_fd,
            bell_armed: false,
            rung: false,
            stalled_since: None,
            grants,
            counters: Counters::default(),
        })
    }

    /// Describes an operation to the kernel, or says why it cannot be done.
    fn entry_of(&mut self, key: Key) -> Result<squeue::Entry, Errno> {
        let Some(operation) = self.in_flight.get_mut(key) else { return Err(Errno(libc::EINVAL)) };
        let device = operation.device();
        let Some(file) = self.files.get(usize::from(device.0)) else { return Err(Errno(libc::EBADF)) };
        let fixed = self.fixed_files && self.unregistered & 1 << device.0 == 0;
        let target = Target { fixed, index: device, fd: file.raw_fd() };
        let entry = match operation {
            Operation::Read { offset, buffer, .. } => {
                let place = Place::new(buffer.region(), buffer.offset(), buffer.len(), &self.registered);
                target.read(place, *offset)
            }
            Operation::Write { offset, bytes, sync, .. } => {
                let place = Place::new(bytes.region(), bytes.offset(), bytes.len(), &self.registered);
                target.write(place, *offset, *sync)
            }
            Operation::Sync { .. } => target.sync(),
            Operation::Discard { offset, length, .. } => target.discard(*offset, *length),
        };
        Ok(entry.user_data(key.0))
    }

    /// Puts an entry into the submission queue, making room by a system call if need be.
    fn push(&mut self, entry: &squeue::Entry) -> bool {
        for attempt in 0..2 {
            // SAFETY: the memory that the entry names is held by `in_flight` (or is none, for the bell) until the
            // completion was taken, and leaked if it never is.
            let pushed = unsafe { self.ring.submission().push(entry) };
            if pushed.is_ok() {
                self.counters.sqes += 1;
                return true;
            }
            if attempt == 0 && !matches!(self.enter(Enter::Submit), Ok(Entered::Done)) {
                return false;
            }
        }
        false
    }

    /// Has the ring poll the bell, if it does not yet. Not being able to for the moment is no loss: it is tried
    /// again before each sleep.
    fn arm_bell(&mut self) {
        if !self.bell_armed {
            let entry = opcode::PollAdd::new(Fd(self.bell_fd.0.as_raw_fd()), libc::POLLIN as u32)
                .multi(true)
                .build()
                .user_data(BELL_KEY);
            self.bell_armed = self.push(&entry);
        }
    }

    /// One call of the kernel. With `Wait` it sleeps until something completes.
    fn enter(&mut self, why: Enter) -> Result<Entered, DeviceBroken> {
        if !self.enabled {
            self.ring
                .submitter()
                .register_enable_rings()
                .map_err(|error| broken("enabling the ring", error))?;
            self.enabled = true;
        }
        self.counters.enters += 1;
        let submitter = self.ring.submitter();
        let result = match why {
            Enter::Submit => submitter.submit(),
            Enter::Wait { until: None } => submitter.submit_with_args(1, &SubmitArgs::new()),
            Enter::Wait { until: Some(until) } => {
                let left = until.since(monotonic_now());
                let left = Timespec::new().sec(left.as_secs()).nsec(left.subsec_nanos());
                submitter.submit_with_args(1, &SubmitArgs::new().timespec(&left))
            }
        };
        match result {
            Ok(_) => {
                self.stalled_since = None;
                Ok(Entered::Done)
            }
            Err(error) => self.refusal(error),
        }
    }

    #[cold]
    fn refusal(&mut self, error: std::io::Error) -> Result<Entered, DeviceBroken> {
        match error.raw_os_error() {
            // The time is over.
            Some(libc::ETIME) => {
                self.stalled_since = None;
                Ok(Entered::Done)
            }
            Some(libc::EINTR) => {
                self.counters.retries += 1;
                Ok(Entered::Again)
            }
            Some(libc::EAGAIN | libc::EBUSY) => {
                self.counters.retries += 1;
                let now = monotonic_now();
                let since = *self.stalled_since.get_or_insert(now);
                if now.since(since) > Duration::from_millis(IO_STALL_MS_MAX) {
                    return Err(broken("submitting", error));
                }
                Ok(Entered::Again)
            }
            _ => Err(broken("entering the ring", error)),
        }
    }

    /// Takes what the kernel has posted, a few at a time: what they make room for reaches the device while the others
    /// wait, which fills its queue better than one burst.
    fn reap(&mut self, completions: &mut Vec<Completion>) -> Result<(), DeviceBroken> {
        completions.append(&mut self.refused);
        let mut queue = self.ring.completion();
        for entry in queue.by_ref().take(REAPED_AT_ONCE_MAX) {
            self.counters.cqes += 1;
            if entry.user_data() == BELL_KEY {
                self.counters.wakes += 1;
                self.rung = true;
                self.bell_armed = cqueue::more(entry.flags());
                continue;
            }
            let Some((token, operation)) = self.in_flight.remove(Key(entry.user_data())) else {
                return Err(DeviceBroken { during: "taking a completion", errno: Errno(libc::EPROTO) });
            };
            let result = u64::try_from(entry.result()).map_err(|_| Errno(-entry.result()));
            completions.push(Completion { token, operation, result });
        }
        if queue.overflow() > 0 {
            return Err(DeviceBroken {
                during: "taking completions: one was dropped",
                errno: Errno(libc::EBADR),
            });
        }
        Ok(())
    }

    /// Whether a poll has to call the kernel: there are submissions, or it has completions that it posts only when
    /// asked.
    fn must_enter(&mut self) -> bool {
        let queue = self.ring.submission();
        !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
    }

    /// Waits for everything in flight, for a bounded time; false if something is left.
    fn drain(&mut self) -> bool {
        let end = monotonic_now().after(Duration::from_millis(IO_DRAIN_MS_MAX));
        let mut completions = Vec::new();
        while self.in_flight.len() > 0 {
            let left = end.since(monotonic_now());
            if left.is_zero() || self.wait(Some(left), &mut completions).is_err() {
                return false;
            }
            completions.clear();
        }
        true
    }
}

impl Device for UringDevice {
    fn submit(&mut self, token: Token, operation: Operation) -> Result<(), Box<Rejected>> {
        let key = match self.in_flight.insert(token, operation) {
            Ok(key) => key,
            Err((token, operation)) => return Err(Box::new(Rejected { operation, token })),
        };
        let pushed = match self.entry_of(key) {
            Ok(entry) => self.push(&entry).then_some(()).ok_or(None),
            Err(errno) => Err(Some(errno)),
        };
        match pushed {
            Ok(()) => Ok(()),
            // Neither arm has a kernel that knows of the operation, so it can leave the table.
            Err(refused) => match (self.in_flight.remove(key), refused) {
                (Some((token, operation)), None) => Err(Box::new(Rejected { operation, token })),
                (Some((token, operation)), Some(errno)) => {
                    self.refused.push(Completion { token, operation, result: Err(errno) });
                    Ok(())
                }
                (None, _) => unreachable!("the operation was put under this key above"),
            },
        }
    }

    fn read_alignment(&self, device: DeviceIndex) -> u64 {
        self.files.get(usize::from(device.0)).map_or(SLOT_BYTES_MIN, |file| file.read_alignment())
    }

    fn flushes_write_through(&self, device: DeviceIndex) -> bool {
        self.files.get(usize::from(device.0)).is_some_and(|file| file.flushes_write_through())
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) -> Result<(), DeviceBroken> {
        self.arm_bell();
        if self.must_enter() {
            self.enter(Enter::Submit)?;
        }
        self.reap(completions)
    }

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> Result<(), DeviceBroken> {
        let before = completions.len();
        let until = timeout.map(|timeout| monotonic_now().after(timeout));
        self.reap(completions)?;
        self.arm_bell();
        while completions.len() == before && !self.rung {
            // Asleep without the bell nobody could wake the core, so that then it only looks in.
            let why = if self.bell_armed { Enter::Wait { until } } else { Enter::Submit };
            let entered = self.enter(why)?;
            self.reap(completions)?;
            if self.stalled_since.is_some() || !self.bell_armed {
                // A pause, so that the core's loop does not spin against a kernel that takes nothing.
                std::thread::sleep(STALL_PAUSE);
                break;
            }
            if entered == Entered::Done || until.is_some_and(|until| until <= monotonic_now()) {
                break;
            }
        }
        self.rung = false;
        // What was submitted before must not be held back because something had completed already.
        if !self.ring.submission().is_empty() {
            self.enter(Enter::Submit)?;
        }
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.in_flight.len() + self.refused.len()
    }

    fn depth(&self) -> usize {
        self.in_flight.depth()
    }

    fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.bell)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        if self.deferred {
            return None;
        }
        // SAFETY: the descriptor is the ring's own and stays open as long as the borrow of `self`.
        Some(unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) })
    }

    fn register(&mut self, region: &Arc<Region>) {
        self.registered.add(&self.ring, region, &mut self.grants);
    }

    fn add(&mut self, device: DeviceIndex, file: Arc<DeviceFile>) -> Result<(), Errno> {
        let fd = file.raw_fd();
        put_file(&mut self.files, device, file)?;
        let updated = self.ring.submitter().register_files_update(u32::from(device.0), &[fd]);
        if updated.is_err() {
            self.unregistered |= 1 << device.0;
        }
        Ok(())
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

impl Drop for UringDevice {
    /// Waits for what is in flight. Where that does not work, the memory is leaked: a kernel that still has an
    /// operation writes to it.
    fn drop(&mut self) {
        if !self.drain() {
            self.in_flight.leak();
        } else if self.fixed_files {
            // The kernel closes a ring some time later; the locks on the files must not last until then.
            let _closed_later_otherwise = self.ring.submitter().unregister_files();
        }
    }
}

impl fmt::Debug for UringDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringDevice")
            .field("in_flight", &self.in_flight())
            .field("depth", &self.depth())
            .field("grants", &self.grants)
            .finish_non_exhaustive()
    }
}

/// Completions that one call takes. With 8 reads under way, 2 gave 1.1 times the reads of 4, with 32 as many, and both 1.15
/// times the reads of all at once.
const REAPED_AT_ONCE_MAX: usize = 2;

/// Between two attempts of which the kernel took neither.
const STALL_PAUSE: Duration = Duration::from_micros(200);

fn broken(during: &'static str, error: std::io::Error) -> DeviceBroken {
    DeviceBroken { during, errno: Errno::from(error) }
}
