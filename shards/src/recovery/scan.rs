//! One shard: from its oldest extent, frame by frame, to the end of its log.
//!
//! First the headers are walked as far as the chain holds. Then the place behind the last one is judged, with what
//! can be seen behind it as a witness. Then the records of those frames that nothing proves durable are checked, and
//! the log ends before the first that is not good.

use super::{
    BodyFact, Context, Decision, Facts, FrameFault, HeaderFact, LaterFact, Loss, LossKind, Place,
    RecoveredShard, RecoveryError, RecoverySource, ShardExtents, TailKind, TailReport, WitnessFact,
    check_body, decide,
    space::{Gathered, Settled, recovered},
    start::{Search, Start},
    survey::fits,
    window::Window,
};
use crate::{
    format::{
        control::ExtentFacts,
        extent_header::ExtentHeader,
        frame::{CheckedHeader, FrameError, FrameExpectation, FrameHeader, Mismatch},
        superblock::ShardEntry,
    },
    geometry::Geometry,
    ids::{ExtentOrdinal, FrameNumber, ShardId, SlotIndex, Term},
    limits::HEADER_ONLY_SLOTS_MIN,
    shard_owner::CheckpointPlace,
};

/// Of two places that could hold the next frame and do not: the one that looks more like damage.
fn worse(one: Stop, other: Stop) -> Stop {
    let weight = |stop: &Stop| match stop.header {
        HeaderFact::Expected => 0,
        HeaderFact::Absent => 1,
        HeaderFact::Stale => 2,
        HeaderFact::WrongLink => 3,
        HeaderFact::Misplaced => 4,
        HeaderFact::Corrupt => 5,
    };
    if weight(&other) > weight(&one) { other } else { one }
}

const fn fact_of(mismatch: Mismatch) -> HeaderFact {
    match mismatch {
        Mismatch::Foreign { .. } | Mismatch::Stale { .. } | Mismatch::Number { .. } => HeaderFact::Stale,
        Mismatch::Misdirected { .. } | Mismatch::OtherShard { .. } => HeaderFact::Misplaced,
        Mismatch::Link { .. } => HeaderFact::WrongLink,
    }
}

/// A slot in one of the shard's extents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    /// Place of the extent in the shard's list.
    extent: usize,
    slot: SlotIndex,
}

/// What is known of the next frame.
#[derive(Clone, Copy, Debug)]
struct Next {
    number: FrameNumber,
    /// `None` for the oldest frame of a log whose beginning was freed: whatever it is, it begins the log.
    link: Option<u32>,
    /// Behind the last frame; `None` before the first.
    position: Option<Position>,
}

/// A frame of the chain whose records have to be checked.
#[derive(Clone, Copy, Debug)]
struct Pending {
    position: Position,
    number: FrameNumber,
    link: u32,
    used_bytes: u32,
    records: u32,
}

impl Pending {
    const fn of(position: Position, header: &FrameHeader) -> Self {
        let FrameHeader { number, link, used_bytes, records, .. } = *header;
        Self { position, number, link, used_bytes, records }
    }
}

/// Why the chain of headers ends.
#[derive(Clone, Copy, Debug)]
struct Stop {
    header: HeaderFact,
    fault: FrameFault,
    position: Option<Position>,
}

/// Frames behind the end of the chain.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    count: u64,
    highest: Option<FrameNumber>,
    /// Frames below this number were durable, by what was seen here.
    durable: FrameNumber,
}

#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    checked: u64,
}

struct Scan<'a, S: ?Sized> {
    context: &'a Context<'a, S>,
    geometry: Geometry,
    shard: ShardId,
    entry: ShardEntry,
    extents: &'a ShardExtents,
    window: Window<'a, S>,
    next: Next,
    first: Option<FrameNumber>,
    last_term: Term,
    /// Of any sound frame of the store that was seen, part of the log or not.
    highest_term: Term,
    last_slots: u64,
    /// The highest `oldest` that a frame of the chain states.
    oldest: ExtentOrdinal,
    durable: FrameNumber,
    totals: Totals,
    pending: Vec<Pending>,
    /// Frames with control records, in order.
    controls: Vec<Pending>,
    /// What was seen in each extent of the chain.
    facts: Vec<Option<ExtentFacts>>,
    losses: Vec<Loss>,
}

