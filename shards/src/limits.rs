//! Every bound of the engine, once. Options are checked against these in `options`, layouts derive from them.

/// Smallest slot, in bytes: the page size that O_DIRECT accepts everywhere.
pub const SLOT_BYTES_MIN: u64 = 4 << 10;
/// Largest slot, in bytes.
pub const SLOT_BYTES_MAX: u64 = 64 << 10;
/// Slot size when nothing is said, in bytes.
pub const SLOT_BYTES_DEFAULT: u64 = 4 << 10;

/// Smallest extent, in bytes.
pub const EXTENT_BYTES_MIN: u64 = 256 << 10;
/// Largest extent, in bytes.
pub const EXTENT_BYTES_MAX: u64 = 16 << 30;
/// Extent size when nothing is said, in bytes.
pub const EXTENT_BYTES_DEFAULT: u64 = 64 << 20;

/// Smallest flush buffer, in bytes.
pub const BUFFER_BYTES_MIN: u64 = 16 << 10;
/// Largest flush buffer, in bytes: the state word counts its offset in 21 bits of 8 bytes.
pub const BUFFER_BYTES_MAX: u64 = 8 << 20;
/// Flush buffer size when nothing is said, in bytes.
pub const BUFFER_BYTES_DEFAULT: u64 = 256 << 10;

/// Fewest buffers of a ring.
pub const RING_BUFFERS_MIN: u32 = 4;
/// Most buffers of a ring.
pub const RING_BUFFERS_MAX: u32 = 64;
/// Buffers of a ring when nothing is said.
pub const RING_BUFFERS_DEFAULT: u32 = 8;

/// Writers that may hold a reservation in one buffer at the same time.
pub const BUFFER_WRITERS_MAX: u32 = (1 << 10) - 1;

/// Bytes that the thread which drives a core reserves at once for records that it appends itself.
pub const RUN_BYTES_MAX: u64 = 64 << 10;

/// Most shards of a store, retired ones included.
pub const SHARDS_MAX: u32 = 1024;
/// Most cores that one process runs.
pub const CORES_MAX: u32 = 1024;
/// Most devices (files or block devices) of a store.
pub const DEVICES_MAX: u32 = 16;
/// Most contiguous runs of extents that the superblock can describe; each `grow` adds one.
pub const REGIONS_MAX: u32 = 64;

/// Most extents of a store: opening keeps some hundred bytes for each in memory, whatever a superblock says.
pub const EXTENTS_MAX: u32 = 1 << 20;
/// The largest term, sequence, frame number or ordinal that is believed. Counting by one leads nowhere near, and what
/// is believed can be counted on from.
pub const COUNTER_MAX: u64 = 1 << 62;
/// Extents that a new shard needs: the one that it writes, and a spare.
pub const EXTENTS_PER_SHARD_MIN: u64 = 2;

/// Bytes kept at the start of each device for the superblock copies.
pub const SUPERBLOCK_AREA_BYTES: u64 = 1 << 20;
/// Room for one superblock copy, in bytes.
pub const SUPERBLOCK_COPY_BYTES_MAX: u64 = 64 << 10;
/// Bytes of an extent header copy; each lies in one sector.
pub const EXTENT_HEADER_BYTES: u64 = 128;
/// The medium writes this many bytes, aligned, wholly or not at all.
pub const SECTOR_BYTES: u64 = 512;
/// Largest store, in bytes: an address counts its position in 43 bits of 8 bytes.
pub const STORE_BYTES_MAX: u64 = 64 << 40;

/// Records start on multiples of this many bytes.
pub const RECORD_ALIGNMENT: u64 = 8;
/// Bytes of a record header.
pub const RECORD_HEADER_BYTES: u64 = 8;
/// Longest payload that a record header can state, in bytes.
pub const RECORD_PAYLOAD_BYTES_MAX: u64 = (1 << 24) - 1;
/// Bytes of a frame header; the first record of a frame starts behind it.
pub const FRAME_HEADER_BYTES: u64 = 128;

