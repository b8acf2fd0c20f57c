//! What has to be true: every record that was issued, every frame that was submitted, and what was promised of them.
//!
//! The invariants have the numbers that `docs/RELIABILITY.md` lists. What recovery finds is compared in `check`.

use crate::{
    address::Address,
    failure::ShardFailure,
    format::{control::BatchId, extent_header::ExtentHeader, frame::FrameHeader},
    geometry::Geometry,
    ids::{ExtentOrdinal, FrameNumber, ShardId},
    recovery::RecoveredExtent,
    ring::reservation::Placed,
    shard::Shard,
    watermark::Watermarks,
};

use super::{cleaning::Index, drained::Drains, over::Over, space::SpaceHistory};
use std::sync::Arc;

/// Rings are far shorter.
const FRAMES_AHEAD_MAX: u64 = 10_000;

/// Whether a record can come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was given to the store, and no more is known.
    Issued,
    /// The store said where it is.
    Placed(Placed),
    /// It was refused, dropped, or cut off by a recovery: it must not come back.
    Gone,
    /// Of a batch over several shards that may have been decided: it may come, wherever its shard resolves that.
    Decided,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub shard: ShardId,
    pub length: u32,
    /// It goes in and comes out in parts.
    pub is_large: bool,
    pub fate: Fate,
    /// When it was given to the store, and when the store had said where it is; by the clock of the oracle.
    pub issued_at: u64,
    pub placed_at: u64,
}

/// What is known of a frame.
#[derive(Clone, Debug, Default)]
pub(super) struct Frame {
    /// As submitted; the last time, if it was written again.
    pub header: Option<FrameHeader>,
    /// Of the extent that it was submitted to.
    pub ordinal: Option<ExtentOrdinal>,
    /// Records that the store said are in it.
    pub records: Vec<u64>,
}

/// One shard over all lives.
#[derive(Debug, Default)]
pub(super) struct History {
    pub frames: Vec<Frame>,
    /// Frames below this number were acknowledged as durable.
    pub durable: u64,
    /// Frames below this number were taken by the device, in this life.
    pub written: u64,
    has_failed: bool,
    /// Frame and byte of the record that lies furthest behind, of those whose append returned in this life.
    last: (FrameNumber, u64),
    pub space: SpaceHistory,
}

impl History {
    pub(super) fn frame_mut(&mut self, number: FrameNumber) -> &mut Frame {
        let index = number.0 as usize;
        if self.frames.len() <= index {
            self.frames.resize_with(index + 1, Frame::default);
        }
        &mut self.frames[index]
    }
}

/// The memory of a case.
#[derive(Debug)]
pub(super) struct Oracle {
    pub geometry: Geometry,
    pub records: Vec<Record>,
    pub shards: Vec<History>,
    /// Who wrote a slot last, and which frame.
    slots: Vec<Option<(ShardId, FrameNumber)>>,
    /// The last claim of each extent.
    pub claims: Vec<Option<ExtentHeader>>,
    /// All that there were.
    pub claimed: Vec<ExtentHeader>,
    /// Counts what is asked and answered.
    pub clock: u64,
    /// Batches over several shards that may be there.
    pub overs: Vec<Over>,
    /// What this life has to resolve of them, before anything else.
    pub owed: Vec<(BatchId, ShardId)>,
    /// The superblock that was last known to be durable.
    pub superblock_sequence: u64,
    /// Of a case with cleaning.
    pub index: Option<Arc<Index>>,
    /// Of a case with retired shards.
    pub drains: Drains,
}

impl Oracle {
    pub(super) fn new(geometry: Geometry, extents: u32) -> Self {
        let slots = u64::from(extents) * geometry.slots_per_extent();
        Self {
            geometry,
            records: Vec::new(),
            shards: Vec::new(),
            slots: vec![None; slots as usize],
            claims: vec![None; extents as usize],
            claimed: Vec::new(),
            clock: 0,
            overs: Vec::new(),
            owed: Vec::new(),
            superblock_sequence: 0,
            index: None,
            drains: Drains::default(),
        }
    }

    pub(super) fn issue(&mut self, shard: ShardId, length: usize) -> u64 {
        self.push(shard, length, false, Fate::Issued)
    }

