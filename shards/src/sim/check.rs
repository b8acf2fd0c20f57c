//! Comparing what recovery finds with what was promised.

use super::{
    disk::Crash,
    image::{Image, PAGE_BYTES, Taint},
    oracle::{Fate, Oracle},
    payload::identify,
};
use crate::{
    address::Address,
    format::{
        checksum::StoreSeed,
        frame::{CheckedHeader, FrameHeader},
        record::{RecordKind, records},
        superblock::{COPY_OFFSETS, Superblock, SuperblockChoiceError, choose},
    },
    ids::{FrameNumber, ShardId, SlotIndex},
    limits::FRAME_HEADER_BYTES,
    recovery::{
        RecoveredShard, RecoveryError, RecoveryOptions, RecoveryReport, RecoverySource, SourceError,
        recover_store,
    },
    ring::reservation::Placed,
};
use std::collections::HashSet;

/// The disks as recovery sees them, without faults.
pub(super) struct Quiet<'a> {
    pub superblock: &'a Superblock,
    pub disks: &'a [Image],
}

impl RecoverySource for Quiet<'_> {
    fn read(&self, slot: SlotIndex, bytes: &mut [u8]) -> Result<(), SourceError> {
        let (device, offset) = self.superblock.locate(slot).ok_or(SourceError::NoSuchSlot { slot })?;
        match self.disks[usize::from(device.0)].read(offset, bytes) {
            true => Ok(()),
            false => Err(SourceError::NoSuchSlot { slot }),
        }
    }
}

/// The newest superblock of the disks.
pub(super) fn superblock_of(disks: &[Image]) -> Result<Superblock, SuperblockChoiceError> {
    let mut newest: Result<Superblock, _> = Err(SuperblockChoiceError::NotFormatted);
    // As many pages as a superblock of so few shards takes.
    let mut bytes = [0; PAGE_BYTES];
    for disk in disks {
        let copies = COPY_OFFSETS.map(|offset| {
            disk.read(offset, &mut bytes);
            Superblock::decode_copy(&bytes)
        });
        match (choose(&copies), &newest) {
            (Ok(chosen), Ok(known)) if chosen.superblock.sequence <= known.sequence => {}
            (Ok(chosen), _) => newest = Ok(chosen.superblock),
            (Err(error), Err(_)) => newest = Err(error),
            (Err(_), Ok(_)) => {}
        }
    }
    newest
}

/// What a look at the disks came to.
#[expect(clippy::large_enum_variant, reason = "made once per look, and taken apart at once")]
pub(super) enum Look {
    /// A store, with every promise kept.
    Whole(Superblock, RecoveryReport),
    /// Recovery named damage that the device did.
    Named(RecoveryError),
    /// No superblock is left, by the device's doing.
    NoStore(SuperblockChoiceError),
    /// The newest superblock is gone, by the device's doing: what it had cut off may come back.
    Behind,
}

/// Small windows: their edges are met more often, and a look costs less.
pub(super) const HOW: RecoveryOptions =
    RecoveryOptions { verify_bodies: false, salvage: false, window_bytes: 4 * PAGE_BYTES as u64, threads: 1 };

/// Recovers what is on the disks, and compares.
pub(super) fn look(oracle: &mut Oracle, disks: &[Image], kind: Crash, again: bool) -> Result<Look, String> {
    let has_lied = disks.iter().any(has_lie);
    let superblock = match superblock_of(disks) {
        Ok(superblock) => superblock,
        Err(error) if has_lied => return Ok(Look::NoStore(error)),
        Err(error) => return Err(format!("P1: no superblock is left: {error}")),
    };
    if superblock.sequence < oracle.superblock_sequence && !has_lied {
        return Err(format!("P1: superblock {} is gone", oracle.superblock_sequence));
    }
    let is_behind = superblock.sequence < oracle.superblock_sequence;
    let source = Quiet { superblock: &superblock, disks };
    let recovered = recover_store(&source, &superblock, HOW);
    if again && recover_store(&source, &superblock, HOW) != recovered {
        return Err("I5: recovering twice gives two results".to_owned());
    }
    match recovered {
        Ok(_) if is_behind => Ok(Look::Behind),
        Ok(report) => {
            compare(oracle, disks, &superblock, &report, kind)?;
            Ok(Look::Whole(superblock, report))
        }
        Err(error) if has_lied => Ok(Look::Named(error)),
        Err(error) => Err(format!("P1: recovery fails without a reason: {error}")),
    }
}

