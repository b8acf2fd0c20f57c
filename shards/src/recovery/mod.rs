//! Recovery: from what lies on the devices to where every shard goes on. `docs/RECOVERY.md` says what it decides.
//!
//! It only reads; whoever opens the store syncs the devices first, and writes the next superblock afterwards. So it
//! can be interrupted anywhere, and run as often as one likes, with the same result.

#![deny(clippy::indexing_slicing)]

use crate::{
    format::{checksum::StoreSeed, superblock::Superblock},
    ids::{ShardId, SlotIndex, Term},
    limits::RECOVERY_WINDOW_BYTES,
};
use std::thread;

mod body;
mod decision;
mod error;
mod report;
mod scan;
mod space;
mod start;
mod survey;
#[cfg(test)]
mod tests;
mod window;

pub use body::check_body;
pub use decision::{BodyFact, Decision, Facts, HeaderFact, LaterFact, WitnessFact, decide};
pub use error::{FrameFault, RecoveryError, SourceError};
pub use report::{
    BadHeaderCopy, FreeExtent, Loss, LossKind, Place, RecoveredExtent, RecoveredShard, RecoveryReport,
    TailKind, TailReport,
};
pub use survey::{ExtentFinding, ExtentSurvey, Ownership, ShardExtents, assign, survey_extents};

/// What recovery reads from. Several threads read at the same time.
pub trait RecoverySource: Sync {
    /// Fills `bytes`, whole slots of one extent, from the start of `slot`. The memory is page aligned.
    fn read(&self, slot: SlotIndex, bytes: &mut [u8]) -> Result<(), SourceError>;
}

/// How to recover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryOptions {
    /// Check the records of all frames, not only of those that nothing proves durable.
    pub verify_bodies: bool,
    /// Go on over what would fail, and list what was given up.
    pub salvage: bool,
    /// Bytes that are read at once where frames are small: at least two slots are.
    pub window_bytes: u64,
    /// Threads that read; 1 reads on the caller's, in a fixed order.
    pub threads: usize,
}

impl Default for RecoveryOptions {
    fn default() -> Self {
        Self { verify_bodies: false, salvage: false, window_bytes: RECOVERY_WINDOW_BYTES, threads: 1 }
    }
}

/// What all of one recovery has in common.
pub(crate) struct Context<'a, S: ?Sized> {
    pub(crate) source: &'a S,
    pub(crate) superblock: &'a Superblock,
    pub(crate) seed: StoreSeed,
    pub(crate) options: RecoveryOptions,
}

/// Recovers every shard of the store that `superblock` describes. It writes nothing.
pub fn recover_store<S: RecoverySource + ?Sized>(
    source: &S,
    superblock: &Superblock,
    options: RecoveryOptions,
) -> Result<RecoveryReport, RecoveryError> {
    let context = Context { source, superblock, seed: StoreSeed::new(superblock.store), options };
    let surveys =
        in_parallel(&chunks(superblock.extent_count(), options.threads), options.threads, |range| {
            survey_extents(source, superblock, range.clone())
        })?;
    let ownership = assign(superblock, surveys.into_iter().flatten(), options.salvage)?;
    let work: Vec<(ShardId, &ShardExtents)> = (0..).map(ShardId).zip(&ownership.shards).collect();
    let shards = in_parallel(&work, options.threads, |(shard, extents)| {
        scan::recover_shard(&context, *shard, extents)
    })?;
    let shards = without_what_counts(superblock, shards);
    Ok(report(superblock, ownership, shards))
}

/// What cleaning was copying from one shard into its cold one goes on only while the first has the extent; of one that is
/// gone the copies count.
fn without_what_counts(superblock: &Superblock, mut shards: Vec<RecoveredShard>) -> Vec<RecoveredShard> {
    for index in 0..shards.len() {
        let hot = superblock.shards.get(index).and_then(|entry| entry.state.cold_of());
        let Some(mut moves) = shards.get_mut(index).map(|shard| std::mem::take(&mut shard.space.moves))
        else {
            continue;
        };
        moves.retain(|it| {
            let of = usize::from(it.origin.shard.0);
            let is_ours = of == index;
            let is_there = || shards.get(of).is_some_and(|shard| shard.space.holds(&it.origin));
            is_ours || (hot == Some(it.origin.shard) && is_there())
        });
        if let Some(shard) = shards.get_mut(index) {
            shard.space.moves = moves;
        }
    }
    shards
}

fn report(superblock: &Superblock, mut ownership: Ownership, shards: Vec<RecoveredShard>) -> RecoveryReport {
    ownership.free.extend(shards.iter().flat_map(|shard| &shard.freed));
    ownership.free.sort_by_key(|free| free.index);
    let count = |of: fn(&RecoveredShard) -> usize| shards.iter().map(|shard| of(shard) as u64).sum();
    let of_frames = shards.iter().map(|shard| shard.highest_term).max().unwrap_or_default();
    RecoveryReport {
        extents_free: ownership.free.len() as u64,
        extents_owned: count(|shard| shard.extents.len() + shard.orphans.len()),
        extents_unused: count(|shard| shard.extents.len() - shard.used_extents + shard.orphans.len()),
        free_extents: ownership.free,
        extents_bad: ownership.bad,
        bad_header_copies: ownership.bad_copies,
        bad_superblock_copies: Vec::new(),
        highest_term: Term(of_frames.0.max(superblock.term.0).max(ownership.highest_term.0)),
        clean: superblock.clean,
        seconds: 0.0,
        shards,
    }
}

/// Ranges that together are `0..count`, several for each thread.
fn chunks(count: u32, threads: usize) -> Vec<std::ops::Range<u32>> {
    let pieces = u32::try_from(threads.max(1) * 4).unwrap_or(u32::MAX);
    let step = count.div_ceil(pieces).max(1);
    (0..count).step_by(step as usize).map(|start| start..count.min(start.saturating_add(step))).collect()
}

/// Runs `each` over `work` on up to `threads` threads; the results come in the order of the work, and of several
/// errors the first in that order.
fn in_parallel<T: Sync, R: Send>(
    work: &[T],
    threads: usize,
    each: impl Fn(&T) -> Result<R, RecoveryError> + Sync,
) -> Result<Vec<R>, RecoveryError> {
    let threads = threads.clamp(1, work.len().max(1));
    if threads == 1 {
        return work.iter().map(each).collect();
    }
    let each = &each;
    let run = |first: usize| {
        let own = work.iter().enumerate().skip(first).step_by(threads);
        own.map(|(index, item)| (index, each(item))).collect::<Vec<_>>()
    };
    let run = &run;
    let mut results = thread::scope(|scope| {
        let workers: Vec<_> = (1..threads).map(|first| scope.spawn(move || run(first))).collect();
        let mut results = run(0);
        for worker in workers {
            match worker.join() {
                Ok(of_worker) => results.extend(of_worker),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
