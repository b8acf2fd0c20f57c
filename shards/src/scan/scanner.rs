//! The scan itself: from frame to frame, and what becomes of places that are not good.

mod leaving;

use super::{
    Damage, ExtentSequence, Fault, Limit, OnDamage, Position, Run, ScanPlace, ScanRecord, ScanSetup,
    SequencedExtent, Start, Wanted,
    copies::Seen,
    error::weight,
    frame::LoadedFrame,
    window::{Lookup, Window},
    within::{Meaning, WithinBatch, lacks_any, meaning},
};
use crate::{
    format::{
        checksum::StoreSeed,
        control::LogPlace,
        frame::{CheckedHeader, FrameError, FrameExpectation, FrameHeader, Mismatch},
        manifest::{Manifest, ManifestError, ManifestOf},
    },
    ids::{ExtentOrdinal, FrameNumber, SlotIndex, Term},
    limits::{FRAME_HEADER_BYTES, HEADER_ONLY_SLOTS_MIN},
    reads::ReadError,
};
use bytes::Bytes;

/// What a scan came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// The next record.
    Record(ScanRecord),
    /// A place that is not good. A scan that stops there gives this for ever; one that skips goes on.
    Damage(Box<Damage>),
    /// Bytes are missing: read what [`Scanner::ask`] names, or what it named before.
    Need,
    /// The limit is reached. With a later limit the scan goes on.
    End,
}

/// What is known of the next frame.
#[derive(Clone, Copy, Debug)]
struct Next {
    ordinal: ExtentOrdinal,
    /// `None`: at the start of the extent.
    slot: Option<SlotIndex>,
    /// `None`: whichever is there.
    number: Option<FrameNumber>,
    link: Option<u32>,
}

/// A place where the next frame may be.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    ordinal: ExtentOrdinal,
    extent: SequencedExtent,
    slot: SlotIndex,
}

/// What comes before the first record that is wanted.
#[derive(Clone, Copy, Debug)]
enum Before {
    Nothing,
    /// Frames below this one.
    Frame(FrameNumber),
    /// What lies before this byte of the store in this extent.
    Byte(u64, ExtentOrdinal),
}

/// A look for the next frame.
enum Look {
    Found(Candidate, CheckedHeader),
    Need,
    End,
}

/// Why [`Scanner::advance`] returned.
enum Advance {
    /// Something changed; look again.
    Moved,
    Need,
    End,
}

/// A scan of one shard. It does no I/O: see [`Step`].
#[derive(Debug)]
pub struct Scanner {
    setup: ScanSetup,
    seed: StoreSeed,
    limit: Limit,
    next: Next,
    /// Bytes of the next frame that an earlier scan is done with.
    resume: u32,
    /// Records of the batch committed there that an earlier scan is done with.
    resume_batch: u64,
    /// The batch whose records come out now.
    batch: Option<WithinBatch>,
    before: Before,
    /// In the next frame, records before this byte of the store are not wanted.
    skip_to: Option<u64>,
    frame: Option<LoadedFrame>,
    window: Window,
    /// The place behind the last frame, if the next frame is not there: while the other place is looked at, the bytes
    /// of this one need not be in memory.
    tried: Option<(SlotIndex, Fault)>,
    /// The next slot that no read is planned for.
    plan: Option<(ExtentOrdinal, SlotIndex)>,
    last_term: Term,
    last_slots: u64,
    seen: Seen,
    /// Extents are missing that the scan passed over: copies of their records may be behind the limit.
    has_jumped: bool,
    /// A frame that is lost, while the next good one is looked for.
    lost: Option<Damage>,
    /// What the scan stopped at.
    stopped: Option<Damage>,
}