fn has_lie(disk: &Image) -> bool {
    disk.is_tainted(0, disk.bytes(), Taint::LIE)
}

/// Compares a report with the oracle.
pub(super) fn compare(
    oracle: &mut Oracle,
    disks: &[Image],
    superblock: &Superblock,
    report: &RecoveryReport,
    kind: Crash,
) -> Result<(), String> {
    let whole = superblock.extent_count();
    let known = report.extents_free + report.extents_owned + report.extents_bad.len() as u64;
    if known != u64::from(whole) {
        return Err(format!("I4: {known} of {whole} extents are accounted for"));
    }
    let view = View { disks, superblock };
    for shard in &report.shards {
        if oracle.shards.len() <= usize::from(shard.shard.0) {
            oracle.resume(shard.shard, FrameNumber(0));
        }
        view.check_end(oracle, shard, kind)?;
        if !disks.iter().any(has_lie) {
            oracle.check_space(shard)?;
        }
        view.check_contents(oracle, shard)?;
        if view.is_honest() {
            view.check_scan(oracle, report, shard)?;
        } else if let Some(index) = &oracle.index {
            index.note_lie();
        }
    }
    if !disks.iter().any(has_lie) {
        oracle.check_overs(report)?;
        oracle.check_retired(superblock)?;
    }
    if view.is_honest() {
        oracle.check_moved(&view, report)?;
    }
    Ok(())
}

mod lists;

pub(super) use lists::Extents;

pub(super) struct View<'a> {
    pub disks: &'a [Image],
    pub superblock: &'a Superblock,
}