/// Largest payload of a node of a batch's or large record's list, in bytes.
pub const MANIFEST_NODE_BYTES_MAX: u64 = 64 << 10;
/// Most levels of such a list. With the smallest buffers four of them list more than any store holds.
pub const MANIFEST_LEVELS_MAX: u8 = 6;
/// Reads that any walk through such a list may make.
pub const WALK_READS_MIN: u64 = 64;
/// And one more for each so many bytes of the shard. Any two groups or parts in a row have several times as many.
pub const WALK_BYTES_PER_READ_MIN: u64 = 1 << 10;
/// Addresses of its records that a batch keeps for its ticket; those of a larger one are found by a scan.
pub const BATCH_ADDRESSES_MAX: usize = 1 << 20;
/// Batches over several shards that are under way at a time.
pub const OVER_BATCHES_MAX: usize = 64;
/// Batches over several shards that are over, and cannot be forgotten because an earlier one is not. Each shard repeats
/// what it knows of them with every checkpoint.
pub const OVER_UNFORGOTTEN_MAX: u64 = 256;
/// Shards of one batch.
pub const OVER_SHARDS_MAX: usize = 64;
/// Longest large record, in bytes.
pub const LARGE_RECORD_BYTES_MAX: u64 = 1 << 30;
/// And no longer than the store divided by this.
pub const LARGE_RECORD_STORE_PARTS: u64 = 4;
/// Every part of a large record but its last has at least this many bytes.
pub const LARGE_PART_BYTES_MIN: u64 = 4 << 10;

/// Frames of at least this many slots are looked at by their headers alone where their records do not matter yet: smaller
/// ones come faster in one long read.
pub const HEADER_ONLY_SLOTS_MIN: u64 = 16;

/// Bytes of the head of a checkpoint's part.
pub const CHECKPOINT_HEAD_BYTES: usize = 48;
/// Bytes of an extent in a checkpoint.
pub const CHECKPOINT_ENTRY_BYTES: usize = 72;
/// Longest payload of a control record; a longer list is divided.
pub const CONTROL_BYTES_MAX: usize = 1 << 20;
/// Extents that one record frees.
pub const FREED_PER_RECORD_MAX: usize = 512;
/// Bytes of a shard's log between two checkpoints when nothing is said.
pub const CHECKPOINT_BYTES_DEFAULT: u64 = 64 << 20;
/// Fewest bytes of a shard's log between two checkpoints.
pub const CHECKPOINT_BYTES_MIN: u64 = 64 << 10;
/// Most bytes of a shard's log between two checkpoints.
pub const CHECKPOINT_BYTES_MAX: u64 = 1 << 40;
/// How long a shard that has written is quiet before it writes a checkpoint when nothing is said, in milliseconds.
pub const QUIET_MS_DEFAULT: u64 = 10_000;
/// The shortest such time, in milliseconds.
pub const QUIET_MS_MIN: u64 = 1;
/// The longest such time, in milliseconds: a day.
pub const QUIET_MS_MAX: u64 = 24 * 3600 * 1000;
/// A shard that was opened with fewer frames behind its checkpoint leaves that as it is.
pub const QUIET_FRAMES_MIN: u64 = 16;
/// Named cursors of one shard.
pub const CURSORS_MAX: usize = 256;
/// Longest name of a cursor, in bytes of UTF-8.
pub const CURSOR_NAME_BYTES_MAX: usize = 128;
/// Requests about the space of one shard that wait at a time: trims, cursors, checkpoints.
pub const SPACE_REQUESTS_MAX: usize = 1024;
/// Payload that draining a retired shard copies before it frees what it came from; a longer record by itself.
pub const DRAIN_BYTES_MAX: u64 = 4 << 20;
/// And records.
pub const DRAIN_RECORDS_MAX: usize = 4096;
/// Free extents that are kept for control records and cleaning, for each shard, as far as the store is large enough.
pub const RESERVE_PER_SHARD: u64 = 1;
/// The reserve is at most one in so many of a store's extents.
pub const RESERVE_SHARE: u64 = 4;

