//! Figures of a store since it was opened: what was appended, what was written for it, what cleaning did, and where
//! what was read came from.

use crate::store::Store;
use corelog_shards::{
    cache::RecordCache,
    directory::CoreHandle,
    ids::ShardId,
    shard::{Shard, ShardCounters},
};
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};

/// What cleaning did since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CleaningStats {
    /// Extents that it freed.
    pub extents: u64,
    /// Steps that it took; each turn of a core makes one at the most for each of its shards.
    pub steps: u64,
    /// Records that it copied.
    pub records_moved: u64,
    /// Bytes that it wrote for them: the copies, their headers, and the lists that name them.
    pub bytes_copied: u64,
    /// Bytes that it read from the device.
    pub bytes_read: u64,
    /// Most steps of its shard that one append waited for, from when it found no room until it had some. Of several shards
    /// the most of any.
    pub longest_wait_steps: u64,
}

/// Figures of one shard, or of several together, since the store was opened; all of them in memory only. Each is exact,
/// and together they are of a moment ago. What was not submitted to the device yet is in none of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Records that were appended; a large record counts once, and those of a batch whether it was committed or not.
    pub records: u64,
    /// Bytes of their payloads, without headers.
    pub payload_bytes: u64,
    /// Bytes of the log: payloads, headers, and whatever the engine notes and copies.
    pub log_bytes: u64,
    /// Bytes that were written to the device: the log, with padding to whole slots, and the headers of extents. What was
    /// written again because a write was short counts once; superblocks and the zeros of growth are not in it.
    pub device_bytes: u64,
    /// Frames, which are writes to the device.
    pub frames: u64,
    /// Syncs that covered the shard; of several shards the sum, although one sync may have been for all of them.
    pub syncs: u64,
    /// Extents that came back, by trims and by cleaning.
    pub extents_freed: u64,
    /// What cleaning had to do.
    pub cleaning: CleaningStats,
}

impl Stats {
    /// Bytes written to the device for each byte of payload. `None`: nothing was appended yet.
    #[must_use]
    pub fn write_amplification(&self) -> Option<f64> {
        self.per_payload_byte(self.device_bytes)
    }

    /// Bytes that cleaning read and wrote for each byte of payload. `None`: nothing was appended yet.
    #[must_use]
    pub fn cleaning_cost(&self) -> Option<f64> {
        self.per_payload_byte(self.cleaning.bytes_read + self.cleaning.bytes_copied)
    }

    /// What came since `earlier`, which is of the same open; the longest wait is that of the whole open.
    #[must_use]
    pub const fn since(&self, earlier: &Self) -> Self {
        let (now, then) = (&self.cleaning, &earlier.cleaning);
        Self {
            records: self.records.saturating_sub(earlier.records),
            payload_bytes: self.payload_bytes.saturating_sub(earlier.payload_bytes),
            log_bytes: self.log_bytes.saturating_sub(earlier.log_bytes),
            device_bytes: self.device_bytes.saturating_sub(earlier.device_bytes),
            frames: self.frames.saturating_sub(earlier.frames),
            syncs: self.syncs.saturating_sub(earlier.syncs),
            extents_freed: self.extents_freed.saturating_sub(earlier.extents_freed),
            cleaning: CleaningStats {
                extents: now.extents.saturating_sub(then.extents),
                steps: now.steps.saturating_sub(then.steps),
                records_moved: now.records_moved.saturating_sub(then.records_moved),
                bytes_copied: now.bytes_copied.saturating_sub(then.bytes_copied),
                bytes_read: now.bytes_read.saturating_sub(then.bytes_read),
                longest_wait_steps: now.longest_wait_steps,
            },
        }
    }

    fn per_payload_byte(&self, bytes: u64) -> Option<f64> {
        (self.payload_bytes > 0).then(|| bytes as f64 / self.payload_bytes as f64)
    }