/// Recovers one shard.
pub(super) fn recover_shard<S: RecoverySource + ?Sized>(
    context: &Context<'_, S>,
    shard: ShardId,
    extents: &ShardExtents,
) -> Result<RecoveredShard, RecoveryError> {
    let seen = Search::new(context, shard, extents)?.run()?;
    let found = match &seen.start {
        Some(start) => recover_from(context, shard, extents, Some(start), seen.durable),
        None => recover_from(context, shard, extents, None, seen.durable),
    };
    let recovered = match found {
        // As far as the log can be followed without it.
        Err(RecoveryError::Checkpoint { place, .. }) if context.options.salvage => {
            let mut recovered = recover_from(context, shard, extents, None, seen.durable)?;
            recovered.losses.insert(0, Loss { place, kind: LossKind::HeaderCorrupt });
            recovered
        }
        found => found?,
    };
    Ok(RecoveredShard { highest_term: recovered.highest_term.max(seen.highest_term), ..recovered })
}

fn recover_from<S: RecoverySource + ?Sized>(
    context: &Context<'_, S>,
    shard: ShardId,
    extents: &ShardExtents,
    start: Option<&Start>,
    durable: FrameNumber,
) -> Result<RecoveredShard, RecoveryError> {
    let (before, extents) = extents.divided(start);
    let mut scan = Scan::new(context, shard, &extents)?;
    scan.durable = scan.durable.max(durable);
    if let Some(start) = start {
        scan.begin_at(start)?;
    }
    let stop = scan.walk()?;
    if start.is_none() {
        scan.check_beginning()?;
    }
    let tail = scan.judge_tail(stop)?;
    let tail = scan.check_bodies(tail)?;
    let settled = scan.settle(start, &before)?;
    Ok(scan.finish(tail, start, settled))
}

impl<'a, S: RecoverySource + ?Sized> Scan<'a, S> {
    fn new(
        context: &'a Context<'a, S>,
        shard: ShardId,
        extents: &'a ShardExtents,
    ) -> Result<Self, RecoveryError> {
        let entry = context.superblock.shards.get(usize::from(shard.0)).copied().unwrap_or_default();
        let geometry = context.superblock.geometry;
        let next = match extents.chain.first() {
            Some(oldest) if oldest.ordinal.0 > 0 => {
                Next { number: oldest.frame_floor, link: None, position: None }
            }
            _ => Next { number: FrameNumber(0), link: Some(0), position: None },
        };
        Ok(Self {
            context,
            geometry,
            shard,
            entry,
            extents,
            window: Window::new(context.source, geometry, context.options.window_bytes)?,
            next,
            first: None,
            last_term: Term(0),
            highest_term: Term(0),
            last_slots: 1,
            oldest: ExtentOrdinal(0),
            durable: entry.durable.max(extents.durable_seen),
            totals: Totals::default(),
            pending: Vec::new(),
            controls: Vec::new(),
            facts: vec![None; extents.chain.len()],
            losses: Vec::new(),
        })
    }

