//! The index of those who use a simulated store, and what cleaning has to keep: each record that is wanted is in the
//! log exactly once, at the place that the index says.

use super::{
    check::{Extents, View},
    image::Taint,
    oracle::{Fate, Oracle, Record},
    payload::identify,
    random::Random,
};
use crate::{
    address::Address,
    cleaning::{CleaningOptions, CleaningPolicy, RecordOwner},
    directory::Directory,
    extents::ExtentUse,
    format::{
        checksum::StoreSeed,
        manifest::{Manifest, ManifestOf},
        record::{RecordKind, record_bytes},
    },
    geometry::Geometry,
    ids::{FrameNumber, ShardId, SlotIndex},
    manifest::{Found, ManifestWalk, WalkSetup, WalkStep},
    recovery::{RecoveredShard, RecoveryReport},
    scan::{Limit, OnDamage, ScanSetup, Scanner, Start, Step, Wanted},
    sync::Mutex,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{MutexGuard, PoisonError},
};

/// What is read at once.
const CHUNK_BYTES: u64 = 64 << 10;

#[derive(Debug, Default)]
struct State {
    /// Where a record is, as far as its user knows.
    at: BTreeMap<u64, Address>,
    released: BTreeSet<u64>,
    /// What cleaning said and the oracle has not looked at.
    relocated: Vec<(u64, Address)>,
    /// Records that a copy in another shard took the place of.
    moved_away: BTreeSet<u64>,
    /// Records whose copies a scan gave before their users had heard of them.
    early: BTreeSet<u64>,
    /// Large records, by where their lists begin in the store; and what lies where, of those that this life wrote.
    large: BTreeMap<u64, u64>,
    pieces: BTreeMap<u64, Vec<(Address, u64)>>,
    /// Large records that keep extents.
    in_the_way: BTreeSet<u64>,
    /// A device has lied: what an earlier life wrote in a place may have been copied from there.
    is_deceived: bool,
}

/// Who knows what is wanted.
#[derive(Debug)]
pub(super) struct Index {
    state: Mutex<State>,
    /// Its users append single records only, and none that fills a buffer.
    pub is_plain: bool,
    /// Its users release less than they append, so that there is something to copy in what is cleaned.
    pub is_kept: bool,
    /// Its large records are moved.
    pub moves_large: bool,
}

impl Index {
    pub(super) fn new(is_plain: bool, is_kept: bool, moves_large: bool) -> Self {
        Self { state: Mutex::default(), is_plain, is_kept, moves_large }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to an append; it may come after the record was moved.
    pub(super) fn learn(&self, id: u64, address: Address) {
        self.state().at.entry(id).or_insert(address);
    }

    /// The same of a large record.
    pub(super) fn learn_large(&self, id: u64, address: Address) {
        self.state().large.insert(address.byte(), id);
    }

    /// The large record whose list begins there.
    pub(super) fn large_at(&self, byte: u64) -> Option<u64> {
        self.state().large.get(&byte).copied()
    }

    /// The list of a large record that this life wrote.
    pub(super) fn learn_pieces(&self, id: u64, pieces: Vec<(Address, u64)>) {
        self.state().pieces.insert(id, pieces);
    }

    /// A record that some user wants; now and then one whose room is asked for.
    pub(super) fn pick(&self, random: &mut Random) -> Option<u64> {
        let mut state = self.state();
        while !state.in_the_way.is_empty() && random.one_in(2) {
            let Some(id) = state.in_the_way.pop_first() else { break };
            if !state.released.contains(&id) {
                return Some(id);
            }
        }
        let from = random.below(state.at.keys().next_back()? + 1);
        state.at.range(from..).map(|(id, _)| *id).find(|id| !state.released.contains(id))
    }

    pub(super) fn is_released(&self, id: u64) -> bool {
        self.state().released.contains(&id)
    }

    /// The record has a copy in another shard now. False: it is not wanted any more, or is elsewhere.
    pub(super) fn move_away(&self, id: u64, from: Address) -> bool {
        let mut state = self.state();
        let moves = state.at.get(&id).is_none_or(|at| *at == from) && state.released.insert(id);
        if moves {
            state.moved_away.insert(id);
        }
        moves
    }

    /// True if the place of the record may have been trimmed.
    pub(super) fn is_trimmed(&self, oracle: &Oracle, shard: ShardId, id: u64) -> bool {
        let at = self.state().at.get(&id).copied();
        at.is_some_and(|at| oracle.may_be_reclaimed(shard, at))
    }

    /// A device lies.
    pub(super) fn note_lie(&self) {
        self.state().is_deceived = true;
    }

    /// True if cleaning, or the index after it, knows the record: it was in the log before its user heard of it.
    pub(super) fn knows(&self, id: u64) -> bool {
        let state = self.state();
        state.at.contains_key(&id) || state.released.contains(&id) || state.early.contains(&id)
    }

    /// True if the record has to be where it was appended.
    fn is_at_home(&self, id: u64, address: Address) -> bool {
        let state = self.state();
        !state.released.contains(&id) && state.at.get(&id).is_none_or(|at| at.byte() == address.byte())
    }
}

impl RecordOwner for Index {
    fn is_live(&self, address: Address, payload: &[u8]) -> bool {
        let Some(id) = identify(payload) else { return true };
        let state = self.state();
        // One whose answer is still on the way is wanted.
        !state.released.contains(&id) && state.at.get(&id).is_none_or(|at| *at == address)
    }

