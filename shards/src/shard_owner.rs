//! The half of a shard that belongs to the core that runs it: sealing, submission, completion, watermarks, extents.
//!
//! Frames are submitted in order, complete in any order, and are recycled in order. A frame in flight moves
//! `Writing -> Written`, and leaves the list when its buffer is recycled.

use crate::{
    device::{Completion, Device, Errno, Operation, Token, Verb, WriteSync},
    extents::{Claim, ExtentTable},
    failure::ShardFailure,
    format::{
        frame::FrameHeader,
        record::summarise_body,
        superblock::{ShardEntry, ShardState},
    },
    ids::{DeviceIndex, ExtentIndex, ExtentOrdinal, FrameNumber, ShardId, SlotIndex, StoreId, Term},
    layout::Layout,
    limits::{FRAME_HEADER_BYTES, WRITE_RETRIES_MAX},
    memory::{BufferPool, RegionSlice},
    mutant::{self, Mutant},
    open::claimed_header,
    ring::owner::{CopyOut, RingOwner, SealedFrame},
    shard::Shard,
    sync::Ordering,
    token::{LocalShard, Purpose},
};
use serde::{Deserialize, Serialize};
use std::{collections::VecDeque, sync::Arc, task::Waker, time::Duration};

/// In which order the frames of a shard reach the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FrameOrder {
    /// Frames are written side by side and may complete out of order, within the reach of the ring.
    #[default]
    TailLocalised,
    /// The write of a frame begins when that of the frame before it has completed.
    Serialised,
}

/// How durability is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SyncMethod {
    /// Write, then `fdatasync` for all that was written on the core.
    #[default]
    Fdatasync,
    /// Frames that somebody waits for are written with `RWF_DSYNC`.
    Dsync,
}

/// What does not change while a shard is open.
#[derive(Clone, Debug)]
pub struct ShardContext {
    /// The store.
    pub store: StoreId,
    /// This open.
    pub term: Term,
    /// Where slots are.
    pub layout: Arc<Layout>,
    /// Who owns extents.
    pub extents: Arc<ExtentTable>,
    /// Small aligned buffers for extent headers.
    pub headers: Arc<BufferPool>,
    /// Shards of the store, for home regions.
    pub shard_count: u32,
    /// Order of frames.
    pub order: FrameOrder,
    /// Way to durability.
    pub sync: SyncMethod,
    /// A part-filled frame is sealed this long after its owner first saw it. `None`: only when somebody waits.
    pub linger: Option<Duration>,
}

/// A frame between submission and recycling.
#[derive(Debug)]
struct Flight {
    frame: FrameNumber,
    base: SlotIndex,
    slots: u64,
    /// Given back by the completion; `None` while the device holds it.
    slice: Option<RegionSlice>,
    is_written: bool,
    /// The write itself reached stable media.
    is_stable: bool,
    retries: u32,
}

/// The claim of the next extent.
#[derive(Debug)]
enum NextExtent {
    /// Nothing under way; the ring may or may not have a spare.
    Idle,
    /// The header is being written.
    Writing(Claim),
}

/// The owner's half of a shard.
#[derive(Debug)]
pub struct ShardOwner {
    context: ShardContext,
    local: LocalShard,
    shared: Arc<Shard>,
    ring: RingOwner,
    /// The frame to submit next and its first slot (known once the ring has moved on to it).
    next_frame: FrameNumber,
    next_base: Option<SlotIndex>,
    /// Base and used bytes of the frame before `next_frame`.
    last: (SlotIndex, u64),
    /// Where the log ends; `None`: at the end of its last extent, or it has none.
    tail_slot: Option<SlotIndex>,
    /// Ordinal of the extent that `last` lies in.
    last_ordinal: ExtentOrdinal,
    /// Of the shard's oldest extent; frames state it.
    oldest: ExtentOrdinal,
    /// Checksum of the last submitted header.
    link: u32,
    flights: VecDeque<Flight>,
    next_extent: NextExtent,
    /// Where the search for a free extent starts.
    claim_from: ExtentIndex,
    /// Writes that the device's queue had no room for.
    held: VecDeque<(Token, Operation)>,
    /// Bit per device with writes that no sync covers yet.
    unsynced_devices: u16,
    linger_since: Option<(FrameNumber, crate::device::Instant)>,
    is_closing: bool,
    woken: Vec<Waker>,
}