    /// A record of a batch, or a large one: it must not come back before [`Oracle::accepted`].
    pub(super) fn issue_hidden(&mut self, shard: ShardId, length: usize, is_large: bool) -> u64 {
        self.push(shard, length, is_large, Fate::Gone)
    }

    fn push(&mut self, shard: ShardId, length: usize, is_large: bool, fate: Fate) -> u64 {
        self.clock += 1;
        let length = length as u32;
        self.records.push(Record { shard, length, is_large, fate, issued_at: self.clock, placed_at: 0 });
        self.records.len() as u64 - 1
    }

    /// The store says that a hidden record is in the log. `placed` has the frame that makes it count, so that all of a
    /// batch stand or fall with one frame.
    pub(super) fn accepted(&mut self, id: u64, placed: Placed) -> Result<(), String> {
        self.records[id as usize].fate = Fate::Issued;
        self.placed(id, placed)
    }

    /// The store, or the log, says where a record is. Its answer may come after the log was seen.
    pub(super) fn placed(&mut self, id: u64, placed: Placed) -> Result<(), String> {
        let shard = self.records[id as usize].shard;
        if placed.frame.0 > self.shards[usize::from(shard.0)].frames.len() as u64 + FRAMES_AHEAD_MAX {
            return Err(format!("I10: record {id} is placed at {placed:?}, where no ring is"));
        }
        let record = &mut self.records[id as usize];
        match std::mem::replace(&mut record.fate, Fate::Placed(placed)) {
            Fate::Issued | Fate::Decided => {}
            Fate::Placed(known)
                if known.frame == placed.frame && known.address.byte() == placed.address.byte() =>
            {
                return Ok(());
            }
            fate => return Err(format!("I10: record {id} is placed at {placed:?}, and was {fate:?}")),
        }
        self.clock += 1;
        record.placed_at = self.clock;
        let is_large = record.is_large;
        self.shards[usize::from(record.shard.0)].frame_mut(placed.frame).records.push(id);
        if let Some(index) = &self.index {
            if is_large {
                index.learn_large(id, placed.address);
            }
            index.learn(id, placed.address);
        }
        Ok(())
    }

    pub(super) fn gone(&mut self, id: u64) {
        self.records[id as usize].fate = Fate::Gone;
    }

    /// Looks at a shard's watermarks: what they say is a promise from now on.
    /// An append that reserved when it was called returned: everything that returned before is in front of it.
    pub(super) fn is_behind_all(&mut self, shard: ShardId, placed: Placed) -> Result<(), String> {
        let (history, place) =
            (&mut self.shards[usize::from(shard.0)], (placed.frame, placed.address.byte()));
        let last = std::mem::replace(&mut history.last, place);
        if last < place {
            return Ok(());
        }
        Err(format!("I12: a record of {shard:?} is at {place:?}, and an append before it got {last:?}"))
    }

    pub(super) fn observe(&mut self, shard: &Shard) -> Result<(), String> {
        let id = shard.id();
        let Watermarks { submitted, written, durable, .. } = shard.watermarks();
        let history = &mut self.shards[usize::from(id.0)];
        if durable > written || written > submitted {
            return Err(format!("P4: {id:?}: durable {durable}, written {written}, submitted {submitted}"));
        }
        if history.has_failed && durable.0 > history.durable {
            return Err(format!("I6: {id:?} acknowledged {durable} after it failed"));
        }
        history.durable = history.durable.max(durable.0);
        history.written = history.written.max(written.0);
        let failure = shard.failure();
        history.has_failed = failure.is_some();
        match failure {
            Some(failure @ ShardFailure::MalformedFrame { .. }) => Err(format!("I13: {failure}")),
            _ => Ok(()),
        }
    }

    /// A frame goes to the device.
    pub(super) fn submitted(&mut self, header: FrameHeader) -> Result<(), String> {
        let slots = header.slots(&self.geometry);
        for slot in header.base_slot.0..header.base_slot.0 + slots {
            let owner = self.slots[slot as usize].replace((header.shard, header.number));
            if let Some((shard, frame)) = owner
                && (shard, frame) != (header.shard, header.number)
                && self.is_live(shard, frame)
            {
                return Err(format!(
                    "I4: slot {slot} of {shard:?} {frame:?} is written again by {:?} {:?}",
                    header.shard, header.number
                ));
            }
        }
        let claim = self.claims[self.geometry.extent_of(header.base_slot).0 as usize];
        let Some(claim) = claim.filter(|it| it.owner == header.shard && it.generation == header.generation)
        else {
            return Err(format!("I4: {:?} {:?} goes to an extent of {claim:?}", header.shard, header.number));
        };
        let frame = self.shards[usize::from(header.shard.0)].frame_mut(header.number);
        frame.ordinal = Some(claim.ordinal);
        let is_other = |known: &FrameHeader| known.base_slot != header.base_slot;
        if frame.header.as_ref().is_some_and(is_other) {
            return Err(format!("I4: {:?} {:?} is written to two places", header.shard, header.number));
        }
        frame.header = Some(header);
        Ok(())
    }