    fn relocated(&self, from: Address, to: Address, payload: &[u8]) -> bool {
        let Some(id) = identify(payload) else { return true };
        let mut state = self.state();
        if state.released.contains(&id) {
            return false;
        }
        if state.at.get(&id).is_none_or(|at| *at == from) {
            state.at.insert(id, to);
            state.relocated.push((id, to));
        }
        state.at.get(&id) == Some(&to)
    }

    fn is_large_live(&self, address: Address) -> bool {
        let state = self.state();
        let id = state.large.get(&address.byte());
        id.is_none_or(|id| !state.released.contains(id) && state.at.get(id).is_none_or(|at| *at == address))
    }

    fn moves_large(&self) -> bool {
        self.moves_large
    }

    fn relocated_large(&self, from: Address, to: Address) -> bool {
        let mut state = self.state();
        let Some(id) = state.large.get(&from.byte()).copied() else { return true };
        if state.released.contains(&id) {
            return false;
        }
        if state.at.get(&id).is_none_or(|at| *at == from) {
            state.at.insert(id, to);
            state.large.insert(to.byte(), id);
            state.pieces.remove(&id);
            state.relocated.push((id, to));
        }
        state.at.get(&id) == Some(&to)
    }

    fn keeps_extent(&self, address: Address) {
        let mut state = self.state();
        let id = state.large.get(&address.byte()).copied();
        state.in_the_way.extend(id);
    }
}

/// Small stores have few extents, and are to be cleaned all the time.
pub(super) fn draw(random: &mut Random) -> CleaningOptions {
    let low_percent = random.pick(&[20, 50, 80]);
    CleaningOptions {
        policy: random.pick(&[CleaningPolicy::Greedy, CleaningPolicy::CostBenefit, CleaningPolicy::Fifo]),
        low_percent,
        high_percent: low_percent + 10,
    }
}

/// A user no longer wants a record.
pub(super) fn release(index: &Index, directory: &Directory, geometry: &Geometry, id: u64, length: u64) {
    let mut state = index.state();
    if !state.released.insert(id) {
        return;
    }
    let Some(at) = state.at.get(&id).copied() else { return };
    let Ok(shard) = directory.owner_of(at) else { return };
    let is_large = state.large.get(&at.byte()) == Some(&id);
    // Who does not know where the pieces are says nothing of them: a survey finds out.
    let pieces = if is_large { state.pieces.remove(&id).unwrap_or_default() } else { vec![(at, length)] };
    for (at, length) in pieces {
        let extent = at.extent(geometry);
        let is_there = directory
            .extents
            .get(extent)
            .is_some_and(|it| it.usage == ExtentUse::Claimed && it.shard == shard && at.is_of(it.generation));
        if is_there {
            directory.extents.note_dead(extent, record_bytes(length));
        }
    }
    if let Some(shard) = directory.shard(shard) {
        shard.note_release_and_ring();
    }
}

impl Oracle {
    /// True if nothing that is wanted has to be in the frame any more.
    pub(super) fn is_cleaned_out(&self, shard: usize, frame: FrameNumber) -> bool {
        self.index.is_some() && self.kept_in(shard, frame).is_none()
    }

    /// A record that has to be in the frame.
    pub(super) fn kept_in(&self, shard: usize, frame: FrameNumber) -> Option<u64> {
        let needs = |id: &&u64| match self.records[**id as usize].fate {
            Fate::Placed(placed) => !self.may_have_moved(**id, placed.address),
            Fate::Issued | Fate::Decided | Fate::Gone => false,
        };
        self.shards[shard].frames.get(frame.0 as usize)?.records.iter().find(needs).copied()
    }