/// Where a shard continues.
#[derive(Clone, Debug)]
pub struct ShardStart {
    /// The shard.
    pub shard: ShardId,
    /// The first frame of this open.
    pub first_frame: FrameNumber,
    /// Its slot.
    pub first_slot: SlotIndex,
    /// Where recovery found the end of the log; `None`: at the end of its last extent, or it has none.
    pub tail_slot: Option<SlotIndex>,
    /// Ordinal of the extent that holds `first_slot`.
    pub ordinal: ExtentOrdinal,
    /// Checksum of the last recovered frame header; 0 if there is none.
    pub link: u32,
    /// All extents of the shard, and the ordinal of the first. Those behind `ordinal` hold no frames.
    pub extents: (ExtentOrdinal, Vec<ExtentIndex>),
}

impl ShardOwner {
    pub(crate) fn new(context: ShardContext, local: LocalShard, ring: RingOwner, start: ShardStart) -> Self {
        let oldest = start.extents.0;
        let shared = Arc::new(Shard::new(
            start.shard,
            Arc::clone(ring.ring()),
            start.first_frame,
            start.first_slot,
            start.extents,
        ));
        let claim_from = context.extents.home(start.shard, context.shard_count);
        Self {
            context,
            local,
            shared,
            ring,
            next_frame: start.first_frame,
            next_base: Some(start.first_slot),
            last: (start.first_slot, 0),
            tail_slot: start.tail_slot,
            last_ordinal: start.ordinal,
            oldest,
            link: start.link,
            flights: VecDeque::new(),
            next_extent: NextExtent::Idle,
            claim_from,
            held: VecDeque::new(),
            unsynced_devices: 0,
            linger_since: None,
            is_closing: false,
            woken: Vec::new(),
        }
    }

    /// The half that everyone shares.
    #[must_use]
    pub const fn shared(&self) -> &Arc<Shard> {
        &self.shared
    }

    /// One step: claim ahead, seal what is asked, submit what is ready. True if anything was done.
    pub(crate) fn pump(&mut self, device: &mut dyn Device, is_syncing: bool) -> bool {
        if self.shared.health.failure().is_some() {
            return false;
        }
        let mut progress = self.pass_on_held(device);
        progress |= self.prepare_extent(device);
        progress |= self.seal_what_is_asked(device, is_syncing);
        while self.submit_next(device) {
            progress = true;
        }
        progress
    }

    /// True if [`ShardOwner::pump`] would do something that no completion will announce: the second look of a core
    /// that is about to sleep.
    pub(crate) fn has_work(&self, is_syncing: bool) -> bool {
        if self.shared.health.failure().is_some() {
            return false;
        }
        self.wants_seal(is_syncing)
            || (self.may_submit() && self.ring.state(self.next_frame).is_handed_over())
    }

    // ---- sealing ------------------------------------------------------------------------------------------------

    /// Group commit: the open frame is sealed for its waiters once nothing of the shard is on its way to the device,
    /// so records gather while a write or a sync is.
    fn wants_seal(&self, is_syncing: bool) -> bool {
        let current = self.shared.ring().current_frame();
        let written_wanted = self.shared.written.wanted() > current;
        let durable_wanted = self.shared.durable.wanted() > current;
        let is_writing = self.flights.iter().any(|flight| !flight.is_written);
        let is_idle = !is_writing && self.next_frame == current;
        is_idle
            && (written_wanted || (durable_wanted && !is_syncing))
            && !self.ring.state(current).is_sealed()
            && self.ring.state(current).offset() > 0
    }

    fn seal_what_is_asked(&mut self, device: &dyn Device, is_syncing: bool) -> bool {
        if self.wants_seal(is_syncing) || self.has_lingered(device) {
            let _any_outcome_is_fine = self.shared.ring().seal();
            return true;
        }
        false
    }

    /// When the linger of a part-filled frame ends; starts the clock of a frame that is new.
    pub(crate) fn linger_deadline(&mut self, now: crate::device::Instant) -> Option<crate::device::Instant> {
        let linger = self.context.linger?;
        let current = self.shared.ring().current_frame();
        let state = self.ring.state(current);
        let is_busy = !self.flights.is_empty() && !mutant::is_active(Mutant::LingerWhileBusy);
        if state.offset() == 0 || state.is_sealed() || is_busy {
            // On a busy shard the next completion looks again: a timer there would only make writes smaller.
            self.linger_since = None;
            return None;
        }
        let since = match self.linger_since {
            Some((frame, since)) if frame == current => since,
            _ => now,
        };
        self.linger_since = Some((current, since));
        Some(since.after(linger))
    }