impl View<'_> {
    fn is_tainted(&self, slot: SlotIndex, slots: u64, taint: Taint) -> bool {
        let Some((device, offset)) = self.superblock.locate(slot) else { return false };
        let length = slots * self.superblock.geometry.slot_bytes();
        self.disks[usize::from(device.0)].is_tainted(offset, length, taint)
    }

    /// The device lied about the frame itself, or about the header of its extent.
    fn is_hit(&self, header: &FrameHeader) -> bool {
        let geometry = &self.superblock.geometry;
        let extent = geometry.extent_of(header.base_slot);
        self.is_tainted(header.base_slot, header.slots(geometry), Taint::LIE)
            || self.is_tainted(geometry.header_slot(extent), 1, Taint::LIE)
    }

    /// I1: everything acknowledged is there, or the device lied and nothing that is left could tell.
    fn check_end(&self, oracle: &Oracle, found: &RecoveredShard, kind: Crash) -> Result<(), String> {
        let history = &oracle.shards[usize::from(found.shard.0)];
        let next = found.next_frame.0;
        let promised = match kind {
            Crash::Power => history.durable,
            Crash::Kill => history.durable.max(history.written),
        };
        if next >= promised {
            return Ok(());
        }
        let (shard, durable) = (found.shard, history.durable);
        let lost = format!(
            "I1: {shard:?} ends at {next}, and {promised} frames were promised ({durable} durable); {:?}",
            found.tail
        );
        // What was trimmed and is somebody else's by now is not what is missing.
        let has_left = |frame: &super::oracle::Frame| {
            let is_kept = found.extents.iter().any(|extent| Some(extent.ordinal) == frame.ordinal);
            history.space.may_be_gone(frame.ordinal) && !is_kept
        };
        let mut behind = (next..).zip(history.frames.iter().skip(next as usize));
        let missing = behind.find(|(_, frame)| !has_left(frame));
        let (missing, frame) = missing.map_or((next, None), |(number, frame)| (number, frame.header));
        // Unless the log ends before it, by the device's doing.
        let first = history.frames.get(next as usize).and_then(|frame| frame.header);
        let first = first.filter(|header| self.is_hit(header));
        let (missing, frame) = first.map_or((missing, frame), |header| (next, Some(header)));
        // A frame that a failed sync took was promised as written at most.
        let dropped = |header: &FrameHeader| {
            let slots = header.slots(&self.superblock.geometry);
            next >= durable && self.is_tainted(header.base_slot, slots, Taint::DROPPED)
        };
        if !frame.is_some_and(|header| self.is_hit(&header) || dropped(&header)) {
            return Err(lost);
        }
        let stated = self.superblock.shards.get(usize::from(shard.0)).map_or(0, |entry| entry.durable.0);
        if stated > next {
            return Err(format!("{lost}; the superblock knows better: {stated}"));
        }
        match history
            .frames
            .iter()
            .skip(missing as usize + 1)
            .find(|it| self.testifies(frame.as_ref(), it, missing))
        {
            Some(witness) => Err(format!("{lost}; this frame knows better: {:?}", witness.header)),
            None => Ok(()),
        }
    }

    /// A later frame that recovery can see, and that says that frame `missing` was durable.
    fn testifies(&self, lost: Option<&FrameHeader>, frame: &super::oracle::Frame, missing: u64) -> bool {
        let (Some(header), Some(lost)) = (&frame.header, lost) else { return false };
        let geometry = &self.superblock.geometry;
        let is_near = geometry.extent_of(header.base_slot) == geometry.extent_of(lost.base_slot)
            && header.base_slot.0 < lost.base_slot.0 + geometry.slots_for(self.superblock.reach_bytes);
        let is_first = geometry.first_frame_slot(geometry.extent_of(header.base_slot)) == header.base_slot;
        let is_there = || self.header_at(header.base_slot).is_some_and(|found| found.header == *header);
        let is_late = || self.is_tainted(header.base_slot, header.slots(geometry), Taint::LATE);
        // An open that was killed once its superblock was written has cut it off: with a smaller ring, it may not have
        // looked as far.
        let stated =
            self.superblock.shards.get(usize::from(header.shard.0)).map_or(0, |entry| entry.durable.0);
        let is_of_present = header.number.0 < stated || header.term >= self.superblock.term;
        header.durable.0 > missing
            && is_of_present
            && (is_near || is_first)
            && !self.is_hit(header)
            && !is_late()
            && is_there()
    }

    fn header_at(&self, slot: SlotIndex) -> Option<CheckedHeader> {
        let mut bytes = [0; FRAME_HEADER_BYTES as usize];
        self.read(slot, &mut bytes).then(|| FrameHeader::decode(&bytes).ok()).flatten()
    }

    fn read(&self, slot: SlotIndex, bytes: &mut [u8]) -> bool {
        let Some((device, offset)) = self.superblock.locate(slot) else { return false };
        self.disks[usize::from(device.0)].read(offset, bytes)
    }

    /// I2 and I3: the log holds exactly what was placed in it, byte for byte.
    fn check_contents(&self, oracle: &mut Oracle, found: &RecoveredShard) -> Result<(), String> {
        let geometry = self.superblock.geometry;
        let mut bytes = Vec::new();
        let mut end = None;
        let kept: HashSet<_> = found.extents.iter().map(|extent| extent.ordinal).collect();
        for number in 0..found.next_frame.0 {
            let number_of = FrameNumber(number);
            let is_gone = oracle.may_be_gone(found.shard, number_of)
                || oracle.is_cleaned_out(usize::from(found.shard.0), number_of);
            let shard = &oracle.shards[usize::from(found.shard.0)];
            let ordinal = shard.frames.get(number as usize).and_then(|frame| frame.ordinal);
            if is_gone && ordinal.is_some_and(|ordinal| !kept.contains(&ordinal)) {
                continue;
            }
            let Some(header) = shard.frames.get(number as usize).and_then(|frame| frame.header) else {
                return Err(format!("I2: {:?} has a frame {number} that nobody submitted", found.shard));
            };
            end = Some(header.end_slot(&geometry));
            if ordinal.is_some_and(|ordinal| !kept.contains(&ordinal)) && !self.is_hit(&header) {
                let kept = oracle.kept_in(usize::from(found.shard.0), number_of);
                let kept = kept.map(|id| (id, oracle.records[id as usize]));
                return Err(format!(
                    "S3: {:?} has lost the extent of frame {number} ({ordinal:?}) with {kept:?}",
                    found.shard
                ));
            }
            let is_there = self.header_at(header.base_slot).is_some_and(|it| it.header == header);
            if !is_there && self.is_hit(&header) {
                continue;
            }
            if !is_there {
                return Err(format!("I3: {:?} has lost frame {number}", found.shard));
            }
            bytes.resize(header.used_bytes as usize, 0);
            self.read(header.base_slot, &mut bytes);
            self.check_frame(oracle, found, &header, &bytes)?;
        }
        let begins_extent = |slot| geometry.first_frame_slot(geometry.extent_of(slot)) == slot;
        match (found.next_slot, end) {
            (Some(next), Some(end)) if next != end && !begins_extent(next) => {
                Err(format!("I3: {:?} goes on at {next:?}, and its last frame ends at {end:?}", found.shard))
            }
            _ => Ok(()),
        }
    }

    fn check_frame(
        &self,
        oracle: &mut Oracle,
        found: &RecoveredShard,
        header: &FrameHeader,
        bytes: &[u8],
    ) -> Result<(), String> {
        let shard = found.shard;
        let geometry = &self.superblock.geometry;
        let start = FRAME_HEADER_BYTES as usize;
        let first = geometry.byte_of(header.base_slot) + FRAME_HEADER_BYTES;
        let seed = StoreSeed::new(self.superblock.store);
        let is_hit = self.is_tainted(header.base_slot, header.slots(geometry), Taint::LIE);
        let mut seen = 0;
        for record in records(&bytes[start..], seed, header.generation, first) {
            let (at, view) = match record {
                Ok(found) => found,
                Err(_) if is_hit => return Ok(()),
                Err((at, error)) => {
                    return Err(format!("I1: {shard:?} {:?}: record at {at}: {error}", header.number));
                }
            };
            if let Some(of) = lists::root_of(&view) {
                match self.check_list(oracle, found, header, &view, of, first + at)? {
                    Some(records) => seen += records,
                    None => return Ok(()),
                }
            }
            if view.kind == RecordKind::DATA {
                let Some(id) = identify(view.payload) else {
                    return Err(format!("I2: {shard:?} {:?}: foreign bytes at {at}", header.number));
                };
                let at = Address::new(geometry, first + at, header.generation, view.payload.len() as u64);
                match check_record(oracle, shard, header, id, view.payload.len(), at) {
                    Ok(()) => seen += 1,
                    // A lost write leaves what an earlier life wrote in the same place: see RELIABILITY.md.
                    Err(_) if is_hit => return Ok(()),
                    Err(violation) => return Err(violation),
                }
            }
        }
        let known = oracle.shards[usize::from(shard.0)].frame_mut(header.number).records.clone();
        let known = known.into_iter().filter(|id| !oracle.has_left(*id, found)).count();
        if known != seen && !is_hit {
            let number = header.number;
            return Err(format!("I3: {shard:?} {number:?} holds {seen} records, and {known} were placed"));
        }
        Ok(())
    }
}

fn check_record(
    oracle: &mut Oracle,
    shard: ShardId,
    header: &FrameHeader,
    id: u64,
    length: usize,
    address: Address,
) -> Result<(), String> {
    let wrong = |how: &str| Err(format!("I2: record {id} in {shard:?} {:?}: {how}", header.number));
    let byte = address.byte();
    let Some(record) = oracle.records.get(id as usize).copied() else { return wrong("it was never issued") };
    if record.shard != shard || record.length as usize != length {
        return wrong("it was issued elsewhere, or with another length");
    }
    match record.fate {
        Fate::Gone => wrong("it was refused, or cut off before"),
        Fate::Placed(placed) if placed.frame != header.number || placed.address.byte() != byte => {
            wrong(&format!("it was placed in {:?} at byte {}", placed.frame, placed.address.byte()))
        }
        Fate::Placed(_) => Ok(()),
        // Its answer was lost on the way; now its place is known.
        Fate::Issued | Fate::Decided => oracle.placed(id, Placed { address, frame: header.number }),
    }
}
