//! Closing in order, and failing.

use super::{NextExtent, ShardOwner};
use crate::{
    device::{Errno, Operation, Verb},
    failure::ShardFailure,
    format::superblock::{ShardEntry, ShardState},
    ids::{DeviceIndex, FrameNumber, SlotIndex},
    mutant::{self, Mutant},
    token::Purpose,
};

impl ShardOwner {
    /// Takes no more appends; what was accepted goes to the device and is synced.
    pub(crate) fn close(&mut self) {
        if std::mem::replace(&mut self.is_closing, true) {
            return;
        }
        self.refuse_requests();
        self.set_hope(false);
        self.settle_owed_look();
        let last = self.ring.close();
        // Whoever waits for room has to hear that there will be none; no completion may be left to say so.
        if !mutant::is_active(Mutant::CloseWakesNobody) {
            self.shared.room.publish(&mut self.woken);
        }
        if !mutant::is_active(Mutant::CloseForgetsAccepted) {
            let is_empty = self.ring.state(last).offset() == 0;
            let Some(last) = (if is_empty { last.0.checked_sub(1) } else { Some(last.0) }) else { return };
            let _own_request = self.shared.durable.want(FrameNumber(last));
        }
    }

    /// True once everything accepted is durable and nothing is in flight, or the shard failed and nothing is.
    pub(crate) fn is_drained(&self) -> bool {
        let has_notes = self.space.has_notes() && self.shared.health.failure().is_none();
        let is_quiet = !has_notes
            && self.flights.iter().all(|flight| flight.slice.is_some())
            && matches!(self.next_extent, NextExtent::Idle);
        let failed = self.shared.health.failure().is_some();
        is_quiet && (failed || self.shared.durable.reached() >= self.shared.durable.wanted())
    }

    /// What the superblock says of the shard after a clean close. `None`: it is not drained, or failed.
    #[must_use]
    pub fn clean_tail(&self) -> Option<ShardEntry> {
        let is_clean = self.is_drained() && self.shared.health.failure().is_none();
        is_clean.then_some(ShardEntry {
            state: ShardState::Active,
            durable: self.next_frame,
            tail_slot: self.tail_slot,
            tail_link: self.link,
        })
    }

    pub(super) fn fail_io(
        &mut self,
        verb: Verb,
        device: DeviceIndex,
        slot: SlotIndex,
        slots: u64,
        errno: Errno,
    ) {
        let shard = self.shared.id();
        let frame = self.shared.durable.reached();
        self.fail(match errno.0 {
            libc::ENOSPC | libc::EDQUOT => ShardFailure::DeviceFull { shard, device, slot, slots, frame },
            _ => ShardFailure::Io { shard, verb, device, slot, slots, frame, errno },
        });
    }

    /// Operations that the device never saw give their memory back.
    pub(super) fn take_back_held(&mut self) {
        for (token, operation) in std::mem::take(&mut self.held) {
            match (Purpose::of(token), operation) {
                (Some(Purpose::Frame(_, frame)), Operation::Write { bytes, .. }) => {
                    let flight = self.flights.iter_mut().find(|flight| flight.frame == frame);
                    if let Some(flight) = flight {
                        flight.slice = Some(bytes);
                    }
                }
                // The extent stays withdrawn; the next open finds it free.
                (Some(Purpose::Discard(_)), _) => {}
                (Some(Purpose::Clean(_)), _) => self.clean_read_taken_back(),
                _ => self.next_extent = NextExtent::Idle,
            }
        }
    }

    /// Stops the shard: no more appends, no more acknowledgements, and everyone who waits hears of it.
    pub(crate) fn fail(&mut self, failure: ShardFailure) {
        if self.shared.health.fail(failure) {
            self.ring.close();
            self.refuse_requests();
            self.set_hope(false);
            self.settle_owed_look();
            self.take_back_held();
            self.shared.written.wake_all();
            self.shared.durable.wake_all();
            self.shared.room.publish(&mut self.woken);
        }
    }
}
