//! The simulated device as the engine sees it: one core's queue, and the devices while the store is being opened.

use super::world::{Stopped, World};
use crate::{
    device::{Completion, Device, DeviceBroken, Errno, Grants, Instant, Operation, Rejected, Token},
    ids::DeviceIndex,
    limits::SECTOR_BYTES,
    memory::{Region, RegionSlice},
    opening::StoreDevices,
    park::{Bell, Wakeup},
    recovery::SourceError,
};
use std::{
    os::fd::BorrowedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

pub(super) type SharedWorld = Arc<Mutex<World>>;

pub(super) fn lock(world: &SharedWorld) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The kernel side of a simulated core's bell.
#[derive(Debug, Default)]
pub(super) struct Alarm(AtomicBool);

impl Alarm {
    /// True if the bell woke the core since the last call.
    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl Wakeup for Alarm {
    fn wake(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One core's queue to the simulated devices.
pub(super) struct SimDevice {
    world: SharedWorld,
    core: usize,
    in_flight: usize,
    depth: usize,
    bell: Arc<Bell>,
    grants: Grants,
}

impl SimDevice {
    pub(super) fn new(world: &SharedWorld, core: usize, depth: usize, alarm: &Arc<Alarm>) -> Self {
        let wakeup: Arc<dyn Wakeup> = Arc::clone(alarm) as _;
        Self {
            world: Arc::clone(world),
            core,
            in_flight: 0,
            depth,
            bell: Arc::new(Bell::new(wakeup)),
            grants: Grants { backend: "simulator", ..Grants::default() },
        }
    }
}

const CRASHED: DeviceBroken = DeviceBroken { during: "the simulated crash", errno: Errno(libc::EIO) };

impl Device for SimDevice {
    fn submit(&mut self, token: Token, operation: Operation) -> Result<(), Box<Rejected>> {
        let mut world = lock(&self.world);
        if self.in_flight >= self.depth || world.is_crashed {
            return Err(Box::new(Rejected { operation, token }));
        }
        self.in_flight += 1;
        world.submit(self.core, token, operation);
        Ok(())
    }

    fn read_alignment(&self, _device: DeviceIndex) -> u64 {
        SECTOR_BYTES
    }

    fn flushes_write_through(&self, _device: DeviceIndex) -> bool {
        true
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) -> Result<(), DeviceBroken> {
        let mut world = lock(&self.world);
        if world.is_crashed {
            return Err(CRASHED);
        }
        let ready = &mut world.ready[self.core];
        self.in_flight -= ready.len();
        completions.append(ready);
        Ok(())
    }

    /// Only opening and closing wait here, alone; the scheduler wakes a sleeping core otherwise.
    fn wait(
        &mut self,
        _timeout: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> Result<(), DeviceBroken> {
        if !lock(&self.world).complete_one(Some(self.core)) {
            // Time passes, so that bounded waits end.
            lock(&self.world).now_ns += 1_000_000_000;
        }
        self.poll(completions)
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
        None
    }

    fn register(&mut self, _region: &Arc<Region>) {}

    fn grants(&self) -> &Grants {
        &self.grants
    }

    fn now(&self) -> Instant {
        Instant(lock(&self.world).now_ns)
    }
}

/// The devices while the store is being opened, formatted or closed.
pub(super) struct Disks<'a>(pub &'a SharedWorld);

impl StoreDevices for Disks<'_> {
    type Error = Stopped;

    fn read(&self, device: DeviceIndex, offset: u64, bytes: &mut [u8]) -> Result<(), SourceError> {
        let read = lock(self.0).read_now(device, offset, bytes);
        read.map_err(|errno| SourceError::Io { device, offset, errno })
    }

    fn write(&self, device: DeviceIndex, offset: u64, bytes: &RegionSlice) -> Result<(), Stopped> {
        lock(self.0).write_now(device, offset, bytes.as_slice())
    }

    fn sync(&self, device: DeviceIndex) -> Result<(), Stopped> {
        lock(self.0).sync_now(device)
    }

    fn alignment(&self, _device: DeviceIndex) -> u64 {
        super::image::PAGE_BYTES as u64
    }
}
