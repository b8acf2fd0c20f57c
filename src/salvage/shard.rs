//! One shard: its extents in the order of its log, frame by frame, and the stretches between frames.

use super::{
    Found, LossOf, Salvage, SalvageError, SalvageReport, SalvagedRecord,
    reading::Slots,
    records::{Piece, Stretch, are_lengths_good, pieces},
};
use bytes::Bytes;
use corelog_shards::{
    address::Address,
    format::{
        control::Control,
        frame::FrameHeader,
        moved::{MovedGroup, Origin},
        record::{RecordKind, RecordView},
    },
    ids::{FrameNumber, Generation, ShardId, SlotIndex},
    limits::{BUFFER_BYTES_MAX, FRAME_HEADER_BYTES, RECORD_ALIGNMENT},
};

/// Slots between two frames, or behind the last.
#[derive(Clone, Copy)]
struct Gap {
    found: Found,
    start: SlotIndex,
    end: SlotIndex,
}

/// The walk over one shard.
pub(super) struct Walk<'a, 'b> {
    pub(super) salvage: &'a Salvage,
    pub(super) slots: &'a mut Slots<'b>,
    pub(super) report: &'a mut SalvageReport,
    pub(super) shard: ShardId,
    /// Frames below this number were durable.
    durable: FrameNumber,
    /// The number of the next frame.
    pub(super) next: FrameNumber,
    /// Stretches since the last frame, in the order of the log.
    gaps: Vec<Gap>,
    /// All extents of the shard.
    pub(super) extents: Vec<Found>,
    /// The group of copies that was met last, and how many of them.
    group: Option<(MovedGroup, usize)>,
}

pub(super) type Sink<'a, E> = dyn FnMut(SalvagedRecord) -> Result<(), E> + 'a;

impl<'a, 'b> Walk<'a, 'b> {
    pub(super) const fn new(
        salvage: &'a Salvage,
        slots: &'a mut Slots<'b>,
        report: &'a mut SalvageReport,
        shard: ShardId,
        durable: FrameNumber,
    ) -> Self {
        Self {
            salvage,
            slots,
            report,
            shard,
            durable,
            next: FrameNumber(0),
            gaps: Vec::new(),
            extents: Vec::new(),
            group: None,
        }
    }

    pub(super) fn run<E>(
        &mut self,
        extents: &[Found],
        sink: &mut Sink<'_, E>,
    ) -> Result<(), SalvageError<E>> {
        self.extents = extents.to_vec();
        self.next = self.oldest(extents)?;
        for found in extents {
            self.walk_extent(*found, sink)?;
        }
        if self.next < self.durable {
            self.lose_up_to(self.durable, sink)?;
        }
        for slot in self.slots.take_unreadable() {
            let loss = self.salvage.loss(Some(self.shard), slot, LossOf::Slots { count: 1 });
            self.report.lose(loss);
        }
        Ok(())
    }

    /// Frame 0, unless the log says that its beginning was freed: then the first one that is there.
    fn oldest<E>(&mut self, extents: &[Found]) -> Result<FrameNumber, SalvageError<E>> {
        let (Some(first), Some(last)) = (extents.first(), extents.last()) else { return Ok(FrameNumber(0)) };
        let slot = self.salvage.geometry().first_frame_slot(last.extent);
        let was_freed = self.salvage.frame_at(self.slots, slot)?.is_some_and(|frame| frame.oldest.0 > 0);
        Ok(if was_freed { first.first } else { FrameNumber(0) })
    }

    fn walk_extent<E>(&mut self, found: Found, sink: &mut Sink<'_, E>) -> Result<(), SalvageError<E>> {
        let geometry = self.salvage.geometry();
        let first = geometry.first_frame_slot(found.extent);
        let end = first.offset_by(geometry.slots_left(first));
        let (mut slot, mut behind) = (first, first);
        while slot < end {
            let frame = self.salvage.frame_at(self.slots, slot)?;
            let is_next = |frame: &FrameHeader| {
                frame.generation == found.generation && frame.shard == self.shard && frame.number >= self.next
            };
            let Some(frame) = frame.filter(is_next) else {
                slot = slot.offset_by(1);
                continue;
            };
            self.gaps.push(Gap { found, start: behind, end: slot });
            if frame.number > self.next {
                self.lose_up_to(frame.number, sink)?;
            }
            self.gaps.clear();
            self.take_frame(&frame, sink)?;
            self.next = frame.number.next();
            slot = frame.end_slot(&geometry);
            behind = slot;
        }
        self.gaps.push(Gap { found, start: behind, end });
        Ok(())
    }

