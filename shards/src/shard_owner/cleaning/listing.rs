//! Which batch data of an extent counts: that which a root lists, in the extent or in a later one of the shard. And what
//! the lists in the extent lead to elsewhere: without them it would not count, so they stay while any of it is wanted.
//! Which large records have a part in it, of those that are wanted, is found by the same lists (see `large`).
//!
//! Extents say how far back the lists lead whose roots are in them, so that only those have to be read which may list
//! something here. Of a list with several levels the parts are read by their addresses. Once nobody is writing a batch
//! any more that began in the extent or before it, what was found stays true.

use super::{
    Stage, Task,
    large::Large,
    reading::{Looked, Reading, bytes_from},
};
use crate::{
    address::Address,
    device::Device,
    extents::ExtentUse,
    format::{
        checksum::StoreSeed,
        control::{ExtentFacts, LogPlace},
        manifest::{Manifest, ManifestEntry, ManifestOf},
        record::{BodyContents, RecordFlags, RecordHeader, RecordKind, check_record, record_bytes},
    },
    ids::{ExtentOrdinal, FrameNumber, Generation},
    limits::CLEAN_LISTED_GROUPS_MAX,
    mutant::{self, Mutant},
    shard_owner::ShardOwner,
};
use std::{collections::VecDeque, ops::Range};

/// A group of batch data in the extent.
#[derive(Debug)]
struct Group {
    run: Range<u64>,
    root: LogPlace,
}

/// What a part of a list belongs to.
#[derive(Clone, Copy, Debug)]
enum Whose {
    /// `None`: it lies in the extent; what root leads to it is not known.
    Batch(Option<LogPlace>),
    /// That is wanted, and where its list begins.
    Large(Address, LogPlace),
}

impl Whose {
    const fn of(self) -> ManifestOf {
        match self {
            Self::Batch(_) => ManifestOf::Batch,
            Self::Large(..) => ManifestOf::Large,
        }
    }
}

/// A part of a list that is still to be read.
#[derive(Clone, Copy, Debug)]
struct Node {
    entry: ManifestEntry,
    parent_level: u8,
    whose: Whose,
    /// Its parent lies in the extent, or that one's.
    is_own: bool,
}

/// What keeps an extent from being freed: a record that one of its lists makes count, in another extent, is wanted; or a
/// large record that has a part in it is.
#[derive(Clone, Debug)]
pub(super) struct HeldBack {
    /// The extent that is looked at, to know whether that may have changed.
    pub(super) by: ExtentFacts,
    /// It may have once so many bytes of that one are dead.
    pub(super) until: u64,
    /// Large records that keep it, as long as their owner was not told.
    pub(super) untold: Vec<Address>,
    pub(super) is_told: bool,
}

/// What was found so far of the extent that is cleaned.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// In the order of the store once all are found.
    groups: Vec<Group>,
    nodes: Vec<Node>,
    /// Extents that are still to be gone through.
    ahead: VecDeque<ExtentFacts>,
    /// The lists are in frames below this one.
    bound: FrameNumber,
    /// Batch data that its owner wants, as bytes of the store.
    wanted: Vec<Range<u64>>,
    /// Groups in other extents that lists in this one lead to.
    outside: Vec<ManifestEntry>,
    pub(super) large: Large,
}

impl Listing {
    /// Batch data that is wanted, if it counts.
    pub(super) fn want(&mut self, byte: u64, stride: u64) {
        match self.wanted.last_mut() {
            Some(last) if last.end == byte => last.end += stride,
            _ => self.wanted.push(byte..byte + stride),
        }
    }

    /// The root of the list that makes batch data count; `None`: it does not.
    pub(super) fn root_of(&self, byte: u64) -> Option<LogPlace> {
        let behind = self.groups.partition_point(|group| group.run.start <= byte);
        let group = self.groups[..behind].last().filter(|group| group.run.contains(&byte));
        group.map(|group| group.root)
    }

    /// The next part of a list, or group in another extent, and its bytes in the log.
    fn next_to_read(&self, is_node: bool) -> Option<(ManifestEntry, u64)> {
        if is_node {
            let entry = self.nodes.last()?.entry;
            return Some((entry, record_bytes(u64::from(entry.length))));
        }
        self.outside.last().map(|entry| (*entry, u64::from(entry.length)))
    }