impl Scanner {
    /// A scan from `start`; nothing is read before the first [`Scanner::ask`].
    #[must_use]
    pub fn new(setup: ScanSetup, start: Start, limit: Limit, extents: &impl ExtentSequence) -> Self {
        let oldest = ExtentOrdinal(extents.ordinals().start);
        let beginning = |ordinal: ExtentOrdinal| match ordinal.0 {
            0 => Next { ordinal, slot: None, number: Some(FrameNumber(0)), link: Some(0) },
            _ => Next { ordinal, slot: None, number: None, link: None },
        };
        let resume_batch = if let Start::Position(position) = start { position.of_batch } else { 0 };
        let (next, resume, before) = match start {
            Start::Oldest => (beginning(oldest), 0, Before::Nothing),
            Start::Position(Position { ordinal, slot, frame: number, link, offset, .. }) => {
                (Next { ordinal, slot, number, link }, offset, Before::Nothing)
            }
            Start::Address { address, ordinal } => {
                (beginning(ordinal), 0, Before::Byte(address.byte(), ordinal))
            }
            Start::Frame { frame, ordinal } => (beginning(ordinal), 0, Before::Frame(frame)),
        };
        Self {
            setup,
            seed: StoreSeed::new(setup.store),
            limit,
            next,
            resume,
            resume_batch,
            batch: None,
            before,
            skip_to: None,
            frame: None,
            window: Window::new(setup.geometry),
            tried: None,
            plan: None,
            last_term: Term(0),
            last_slots: 1,
            seen: Seen::new(next.ordinal),
            has_jumped: false,
            lost: None,
            stopped: None,
        }
    }

    /// Lets the scan go further.
    pub fn set_limit(&mut self, limit: Limit) {
        self.limit = limit;
        self.tried = None;
    }

    /// At [`Step::End`]: goes on with what a batch has in this shard, whose commit is behind the limit. `list`: its
    /// root. The records come as if they were of `frame`.
    pub fn begin_share(
        &mut self,
        list: &[u8],
        frame: FrameNumber,
        unix_ns: u64,
    ) -> Result<(), ManifestError> {
        let list = Manifest::decode_root(list, ManifestOf::Batch)?;
        self.batch = Some(WithinBatch::share(&self.setup, self.seed, &list, frame, unix_ns));
        Ok(())
    }

    /// True once the scan has told of damage that it does not go on from.
    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    /// How far it may go.
    #[must_use]
    pub const fn limit(&self) -> Limit {
        self.limit
    }

    /// Behind the last record that was yielded.
    #[must_use]
    pub fn position(&self) -> Position {
        let shard = self.setup.shard;
        // Of a batch that is not begun, only where it is committed.
        let (within, of_batch) = match &self.batch {
            Some(WithinBatch { offset: Some(offset), .. }) => {
                (Some(*offset), self.batch.as_ref().map_or(0, WithinBatch::done))
            }
            // One whose commit is behind the limit is no place to go on from.
            _ => (None, self.resume_batch),
        };
        match &self.frame {
            Some(frame) => Position {
                shard,
                ordinal: frame.ordinal,
                slot: Some(frame.header.base_slot),
                frame: Some(frame.header.number),
                link: Some(frame.header.link),
                // A frame has at most 8 MiB.
                offset: within.unwrap_or_else(|| u32::try_from(frame.offset).unwrap_or(u32::MAX)),
                of_batch,
            },
            None => {
                let Next { ordinal, slot, number, link } = self.next;
                Position { shard, ordinal, slot, frame: number, link, offset: self.resume, of_batch }
            }
        }
    }

    /// The next read to make, so that at most `depth` are under way or waiting to be used. `None`: wait for those
    /// that are under way.
    pub fn ask(&mut self, depth: usize, extents: &impl ExtentSequence) -> Option<Run> {
        if let Some(batch) = &mut self.batch {
            // Reads are told apart by where they begin.
            let is_free = batch.wanted().is_some_and(|run| !self.window.is_asked(run.slot));
            return if is_free { batch.walk().ask() } else { None };
        }
        if let Some(run) = self.window.ask() {
            return Some(run);
        }
        let is_ahead_wanted = matches!(self.before, Before::Nothing) && self.stopped.is_none();
        if !is_ahead_wanted || self.window.len() >= depth || !self.plan_next(extents) {
            return None;
        }
        self.window.ask()
    }