    /// True if cleaning may have taken a record away from where a batch lists it.
    pub(super) fn has_left(&self, id: u64, found: &RecoveredShard) -> bool {
        let Fate::Placed(placed) = self.records[id as usize].fate else { return false };
        let extent = placed.address.extent(&self.geometry);
        let is_there =
            |it: &crate::recovery::RecoveredExtent| it.index == extent && placed.address.is_of(it.generation);
        self.may_have_moved(id, placed.address) && !found.extents.iter().any(is_there)
    }

    /// True if some of the large record whose list begins at `byte` may be gone, since nobody wants it, or it was moved.
    pub(super) fn is_given_up(&self, shard: ShardId, byte: u64) -> bool {
        let is_it = |record: &Record| {
            let at = if let Fate::Placed(placed) = record.fate { Some(placed.address.byte()) } else { None };
            record.is_large && record.shard == shard && at == Some(byte)
        };
        let id = self.records.iter().rposition(is_it);
        let address = |id: usize| match self.records[id].fate {
            Fate::Placed(placed) => Some(placed.address),
            Fate::Issued | Fate::Decided | Fate::Gone => None,
        };
        id.is_some_and(|id| address(id).is_some_and(|address| self.may_have_moved(id as u64, address)))
    }

    /// True if the record may have left the address, by cleaning.
    pub(super) fn may_have_moved(&self, id: u64, address: Address) -> bool {
        self.index.as_ref().is_some_and(|index| !index.is_at_home(id, address))
    }

    /// M1: what cleaning says to be the place of a record is durable.
    pub(super) fn check_relocations(&mut self) -> Result<(), String> {
        let Some(index) = &self.index else { return Ok(()) };
        for (id, to) in std::mem::take(&mut index.state().relocated) {
            let slot = to.slot(&self.geometry);
            let claim = self.claims[self.geometry.extent_of(slot).0 as usize];
            let home = self.records[id as usize].shard;
            let history = &self.shards[usize::from(claim.map_or(home, |claim| claim.owner).0)];
            let holds = |frame: &&super::oracle::Frame| {
                frame.header.is_some_and(|it| it.base_slot <= slot && slot < it.end_slot(&self.geometry))
            };
            let newest = history.frames.iter().rev().find(holds).and_then(|frame| frame.header);
            match newest {
                Some(header) if header.number.0 < history.durable => {}
                found => {
                    let durable = history.durable;
                    return Err(format!(
                        "M1: record {id} was said to be at {to:?}, which is not durable ({found:?}, {durable})"
                    ));
                }
            }
        }
        Ok(())
    }

    /// A life begins: the index is what a scan gives.
    pub(super) fn rebuild_index(&mut self, view: &View<'_>, report: &RecoveryReport) {
        let Some(index) = self.index.clone() else { return };
        let mut state = index.state();
        state.at.clear();
        state.relocated.clear();
        state.large.clear();
        state.pieces.clear();
        state.in_the_way.clear();
        for shard in &report.shards {
            state.at.extend(view.scan(shard).unwrap_or_default());
        }
        let is_large = |id: &u64| self.records[*id as usize].is_large;
        let large: Vec<_> =
            state.at.iter().filter(|(id, _)| is_large(id)).map(|(id, at)| (at.byte(), *id)).collect();
        state.large.extend(large);
        // Where the crash took the copies, what they were made of is wanted again.
        let moved = &self.drains.moved;
        let back: Vec<u64> = state.moved_away.iter().copied().filter(|id| !moved.contains_key(id)).collect();
        for id in back {
            state.moved_away.remove(&id);
            state.released.remove(&id);
        }
        for (id, record) in self.records.iter().enumerate() {
            // What is not there was trimmed; that it may be was looked at.
            if matches!(record.fate, Fate::Placed(_)) && !state.at.contains_key(&(id as u64)) {
                state.released.insert(id as u64);
            }
        }
    }
}

impl View<'_> {
    /// M2: each record that is wanted comes once, and none comes twice.
    pub(super) fn check_scan(
        &self,
        oracle: &Oracle,
        report: &RecoveryReport,
        found: &RecoveredShard,
    ) -> Result<(), String> {
        let Some(index) = &oracle.index else { return Ok(()) };
        let mut given: HashMap<u64, Address> = HashMap::new();
        let cold = self.superblock.cold_shard_of(found.shard);
        let cold = cold.and_then(|cold| report.shards.get(usize::from(cold.0)));
        let scan = |shard: &RecoveredShard| {
            self.scan(shard).map_err(|damage| format!("M2: a scan of {:?} ends: {damage}", shard.shard))
        };
        let mut all = scan(found)?;
        all.extend(cold.map(scan).transpose()?.into_iter().flatten());
        for (id, at) in all {
            match oracle.records[id as usize].fate {
                Fate::Gone if !index.state().is_deceived && !index.state().early.contains(&id) => {
                    return Err(format!(
                        "M3: {:?} gives record {id} at {at:?}, which never counted",
                        found.shard
                    ));
                }
                Fate::Gone | Fate::Placed(_) => {}
                Fate::Issued | Fate::Decided => _ = index.state().early.insert(id),
            }
            if let Some(other) = given.insert(id, at) {
                return Err(format!("M2: {:?} gives record {id} at {other:?} and at {at:?}", found.shard));
            }
        }
        for (id, record) in oracle.records.iter().enumerate() {
            let Fate::Placed(placed) = record.fate else { continue };
            let id = id as u64;
            let is_wanted =
                record.shard == found.shard && placed.frame < found.next_frame && !index.is_released(id);
            let may_be_trimmed = || {
                let at = index.state().at.get(&id).copied();
                oracle.may_be_gone(found.shard, placed.frame)
                    || at.is_some_and(|at| oracle.may_be_reclaimed(found.shard, at))
            };
            if is_wanted && !given.contains_key(&id) && !may_be_trimmed() {
                return Err(format!("M2: {:?} does not give record {id}, placed at {placed:?}", found.shard));
            }
        }
        Ok(())
    }

