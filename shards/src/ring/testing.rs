//! Drives a ring without a device, for its tests and models: what the owner of a shard does, and the check that
//! every record is where its address says.

use super::{
    Refusal, Ring, RingSetup,
    owner::{RingOwner, SealedFrame},
    reservation::Placed,
};
use crate::{
    extents::ExtentTable,
    format::{
        checksum::StoreSeed,
        record::{RecordFlags, RecordKind, records},
    },
    geometry::Geometry,
    ids::{ExtentIndex, ExtentOrdinal, FrameNumber, ShardId, SlotIndex, StoreId},
    limits::FRAME_HEADER_BYTES,
    memory::{Placement, Region, RegionSlice},
    park::{Bell, Wakeup},
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// A bell that wakes nobody.
struct Nobody;

impl Wakeup for Nobody {
    fn wake(&self) {}
}

/// Sizes of a ring under test.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) geometry: Geometry,
    pub(super) buffer_bytes: u64,
    pub(super) buffers: u32,
    pub(super) extents: u32,
    pub(super) first_frame: u64,
    /// Slots of the first extent in front of the first frame, its header included.
    pub(super) first_slot: u64,
}

#[cfg(loom)]
impl Shape {
    /// Smaller than a store may be, so that a model of a whole turn stays small: 7 small or 1 large record per
    /// buffer, and 3 buffers per extent.
    pub(super) const TINY: Self = Self {
        geometry: Geometry { slot_shift: 9, extent_shift: 12 },
        buffer_bytes: 1024,
        buffers: 4,
        extents: 4,
        first_frame: 0,
        first_slot: 1,
    };
    /// Payload of a record of which two fit into no buffer of [`Shape::TINY`].
    pub(super) const TINY_LARGE: usize = 5 * 128 - 8;
    /// Payload of a record of which seven fit.
    pub(super) const TINY_SMALL: usize = 128 - 8;
}

/// A frame as it would have gone to the device.
pub(super) struct Written {
    pub(super) base: SlotIndex,
    pub(super) bytes: Vec<u8>,
}

/// The owner's side, and all that it flushed.
pub(super) struct Driver {
    pub(super) owner: RingOwner,
    pub(super) table: Arc<ExtentTable>,
    pub(super) frames: BTreeMap<FrameNumber, Written>,
    seed: StoreSeed,
    next: FrameNumber,
    /// First slot of the frame to flush next, or of the last one with its used bytes.
    base: SlotIndex,
    last_used: u64,
    in_flight: VecDeque<(FrameNumber, RegionSlice)>,
    offered: VecDeque<ExtentIndex>,
}

impl Driver {
    pub(super) fn new(shape: Shape) -> Self {
        Self::sharing(shape, &Arc::new(ExtentTable::new(shape.geometry, shape.extents)))
    }

    /// A further ring of the store that has the table.
    pub(super) fn sharing(shape: Shape, table: &Arc<ExtentTable>) -> Self {
        let table = Arc::clone(table);
        let first = table.claim(ShardId(0), ExtentOrdinal(0), ExtentIndex(0)).expect("the table is empty");
        let base = shape.geometry.header_slot(first.extent).offset_by(shape.first_slot);
        let bytes = shape.buffer_bytes as usize * shape.buffers as usize;
        let seed = StoreSeed::new(StoreId(*b"a ring of tests!"));
        let owner = RingOwner::new(RingSetup {
            extents: Arc::clone(&table),
            seed,
            memory: Region::new(bytes, Placement::default()).expect("memory"),
            buffer_bytes: shape.buffer_bytes,
            buffers: shape.buffers,
            bell: Arc::new(Bell::new(Arc::new(Nobody))),
            lingers: false,
            first_frame: FrameNumber(shape.first_frame),
            first_slot: Some(base),
        });
        Self {
            owner,
            table,
            frames: BTreeMap::new(),
            seed,
            next: FrameNumber(shape.first_frame),
            base,
            last_used: 0,
            in_flight: VecDeque::new(),
            offered: VecDeque::new(),
        }
    }

    pub(super) fn ring(&self) -> Arc<Ring> {
        Arc::clone(self.owner.ring())
    }

    /// Claims the next extent if the ring has none to spare. False: it has, or the table is full.
    pub(super) fn offer(&mut self) -> bool {
        if !self.owner.needs_spare() {
            return false;
        }
        let Some(claim) = self.table.claim(ShardId(0), ExtentOrdinal(0), ExtentIndex(0)) else {
            return false;
        };
        self.offered.push_back(claim.extent);
        self.owner.offer_spare(claim);
        true
    }

    /// Takes the next frame for flushing, if it is ready, and keeps a copy of it.
    pub(super) fn submit(&mut self) -> bool {
        let Some(sealed) = self.owner.begin_flush(self.next) else { return false };
        if sealed.used_bytes == 0 {
            return false;
        }
        self.base = self.next_base();
        self.last_used = sealed.used_bytes;
        self.next = sealed.number.next();
        let slice = self.freeze(&sealed);
        self.in_flight.push_back((sealed.number, slice));
        true
    }