    /// The bytes of a run that was asked for, by its first slot.
    pub fn supply(&mut self, slot: SlotIndex, bytes: Bytes) {
        if !self.batch.as_mut().is_some_and(|batch| batch.walk().supply(slot, Ok(bytes.clone()))) {
            self.window.supply(slot, bytes);
        }
    }

    /// A run that was asked for and not started. It will be asked for again.
    pub fn take_back(&mut self, slot: SlotIndex) {
        if !self.batch.as_mut().is_some_and(|batch| batch.walk().take_back(slot)) {
            self.window.take_back(slot);
        }
    }

    /// A run that was asked for and cannot be read. Parts of it may be asked for again.
    pub fn supply_failure(&mut self, slot: SlotIndex, error: ReadError) {
        if !self.batch.as_mut().is_some_and(|batch| batch.walk().supply(slot, Err(error.clone()))) {
            self.window.fail(slot, error);
        }
    }

    /// Goes on to the next thing to tell.
    pub fn step(&mut self, extents: &impl ExtentSequence) -> Step {
        loop {
            if let Some(damage) = &self.stopped {
                return Step::Damage(Box::new(damage.clone()));
            }
            if let Some(step) = self.next_in_batch(extents) {
                return step;
            }
            if let Some(step) = self.next_in_frame(extents) {
                return step;
            }
            if self.batch.is_some() {
                // It was begun just now.
                continue;
            }
            let advanced = match self.lost.take() {
                Some(damage) => match self.search(damage, extents) {
                    Ok(advanced) => advanced,
                    Err(damage) => return Step::Damage(damage),
                },
                None => match self.advance(extents) {
                    Ok(advanced) => advanced,
                    Err(_) if self.is_cleaned_away(extents) => {
                        let byte = self.next.slot.map_or(0, |slot| self.setup.geometry.byte_of(slot));
                        self.leave(self.next.ordinal, byte, extents);
                        continue;
                    }
                    Err(damage) => match self.settle(self.as_reclaimed(damage, extents)) {
                        Some(step) => return step,
                        None => continue,
                    },
                },
            };
            match advanced {
                Advance::Moved => {}
                Advance::Need => return Step::Need,
                Advance::End => return Step::End,
            }
        }
    }

    fn next_in_batch(&mut self, extents: &impl ExtentSequence) -> Option<Step> {
        let step = self.batch.as_mut()?.step(&self.setup, extents);
        match &step {
            None => {
                let ended = self.batch.take();
                self.has_jumped |=
                    ended.is_some_and(|batch| self.seen.end_batch(batch, &self.setup.geometry));
            }
            Some(Step::Damage(damage)) if self.setup.on_damage == OnDamage::Stop => {
                self.stopped = Some(Damage::clone(damage));
            }
            Some(_) => {}
        }
        step
    }

