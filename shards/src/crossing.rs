//! What a shard and its cold shard share: what cleaning has copied of the one into the other, and who reads them.
//!
//! Both are run by one core, so that this is behind a lock that is hardly ever contended: scans take it when they begin
//! and end, and cleaning once in a step. `docs/decisions/0026-cold-shards.md` says what is decided here and why.

use crate::{
    extents::{ExtentTable, ExtentUse},
    format::moved::Origin,
    ids::{ExtentOrdinal, ShardId},
    limits::SCAN_PIN_MS_MAX,
    mutant::{self, Mutant},
    shard_owner::Move,
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// One that has not read anything for so long does not count any more.
const LAPSE: Duration = Duration::from_millis(SCAN_PIN_MS_MAX);

/// An extent of the shard of which the cold one holds copies that do not count yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Crossed {
    state: Move,
    /// The copies lie in this extent of the cold shard, or later ones.
    first: ExtentOrdinal,
}

/// Which of the two an owner runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Hot,
    Cold,
}

/// What one of the two has to clean.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    /// It cleans, and gets on.
    is_busy: bool,
    /// It does not, and would: how much that is worth.
    best: Option<f64>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Scans of either shard, by when they last read.
    scans: BTreeMap<u64, Instant>,
    /// The extent of the shard whose copies count for each scan that begins from now on.
    given_up: Option<Origin>,
    crossed: Vec<Crossed>,
    hot: Standing,
    cold: Standing,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Crossing(Mutex<State>);

/// What is known of the copies of one origin.
#[derive(Debug)]
pub(crate) struct Copying<'a>(MutexGuard<'a, State>);

impl Copying<'_> {
    /// A group of copies was reserved; they lie in the extent `first` of the cold shard, or later.
    pub(crate) fn note(&mut self, state: Move, first: ExtentOrdinal) {
        let crossed = &mut self.0.crossed;
        match crossed.iter_mut().find(|known| known.state.origin == state.origin) {
            Some(known) => known.state = state,
            None => crossed.push(Crossed { state, first }),
        }
    }
}

impl Crossing {
    /// `found`: what recovery found in the cold shard. Where the first copies are only the chain of groups knows.
    pub(crate) fn new(found: impl Iterator<Item = Move>) -> Self {
        let crossed = found.map(|state| Crossed { state, first: ExtentOrdinal(0) }).collect();
        Self(Mutex::new(State { crossed, ..State::default() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody makes a checkpoint of the cold shard before the group that is reserved now is noted.
    pub(crate) fn begin_copy(&self) -> Copying<'_> {
        Copying(self.state())
    }

    /// What a checkpoint of the cold shard has to repeat. What is gone counts as copies, and is forgotten.
    pub(crate) fn moves(&self, extents: &ExtentTable) -> Vec<Move> {
        let mut state = self.state();
        state.crossed.retain(|it| is_there(extents, &it.state.origin));
        state.crossed.iter().map(|it| it.state).collect()
    }

    /// Copies that do not count yet lie in this extent of the cold shard and in later ones, at the earliest.
    pub(crate) fn first(&self, extents: &ExtentTable) -> Option<ExtentOrdinal> {
        let state = self.state();
        let there = state.crossed.iter().filter(|it| is_there(extents, &it.state.origin));
        there.map(|it| it.first).min()
    }

    /// How far the copying of an extent has come, for those of which it was begun.
    pub(crate) fn begun(&self, hot: ShardId) -> Vec<Move> {
        let is_blind = mutant::is_active(Mutant::ColdShardForgotten);
        let state = self.state();
        let of_hot = state.crossed.iter().filter(|it| it.state.origin.shard == hot && !is_blind);
        of_hot.map(|it| it.state).collect()
    }

    // ---- scans --------------------------------------------------------------------------------------------------

    /// From now on nothing crosses. The extent whose copies count for this scan, though it is still there.
    pub(crate) fn begin_scan(&self) -> (u64, Option<Origin>) {
        let mut state = self.state();
        let key = state.next;
        state.next += 1;
        state.scans.insert(key, Instant::now());
        (key, state.given_up)
    }

    pub(crate) fn touch_scan(&self, key: u64) {
        if let Some(read) = self.state().scans.get_mut(&key) {
            *read = Instant::now();
        }
    }

    pub(crate) fn end_scan(&self, key: u64) {
        self.state().scans.remove(&key);
    }

    /// True while somebody reads either of the two.
    pub(crate) fn is_scanned(&self) -> bool {
        self.state().is_scanned()
    }

    /// From now on the copies count for whoever begins to read. False: somebody reads.
    pub(crate) fn give_up(&self, origin: Origin) -> bool {
        let mut state = self.state();
        if state.is_scanned() {
            return false;
        }
        state.given_up = Some(origin);
        true
    }

    /// It is gone, for everybody.
    pub(crate) fn end_giving_up(&self, origin: &Origin) {
        self.state().given_up.take_if(|given_up| given_up == origin);
    }

    // ---- who cleans ---------------------------------------------------------------------------------------------

    /// What `side` does now.
    pub(crate) fn note_busy(&self, side: Side, is_busy: bool) {
        self.state().of(side).is_busy = is_busy;
    }

    /// It has nothing to clean.
    pub(crate) fn note_barren(&self, side: Side) {
        self.state().of(side).best = None;
    }

    /// True if `side` is to clean what it thinks is worth `best`: the other one does not, and has nothing better.
    pub(crate) fn takes_turn(&self, side: Side, best: f64) -> bool {
        let mut state = self.state();
        state.of(side).best = Some(best);
        let other = *state.of(side.other());
        let is_better = other.best.is_some_and(|other| match side {
            Side::Hot => other > best,
            Side::Cold => other >= best,
        });
        let takes = !other.is_busy && !is_better;
        if takes {
            *state.of(side) = Standing { is_busy: true, best: None };
        }
        takes
    }

    pub(crate) fn is_busy(&self, side: Side) -> bool {
        self.state().of(side).is_busy
    }
}

impl Side {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Hot => Self::Cold,
            Self::Cold => Self::Hot,
        }
    }
}

impl State {
    fn is_scanned(&self) -> bool {
        self.scans.values().any(|read| read.elapsed() < LAPSE)
    }

    const fn of(&mut self, side: Side) -> &mut Standing {
        match side {
            Side::Hot => &mut self.hot,
            Side::Cold => &mut self.cold,
        }
    }
}

/// True if the originals count: the extent is what it was.
fn is_there(extents: &ExtentTable, origin: &Origin) -> bool {
    extents.get(origin.extent).is_some_and(|entry| {
        entry.usage == ExtentUse::Claimed
            && entry.generation == origin.generation
            && entry.shard == origin.shard
    })
}