    fn has_lingered(&mut self, device: &dyn Device) -> bool {
        if self.context.linger.is_none() {
            return false;
        }
        let now = device.now();
        self.linger_deadline(now).is_some_and(|deadline| deadline <= now)
    }

    // ---- submission ---------------------------------------------------------------------------------------------

    fn may_submit(&self) -> bool {
        let is_alone = self.flights.iter().all(|flight| flight.is_written);
        self.context.order == FrameOrder::TailLocalised
            || is_alone
            || mutant::is_active(Mutant::SerialisedOverlaps)
    }

    fn submit_next(&mut self, device: &mut dyn Device) -> bool {
        if !self.may_submit() || !self.held.is_empty() {
            return false;
        }
        let Some(base) = self.base_of_next() else { return false };
        let Some(sealed) = self.ring.begin_flush(self.next_frame) else { return false };
        if sealed.used_bytes == 0 {
            // Only the last frame of a closed ring is sealed empty; it is not written.
            return false;
        }
        let slots = self.context.layout.geometry().slots_for(sealed.used_bytes);
        let Some(slice) = self.finish_frame(&sealed, base) else { return false };
        self.count_submission(&sealed, slots);
        self.flights.push_back(Flight {
            frame: sealed.number,
            base,
            slots,
            slice: None,
            is_written: false,
            is_stable: false,
            retries: 0,
        });
        self.last = (base, sealed.used_bytes);
        let is_full = self.context.layout.geometry().slots_left(base) == slots;
        self.tail_slot = (!is_full).then(|| base.offset_by(slots));
        self.next_frame = sealed.number.next();
        self.next_base = None;
        self.shared.publish_submitted(self.next_frame);
        if mutant::is_active(Mutant::WrittenAtSubmit) {
            self.shared.written.publish(self.next_frame, &mut self.woken);
        }
        self.write_frame(device, sealed.number, base, slice);
        true
    }

    /// The slot of `next_frame`: behind the last one, or at the start of the next extent in order. `None` while the
    /// ring has not moved on to it.
    fn base_of_next(&mut self) -> Option<SlotIndex> {
        if self.next_base.is_none() && self.shared.ring().current_frame() >= self.next_frame {
            let (base, used) = self.last;
            let geometry = self.context.layout.geometry();
            let slots = geometry.slots_for(used);
            let room = (geometry.slots_left(base) - slots) * geometry.slot_bytes();
            if mutant::is_active(Mutant::RotateReusesBase) {
                self.next_base = Some(base);
            } else if room >= self.shared.ring().buffer_bytes() {
                self.next_base = Some(base.offset_by(slots));
            } else {
                let ordinal = ExtentOrdinal(self.last_ordinal.0 + 1);
                let extent = self.shared.extent_at(ordinal)?;
                self.last_ordinal = ordinal;
                self.next_base = Some(geometry.first_frame_slot(extent));
            }
        }
        self.next_base
    }

    /// Writes header and padding. `None`: the records do not parse, and the shard failed.
    fn finish_frame(&mut self, sealed: &SealedFrame, base: SlotIndex) -> Option<RegionSlice> {
        let extent = self.context.layout.geometry().extent_of(base);
        let mut header = FrameHeader {
            store: self.context.store,
            shard: self.shared.id(),
            generation: self.context.extents.generation(extent),
            term: self.context.term,
            number: sealed.number,
            link: self.link,
            base_slot: base,
            used_bytes: sealed.used_bytes as u32,
            records: 0,
            records_digest: 0,
            durable: self.shared.durable.reached(),
            oldest: self.oldest,
            unix_ns: unix_ns(),
        };
        let used = sealed.used_bytes as usize;
        let mut link = None;
        let slice = self.ring.freeze(sealed, |bytes| {
            if !mutant::is_active(Mutant::PaddingNotCleared) {
                bytes[used..].fill(0);
            }
            if let Ok(summary) = summarise_body(&bytes[FRAME_HEADER_BYTES as usize..used]) {
                (header.records, header.records_digest) = (summary.records, summary.digest);
                link = Some(header.encode(bytes));
            }
        });
        let Some(link) = link else {
            let (shard, frame) = (self.shared.id(), sealed.number);
            self.fail(ShardFailure::MalformedFrame { shard, frame });
            return None;
        };
        self.link = link;
        self.shared.counters().records.fetch_add(u64::from(header.records), Ordering::Relaxed);
        Some(slice)
    }