    /// `None`: the frame is over, or a batch was begun.
    fn next_in_frame(&mut self, extents: &impl ExtentSequence) -> Option<Step> {
        let geometry = self.setup.geometry;
        let frame = self.frame.as_mut()?;
        loop {
            let offset = u32::try_from(frame.offset).unwrap_or(u32::MAX);
            let Some(next) = frame.next() else { break };
            // What an earlier scan is done with is the batch right here, or nothing.
            let done = std::mem::take(&mut self.resume_batch);
            let next = next.map(|record| self.seen.as_counted(record, frame, extents));
            let fault = match next {
                Ok(record) if self.setup.wanted == Wanted::All => return Some(Step::Record(record)),
                Ok(record) => match meaning(&record) {
                    Meaning::Large(list) | Meaning::Batch(list)
                        if extents.has_trimmed(place_of(frame.ordinal, &record), list.from) =>
                    {
                        continue;
                    }
                    Meaning::Large(list) if lacks_any(&list, &geometry, extents) => {
                        let place = place_of(frame.ordinal, &record);
                        self.has_jumped |= self.seen.pass_large(place, &list, &geometry, extents);
                        continue;
                    }
                    Meaning::Give | Meaning::Large(_) => return Some(Step::Record(record)),
                    Meaning::Nothing => continue,
                    Meaning::Batch(list) => {
                        let place = (place_of(frame.ordinal, &record), offset, done);
                        let batch = WithinBatch::new(&self.setup, self.seed, &record, &list, place);
                        self.batch = Some(batch);
                        return None;
                    }
                    Meaning::Bad(error) => Fault::Manifest { address: record.address, error },
                },
                Err(fault) => fault,
            };
            let (number, slot) = (Some(frame.header.number), frame.header.base_slot);
            let place = ScanPlace { shard: self.setup.shard, frame: number, slot };
            // What was read of an extent that somebody else claimed meanwhile is theirs.
            let is_there = extents.extent_at(frame.ordinal).is_some();
            if !is_there && !extents.is_trimmed(frame.ordinal) {
                let (ordinal, byte) = (frame.ordinal, geometry.byte_of(slot) + u64::from(offset));
                self.leave(ordinal, byte, extents);
                return None;
            }
            let fault = if is_there { fault } else { Fault::Reclaimed };
            let damage = Damage { place, fault, resumed_at: None };
            if self.setup.on_damage == OnDamage::Stop {
                self.stopped = Some(damage.clone());
            }
            return Some(Step::Damage(Box::new(damage)));
        }
        self.frame = None;
        None
    }

    /// Damage in an extent that was freed since it was read is none.
    fn as_reclaimed(&self, damage: Damage, extents: &impl ExtentSequence) -> Damage {
        let is_gone = extents.extent_at(self.next.ordinal).is_none()
            && extents.ordinal_after(self.next.ordinal).is_some();
        if is_gone { Damage { fault: Fault::Reclaimed, ..damage } } else { damage }
    }

    /// What follows from damage of a whole frame: the end, a report, or (`None`) a search for the next good frame.
    fn settle(&mut self, damage: Damage) -> Option<Step> {
        let is_skippable = !matches!(damage.fault, Fault::Reclaimed | Fault::BehindTheEnd | Fault::NoExtent);
        if self.setup.on_damage == OnDamage::Stop || !is_skippable {
            self.stopped = Some(damage);
            return None;
        }
        if damage.place.frame.is_some() && damage.place.frame < self.next.number {
            // The header was good, and what is behind the frame is known.
            return Some(Step::Damage(Box::new(damage)));
        }
        self.resume_batch = 0;
        self.lost = Some(damage);
        None
    }

    fn damage(&self, slot: SlotIndex, fault: Fault) -> Damage {
        let place = ScanPlace { shard: self.setup.shard, frame: self.next.number, slot };
        Damage { place, fault, resumed_at: None }
    }

    // ---- the next frame -----------------------------------------------------------------------------------------

    fn advance(&mut self, extents: &impl ExtentSequence) -> Result<Advance, Damage> {
        match self.look(extents)? {
            Look::Need => Ok(Advance::Need),
            Look::End => Ok(Advance::End),
            Look::Found(candidate, checked) => self.enter(candidate, &checked, extents),
        }
    }