/// Bytes of the head of a group of moved records.
pub const MOVED_HEAD_BYTES: usize = 48;
/// Bytes of each moved record in it, beside the copy itself.
pub const MOVED_ENTRY_BYTES: usize = 8;
/// And if there is batch data among them.
pub const MOVED_ROOT_BYTES: usize = 16;
/// Extents for each shard from which on a store gets cold shards, if it is asked to have them: each takes two, and two of
/// the reserve, and while somebody scans one or two more are kept. With fewer this would make a store that is 70 % live full.
pub const COLD_EXTENTS_MIN: u32 = 64;
/// Bytes of one read of cleaning, and a slot more; a longer frame is read at once.
pub const CLEAN_READ_BYTES: u64 = 1 << 20;
/// Records that one step of cleaning looks at.
pub const CLEAN_RECORDS_PER_STEP_MAX: u32 = 1024;
/// Groups of batch data that one extent is cleaned with; one with more is left to trims.
pub const CLEAN_LISTED_GROUPS_MAX: usize = 1 << 20;
/// Extents of a shard at a time of which the owner of large records is told that they keep them.
pub const CLEAN_KEPT_TOLD_MAX: usize = 2;
/// The share of an extent, as one of so many parts, that a large record may have elsewhere if it is to be moved with an extent.
/// More would be copied for little.
pub const CLEAN_ELSEWHERE_EXTENT_PARTS: u64 = 2;
/// Groups of copies that are on their way to stable media; then cleaning waits.
pub const CLEAN_GROUPS_PENDING_MAX: usize = 8;
/// Short reads that cleaning repeats before it leaves an extent alone.
pub const CLEAN_SHORT_READS_MAX: u32 = 8;
/// An extent is worth cleaning if at most this share of it is live, in percent: the rest has to pay for what the
/// copies take beside themselves.
pub const CLEAN_LIVE_PERCENT_MAX: u64 = 90;
/// Cleaning begins when fewer extents are free, in percent of the store, if nothing is said.
pub const CLEAN_LOW_PERCENT_DEFAULT: u32 = 5;
/// Cleaning ends when so many extents are free, in percent of the store, if nothing is said.
pub const CLEAN_HIGH_PERCENT_DEFAULT: u32 = 8;
/// The most that either may be, in percent.
pub const CLEAN_PERCENT_MAX: u32 = 90;

/// Bytes that a mailbox message may wait behind: messages per mailbox when nothing is said.
pub const MAILBOX_MESSAGES_DEFAULT: u32 = 1024;
/// Most messages of one mailbox.
pub const MAILBOX_MESSAGES_MAX: u32 = 1 << 20;

/// Smallest cache of records of a core, in bytes; 0 is none.
pub const CACHE_BYTES_MIN: u64 = 64 << 10;
/// Largest cache of records of a core, in bytes.
pub const CACHE_BYTES_MAX: u64 = 1 << 40;
/// What a record in the cache takes beside its payload at the most, in bytes: its entry, of which a growing table has
/// room for up to twice as many, its share of the index, and what the allocator rounds up twice.
pub const CACHE_ENTRY_BYTES: u64 = 200;
/// A record that is longer than the budget divided by this is not kept.
pub const CACHE_RECORD_SHARE: u64 = 16;
/// One in so many bytes of the budget remembers what was in the cache lately.
pub const CACHE_GHOST_SHARE: u64 = 32;
/// Parts of a core's cache, each with a lock: for threads that the host puts aside in the middle of one.
pub const CACHE_PARTS: usize = 4;
/// Looks at the lock of such a part while another thread holds it, until it is given up: about a microsecond. Who holds it
/// on another CPU is done by then; who was put aside by the host is not.
pub const BRIEF_LOCK_LOOKS_MAX: u32 = if cfg!(any(loom, shuttle)) { 2 } else { 64 };

/// Device operations that one core keeps in flight when nothing is said.
pub const IO_DEPTH_DEFAULT: u32 = 256;
/// Fewest device operations in flight that a core can work with.
pub const IO_DEPTH_MIN: u32 = 8;
/// Most device operations that one core keeps in flight.
pub const IO_DEPTH_MAX: u32 = 4096;

/// How long a core that its owner drives watches for the end of a read before it sleeps when nothing is said, in
/// microseconds: twice what a fast device takes.
pub const READ_SPIN_US_DEFAULT: u64 = 100;

/// How long a core watches for the end of a write that somebody waits for before it sleeps when nothing is said, in microseconds.
pub const SYNC_SPIN_US_DEFAULT: u64 = 150;

