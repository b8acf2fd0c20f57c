//! Bounds of the yardsticks that the engine does not share; the shared ones come from `corelog_shards::limits`.

/// Largest file of one yardstick, in bytes.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 40;
/// Most records that wait for one durable group.
pub(crate) const WAITERS_MAX: u64 = 4096;
/// Most reads in flight.
pub(crate) const READS_IN_FLIGHT_MAX: u64 = 1024;
/// Most records of one run.
pub(crate) const RECORDS_MAX: u64 = 1 << 40;
/// Longest timed run, in milliseconds.
pub(crate) const RUN_MS_MAX: u64 = 3_600_000;
/// Frames that are read back after a run, spread over the file, the first and the last among them.
pub(crate) const FRAMES_READ_BACK_MAX: u64 = 64;
/// Longest latency that the histogram tells apart, in nanoseconds.
pub(crate) const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Bytes of one write while a file is filled.
pub(crate) const FILL_BYTES: usize = 1 << 20;