    /// The next frame is right behind the last one, or at the start of the next extent if it did not fit.
    fn look(&mut self, extents: &impl ExtentSequence) -> Result<Look, Damage> {
        let ordinals = extents.ordinals();
        if ordinals.is_empty() {
            return Ok(Look::End);
        }
        let oldest = SlotIndex(0);
        match self.next.number {
            Some(number) if number == self.limit.frames => return Ok(Look::End),
            Some(number) if number > self.limit.frames => {
                return Err(self.damage(self.next.slot.unwrap_or(oldest), Fault::BehindTheEnd));
            }
            _ => {}
        }
        self.pass_over_freed(extents);
        let mut worst: Option<(SlotIndex, Fault)> = None;
        for candidate in self.candidates(extents).into_iter().flatten() {
            let is_hidden = worst.as_ref().is_some_and(|(_, fault)| weight(fault) > 1);
            if is_hidden && self.is_behind_gap(candidate, extents) {
                // Whatever is there says nothing of what is damaged here.
                break;
            }
            if self.next.number.is_none() && candidate.slot == self.limit.end {
                return Ok(Look::End);
            }
            if self.is_replaced(candidate, extents) {
                continue;
            }
            let looked = match &self.tried {
                Some((slot, fault)) if *slot == candidate.slot => Err(fault.clone()),
                _ => self.look_at(candidate, extents),
            };
            match looked {
                Ok(Some(checked)) => return Ok(Look::Found(candidate, checked)),
                Ok(None) => return Ok(Look::Need),
                // Behind freed extents the scan does not know which frame is next, and may be at its limit.
                Err(Fault::OtherFrame(Mismatch::Number { found }))
                    if found >= self.limit.frames
                        && (self.next.number.is_none() || self.is_behind_gap(candidate, extents)) =>
                {
                    self.has_jumped = true;
                    return Ok(Look::End);
                }
                Err(fault) => {
                    self.tried.get_or_insert_with(|| (candidate.slot, fault.clone()));
                    let is_worse = worst.as_ref().is_none_or(|(_, other)| weight(&fault) > weight(other));
                    if is_worse {
                        worst = Some((candidate.slot, fault));
                    }
                }
            }
        }
        let is_reclaimed = extents.extent_at(self.next.ordinal).is_none()
            && extents.ordinal_after(self.next.ordinal).is_some();
        if is_reclaimed {
            return Err(self.damage(self.next.slot.unwrap_or(oldest), Fault::Reclaimed));
        }
        let (slot, fault) = worst.unwrap_or((self.next.slot.unwrap_or(oldest), Fault::NoExtent));
        Err(self.damage(slot, fault))
    }

    /// A scan that begins in an extent that was freed begins in the next one that there is.
    fn pass_over_freed(&mut self, extents: &impl ExtentSequence) {
        let is_beginning = self.next.slot.is_none() && self.next.number.is_none();
        if is_beginning && extents.extent_at(self.next.ordinal).is_none() {
            self.next.ordinal = extents.ordinal_after(self.next.ordinal).unwrap_or(self.next.ordinal);
            self.has_jumped = true;
        }
    }

    fn candidates(&self, extents: &impl ExtentSequence) -> [Option<Candidate>; 2] {
        let geometry = &self.setup.geometry;
        let start_of = |ordinal: ExtentOrdinal| {
            let extent = extents.extent_at(ordinal)?;
            Some(Candidate { ordinal, extent, slot: geometry.first_frame_slot(extent.extent) })
        };
        let first = start_of(self.next.ordinal);
        let Some(slot) = self.next.slot else { return [first, None] };
        let is_inside = |candidate: &Candidate| {
            geometry.extent_of(slot) == candidate.extent.extent && slot >= candidate.slot
        };
        let behind = first.filter(is_inside).map(|candidate| Candidate { slot, ..candidate });
        [behind, extents.ordinal_after(self.next.ordinal).and_then(start_of)]
    }

    /// True if the frame that is looked for is not in the extent. What lies there is one of the same number that an open
    /// cut off, and had no room for a whole buffer in its place.
    fn is_replaced(&self, candidate: Candidate, extents: &impl ExtentSequence) -> bool {
        let is_behind = |end| self.next.number.is_some_and(|number| number >= end);
        self.next.slot == Some(candidate.slot) && extents.frames_end(candidate.ordinal).is_some_and(is_behind)
    }