    /// What a scan of a shard gives, as far as it names itself; large records by their bytes.
    pub(super) fn scan(&self, found: &RecoveredShard) -> Result<Vec<(u64, Address)>, String> {
        let geometry = self.superblock.geometry;
        let extents = Extents(found);
        let used = found.extents.get(..found.used_extents).unwrap_or_default();
        let last = used.last().map_or(SlotIndex(0), |last| geometry.header_slot(last.index));
        let end = found.next_slot.unwrap_or_else(|| last.offset_by(geometry.slots_per_extent()));
        let setup = ScanSetup {
            store: self.superblock.store,
            shard: found.shard,
            geometry,
            chunk_bytes: CHUNK_BYTES,
            wanted: Wanted::Data,
            on_damage: OnDamage::Stop,
        };
        let limit = Limit { frames: found.next_frame, end };
        let mut scanner = Scanner::new(setup, Start::Oldest, limit, &extents);
        let mut given = Vec::new();
        loop {
            match scanner.step(&extents) {
                Step::Record(record) if record.kind == RecordKind::LARGE_MANIFEST => {
                    let whole = self.large_of(&record.payload, &extents)?;
                    given.extend(whole.as_deref().and_then(identify).map(|id| (id, record.address)));
                }
                Step::Record(record) => {
                    given.extend(identify(&record.payload).map(|id| (id, record.address)));
                }
                Step::Need => {
                    while let Some(run) = scanner.ask(1, &extents) {
                        scanner.supply(run.slot, self.slots(run));
                    }
                }
                Step::Damage(damage) => return Err(damage.to_string()),
                Step::End => return Ok(given),
            }
        }
    }

    /// The bytes of a large record; `None`: some of it was given up.
    fn large_of(&self, list: &[u8], extents: &Extents<'_>) -> Result<Option<Vec<u8>>, String> {
        let of = ManifestOf::Large;
        let list = Manifest::decode_root(list, of).map_err(|error| error.to_string())?;
        let seed = StoreSeed::new(self.superblock.store);
        let setup = WalkSetup { seed, geometry: self.superblock.geometry, of };
        let mut walk = ManifestWalk::new(setup, &list, 0);
        let mut whole = Vec::new();
        loop {
            match walk.step(extents) {
                WalkStep::Found(Found { payload, .. }) => whole.extend_from_slice(&payload),
                WalkStep::Need => {
                    if let Some(run) = walk.ask() {
                        walk.supply(run.slot, Ok(self.slots(run)));
                    }
                }
                WalkStep::Reclaimed(_) => return Ok(None),
                WalkStep::Fault(fault) => return Err(format!("{}: {}", fault.address, fault.fault)),
                WalkStep::End => return Ok(Some(whole)),
            }
        }
    }

    pub(super) fn is_honest(&self) -> bool {
        let lies = [Taint::LIE, Taint::DROPPED, Taint::LATE];
        !self.disks.iter().any(|disk| lies.iter().any(|lie| disk.is_tainted(0, disk.bytes(), *lie)))
    }
}
