//! What opens a store, over the changed image: superblocks, recovery in all its ways, and what recovery promises.

use super::{Base, script::Changed};
use bytes::Bytes;
use corelog_shards::{
    format::{
        record::RecordKind,
        superblock::{COPY_OFFSETS, Superblock, choose},
    },
    ids::{DeviceIndex, ExtentOrdinal, SlotIndex},
    limits::SUPERBLOCK_COPY_BYTES_MAX,
    recovery::{
        RecoveredExtent, RecoveredShard, RecoveryError, RecoveryOptions, RecoveryReport, RecoverySource,
        SourceError, recover_store,
    },
    scan::{
        ExtentSequence, Fault, Limit, OnDamage, ScanRecord, ScanSetup, Scanner, SequencedExtent, Start, Step,
        Wanted,
    },
};
use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

/// Recovery looks at headers, then at bodies, then behind the end; so often may it read the device, and no more.
const READS_OF_THE_DEVICE_MAX: u64 = 12;

pub(super) fn check(base: &Base, changed: &Changed) {
    let Some(superblock) = superblock_of(&changed.bytes) else { return };
    for salvage in [false, true] {
        for verify_bodies in [false, true] {
            let options =
                RecoveryOptions { verify_bodies, salvage, threads: 1, ..RecoveryOptions::default() };
            let recovered = recover(&changed.bytes, &superblock, options);
            check_recovered(&superblock, &recovered, options);
            if let Ok(report) = recovered {
                for shard in &report.shards {
                    scan(base, changed, &superblock, shard);
                }
            }
        }
    }
}

/// The superblock that counts, where the device is as large as it says.
pub(super) fn superblock_of(image: &[u8]) -> Option<Superblock> {
    let copies = COPY_OFFSETS.map(|offset| {
        let start = (offset as usize).min(image.len());
        let end = (start + SUPERBLOCK_COPY_BYTES_MAX as usize).min(image.len());
        Superblock::decode_copy(&image[start..end])
    });
    let superblock = choose(&copies).ok()?.superblock;
    // As opening does: a store of several devices needs them all, and none may be shorter than stated.
    let [device] = superblock.devices.as_slice() else { return None };
    (device.bytes <= image.len() as u64).then_some(superblock)
}

struct Source<'a> {
    image: &'a [u8],
    superblock: &'a Superblock,
    read: AtomicU64,
}

impl RecoverySource for Source<'_> {
    fn read(&self, slot: SlotIndex, bytes: &mut [u8]) -> Result<(), SourceError> {
        let geometry = self.superblock.geometry;
        let slots = bytes.len() as u64 / geometry.slot_bytes();
        assert!(slots > 0 && slots <= geometry.slots_left(slot), "a read leaves its extent");
        self.read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let (device, offset) = self.superblock.locate(slot).ok_or(SourceError::NoSuchSlot { slot })?;
        assert_eq!(device, DeviceIndex(0));
        let there = self.image.get(offset as usize..offset as usize + bytes.len());
        bytes.copy_from_slice(there.expect("the device is as long as the superblock says"));
        Ok(())
    }
}

fn recover(
    image: &[u8],
    superblock: &Superblock,
    options: RecoveryOptions,
) -> Result<RecoveryReport, RecoveryError> {
    let source = Source { image, superblock, read: AtomicU64::new(0) };
    let recovered = recover_store(&source, superblock, options);
    let read = source.read.into_inner();
    let most = READS_OF_THE_DEVICE_MAX * image.len() as u64;
    assert!(read <= most, "recovery read {read} bytes of a device of {}", image.len());
    recovered
}

