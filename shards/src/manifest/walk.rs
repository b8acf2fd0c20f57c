//! Going through what a list leads to: says which slots it needs, and gives records or parts one by one.
//!
//! In memory are the nodes on the way to one leaf, and that leaf. Every record on the way is checked as a read by
//! address checks it, and has to be what its parent says.

#![deny(clippy::indexing_slicing)]

use crate::{
    address::Address,
    format::{
        checksum::StoreSeed,
        manifest::{Manifest, ManifestEntry, ManifestError, ManifestOf},
        record::{RecordError, RecordFlags, RecordHeader, RecordKind, check_record},
    },
    geometry::Geometry,
    ids::{Generation, SlotIndex},
    limits::{RECORD_HEADER_BYTES, WALK_BYTES_PER_READ_MIN, WALK_READS_MIN},
    reads::ReadError,
    scan::{ExtentSequence, Fault, Run},
};
use bytes::Bytes;

const RECORD_HEADER: usize = RECORD_HEADER_BYTES as usize;

/// What stays the same in one walk.
#[derive(Clone, Copy, Debug)]
pub struct WalkSetup {
    /// Seed of the store's checksums.
    pub seed: StoreSeed,
    /// Slot and extent size.
    pub geometry: Geometry,
    /// What the list lists.
    pub of: ManifestOf,
}

/// What a walk came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum WalkStep {
    /// The next record, or part.
    Found(Found),
    /// What should be there is not good; the walk goes on behind it.
    Fault(Box<WalkFault>),
    /// The extent was freed: what was there is gone, by the owner's wish. The walk goes on behind it.
    Reclaimed(Address),
    /// Bytes are missing: read what [`ManifestWalk::ask`] names, or what it named before.
    Need,
    /// There is no more.
    End,
}

/// A record of a batch, or a part of a large record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub address: Address,
    /// Records, or bytes, before it.
    pub offset: u64,
    /// Its bytes; of a part whose beginning was to be skipped, the rest.
    pub payload: Bytes,
}

/// A place that is not as the list says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalkFault {
    /// Where.
    pub address: Address,
    /// What is wrong.
    pub fault: Fault,
}

/// A node that is being gone through.
#[derive(Debug)]
struct Node {
    level: u8,
    entries: std::vec::IntoIter<ManifestEntry>,
}

#[derive(Debug)]
enum WantState {
    Planned,
    Asked,
    Here(Bytes),
    Failed(ReadError),
}

/// A read that is needed.
#[derive(Debug)]
struct Want {
    generation: Generation,
    run: Run,
    /// The entry that led here, and the level of its node.
    entry: ManifestEntry,
    level: u8,
    state: WantState,
}

/// A group of records.
#[derive(Debug)]
struct Group {
    bytes: Bytes,
    /// Position of the first byte in the store.
    byte: u64,
    generation: Generation,
    offset: usize,
    left: u64,
}

/// A walk through one list.
#[derive(Debug)]
pub struct ManifestWalk {
    setup: WalkSetup,
    path: Vec<Node>,
    want: Option<Want>,
    group: Option<Group>,
    /// Records, or bytes, that are still to be passed over.
    skip: u64,
    /// Passed: given, lost, or skipped.
    done: u64,
    budget: Budget,
}

/// What a list may cost: a true one leads to no byte of the shard twice, and to no more places than its bytes justify.
#[derive(Debug, Default)]
struct Budget {
    reads: u64,
    leaf_bytes: u64,
    /// The largest that the shard was seen to be.
    shard_bytes: u64,
}

impl Budget {
    /// Counts a read. False: no writer makes such a list.
    fn allows(&mut self, leaf_bytes: u64, shard_bytes: u64) -> bool {
        self.shard_bytes = self.shard_bytes.max(shard_bytes);
        self.reads += 1;
        self.leaf_bytes = self.leaf_bytes.saturating_add(leaf_bytes);
        let reads_max = WALK_READS_MIN + self.shard_bytes / WALK_BYTES_PER_READ_MIN;
        self.leaf_bytes <= self.shard_bytes && self.reads <= reads_max
    }
}

impl ManifestWalk {
    /// A walk from a root that was read, behind its first `skip` records or bytes.
    #[must_use]
    pub fn new(setup: WalkSetup, root: &Manifest, skip: u64) -> Self {
        let node = Node { level: root.level, entries: root.entries.clone().into_iter() };
        Self { setup, path: vec![node], want: None, group: None, skip, done: 0, budget: Budget::default() }
    }

    /// Records, or bytes, that were passed.
    #[must_use]
    pub const fn done(&self) -> u64 {
        self.done
    }

    /// The next read to make. `None`: there is none, or it is under way.
    pub fn ask(&mut self) -> Option<Run> {
        let want = self.want.as_mut().filter(|want| matches!(want.state, WantState::Planned))?;
        want.state = WantState::Asked;
        Some(want.run)
    }

    /// The read that [`ManifestWalk::ask`] would name, or has named.
    #[must_use]
    pub fn wanted(&self) -> Option<Run> {
        self.want.as_ref().map(|want| want.run)
    }

