//! Keeping a spare extent ready.
//!
//! An extent is claimed in the table first, then its header is written, and only then rotations find it: a frame in an
//! extent without a header would be lost.

use super::{NextExtent, ShardContext, ShardOwner, SyncMethod};
use crate::{
    device::{Completion, Device, Errno, Operation, Verb, WriteSync},
    extents::Claim,
    ids::ExtentOrdinal,
    memory::PooledBuffer,
    mutant::{self, Mutant},
    open::claimed_header,
    sync::{Ordering, fence},
    token::Purpose,
};

impl ShardOwner {
    /// Keeps a spare extent ready, so that rotation never waits for the allocator.
    pub(super) fn prepare_extent(&mut self, device: &mut dyn Device) -> bool {
        let lifted = self.lift_restriction();
        if self.is_closing || matches!(self.next_extent, NextExtent::Writing(..)) || !self.ring.needs_spare()
        {
            return lifted;
        }
        if let Some(claim) = self.unused_extent() {
            self.offer(claim);
            return true;
        }
        self.space.wants_room |= self.shared.wants_room.load(Ordering::Acquire);
        let takes_reserve = self.context.extents.free_for_appends() == 0;
        if takes_reserve && (!self.space.wants_room || self.context.extents.free_count() == 0) {
            self.space.is_stuck = std::mem::take(&mut self.space.wants_room);
            self.shared.wants_room.store(false, Ordering::Release);
            if !std::mem::replace(&mut self.is_hungry, true) && self.context.cleaning.owner().is_some() {
                // A shard of another core may have something to clean, and sleeps.
                self.space.tell_all();
            }
            if self.is_starved() {
                self.tell_starved();
                // Appends that wait for room must hear that there will be none; also those that saw an extent which
                // another shard has claimed since.
                self.shared.room.publish(&mut self.woken);
            }
            return lifted || self.space.is_stuck;
        }
        let Some(buffer) = self.context.headers.take(self.context.layout.geometry().slot_bytes() as usize)
        else {
            return false;
        };
        let ordinal = self.shared.next_ordinal();
        let ShardContext { near, layout, extents, .. } = &self.context;
        let Some(claim) = near.claim(self.shared.id(), ordinal, self.claim_from, layout, extents) else {
            return false;
        };
        self.space.wants_room = false;
        self.is_hungry = false;
        // Before rotations find it: what is left belongs to control records and cleaning.
        self.shared.ring().restrict(takes_reserve);
        self.settle_starvation();
        self.claim_from = claim.extent;
        self.write_extent_header(device, claim, ordinal, buffer);
        true
    }

    /// Ordinary appends go on once the reserve is whole again.
    fn lift_restriction(&mut self) -> bool {
        let ring = self.shared.ring();
        let extents = &self.context.extents;
        if !ring.is_restricted() || extents.free_count() < extents.reserve().max(1) {
            return false;
        }
        ring.restrict(false);
        self.settle_starvation();
        self.shared.room.publish(&mut self.woken);
        true
    }

    /// Appends that find no room wait as long as cleaning may make some; else the store is full.
    fn is_starved(&self) -> bool {
        let is_short = self.is_hungry || self.shared.ring().is_restricted();
        is_short && !self.context.cleaning.has_hope()
    }

    pub(super) fn is_wrong_about_room(&self) -> bool {
        self.is_starved() != self.shared.is_starved.load(Ordering::Acquire)
    }

    /// Those who wait for room must hear that there will be none.
    pub(super) fn settle_starvation(&mut self) -> bool {
        if !self.is_wrong_about_room() {
            return false;
        }
        if self.is_starved() {
            self.tell_starved();
            self.shared.room.publish(&mut self.woken);
        } else {
            self.shared.is_starved.store(false, Ordering::Release);
        }
        true
    }

    /// Appends that find no room are refused from now on, unless cleaning was turned on at this moment, or a shard owes a
    /// look at what it can clean.
    fn tell_starved(&self) {
        self.shared.is_starved.store(true, Ordering::Release);
        // Pairs with the one in `Shard::hope_again`: either that comes after the store above, or its owner of records
        // is seen here.
        fence(Ordering::SeqCst);
        if self.context.cleaning.has_hope() {
            self.shared.is_starved.store(false, Ordering::Release);
        }
    }

    pub(super) const fn is_claiming(&self) -> bool {
        matches!(self.next_extent, NextExtent::Writing(..))
    }

    /// True if the store was full and has room again.
    pub(super) fn can_be_fed(&self) -> bool {
        let extents = &self.context.extents;
        let is_short = (self.is_hungry || self.shared.ring().is_restricted()) && !self.is_closing;
        let can_claim = matches!(self.next_extent, NextExtent::Idle) && extents.free_for_appends() > 0;
        let can_lift = self.shared.ring().is_restricted() && extents.free_count() >= extents.reserve().max(1);
        is_short && ((can_claim && self.ring.needs_spare()) || can_lift)
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
        self.shared.is_claiming.store(true, Ordering::Release);
        if mutant::is_active(Mutant::ExtentBeforeHeader) {
            self.shared.push_extent(ordinal, claim.extent);
            self.offer(claim);
        }
        let sync = match self.context.sync {
            SyncMethod::Dsync => WriteSync::Data,
            SyncMethod::Auto | SyncMethod::Fdatasync => WriteSync::None,
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
        self.shared.is_claiming.store(false, Ordering::Release);
        let slot = self.context.layout.geometry().header_slot(claim.extent);
        match completion.result {
            Ok(bytes) if bytes == completion.operation.transfer_bytes() => {
                self.mark_unsynced(slot, failures_before);
                if !mutant::is_active(Mutant::ExtentBeforeHeader) {
                    self.shared.push_extent(self.shared.next_ordinal(), claim.extent);
                    self.offer(claim);
                }
            }
            // A header that is cut short may be half of one: the extent stays claimed and the shard stops.
            Ok(_) => self.fail_io(Verb::Write, completion.operation.device(), slot, 1, Errno(libc::EIO)),
            Err(errno) => {
                if let Operation::Write { device, sync, .. } = &completion.operation {
                    self.note_failed_write(*device, *sync);
                }
                self.fail_io(Verb::Write, completion.operation.device(), slot, 1, errno);
            }
        }
    }

    pub(super) fn offer(&mut self, claim: Claim) {
        self.ring.offer_spare(claim);
        self.space.wants_room = false;
        self.shared.wants_room.store(false, Ordering::Release);
        self.is_hungry = false;
        self.settle_starvation();
        self.recycle_written();
        self.shared.room.publish(&mut self.woken);
    }
}
