//! Keeping a spare extent ready.
//!
//! An extent is claimed in the table first, then its header is written, and only then rotations find it: a frame in an
//! extent without a header would be lost.

use super::{NextExtent, ShardOwner, SyncMethod};
use crate::{
    device::{Completion, Device, Errno, Verb, WriteSync},
    extents::Claim,
    ids::ExtentOrdinal,
    memory::PooledBuffer,
    mutant::{self, Mutant},
    open::claimed_header,
    sync::Ordering,
    token::Purpose,
};

impl ShardOwner {
    /// Keeps a spare extent ready, so that rotation never waits for the allocator.
    pub(super) fn prepare_extent(&mut self, device: &mut dyn Device) -> bool {
        if self.is_closing || matches!(self.next_extent, NextExtent::Writing(..)) || !self.ring.needs_spare()
        {
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
    pub(super) fn unused_extent(&self) -> Option<Claim> {
        let in_use = self.ring.spare().map(|slot| self.context.layout.geometry().extent_of(slot));
        let position = self.shared.ring().position()?;
        let current = in_use.unwrap_or_else(|| self.context.layout.geometry().extent_of(position.base));
        let ordinal = self.context.extents.ordinal(current)?;
        let extent = self.shared.extent_at(ExtentOrdinal(ordinal.0 + 1))?;
        Some(Claim { extent, generation: self.context.extents.generation(extent) })
    }

    pub(super) fn write_extent_header(
        &mut self,
        device: &mut dyn Device,
        claim: Claim,
        ordinal: ExtentOrdinal,
        mut buffer: PooledBuffer,
    ) {
        let geometry = *self.context.layout.geometry();
        let floor = self.shared.ring().current_frame();
        let header = claimed_header(&self.context, self.shared.id(), claim, ordinal, floor);
        buffer.as_mut_slice().fill(0);
        header.encode_slot(&geometry, buffer.as_mut_slice());
        self.shared.counters().device_bytes.fetch_add(geometry.slot_bytes(), Ordering::Relaxed);
        let slot = geometry.header_slot(claim.extent);
        self.next_extent = NextExtent::Writing(claim, self.failures_at(slot));
        if mutant::is_active(Mutant::ExtentBeforeHeader) {
            self.shared.push_extent(claim.extent);
            self.offer(claim);
        }
        let sync = match self.context.sync {
            SyncMethod::Dsync => WriteSync::Data,
            SyncMethod::Fdatasync => WriteSync::None,
        };
        let token = Purpose::ExtentHeader(self.local).into();
        self.write(device, token, slot, buffer.into(), sync);
    }

    /// The header of the claimed extent was written: frames may go there now.
    pub(crate) fn extent_header_completed(&mut self, completion: &Completion) {
        let NextExtent::Writing(claim, failures_before) =
            std::mem::replace(&mut self.next_extent, NextExtent::Idle)
        else {
            return;
        };
        let slot = self.context.layout.geometry().header_slot(claim.extent);
        match completion.result {
            Ok(bytes) if bytes == completion.operation.transfer_bytes() => {
                self.mark_unsynced(slot, failures_before);
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

    pub(super) fn offer(&mut self, claim: Claim) {
        self.ring.offer_spare(claim);
        self.shared.is_starved.store(false, Ordering::Release);
        self.recycle_written();
        self.shared.room.publish(&mut self.woken);
    }
}
