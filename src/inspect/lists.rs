//! Checking that batches and large records are whole.

use super::{FindingPlace, Inspection, VerifyReport, scanning::Recovered};
use bytes::Bytes;
use corelog_shards::{
    address::Address,
    format::{
        checksum::StoreSeed,
        manifest::{Manifest, ManifestOf},
        record::{RecordFlags, RecordKind},
    },
    manifest::{Found, ManifestWalk, WalkSetup, WalkStep},
    reads::ReadError,
    scan::{ExtentSequence, Fault, ScanPlace, ScanRecord},
};

impl Inspection {
    /// Goes through the list that a record begins, if it begins one. A list that is not whole is one finding, which
    /// names the first thing that is missing.
    pub(super) fn verify_list(
        &self,
        record: &ScanRecord,
        extents: Recovered<'_>,
        report: &mut VerifyReport,
    ) -> Result<(), ReadError> {
        let of = match record.kind {
            RecordKind::BATCH_COMMIT => ManifestOf::Batch,
            RecordKind::LARGE_MANIFEST => ManifestOf::Large,
            _ => return Ok(()),
        };
        if record.flags != RecordFlags::NONE {
            return Ok(());
        }
        let geometry = self.superblock().geometry;
        let fault = match Manifest::decode_root(&record.payload, of) {
            Ok(list) if extents.has_trimmed(extents.place_of(record.address, &geometry), list.from) => None,
            Ok(list) => {
                let seed = StoreSeed::new(self.superblock().store);
                let walk = ManifestWalk::new(WalkSetup { seed, geometry, of }, &list, 0);
                self.walk_list(walk, of, extents, report)?
            }
            Err(error) => Some((record.address, Fault::Manifest { address: record.address, error })),
        };
        if let Some((address, fault)) = fault {
            let slot = address.slot(&geometry);
            let place = ScanPlace { shard: extents.0.shard, frame: Some(record.frame), slot };
            let on_device = self.superblock().locate(slot);
            let what = match of {
                ManifestOf::Batch => "batch",
                ManifestOf::Large => "large record",
            };
            let problem = format!("the {what} at {} is not whole: {fault}", record.address);
            report.add(FindingPlace::Log { place, on_device }, problem);
        }
        Ok(())
    }

    /// The first thing that is not there.
    fn walk_list(
        &self,
        mut walk: ManifestWalk,
        of: ManifestOf,
        extents: Recovered<'_>,
        report: &mut VerifyReport,
    ) -> Result<Option<(Address, Fault)>, ReadError> {
        let mut first = None;
        loop {
            match walk.step(&extents) {
                WalkStep::Found(Found { payload, .. }) => {
                    report.records += u64::from(of == ManifestOf::Batch);
                    report.bytes += payload.len() as u64;
                }
                // Records of a batch are trimmed, or moved, one by one.
                WalkStep::Reclaimed(_) if of == ManifestOf::Batch => {}
                // It was released, and is given up part by part.
                WalkStep::Reclaimed(_) => return Ok(None),
                WalkStep::Fault(fault) => {
                    first.get_or_insert((fault.address, fault.fault));
                }
                WalkStep::Need => {
                    let Some(run) = walk.ask() else { continue };
                    let bytes = match self.slots(run.slot, run.slots) {
                        Err(error @ ReadError::NoMemory { .. }) => return Err(error),
                        read => read.map(Bytes::from_owner),
                    };
                    walk.supply(run.slot, bytes);
                }
                WalkStep::End => {
                    report.records += u64::from(of == ManifestOf::Large && first.is_none());
                    return Ok(first);
                }
            }
        }
    }
}