    fn count_submission(&self, sealed: &SealedFrame, slots: u64) {
        let counters = self.shared.counters();
        let slot_bytes = self.context.layout.geometry().slot_bytes();
        counters.frames.fetch_add(1, Ordering::Relaxed);
        counters.bytes.fetch_add(sealed.used_bytes, Ordering::Relaxed);
        counters.device_bytes.fetch_add(slots * slot_bytes, Ordering::Relaxed);
    }

    fn write_frame(
        &mut self,
        device: &mut dyn Device,
        frame: FrameNumber,
        base: SlotIndex,
        slice: RegionSlice,
    ) {
        let is_waited_for = self.shared.durable.wanted() > frame;
        let sync = match self.context.sync {
            SyncMethod::Dsync if is_waited_for => WriteSync::Data,
            SyncMethod::Dsync | SyncMethod::Fdatasync => WriteSync::None,
        };
        if let Some(flight) = self.flights.iter_mut().rev().find(|flight| flight.frame == frame) {
            flight.is_stable = sync == WriteSync::Data;
        }
        let token = Purpose::Frame(self.local, frame).into();
        self.write(device, token, base, slice, sync);
    }

    fn write(
        &mut self,
        device: &mut dyn Device,
        token: Token,
        slot: SlotIndex,
        bytes: RegionSlice,
        sync: WriteSync,
    ) {
        let Some(place) = self.context.layout.place(slot) else {
            unreachable!("{slot:?} came from a claimed extent of this layout");
        };
        let operation = Operation::Write { device: place.device, offset: place.offset, bytes, sync };
        self.submit_or_hold(device, token, operation);
    }

    fn submit_or_hold(&mut self, device: &mut dyn Device, token: Token, operation: Operation) {
        if let Err(rejected) = device.submit(token, operation) {
            if mutant::is_active(Mutant::RejectedForgotten) {
                return;
            }
            self.held.push_back((rejected.token, rejected.operation));
        }
    }

    /// Tries again what the queue had no room for, in order.
    fn pass_on_held(&mut self, device: &mut dyn Device) -> bool {
        let mut progress = false;
        while let Some((token, operation)) = self.held.pop_front() {
            if let Err(rejected) = device.submit(token, operation) {
                self.held.push_front((rejected.token, rejected.operation));
                break;
            }
            progress = true;
        }
        progress
    }

    // ---- completion ---------------------------------------------------------------------------------------------

    /// The write of a frame ended.
    pub(crate) fn frame_completed(
        &mut self,
        device: &mut dyn Device,
        frame: FrameNumber,
        completion: Completion,
    ) {
        let expected = completion.operation.transfer_bytes();
        let at = completion.operation.device();
        let result = completion.result;
        let Operation::Write { bytes, .. } = completion.operation else { return };
        let wanted = if mutant::is_active(Mutant::CompletionByOrder) {
            self.flights.iter().position(|flight| !flight.is_written)
        } else {
            self.flights.iter().position(|flight| flight.frame == frame)
        };
        let Some(index) = wanted else { return };
        let trust_short = mutant::is_active(Mutant::ShortWriteTrusted);
        match result {
            Ok(written) if written == expected || trust_short => {
                self.note_written(index, bytes);
            }
            Ok(written) => self.write_again(device, index, bytes, written, expected),
            Err(_) if mutant::is_active(Mutant::RetryForever) => {
                self.write_again(device, index, bytes, 0, expected);
            }
            Err(errno) => {
                let (base, slots) = (self.flights[index].base, self.flights[index].slots);
                self.flights[index].slice = Some(bytes);
                self.fail_io(Verb::Write, at, base, slots, errno);
            }
        }
        self.advance();
    }

    fn note_written(&mut self, index: usize, bytes: RegionSlice) {
        let flight = &mut self.flights[index];
        flight.is_written = true;
        flight.slice = Some(bytes);
        if !flight.is_stable {
            self.mark_unsynced(self.flights[index].base);
        }
    }

