//! What a batch or a large record leads to, given where its list is found.

use super::{
    Found, LossOf, SalvageError, SalvagedPart, SalvagedRecord,
    shard::{Sink, Walk},
};
use bytes::Bytes;
use corelog_shards::{
    address::Address,
    format::{
        control::LogPlace,
        manifest::{Manifest, ManifestOf},
        record::{RecordFlags, RecordKind, RecordView},
    },
    ids::{ExtentIndex, ExtentOrdinal, Generation},
    limits::BUFFER_BYTES_MAX,
    manifest::{Found as Listed, ManifestWalk, WalkSetup, WalkStep},
    scan::{ExtentSequence, SequencedExtent},
};
use std::ops::Range;

/// The extents of a shard that could be told, in the order of its log.
struct Told<'a>(&'a [Found]);

impl ExtentSequence for Told<'_> {
    fn extent_at(&self, ordinal: ExtentOrdinal) -> Option<SequencedExtent> {
        let found = self.0.get(usize::try_from(ordinal.0).ok()?)?;
        Some(SequencedExtent { extent: found.extent, generation: found.generation })
    }

    fn generation_of(&self, extent: ExtentIndex) -> Option<Generation> {
        self.0.iter().find(|found| found.extent == extent).map(|found| found.generation)
    }

    fn ordinals(&self) -> Range<u64> {
        0..self.0.len() as u64
    }
}

impl Walk<'_, '_> {
    /// Gives the records of a batch, or the parts of a large record, if this is what makes them count.
    pub(super) fn give_listed<E>(
        &mut self,
        view: &RecordView<'_>,
        root: Address,
        sink: &mut Sink<'_, E>,
    ) -> Result<(), SalvageError<E>> {
        let of = match view.kind {
            RecordKind::BATCH_COMMIT if view.flags == RecordFlags::NONE => ManifestOf::Batch,
            RecordKind::LARGE_MANIFEST if view.header().is_root() => ManifestOf::Large,
            _ => return Ok(()),
        };
        // A list with a good checksum that is none was never written by a store.
        let Ok(list) = Manifest::decode_root(view.payload, of) else { return Ok(()) };
        if self.has_trimmed(root, list.from) {
            return Ok(());
        }
        if of == ManifestOf::Large && list.bytes == 0 {
            self.report.records += 1;
            let part = Some(SalvagedPart { offset: 0, bytes: 0 });
            let record = SalvagedRecord { shard: self.shard, address: root, payload: Bytes::new(), part };
            return sink(record).map_err(SalvageError::Sink);
        }
        let setup = WalkSetup { seed: self.salvage.seed(), geometry: self.salvage.geometry(), of };
        let mut walk = ManifestWalk::new(setup, &list, 0);
        let extents = std::mem::take(&mut self.extents);
        let given = self.walk_list(&mut walk, &Told(&extents), (of, root, list.bytes), sink);
        self.extents = extents;
        given
    }

    /// True if the log was trimmed to behind the root of a list, and what it begins with is gone: then the rest of it is
    /// no loss.
    fn has_trimmed(&self, root: Address, from: Option<ExtentOrdinal>) -> bool {
        let geometry = self.salvage.geometry();
        let extent = root.extent(&geometry);
        let Some(root_in) = self.extents.iter().find(|found| found.extent == extent) else { return false };
        let place = LogPlace { ordinal: root_in.ordinal, byte: root.byte() };
        let oldest = self.extents.iter().map(|found| found.ordinal).min();
        place < self.salvage.trim(self.shard) && from.is_some_and(|from| Some(from) < oldest)
    }

    fn walk_list<E>(
        &mut self,
        walk: &mut ManifestWalk,
        extents: &Told<'_>,
        (of, root, bytes): (ManifestOf, Address, u64),
        sink: &mut Sink<'_, E>,
    ) -> Result<(), SalvageError<E>> {
        let geometry = self.salvage.geometry();
        loop {
            let (address, is_lost) = match walk.step(extents) {
                WalkStep::Found(Listed { address, offset, payload }) => {
                    let address = if of == ManifestOf::Large { root } else { address };
                    let part = (of == ManifestOf::Large).then_some(SalvagedPart { offset, bytes });
                    self.report.records += u64::from(of == ManifestOf::Batch || offset == 0);
                    self.report.bytes += payload.len() as u64;
                    let record = SalvagedRecord { shard: self.shard, address, payload, part };
                    sink(record).map_err(SalvageError::Sink)?;
                    continue;
                }
                WalkStep::Need => {
                    if let Some(run) = walk.ask() {
                        let most = BUFFER_BYTES_MAX / geometry.slot_bytes();
                        let read = Bytes::copy_from_slice(self.slots.at(run.slot, run.slots.min(most))?);
                        walk.supply(run.slot, Ok(read));
                    }
                    continue;
                }
                WalkStep::End => return Ok(()),
                // Records of a batch are trimmed, or moved, one by one.
                WalkStep::Reclaimed(address) if of == ManifestOf::Large => {
                    if self.salvage.has_sound_header(self.slots, address.extent(&geometry))? {
                        // The record was released: its parts are given up extent by extent.
                        return Ok(());
                    }
                    (address, true)
                }
                WalkStep::Reclaimed(address) => (address, false),
                WalkStep::Fault(fault) => (fault.address, true),
            };
            if is_lost {
                let of_record = LossOf::Record { frame: self.next, byte: address.byte() };
                self.lose(address.slot(&geometry), of_record);
                if of == ManifestOf::Large {
                    return Ok(());
                }
            }
        }
    }
}
