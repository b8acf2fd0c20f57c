//! Closing a store, and what the superblock says afterwards.

use super::{Inner, opening::DeviceFiles, seat::Assembly, superblocks::unix_ns};
use crate::error::CloseError;
use corelog_shards::{
    core::Core as Engine,
    directory::{Mail, MailError},
    format::superblock::ShardEntry,
    ids::ShardId,
    opening::{WriteSuperblockError, closing_superblock, write_superblock},
};
use std::{
    sync::{Arc, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How long closing waits for cores that somebody else drives.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(60);

/// The ends of a store's shards, as their cores close.
#[derive(Debug, Default)]
pub(super) struct Tails {
    entries: Vec<(ShardId, ShardEntry)>,
    cores_closed: u32,
    /// The closing superblock: not written yet, written, or why not.
    outcome: Option<Result<(), CloseError>>,
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
            self.all_closed.notify_all();
        }
    }

    fn write_closing_superblock(&self, entries: &[(ShardId, ShardEntry)]) -> Result<(), CloseError> {
        let Some(superblock) = closing_superblock(&self.opened.superblock, entries, unix_ns()) else {
            return Ok(());
        };
        write_superblock(&superblock, &DeviceFiles(&self.devices())).map_err(|error| match error {
            WriteSuperblockError::Device(error) => CloseError::File(error),
            WriteSuperblockError::Memory(error) => CloseError::Memory(error),
        })
    }

    fn wait_closed(&self, limit: Duration) -> Result<(), CloseError> {
        let deadline = Instant::now() + limit;
        let mut tails = self.tails();
        loop {
            if let Some(outcome) = tails.outcome.take() {
                // Later callers hear that it is closed.
                tails.outcome = Some(Ok(()));
                return outcome;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(CloseError::Stalled { waited: limit });
            }
            let waited = self.all_closed.wait_timeout(tails, left.min(Duration::from_millis(100)));
            tails = waited.unwrap_or_else(PoisonError::into_inner).0;
            if self.has_dead_core(&tails) {
                return Ok(());
            }
        }
    }

    /// A core died without closing: there will be no closing superblock.
    fn has_dead_core(&self, tails: &Tails) -> bool {
        let dead = self
            .directory()
            .map_or(0, |directory| directory.cores.iter().filter(|core| core.is_dead()).count());
        tails.outcome.is_none() && dead == self.cores as usize && tails.cores_closed < self.cores
    }
}

/// Asks all cores to close and waits for them.
pub(super) fn close(inner: &Arc<Inner>) -> Result<(), CloseError> {
    ask(inner);
    let closed = inner.assembly.wait_closed(CLOSE_WAIT_MAX);
    let ended = inner.hosting.join(CLOSE_WAIT_MAX);
    inner.assembly.let_go_of_devices();
    if let Some(failure) = inner.directory.shards.iter().find_map(|shard| shard.failure()) {
        return Err(CloseError::Failed(failure));
    }
    if !ended {
        return Err(CloseError::Stalled { waited: CLOSE_WAIT_MAX });
    }
    closed
}

fn ask(inner: &Inner) {
    for core in &inner.directory.cores {
        let deadline = Instant::now() + CLOSE_WAIT_MAX;
        let mut mail = Mail::Close;
        while let Err(MailError::Full(back)) = core.send(mail) {
            if Instant::now() >= deadline {
                break;
            }
            mail = back;
            std::thread::yield_now();
        }
    }
}

impl Drop for Inner {
    /// The last handle of a hosted store closes it, so that nothing accepted is lost.
    fn drop(&mut self) {
        if !self.hosting.is_hosted() {
            return;
        }
        ask(self);
        // A core's own thread (a waker that held the last handle) cannot wait for itself; it closes all the same.
        if super::local::driven_core(self.assembly.key()).is_some() {
            return;
        }
        if !self.hosting.join(CLOSE_WAIT_MAX) {
            tracing::error!("the cores did not end in time; what they accepted may be lost");
        }
        if let Some(Err(error)) = self.assembly.tails().outcome.take() {
            tracing::error!(%error, "closing the store");
        }
    }
}