fn check_recovered(
    superblock: &Superblock,
    recovered: &Result<RecoveryReport, RecoveryError>,
    options: RecoveryOptions,
) {
    let report = match recovered {
        Ok(report) => report,
        Err(error) => {
            let is_final = matches!(error, RecoveryError::NewerVersion { .. } | RecoveryError::Memory(_));
            assert!(!options.salvage || is_final, "salvage goes on over {error}");
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert_eq!(report.shards.len(), superblock.shards.len());
    assert!(report.highest_term >= superblock.term);
    let extents = u64::from(superblock.extent_count());
    let named = report.extents_free + report.extents_owned + report.extents_bad.len() as u64;
    assert_eq!(named, extents, "every extent is somebody's, nobody's or bad");
    for shard in &report.shards {
        assert!(shard.first_frame <= shard.next_frame && shard.used_extents <= shard.extents.len());
        let span = shard.next_frame.0 - shard.first_frame.0;
        assert!(shard.frames == span || shard.began_at.is_some(), "{} of {span} frames", shard.frames);
        if let Some(slot) = shard.next_slot {
            let extent = superblock.geometry.extent_of(slot);
            assert_eq!(shard.extents[shard.used_extents - 1].index, extent);
        }
        let entry = superblock.shards[usize::from(shard.shard.0)];
        assert!(
            options.salvage || shard.next_frame >= entry.durable,
            "what the superblock knows to be durable is there or an error"
        );
    }
}

struct Extents<'a>(&'a RecoveredShard);

impl ExtentSequence for Extents<'_> {
    fn extent_at(&self, ordinal: ExtentOrdinal) -> Option<SequencedExtent> {
        let found = self.0.extents.iter().find(|extent| extent.ordinal == ordinal)?;
        Some(SequencedExtent { extent: found.index, generation: found.generation })
    }

    fn ordinals(&self) -> Range<u64> {
        match (self.0.extents.first(), self.0.extents.last()) {
            (Some(first), Some(last)) => first.ordinal.0..last.ordinal.0 + 1,
            _ => 0..0,
        }
    }

    fn ordinal_after(&self, ordinal: ExtentOrdinal) -> Option<ExtentOrdinal> {
        let behind = self.0.extents.partition_point(|extent| extent.ordinal <= ordinal);
        Some(self.0.extents.get(behind)?.ordinal)
    }
}

/// Reads what recovery found. Whatever the image says, the scan ends, and a device that only lost, moved or flipped
/// bytes gives no record that was not appended.
fn scan(base: &Base, changed: &Changed, superblock: &Superblock, shard: &RecoveredShard) {
    let geometry = superblock.geometry;
    let extents = Extents(shard);
    let behind = |extent: &RecoveredExtent| {
        SlotIndex(geometry.header_slot(extent.index).0 + geometry.slots_per_extent())
    };
    let last = shard.used_extents.checked_sub(1).and_then(|last| shard.extents.get(last));
    let Some(end) = shard.next_slot.or(last.map(behind)) else { return };
    let setup = ScanSetup {
        store: superblock.store,
        shard: shard.shard,
        geometry,
        chunk_bytes: 64 << 10,
        wanted: Wanted::All,
        on_damage: OnDamage::Skip,
    };
    let limit = Limit { frames: shard.next_frame, end };
    let mut scanner = Scanner::new(setup, Start::Oldest, limit, &extents);
    // Each step yields a record, reports damage or leads to a read, and none of them leads back.
    for _ in 0..changed.bytes.len() {
        match scanner.step(&extents) {
            Step::Record(record) => check_record(base, changed, &record),
            Step::Damage(damage) => {
                let is_last =
                    matches!(damage.fault, Fault::Reclaimed | Fault::BehindTheEnd | Fault::NoExtent);
                if is_last {
                    return;
                }
            }
            Step::End => return,
            Step::Need => {
                let run = scanner.ask(1, &extents).expect("a scan without its bytes says which");
                assert!(
                    run.slots > 0 && run.slots <= geometry.slots_left(run.slot),
                    "a read leaves its extent"
                );
                let (_, start) = superblock.locate(run.slot).expect("a slot of the store");
                let end = start + run.slots * geometry.slot_bytes();
                let bytes = changed.bytes.get(start as usize..end as usize).expect("bytes of the device");
                scanner.supply(run.slot, Bytes::copy_from_slice(bytes));
            }
        }
    }
    panic!("the scan of {:?} does not end", shard.shard);
}

fn check_record(base: &Base, changed: &Changed, record: &ScanRecord) {
    if !changed.is_honest || record.kind != RecordKind::DATA {
        return;
    }
    let appended = base.records.get(&record.address.to_bits());
    assert!(
        appended.is_some_and(|payload| *payload == record.payload),
        "{} was never appended",
        record.address
    );
}