    fn take_frame<E>(&mut self, frame: &FrameHeader, sink: &mut Sink<'_, E>) -> Result<(), SalvageError<E>> {
        let geometry = self.salvage.geometry();
        let bytes = self.slots.at(frame.base_slot, frame.slots(&geometry))?;
        // Copied, so that the window can go on.
        let bytes = Bytes::copy_from_slice(&bytes[..frame.used_bytes as usize]);
        let body = &bytes[FRAME_HEADER_BYTES as usize..];
        let lengths_are_good = are_lengths_good(frame, body);
        if !lengths_are_good && frame.number >= self.durable {
            // It did not arrive whole: what is good in it may be of an older frame that was cut off here.
            self.lose(frame.base_slot, LossOf::Tail { first: frame.number });
            return Ok(());
        }
        self.report.frames += 1;
        let byte = geometry.byte_of(frame.base_slot) + FRAME_HEADER_BYTES;
        let stretch = Stretch { seed: self.salvage.seed(), generation: frame.generation, byte };
        for piece in pieces(body, stretch, lengths_are_good) {
            match piece {
                Piece::Good(byte, view) => self.give(byte, frame.generation, &view, sink)?,
                Piece::Bad(byte) => {
                    let slot = SlotIndex(byte / geometry.slot_bytes());
                    self.lose(slot, LossOf::Record { frame: frame.number, byte });
                }
            }
        }
        Ok(())
    }

    /// The frames from the next one to before `number` have no header. Records of theirs may be in the gaps.
    fn lose_up_to<E>(&mut self, number: FrameNumber, sink: &mut Sink<'_, E>) -> Result<(), SalvageError<E>> {
        let first = self.next;
        if self.salvage.was_freed(self.shard, first, number) {
            self.gaps.clear();
            return Ok(());
        }
        let slot =
            self.gaps.iter().find(|gap| gap.start < gap.end).or(self.gaps.first()).map(|gap| gap.start);
        if first >= self.durable {
            self.lose(slot.unwrap_or_default(), LossOf::Tail { first });
            return Ok(());
        }
        self.lose(slot.unwrap_or_default(), LossOf::Frames { first, count: number.0 - first.0 });
        for gap in std::mem::take(&mut self.gaps) {
            self.search(gap, sink)?;
        }
        Ok(())
    }

    /// Looks for records at every place where one can begin.
    fn search<E>(&mut self, gap: Gap, sink: &mut Sink<'_, E>) -> Result<(), SalvageError<E>> {
        let geometry = self.salvage.geometry();
        let most = BUFFER_BYTES_MAX / geometry.slot_bytes();
        let mut byte = geometry.byte_of(gap.start);
        let end = geometry.byte_of(gap.end);
        while byte < end {
            let slot = SlotIndex(byte / geometry.slot_bytes());
            let slots = (gap.end.0 - slot.0).min(most);
            let bytes = Bytes::copy_from_slice(self.slots.at(slot, slots)?);
            let from = byte - geometry.byte_of(slot);
            let stretch = Stretch { seed: self.salvage.seed(), generation: gap.found.generation, byte };
            let mut last_end = byte;
            for piece in pieces(&bytes[from as usize..], stretch, false) {
                if let Piece::Good(at, view) = piece {
                    last_end = at + view.stride();
                    self.report.records_without_frame +=
                        u64::from(matches!(view.kind, RecordKind::DATA | RecordKind::MOVED));
                    self.give(at, gap.found.generation, &view, sink)?;
                }
            }
            let read_to = geometry.byte_of(slot.offset_by(slots));
            // A record may begin in this stretch and end in the next: look again from its second half on.
            byte = if read_to == end {
                end
            } else {
                last_end.max((read_to - (read_to - byte) / 2).next_multiple_of(RECORD_ALIGNMENT))
            };
        }
        Ok(())
    }

    fn give<E>(
        &mut self,
        byte: u64,
        generation: Generation,
        view: &RecordView<'_>,
        sink: &mut Sink<'_, E>,
    ) -> Result<(), SalvageError<E>> {
        let length = view.payload.len() as u64;
        let address = Address::new(&self.salvage.geometry(), byte, generation, length);
        let is_wanted = match view.kind {
            RecordKind::DATA => true,
            RecordKind::MOVED => self.copy_counts(),
            RecordKind::LARGE_MANIFEST if view.header().is_copy() && !self.copy_counts() => return Ok(()),
            _ => false,
        };
        if !is_wanted {
            self.note_group(view);
            return self.give_listed(view, address, sink);
        }
        self.report.records += 1;
        self.report.bytes += length;
        let payload = Bytes::copy_from_slice(view.payload);
        let record = SalvagedRecord { shard: self.shard, address, payload, part: None };
        sink(record).map_err(SalvageError::Sink)
    }

    fn note_group(&mut self, view: &RecordView<'_>) {
        if view.kind == RecordKind::CONTROL {
            self.group = match Control::decode(view.payload) {
                Ok(Some(Control::Moved(group))) => Some((group, 0)),
                _ => None,
            };
        }
    }

    /// True unless the original is there. One whose group is lost is given: twice is better than not at all.
    fn copy_counts(&mut self) -> bool {
        let Some((group, met)) = &mut self.group else { return true };
        *met += 1;
        if *met >= group.records.len() {
            let origin = self.group.take().map(|(group, _)| group.origin);
            return origin.is_none_or(|origin| !self.has(&origin));
        }
        let origin = group.origin;
        !self.has(&origin)
    }

    fn has(&self, origin: &Origin) -> bool {
        let is_it = |it: &Found| it.extent == origin.extent && it.generation == origin.generation;
        self.extents.iter().any(is_it)
    }

    pub(super) fn lose(&mut self, slot: SlotIndex, of: LossOf) {
        let loss = self.salvage.loss(Some(self.shard), slot, of);
        self.report.lose(loss);
    }
}
