//! The decisions of opening a store: recover, free what no log can reach, sync, raise the term, write the superblock.
//!
//! Which devices there are, and how they are locked, is the caller's. The order of steps is what RECOVERY.md owes to
//! the next recovery; it runs over [`StoreDevices`], so that the simulator crashes between any two of them.

mod added;
mod batches;

pub use added::{AddedShards, FewerShards};

use crate::{
    extents::{ExtentEntry, ExtentTable, ExtentUse},
    failure::SyncFailures,
    format::{
        extent_header::{ExtentHeader, ExtentState},
        superblock::{Features, ShardEntry, ShardState, Superblock},
    },
    ids::{DeviceIndex, ExtentOrdinal, Generation, ShardId, SlotIndex, Term},
    layout::{Layout, RegionRun},
    limits::{EXTENTS_MAX, EXTENTS_PER_SHARD_MIN, RESERVE_PER_SHARD, RESERVE_SHARE, SHARDS_MAX},
    memory::{MemoryError, PooledBuffer, RegionSlice},
    mutant::{self, Mutant},
    nearness::Nearness,
    open::ShardResume,
    over::OverTable,
    recovery::{RecoveryError, RecoveryOptions, RecoveryReport, RecoverySource, SourceError, recover_store},
    shard::ShardExtent,
};
use std::sync::Arc;

/// The devices of a store before its cores run: whole transfers, one after the other.
pub trait StoreDevices: Sync {
    /// A write or a sync that failed.
    type Error;

    /// Fills `bytes`, which are page aligned, from `offset` on.
    fn read(&self, device: DeviceIndex, offset: u64, bytes: &mut [u8]) -> Result<(), SourceError>;

    /// Writes all of `bytes` to `offset`.
    fn write(&self, device: DeviceIndex, offset: u64, bytes: &RegionSlice) -> Result<(), Self::Error>;

    /// Makes all writes that completed before stable.
    fn sync(&self, device: DeviceIndex) -> Result<(), Self::Error>;

    /// Bytes that every transfer is a multiple of.
    fn alignment(&self, device: DeviceIndex) -> u64;
}

/// How to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HowToOpen {
    /// Shards that take appends to have at least, as far as there is room; those that the store has stay.
    pub shards_min: u32,
    /// A cold shard for each shard that has none, if it takes appends and the store has so many extents for each.
    pub cold_from: Option<u32>,
    /// Bytes of a ring buffer: what a shard needs room for to go on where it stopped.
    pub buffer_bytes: u64,
    /// Ring buffers x bytes of a buffer.
    pub reach_bytes: u64,
    /// Now, by the Unix clock.
    pub unix_ns: u64,
    /// How to recover.
    pub recovery: RecoveryOptions,
    /// Which devices the cores are near to.
    pub near: Nearness,
}

/// A store between recovery and its cores.
#[derive(Debug)]
pub struct Prepared {
    /// As written for this open.
    pub superblock: Superblock,
    /// Where slots are.
    pub layout: Arc<Layout>,
    /// Who owns extents.
    pub extents: Arc<ExtentTable>,
    /// Of this open.
    pub sync_failures: Arc<SyncFailures>,
    /// Where each shard goes on, by shard id.
    pub resumes: Vec<ShardResume>,
    /// What recovery found.
    pub report: RecoveryReport,
    /// The last of the shards, which the store did not have before.
    pub added: AddedShards,
    /// Batches over several shards.
    pub over: Arc<OverTable>,
}

/// Why a store could not be prepared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError<E> {
    /// Recovery found something that it must not pass over.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// No memory to write from.
    #[error(transparent)]
    Memory(MemoryError),
    /// A write or a sync failed.
    #[error("{0}")]
    Device(E),
}

impl<E> From<WriteSuperblockError<E>> for PrepareError<E> {
    fn from(error: WriteSuperblockError<E>) -> Self {
        match error {
            WriteSuperblockError::Memory(error) => Self::Memory(error),
            WriteSuperblockError::Device(error) => Self::Device(error),
        }
    }
}