    /// The walk begins with the frame that a checkpoint covers up to.
    fn begin_at(&mut self, start: &Start) -> Result<(), RecoveryError> {
        let lost = |place, why| RecoveryError::Checkpoint { place, why };
        let place = self.place(FrameNumber(0), start.slot);
        let found = match self.window.at(start.slot, 1, 1) {
            Ok(bytes) => FrameHeader::decode(bytes),
            Err(RecoveryError::Unreadable { .. }) if self.context.options.salvage => {
                return Err(lost(place, "its frame cannot be read"));
            }
            Err(error) => return Err(error),
        };
        let Ok(CheckedHeader { header, .. }) = found else {
            return Err(lost(place, "no sound frame is there"));
        };
        let place = Place { frame: header.number, ..place };
        let position = Position { extent: 0, slot: start.slot };
        self.next = Next { number: header.number, link: Some(header.link), position: Some(position) };
        match self.classify(position, &header) {
            Ok(()) => Ok(()),
            Err(_) => Err(lost(place, "another frame is in its place")),
        }
    }

    /// Reads the frames with control records, and finds out what the shard's space is.
    fn settle(&mut self, start: Option<&Start>, before: &[ExtentHeader]) -> Result<Settled, RecoveryError> {
        let place =
            self.place(self.first.unwrap_or_default(), start.map_or(SlotIndex(0), |start| start.slot));
        if start.is_some() && self.first.is_none() {
            return Err(RecoveryError::Checkpoint { place, why: "its frame is no part of the log" });
        }
        let mut gathered = Gathered::new(start.and(self.first));
        for frame in std::mem::take(&mut self.controls) {
            if frame.number >= self.next.number {
                break;
            }
            let frame_place = self.place(frame.number, frame.position.slot);
            let (geometry, seed, context) = (self.geometry, self.context.seed, self.context);
            let (header, bytes) = self.read_frame(frame.position.slot)?;
            let is_good = check_body(&header, bytes, &geometry, seed) == BodyFact::Good
                && gathered.take_frame(context, &geometry, &header, bytes).is_ok();
            if !is_good {
                self.fail(Decision::FailCorrupt, frame_place, FrameFault::Body)?;
            }
        }
        if !gathered.is_whole {
            return Err(RecoveryError::Checkpoint { place, why: "not all of its parts are in the log" });
        }
        let settled = gathered.settle(self.shard, before, self.extents, &self.facts);
        if let Some(lost) = settled.lost {
            if !self.context.options.salvage {
                let ExtentFacts { ordinal, extent, generation, first_frame: frame, .. } = lost;
                return Err(RecoveryError::ExtentLost {
                    shard: self.shard,
                    ordinal,
                    extent,
                    generation,
                    frame,
                });
            }
            let place = self.place(lost.first_frame, self.geometry.first_frame_slot(lost.extent));
            self.losses.push(Loss { place, kind: LossKind::LostWrite });
        }
        Ok(settled)
    }

    fn count(&mut self, extent: usize, header: &FrameHeader) {
        let Some(claim) = self.extents.chain.get(extent) else { return };
        let Some(facts) = self.facts.get_mut(extent) else { return };
        facts.get_or_insert(ExtentFacts::begun_by(claim.ordinal, claim.extent, header)).count(header);
    }

    /// Takes a frame out of the counts. Lists that it was the root of still hold up trimming, which does no harm.
    fn discount(&mut self, frame: &Pending) {
        let Some(facts) = self.facts.get_mut(frame.position.extent) else { return };
        let Some(known) = facts else { return };
        known.frames = known.frames.saturating_sub(1);
        known.records = known.records.saturating_sub(u64::from(frame.records));
        known.bytes = known.bytes.saturating_sub(u64::from(frame.used_bytes));
        if known.frames == 0 {
            *facts = None;
        }
    }

    /// Follows the headers to the first place that is not the next frame's.
    fn walk(&mut self) -> Result<Stop, RecoveryError> {
        loop {
            let mut stop: Option<Stop> = None;
            let mut found = None;
            for position in self.candidates().into_iter().flatten() {
                match self.look(position)? {
                    Ok(checked) => {
                        found = Some((position, checked));
                        break;
                    }
                    Err(other) => stop = Some(stop.map_or(other, |first| worse(first, other))),
                }
            }
            match found {
                Some((position, checked)) => {
                    let (position, checked) = self.successor_of(position, checked)?;
                    self.accept(position, &checked);
                }
                None => return Ok(stop.unwrap_or_else(|| self.stop_without_place())),
            }
        }
    }

