//! What cleaning needs from outside: who knows which records are wanted, when to clean, and which extent first.
//!
//! The work itself is done by the cores, each for its shards, in steps: see `shard_owner::cleaning`.

use crate::{
    address::Address,
    ids::ExtentOrdinal,
    limits::{CLEAN_HIGH_PERCENT_DEFAULT, CLEAN_LOW_PERCENT_DEFAULT},
    sync::{AtomicU64, Ordering},
};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    sync::{Arc, OnceLock},
};

/// Whoever knows which records of the store are wanted: its index.
///
/// Both calls are made on the thread of a core, between two turns' work: they have to be short, may wait for nothing
/// that waits for the store, and above all not for a thread that waits for room in an append. Hold the lock of an index
/// entry from [`crate::ring::reservation::Reservation::commit`] until the entry is set, and not while waiting for a
/// reservation.
pub trait RecordOwner: Send + Sync {
    /// True if the record at `address` is wanted. In doubt, true: a record that is not in the index yet, though its
    /// append has returned or its answer is on the way, is wanted. Nothing tells twice: what is not wanted is gone. The
    /// records of a batch may be asked for from the moment on at which its commit takes effect, which is before it returns;
    /// whoever has versions in the records takes one that is newer than the index for wanted.
    fn is_live(&self, address: Address, payload: &[u8]) -> bool;

    /// The record at `from` has a durable copy at `to`: whoever looks it up shall find `to` from now on, and `from`
    /// will soon be gone. Of a batch it may be the first that is heard of the record. False if the record is not wanted any more; the copy counts as dead then. After a crash it
    /// may be called again for a pair that it was called for before.
    fn relocated(&self, from: Address, to: Address, payload: &[u8]) -> bool;

    /// True if the large record at `address` is wanted, as for [`RecordOwner::is_live`]; there is no payload, for none of it
    /// is read. An owner that does not say wants all.
    fn is_large_live(&self, address: Address) -> bool {
        let _in_doubt = address;
        true
    }

    /// True if large records may be moved too: then [`RecordOwner::relocated_large`] tells where to. An owner that does not say
    /// keeps them where they are, and the extents that they have parts in with them.
    fn moves_large(&self) -> bool {
        false
    }

    /// The large record at `from` has a durable copy at `to`, as for [`RecordOwner::relocated`], but that there is no payload: an
    /// index has to find it by `from`. Only called if [`RecordOwner::moves_large`] says so, or said so when the cleaning of an
    /// extent began that was cut short by a crash.
    fn relocated_large(&self, from: Address, to: Address) -> bool {
        let _for_nobody = (from, to);
        true
    }

    /// The large record at `address` is wanted, and has parts in an extent that would be freed but for it and others like
    /// it, and it is not moved: [`RecordOwner::moves_large`] does not say so, or its list has several levels, or more
    /// than [half an extent](crate::limits::CLEAN_ELSEWHERE_EXTENT_PARTS) of it lies in others, or of all such records more than
    /// fits one. To win that extent, append the record anew, and release the old one, which is not wanted any more then. Told when extents are few and nothing else is worth cleaning, of the emptiest such extent, and of [`CLEAN_KEPT_TOLD_MAX`](crate::limits::CLEAN_KEPT_TOLD_MAX) extents of a shard at a time; of the
    /// next one when one of these is free. Each is told once for a look at its extent: who cannot do it now keeps it in mind.
    fn keeps_extent(&self, address: Address) {
        let _nothing_to_do = address;
    }
}

/// An extent that might be cleaned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its place in the shard's sequence.
    pub ordinal: ExtentOrdinal,
    /// Bytes of it that are wanted, at the most.
    pub live_bytes: u64,
    /// Bytes of an extent.
    pub extent_bytes: u64,
    /// Time since its last frame was submitted, in nanoseconds.
    pub age_ns: u64,
}

/// Which extent is cleaned first.
pub trait VictimPolicy {
    /// The candidate with the highest score is next; of equals the oldest.
    fn score(&self, candidate: &Candidate) -> f64;
}

/// The classic policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CleaningPolicy {
    /// The extent with the fewest live bytes.
    Greedy,
    /// Benefit by cost, `age x (1 - u) / (1 + u)` with the live share `u`: what has not changed for long is cleaned at
    /// a higher live share, for it will not become emptier by itself (Rosenblum and Ousterhout: "The Design and
    /// Implementation of a Log-Structured File System", SOSP 1991, section 3.5).
    #[default]
    CostBenefit,
    /// The oldest extent.
    Fifo,
}