/// Why a superblock was not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteSuperblockError<E> {
    /// No memory to write from.
    #[error(transparent)]
    Memory(MemoryError),
    /// A write or a sync failed.
    #[error("{0}")]
    Device(E),
}

/// Recovers the store that `superblock` describes, and raises its term. When this returns, everything that recovery
/// found is durable, and so is the superblock of this open.
pub fn prepare<D: StoreDevices>(
    devices: &D,
    superblock: Superblock,
    how: HowToOpen,
) -> Result<Prepared, PrepareError<D::Error>> {
    let mut report = recover_store(&Source { superblock: &superblock, devices }, &superblock, how.recovery)?;
    free_orphans(&superblock, devices, &report)?;
    // What recovery found may still be in a cache of the device; the next open has to find it too.
    for device in indices(&superblock) {
        if !mutant::is_active(Mutant::OpenWithoutSync) {
            devices.sync(device).map_err(PrepareError::Device)?;
        }
    }
    let layout = Arc::new(layout_of(&superblock));
    let extents = Arc::new(extent_table(&layout, &report));
    let (states, added) = shard_states(&superblock, &report, &how, &extents);
    let shards = states.len() as u32;
    extents.set_reserve(reserve_of(&states, extents.len()));
    let resumes = (0..shards)
        .map(|shard| resume_with_room(&report, ShardId(shard as u16), &how, shards, &layout, &extents));
    let mut resumes: Vec<ShardResume> = resumes.collect();
    let is_salvage = how.recovery.salvage;
    batches::resolve(&superblock, devices, &mut report, &mut resumes, is_salvage)?;
    let superblock = next_superblock(superblock, &report, &how, &states);
    write_superblock(&superblock, devices)?;
    let left = resumes.iter().flat_map(|it| it.space.unresolved.iter().map(|left| (it.shard, left)));
    let noted = report.shards.iter().map(|shard| shard.space.over.len()).max().unwrap_or_default();
    let over = Arc::new(OverTable::new(superblock.term, left, noted));
    Ok(Prepared { superblock, layout, extents, sync_failures: Arc::default(), resumes, report, added, over })
}

fn indices(superblock: &Superblock) -> impl Iterator<Item = DeviceIndex> + use<> {
    (0..superblock.devices.len() as u16).map(DeviceIndex)
}

/// Recovery's view of the devices.
pub struct Source<'a, D> {
    /// Says where slots are.
    pub superblock: &'a Superblock,
    /// Hold them.
    pub devices: &'a D,
}

impl<D: StoreDevices> RecoverySource for Source<'_, D> {
    fn read(&self, slot: SlotIndex, bytes: &mut [u8]) -> Result<(), SourceError> {
        let (device, offset) = self.superblock.locate(slot).ok_or(SourceError::NoSuchSlot { slot })?;
        self.devices.read(device, offset, bytes)
    }
}

/// Writes both copies of the side that the sequence names, on each device, and syncs. The other side stays as it is.
pub fn write_superblock<D: StoreDevices>(
    superblock: &Superblock,
    devices: &D,
) -> Result<(), WriteSuperblockError<D::Error>> {
    indices(superblock).try_for_each(|device| write_superblock_to(device, superblock, devices))
}

/// The same for one device.
pub(crate) fn write_superblock_to<D: StoreDevices>(
    device: DeviceIndex,
    superblock: &Superblock,
    devices: &D,
) -> Result<(), WriteSuperblockError<D::Error>> {
    let block = superblock.geometry.slot_bytes().max(devices.alignment(device)) as usize;
    let bytes = superblock.encoded_bytes().next_multiple_of(block);
    let mut buffer = PooledBuffer::alone(bytes).map_err(WriteSuperblockError::Memory)?;
    superblock.encode_copy(device, buffer.as_mut_slice());
    let slice = RegionSlice::from(buffer);
    for offset in superblock.side() {
        devices.write(device, offset, &slice).map_err(WriteSuperblockError::Device)?;
    }
    devices.sync(device).map_err(WriteSuperblockError::Device)
}