    /// True if extents between the one at hand and the candidate's were freed.
    fn is_behind_gap(&self, candidate: Candidate, extents: &impl ExtentSequence) -> bool {
        candidate.ordinal.0 > self.next.ordinal.0 + 1 && extents.extent_at(self.next.ordinal).is_some()
    }

    /// The end of what may be read of an extent.
    fn readable_end(&self, extent: SequencedExtent) -> SlotIndex {
        let geometry = &self.setup.geometry;
        if extent.extent == self.limit.last_extent(geometry) {
            return self.limit.end;
        }
        let header = geometry.header_slot(extent.extent);
        SlotIndex(header.0 + geometry.slots_per_extent())
    }

    /// The header at a place, if it is the next frame's. `Ok(None)`: it is still to be read.
    fn look_at(
        &mut self,
        candidate: Candidate,
        extents: &impl ExtentSequence,
    ) -> Result<Option<CheckedHeader>, Fault> {
        let Some(bytes) = self.bytes_at(candidate, extents)? else { return Ok(None) };
        let checked = FrameHeader::decode(&bytes).map_err(Fault::Header)?;
        let header = &checked.header;
        // What lies between was freed: the frame there is the next, whichever it is.
        let is_behind_gap = self.is_behind_gap(candidate, extents);
        let expectation = FrameExpectation {
            store: self.setup.store,
            shard: self.setup.shard,
            generation: candidate.extent.generation,
            number: if is_behind_gap { header.number } else { self.next.number.unwrap_or(header.number) },
            link: if is_behind_gap { header.link } else { self.next.link.unwrap_or(header.link) },
            base_slot: candidate.slot,
        };
        expectation.check(header).map_err(Fault::OtherFrame)?;
        if is_behind_gap && self.next.number.is_some_and(|number| header.number < number) {
            return Err(Fault::OtherFrame(Mismatch::Number { found: header.number }));
        }
        self.check_bounds(candidate, header)?;
        Ok(Some(checked))
    }

    fn check_bounds(&self, candidate: Candidate, header: &FrameHeader) -> Result<(), Fault> {
        if header.term < self.last_term {
            return Err(Fault::OlderTerm);
        }
        if header.number >= self.limit.frames {
            return Err(Fault::OtherFrame(Mismatch::Number { found: header.number }));
        }
        let end = candidate.slot.0 + header.slots(&self.setup.geometry);
        if end > self.readable_end(candidate.extent).0 { Err(Fault::Overlong) } else { Ok(()) }
    }

