//! Frames on their way to the device: the header, the slot, the queue.

use super::{Flight, FrameOrder, ShardOwner, SyncMethod};
use crate::{
    device::{Device, Operation, Token, WriteSync},
    failure::ShardFailure,
    format::{
        control::Control,
        frame::FrameHeader,
        record::{BodySummary, ControlKind, RecordHeader, RecordKind, summarise_behind, summarise_body},
    },
    ids::{ExtentOrdinal, FrameNumber, SlotIndex},
    limits::{FRAME_HEADER_BYTES, RECORD_HEADER_BYTES},
    memory::RegionSlice,
    mutant::{self, Mutant},
    ring::owner::SealedFrame,
    sync::Ordering,
    token::Purpose,
};

impl ShardOwner {
    pub(super) fn may_submit(&self) -> bool {
        let is_alone = self.flights.iter().all(|flight| flight.is_written);
        self.context.order == FrameOrder::TailLocalised
            || is_alone
            || mutant::is_active(Mutant::SerialisedOverlaps)
    }

    pub(super) fn submit_next(&mut self, device: &mut dyn Device) -> bool {
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
        let Some((slice, header, summary)) = self.finish_frame(&sealed, base) else { return false };
        self.count_submission(&sealed, slots);
        let is_first = self.note_frame(&header);
        self.note_contents(self.last_ordinal, is_first, &summary.contents);
        self.space.quiet.note_frame(&header, summary.has_news, self.space.checkpoint.as_ref());
        self.flights.push_back(Flight {
            frame: sealed.number,
            base,
            slots,
            slice: None,
            is_written: false,
            is_stable: false,
            failures_before: self.failures_at(base),
            retries: 0,
        });
        self.last = (base, sealed.used_bytes);
        let is_full = self.context.layout.geometry().slots_left(base) == slots;
        self.tail_slot = (!is_full).then(|| base.offset_by(slots));
        self.next_frame = sealed.number.next();
        self.next_base = None;
        self.shared.publish_submitted(self.next_frame);
        if mutant::is_active(Mutant::WrittenAtSubmit) {
            let _also_told = self.shared.written.publish(self.next_frame, &mut self.woken);
        }
        self.write_frame(device, sealed.number, base, slice);
        true
    }

    /// The slot of `next_frame`: behind the last one, or at the start of the next extent in order. `None` while the
    /// ring has not moved on to it.
    pub(super) fn base_of_next(&mut self) -> Option<SlotIndex> {
        if let Some(ordinal) = self.parked_at {
            let extent = self.shared.extent_at(ordinal)?;
            (self.parked_at, self.last_ordinal) = (None, ordinal);
            self.next_base = Some(self.context.layout.geometry().first_frame_slot(extent));
        }
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
    pub(super) fn finish_frame(
        &mut self,
        sealed: &SealedFrame,
        base: SlotIndex,
    ) -> Option<(RegionSlice, FrameHeader, BodySummary)> {
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
            checkpoint: self.space.checkpoint.map(|checkpoint| checkpoint.address),
            has_control: false,
            lists_from: None,
            unix_ns: unix_ns(),
        };
        let used = sealed.used_bytes as usize;
        let (mut found, mut notes) = (None, Vec::new());
        let (summed, known) = self.ring.summed(sealed.number);
        let slice = self.ring.freeze(sealed, |bytes| {
            if !mutant::is_active(Mutant::PaddingNotCleared) {
                bytes[used..].fill(0);
            }
            let body = &bytes[FRAME_HEADER_BYTES as usize..used];
            let summary = summarise_behind(&summed, known, body);
            debug_assert_eq!(summary, summarise_body(body), "{known} bytes were summed up");
            if let Ok(summary) = summary {
                (header.records, header.records_digest) = (summary.records, summary.digest);
                header.has_control = summary.has_control;
                header.lists_from = summary.lists_from;
                if summary.has_control {
                    notes = batch_notes(&bytes[FRAME_HEADER_BYTES as usize..used]);
                }
                found = Some((header.encode(bytes), summary));
            }
        });
        let Some((link, summary)) = found else {
            let (shard, frame) = (self.shared.id(), sealed.number);
            self.fail(ShardFailure::MalformedFrame { shard, frame });
            return None;
        };
        notes.iter().for_each(|note| self.space.over.take(note));
        self.link = link;
        let counters = self.shared.counters();
        counters.records.fetch_add(u64::from(header.records), Ordering::Relaxed);
        counters.appended.fetch_add(u64::from(summary.appended), Ordering::Relaxed);
        counters.payload_bytes.fetch_add(summary.payload_bytes, Ordering::Relaxed);
        Some((slice, header, summary))
    }