/// Free extents that ordinary appends do not get, in a store of such shards and so many extents. A cold shard counts
/// twice: what is copied from the other shard and what is copied within may take one each.
pub(crate) fn reserve_of(shards: &[ShardState], extents: u32) -> u64 {
    let cold = shards.iter().filter(|state| state.cold_of().is_some()).count();
    reserve_for((shards.len() + cold) as u64, extents)
}

fn reserve_for(shards: u64, extents: u32) -> u64 {
    (shards * RESERVE_PER_SHARD).min(u64::from(extents) / RESERVE_SHARE)
}

/// What the superblock says after a clean close. `None`: a shard has no clean end, so the next open recovers.
#[must_use]
pub fn closing_superblock(
    opened: &Superblock,
    tails: &[(ShardId, ShardEntry)],
    unix_ns: u64,
) -> Option<Superblock> {
    if tails.len() != opened.shards.len() {
        return None;
    }
    let mut shards = opened.shards.clone();
    for (shard, entry) in tails {
        let place = shards.get_mut(usize::from(shard.0))?;
        *place = ShardEntry { state: place.state, ..*entry };
    }
    let sequence = opened.sequence + 1;
    Some(Superblock { sequence, clean: true, written_unix_ns: unix_ns, shards, ..opened.clone() })
}

/// The fewest extents that a store of so many shards can be cleaned with, none of them cold: beside the reserve, the extent that each shard
/// writes to, and the spare one of each other shard, one has to be left that can be emptied.
#[must_use]
pub fn extents_to_clean(shards: u32) -> u32 {
    let others = 2 * (u64::from(shards.max(1)) - 1);
    let does = |extents: &u32| {
        let reserve = reserve_for(u64::from(shards.max(1)), *extents);
        reserve > 0 && u64::from(*extents) > reserve + 1 + others
    };
    (1..EXTENTS_MAX).find(does).unwrap_or(EXTENTS_MAX)
}

/// What the superblock says once a shard is retired. `None`: there is no such shard.
#[must_use]
pub fn retiring_superblock(current: &Superblock, shard: ShardId, unix_ns: u64) -> Option<Superblock> {
    let mut shards = current.shards.clone();
    shards.get_mut(usize::from(shard.0))?.state = ShardState::Retired;
    let sequence = current.sequence + 1;
    Some(Superblock { sequence, written_unix_ns: unix_ns, shards, ..current.clone() })
}

/// What the superblock says once all of a backup is in the store.
#[must_use]
pub fn restored_superblock(current: &Superblock, unix_ns: u64) -> Superblock {
    let mut features = current.features;
    features.incompatible &= !Features::RESTORING.incompatible;
    let sequence = current.sequence + 1;
    Superblock { sequence, written_unix_ns: unix_ns, features, ..current.clone() }
}

/// Where the slots of a store are.
#[must_use]
pub fn layout_of(superblock: &Superblock) -> Layout {
    let runs = superblock.regions.iter().map(|region| RegionRun {
        device: region.device,
        first_extent: region.first_extent,
        extents: region.extent_count,
        device_offset: region.device_offset,
    });
    Layout::new(superblock.geometry, runs.collect())
}