impl VictimPolicy for CleaningPolicy {
    fn score(&self, candidate: &Candidate) -> f64 {
        let live = candidate.live_bytes as f64 / candidate.extent_bytes.max(1) as f64;
        match self {
            Self::Greedy => 1.0 - live,
            Self::CostBenefit => (1.0 + candidate.age_ns as f64) * (1.0 - live) / (1.0 + live),
            Self::Fifo => -(candidate.ordinal.0 as f64),
        }
    }
}

impl CleaningPolicy {
    /// True if its scores compare extents of two shards: those of the oldest first do not.
    pub(crate) const fn is_by_worth(self) -> bool {
        !matches!(self, Self::Fifo)
    }
}

/// When to clean, and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleaningOptions {
    /// Which extent is cleaned first.
    pub policy: CleaningPolicy,
    /// It begins when fewer extents are free for appends, in percent of the store; at the latest when none is.
    pub low_percent: u32,
    /// It ends when so many are.
    pub high_percent: u32,
}

impl Default for CleaningOptions {
    fn default() -> Self {
        let (low_percent, high_percent) = (CLEAN_LOW_PERCENT_DEFAULT, CLEAN_HIGH_PERCENT_DEFAULT);
        Self { policy: CleaningPolicy::default(), low_percent, high_percent }
    }
}

impl CleaningOptions {
    /// Fewer free extents than the first number begin it, as many as the second end it, in a store of `extents`.
    #[must_use]
    pub fn marks(&self, extents: u32) -> (u64, u64) {
        let share = |percent: u32| (u64::from(extents) * u64::from(percent)).div_ceil(100);
        let low = share(self.low_percent).max(1);
        (low, share(self.high_percent).max(low + 1))
    }
}

/// What the shards of a store share about cleaning.
#[derive(Default)]
pub struct Cleaning {
    options: CleaningOptions,
    owner: OnceLock<Arc<dyn RecordOwner>>,
    /// Shards that may yet free an extent by cleaning; those that never looked are among them.
    hopeful: AtomicU64,
}

impl Cleaning {
    /// Nothing is cleaned before there is an owner of records.
    #[must_use]
    pub fn new(options: CleaningOptions) -> Self {
        Self { options, owner: OnceLock::new(), hopeful: AtomicU64::new(0) }
    }

    /// Turns cleaning on. False: it is on already, with another owner.
    pub fn turn_on(&self, owner: Arc<dyn RecordOwner>) -> bool {
        self.owner.set(owner).is_ok()
    }

    /// Who knows what is wanted; `None`: cleaning is off.
    #[must_use]
    pub fn owner(&self) -> Option<&Arc<dyn RecordOwner>> {
        self.owner.get()
    }

    /// When to clean, and what.
    #[must_use]
    pub const fn options(&self) -> &CleaningOptions {
        &self.options
    }

    /// True if a shard may yet free an extent, or has not looked since cleaning is on: a full store is worth waiting for.
    pub(crate) fn has_hope(&self) -> bool {
        self.owner.get().is_some() && self.hopeful.load(Ordering::Acquire) > 0
    }

    pub(crate) fn gain_hope(&self) {
        self.hopeful.fetch_add(1, Ordering::AcqRel);
    }

    /// True if that was the last shard with hope.
    pub(crate) fn lose_hope(&self) -> bool {
        self.hopeful.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

impl fmt::Debug for Cleaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { options, owner, hopeful } = self;
        f.debug_struct("Cleaning")
            .field("options", options)
            .field("is_on", &owner.get().is_some())
            .field("hopeful", &hopeful.load(Ordering::Relaxed))
            .finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn candidate(ordinal: u64, live_percent: u64, age_ns: u64) -> Candidate {
        let (live_bytes, extent_bytes) = (live_percent * 10, 1000);
        Candidate { ordinal: ExtentOrdinal(ordinal), live_bytes, extent_bytes, age_ns }
    }

    #[test]
    fn each_policy_prefers_what_its_name_says() {
        let (old_and_full, young_and_empty) = (candidate(1, 80, 100_000), candidate(9, 20, 1_000));
        let prefers_old =
            |policy: CleaningPolicy| policy.score(&old_and_full) > policy.score(&young_and_empty);
        assert!(!prefers_old(CleaningPolicy::Greedy));
        assert!(prefers_old(CleaningPolicy::CostBenefit));
        assert!(prefers_old(CleaningPolicy::Fifo));
    }

    #[test]
    fn marks_are_apart_in_the_smallest_store() {
        let options = CleaningOptions::default();
        assert_eq!(options.marks(1), (1, 2));
        assert_eq!(options.marks(1000), (50, 80));
    }
}
