//! Scans that run beside cleaning.
//!
//! A scan tells copies of what it has seen by the extent that they are copies of. That is enough as long as no record is
//! moved twice while the scan runs; so extents that were written since it began are not cleaned before it ends. Nor does
//! anything move between a shard and its cold shard while either is scanned.

use crate::{format::moved::Origin, ids::ExtentOrdinal, limits::SCAN_PIN_MS_MAX, shard::Shard};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// One that has not read anything for so long does not count any more.
const LAPSE: Duration = Duration::from_millis(SCAN_PIN_MS_MAX);

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// From which ordinal on nothing is cleaned, and when the scan last read.
    pins: BTreeMap<u64, (ExtentOrdinal, Instant)>,
    /// Where the first copies of the extent went that is being cleaned.
    copies: Option<ExtentOrdinal>,
    /// Those who keep cleaning from freeing anything.
    holds: u64,
    /// How often an extent with copies was given up to be freed.
    freed: u64,
    /// No extent is chosen: somebody empties the shard.
    is_paused: bool,
}

/// The scans of a shard.
#[derive(Debug, Default)]
pub(crate) struct ScanPins(Mutex<State>);

impl ScanPins {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Extents from here on are not to be cleaned.
    pub(crate) fn first(&self) -> Option<ExtentOrdinal> {
        let state = self.state();
        if state.holds > 0 || state.is_paused {
            return Some(ExtentOrdinal(0));
        }
        let current = state.pins.values().filter(|(_, read)| read.elapsed() < LAPSE);
        current.map(|(ordinal, _)| *ordinal).min()
    }

    /// The first copies of an extent went there; `None`: all of it was freed.
    pub(crate) fn note_copies(&self, ordinal: Option<ExtentOrdinal>) {
        let copies = &mut self.state().copies;
        *copies = ordinal.map(|ordinal| copies.map_or(ordinal, |known| known.min(ordinal)));
    }

    /// True if an extent may be freed whose copies are durable; it counts as freed from now on. Not if `gives_up` says
    /// no, which is asked last.
    pub(crate) fn may_free(&self, gives_up: impl FnOnce() -> bool) -> bool {
        let mut state = self.state();
        let is_free = state.holds == 0 && gives_up();
        state.freed += u64::from(is_free);
        is_free
    }

    pub(crate) fn is_held(&self) -> bool {
        self.state().holds > 0
    }

    /// True while a [`CleaningPause`] lasts.
    pub(crate) fn is_paused(&self) -> bool {
        self.state().is_paused
    }

    /// How often an extent was given up since the store was opened.
    pub(crate) fn freed(&self) -> u64 {
        self.state().freed
    }
}

/// Keeps cleaning from freeing extents of a shard, until it is dropped.
#[derive(Debug)]
pub struct CleaningHold {
    shard: Arc<Shard>,
    holds: bool,
}

impl CleaningHold {
    /// What is freed from now on had all of its copies written before.
    #[must_use]
    pub fn new(shard: &Arc<Shard>) -> Self {
        shard.scans().state().holds += 1;
        Self { shard: Arc::clone(shard), holds: true }
    }

    /// Ends it. The shard, whose owner has to hear of it.
    pub fn end(&mut self) -> &Arc<Shard> {
        if std::mem::take(&mut self.holds) {
            self.shard.scans().state().holds -= 1;
        }
        &self.shard
    }
}

impl Drop for CleaningHold {
    fn drop(&mut self) {
        if self.holds {
            self.end().note_release_and_ring();
        }
    }
}

/// Keeps cleaning from beginning with a further extent of a shard, until it is dropped: for whoever empties the shard. What
/// is under way ends by [`crate::shard_owner::SpaceAsk::EndCleaning`].
#[derive(Debug)]
pub struct CleaningPause(Arc<Shard>);

impl CleaningPause {
    /// `None`: there is one already.
    #[must_use]
    pub fn new(shard: &Arc<Shard>) -> Option<Self> {
        let was_paused = std::mem::replace(&mut shard.scans().state().is_paused, true);
        (!was_paused).then(|| Self(Arc::clone(shard)))
    }
}

impl Drop for CleaningPause {
    fn drop(&mut self) {
        self.0.scans().state().is_paused = false;
        // There may be something to clean now.
        self.0.note_release_and_ring();
    }
}

/// A scan's mark in its shard; dropped with the scan.
#[derive(Debug)]
pub struct ScanPin {
    shard: Arc<Shard>,
    key: u64,
    /// Its mark in what a shard and its cold shard share.
    crossing: Option<u64>,
    given_up: Option<Origin>,
}

impl ScanPin {
    /// From now on what is written to the shard is not cleaned.
    #[must_use]
    pub fn new(shard: &Arc<Shard>) -> Self {
        let mut state = shard.scans().state();
        let key = state.next;
        state.next += 1;
        let pin = (Self::place(shard, &state), Instant::now());
        state.pins.insert(key, pin);
        drop(state);
        let (crossing, given_up) = shard.crossing().map(|crossing| crossing.begin_scan()).unzip();
        Self { shard: Arc::clone(shard), key, crossing, given_up: given_up.flatten() }
    }

    /// The extent that cleaning had given up when the scan began, and not freed: what it copied of it into another shard
    /// counts for this scan, and the originals do not.
    #[must_use]
    pub const fn given_up(&self) -> Option<Origin> {
        self.given_up
    }

    fn place(shard: &Shard, state: &State) -> ExtentOrdinal {
        // The extent that is written to, or the one before it.
        let last = ExtentOrdinal(shard.ordinals().end.saturating_sub(2));
        state.copies.map_or(last, |copies| copies.min(last))
    }

    /// The scan goes on.
    pub fn touch(&self) {
        if let Some((_, read)) = self.shard.scans().state().pins.get_mut(&self.key) {
            *read = Instant::now();
        }
        if let (Some(crossing), Some(key)) = (self.shard.crossing(), self.crossing) {
            crossing.touch_scan(key);
        }
    }

    /// The scan has seen all that is written.
    pub fn move_on(&self) {
        let mut state = self.shard.scans().state();
        let pin = (Self::place(&self.shard, &state), Instant::now());
        state.pins.insert(self.key, pin);
        drop(state);
        self.touch();
        self.shard.note_release_and_ring();
    }
}

impl Drop for ScanPin {
    fn drop(&mut self) {
        self.shard.scans().state().pins.remove(&self.key);
        if let (Some(crossing), Some(key)) = (self.shard.crossing(), self.crossing) {
            crossing.end_scan(key);
            // What the scan kept from being freed wants to hear of its end, whoever of the two it was.
            let _rung_in_any_case = self.shard.note_release();
            return self.shard.ring().bell().ring();
        }
        // There may be something to clean now.
        self.shard.note_release_and_ring();
    }
}