    fn mark_unsynced(&mut self, slot: SlotIndex) {
        if let Some(place) = self.context.layout.place(slot) {
            self.unsynced_devices |= 1 << place.device.0;
        }
    }

    /// A short write left part of the frame: the whole frame is written again, a bounded number of times. That is
    /// safe because nothing of it was acknowledged and its bytes did not change.
    fn write_again(
        &mut self,
        device: &mut dyn Device,
        index: usize,
        bytes: RegionSlice,
        written: u64,
        expected: u64,
    ) {
        let shard = self.shared.id();
        let flight = &mut self.flights[index];
        let (frame, slot) = (flight.frame, flight.base);
        if flight.retries >= WRITE_RETRIES_MAX && !mutant::is_active(Mutant::RetryForever) {
            flight.slice = Some(bytes);
            let tries = flight.retries + 1;
            self.fail(ShardFailure::ShortWrite { shard, slot, frame, written, expected, tries });
            return;
        }
        flight.retries += 1;
        self.shared.counters().rewrites.fetch_add(1, Ordering::Relaxed);
        self.write_frame(device, frame, slot, bytes);
    }

    /// Moves `written` over the contiguous run, `durable` where the writes themselves were stable, and recycles.
    fn advance(&mut self) {
        let failed = self.shared.health.failure().is_some();
        if !failed {
            self.advance_written();
        }
        self.recycle_written();
    }

    fn advance_written(&mut self) {
        let written_before = self.shared.written.reached();
        let mut written = written_before;
        let mut durable = self.shared.durable.reached();
        for flight in &self.flights {
            if !flight.is_written {
                if mutant::is_active(Mutant::WatermarkSkipsHoles) {
                    continue;
                }
                break;
            }
            if flight.frame >= written {
                written = flight.frame.next();
                let geometry = self.context.layout.geometry();
                debug_assert!(flight.slots <= geometry.slots_left(flight.base));
                self.shared.publish_written_end(flight.base.offset_by(flight.slots));
            }
            if flight.is_stable && flight.frame == durable {
                durable = flight.frame.next();
            }
        }
        if written > written_before {
            self.shared.written.publish(written, &mut self.woken);
        }
        if mutant::is_active(Mutant::DurableAtWrite) {
            durable = written;
        }
        if durable > self.shared.durable.reached() {
            self.shared.durable.publish(durable, &mut self.woken);
        }
    }

    fn recycle_written(&mut self) {
        let mut recycled = false;
        while self.flights.front().is_some_and(|flight| flight.is_written && flight.slice.is_some()) {
            let Some(frame) = self.flights.front().map(|flight| flight.frame) else { break };
            if !self.ring.move_past(frame) {
                // The ring stands at this frame and needs an extent to move on; `prepare_extent` comes back here.
                break;
            }
            let slice = self.flights.pop_front().and_then(|flight| flight.slice);
            self.ring.recycle(frame, slice);
            recycled = true;
        }
        if recycled {
            self.shared.room.publish(&mut self.woken);
        }
    }

    // ---- durability ---------------------------------------------------------------------------------------------

    /// True if somebody waits for durability of something that is written.
    pub(crate) fn wants_sync(&self) -> bool {
        let durable = self.shared.durable.reached();
        self.shared.health.failure().is_none()
            && self.shared.durable.wanted() > durable
            && self.shared.written.reached() > durable
    }

    /// What a sync that is submitted now covers, and the devices that it has to reach. `None`: nothing new.
    pub(crate) fn begin_sync(&mut self) -> Option<(FrameNumber, u16)> {
        let written = self.shared.written.reached();
        let nothing_new = written == self.shared.durable.reached() || self.shared.health.failure().is_some();
        (!nothing_new).then(|| (written, std::mem::take(&mut self.unsynced_devices)))
    }

    /// The sync that covered the frames below `covered` succeeded.
    pub(crate) fn sync_completed(&mut self, covered: FrameNumber) {
        if self.shared.health.failure().is_some() {
            return;
        }
        self.shared.counters().syncs.fetch_add(1, Ordering::Relaxed);
        let covered = if mutant::is_active(Mutant::SyncCoversLater) { self.next_frame } else { covered };
        if covered > self.shared.durable.reached() {
            self.shared.durable.publish(covered, &mut self.woken);
        }
        self.advance();
    }

