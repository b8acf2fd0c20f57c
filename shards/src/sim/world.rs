//! Everything outside the engine: devices, what is in flight to them, time, and the moment of the crash.

use super::{
    disk::{Crash, Disk, Mood, Pending},
    faults::{Fault, Faults},
    image::{Image, PAGE_BYTES, Taint},
    random::Random,
};
use crate::{
    device::{Completion, Errno, Operation, Token, WriteSync},
    format::{checksum::crc32c, extent_header::ExtentHeader, frame::FrameHeader},
    geometry::Geometry,
    ids::{DeviceIndex, ShardId},
    limits::SUPERBLOCK_AREA_BYTES,
};
use std::sync::Arc;

const EIO: Errno = Errno(libc::EIO);

/// An operation between submission and completion.
#[derive(Debug)]
pub(super) struct Flying {
    core: usize,
    token: Token,
    operation: Operation,
    /// Writes that had completed when it was submitted.
    sequence: u64,
    /// Of a write's bytes, which nobody may change meanwhile.
    checksum: u32,
    /// Not before this step, if others can.
    not_before: u64,
}

/// A write of a process that is dead.
#[derive(Debug)]
struct Late {
    disk: usize,
    offset: u64,
    bytes: Arc<[u8]>,
    life: u32,
}

/// What the engine handed to a device, for the oracle.
#[derive(Debug)]
pub(super) enum Submitted {
    Frame(FrameHeader),
    Extent(ExtentHeader),
}

/// What a synchronous step of opening came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stopped {
    /// The process or the machine went down.
    #[error("the crash")]
    Crashed,
    /// The device said no.
    #[error("{0}")]
    Failed(Errno),
}

pub(super) struct World {
    geometry: Geometry,
    pub random: Random,
    pub faults: Faults,
    pub disks: Vec<Disk>,
    flying: Vec<Flying>,
    pub ready: Vec<Vec<Completion>>,
    /// The core whose flush failed hears of it before anything else happens: between the failure and that moment
    /// another core could acknowledge what the device just lost, and nothing can be done about it.
    pub urgent: Option<usize>,
    /// The order of frames that this life asked for.
    pub is_serialised: bool,
    /// Shards whose write failed, and the core that is to hear of it.
    failed_writes: Vec<(usize, ShardId)>,
    late: Vec<Late>,
    /// A write of opening that the crash interrupted.
    interrupted: Option<(usize, u64, Arc<[u8]>)>,
    pub submitted: Vec<Submitted>,
    sequence: u64,
    pub now_ns: u64,
    /// Device steps of the case.
    pub steps: u64,
    pub crash_at: Option<u64>,
    pub is_crashed: bool,
    pub life: u32,
    /// A sync failed in this life: what is written and not durable may be gone.
    pub has_dropped: bool,
    /// Lies told so far.
    pub lies: u64,
    pub violation: Option<String>,
    pub trace: Option<Vec<String>>,
}

