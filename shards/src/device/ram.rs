//! A device in memory that fails on request: for tests of what stands above the device.
//!
//! A [`MemoryImage`] is the device; the cores that share it each hold a [`MemoryDevice`]. Through the
//! [`MemoryControl`] of one core a test holds completions back, releases them in the order it wants, and has
//! operations fail or end short. An operation takes effect when it is released, so that what is held is not on the
//! image; it can be released after its device is gone, as a late write of a dead process.

use super::{
    Completion, Counters, Device, DeviceBroken, Errno, Grants, Instant, Operation, Rejected, Token, Verb,
    clock::monotonic_now, signal::Signal,
};
use crate::{
    ids::DeviceIndex,
    limits::{IO_DEPTH_DEFAULT, IO_DEPTH_MAX, SECTOR_BYTES},
    memory::Region,
    park::Bell,
    sync::Mutex,
};
use std::{
    fmt,
    os::fd::BorrowedFd,
    sync::{Arc, PoisonError},
    time::Duration,
};

/// What discarded bytes read as: anything is allowed, and zeros would hide who relies on them.
const DISCARDED: u8 = 0xDD;

/// The bytes of all devices of a store.
#[derive(Debug)]
pub struct MemoryImage {
    devices: Vec<Mutex<Vec<u8>>>,
}

impl MemoryImage {
    /// Devices of these sizes, all zero.
    #[must_use]
    pub fn new(device_bytes: &[u64]) -> Arc<Self> {
        let devices = device_bytes.iter().map(|&bytes| Mutex::new(vec![0; bytes as usize])).collect();
        Arc::new(Self { devices })
    }

    /// Works on the bytes of a device, or `None` if there is no such device.
    pub fn with<T>(&self, device: DeviceIndex, work: impl FnOnce(&mut Vec<u8>) -> T) -> Option<T> {
        let device = self.devices.get(usize::from(device.0))?;
        Some(work(&mut device.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The same bytes, apart from now on: what a crash at this moment leaves.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Self> {
        let copy = |device: &Mutex<Vec<u8>>| {
            Mutex::new(device.lock().unwrap_or_else(PoisonError::into_inner).clone())
        };
        Arc::new(Self { devices: self.devices.iter().map(copy).collect() })
    }

    /// Does as much of `operation` as `limit` bytes and the end of the device allow.
    fn perform(&self, operation: &mut Operation, limit: u64) -> Result<u64, Errno> {
        let asked = operation.transfer_bytes().min(limit) as usize;
        let (device, offset) = (operation.device(), operation.offset());
        let done = self.with(device, |image| match operation {
            Operation::Read { buffer, .. } => {
                let bytes = range(image, offset, asked as u64);
                buffer.as_mut_slice()[..bytes.len()].copy_from_slice(bytes);
                Ok(bytes.len() as u64)
            }
            Operation::Write { bytes, .. } => {
                let place = range(image, offset, asked as u64);
                if place.is_empty() && asked > 0 {
                    return Err(Errno(libc::ENOSPC));
                }
                place.copy_from_slice(&bytes.as_slice()[..place.len()]);
                Ok(place.len() as u64)
            }
            Operation::Sync { .. } => Ok(0),
            Operation::Discard { length, .. } => {
                range(image, offset, *length).fill(DISCARDED);
                Ok(0)
            }
        });
        done.unwrap_or(Err(Errno(libc::EBADF)))
    }
}

/// The part of `offset..offset + length` that the device has.
fn range(image: &mut [u8], offset: u64, length: u64) -> &mut [u8] {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(image.len());
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(image.len() - start);
    &mut image[start..start + length]
}

/// What happens to an operation instead of what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It fails and does nothing.
    Fail(Errno),
    /// It does this many bytes and says so.
    Short(u64),
    /// It says that it succeeded, and did nothing.
    Lost,
}

/// A fault to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which operations.
    pub verb: Verb,
    /// How many of them still go well first.
    pub skip: u32,
    /// How many are hit then.
    pub times: u32,
    /// What happens to them.
    pub effect: Effect,
}

/// An operation that waits to be released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Names it; never used again.
    pub id: u64,
    /// As submitted.
    pub token: Token,
    /// As submitted.
    pub verb: Verb,
    /// As submitted.
    pub device: DeviceIndex,
    /// As submitted.
    pub offset: u64,
    /// Bytes that it would move.
    pub bytes: u64,
}

#[derive(Default)]
struct State {
    /// Verbs whose operations are held.
    holding: Vec<Verb>,
    faults: Vec<Fault>,
    held: Vec<(u64, Token, Operation)>,
    ready: Vec<Completion>,
    submitted: u64,
}

/// The test's hand on one core's [`MemoryDevice`].
pub struct MemoryControl {
    image: Arc<MemoryImage>,
    state: Mutex<State>,
    signal: Arc<Signal>,
}

impl MemoryControl {
    /// From now on, operations of this verb wait for their release (or do not any more; those held stay held).
    pub fn hold(&self, verb: Verb, hold: bool) {
        self.with(|state| {
            state.holding.retain(|held| *held != verb);
            if hold {
                state.holding.push(verb);
            }
        });
    }