    pub(super) fn count_submission(&self, sealed: &SealedFrame, slots: u64) {
        let counters = self.shared.counters();
        let slot_bytes = self.context.layout.geometry().slot_bytes();
        counters.frames.fetch_add(1, Ordering::Relaxed);
        counters.bytes.fetch_add(sealed.used_bytes, Ordering::Relaxed);
        counters.device_bytes.fetch_add(slots * slot_bytes, Ordering::Relaxed);
    }

    pub(super) fn write_frame(
        &mut self,
        device: &mut dyn Device,
        frame: FrameNumber,
        base: SlotIndex,
        slice: RegionSlice,
    ) {
        let is_waited_for = self.shared.durable.wanted() > frame;
        let is_stable = match self.context.sync {
            SyncMethod::Auto => {
                is_waited_for && self.is_all_that_lacks(frame) && self.flushes_write_through(device, base)
            }
            SyncMethod::Dsync => is_waited_for,
            SyncMethod::Fdatasync => false,
        };
        let sync = if is_stable { WriteSync::Data } else { WriteSync::None };
        if let Some(flight) = self.flights.iter_mut().rev().find(|flight| flight.frame == frame) {
            flight.is_stable = is_stable;
        }
        let token = Purpose::Frame(self.local, frame).into();
        self.write(device, token, base, slice, sync);
    }

    fn flushes_write_through(&self, device: &dyn Device, base: SlotIndex) -> bool {
        let place = self.context.layout.place(base);
        place.is_some_and(|place| device.flushes_write_through(place.device))
    }

    /// Everything before the frame is durable, the header of its extent too, and no further one is ready: its own write
    /// makes durable what is waited for.
    fn is_all_that_lacks(&self, frame: FrameNumber) -> bool {
        let is_synced = self.unsynced.devices == 0 || mutant::is_active(Mutant::DsyncOverUnsynced);
        is_synced
            && self.shared.durable.reached() == frame
            && self.shared.ring().current_frame() == frame.next()
    }

    pub(super) fn write(
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

    pub(super) fn submit_or_hold(&mut self, device: &mut dyn Device, token: Token, operation: Operation) {
        if let Err(rejected) = device.submit(token, operation) {
            if mutant::is_active(Mutant::RejectedForgotten) {
                return;
            }
            self.held.push_back((rejected.token, rejected.operation));
        }
    }

    /// Tries again what the queue had no room for, in order.
    pub(super) fn pass_on_held(&mut self, device: &mut dyn Device) -> bool {
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
}

/// What the records of a frame, which other threads may have written, say of batches over several shards.
fn batch_notes(body: &[u8]) -> Vec<Control> {
    let mut notes = Vec::new();
    let mut rest = body;
    while let Some(header) = RecordHeader::peek(rest) {
        let (record, behind) = rest.split_at((header.stride() as usize).min(rest.len()));
        rest = behind;
        let payload =
            record.get(RECORD_HEADER_BYTES as usize..RECORD_HEADER_BYTES as usize + header.length as usize);
        let payload = payload.filter(|_| header.kind == RecordKind::CONTROL).unwrap_or_default();
        if matches!(ControlKind::of(payload), Some(ControlKind::Decided | ControlKind::Resolved)) {
            notes.extend(Control::decode(payload).ok().flatten());
        }
    }
    notes
}

pub(super) fn unix_ns() -> u64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since_epoch.map_or(0, |elapsed| elapsed.as_nanos() as u64)
}