    /// Recovery found these extents to be those of `shard`. A power loss, or a device that lies, may have taken the header of the
    /// last claim of one, and left that of an earlier claim, which has the same generation where nobody knew of it.
    pub(super) fn found(&mut self, shard: ShardId, extents: &[RecoveredExtent]) {
        for found in extents {
            let is_it = |it: &&ExtentHeader| {
                (it.extent, it.owner, it.generation) == (found.index, shard, found.generation)
            };
            if let Some(claim) = self.claimed.iter().rfind(is_it) {
                self.claims[found.index.0 as usize] = Some(*claim);
            }
        }
    }

    /// An extent is claimed.
    pub(super) fn claimed(&mut self, header: &ExtentHeader) -> Result<(), String> {
        let first = self.geometry.header_slot(header.extent).0 as usize;
        let slots = &self.slots[first..first + self.geometry.slots_per_extent() as usize];
        let lives = slots.iter().flatten().find(|(shard, frame)| self.is_live(*shard, *frame));
        match lives {
            Some((shard, frame)) => Err(format!(
                "I4: {:?} claims {:?}, which holds {shard:?} {frame:?}",
                header.owner, header.extent
            )),
            None => {
                self.claims[header.extent.0 as usize] = Some(*header);
                self.claimed.push(*header);
                Ok(())
            }
        }
    }

    /// The last claim of the extent that an address lies in.
    pub(super) fn claim_of(&self, address: Address) -> Option<ExtentHeader> {
        self.claims[address.extent(&self.geometry).0 as usize]
    }

    fn is_live(&self, shard: ShardId, frame: FrameNumber) -> bool {
        let history = &self.shards[usize::from(shard.0)];
        let known = history.frames.get(frame.0 as usize);
        known.is_some_and(|known| {
            known.header.is_some()
                && !history.space.may_be_gone(known.ordinal)
                && !self.is_cleaned_out(usize::from(shard.0), frame)
        })
    }

    /// A life begins behind `next` of a shard: what is behind it is gone for ever.
    pub(super) fn resume(&mut self, shard: ShardId, next: FrameNumber) {
        while self.shards.len() <= usize::from(shard.0) {
            self.shards.push(History::default());
        }
        for owner in &mut self.slots {
            *owner = owner.filter(|(other, frame)| *other != shard || *frame < next);
        }
        let history = &mut self.shards[usize::from(shard.0)];
        let cut = history.frames.split_off(history.frames.len().min(next.0 as usize));
        history.frames.resize_with(next.0 as usize, Frame::default);
        // Opening synced what it found before it said anything.
        history.durable = next.0;
        history.written = next.0;
        history.last = (next, 0);
        history.has_failed = false;
        for id in cut.iter().flat_map(|frame| &frame.records) {
            self.records[*id as usize].fate = Fate::Gone;
        }
        for record in &mut self.records {
            // What recovery found of these has a place by now.
            if record.shard == shard && record.fate == Fate::Issued {
                record.fate = Fate::Gone;
            }
        }
    }

    /// The machine went down: what was written and not durable is no longer promised.
    pub(super) fn lost_power(&mut self) {
        self.shards.iter_mut().for_each(|history| history.written = history.durable);
    }

    /// Everything accepted of a shard that closed in order is durable.
    pub(super) fn closed(&self, shard: ShardId) -> Result<(), String> {
        let history = &self.shards[usize::from(shard.0)];
        let lost = history.frames.iter().skip(history.durable as usize).find(|it| !it.records.is_empty());
        match lost {
            Some(frame) => {
                Err(format!("P1: {shard:?} closed, and record {} is not durable", frame.records[0]))
            }
            None => Ok(()),
        }
    }
}