    /// The frame that counts, if the next extent begins with one of the same number and of a later term: an open that
    /// found this one torn cut it off, and had no room for a whole buffer in its place.
    fn successor_of(
        &mut self,
        position: Position,
        checked: CheckedHeader,
    ) -> Result<(Position, CheckedHeader), RecoveryError> {
        let Some(next) = self.extents.chain.get(position.extent + 1) else { return Ok((position, checked)) };
        let slot = self.geometry.first_frame_slot(next.extent);
        let firsts = &self.extents.firsts;
        let rival = firsts.binary_search_by_key(&slot, |frame| frame.base_slot).ok();
        let is_later =
            |rival: &FrameHeader| rival.number == checked.header.number && rival.term > checked.header.term;
        if rival.and_then(|index| firsts.get(index)).is_some_and(is_later) {
            let rival = Position { extent: position.extent + 1, slot };
            if let Ok(checked) = self.look(rival)? {
                return Ok((rival, checked));
            }
        }
        Ok((position, checked))
    }

    fn stop_without_place(&self) -> Stop {
        let position = self.next.position;
        Stop { header: HeaderFact::Absent, fault: FrameFault::NoExtent, position }
    }

    /// The next frame is right behind the last one, or at the start of the next extent if it did not fit.
    fn candidates(&self) -> [Option<Position>; 2] {
        let start_of = |extent: usize| {
            let header = self.extents.chain.get(extent)?;
            Some(Position { extent, slot: self.geometry.first_frame_slot(header.extent) })
        };
        match self.next.position {
            None => [start_of(0), None],
            Some(behind) if self.is_inside(behind) => [Some(behind), start_of(behind.extent + 1)],
            Some(behind) => [start_of(behind.extent + 1), None],
        }
    }

    fn is_inside(&self, position: Position) -> bool {
        let extent = self.extents.chain.get(position.extent);
        extent.is_some_and(|header| self.geometry.extent_of(position.slot) == header.extent)
    }

    fn look(&mut self, position: Position) -> Result<Result<CheckedHeader, Stop>, RecoveryError> {
        let want = if self.last_slots >= HEADER_ONLY_SLOTS_MIN { 1 } else { self.window.capacity_slots() };
        let stop = |header, fault| Err(Stop { header, fault, position: Some(position) });
        let bytes = match self.window.at(position.slot, 1, want) {
            Ok(bytes) => bytes,
            Err(RecoveryError::Unreadable { slot, .. }) if self.context.options.salvage => {
                let place = self.place(self.next.number, slot);
                self.losses.push(Loss { place, kind: LossKind::Unreadable });
                return Ok(stop(HeaderFact::Corrupt, FrameFault::Header(FrameError::Truncated { found: 0 })));
            }
            Err(error) => return Err(error),
        };
        Ok(match FrameHeader::decode(bytes) {
            Ok(checked) => {
                self.note_term(&checked.header);
                match self.classify(position, &checked.header) {
                    Ok(()) if self.contradicts_superblock(&checked) => {
                        let mismatch = Mismatch::Link { found: checked.link };
                        stop(HeaderFact::WrongLink, FrameFault::Other(mismatch))
                    }
                    Ok(()) => Ok(checked),
                    Err((header, fault)) => stop(header, fault),
                }
            }
            Err(error @ (FrameError::Absent | FrameError::NotAFrame)) => {
                stop(HeaderFact::Absent, FrameFault::Header(error))
            }
            Err(FrameError::NewerVersion { found }) => {
                return Err(RecoveryError::NewerVersion { slot: position.slot, found });
            }
            Err(error) => stop(HeaderFact::Corrupt, FrameFault::Header(error)),
        })
    }