    /// The sync failed: what it covered is in an unknown state for ever, so the shard stops.
    pub(crate) fn sync_failed(&mut self, device: DeviceIndex, errno: Errno) {
        let slot = self.shared.written_end();
        self.fail_io(Verb::Sync, device, slot, 0, errno);
    }

    // ---- extents ------------------------------------------------------------------------------------------------

    /// Keeps a spare extent ready, so that rotation never waits for the allocator.
    fn prepare_extent(&mut self, device: &mut dyn Device) -> bool {
        if self.is_closing || matches!(self.next_extent, NextExtent::Writing(_)) || !self.ring.needs_spare() {
            return false;
        }
        if let Some(claim) = self.unused_extent() {
            self.offer(claim);
            return true;
        }
        if self.context.extents.free_count() == 0 {
            if !self.shared.is_starved.swap(true, Ordering::AcqRel) {
                // Appends that wait for room must hear that there will be none.
                self.shared.room.publish(&mut self.woken);
            }
            return false;
        }
        let Some(buffer) = self.context.headers.take(self.context.layout.geometry().slot_bytes() as usize)
        else {
            return false;
        };
        let ordinal = self.shared.next_ordinal();
        let Some(claim) = self.context.extents.claim(self.shared.id(), ordinal, self.claim_from) else {
            return false;
        };
        self.shared.is_starved.store(false, Ordering::Release);
        self.claim_from = claim.extent;
        self.write_extent_header(device, claim, ordinal, buffer);
        true
    }

    /// An extent that recovery found claimed and empty, behind the one in use.
    fn unused_extent(&self) -> Option<Claim> {
        let in_use = self.ring.spare().map(|slot| self.context.layout.geometry().extent_of(slot));
        let position = self.shared.ring().position()?;
        let current = in_use.unwrap_or_else(|| self.context.layout.geometry().extent_of(position.base));
        let ordinal = self.context.extents.ordinal(current)?;
        let extent = self.shared.extent_at(ExtentOrdinal(ordinal.0 + 1))?;
        Some(Claim { extent, generation: self.context.extents.generation(extent) })
    }

    fn write_extent_header(
        &mut self,
        device: &mut dyn Device,
        claim: Claim,
        ordinal: ExtentOrdinal,
        mut buffer: crate::memory::PooledBuffer,
    ) {
        let geometry = *self.context.layout.geometry();
        let floor = self.shared.ring().current_frame();
        let header = claimed_header(&self.context, self.shared.id(), claim, ordinal, floor);
        buffer.as_mut_slice().fill(0);
        header.encode_slot(&geometry, buffer.as_mut_slice());
        self.shared.counters().device_bytes.fetch_add(geometry.slot_bytes(), Ordering::Relaxed);
        self.next_extent = NextExtent::Writing(claim);
        if mutant::is_active(Mutant::ExtentBeforeHeader) {
            self.shared.push_extent(claim.extent);
            self.offer(claim);
        }
        let sync = match self.context.sync {
            SyncMethod::Dsync => WriteSync::Data,
            SyncMethod::Fdatasync => WriteSync::None,
        };
        let token = Purpose::ExtentHeader(self.local).into();
        self.write(device, token, geometry.header_slot(claim.extent), buffer.into(), sync);
    }

    /// The header of the claimed extent was written: frames may go there now.
    pub(crate) fn extent_header_completed(&mut self, completion: &Completion) {
        let NextExtent::Writing(claim) = std::mem::replace(&mut self.next_extent, NextExtent::Idle) else {
            return;
        };
        let slot = self.context.layout.geometry().header_slot(claim.extent);
        match completion.result {
            Ok(bytes) if bytes == completion.operation.transfer_bytes() => {
                self.mark_unsynced(slot);
                if !mutant::is_active(Mutant::ExtentBeforeHeader) {
                    self.shared.push_extent(claim.extent);
                    self.offer(claim);
                }
            }
            // A header that is cut short may be half of one: the extent stays claimed and the shard stops.
            Ok(_) => self.fail_io(Verb::Write, completion.operation.device(), slot, 1, Errno(libc::EIO)),
            Err(errno) => self.fail_io(Verb::Write, completion.operation.device(), slot, 1, errno),
        }
    }

    fn offer(&mut self, claim: Claim) {
        self.ring.offer_spare(claim);
        self.shared.is_starved.store(false, Ordering::Release);
        self.recycle_written();
        self.shared.room.publish(&mut self.woken);
    }

