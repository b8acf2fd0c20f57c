//! Going through the frames of an extent, from runs that are read ahead.

use super::{Stage, Task};
use crate::{
    address::Address,
    device::{Completion, Device, Operation},
    format::{
        checksum::StoreSeed,
        control::LogPlace,
        frame::{CheckedHeader, FrameExpectation, FrameHeader},
        moved::MovedRecord,
        record::{RecordHeader, RecordKind, check_record},
    },
    ids::{FrameNumber, Generation, SlotIndex},
    limits::{CLEAN_READ_BYTES, CLEAN_RECORDS_PER_STEP_MAX, CLEAN_SHORT_READS_MAX, FRAME_HEADER_BYTES},
    memory::{BufferPool, PooledBuffer},
    mutant::{self, Mutant},
    shard_owner::ShardOwner,
    sync::Ordering,
    token::Purpose,
};

/// The run that is read, or was.
#[derive(Debug, Default)]
pub(super) enum Reading {
    #[default]
    Idle,
    /// It was short so many times.
    Flying {
        slot: SlotIndex,
        short_reads: u32,
    },
    Here {
        slot: SlotIndex,
        buffer: PooledBuffer,
    },
    /// The device cannot read it.
    Failed,
}

/// Where a look at what was read led.
pub(super) enum Looked {
    /// Some way; there is more.
    On,
    /// These slots have to be read.
    Needs(SlotIndex, u64),
    /// The group is full, and the next record not looked at.
    Full,
    /// Behind the last record.
    Over,
    /// The record at hand is the first that the extent has of a large one that is to be moved.
    Large,
    /// It is not what it should be.
    Bad(&'static str),
}

impl ShardOwner {
    /// One step of a survey, or of copying.
    pub(super) fn go_through(&mut self, device: &mut dyn Device) -> bool {
        let Some(mut task) = self.cleaner.task.take() else { return false };
        if task.ready.is_some() {
            self.cleaner.task = Some(task);
            return self.place_group();
        }
        let reading = std::mem::take(&mut self.cleaner.reading);
        let looked = match &reading {
            Reading::Idle => Looked::Needs(task.slot, 1),
            Reading::Flying { .. } => {
                (self.cleaner.reading, self.cleaner.task) = (reading, Some(task));
                return false;
            }
            Reading::Failed => Looked::Bad("the device cannot read it"),
            Reading::Here { slot, buffer } => self.look(&mut task, *slot, buffer.as_slice()),
        };
        self.cleaner.reading = reading;
        let stage = task.stage;
        let geometry = *self.context.layout.geometry();
        match looked {
            Looked::On => {}
            Looked::Bad(why) => {
                self.cleaner.task = Some(task);
                return self.leave_alone(why);
            }
            Looked::Needs(slot, slots) => {
                self.cleaner.task = Some(task);
                return self.read_run(device, slot, slots);
            }
            Looked::Over if stage == Stage::Survey => return self.end_look(task),
            Looked::Over if stage == Stage::Roots => return self.go_on_listing(task),
            Looked::Over => {
                let up_to = geometry.byte_of(task.slot);
                self.make_ready(&mut task, up_to);
                if task.ready.is_none() {
                    task.stage = Stage::Settle;
                }
            }
            Looked::Large => {
                let byte = geometry.byte_of(task.slot) + task.offset;
                task.begin_large(byte);
            }
            Looked::Full => {
                let up_to = geometry.byte_of(task.slot) + task.offset;
                self.make_ready(&mut task, up_to);
            }
        }
        self.cleaner.task = Some(task);
        true
    }

    /// Of the extent is known now whether it can be moved, and how much of it is wanted: less at most than was counted.
    pub(super) fn end_survey(&mut self, mut task: Task) -> bool {
        let Task { mut facts, contents, dead_bytes, .. } = task;
        // What was released meanwhile may have been found dead or not.
        facts.dead_bytes = self.context.extents.raise_dead(facts.extent, dead_bytes);
        self.cleaner.contents.insert(facts.ordinal, contents);
        if task.is_resumed || self.is_worth_it(&facts) {
            task.stage = Stage::Copy;
            task.go_to(facts, self.context.layout.geometry().first_frame_slot(facts.extent));
            self.cleaner.task = Some(task);
        } else {
            // It is not looked at again.
            self.cleaner.barren_at = None;
        }
        true
    }