    /// The superblock knows the last frame of the log that it was written for: another one in its place, from before
    /// an earlier cut, was brought back by the device.
    fn contradicts_superblock(&self, checked: &CheckedHeader) -> bool {
        checked.header.number.next() == self.entry.durable && checked.link != self.entry.tail_link
    }

    fn note_term(&mut self, header: &FrameHeader) {
        if header.store == self.context.superblock.store {
            self.highest_term = self.highest_term.max(header.term);
        }
    }

    fn classify(&self, position: Position, header: &FrameHeader) -> Result<(), (HeaderFact, FrameFault)> {
        let Some(extent) = self.extents.chain.get(position.extent) else {
            return Err((HeaderFact::Absent, FrameFault::NoExtent));
        };
        let number = if self.next.link.is_none() { header.number } else { self.next.number };
        let link = self.next.link.unwrap_or(header.link);
        let expectation = self.expectation(extent, position.slot, number, link);
        // The place first, then the term: a wrong link in a frame of an older term is just its past.
        expectation
            .check_place(header)
            .map_err(|mismatch| (fact_of(mismatch), FrameFault::Other(mismatch)))?;
        if !self.term_fits(header) || header.term < self.last_term {
            return Err((HeaderFact::Stale, FrameFault::OlderTerm));
        }
        expectation.check(header).map_err(|mismatch| (fact_of(mismatch), FrameFault::Other(mismatch)))?;
        if self.next.link.is_none() && header.number < extent.frame_floor {
            let mismatch = Mismatch::Number { found: header.number };
            return Err((HeaderFact::Stale, FrameFault::Other(mismatch)));
        }
        if !fits(&self.geometry, header) {
            return Err((HeaderFact::Corrupt, FrameFault::Overlong));
        }
        Ok(())
    }

    fn expectation(
        &self,
        extent: &ExtentHeader,
        base_slot: SlotIndex,
        number: FrameNumber,
        link: u32,
    ) -> FrameExpectation {
        let (store, shard) = (self.context.superblock.store, self.shard);
        FrameExpectation { store, shard, generation: extent.generation, number, link, base_slot }
    }

    /// Frames behind the tail that the superblock states are of its term or a later one: what an earlier open had
    /// left there was cut off when that superblock was written, even if the device brings it back.
    fn term_fits(&self, header: &FrameHeader) -> bool {
        header.number < self.entry.durable || header.term >= self.context.superblock.term
    }

    fn accept(&mut self, position: Position, checked: &CheckedHeader) {
        let header = &checked.header;
        self.first.get_or_insert(header.number);
        self.durable = self.durable.max(header.durable);
        if header.number >= self.durable || self.context.options.verify_bodies {
            self.pending.push(Pending::of(position, header));
        }
        if header.has_control {
            self.controls.push(Pending::of(position, header));
        }
        self.count(position.extent, header);
        self.oldest = self.oldest.max(header.oldest);
        self.last_term = header.term;
        self.last_slots = header.slots(&self.geometry);
        let behind = Position { slot: position.slot.offset_by(self.last_slots), ..position };
        self.next = Next { number: header.number.next(), link: Some(checked.link), position: Some(behind) };
    }

    /// A log that does not begin with its first extent has to say itself that what was before is freed.
    fn check_beginning(&mut self) -> Result<(), RecoveryError> {
        let (Some(oldest), Some(first)) = (self.extents.chain.first(), self.first) else { return Ok(()) };
        if oldest.ordinal <= self.oldest {
            return Ok(());
        }
        let before = FrameNumber(first.0.saturating_sub(1));
        let place = self.place(before, self.geometry.first_frame_slot(oldest.extent));
        self.fail(Decision::FailLostWrite, place, FrameFault::NoExtent)
    }

