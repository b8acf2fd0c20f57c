//! Why a shard no longer takes appends, and how everyone hears of it.

use crate::{
    device::{DeviceBroken, Errno, Verb},
    ids::{CoreId, DeviceIndex, FrameNumber, ShardId, SlotIndex},
    limits::DEVICES_MAX,
    sync::{AtomicBool, AtomicU64, Mutex, Ordering},
};
use std::sync::PoisonError;

/// The fault that stopped a shard. The shard acknowledges nothing after it; other shards run on, and what was
/// durable can still be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShardFailure {
    /// The device refused or failed an operation.
    #[error(
        "{shard:?} stopped: {verb} of {slots} slots at {slot:?} ({device:?}, frame {frame}) failed: {errno}; \
         what was durable can be read; reopen the store once the device works again"
    )]
    Io {
        /// The shard.
        shard: ShardId,
        /// Write or sync.
        verb: Verb,
        /// The device of the store.
        device: DeviceIndex,
        /// First slot of the failing range; for a sync the first slot that it should have covered.
        slot: SlotIndex,
        /// Slots of the failing range.
        slots: u64,
        /// First frame that is not acknowledged.
        frame: FrameNumber,
        /// Why.
        errno: Errno,
    },
    /// The host has no space for a block of the store: a sparse store on a file system that is full, or a thin volume.
    #[error(
        "{shard:?} stopped: no space left for {slots} slots at {slot:?} ({device:?}, frame {frame}); \
         what was durable can be read; make space below the store, and reopen it"
    )]
    DeviceFull {
        /// The shard.
        shard: ShardId,
        /// The device of the store.
        device: DeviceIndex,
        /// First slot of the failing range.
        slot: SlotIndex,
        /// Slots of the failing range.
        slots: u64,
        /// First frame that is not acknowledged.
        frame: FrameNumber,
    },
    /// A write stayed short through all its retries.
    #[error(
        "{shard:?} stopped: the write of frame {frame} at {slot:?} stayed short ({written} of {expected} bytes) through {tries} tries; \
         most often its file system is full (a sparse store): free space there, and reopen the store"
    )]
    ShortWrite {
        /// The shard.
        shard: ShardId,
        /// First slot of the frame.
        slot: SlotIndex,
        /// The frame.
        frame: FrameNumber,
        /// Bytes of the last try.
        written: u64,
        /// Bytes asked for.
        expected: u64,
        /// Tries made.
        tries: u32,
    },
    /// The bytes of a sealed frame do not parse. Nothing of it was written.
    #[error(
        "{shard:?} stopped: frame {frame} was damaged in memory before it was written; this is a bug or bad memory"
    )]
    MalformedFrame {
        /// The shard.
        shard: ShardId,
        /// The frame.
        frame: FrameNumber,
    },
    /// The store was opened by the process that this one was forked from.
    #[error("{shard:?} belongs to the parent process; open the store after forking, and in one process only")]
    Forked {
        /// The shard.
        shard: ShardId,
    },
    /// The queue of the core that runs the shard broke.
    #[error("{shard:?} stopped: {broken}")]
    Device {
        /// The shard.
        shard: ShardId,
        /// What broke.
        broken: DeviceBroken,
    },
    /// The core that ran the shard panicked or was dropped while it ran.
    #[error("{shard:?} stopped: {core:?} died; reopen the store")]
    CoreDead {
        /// The shard.
        shard: ShardId,
        /// The core.
        core: CoreId,
    },
}

/// How many syncs of each device of an open store have failed, on whatever core.
///
/// A device whose sync fails may drop everything that is in its cache, also what other shards wrote; a later sync then
/// succeeds and says nothing of it. So a write is made durable only by a sync with no failure since its submission.
#[derive(Debug, Default)]
pub struct SyncFailures([AtomicU64; DEVICES_MAX as usize]);

impl SyncFailures {
    /// How many there were.
    #[must_use]
    pub fn count(&self, device: DeviceIndex) -> u64 {
        // Acquire pairs with the release of `note`.
        self.0.get(usize::from(device.0)).map_or(0, |count| count.load(Ordering::Acquire))
    }

    /// A sync of the device failed, whoever asked for it.
    pub fn note(&self, device: DeviceIndex) {
        if let Some(count) = self.0.get(usize::from(device.0)) {
            count.fetch_add(1, Ordering::Release);
        }
    }
}

/// A shard's state of health, readable by everyone.
#[derive(Debug, Default)]
pub struct Health {
    is_failed: AtomicBool,
    failure: Mutex<Option<ShardFailure>>,
}

impl Health {
    /// The fault, if there is one.
    #[must_use]
    pub fn failure(&self) -> Option<ShardFailure> {
        // Acquire pairs with the release in `fail`.
        if !self.is_failed.load(Ordering::Acquire) {
            return None;
        }
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records the first fault; later ones change nothing. True if this was the first.
    pub(crate) fn fail(&self, failure: ShardFailure) -> bool {
        let mut slot = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_some() {
            return false;
        }
        tracing::error!(%failure, "shard stopped");
        *slot = Some(failure);
        self.is_failed.store(true, Ordering::Release);
        true
    }
}