    fn look(&self, task: &mut Task, first: SlotIndex, bytes: &[u8]) -> Looked {
        let geometry = *self.context.layout.geometry();
        let mut budget = CLEAN_RECORDS_PER_STEP_MAX;
        loop {
            if task.frames_done >= task.walked.frames {
                return Looked::Over;
            }
            let Some(frame) = bytes_from(bytes, first, task.slot, geometry.slot_bytes()) else {
                return Looked::Needs(task.slot, 1);
            };
            let Some(CheckedHeader { header, link, .. }) = self.frame_of(task, frame) else {
                return Looked::Bad("a frame of it is not there");
            };
            let slots = header.slots(&geometry);
            let is_last = task.frames_done + 1 == task.walked.frames;
            if slots + u64::from(!is_last) > geometry.slots_left(task.slot) {
                return Looked::Bad("a frame of it is too long");
            }
            let leads_here = header.lists_from.is_some_and(|from| from <= task.facts.ordinal);
            if task.stage == Stage::Roots && !leads_here {
                task.pass_frame(slots, link);
                continue;
            }
            let Some(frame) = frame.get(..header.used_bytes as usize) else {
                return Looked::Needs(task.slot, slots);
            };
            if !is_last {
                let behind = task.slot.offset_by(slots);
                let Some(next) = bytes_from(bytes, first, behind, geometry.slot_bytes()) else {
                    return Looked::Needs(task.slot, slots + 1);
                };
                if !FrameHeader::decode(next).is_ok_and(|next| next.header.link == link) {
                    return Looked::Bad("a frame of it is not the one that the next follows");
                }
            }
            if let Some(stopped) = self.look_at_frame(task, frame, &mut budget) {
                return stopped;
            }
            task.pass_frame(slots, link);
        }
    }

    /// The header, if it is that of the extent's frame that is next. A late write may have put back one of the same
    /// number that was cut off: which one belongs there, the frame behind it says, or what is known of the last.
    fn frame_of(&self, task: &Task, bytes: &[u8]) -> Option<CheckedHeader> {
        let checked = FrameHeader::decode(bytes).ok()?;
        let facts = &task.walked;
        let number = FrameNumber(facts.first_frame.0 + u64::from(task.frames_done));
        let expectation = FrameExpectation {
            store: self.context.store,
            shard: self.shared.id(),
            generation: facts.generation,
            number,
            link: task.link,
            base_slot: task.slot,
        };
        expectation.check(&checked.header).ok()?;
        let is_last = number.next() == facts.frames_end();
        (!is_last || checked.header.unix_ns == facts.unix_ns).then_some(checked)
    }

    /// `None`: all of the frame was looked at.
    fn look_at_frame(&self, task: &mut Task, frame: &[u8], budget: &mut u32) -> Option<Looked> {
        task.offset = task.offset.max(FRAME_HEADER_BYTES);
        while task.offset < frame.len() as u64 {
            let rest = &frame[task.offset as usize..];
            let Some(header) = RecordHeader::peek(rest).filter(|it| it.stride() <= rest.len() as u64) else {
                return Some(Looked::Bad("the records of a frame lose their way"));
            };
            if *budget == 0 {
                return Some(Looked::On);
            }
            *budget -= 1;
            let looked = match task.stage {
                Stage::Survey => self.survey(task, &header, rest).err(),
                Stage::Roots => self.note_root(task, &header, rest).err(),
                _ => self.judge(task, &header, rest),
            };
            if let Some(stopped) = looked {
                return Some(stopped);
            }
            task.offset += header.stride();
        }
        None
    }

    /// Notes what the record is, and whether it is wanted.
    fn survey(&self, task: &mut Task, header: &RecordHeader, bytes: &[u8]) -> Result<(), Looked> {
        task.contents.note(header, bytes);
        task.note_large(header);
        self.note_root(task, header, bytes)?;
        let byte = self.context.layout.geometry().byte_of(task.slot) + task.offset;
        if !header.kind.is_copied() || task.is_resumed {
            return Ok(());
        }
        match self.wanted(task, header, bytes)? {
            None => task.dead_bytes += header.stride(),
            Some(_payload) if header.kind == RecordKind::BATCH_DATA => {
                task.listing.want(byte, header.stride());
            }
            Some(_payload) => {}
        }
        Ok(())
    }

    /// Takes the record into the group if it is wanted.
    fn judge(&self, task: &mut Task, header: &RecordHeader, bytes: &[u8]) -> Option<Looked> {
        let byte = self.context.layout.geometry().byte_of(task.slot) + task.offset;
        if byte < task.skip_to || !header.kind.is_movable() {
            return (!header.kind.is_movable()).then_some(Looked::Bad("a record of it cannot be moved"));
        }
        if task.has_large_at(byte) {
            // What was gathered before it goes first.
            return Some(if task.records.is_empty() { Looked::Large } else { Looked::Full });
        }
        if !header.kind.is_copied() {
            return None;
        }
        let root = match header.kind {
            RecordKind::BATCH_DATA => Some(self.root_of(task, byte)?),
            _ => None,
        };
        let payload = match self.wanted(task, header, bytes) {
            Ok(payload) => payload?,
            Err(why) => return Some(why),
        };
        if mutant::is_active(Mutant::LiveRecordSkipped) && task.records.len() == 1 {
            return None;
        }
        if !self.has_room(task, payload.len()) {
            return Some(Looked::Full);
        }
        task.records.push(MovedRecord { byte, length: header.length, root });
        task.copies.push(payload, RecordKind::MOVED);
        None
    }