    fn freeze(&mut self, sealed: &SealedFrame) -> RegionSlice {
        let used = sealed.used_bytes as usize;
        let slice = self.owner.freeze(sealed, |bytes| bytes[used..].fill(0));
        let written = Written { base: self.base, bytes: slice.as_slice()[..used].to_vec() };
        let before = self.frames.insert(sealed.number, written);
        assert!(before.is_none(), "{:?} is flushed once", sealed.number);
        slice
    }

    /// Where the chain of bases leads, computed from the frames alone.
    fn next_base(&mut self) -> SlotIndex {
        let ring = self.owner.ring();
        let geometry = *ring.geometry();
        let slots = geometry.slots_for(self.last_used);
        if (geometry.slots_left(self.base) - slots) * geometry.slot_bytes() >= ring.buffer_bytes() {
            return self.base.offset_by(slots);
        }
        let extent = self.offered.pop_front().expect("the ring moved into an extent that it was offered");
        geometry.first_frame_slot(extent)
    }

    /// Recycles the oldest frame in flight. False: there is none, or the ring cannot leave it yet.
    pub(super) fn complete(&mut self) -> bool {
        let Some((frame, _)) = self.in_flight.front() else { return false };
        if !self.owner.move_past(*frame) {
            return false;
        }
        let Some((frame, slice)) = self.in_flight.pop_front() else { return false };
        self.owner.recycle(frame, Some(slice));
        true
    }

    /// Seals and flushes until nothing is left. No writer is at work any more.
    pub(super) fn drain(&mut self) {
        self.owner.end_run();
        loop {
            let _open_or_not = self.owner.ring().seal();
            let mut progress = self.offer();
            progress |= self.submit();
            progress |= self.complete();
            if !progress {
                return;
            }
        }
    }

    /// Each record is in the frame and at the place that its append was told, with its bytes; there are no other
    /// data records; and no two frames share a slot.
    pub(super) fn check(&self, expected: &[(Placed, Vec<u8>)]) {
        let mut found = BTreeMap::new();
        let mut slots = BTreeMap::new();
        let geometry = *self.owner.ring().geometry();
        for (number, frame) in &self.frames {
            for slot in 0..geometry.slots_for(frame.bytes.len() as u64) {
                let other = slots.insert(frame.base.0 + slot, *number);
                assert!(other.is_none(), "{number:?} overwrites {other:?}");
            }
            self.walk(*number, frame, &mut found);
        }
        for (placed, payload) in expected {
            let record = found.remove(&placed.address.byte());
            let (frame, bytes) = record.unwrap_or_else(|| panic!("lost: {placed:?}"));
            assert_eq!(frame, placed.frame, "told the wrong frame");
            assert!(bytes == *payload, "changed: {placed:?}");
        }
        assert!(found.is_empty(), "records that nobody appended: {:?}", found.keys());
    }

    /// Void records in all frames.
    #[cfg(not(loom))]
    pub(super) fn voids(&self) -> usize {
        let geometry = self.owner.ring().geometry();
        let in_frame = |frame: &Written| {
            let generation = self.table.generation(geometry.extent_of(frame.base));
            let first = geometry.byte_of(frame.base) + FRAME_HEADER_BYTES;
            let found = records(&frame.bytes[FRAME_HEADER_BYTES as usize..], self.seed, generation, first);
            found.flatten().filter(|(_, view)| view.kind == RecordKind::VOID).count()
        };
        self.frames.values().map(in_frame).sum()
    }

    /// The numbers that the flushed frames must have.
    #[cfg(not(loom))]
    pub(super) fn first_to_last(&self) -> impl Iterator<Item = FrameNumber> {
        let first = self.frames.keys().next().map_or(self.next.0, |first| first.0);
        (first..self.next.0).map(FrameNumber)
    }

    fn walk(&self, number: FrameNumber, frame: &Written, found: &mut BTreeMap<u64, (FrameNumber, Vec<u8>)>) {
        let geometry = self.owner.ring().geometry();
        let generation = self.table.generation(geometry.extent_of(frame.base));
        let first = geometry.byte_of(frame.base) + FRAME_HEADER_BYTES;
        for record in records(&frame.bytes[FRAME_HEADER_BYTES as usize..], self.seed, generation, first) {
            let (offset, view) = record.unwrap_or_else(|error| panic!("unreadable: {number:?} {error:?}"));
            if view.kind == RecordKind::DATA {
                found.insert(first + offset, (number, view.payload.to_vec()));
            }
        }
    }
}

/// Appends as a writer does.
pub(super) fn append(ring: &Ring, payload: &[u8]) -> Result<Placed, Refusal> {
    let mut reservation = ring.reserve(payload.len())?;
    reservation.payload_mut().copy_from_slice(payload);
    Ok(reservation.commit(RecordKind::DATA, RecordFlags::NONE))
}
