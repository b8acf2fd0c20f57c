//! Sizes and bounds of this program, in one place.

use std::time::Duration;

/// Record payloads of W1, in bytes.
pub const INGEST_RECORD_BYTES: [usize; 4] = [64, 256, 1024, 4096];
/// Threads of W1.
pub const INGEST_WRITERS: [usize; 2] = [1, 2];
/// Record payload of W2, in bytes.
pub const DURABLE_RECORD_BYTES: usize = 256;
/// Acks awaited at a time in W2.
pub const WAITING: [usize; 3] = [1, 16, 128];
/// Record payload of W3 and W4, in bytes.
pub const READ_RECORD_BYTES: usize = 1024;
/// Reads under way at a time in W3.
pub const IN_FLIGHT: [usize; 3] = [1, 8, 32];
/// In W3 two records that are read are at least this far apart, so that no read finds the page of another.
pub const READ_SPACING_BYTES: usize = 16 << 10;

/// Where a peer takes batches, it gets about so many bytes at a time: beyond this none of them gets faster, and a batch
/// still fits into a cache.
pub const BATCH_BYTES: usize = 256 << 10;
/// Where each batch ends with a sync that cannot be left out, batches are larger.
pub const SYNCED_BATCH_BYTES: usize = 4 << 20;
/// Batches of one transaction of an engine that rewrites pages: each transaction rewrites the path to the root.
pub const TRANSACTION_BYTES: usize = 16 << 20;

/// Appends between two looks at the clock.
pub const APPENDS_PER_LOOK: u64 = 64;
/// Records of a writer that are remembered, to be read and compared after a reopen.
pub const KEPT_MAX: u64 = 2000;
/// Payload bytes a second that a run by the clock is given room for.
pub const RATE_MAX: u64 = 400 << 20;
/// Room of a run of durable acks beside that: a group of one takes a device block.
pub const DURABLE_ROOM_BYTES: u64 = 64 << 20;
/// How long closing a core of ours may take.
pub const CLOSE_MAX: Duration = Duration::from_secs(60);
/// A sleep of a core of ours ends after this at the latest.
pub const SLEEP_MAX: Duration = Duration::from_millis(1);
/// How long a child may take to fill a store.
pub const FILL_MAX: Duration = Duration::from_secs(600);