    fn judge_tail(&mut self, stop: Stop) -> Result<TailReport, RecoveryError> {
        let number = self.next.number;
        let ends_clean = self.ends_where_closed();
        let seen = if ends_clean { Seen::default() } else { self.look_behind()? };
        self.durable = self.durable.max(seen.durable);
        // A log whose beginning was freed holds the durable frame that allowed it.
        let by_superblock = self.entry.durable > number || self.next.link.is_none();
        let witness = if by_superblock { WitnessFact::ProvenDurable } else { WitnessFact::Unproven };
        let later = match (self.durable > number, seen.count > 0) {
            (true, _) => LaterFact::SeenProving,
            (false, true) => LaterFact::SeenUnproven,
            (false, false) => LaterFact::NoneSeen,
        };
        let decision = decide(Facts { header: stop.header, body: BodyFact::Unchecked, witness, later });
        let place = stop.position.map(|position| self.place(number, position.slot));
        let mut tail = TailReport {
            kind: TailKind::EndOfLog,
            place,
            cut_frames: seen.count,
            cut_bytes: 0,
            highest_seen: seen.highest,
        };
        let (error, lost) = match decision {
            // What an interrupted write of an earlier open left behind the end of a closed log is nobody's tail.
            Decision::CutTornTail | Decision::CutUncertainTail if ends_clean => (None, TailKind::Clean),
            Decision::CutTornTail => (None, TailKind::TornTail),
            Decision::CutUncertainTail => (None, TailKind::TailUncertain),
            Decision::FailCorrupt | Decision::FailLostWrite | Decision::FailMisdirected => {
                (Some(decision), TailKind::Salvaged)
            }
            _ => (None, if ends_clean { TailKind::Clean } else { TailKind::EndOfLog }),
        };
        tail.kind = lost;
        if let Some(decision) = error {
            self.fail(decision, place.unwrap_or_else(|| self.place(number, SlotIndex(0))), stop.fault)?;
        }
        Ok(tail)
    }

    /// An error, or with salvage an entry in the list of losses.
    fn fail(&mut self, decision: Decision, place: Place, fault: FrameFault) -> Result<(), RecoveryError> {
        let durable = self.durable;
        let (kind, error) = match decision {
            Decision::FailLostWrite => {
                (LossKind::LostWrite, RecoveryError::LostWrite { place, fault, durable })
            }
            Decision::FailMisdirected => {
                (LossKind::Misdirected, RecoveryError::Misdirected { place, fault, durable })
            }
            _ if fault == FrameFault::Body => {
                (LossKind::BodyCorrupt, RecoveryError::Corrupt { place, fault, durable })
            }
            _ => (LossKind::HeaderCorrupt, RecoveryError::Corrupt { place, fault, durable }),
        };
        if !self.context.options.salvage {
            return Err(error);
        }
        self.losses.push(Loss { place, kind });
        Ok(())
    }

    /// True if the store was closed, and this is where it was closed.
    fn ends_where_closed(&self) -> bool {
        // Number and link say which frame is the last. The place of the next is not compared: one that was cut off at
        // the start of an extent leaves it there, and nobody sees that again.
        self.context.superblock.clean
            && self.entry.durable == self.next.number
            && self.next.link == Some(self.entry.tail_link)
    }

    /// Looks for frames of this shard behind the end of the chain, in what is left of its extent and in every later
    /// one, until as many bytes as a ring reaches hold none.
    fn look_behind(&mut self) -> Result<Seen, RecoveryError> {
        let extents = self.extents;
        let mut seen = Seen { durable: extents.durable_seen, ..Seen::default() };
        let (first, from) = match self.next.position {
            Some(at) if self.is_inside(at) => (at.extent, Some(at.slot)),
            Some(at) => (at.extent + 1, None),
            None => (0, None),
        };
        let later =
            extents.chain.iter().chain(&extents.beyond).chain(&extents.headless).enumerate().skip(first);
        for (index, extent) in later {
            let start = from.filter(|_| index == first);
            let start = start.unwrap_or_else(|| self.geometry.first_frame_slot(extent.extent));
            self.look_through(extent, start, &mut seen)?;
        }
        if let Some(highest) = extents.highest_seen.filter(|highest| *highest >= self.next.number) {
            // It may lie in an extent that cannot be read any further.
            seen.highest = seen.highest.max(Some(highest));
            seen.count = seen.count.max(1);
        }
        Ok(seen)
    }