    /// What waits, in the order of submission.
    #[must_use]
    pub fn held(&self) -> Vec<Held> {
        let describe = |(id, token, operation): &(u64, Token, Operation)| Held {
            id: *id,
            token: *token,
            verb: operation.verb(),
            device: operation.device(),
            offset: operation.offset(),
            bytes: operation.transfer_bytes(),
        };
        self.with(|state| state.held.iter().map(describe).collect())
    }

    /// Does one held operation, completes it and wakes its core. False if it is not held.
    pub fn release(&self, id: u64) -> bool {
        let found = self.with(|state| {
            let index = state.held.iter().position(|(held, ..)| *held == id);
            if let Some((_, token, operation)) = index.map(|index| state.held.remove(index)) {
                self.complete(state, token, operation);
            }
            index.is_some()
        });
        if found {
            self.signal.raise();
        }
        found
    }

    /// Releases all that is held, in the order of submission.
    pub fn release_all(&self) {
        for held in self.held() {
            self.release(held.id);
        }
    }

    /// Adds a fault. Of several that fit an operation the first added counts.
    pub fn inject(&self, fault: Fault) {
        self.with(|state| state.faults.push(fault));
    }

    fn complete(&self, state: &mut State, token: Token, mut operation: Operation) {
        let result = match next_effect(&mut state.faults, operation.verb()) {
            None => self.image.perform(&mut operation, u64::MAX),
            Some(Effect::Short(limit)) => self.image.perform(&mut operation, limit),
            Some(Effect::Lost) => Ok(operation.transfer_bytes()),
            Some(Effect::Fail(errno)) => Err(errno),
        };
        state.ready.push(Completion { token, operation, result });
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for MemoryControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryControl").field("held", &self.held()).finish_non_exhaustive()
    }
}

fn next_effect(faults: &mut Vec<Fault>, verb: Verb) -> Option<Effect> {
    let index = faults.iter().position(|fault| fault.verb == verb)?;
    let fault = &mut faults[index];
    if fault.skip > 0 {
        fault.skip -= 1;
        return None;
    }
    let effect = (fault.times > 0).then_some(fault.effect);
    fault.times = fault.times.saturating_sub(1);
    if fault.times == 0 {
        faults.remove(index);
    }
    effect
}

/// One core's access to a [`MemoryImage`].
pub struct MemoryDevice {
    control: Arc<MemoryControl>,
    bell: Arc<Bell>,
    in_flight: usize,
    depth: usize,
    grants: Grants,
    counters: Counters,
}

impl MemoryDevice {
    /// A device of this depth over `image`, and the hand on it. The host may refuse the descriptor of its bell.
    pub fn new(image: &Arc<MemoryImage>, depth: u32) -> Result<(Self, Arc<MemoryControl>), Errno> {
        let signal = Arc::new(Signal::new()?);
        let bell = Arc::new(Bell::new(signal.clone()));
        let control =
            Arc::new(MemoryControl { image: Arc::clone(image), state: Mutex::new(State::default()), signal });
        let device = Self {
            control: Arc::clone(&control),
            bell,
            in_flight: 0,
            depth: depth.clamp(1, IO_DEPTH_MAX) as usize,
            grants: Grants { backend: "memory", ..Grants::default() },
            counters: Counters::default(),
        };
        Ok((device, control))
    }

    /// A device of the usual depth that nothing holds or fails.
    pub fn plain(image: &Arc<MemoryImage>) -> Result<Self, Errno> {
        Self::new(image, IO_DEPTH_DEFAULT).map(|(device, _)| device)
    }
}

impl Device for MemoryDevice {
    fn submit(&mut self, token: Token, operation: Operation) -> Result<(), Box<Rejected>> {
        if self.in_flight >= self.depth {
            return Err(Box::new(Rejected { operation, token }));
        }
        self.in_flight += 1;
        self.counters.sqes += 1;
        let held = self.control.with(|state| {
            state.submitted += 1;
            let held = state.holding.contains(&operation.verb());
            if held {
                state.held.push((state.submitted, token, operation));
            } else {
                self.control.complete(state, token, operation);
            }
            held
        });
        if !held {
            self.control.signal.raise();
        }
        Ok(())
    }

    fn read_alignment(&self, _device: DeviceIndex) -> u64 {
        SECTOR_BYTES
    }

    fn flushes_write_through(&self, _device: DeviceIndex) -> bool {
        true
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) -> Result<(), DeviceBroken> {
        self.control.signal.lower();
        let before = completions.len();
        self.control.with(|state| completions.append(&mut state.ready));
        let taken = completions.len() - before;
        self.in_flight -= taken;
        self.counters.cqes += taken as u64;
        Ok(())
    }

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> Result<(), DeviceBroken> {
        let before = completions.len();
        self.poll(completions)?;
        let control = Arc::clone(&self.control);
        let mut rung = control.signal.take_ring();
        if completions.len() == before && !rung {
            self.counters.enters += 1;
            control
                .signal
                .wait(timeout)
                .map_err(|errno| DeviceBroken { during: "waiting for the test", errno })?;
            self.poll(completions)?;
            rung = control.signal.take_ring();
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
        Some(self.control.signal.fd())
    }

    fn register(&mut self, _region: &Arc<Region>) {}

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

impl fmt::Debug for MemoryDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryDevice")
            .field("in_flight", &self.in_flight)
            .field("depth", &self.depth)
            .finish_non_exhaustive()
    }
}