    /// A run that was asked for and not started. False: it was not asked for here.
    pub fn take_back(&mut self, slot: SlotIndex) -> bool {
        self.set(slot, WantState::Planned)
    }

    /// What came of a run that was asked for. False: it was not asked for here.
    pub fn supply(&mut self, slot: SlotIndex, bytes: Result<Bytes, ReadError>) -> bool {
        self.set(slot, bytes.map_or_else(WantState::Failed, WantState::Here))
    }

    fn set(&mut self, slot: SlotIndex, state: WantState) -> bool {
        let is_it = |want: &&mut Want| want.run.slot == slot && matches!(want.state, WantState::Asked);
        match self.want.as_mut().filter(is_it) {
            Some(want) => {
                want.state = state;
                true
            }
            None => false,
        }
    }

    /// Goes on to the next thing to tell.
    pub fn step(&mut self, extents: &impl ExtentSequence) -> WalkStep {
        loop {
            if let Some(step) = self.next_in_group() {
                return step;
            }
            if let Some(want) = self.want.take() {
                match self.arrived(want, extents) {
                    Ok(None) => continue,
                    Ok(Some(step)) => return step,
                    Err(fault) => return WalkStep::Fault(fault),
                }
            }
            let Some(node) = self.path.last_mut() else { return WalkStep::End };
            let level = node.level;
            let Some(entry) = node.entries.next() else {
                self.path.pop();
                continue;
            };
            let weight = self.weight(&entry);
            if self.skip >= weight {
                self.skip -= weight;
                self.done += weight;
                continue;
            }
            match self.plan(entry, level, extents) {
                Ok(Some(want)) => self.want = Some(want),
                Ok(None) => {
                    self.pass(&entry);
                    return WalkStep::Reclaimed(entry.address);
                }
                Err(fault) => {
                    self.pass(&entry);
                    return WalkStep::Fault(Box::new(WalkFault { address: entry.address, fault }));
                }
            }
        }
    }

    /// What an entry counts for.
    const fn weight(&self, entry: &ManifestEntry) -> u64 {
        match self.setup.of {
            ManifestOf::Batch => entry.records,
            ManifestOf::Large => entry.bytes,
        }
    }

    /// Goes on behind all that an entry leads to.
    fn pass(&mut self, entry: &ManifestEntry) {
        self.done = self.done.saturating_add(self.weight(entry));
        self.skip = 0;
    }

    /// `Ok(None)`: the extent was freed.
    fn plan(
        &mut self,
        entry: ManifestEntry,
        level: u8,
        extents: &impl ExtentSequence,
    ) -> Result<Option<Want>, Fault> {
        let geometry = &{ self.setup.geometry };
        let address = entry.address;
        let extent = address.extent(geometry);
        let generation = extents.generation_of(extent).filter(|generation| address.is_of(*generation));
        let Some(generation) = generation else { return Ok(None) };
        let is_group = level == 0 && self.setup.of == ManifestOf::Batch;
        let stored = u64::from(entry.length) + if is_group { 0 } else { RECORD_HEADER_BYTES };
        let slot = address.slot(geometry);
        let slots = geometry.slots_for(address.byte() - geometry.byte_of(slot) + stored);
        if slot == geometry.header_slot(extent) || slots > geometry.slots_left(slot) {
            return Err(Fault::Overlong);
        }
        let ordinals = extents.ordinals();
        let shard_bytes = ordinals.end.saturating_sub(ordinals.start).saturating_mul(geometry.extent_bytes());
        if !self.budget.allows(if level == 0 { entry.length.into() } else { 0 }, shard_bytes) {
            self.path.clear();
            return Err(Fault::Manifest { address, error: ManifestError::TooLong(self.budget.leaf_bytes) });
        }
        let run = Run { slot, slots };
        Ok(Some(Want { generation, run, entry, level, state: WantState::Planned }))
    }

    /// Takes what was read. `Ok(Some(_))`: there is something to tell, or nothing to do before the read is made.
    fn arrived(
        &mut self,
        want: Want,
        extents: &impl ExtentSequence,
    ) -> Result<Option<WalkStep>, Box<WalkFault>> {
        let Want { generation, entry, level, .. } = want;
        let address = entry.address;
        let failed = |fault| Box::new(WalkFault { address, fault });
        let bytes = match want.state {
            WantState::Here(bytes) => bytes,
            WantState::Failed(error) => {
                self.pass(&entry);
                return Err(failed(Fault::Unreadable(error)));
            }
            WantState::Planned | WantState::Asked => {
                self.want = Some(want);
                return Ok(Some(WalkStep::Need));
            }
        };
        // What was read of an extent that somebody else claimed meanwhile is theirs.
        if extents.generation_of(address.extent(&self.setup.geometry)) != Some(generation) {
            self.pass(&entry);
            return Ok(Some(WalkStep::Reclaimed(address)));
        }
        let in_slot = address.byte() - self.setup.geometry.byte_of(address.slot(&self.setup.geometry));
        let start = usize::try_from(in_slot).unwrap_or(usize::MAX).min(bytes.len());
        let taken = self.take(entry, level, generation, bytes.slice(start..));
        taken.map_err(|fault| {
            self.pass(&entry);
            failed(fault)
        })
    }