    /// Bytes that are wanted and do not count.
    fn uncounted_bytes(&self) -> u64 {
        let counted = |run: &Range<u64>| {
            let behind = self.groups.partition_point(|group| group.run.end <= run.start);
            let groups = self.groups[behind..].iter().take_while(|group| group.run.start < run.end);
            groups.map(|group| group.run.end.min(run.end) - group.run.start.max(run.start)).sum::<u64>()
        };
        self.wanted.iter().map(|run| (run.end - run.start).saturating_sub(counted(run))).sum()
    }
}

impl ShardOwner {
    /// False: what is not there yet may need what the extent holds of batches.
    pub(super) fn is_settled(&self, ordinal: ExtentOrdinal, contents: &BodyContents) -> bool {
        let is_behind = |from: ExtentOrdinal| from <= ordinal;
        !(contents.is_of_lists && self.first_unsettled().is_some_and(is_behind))
    }

    /// True if lists in the extent may lead to others that are there.
    pub(super) fn leads_back(&self, ordinal: ExtentOrdinal, contents: &BodyContents) -> bool {
        contents.batches_from.is_some_and(|from| self.space.has_any(from, ordinal))
    }

    /// True if what kept the extent from being freed when it was last looked at is as it was.
    pub(super) fn is_held_back(&self, ordinal: ExtentOrdinal) -> bool {
        self.cleaner.held_back.get(&ordinal).is_some_and(|HeldBack { by, until, .. }| {
            let is_there = self.space.extent(by.ordinal).is_some();
            is_there && self.context.extents.dead_bytes(by.extent) < *until
        })
    }

    /// All of the extent was looked at.
    pub(super) fn end_look(&mut self, mut task: Task) -> bool {
        let own = task.facts.ordinal;
        if !self.is_settled(own, &task.contents) {
            return self.end_survey(task);
        }
        self.cleaner.listed.insert(own);
        let of_batches = task.contents.has_batch_data && (task.is_resumed || !task.listing.wanted.is_empty());
        if of_batches || task.asks_for_large() {
            task.listing.bound = self.next_frame;
            task.listing.ahead = self.space.extents_leading_to(own, self.next_frame).collect();
        }
        self.go_on_listing(task)
    }

    /// The next extent with roots, or the next part of a list, or the end of it.
    pub(super) fn go_on_listing(&mut self, mut task: Task) -> bool {
        if let Some(next) = task.listing.ahead.pop_front() {
            task.stage = Stage::Roots;
            task.go_to(next, self.context.layout.geometry().first_frame_slot(next.extent));
        } else if !task.listing.nodes.is_empty() {
            task.stage = Stage::Nodes;
        } else if !task.listing.outside.is_empty() && !task.is_resumed {
            task.stage = Stage::Outside;
        } else {
            task.listing.groups.sort_unstable_by_key(|group| group.run.start);
            task.dead_bytes += task.listing.uncounted_bytes();
            match self.plan_large(&mut task) {
                Ok(true) => return self.end_survey(task),
                Ok(false) => return self.put_aside(&task),
                Err(why) => {
                    self.cleaner.task = Some(task);
                    return self.leave_alone(why);
                }
            }
        }
        self.cleaner.task = Some(task);
        true
    }

    /// False: what makes batch data count may yet be lost in a crash, and copies in another shard would not be.
    pub(super) fn are_lists_durable(&self) -> bool {
        let Some(task) = &self.cleaner.task else { return true };
        let bound = task.listing.bound;
        if self.shared.durable.reached() >= bound {
            return true;
        }
        self.shared.durable.want(FrameNumber(bound.0 - 1));
        false
    }