    fn look_through(
        &mut self,
        extent: &ExtentHeader,
        start: SlotIndex,
        seen: &mut Seen,
    ) -> Result<(), RecoveryError> {
        let reach = self.geometry.slots_for(self.context.superblock.reach_bytes).max(1);
        let end = start.0 + self.geometry.slots_left(start);
        let (mut slot, mut empty) = (start, 0);
        while slot.0 < end && empty < reach {
            let frame = self.later_frame(extent, slot, reach - empty)?;
            seen.durable = seen.durable.max(frame.map_or(FrameNumber(0), |header| header.durable));
            match frame.filter(|it| it.number >= self.next.number && it.term >= self.last_term) {
                Some(header) => {
                    seen.highest = seen.highest.max(Some(header.number));
                    seen.count += 1;
                    (slot, empty) = (slot.offset_by(header.slots(&self.geometry)), 0);
                }
                // Nothing, or what a cut left here: a frame that replaced it may begin within.
                None => (slot, empty) = (slot.offset_by(1), empty + 1),
            }
        }
        Ok(())
    }

    /// A sound frame of this shard and of the present, of whatever number, at this place.
    fn later_frame(
        &mut self,
        extent: &ExtentHeader,
        slot: SlotIndex,
        want: u64,
    ) -> Result<Option<FrameHeader>, RecoveryError> {
        let bytes = match self.window.at(slot, 1, want) {
            Ok(bytes) => bytes,
            Err(RecoveryError::Unreadable { .. }) if self.context.options.salvage => return Ok(None),
            Err(error) => return Err(error),
        };
        let Ok(CheckedHeader { header, .. }) = FrameHeader::decode(bytes) else { return Ok(None) };
        self.note_term(&header);
        let expectation = self.expectation(extent, slot, header.number, header.link);
        let counts = expectation.check_place(&header).is_ok() && self.term_fits(&header);
        Ok(Some(header).filter(|header| counts && fits(&self.geometry, header)))
    }

    /// Checks the records of the frames that nothing proves durable (or of all), and ends the log before the first
    /// that are not good.
    fn check_bodies(&mut self, tail: TailReport) -> Result<TailReport, RecoveryError> {
        let pending = std::mem::take(&mut self.pending);
        for (index, frame) in pending.iter().enumerate() {
            let is_proven = frame.number < self.durable;
            if is_proven && !self.context.options.verify_bodies {
                continue;
            }
            let Some(body) = self.check_frame(frame)? else { continue };
            // Everything behind an unproven frame is unproven too, and so pending.
            let rest = pending.get(index..).unwrap_or_default();
            let later = if frame.number.next() < self.next.number || tail.cut_frames > 0 {
                LaterFact::SeenUnproven
            } else {
                LaterFact::NoneSeen
            };
            let witness = if is_proven { WitnessFact::ProvenDurable } else { WitnessFact::Unproven };
            let place = self.place(frame.number, frame.position.slot);
            match decide(Facts { header: HeaderFact::Expected, body, witness, later }) {
                Decision::CutTornTail => return Ok(self.cut(rest, tail, TailKind::TornTail)),
                Decision::CutUncertainTail => return Ok(self.cut(rest, tail, TailKind::TailUncertain)),
                decision @ Decision::FailCorrupt => self.fail(decision, place, FrameFault::Body)?,
                _ => self.totals.checked += 1,
            }
        }
        Ok(tail)
    }