/// Callers that have to be waiting in other threads or tasks so that a core watches for the end of their write: fewer have their
/// answer sooner from a core that sleeps, and leaves them its CPU.
pub const SYNC_SPIN_CALLERS_MIN: usize = 4;

/// Times the watch of a core that a thread watches for its own record before it sleeps: the write under way may be that of the
/// group before.
pub const WAIT_SPIN_TIMES: u32 = 2;

/// How long a core that watches leaves a frame open for those who were told last, in microseconds: what it takes to wake or
/// switch to some tens of threads.
pub const GATHER_US_MAX: u64 = 30;

/// Most callers that are gathered: of more, half are back when the write of the other half ends.
pub const GATHER_CALLERS_MAX: usize = 64;

/// Times that one frame is written again after a short or interrupted write before its shard fails.
pub const WRITE_RETRIES_MAX: u32 = 8;

/// How soon a core tries again what nobody announces (a record whose writer is not done, room in another core's
/// mailbox), in microseconds; twice as late each time.
pub const RETRY_PAUSE_US_MIN: u64 = 1_000;
/// How late a core tries that again at the latest, in microseconds.
pub const RETRY_PAUSE_US_MAX: u64 = 10_000;
/// How long a read waits for a record in memory whose frame does not get finished, in milliseconds.
pub const READ_WAIT_MS_MAX: u64 = 10_000;

/// Bytes that recovery reads at once where frames are small.
pub const RECOVERY_WINDOW_BYTES: u64 = 256 << 10;

/// Places of loss or damage that a salvage or a scrub lists; further ones are counted.
pub const LISTED_PLACES_MAX: usize = 1000;
/// Most bytes per second that a scrub reads when nothing is said.
pub const SCRUB_RATE_DEFAULT: u64 = 64 << 20;

/// How long `open` waits for the store's lock: old writes of a killed process land within about 11 ms.
pub const LOCK_WAIT_MS_MAX: u64 = 2_000;

/// How often an inspection looks before it believes that a store is damaged that somebody may be writing.
pub const INSPECTION_TRIES_MAX: u32 = 4;

/// How often a waiter for the lock looks again at the longest, in milliseconds.
pub const LOCK_PAUSE_MS_MAX: u64 = 20;

/// Regions that one core's device registers with the kernel.
pub const IO_REGIONS_MAX: u32 = 64;
/// Most bytes of one registration; the kernel takes no more than 1 GiB for one entry.
pub const IO_REGISTER_BYTES_MAX: usize = 1 << 30;
/// Most bytes that the kernel moves in one operation (`MAX_RW_COUNT`); a longer one is short.
pub const IO_TRANSFER_BYTES_MAX: u32 = 0x7fff_f000;
/// Kernel workers of one ring: they run syncs, discards and writes that cannot be started without blocking.
pub const IO_WORKERS_MAX: u32 = 4;
/// How long the kernel may refuse to take submissions (`EAGAIN`, `EBUSY`) before the device counts as broken.
pub const IO_STALL_MS_MAX: u64 = 10_000;
/// How long making a ring waits for memory: the kernel gives that of a ring that was dropped back some time later, and
/// until then it counts against the user's limit of locked memory.
pub const IO_MEMORY_WAIT_MS_MAX: u64 = 500;
/// The longest pause between two tries of that, in milliseconds.
pub const IO_MEMORY_PAUSE_MS_MAX: u64 = 20;
/// How long a device that is dropped waits for what is in flight before it leaks the memory.
pub const IO_DRAIN_MS_MAX: u64 = 30_000;
/// Worker threads of one core's thread-pool device when nothing is said.
pub const IO_THREADS_DEFAULT: u32 = 4;
/// Most worker threads of one core's thread-pool device.
pub const IO_THREADS_MAX: u32 = 64;

/// Bytes of one write while a device is filled with zeros.
pub const FORMAT_WRITE_BYTES: u64 = 4 << 20;