impl World {
    pub(super) fn new(geometry: Geometry, random: Random, faults: Faults, disk_bytes: &[u64]) -> Self {
        Self {
            geometry,
            random,
            faults,
            disks: disk_bytes.iter().map(|bytes| Disk::new(*bytes)).collect(),
            flying: Vec::new(),
            ready: Vec::new(),
            urgent: None,
            is_serialised: false,
            failed_writes: Vec::new(),
            late: Vec::new(),
            interrupted: None,
            submitted: Vec::new(),
            sequence: 0,
            now_ns: 0,
            steps: 0,
            crash_at: None,
            is_crashed: false,
            life: 0,
            has_dropped: false,
            lies: 0,
            violation: None,
            trace: None,
        }
    }

    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let line = line();
            trace.push(format!("{:6} {line}", self.steps));
        }
    }

    pub(super) fn violate(&mut self, what: String) {
        self.note(|| format!("VIOLATION {what}"));
        self.violation.get_or_insert(what);
    }

    fn roll(&mut self, fault: Fault, one_in: u64) -> bool {
        self.faults.has(fault) && self.random.one_in(one_in)
    }

    /// One device step. False: the crash comes before it.
    fn tick(&mut self) -> bool {
        self.steps += 1;
        self.now_ns += 1_000 + self.random.below(50_000);
        if self.crash_at.is_some_and(|at| self.steps >= at) {
            self.is_crashed = true;
        }
        if !self.late.is_empty() && self.random.one_in(8) {
            self.land_late();
        }
        !self.is_crashed
    }

    fn land_late(&mut self) {
        let index = self.random.index(self.late.len());
        let Late { disk, offset, bytes, life } = self.late.swap_remove(index);
        let length = bytes.len() as u64;
        self.note(|| format!("a late write lands at disk {disk} {offset}+{length}"));
        if self.disks[disk].is_younger(offset, length, life) {
            self.disks[disk].visible.taint(offset, length, Taint::LIE);
            self.lies += 1;
        }
        self.sequence += 1;
        let write = Pending { sequence: self.sequence, offset, bytes, is_lied_about: false };
        self.disks[disk].land(write, false);
        self.disks[disk].visible.taint(offset, length, Taint::LATE);
    }

    // ---- the cores' queues

    pub(super) fn submit(&mut self, core: usize, token: Token, operation: Operation) {
        let mut checksum = 0;
        if let Operation::Write { bytes, .. } = &operation {
            checksum = crc32c(bytes.as_slice());
            self.hand_to_oracle(bytes.as_slice());
            if let Some(flaw) = self.flaw_of(bytes.as_slice()) {
                self.violate(flaw);
            }
        }
        let slow = self.roll(Fault::Slow, 8);
        let wait = if slow { 20 + self.random.below(300) } else { 0 };
        self.note(|| format!("core {core} submits {}", describe(&operation)));
        let (sequence, not_before) = (self.sequence, self.steps + wait);
        self.flying.push(Flying { core, token, operation, sequence, checksum, not_before });
    }

    /// What must not be so about a frame on its way to the device.
    fn flaw_of(&self, bytes: &[u8]) -> Option<String> {
        let header = FrameHeader::decode(bytes).ok()?.header;
        let (shard, number) = (header.shard, header.number);
        if bytes[header.used_bytes as usize..].iter().any(|byte| *byte != 0) {
            return Some(format!("P3: {shard:?} {number:?}: old bytes behind its end"));
        }
        let geometry = self.geometry;
        let extent = geometry.extent_of(header.base_slot);
        for flying in &self.flying {
            let Operation::Write { bytes, .. } = &flying.operation else { continue };
            if ExtentHeader::decode(bytes.as_slice()).is_ok_and(|other| other.extent == extent) {
                return Some(format!(
                    "P1: {shard:?} {number:?} goes to {extent:?}, whose header is under way"
                ));
            }
            let before = FrameHeader::decode(bytes.as_slice()).map(|before| before.header);
            if self.is_serialised && before.is_ok_and(|it| it.shard == shard && it.number != number) {
                return Some(format!("P4: {shard:?} {number:?} does not wait for the frame before it"));
            }
        }
        None
    }

    /// Shards whose write failed, once their core has heard of it.
    pub(super) fn take_failed_writes(&mut self) -> Vec<ShardId> {
        let ready = &self.ready;
        let heard = self.failed_writes.extract_if(.., |(core, _)| ready[*core].is_empty());
        heard.map(|(_, shard)| shard).collect()
    }

    fn hand_to_oracle(&mut self, bytes: &[u8]) {
        if let Ok(checked) = FrameHeader::decode(bytes) {
            self.submitted.push(Submitted::Frame(checked.header));
        } else if let Ok(header) = ExtentHeader::decode(bytes) {
            self.submitted.push(Submitted::Extent(header));
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.flying.len()
    }

    /// Completes one operation, of `core` if one is given. False: there is none, or the crash came.
    pub(super) fn complete_one(&mut self, core: Option<usize>) -> bool {
        let Some(index) = self.choose(core) else { return false };
        if !self.tick() {
            return false;
        }
        let Flying { core, token, mut operation, sequence, checksum, .. } = self.flying.remove(index);
        let result = self.perform(&mut operation, sequence, checksum);
        self.note(|| format!("core {core} gets {} -> {result:?}", describe(&operation)));
        if let (Operation::Write { bytes, .. }, Err(_)) = (&operation, result)
            && let Ok(frame) = FrameHeader::decode(bytes.as_slice())
        {
            self.failed_writes.push((core, frame.header.shard));
        }
        let flushes =
            matches!(operation, Operation::Sync { .. } | Operation::Write { sync: WriteSync::Data, .. });
        self.urgent = (flushes && result.is_err()).then_some(core);
        self.ready[core].push(Completion { token, operation, result });
        true
    }

    fn choose(&mut self, core: Option<usize>) -> Option<usize> {
        let of_core = |flying: &Flying| core.is_none_or(|core| flying.core == core);
        let steps = self.steps;
        let due: Vec<usize> = (0..self.flying.len()).filter(|index| of_core(&self.flying[*index])).collect();
        let prompt: Vec<usize> =
            due.iter().copied().filter(|index| self.flying[*index].not_before <= steps).collect();
        let choices = if prompt.is_empty() { due } else { prompt };
        if choices.is_empty() {
            return None;
        }
        let place = if self.faults.has(Fault::Reorder) { self.random.index(choices.len()) } else { 0 };
        Some(choices[place])
    }

    fn perform(&mut self, operation: &mut Operation, sequence: u64, checksum: u32) -> Result<u64, Errno> {
        let disk = usize::from(operation.device().0);
        let asked = operation.transfer_bytes();
        match operation {
            Operation::Read { offset, buffer, .. } => {
                if self.roll(Fault::ReadError, 30) {
                    return Err(EIO);
                }
                let length = if self.roll(Fault::Short, 12) { self.random.below(asked) } else { asked };
                let bytes = &mut buffer.as_mut_slice()[..length as usize];
                if self.disks[disk].visible.read(*offset, bytes) { Ok(length) } else { Ok(0) }
            }
            Operation::Write { offset, bytes, sync, .. } => {
                if crc32c(bytes.as_slice()) != checksum {
                    self.violate(format!("I8: the bytes of a write at {offset} changed under I/O"));
                }
                self.write(disk, *offset, bytes.as_slice(), *sync)
            }
            Operation::Sync { .. } => self.sync(disk, sequence),
            Operation::Discard { .. } => Ok(0),
        }
    }

    fn write(&mut self, disk: usize, offset: u64, bytes: &[u8], sync: WriteSync) -> Result<u64, Errno> {
        let whole = bytes.len() as u64;
        if self.roll(Fault::WriteError, 60) {
            let length = self.random.below(whole + 1);
            self.land(disk, offset, &bytes[..length as usize], false);
            return Err(EIO);
        }
        if self.roll(Fault::Short, 16) {
            let length = self.random.below(whole);
            self.land(disk, offset, &bytes[..length as usize], false);
            return Ok(length);
        }
        if sync == WriteSync::Data && self.roll(Fault::SyncError, 24) {
            self.land(disk, offset, bytes, false);
            return self.fail_sync(disk);
        }
        if self.roll(Fault::Lost, 60) {
            self.lie(disk, offset, whole, "a write is lost");
            return Ok(whole);
        }
        if self.roll(Fault::Misdirected, 60) {
            return Ok(self.misdirect(disk, offset, bytes));
        }
        let is_stable = sync == WriteSync::Data && !self.roll(Fault::LyingSync, 16);
        self.land(disk, offset, bytes, is_stable);
        if sync == WriteSync::Data && !is_stable {
            self.lie_about_last(disk);
        }
        if offset >= SUPERBLOCK_AREA_BYTES {
            let life = self.life;
            self.disks[disk].absolve(offset, whole, life);
        }
        Ok(whole)
    }

    fn land(&mut self, disk: usize, offset: u64, bytes: &[u8], is_stable: bool) {
        self.sequence += 1;
        let write = Pending { sequence: self.sequence, offset, bytes: bytes.into(), is_lied_about: false };
        self.disks[disk].land(write, is_stable);
    }

    fn lie(&mut self, disk: usize, offset: u64, length: u64, how: &str) {
        self.lies += 1;
        self.disks[disk].visible.taint(offset, length, Taint::LIE);
        self.note(|| format!("LIE: {how}: disk {disk} {offset}+{length}"));
    }

    fn lie_about_last(&mut self, disk: usize) {
        self.lies += 1;
        if let Some(write) = self.disks[disk].cache.last_mut() {
            write.is_lied_about = true;
        }
    }

    fn misdirect(&mut self, disk: usize, offset: u64, bytes: &[u8]) -> u64 {
        let whole = bytes.len() as u64;
        let pages = self.disks[disk].visible.written_pages();
        let near = match pages.len() {
            0 => offset as usize + PAGE_BYTES,
            count => pages[self.random.index(count)] * PAGE_BYTES,
        };
        let target = (near as u64).min(self.disks[disk].visible.bytes() - whole);
        self.lie(disk, offset, whole, "a write goes elsewhere");
        self.land(disk, target, bytes, false);
        self.lie(disk, target, whole, "and lands here");
        whole
    }

    /// A flush fails, and takes what was in the cache with it.
    fn fail_sync(&mut self, disk: usize) -> Result<u64, Errno> {
        let mut random = self.random.fork();
        self.disks[disk].fail_sync(&mut random);
        self.has_dropped = true;
        Err(EIO)
    }

    fn sync(&mut self, disk: usize, sequence: u64) -> Result<u64, Errno> {
        if self.roll(Fault::SyncError, 24) {
            return self.fail_sync(disk);
        }
        if self.roll(Fault::LyingSync, 12) {
            self.lies += 1;
            self.note(|| format!("LIE: a sync of disk {disk} does nothing"));
            let covered = self.disks[disk].cache.iter_mut().filter(|write| write.sequence <= sequence);
            covered.for_each(|write| write.is_lied_about = true);
            return Ok(0);
        }
        self.disks[disk].sync(sequence);
        Ok(0)
    }

    /// Flips a bit somewhere, if the case has that.
    pub(super) fn maybe_flip(&mut self) {
        if !self.roll(Fault::Flip, 400) {
            return;
        }
        let disk = self.random.index(self.disks.len());
        let pages = self.disks[disk].visible.written_pages();
        if let Some(page) = pages.get(self.random.index(pages.len().max(1))) {
            let bit = self.random.index(PAGE_BYTES * 8);
            self.lies += 1;
            self.note(|| format!("LIE: bit {bit} of page {page} of disk {disk} flips"));
            self.disks[disk].flip(*page, bit);
        }
    }

    // ---- opening, one step after the other

    pub(super) fn read_now(
        &mut self,
        device: DeviceIndex,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<(), Errno> {
        if self.roll(Fault::ReadError, 100) {
            return Err(EIO);
        }
        let is_inside = self.disks[usize::from(device.0)].visible.read(offset, bytes);
        if is_inside { Ok(()) } else { Err(EIO) }
    }

    pub(super) fn write_now(
        &mut self,
        device: DeviceIndex,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), Stopped> {
        let disk = usize::from(device.0);
        self.note(|| format!("opening writes disk {disk} {offset}+{}", bytes.len()));
        if self.is_crashed || !self.tick() {
            self.interrupted.get_or_insert_with(|| (disk, offset, bytes.into()));
            return Err(Stopped::Crashed);
        }
        // Short transfers are continued below this seam.
        let faults = self.faults;
        self.faults = faults.without(Fault::Short);
        let written = self.write(disk, offset, bytes, WriteSync::None);
        self.faults = faults;
        written.map(|_all| ()).map_err(Stopped::Failed)
    }

    pub(super) fn sync_now(&mut self, device: DeviceIndex) -> Result<(), Stopped> {
        self.note(|| format!("opening syncs disk {}", device.0));
        if self.is_crashed || !self.tick() {
            return Err(Stopped::Crashed);
        }
        let sequence = self.sequence;
        self.sync(usize::from(device.0), sequence).map(|_| ()).map_err(Stopped::Failed)
    }

    // ---- the crash

    /// What the disks would hold after a crash at this moment.
    pub(super) fn seen_after(&self, kind: Crash, random: &mut Random) -> Vec<Image> {
        let mood = Mood::draw(random, self.faults.has(Fault::Tear));
        let crash =
            |(index, disk): (usize, &Disk)| disk.seen_after(kind, mood, self.writes_to(index), random);
        self.disks.iter().enumerate().map(crash).collect()
    }

    /// What the disks hold.
    pub(super) fn seen(&self) -> Vec<Image> {
        self.disks.iter().map(|disk| disk.visible.clone()).collect()
    }

    fn writes_to(&self, disk: usize) -> impl Iterator<Item = (u64, &[u8])> {
        let flying = self.flying.iter().filter_map(move |flying| match &flying.operation {
            Operation::Write { device, offset, bytes, .. } if usize::from(device.0) == disk => {
                Some((*offset, bytes.as_slice()))
            }
            _ => None,
        });
        let interrupted = self.interrupted.iter().filter(move |(at, ..)| *at == disk);
        flying.chain(interrupted.map(|(_, offset, bytes)| (*offset, &**bytes)))
    }

    /// The crash happens: what was in flight lands now, later, or never.
    pub(super) fn crash(&mut self, kind: Crash) {
        self.late.clear();
        if kind == Crash::Kill && self.faults.has(Fault::Late) {
            let life = self.life;
            for flying in self.flying.extract_if(.., |flying| flying.core % 2 == 0) {
                if let Operation::Write { device, offset, bytes, .. } = &flying.operation {
                    let (disk, bytes) = (usize::from(device.0), bytes.as_slice().into());
                    self.late.push(Late { disk, offset: *offset, bytes, life });
                }
            }
        }
        let mut random = self.random.fork();
        let mood = Mood::draw(&mut random, self.faults.has(Fault::Tear));
        let crash =
            |(index, disk): (usize, &Disk)| disk.crash(kind, mood, self.writes_to(index), &mut random);
        self.disks = self.disks.iter().enumerate().map(crash).collect();
        self.flying.clear();
        self.interrupted = None;
        self.ready.clear();
        self.urgent = None;
        self.failed_writes.clear();
        self.submitted.clear();
        self.crash_at = None;
        self.is_crashed = false;
        self.has_dropped = false;
        self.life += 1;
        self.note(|| format!("CRASH {kind:?}"));
    }
}

fn describe(operation: &Operation) -> String {
    let (verb, device) = (operation.verb(), operation.device());
    let bytes = operation.transfer_bytes();
    let detail = match operation {
        Operation::Write { bytes, sync, .. } => match FrameHeader::decode(bytes.as_slice()) {
            Ok(checked) => {
                let FrameHeader { shard, number, durable, term, .. } = checked.header;
                format!(" ({shard:?} {number:?} durable {durable} {term:?} {sync:?})")
            }
            Err(_) => " (extent header)".to_owned(),
        },
        _ => String::new(),
    };
    format!("{verb} {device:?} {}+{bytes}{detail}", operation.offset())
}