    /// Reads a whole frame again, now with its records. `None`: it cannot be read, which salvage lists as a loss.
    fn check_frame(&mut self, frame: &Pending) -> Result<Option<BodyFact>, RecoveryError> {
        let (slot, geometry, seed) = (frame.position.slot, self.geometry, self.context.seed);
        match self.read_frame(slot).map(|(header, bytes)| check_body(&header, bytes, &geometry, seed)) {
            Ok(body) => Ok(Some(body)),
            Err(RecoveryError::Unreadable { .. }) if self.context.options.salvage => {
                let place = self.place(frame.number, slot);
                self.losses.push(Loss { place, kind: LossKind::Unreadable });
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn read_frame(&mut self, slot: SlotIndex) -> Result<(FrameHeader, &[u8]), RecoveryError> {
        let want = self.window.capacity_slots();
        let changed = RecoveryError::Unreadable { slot, source: super::SourceError::NoSuchSlot { slot } };
        let header = FrameHeader::decode(self.window.at(slot, 1, want)?).map_err(|_| changed)?.header;
        let slots = header.slots(&self.geometry);
        let bytes = self.window.at(slot, slots, want)?;
        Ok((header, bytes))
    }

    /// Ends the log before the first of `dropped`, which is the rest of the chain.
    fn cut(&mut self, dropped: &[Pending], tail: TailReport, kind: TailKind) -> TailReport {
        let Some(first) = dropped.first() else { return tail };
        let highest = dropped.last().map(|last| last.number);
        let sum = |of: fn(&Pending) -> u32| dropped.iter().map(|frame| u64::from(of(frame))).sum::<u64>();
        let cut_bytes = sum(|frame| frame.used_bytes);
        dropped.iter().for_each(|frame| self.discount(frame));
        self.first = self.first.filter(|oldest| *oldest < first.number);
        self.next = Next { number: first.number, link: Some(first.link), position: Some(first.position) };
        TailReport {
            kind,
            place: Some(self.place(first.number, first.position.slot)),
            cut_frames: tail.cut_frames + dropped.len() as u64,
            cut_bytes,
            highest_seen: tail.highest_seen.max(highest),
        }
    }

    fn finish(self, tail: TailReport, start: Option<&Start>, settled: Settled) -> RecoveredShard {
        let next_slot = self.next.position.filter(|position| self.is_inside(*position)).map(|at| at.slot);
        let Settled { mut space, kept, freed, .. } = settled;
        let before = kept.len();
        let sum = |of: fn(&ExtentFacts) -> u64| space.extents.iter().map(of).fold(0, u64::saturating_add);
        let (frames, records, bytes) =
            (sum(|facts| u64::from(facts.frames)), sum(|facts| facts.records), sum(|facts| facts.bytes));
        let oldest = space.extents.first().map(|facts| facts.first_frame);
        space.checkpoint = start.zip(self.first).map(|(start, frame)| CheckpointPlace {
            address: start.address,
            ordinal: start.ordinal,
            frame,
        });
        RecoveredShard {
            shard: self.shard,
            state: self.entry.state,
            extents: kept.into_iter().chain(self.extents.chain.iter().map(recovered)).collect(),
            used_extents: self.next.position.map_or(0, |position| before + position.extent + 1),
            orphans: self.extents.beyond.iter().map(recovered).collect(),
            freed,
            began_at: space.checkpoint.map(|checkpoint| checkpoint.frame),
            space,
            first_frame: oldest.unwrap_or(self.next.number),
            next_frame: self.next.number,
            next_slot,
            link: self.next.link.unwrap_or(0),
            frames,
            records,
            bytes,
            frames_checked: self.totals.checked,
            durable_witness: self.durable,
            highest_term: self.highest_term,
            tail,
            losses: self.losses,
        }
    }

    fn place(&self, frame: FrameNumber, slot: SlotIndex) -> Place {
        Place { shard: self.shard, frame, slot, on_device: self.context.superblock.locate(slot) }
    }
}
