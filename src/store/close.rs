//! Closing a store, and what the superblock says afterwards.

use super::{Inner, opening::DeviceFiles, seat::Assembly, superblocks::unix_ns};
use crate::error::CloseError;
use corelog_shards::{
    core::Core as Engine,
    failure::ShardFailure,
    format::superblock::ShardEntry,
    ids::ShardId,
    opening::{WriteSuperblockError, closing_superblock, write_superblock},
};
use std::{
    sync::{Arc, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// The ends of a store's shards, as their cores close.
#[derive(Debug, Default)]
pub(super) struct Tails {
    entries: Vec<(ShardId, ShardEntry)>,
    cores_closed: u32,
    /// Dropped, closed or not.
    cores_gone: u32,
    /// The closing superblock: not written yet, written, or why not.
    outcome: Option<Result<(), CloseError>>,
    /// Tasks that wait for it.
    wakers: Vec<Waker>,
}

impl Tails {
    /// What came of the closing, if it is over. Later callers hear only that it is.
    fn take_outcome(&mut self) -> Option<Result<(), CloseError>> {
        let outcome = self.outcome.take()?;
        self.outcome = Some(Ok(()));
        Some(outcome)
    }
}

impl Assembly {
    fn tails(&self) -> MutexGuard<'_, Tails> {
        self.tails.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A core has closed. The last one writes the closing superblock.
    pub(super) fn core_closed(&self, core: &Engine) {
        let mut tails = self.tails();
        for owner in core.shards() {
            // A failed shard has no clean end; the next open recovers the store.
            if let Some(entry) = owner.clean_tail() {
                tails.entries.push((owner.shared().id(), entry));
            }
        }
        tails.cores_closed += 1;
        if tails.cores_closed == self.cores {
            let outcome = self.write_closing_superblock(&tails.entries);
            tails.outcome = Some(outcome);
            self.tell_of_the_end(tails);
        }
    }

    /// A core was dropped, closed or not.
    pub(super) fn core_gone(&self) {
        let mut tails = self.tails();
        tails.cores_gone += 1;
        self.tell_of_the_end(tails);
    }

    fn tell_of_the_end(&self, mut tails: MutexGuard<'_, Tails>) {
        let wakers = std::mem::take(&mut tails.wakers);
        // Outside the lock: a waker may run anything.
        drop(tails);
        self.all_closed.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    fn write_closing_superblock(&self, entries: &[(ShardId, ShardEntry)]) -> Result<(), CloseError> {
        let mut current = self.current();
        current.is_closed = true;
        let Some(superblock) = closing_superblock(&current.superblock, entries, unix_ns()) else {
            return Ok(());
        };
        write_superblock(&superblock, &DeviceFiles(&self.devices())).map_err(|error| match error {
            WriteSuperblockError::Device(error) => CloseError::File(error),
            WriteSuperblockError::Memory(error) => CloseError::Memory(error),
        })
    }

    fn wait_closed(&self, limit: Option<Duration>) -> Result<(), CloseError> {
        let start = Instant::now();
        let mut tails = self.tails();
        loop {
            if let Some(outcome) = self.outcome(&mut tails) {
                return outcome;
            }
            tails = match limit.map(|limit| (limit, limit.saturating_sub(start.elapsed()))) {
                Some((limit, Duration::ZERO)) => return Err(CloseError::Stalled { waited: limit }),
                Some((_, left)) => {
                    self.all_closed.wait_timeout(tails, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.all_closed.wait(tails).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn outcome(&self, tails: &mut Tails) -> Option<Result<(), CloseError>> {
        tails.take_outcome().or_else(|| self.has_dead_core(tails).then_some(Ok(())))
    }

    fn poll_closed(&self, context: &Context<'_>) -> Poll<Result<(), CloseError>> {
        let mut tails = self.tails();
        if let Some(outcome) = self.outcome(&mut tails) {
            return Poll::Ready(outcome);
        }
        if !tails.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            tails.wakers.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// A core died without closing: there will be no closing superblock.
    fn has_dead_core(&self, tails: &Tails) -> bool {
        let Some(directory) = self.directory() else { return false };
        let dead = directory.cores.iter().filter(|core| core.is_dead());
        // One that closed is dead a moment before it reports that, and the last to report writes to the devices yet.
        let (closed, died): (Vec<_>, Vec<_>) = dead.partition(|core| core.has_closed());
        let have_reported = closed.len() == tails.cores_closed as usize || tails.cores_gone == self.cores;
        let are_all_dead = closed.len() + died.len() == self.cores as usize;
        tails.outcome.is_none() && are_all_dead && have_reported && tails.cores_closed < self.cores
    }
}

/// Asks all cores to close and waits for them.
pub(super) fn close(inner: &Arc<Inner>) -> Result<(), CloseError> {
    if let Some(forked) = forked(inner) {
        return Err(CloseError::Failed(forked));
    }
    ask(inner);
    if let Some(core) = super::local::driven_core(inner.assembly.key()) {
        return Err(CloseError::OnCoreThread { core });
    }
    let limit = inner.assembly.options.close_wait;
    let closed = inner.assembly.wait_closed(limit);
    if let Err(CloseError::Stalled { .. }) = closed {
        // Its cores go on, and the last one writes to the devices yet.
        return closed;
    }
    let ended = inner.hosting.join(limit);
    inner.assembly.let_go_of_devices();
    if let Some(failure) = first_failure(inner) {
        return Err(CloseError::Failed(failure));
    }
    match limit {
        Some(waited) if !ended => Err(CloseError::Stalled { waited }),
        _ => closed,
    }
}

/// As [`close`], for a task, also for one on the thread of a core.
pub(super) async fn close_async(inner: &Inner) -> Result<(), CloseError> {
    if let Some(forked) = forked(inner) {
        return Err(CloseError::Failed(forked));
    }
    ask(inner);
    let closed = std::future::poll_fn(|context| inner.assembly.poll_closed(context)).await;
    inner.assembly.let_go_of_devices();
    first_failure(inner).map_or(closed, |failure| Err(CloseError::Failed(failure)))
}

fn first_failure(inner: &Inner) -> Option<ShardFailure> {
    inner.directory.shards.iter().find_map(|shard| shard.failure())
}

/// In a child the threads and queues of the store are not there; it is the parent that closes it.
fn forked(inner: &Inner) -> Option<ShardFailure> {
    let is_forked = inner.directory.cores.iter().any(|core| core.is_forked());
    is_forked.then(|| inner.directory.shards.first()?.failure()).flatten()
}

fn ask(inner: &Inner) {
    inner.directory.cores.iter().for_each(|core| core.ask_to_close());
}

impl Drop for Inner {
    /// The last handle of a hosted store closes it, so that nothing accepted is lost.
    fn drop(&mut self) {
        if !self.hosting.is_hosted() || forked(self).is_some() {
            return;
        }
        ask(self);
        if super::local::driven_core(self.assembly.key()).is_some() {
            // A waker that a core woke held the last handle: this is that core's thread, which cannot wait for
            // itself. The cores close all the same.
            return;
        }
        if !self.hosting.join(self.assembly.options.close_wait) {
            tracing::error!("the cores did not end in time; what they accepted may be lost");
        }
        if let Some(Err(error)) = self.assembly.tails().outcome.take() {
            tracing::error!(%error, "closing the store");
        }
    }
}
