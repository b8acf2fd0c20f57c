//! Checking all of a store: every copy, header, frame and record.

use super::{Inspection, scanning::Recovered};
use corelog_shards::{
    format::record::RecordKind,
    ids::{DeviceIndex, ExtentIndex, ShardId},
    limits::FINDINGS_MAX,
    reads::ReadError,
    recovery::RecoveredShard,
    scan::{OnDamage, ScanPlace, Start, Step, Wanted},
};
use serde::Serialize;

/// Where something is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FindingPlace {
    /// A superblock copy. Right after a crash the copies of one side may be torn; the next open replaces them.
    Superblock {
        /// The device.
        device: DeviceIndex,
        /// Byte of the device.
        byte: u64,
    },
    /// One copy of an extent's header; the other one counts.
    ExtentHeaderCopy {
        /// The extent.
        extent: ExtentIndex,
        /// Which copy.
        copy: usize,
    },
    /// The header of an extent: what was in it cannot be told.
    ExtentHeader {
        /// The extent.
        extent: ExtentIndex,
    },
    /// A place in a shard's log.
    Log {
        /// Shard, frame and slot.
        place: ScanPlace,
        /// The device that holds the slot, and the byte on it.
        on_device: Option<(DeviceIndex, u64)>,
    },
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where.
    pub place: FindingPlace,
    /// What, for people.
    pub problem: String,
}

/// What was checked, and what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Shards whose logs were read.
    pub shards: u64,
    /// Frames that they hold, good or not.
    pub frames: u64,
    /// Good records of the store's users.
    pub records: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Good records of the engine, void ones and padding; and what batches and large records are made of, each of
    /// which counts among the users' where it is complete.
    pub other_records: u64,
    /// Places where something is wrong, the first ones of `findings_count`.
    pub findings: Vec<Finding>,
    /// How many there are.
    pub findings_count: u64,
}

impl VerifyReport {
    /// True if nothing is wrong.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        self.findings_count == 0
    }

    pub(super) fn add(&mut self, place: FindingPlace, problem: impl ToString) {
        self.findings_count += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { place, problem: problem.to_string() });
        }
    }
}

impl Inspection {
    /// Reads and checks everything that the store holds, or one shard of it. Open the inspection with salvage, so that
    /// damage is listed here instead of being an error there. `progress` hears frames done and frames to do.
    pub fn verify(
        &self,
        only: Option<ShardId>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<VerifyReport, ReadError> {
        let mut report = VerifyReport::default();
        self.verify_metadata(&mut report);
        let is_wanted = |shard: &&RecoveredShard| only.is_none_or(|only| only == shard.shard);
        let shards: Vec<_> = self.report.shards.iter().filter(is_wanted).collect();
        let total = shards.iter().map(|shard| shard.frames).sum();
        for shard in shards {
            let before = report.frames;
            self.verify_shard(shard, &mut report, &mut |done| progress(before + done, total))?;
            report.frames = before + shard.frames;
        }
        Ok(report)
    }

    fn verify_metadata(&self, report: &mut VerifyReport) {
        for (device, byte) in &self.report.bad_superblock_copies {
            let place = FindingPlace::Superblock { device: *device, byte: *byte };
            report.add(place, "this copy of the superblock is of no use; another one counts");
        }
        for bad in &self.report.bad_header_copies {
            let place = FindingPlace::ExtentHeaderCopy { extent: bad.extent, copy: bad.copy };
            report.add(place, "this copy of the extent header is of no use; the other one counts");
        }
        for extent in &self.report.extents_bad {
            report
                .add(FindingPlace::ExtentHeader { extent: *extent }, "no copy of the extent header is good");
        }
    }

    fn verify_shard(
        &self,
        shard: &RecoveredShard,
        report: &mut VerifyReport,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), ReadError> {
        let extents = Recovered(shard);
        let limit = extents.limit_of_durable(&self.superblock.geometry);
        let mut scanner = self.scanner(extents, Start::Oldest, limit, Wanted::All, OnDamage::Skip);
        let mut damaged_slots = Vec::new();
        let mut last_frame = None;
        report.shards += 1;
        loop {
            match self.drive(&mut scanner, &extents)? {
                Step::Record(record) => {
                    if last_frame.replace(record.frame) != Some(record.frame) {
                        progress(record.frame.0.saturating_sub(shard.first_frame.0));
                    }
                    if record.kind == RecordKind::DATA {
                        report.records += 1;
                        report.bytes += record.payload.len() as u64;
                    } else {
                        report.other_records += 1;
                        self.verify_list(&record, extents, report)?;
                    }
                }
                Step::Damage(damage) => {
                    let place = damage.place;
                    let on_device = self.superblock.locate(place.slot);
                    report.add(FindingPlace::Log { place, on_device }, &damage.fault);
                    if damaged_slots.len() < FINDINGS_MAX {
                        damaged_slots.push(place.slot);
                    }
                    if scanner.is_stopped() {
                        break;
                    }
                }
                Step::End | Step::Need => break,
            }
        }
        // What recovery gave up and the scan did not come to.
        for loss in shard.losses.iter().filter(|loss| !damaged_slots.contains(&loss.place.slot)) {
            let place =
                ScanPlace { shard: shard.shard, frame: Some(loss.place.frame), slot: loss.place.slot };
            report.add(
                FindingPlace::Log { place, on_device: loss.place.on_device },
                format!("{:?}", loss.kind),
            );
        }
        Ok(())
    }
}