    /// Takes what a list says of the extent that is cleaned, if the record at hand is the root of one, or a part of one of
    /// a batch that lies in the extent.
    pub(super) fn note_root(
        &self,
        task: &mut Task,
        header: &RecordHeader,
        bytes: &[u8],
    ) -> Result<(), Looked> {
        let own = task.facts.ordinal;
        // A copy that does not count leads to nothing so far back.
        let is_root = header.is_root();
        let of = match header.kind {
            RecordKind::BATCH_COMMIT if is_root => ManifestOf::Batch,
            RecordKind::BATCH_COMMIT if header.flags == RecordFlags::LIST_PART => ManifestOf::Batch,
            RecordKind::LARGE_MANIFEST if is_root && task.asks_for_large() => ManifestOf::Large,
            _ => return Ok(()),
        };
        let is_known_by_its_root = !is_root && task.stage != Stage::Survey;
        let leads_here = || bytes.get(8..).and_then(Manifest::peek_from).is_none_or(|from| from <= own);
        if is_known_by_its_root || !leads_here() {
            return Ok(());
        }
        let byte = self.context.layout.geometry().byte_of(task.slot) + task.offset;
        let seed = StoreSeed::new(self.context.store).record_seed(task.walked.generation, byte);
        let decode = |payload| match is_root {
            true => Manifest::decode_root(payload, of),
            false => Manifest::decode(payload, of),
        };
        let list = check_record(bytes, seed).ok().and_then(|view| decode(view.payload).ok());
        let list = list.ok_or(Looked::Bad("a list of it, or one that leads to it, is damaged"))?;
        let whose = match of {
            ManifestOf::Batch => {
                Whose::Batch(is_root.then_some(LogPlace { ordinal: task.walked.ordinal, byte }))
            }
            // No scan gives one of which something is gone, so that its owner may not know it.
            ManifestOf::Large if list.entries.iter().any(|it| self.own_extent(it.address).is_none()) => {
                return Ok(());
            }
            ManifestOf::Large => match self.wanted_large(task, header, byte) {
                Some(address) => Whose::Large(address, LogPlace { ordinal: task.walked.ordinal, byte }),
                None => return Ok(()),
            },
        };
        self.note_entries(task, &list, whose, task.walked.ordinal == own)?;
        if let (Whose::Large(root, _), 0) = (whose, list.level) {
            task.listing.large.note_parts(root, &list.entries);
        }
        Ok(())
    }

    fn note_entries(
        &self,
        task: &mut Task,
        list: &Manifest,
        whose: Whose,
        is_own: bool,
    ) -> Result<(), Looked> {
        let own = task.facts.ordinal;
        for entry in &list.entries {
            // What is gone is either trimmed or counts elsewhere.
            let Some((ordinal, _)) = self.own_extent(entry.address) else { continue };
            let byte = entry.address.byte();
            let listing = &mut task.listing;
            if let Whose::Large(root, place) = whose
                && ordinal == own
            {
                listing.large.keep((root, place), byte, record_bytes(u64::from(entry.length)));
            }
            if list.level > 0 && (is_own || ordinal >= own) {
                // A part of a list lies behind what it leads to.
                listing.nodes.push(Node { entry: *entry, parent_level: list.level, whose, is_own });
                continue;
            }
            let Whose::Batch(root) = whose else { continue };
            if list.level == 0 && ordinal == own {
                let group = |root| Group { run: byte..byte + u64::from(entry.length), root };
                listing.groups.extend(root.map(group));
            } else if list.level == 0 && is_own {
                listing.outside.push(*entry);
            }
        }
        let Listing { groups, nodes, outside, large, .. } = &task.listing;
        match groups.len().max(nodes.len()).max(outside.len()).max(large.len()) {
            0..=CLEAN_LISTED_GROUPS_MAX => Ok(()),
            _ => Err(Looked::Bad("more lists lead to it than are kept in memory")),
        }
    }

    /// The ordinal and generation of the extent of an address, if it is of this shard still.
    pub(super) fn own_extent(&self, address: Address) -> Option<(ExtentOrdinal, Generation)> {
        let extent = address.extent(self.context.layout.geometry());
        let entry = self.context.extents.get(extent)?;
        let is_ours = entry.usage == ExtentUse::Claimed
            && entry.shard == self.shared.id()
            && address.is_of(entry.generation);
        Some((self.context.extents.ordinal(extent).filter(|_| is_ours)?, entry.generation))
    }