    fn of(counters: &ShardCounters) -> Self {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            records: now(&counters.appended),
            payload_bytes: now(&counters.payload_bytes),
            log_bytes: now(&counters.bytes),
            device_bytes: now(&counters.device_bytes),
            frames: now(&counters.frames),
            syncs: now(&counters.syncs),
            extents_freed: now(&counters.extents_freed),
            cleaning: CleaningStats {
                extents: now(&counters.extents_cleaned),
                steps: now(&counters.clean_steps),
                records_moved: now(&counters.records_moved),
                bytes_copied: now(&counters.bytes_moved),
                bytes_read: now(&counters.clean_read_bytes),
                longest_wait_steps: now(&counters.wait_steps_max),
            },
        }
    }

    fn plus(self, other: Self) -> Self {
        let (one, two) = (self.cleaning, other.cleaning);
        Self {
            records: self.records + other.records,
            payload_bytes: self.payload_bytes + other.payload_bytes,
            log_bytes: self.log_bytes + other.log_bytes,
            device_bytes: self.device_bytes + other.device_bytes,
            frames: self.frames + other.frames,
            syncs: self.syncs + other.syncs,
            extents_freed: self.extents_freed + other.extents_freed,
            cleaning: CleaningStats {
                extents: one.extents + two.extents,
                steps: one.steps + two.steps,
                records_moved: one.records_moved + two.records_moved,
                bytes_copied: one.bytes_copied + two.bytes_copied,
                bytes_read: one.bytes_read + two.bytes_read,
                longest_wait_steps: one.longest_wait_steps.max(two.longest_wait_steps),
            },
        }
    }
}

/// Figures of one shard since the store was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ShardStats {
    /// Which.
    pub shard: ShardId,
    /// Its figures.
    #[serde(flatten)]
    pub stats: Stats,
}

/// Where single records came from that were read since the store was opened, over all cores. Records that a `read_many`
/// read together with their neighbours, and what was scanned, are only in the figures of the cache, if at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReadStats {
    /// From the device.
    pub from_device: u64,
    /// From a flush buffer.
    pub from_buffer: u64,
    /// From the cache ([`crate::Options::cache_bytes`]), those of a `read_many` among them.
    pub cache_hits: u64,
    /// Looked for in the cache, and not there.
    pub cache_misses: u64,
    /// What the caches hold now, in bytes, with what each record takes there beside its payload.
    pub cache_bytes: u64,
}

impl ReadStats {
    /// Share of the looks into the cache that found the record, from 0 to 1. `None`: nobody looked.
    #[must_use]
    pub fn hit_rate(&self) -> Option<f64> {
        let looks = self.cache_hits + self.cache_misses;
        (looks > 0).then(|| self.cache_hits as f64 / looks as f64)
    }

    /// What came since `earlier`, which is of the same open; the bytes are those of now.
    #[must_use]
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            from_device: self.from_device.saturating_sub(earlier.from_device),
            from_buffer: self.from_buffer.saturating_sub(earlier.from_buffer),
            cache_hits: self.cache_hits.saturating_sub(earlier.cache_hits),
            cache_misses: self.cache_misses.saturating_sub(earlier.cache_misses),
            cache_bytes: self.cache_bytes,
        }
    }

    fn plus_core(self, core: &CoreHandle) -> Self {
        let cache = core.cache().map(RecordCache::figures).unwrap_or_default();
        Self {
            from_device: self.from_device + core.counters.device_reads.load(Ordering::Relaxed),
            from_buffer: self.from_buffer + core.counters.ring_reads.load(Ordering::Relaxed),
            cache_hits: self.cache_hits + cache.hits,
            cache_misses: self.cache_misses + cache.misses,
            cache_bytes: self.cache_bytes + cache.bytes,
        }
    }
}

/// Figures of a store since it was opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoreStats {
    /// In the order of their ids.
    pub shards: Vec<ShardStats>,
    /// All of them together.
    pub total: Stats,
    /// Where reads of single records found them.
    pub reads: ReadStats,
}

impl Store {
    /// Figures since the store was opened, for each shard and in sum. It looks at counters and waits for nobody; take it
    /// before closing, for nothing of it is stored.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let stats = |shard: &Shard| ShardStats { shard: shard.id(), stats: Stats::of(shard.counters()) };
        let shards: Vec<_> = self.shards().iter().map(|shard| stats(shard)).collect();
        let total = shards.iter().fold(Stats::default(), |sum, shard| sum.plus(shard.stats));
        let reads = self.directory().cores.iter().fold(ReadStats::default(), |sum, core| sum.plus_core(core));
        StoreStats { shards, total, reads }
    }
}