    // ---- reading ------------------------------------------------------------------------------------------------

    /// Where the record at `slot`, which is behind the written run, is.
    pub(crate) fn in_memory(&self, slot: SlotIndex) -> InMemory {
        let covers = |base: SlotIndex, slots: u64| base <= slot && slot.0 < base.0 + slots;
        let in_flight = self.flights.iter().find(|flight| covers(flight.base, flight.slots));
        if let Some(flight) = in_flight {
            return InMemory::Frame(flight.frame, flight.base);
        }
        let current = self.shared.ring().current_frame();
        if self.next_frame < current {
            return InMemory::Soon;
        }
        let geometry = self.context.layout.geometry();
        let buffer_slots = geometry.slots_for(self.shared.ring().buffer_bytes());
        match self.shared.ring().position() {
            Some(position) if covers(position.base, buffer_slots) => InMemory::Frame(current, position.base),
            _ => InMemory::Nowhere,
        }
    }

    /// Copies from a frame that is still in its buffer.
    pub(crate) fn copy_out(&self, frame: FrameNumber, at: u64, out: &mut [u8]) -> CopyOut {
        self.ring.copy_out(frame, at, out)
    }

    // ---- the end ------------------------------------------------------------------------------------------------

    /// Takes no more appends; what was accepted goes to the device and is synced.
    pub(crate) fn close(&mut self) {
        if std::mem::replace(&mut self.is_closing, true) {
            return;
        }
        let last = self.ring.close();
        if !mutant::is_active(Mutant::CloseForgetsAccepted) {
            let is_empty = self.ring.state(last).offset() == 0;
            let Some(last) = (if is_empty { last.0.checked_sub(1) } else { Some(last.0) }) else { return };
            let _own_request = self.shared.durable.want(FrameNumber(last));
        }
    }

    /// True once everything accepted is durable and nothing is in flight, or the shard failed and nothing is.
    pub(crate) fn is_drained(&self) -> bool {
        let is_quiet = self.flights.iter().all(|flight| flight.slice.is_some())
            && matches!(self.next_extent, NextExtent::Idle);
        let failed = self.shared.health.failure().is_some();
        is_quiet && (failed || self.shared.durable.reached() >= self.shared.durable.wanted())
    }

    /// What the superblock says of the shard after a clean close. `None`: it is not drained, or failed.
    #[must_use]
    pub fn clean_tail(&self) -> Option<ShardEntry> {
        let is_clean = self.is_drained() && self.shared.health.failure().is_none();
        is_clean.then(|| ShardEntry {
            state: ShardState::Active,
            durable: self.next_frame,
            tail_slot: self.tail_slot,
            tail_link: self.link,
        })
    }

    fn fail_io(&mut self, verb: Verb, device: DeviceIndex, slot: SlotIndex, slots: u64, errno: Errno) {
        let shard = self.shared.id();
        let frame = self.shared.durable.reached();
        self.fail(ShardFailure::Io { shard, verb, device, slot, slots, frame, errno });
    }

    /// Operations that the device never saw give their memory back.
    fn take_back_held(&mut self) {
        for (token, operation) in std::mem::take(&mut self.held) {
            match (Purpose::of(token), operation) {
                (Some(Purpose::Frame(_, frame)), Operation::Write { bytes, .. }) => {
                    let flight = self.flights.iter_mut().find(|flight| flight.frame == frame);
                    if let Some(flight) = flight {
                        flight.slice = Some(bytes);
                    }
                }
                _ => self.next_extent = NextExtent::Idle,
            }
        }
    }

    /// Stops the shard: no more appends, no more acknowledgements, and everyone who waits hears of it.
    pub(crate) fn fail(&mut self, failure: ShardFailure) {
        if self.shared.health.fail(failure) {
            self.ring.close();
            self.take_back_held();
            self.shared.written.wake_all();
            self.shared.durable.wake_all();
            self.shared.room.publish(&mut self.woken);
        }
    }
}

/// What a slot that is not written yet is known to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InMemory {
    /// In the buffer of this frame, which begins at this slot.
    Frame(FrameNumber, SlotIndex),
    /// In a frame that is sealed and not submitted yet: look again after the next turn.
    Soon,
    /// Nobody reserved it.
    Nowhere,
}

fn unix_ns() -> u64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since_epoch.map_or(0, |elapsed| elapsed.as_nanos() as u64)
}