/// Who owns which extent, by what recovery found.
#[must_use]
pub fn extent_table(layout: &Layout, report: &RecoveryReport) -> ExtentTable {
    let table = ExtentTable::new(*layout.geometry(), layout.extents());
    let free = |generation: Generation| ExtentEntry { usage: ExtentUse::Free, shard: ShardId(0), generation };
    for extent in &report.free_extents {
        table.restore(extent.index, free(extent.generation), ExtentOrdinal(0));
    }
    for extent in &report.extents_bad {
        let bad = ExtentEntry { usage: ExtentUse::Quarantined, ..free(Generation::default()) };
        table.restore(*extent, bad, ExtentOrdinal(0));
    }
    for shard in &report.shards {
        for extent in &shard.extents {
            let entry =
                ExtentEntry { usage: ExtentUse::Claimed, shard: shard.shard, generation: extent.generation };
            table.restore(extent.index, entry, extent.ordinal);
        }
        for facts in &shard.space.extents {
            table.restore_dead(facts.extent, facts.dead_bytes);
        }
        for extent in &shard.orphans {
            table.restore(extent.index, free(extent.generation), ExtentOrdinal(0));
        }
    }
    table
}

fn resume(report: &RecoveryReport, shard: ShardId) -> ShardResume {
    let Some(found) = report.shards.get(usize::from(shard.0)) else { return ShardResume::fresh(shard) };
    ShardResume {
        shard,
        next_frame: found.next_frame,
        next_slot: found.next_slot,
        link: found.link,
        extents: found
            .extents
            .iter()
            .map(|extent| ShardExtent { ordinal: extent.ordinal, extent: extent.index })
            .collect(),
        used_extents: found.used_extents,
        claim: None,
        space: found.space.clone(),
    }
}

/// A shard that has no room to go on gets an extent set aside before any core runs: the cores that start first claim
/// extents ahead, and would leave none for the shards of the cores that start last. If none is free the shard is opened
/// without room: a full store can be read, and trimmed.
fn resume_with_room(
    report: &RecoveryReport,
    shard: ShardId,
    how: &HowToOpen,
    shards: u32,
    layout: &Layout,
    extents: &ExtentTable,
) -> ShardResume {
    let resume = resume(report, shard);
    if resume.first_slot(extents.geometry(), how.buffer_bytes).is_some() {
        return resume;
    }
    let claim = resume.claim(&how.near, layout, extents, shards);
    ShardResume { claim, ..resume }
}

/// Extents that a shard claimed behind a gap can never be part of its log; left as they are, a later claim of the same
/// ordinal would contradict them.
fn free_orphans<D: StoreDevices>(
    superblock: &Superblock,
    devices: &D,
    report: &RecoveryReport,
) -> Result<(), PrepareError<D::Error>> {
    for (shard, extent) in
        report.shards.iter().flat_map(|shard| shard.orphans.iter().map(move |it| (shard, it)))
    {
        let header = ExtentHeader {
            store: superblock.store,
            extent: extent.index,
            generation: extent.generation,
            owner: shard.shard,
            state: ExtentState::Freed,
            ordinal: extent.ordinal,
            term: Term(report.highest_term.0 + 1),
            frame_floor: shard.next_frame,
        };
        let Some((device, offset)) = superblock.locate(superblock.geometry.header_slot(extent.index)) else {
            continue;
        };
        let mut buffer =
            PooledBuffer::alone(superblock.geometry.slot_bytes() as usize).map_err(PrepareError::Memory)?;
        header.encode_slot(&superblock.geometry, buffer.as_mut_slice());
        devices.write(device, offset, &buffer.into()).map_err(PrepareError::Device)?;
    }
    Ok(())
}

/// What each shard is from now on, and which of them are new. A store without room for a further shard keeps those that it has.
fn shard_states(
    superblock: &Superblock,
    report: &RecoveryReport,
    how: &HowToOpen,
    extents: &ExtentTable,
) -> (Vec<ShardState>, AddedShards) {
    let mut states: Vec<_> = superblock.shards.iter().map(|shard| shard.state).collect();
    let active = states.iter().filter(|state| **state == ShardState::Active).count() as u32;
    let asked = how.shards_min.saturating_sub(active);
    let wanted = asked.min(SHARDS_MAX - states.len() as u32);
    let affordable = affordable_shards(&states, report, how, extents);
    let new = affordable.min(wanted);
    states.extend(vec![ShardState::Active; new as usize]);
    let fewer = fewer_shards(asked, wanted, new);
    let cold = cold_shards(&states, how, extents.len());
    let left = u64::from(affordable - new);
    // All of them or none, so that what is appended to one shard costs what it costs in another; and not with the last
    // that cleaning could begin with.
    let with_cold: Vec<_> = states.iter().copied().chain(cold.iter().copied()).collect();
    let kept = reserve_of(&with_cold, extents.len()).div_ceil(EXTENTS_PER_SHARD_MIN);
    let cold = if cold.len() as u64 + kept <= left { cold } else { Vec::new() };
    let added = AddedShards { active: new, cold: cold.len() as u32, fewer };
    states.extend(cold);
    (states, added)
}