    /// One step: reads a part of a list, or a group that a list in the extent leads to.
    pub(super) fn read_listed(&mut self, device: &mut dyn Device) -> bool {
        let Some(mut task) = self.cleaner.task.take() else { return false };
        let is_node = task.stage == Stage::Nodes;
        let Some((entry, length)) = task.listing.next_to_read(is_node) else {
            return self.go_on_listing(task);
        };
        let geometry = *self.context.layout.geometry();
        let slot = entry.address.slot(&geometry);
        let in_slot = entry.address.byte() - geometry.byte_of(slot);
        let reading = std::mem::take(&mut self.cleaner.reading);
        let looked = match &reading {
            Reading::Idle => Looked::Needs(slot, geometry.slots_for(in_slot + length)),
            Reading::Flying { .. } => {
                (self.cleaner.reading, self.cleaner.task) = (reading, Some(task));
                return false;
            }
            Reading::Failed => Looked::Bad("the device cannot read what its lists lead to"),
            Reading::Here { slot: first, buffer } => {
                let rest = bytes_from(buffer.as_slice(), *first, slot, geometry.slot_bytes());
                let bytes = rest.and_then(|rest| rest.get(in_slot as usize..));
                match bytes.filter(|bytes| bytes.len() as u64 >= length) {
                    Some(bytes) if is_node => self.take_node(&mut task, bytes),
                    Some(bytes) => self.take_outside(&mut task, &bytes[..length as usize]),
                    None => Looked::Needs(slot, geometry.slots_for(in_slot + length)),
                }
            }
        };
        self.cleaner.reading = reading;
        match looked {
            Looked::Needs(slot, slots) => {
                self.cleaner.task = Some(task);
                self.read_run(device, slot, slots)
            }
            Looked::Bad(why) => {
                self.cleaner.task = Some(task);
                self.leave_alone(why)
            }
            Looked::Full => self.hold_back(&task, &entry),
            _ => self.go_on_listing(task),
        }
    }

    /// Not before what was found in the other extent has changed.
    fn hold_back(&mut self, task: &Task, entry: &ManifestEntry) -> bool {
        let by = self.own_extent(entry.address).and_then(|(ordinal, _)| self.space.extent(ordinal));
        if let Some(by) = by {
            let until = self.context.extents.dead_bytes(by.extent) + 1;
            let held = HeldBack { by, until, untold: Vec::new(), is_told: false };
            self.cleaner.held_back.insert(task.facts.ordinal, held);
        }
        self.put_aside(task)
    }

    /// The extent is not cleaned now.
    fn put_aside(&mut self, task: &Task) -> bool {
        self.cleaner.contents.insert(task.facts.ordinal, task.contents);
        self.cleaner.barren_at = None;
        true
    }

    /// A group in another extent. [`Looked::Full`]: some of it is wanted, or was copied and does not count yet.
    fn take_outside(&self, task: &mut Task, bytes: &[u8]) -> Looked {
        let Some(entry) = task.listing.outside.pop() else { return Looked::On };
        let Some((ordinal, generation)) = self.own_extent(entry.address) else { return Looked::On };
        if mutant::is_active(Mutant::ListFreedFirst) {
            return Looked::On;
        }
        let moves = self.space.moves.iter().copied().chain(self.begun_crossings());
        if moves.into_iter().any(|it| it.origin.ordinal == ordinal) {
            return Looked::Full;
        }
        let (mut rest, mut byte) = (bytes, entry.address.byte());
        while let Some(header) = RecordHeader::peek(rest).filter(|it| it.stride() <= rest.len() as u64) {
            match self.wanted_at(&header, rest, byte, generation) {
                Ok(None) => {}
                Ok(Some(_payload)) => return Looked::Full,
                Err(why) => return why,
            }
            rest = &rest[header.stride() as usize..];
            byte += header.stride();
        }
        if rest.is_empty() { Looked::On } else { Looked::Bad("a group that a list leads to is damaged") }
    }

    fn take_node(&self, task: &mut Task, record: &[u8]) -> Looked {
        let bad = Looked::Bad("a part of a list that leads to it is damaged");
        let Some(node) = task.listing.nodes.pop() else { return Looked::On };
        let address = node.entry.address;
        // Freed since it was listed, with all that it leads to.
        let Some((_, generation)) = self.own_extent(address) else { return Looked::On };
        let seed = StoreSeed::new(self.context.store).record_seed(generation, address.byte());
        let of = node.whose.of();
        let kind = match of {
            ManifestOf::Batch => RecordKind::BATCH_COMMIT,
            ManifestOf::Large => RecordKind::LARGE_MANIFEST,
        };
        let is_part = |found, flags| found == kind && flags == RecordFlags::LIST_PART;
        let checked = check_record(record, seed).ok().filter(|view| is_part(view.kind, view.flags));
        let list = checked
            .and_then(|view| Manifest::decode_child(view.payload, of, node.parent_level, &node.entry).ok());
        let Some(list) = list else { return bad };
        match self.note_entries(task, &list, node.whose, node.is_own) {
            Ok(()) => Looked::On,
            Err(why) => why,
        }
    }
}
