//! Finding the extent in which a frame is, by the first frames of extents.

use super::{ExtentSequence, Limit, Run, SequencedExtent};
use crate::{
    format::frame::{FrameExpectation, FrameHeader},
    geometry::Geometry,
    ids::{ExtentOrdinal, FrameNumber, ShardId, SlotIndex, StoreId},
};

/// What [`Locate`] needs, or has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocateStep {
    /// The bytes of these slots.
    Need(Run),
    /// The extent to begin in; `None`: the shard has none.
    Found(Option<ExtentOrdinal>),
}

/// Halves the shard's extents until the one is left whose first frame is the last that is not behind the target. An
/// extent whose first frame is damaged counts as behind it: then the scan begins earlier, and finds the damage.
#[derive(Debug)]
pub struct Locate {
    store: StoreId,
    shard: ShardId,
    geometry: Geometry,
    target: FrameNumber,
    low: u64,
    high: u64,
    asked: Option<(ExtentOrdinal, SequencedExtent)>,
}

impl Locate {
    /// A search for `target` among what `limit` allows.
    #[must_use]
    pub fn new(
        store: StoreId,
        shard: ShardId,
        geometry: Geometry,
        target: FrameNumber,
        limit: &Limit,
        extents: &impl ExtentSequence,
    ) -> Self {
        let ordinals = extents.ordinals();
        let last = limit.last_extent(&geometry);
        let is_last = |ordinal: &u64| {
            extents.extent_at(ExtentOrdinal(*ordinal)).is_some_and(|extent| extent.extent == last)
        };
        // Behind the written end, and in an extent without a written frame, may be frames that were cut off.
        let is_empty = limit.end == geometry.first_frame_slot(last);
        let high = ordinals
            .clone()
            .rev()
            .find(is_last)
            .map_or(ordinals.start, |last| if is_empty { last } else { last + 1 });
        Self { store, shard, geometry, target, low: ordinals.start, high, asked: None }
    }

    fn middle(&self) -> u64 {
        self.low + (self.high - self.low) / 2
    }

    /// Goes on as far as it can.
    pub fn step(&mut self, extents: &impl ExtentSequence) -> LocateStep {
        while self.high.saturating_sub(self.low) > 1 {
            let middle = ExtentOrdinal(self.middle());
            let at = if extents.extent_at(middle).is_some() {
                Some(middle)
            } else {
                extents.ordinal_after(middle)
            };
            let at = at.filter(|at| at.0 < self.high);
            match at.and_then(|at| Some((at, extents.extent_at(at)?))) {
                Some((at, extent)) => {
                    self.asked = Some((at, extent));
                    return LocateStep::Need(Run { slot: self.first_slot(extent), slots: 1 });
                }
                // All from here on were freed.
                None => self.high = self.middle(),
            }
        }
        let found = !extents.ordinals().is_empty();
        LocateStep::Found(found.then_some(ExtentOrdinal(self.low)))
    }

    const fn first_slot(&self, extent: SequencedExtent) -> SlotIndex {
        self.geometry.first_frame_slot(extent.extent)
    }

    /// The slot that was needed, or `None` if it cannot be read.
    pub fn supply(&mut self, bytes: Option<&[u8]>) {
        let Some((at, extent)) = self.asked.take() else { return };
        let header = bytes.and_then(|bytes| FrameHeader::decode(bytes).ok()).map(|checked| checked.header);
        let is_before = header.is_some_and(|header| {
            let expectation = FrameExpectation {
                store: self.store,
                shard: self.shard,
                generation: extent.generation,
                number: header.number,
                link: header.link,
                base_slot: self.first_slot(extent),
            };
            expectation.check(&header).is_ok() && header.number <= self.target
        });
        if is_before {
            self.low = at.0;
        } else {
            self.high = self.middle();
        }
    }
}
