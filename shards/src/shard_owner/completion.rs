//! Completed writes: retries, the contiguous run, recycling.

use super::{Flight, ShardOwner};
use crate::{
    device::{Completion, Device, Operation, Verb},
    failure::ShardFailure,
    ids::{FrameNumber, SlotIndex},
    limits::WRITE_RETRIES_MAX,
    memory::RegionSlice,
    mutant::{self, Mutant},
    sync::Ordering,
};

impl ShardOwner {
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
        let Operation::Write { bytes, sync, .. } = completion.operation else { return };
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
            // Nothing was written, for a reason that passes: the host says so where a transfer of no byte is cut short.
            Err(errno) if matches!(errno.0, libc::EAGAIN | libc::EINTR) => {
                self.write_again(device, index, bytes, 0, expected);
            }
            Err(errno) => {
                let (base, slots) = (self.flights[index].base, self.flights[index].slots);
                self.note_failed_write(at, sync);
                self.flights[index].slice = Some(bytes);
                self.fail_io(Verb::Write, at, base, slots, errno);
            }
        }
        self.advance();
    }

    pub(super) fn note_written(&mut self, index: usize, bytes: RegionSlice) {
        let flight = &mut self.flights[index];
        flight.is_written = true;
        flight.slice = Some(bytes);
        if !flight.is_stable {
            let Flight { base, failures_before, .. } = self.flights[index];
            self.mark_unsynced(base, failures_before);
        }
    }

    pub(super) fn mark_unsynced(&mut self, slot: SlotIndex, failures_before: u64) {
        if let Some(place) = self.context.layout.place(slot) {
            self.unsynced.add(place.device, failures_before);
        }
    }

    /// Failed syncs so far of the device that holds `slot`.
    pub(super) fn failures_at(&self, slot: SlotIndex) -> u64 {
        self.context.layout.place(slot).map_or(0, |place| self.context.sync_failures.count(place.device))
    }

    /// A short write left part of the frame: the whole frame is written again, a bounded number of times. That is
    /// safe because nothing of it was acknowledged and its bytes did not change.
    pub(super) fn write_again(
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
    pub(super) fn advance(&mut self) {
        let failed = self.shared.health.failure().is_some();
        if !failed {
            self.advance_written();
        }
        self.recycle_written();
    }

    pub(super) fn advance_written(&mut self) {
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
            if written > written_before && mutant::is_active(Mutant::WatermarkOneStep) {
                break;
            }
        }
        if written > written_before {
            let _also_told = self.shared.written.publish(written, &mut self.woken);
        }
        if mutant::is_active(Mutant::DurableAtWrite) {
            durable = written;
        }
        if durable > self.shared.durable.reached() {
            self.publish_durable(durable);
        }
    }

    pub(super) fn recycle_written(&mut self) {
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
}