/// Further shards that the store has room for. What those that it has need themselves comes first: a crash right after a superblock that added
/// shards leaves shards that have no extent yet, and those that have one go on to another. A retired shard keeps one.
fn affordable_shards(
    states: &[ShardState],
    report: &RecoveryReport,
    how: &HowToOpen,
    extents: &ExtentTable,
) -> u32 {
    let needed = |shard: usize| {
        let resume = resume(report, ShardId(shard as u16));
        let has_room = resume.first_slot(extents.geometry(), how.buffer_bytes).is_some();
        match (has_room, resume.extents.is_empty()) {
            (true, _) => 0,
            (false, true) => EXTENTS_PER_SHARD_MIN,
            (false, false) => 1,
        }
    };
    let spoken_for: u64 = (0..states.len()).map(needed).sum();
    let kept = |state: &ShardState| if *state == ShardState::Retired { 1 } else { EXTENTS_PER_SHARD_MIN };
    let beside = u64::from(extents.len()).saturating_sub(states.iter().map(kept).sum());
    let affordable = extents.free_count().saturating_sub(spoken_for).min(beside) / EXTENTS_PER_SHARD_MIN;
    u32::try_from(affordable).unwrap_or(u32::MAX)
}

/// Why `new` shards are not as many as were asked for; of these, a store may have `wanted`.
fn fewer_shards(asked: u32, wanted: u32, new: u32) -> Option<FewerShards> {
    let lacking = asked - new;
    match (lacking, new < wanted) {
        (0, _) => None,
        (_, true) => Some(FewerShards::NoRoom { lacking }),
        (_, false) => Some(FewerShards::TooMany { lacking }),
    }
}

/// Those that are to be made.
fn cold_shards(states: &[ShardState], how: &HowToOpen, extents: u32) -> Vec<ShardState> {
    let active = states.iter().filter(|state| **state == ShardState::Active).count() as u32;
    let is_large = how.cold_from.is_some_and(|each| extents / active.max(1) >= each);
    let cold = (0..).map(ShardId).zip(states).filter(|(_, state)| **state == ShardState::Active);
    let cold = cold.map(|(hot, _)| ShardState::Cold(hot)).filter(|cold| is_large && !states.contains(cold));
    let cold: Vec<_> = cold.collect();
    if cold.len() + states.len() > SHARDS_MAX as usize { Vec::new() } else { cold }
}

fn next_superblock(
    superblock: Superblock,
    report: &RecoveryReport,
    how: &HowToOpen,
    shards: &[ShardState],
) -> Superblock {
    let mut entries = report.shard_entries();
    let added = shards.iter().skip(entries.len());
    entries.extend(added.map(|state| ShardEntry { state: *state, ..ShardEntry::default() }));
    let raise = u64::from(!mutant::is_active(Mutant::TermNotRaised));
    Superblock {
        sequence: superblock.sequence + 1,
        term: Term(report.highest_term.0 + raise),
        clean: false,
        reach_bytes: how.reach_bytes,
        written_unix_ns: how.unix_ns,
        shards: entries,
        ..superblock
    }
}

#[cfg(all(test, not(loom)))]
#[expect(clippy::unwrap_used, reason = "tests")]
#[path = "opening_tests.rs"]
mod tests;
