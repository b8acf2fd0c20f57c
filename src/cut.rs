//! Consistent cuts of a running store: a place in each shard, such that nothing in front of one follows something behind
//! another.

use crate::{
    error::WaitError,
    scan::{Scan, ScanAll, ScanError},
    store::Store,
    ticket::Reached,
};
use corelog_shards::{
    cleaning::Cleaning,
    directory::Directory,
    ids::{FrameNumber, ShardId, StoreId, Term},
    over::ShareOfCut,
    scan::CleaningHold,
    shard::Shard,
    watermark::Durability,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A cut through all shards of a store; see [`Store::cut`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    store: StoreId,
    /// By shard: the first frame that is not of the cut.
    frames: Vec<FrameNumber>,
    /// The open that made it, and how often cleaning had given up an extent of each shard.
    term: Term,
    cleaned: Vec<u64>,
    /// What shards have, behind that frame, of batches that are in the cut.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    shares: Vec<Share>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Share {
    shard: ShardId,
    list: Vec<u8>,
}

impl Cut {
    /// The store.
    #[must_use]
    pub const fn store(&self) -> StoreId {
        self.store
    }

    /// Of a shard, the first frame behind the cut. `None`: the store had no such shard.
    #[must_use]
    pub fn frame(&self, shard: ShardId) -> Option<FrameNumber> {
        self.frames.get(usize::from(shard.0)).copied()
    }

    /// True if the cut holds a frame of a shard, and so every record of it: that of a [`crate::Ticket`], or of a
    /// [`crate::Record`].
    ///
    /// Not told by frames: the share that a shard has of an [`crate::OverBatch`] which was being committed while the cut
    /// was made. Scans of the cut give it.
    #[must_use]
    pub fn has(&self, shard: ShardId, frame: FrameNumber) -> bool {
        self.frame(shard).is_some_and(|behind| frame < behind)
    }

    /// The part of a scan of a shard that is in the cut.
    fn bound(&self, scan: Scan) -> Scan {
        let shard = scan.shard();
        let shares = self.shares.iter().filter(|share| share.shard == shard).map(|share| share.list.clone());
        scan.before(self.frame(shard).unwrap_or_default(), shares).of_cut(self)
    }

    /// True if cleaning may have moved records of the cut behind it.
    pub(crate) fn is_cleaned(&self, term: Term, shard: &Shard) -> bool {
        match self.cleaned.get(usize::from(shard.id().0)) {
            Some(cleaned) if self.term == term => *cleaned != shard.cleaned_away(),
            _ => shard.has_gaps(),
        }
    }

    /// The last frame of a shard that has to arrive for the cut to be there.
    fn last(&self, shard: &Shard) -> Option<FrameNumber> {
        Some(FrameNumber(self.frame(shard.id())?.0.checked_sub(1)?))
    }
}

/// Keeps cleaning from freeing anything; see [`Store::hold_cleaning`].
#[derive(Debug)]
#[must_use = "cleaning goes on when this is dropped"]
pub struct HeldCleaning {
    holds: Vec<CleaningHold>,
    directory: Arc<Directory>,
    cleaning: Arc<Cleaning>,
}

impl Drop for HeldCleaning {
    fn drop(&mut self) {
        for hold in &mut self.holds {
            let shard = hold.end();
            let _either_way_it_looks = shard.note_release();
            self.directory.look_again(&self.cleaning, shard);
        }
    }
}

impl Store {
    /// Cuts through all shards at once: a record is in the cut, or not, and if it is, so is every record whose append had
    /// returned before that one's was called, by this thread or any other, in whatever shard. A batch over several shards is
    /// in the cut with all its records or with none; of one that was being committed, the cut keeps the lists of the
    /// shards that did not have it yet.
    ///
    /// Costs a part-filled frame in each shard that has one. Appends go on meanwhile; one that meets the cut seals the
    /// buffer that it was about to use. Nothing of the cut need be on the devices yet: see [`Store::wait_for_cut`].
    ///
    /// To read a cut of a store that is cleaned, [`Store::hold_cleaning`] before it is made.
    #[must_use]
    pub fn cut(&self) -> Cut {
        // Before the cut: the copies of what was given up by then are in it.
        let cleaned = self.shards().iter().map(|shard| shard.cleaned_away()).collect();
        let directory = self.directory();
        let over = directory.over.begin_cut();
        let frames = directory.extents.cuts().take(self.shards().iter().map(|shard| &**shard.ring()));
        let missing = over.end(&frames);
        let shares =
            missing.into_iter().map(|ShareOfCut { shard, list, .. }| Share { shard, list }).collect();
        Cut { store: self.id(), frames, term: self.term(), cleaned, shares }
    }

    /// Keeps cleaning from freeing extents until the answer is dropped: records of a [cut](Store::cut) that is made
    /// meanwhile stay where the cut has them. A store that becomes full meanwhile says so.
    pub fn hold_cleaning(&self) -> HeldCleaning {
        HeldCleaning {
            holds: self.shards().iter().map(CleaningHold::new).collect(),
            directory: Arc::clone(self.directory()),
            cleaning: Arc::clone(self.cleaning()),
        }
    }

    /// Brings all that is in a cut to `durability`, and waits for it. All shards are asked before any is waited for; the
    /// first failure is reported after all others have arrived.
    pub fn wait_for_cut(&self, cut: &Cut, durability: Durability) -> Result<(), WaitError> {
        let wanted = || self.shards().iter().filter_map(|shard| Some((shard, cut.last(shard)?)));
        wanted().for_each(|(shard, frame)| shard.request(frame, durability));
        let mut first = Ok(());
        for (shard, frame) in wanted() {
            let waited = self.wait_for_frame(shard, frame, durability, self.stall());
            first = first.and(waited);
        }
        first
    }

    /// As [`Store::wait_for_cut`], as a future for any executor.
    pub async fn wait_for_cut_async(&self, cut: &Cut, durability: Durability) -> Result<(), WaitError> {
        let wanted = self.shards().iter().filter_map(|shard| Some((shard, cut.last(shard)?)));
        let mut waits: Vec<_> = wanted
            .map(|(shard, frame)| {
                shard.request(frame, durability);
                Reached::of(shard, frame, durability)
            })
            .collect();
        let mut first = Ok(());
        for wait in &mut waits {
            let result = wait.await.map_err(WaitError::Failed);
            first = first.and(result);
        }
        first
    }

    /// Reads the records of a shard that are in a cut. Those of batches over several shards that were being committed
    /// when it was made may come last, whatever their order is in the shard. It ends with
    /// [`ScanError::Cleaned`] if cleaning moved records out of the cut: see [`Store::hold_cleaning`].
    pub fn scan_cut(&self, cut: &Cut, shard: ShardId) -> Result<Scan, ScanError> {
        Ok(cut.bound(self.scan(shard)?))
    }

    /// Reads all records of a cut, in the order of [`Store::scan_all`].
    pub fn scan_all_cut(&self, cut: &Cut) -> Result<ScanAll, ScanError> {
        Ok(self.scan_all()?.bounded(|scan| cut.bound(scan)))
    }
}