    /// Where batch data comes in a scan; `None`: nowhere, for it does not count, and a copy would.
    fn root_of(&self, task: &Task, byte: u64) -> Option<LogPlace> {
        let root = task.listing.root_of(byte);
        let taken_for_one = || LogPlace { ordinal: task.facts.ordinal, byte };
        if mutant::is_active(Mutant::UncountedCopied) { root.or_else(|| Some(taken_for_one())) } else { root }
    }

    /// The payload of the record at hand if its owner wants it.
    fn wanted<'a>(
        &self,
        task: &Task,
        header: &RecordHeader,
        bytes: &'a [u8],
    ) -> Result<Option<&'a [u8]>, Looked> {
        let byte = self.context.layout.geometry().byte_of(task.slot) + task.offset;
        self.wanted_at(header, bytes, byte, task.facts.generation)
    }

    /// The same of one that lies anywhere.
    pub(super) fn wanted_at<'a>(
        &self,
        header: &RecordHeader,
        bytes: &'a [u8],
        byte: u64,
        generation: Generation,
    ) -> Result<Option<&'a [u8]>, Looked> {
        debug_assert!(header.kind.is_copied());
        let geometry = self.context.layout.geometry();
        let seed = StoreSeed::new(self.context.store).record_seed(generation, byte);
        let Ok(view) = check_record(bytes, seed) else {
            return Err(Looked::Bad("a record of it is damaged"));
        };
        let address = Address::new(geometry, byte, generation, u64::from(header.length));
        let is_live = self.context.cleaning.owner().is_some_and(|it| it.is_live(address, view.payload));
        Ok(is_live.then_some(view.payload))
    }

    // ---- runs -----------------------------------------------------------------------------------------------------

    /// Reads so many slots from a slot on, and as many more as a run has.
    pub(super) fn read_run(&mut self, device: &mut dyn Device, slot: SlotIndex, slots: u64) -> bool {
        let geometry = *self.context.layout.geometry();
        // The header behind full frames comes with them: none is taken without it.
        let run_bytes = (CLEAN_READ_BYTES + geometry.slot_bytes()).min(geometry.extent_bytes());
        if self.cleaner.pool.is_none() {
            self.cleaner.pool = BufferPool::new(run_bytes as usize, 1).ok();
        }
        self.cleaner.reading = Reading::Idle;
        let left = geometry.slots_left(slot) * geometry.slot_bytes();
        let bytes = left.min(run_bytes.max(slots * geometry.slot_bytes())) as usize;
        let pooled = self.cleaner.pool.as_ref().and_then(|pool| pool.take(bytes));
        let Some(buffer) = pooled.or_else(|| PooledBuffer::alone(bytes).ok()) else {
            return self.leave_alone("there is no memory to read it");
        };
        self.submit_run(device, slot, buffer, 0);
        true
    }

    fn submit_run(
        &mut self,
        device: &mut dyn Device,
        slot: SlotIndex,
        buffer: PooledBuffer,
        short_reads: u32,
    ) {
        let Some(place) = self.context.layout.place(slot) else { return };
        let operation = Operation::Read { device: place.device, offset: place.offset, buffer };
        self.cleaner.reading = Reading::Flying { slot, short_reads };
        self.submit_or_hold(device, Purpose::Clean(self.local).into(), operation);
    }

    /// The read of a run ended.
    pub(crate) fn clean_read_completed(&mut self, device: &mut dyn Device, completion: Completion) {
        let expected = completion.operation.transfer_bytes();
        let read = completion.result.unwrap_or(0);
        self.shared.counters().clean_read_bytes.fetch_add(read, Ordering::Relaxed);
        let Operation::Read { buffer, .. } = completion.operation else { return };
        let Reading::Flying { slot, short_reads } = self.cleaner.reading else { return };
        match completion.result {
            Ok(bytes) if bytes == expected => self.cleaner.reading = Reading::Here { slot, buffer },
            Ok(_) if short_reads < CLEAN_SHORT_READS_MAX => {
                self.submit_run(device, slot, buffer, short_reads + 1);
            }
            Ok(_) | Err(_) => self.cleaner.reading = Reading::Failed,
        }
    }

    /// A read that was never submitted.
    pub(in crate::shard_owner) fn clean_read_taken_back(&mut self) {
        self.cleaner.reading = Reading::Idle;
    }
}

/// What a run that begins at `first` holds from `slot` on; `None` if it does not reach so far.
pub(super) fn bytes_from(run: &[u8], first: SlotIndex, slot: SlotIndex, slot_bytes: u64) -> Option<&[u8]> {
    let slots = slot.0.checked_sub(first.0)?;
    run.get((slots * slot_bytes) as usize..).filter(|rest| !rest.is_empty())
}