    /// Takes the frame that was found, once all of it is there.
    fn enter(
        &mut self,
        candidate: Candidate,
        checked: &CheckedHeader,
        extents: &impl ExtentSequence,
    ) -> Result<Advance, Damage> {
        let header = checked.header;
        self.window.discard_before(candidate.slot);
        if self.is_before(candidate, &header) {
            self.pass(candidate, checked);
            return Ok(Advance::Moved);
        }
        let mut frame = LoadedFrame::new(header, candidate.ordinal, self.setup.geometry, self.seed);
        let mut slot = candidate.slot;
        while !frame.is_whole() {
            let bytes = match self.bytes_at(Candidate { slot, ..candidate }, extents) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return Ok(Advance::Need),
                Err(fault) => return Err(self.lose_frame(candidate, checked, slot, fault)),
            };
            slot = slot.offset_by(self.setup.geometry.slots_for(bytes.len() as u64));
            frame.push(&bytes);
        }
        // A position at the head of a frame says 0, one between records says where.
        if let Err(fault) = frame.check(self.resume) {
            return Err(self.lose_frame(candidate, checked, candidate.slot, fault));
        }
        if self.resume > 0 {
            frame.skip_to(self.setup.geometry.byte_of(header.base_slot) + u64::from(self.resume));
        }
        if let Some(byte) = self.skip_to.take() {
            frame.skip_to(byte);
        }
        self.pass(candidate, checked);
        self.frame = Some(frame);
        Ok(Advance::Moved)
    }

    /// True if everything in the frame comes before what is wanted.
    fn is_before(&mut self, candidate: Candidate, header: &FrameHeader) -> bool {
        let geometry = &self.setup.geometry;
        let is_before = match self.before {
            Before::Nothing => false,
            Before::Frame(frame) => header.number < frame,
            Before::Byte(byte, ordinal) if candidate.ordinal == ordinal => {
                self.skip_to = Some(byte);
                geometry.byte_of(header.end_slot(geometry)) <= byte
            }
            Before::Byte(..) => {
                self.skip_to = None;
                false
            }
        };
        if !is_before {
            self.before = Before::Nothing;
        }
        is_before
    }

    /// Goes on behind a frame.
    fn pass(&mut self, candidate: Candidate, checked: &CheckedHeader) {
        let geometry = &self.setup.geometry;
        let end = checked.header.end_slot(geometry);
        self.resume = 0;
        self.tried = None;
        self.last_term = checked.header.term;
        self.last_slots = checked.header.slots(geometry);
        if self.next.slot.is_some() && candidate.ordinal != self.next.ordinal {
            self.seen.leave(self.next.ordinal, u64::MAX);
            self.has_jumped |= candidate.ordinal.0 > self.next.ordinal.0 + 1;
        }
        self.seen.enter(candidate.extent.extent);
        self.next = Next {
            ordinal: candidate.ordinal,
            slot: Some(end),
            number: Some(checked.header.number.next()),
            link: Some(checked.link),
        };
        self.window.discard_before(end);
    }

    /// A frame whose header is good and whose records are not.
    fn lose_frame(
        &mut self,
        candidate: Candidate,
        checked: &CheckedHeader,
        slot: SlotIndex,
        fault: Fault,
    ) -> Damage {
        let place = ScanPlace { shard: self.setup.shard, frame: Some(checked.header.number), slot };
        // A scan that stops here has not passed it: its position is before the frame.
        if self.setup.on_damage == OnDamage::Skip {
            self.pass(candidate, checked);
            self.resume_batch = 0;
        }
        Damage { place, fault, resumed_at: None }
    }

    // ---- behind damage ------------------------------------------------------------------------------------------

    /// Looks slot by slot for the next frame of the shard. `Err`: here is the report, the search is over.
    fn search(&mut self, mut damage: Damage, extents: &impl ExtentSequence) -> Result<Advance, Box<Damage>> {
        self.tried = None;
        loop {
            let Some(candidate) = self.next_slot_to_search(extents) else {
                // Nothing of the log is left: the report is the last thing, and the scan is at its limit.
                (self.next.number, self.next.link) = (Some(self.limit.frames), None);
                return Err(Box::new(damage));
            };
            match self.bytes_at(candidate, extents) {
                Ok(None) => {
                    self.lost = Some(damage);
                    return Ok(Advance::Need);
                }
                Ok(Some(bytes)) => {
                    if let Some(number) = self.frame_after_damage(candidate, &bytes) {
                        damage.resumed_at = Some(number);
                        let (ordinal, slot) = (candidate.ordinal, Some(candidate.slot));
                        self.next = Next { ordinal, slot, number: Some(number), link: None };
                        return Err(Box::new(damage));
                    }
                }
                Err(_) => {}
            }
            self.next.slot = Some(candidate.slot.offset_by(1));
        }
    }

    fn next_slot_to_search(&mut self, extents: &impl ExtentSequence) -> Option<Candidate> {
        let last = self.limit.last_extent(&self.setup.geometry);
        loop {
            let Some(extent) = extents.extent_at(self.next.ordinal) else {
                let ordinal = extents.ordinal_after(self.next.ordinal)?;
                self.next = Next { ordinal, slot: None, ..self.next };
                self.has_jumped = true;
                continue;
            };
            let first = self.setup.geometry.first_frame_slot(extent.extent);
            let slot = self.next.slot.unwrap_or(first);
            if slot >= first && slot < self.readable_end(extent) {
                return Some(Candidate { ordinal: self.next.ordinal, extent, slot });
            }
            if extent.extent == last {
                return None;
            }
            let ordinal = extents.ordinal_after(self.next.ordinal)?;
            self.next = Next { ordinal, slot: None, ..self.next };
        }
    }

    fn frame_after_damage(&self, candidate: Candidate, bytes: &[u8]) -> Option<FrameNumber> {
        let header = FrameHeader::decode(bytes).ok()?.header;
        let expectation = FrameExpectation {
            store: self.setup.store,
            shard: self.setup.shard,
            generation: candidate.extent.generation,
            number: header.number,
            link: header.link,
            base_slot: candidate.slot,
        };
        expectation.check(&header).ok()?;
        self.check_bounds(candidate, &header).ok()?;
        let is_later = self.next.number.is_none_or(|number| header.number > number);
        is_later.then_some(header.number)
    }

    // ---- bytes --------------------------------------------------------------------------------------------------

    /// The bytes from a slot on, as many as came with it. `Ok(None)`: they are still to be read.
    fn bytes_at(
        &mut self,
        candidate: Candidate,
        extents: &impl ExtentSequence,
    ) -> Result<Option<Bytes>, Fault> {
        if candidate.slot >= self.readable_end(candidate.extent) {
            return Err(Fault::Header(FrameError::Absent));
        }
        match self.window.lookup(candidate.slot) {
            Lookup::Here(bytes) if bytes.len() as u64 >= FRAME_HEADER_BYTES => Ok(Some(bytes)),
            Lookup::Here(bytes) => Err(Fault::Header(FrameError::Truncated { found: bytes.len() as u64 })),
            Lookup::Failed(error) => Err(Fault::Unreadable(error)),
            Lookup::Awaited => Ok(None),
            Lookup::Unplanned => {
                if self.planned_place(extents) != Some((candidate.ordinal, candidate.slot)) {
                    // The scan went another way than foreseen.
                    self.window.clear();
                    self.plan = Some((candidate.ordinal, candidate.slot));
                }
                // False if the extent was freed since the caller looked.
                if self.plan_next(extents) { Ok(None) } else { Err(Fault::NoExtent) }
            }
        }
    }

    /// Where the next planned read begins: [`Scanner::plan`], carried over the end of an extent.
    fn planned_place(&self, extents: &impl ExtentSequence) -> Option<(ExtentOrdinal, SlotIndex)> {
        let (ordinal, slot) = self.plan?;
        let geometry = &self.setup.geometry;
        let extent = extents.extent_at(ordinal)?;
        if geometry.extent_of(slot) == extent.extent {
            return Some((ordinal, slot));
        }
        if extent.extent == self.limit.last_extent(geometry) {
            return None;
        }
        let next = extents.ordinal_after(ordinal)?;
        Some((next, geometry.first_frame_slot(extents.extent_at(next)?.extent)))
    }

    /// Plans one more read. False: there is nothing more to read within the limit.
    fn plan_next(&mut self, extents: &impl ExtentSequence) -> bool {
        let Some((ordinal, slot)) = self.planned_place(extents) else { return false };
        let Some(extent) = extents.extent_at(ordinal) else { return false };
        let left = self.readable_end(extent).0.saturating_sub(slot.0);
        if left == 0 {
            return false;
        }
        let jumps = !matches!(self.before, Before::Nothing) && self.last_slots >= HEADER_ONLY_SLOTS_MIN;
        let chunk = self.setup.geometry.slots_for(self.setup.chunk_bytes).max(1);
        let run = Run { slot, slots: left.min(if jumps { 1 } else { chunk }) };
        self.window.plan(run);
        self.plan = Some((ordinal, run.end()));
        true
    }
}

const fn place_of(ordinal: ExtentOrdinal, record: &ScanRecord) -> LogPlace {
    LogPlace { ordinal, byte: record.address.byte() }
}