    fn take(
        &mut self,
        entry: ManifestEntry,
        level: u8,
        generation: Generation,
        bytes: Bytes,
    ) -> Result<Option<WalkStep>, Fault> {
        let (of, address) = (self.setup.of, entry.address);
        if level == 0 && of == ManifestOf::Batch {
            return self.open_group(entry, generation, bytes).map(|()| None);
        }
        let (kind, flags): (_, &[_]) = match (level, of) {
            (0, _) => (RecordKind::LARGE_PART, &[RecordFlags::NONE, RecordFlags::MOVED]),
            (_, ManifestOf::Batch) => (RecordKind::BATCH_COMMIT, &[RecordFlags::LIST_PART]),
            (_, ManifestOf::Large) => (RecordKind::LARGE_MANIFEST, &[RecordFlags::LIST_PART]),
        };
        let seed = self.setup.seed.record_seed(generation, address.byte());
        let view = check_record(&bytes, seed).map_err(|error| Fault::Record { address, error })?;
        let has_length = view.payload.len() as u64 == u64::from(entry.length);
        let is_it = view.kind == kind && flags.contains(&view.flags) && has_length;
        if !is_it {
            return Err(Fault::NotAsListed { address, found: view.kind });
        }
        if level > 0 {
            let node = Manifest::decode_child(view.payload, of, level, &entry)
                .map_err(|error| Fault::Manifest { address, error })?;
            self.path.push(Node { level: node.level, entries: node.entries.into_iter() });
            return Ok(None);
        }
        let skipped = usize::try_from(std::mem::take(&mut self.skip)).unwrap_or(usize::MAX);
        let payload = bytes.slice(RECORD_HEADER..RECORD_HEADER + view.payload.len());
        let offset = self.done + skipped as u64;
        self.done += payload.len() as u64;
        let payload = payload.slice(skipped.min(payload.len())..);
        Ok(Some(WalkStep::Found(Found { address, offset, payload })))
    }

    /// The lengths of the records have to fill the group; then a damaged record does not hide the next.
    fn open_group(
        &mut self,
        entry: ManifestEntry,
        generation: Generation,
        bytes: Bytes,
    ) -> Result<(), Fault> {
        let address = entry.address;
        let length = entry.length as usize;
        let truncated = RecordError::Truncated { needed: u64::from(entry.length), found: bytes.len() as u64 };
        let error = Fault::Record { address, error: truncated };
        if bytes.len() < length {
            return Err(error);
        }
        let bytes = bytes.slice(..length);
        let mut group = Group { bytes, byte: address.byte(), generation, offset: 0, left: entry.records };
        let (mut offset, mut records) = (0_usize, 0_u64);
        let mut begin = 0;
        while offset < length {
            let header = group.bytes.get(offset..).and_then(RecordHeader::peek);
            let Some(header) = header.filter(|it| it.kind == RecordKind::BATCH_DATA) else {
                let found = header.map_or(RecordKind::VOID, |it| it.kind);
                return Err(Fault::NotAsListed { address, found });
            };
            if records == self.skip {
                begin = offset;
            }
            offset = offset.saturating_add(usize::try_from(header.stride()).unwrap_or(usize::MAX));
            records += 1;
        }
        if offset != length || records != entry.records {
            return Err(Fault::NotAsListed { address, found: RecordKind::BATCH_DATA });
        }
        let skipped = std::mem::take(&mut self.skip);
        (group.offset, group.left) = (begin, entry.records - skipped);
        self.done += skipped;
        self.group = Some(group);
        Ok(())
    }

    fn next_in_group(&mut self) -> Option<WalkStep> {
        let group = self.group.as_mut()?;
        let rest = group.bytes.get(group.offset..).unwrap_or_default();
        let header = RecordHeader::peek(rest).filter(|_| group.left > 0);
        let Some(header) = header else {
            self.group = None;
            return None;
        };
        let byte = group.byte + group.offset as u64;
        let length = header.length as usize;
        let address = Address::new(&self.setup.geometry, byte, group.generation, length as u64);
        let checked = check_record(rest, self.setup.seed.record_seed(group.generation, byte)).map(|_| ());
        let start = group.offset + RECORD_HEADER;
        let payload = group.bytes.slice(start..(start + length).min(group.bytes.len()));
        let offset = self.done;
        group.offset += usize::try_from(header.stride()).unwrap_or(usize::MAX);
        group.left -= 1;
        self.done += 1;
        Some(match checked {
            Ok(()) => WalkStep::Found(Found { address, offset, payload }),
            Err(error) => {
                WalkStep::Fault(Box::new(WalkFault { address, fault: Fault::Record { address, error } }))
            }
        })
    }
}
