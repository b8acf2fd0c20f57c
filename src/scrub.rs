//! Reading everything again while the store runs, slowly, to find damage before somebody needs what it hit.

use crate::{scan::ScanError, store::Store};
use corelog_shards::{
    ids::ShardId,
    limits::{LISTED_PLACES_MAX, RECORD_HEADER_BYTES, SCRUB_RATE_DEFAULT},
    scan::Damage,
};
use std::{
    num::NonZeroU64,
    time::{Duration, Instant},
};

/// The longest single pause, so that a scrub that is no longer wanted ends soon.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// How to scrub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubOptions {
    /// Most bytes that are read from the device per second, on average; reads come in pieces of up to 1 MiB.
    pub bytes_per_second: NonZeroU64,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        Self { bytes_per_second: NonZeroU64::new(SCRUB_RATE_DEFAULT).unwrap_or(NonZeroU64::MIN) }
    }
}

/// What a scrub found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Shards whose log was read to its end.
    pub shards: u64,
    /// Good records of the caller.
    pub records: u64,
    /// Their bytes, headers included.
    pub bytes: u64,
    /// Bytes that were read from the device for it: also headers, padding, and what is damaged.
    pub read_bytes: u64,
    /// Damaged places.
    pub damages: u64,
    /// The first of them.
    pub places: Vec<Damage>,
}

impl Store {
    /// Reads what all shards hold, through the store's cores and at a bounded rate, and checks every frame and record.
    /// Damage is listed by place, and the scrub goes on behind it. Appends and reads go on meanwhile; what is appended
    /// after the scrub came to a shard is not looked at.
    ///
    /// It waits, so it is for a thread that drives no core. An error is not damage: a core that died, or a device that
    /// is stalled.
    pub fn scrub(&self, options: ScrubOptions) -> Result<ScrubReport, ScanError> {
        self.scrub_with(options, &mut |_| true)
    }

    /// As [`Store::scrub`]; `progress` hears of the report so far from time to time, and ends the scrub by `false`.
    pub fn scrub_with(
        &self,
        options: ScrubOptions,
        progress: &mut dyn FnMut(&ScrubReport) -> bool,
    ) -> Result<ScrubReport, ScanError> {
        let mut report = ScrubReport::default();
        let start = Instant::now();
        for shard in self.shards() {
            if !self.scrub_shard(shard.id(), options, start, &mut report, progress)? {
                break;
            }
            report.shards += 1;
        }
        Ok(report)
    }

    /// False: `progress` asked to end.
    fn scrub_shard(
        &self,
        shard: ShardId,
        options: ScrubOptions,
        start: Instant,
        report: &mut ScrubReport,
        progress: &mut dyn FnMut(&ScrubReport) -> bool,
    ) -> Result<bool, ScanError> {
        let mut told = Instant::now();
        let read_before = report.read_bytes;
        let mut scan = self.scan(shard)?.skip_damage().read_ahead(1);
        while let Some(record) = scan.next() {
            report.read_bytes = read_before + scan.read_bytes();
            match record {
                Ok(record) => {
                    report.records += 1;
                    report.bytes += RECORD_HEADER_BYTES + record.payload.len() as u64;
                }
                Err(ScanError::Damage(damage)) => {
                    report.damages += 1;
                    if report.places.len() < LISTED_PLACES_MAX {
                        report.places.push(*damage);
                    }
                }
                // What the scan was to see was trimmed away meanwhile, by the owner's wish.
                Err(ScanError::Reclaimed { .. }) => return Ok(true),
                Err(error) => return Err(error),
            }
            // By what was read: a log of small frames is mostly padding.
            let seconds = report.read_bytes as f64 / options.bytes_per_second.get() as f64;
            let due = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
            while let Some(early) = due.checked_sub(start.elapsed()).filter(|early| !early.is_zero()) {
                std::thread::sleep(early.min(PAUSE_MAX));
                if !progress(report) {
                    return Ok(false);
                }
                told = Instant::now();
            }
            if told.elapsed() > PAUSE_MAX {
                told = Instant::now();
                if !progress(report) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}