/// Bytes of one read of a scan.
pub const SCAN_CHUNK_BYTES: u64 = 1 << 20;
/// How long a scan that reads nothing keeps what was written since it began from being cleaned, in milliseconds.
pub const SCAN_PIN_MS_MAX: u64 = 60_000;
/// Reads of a scan that are under way or waiting to be used.
pub const SCAN_READ_AHEAD: usize = 3;
/// The same over all shards of a scan of the whole store; each shard has at least one.
pub const SCAN_ALL_READS: usize = 64;
/// Most bytes of one read that several records of a `read_many` share.
pub const READ_MANY_RUN_BYTES_MAX: u64 = 256 << 10;
/// Reads of one `read_many` under way at the same time.
pub const READ_MANY_IN_FLIGHT_MAX: usize = 64;
/// Findings that a verification lists; the others are counted.
pub const FINDINGS_MAX: usize = 1_000;
/// Times that a scan or `read_many` with nothing under way tries a full mailbox before it reports that it is full.
pub const MAILBOX_TRIES_MAX: u32 = 100_000;

const _: () = {
    assert!(FORMAT_WRITE_BYTES.is_multiple_of(SLOT_BYTES_MAX) && SUPERBLOCK_AREA_BYTES <= FORMAT_WRITE_BYTES);
    assert!(
        CACHE_BYTES_MIN / CACHE_RECORD_SHARE >= 4 << 10 && CACHE_RECORD_SHARE as usize >= 2 * CACHE_PARTS
    );
    assert!(IO_DEPTH_MAX.is_power_of_two() && IO_THREADS_DEFAULT <= IO_THREADS_MAX);
    assert!(SLOT_BYTES_MIN.is_power_of_two() && SLOT_BYTES_MAX.is_power_of_two());
    assert!(EXTENT_BYTES_MIN >= 2 * SLOT_BYTES_MAX + BUFFER_BYTES_MIN);
    assert!(BUFFER_BYTES_MIN > FRAME_HEADER_BYTES + RECORD_HEADER_BYTES);
    assert!(BUFFER_BYTES_MAX / RECORD_ALIGNMENT < 1 << 21);
    assert!(STORE_BYTES_MAX / RECORD_ALIGNMENT == 1 << 43);
    assert!(STORE_BYTES_MAX / SLOT_BYTES_MIN == 1 << 34);
    assert!(EXTENTS_MAX as u64 == STORE_BYTES_MAX / EXTENT_BYTES_DEFAULT);
    assert!((BUFFER_BYTES_MIN - FRAME_HEADER_BYTES) / 2 - 2 * RECORD_HEADER_BYTES >= LARGE_PART_BYTES_MIN);
    assert!(MANIFEST_NODE_BYTES_MAX <= RECORD_PAYLOAD_BYTES_MAX);
    assert!(BUFFER_BYTES_MAX <= RECORD_PAYLOAD_BYTES_MAX);
    assert!(FRAME_HEADER_BYTES <= SECTOR_BYTES && EXTENT_HEADER_BYTES <= SECTOR_BYTES);
    assert!(4 * SUPERBLOCK_COPY_BYTES_MAX <= SUPERBLOCK_AREA_BYTES);
    assert!(FRAME_HEADER_BYTES.is_multiple_of(RECORD_ALIGNMENT));
    assert!(FREED_PER_RECORD_MAX * 16 + 8 < record_bytes_max(BUFFER_BYTES_MIN) as usize);
    assert!(
        CHECKPOINT_BYTES_MIN <= CHECKPOINT_BYTES_DEFAULT && CHECKPOINT_BYTES_DEFAULT <= CHECKPOINT_BYTES_MAX
    );
    assert!(EXTENT_BYTES_MAX / RECORD_ALIGNMENT <= u32::MAX as u64);
    assert!(CLEAN_LOW_PERCENT_DEFAULT < CLEAN_HIGH_PERCENT_DEFAULT);
    assert!(CLEAN_LIVE_PERCENT_MAX < 100 && CLEAN_READ_BYTES.is_multiple_of(SLOT_BYTES_MAX));
    assert!(CONTROL_BYTES_MAX as u64 <= RECORD_PAYLOAD_BYTES_MAX && CURSOR_NAME_BYTES_MAX < 1 << 16);
    assert!(RING_BUFFERS_MIN.is_power_of_two() && RING_BUFFERS_MAX.is_power_of_two());
};

/// Largest payload, in bytes, of one record in a buffer of `buffer_bytes`.
#[must_use]
pub const fn record_bytes_max(buffer_bytes: u64) -> u64 {
    buffer_bytes - FRAME_HEADER_BYTES - RECORD_HEADER_BYTES
}
