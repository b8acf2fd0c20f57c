//! What an open owes to batches over several shards: those that were decided are given to all their shards.

use super::{PrepareError, StoreDevices};
use crate::{
    address::Address,
    format::{
        checksum::StoreSeed,
        record::{RecordFlags, RecordKind, check_record},
        superblock::Superblock,
    },
    ids::Generation,
    memory::PooledBuffer,
    mutant::{self, Mutant},
    open::ShardResume,
    over::Unresolved,
    recovery::{Loss, LossKind, Place, RecoveredShard, RecoveryError, RecoveryReport},
};
use std::collections::BTreeSet;

/// Gives each shard what it has to do for batches that were decided. A salvage goes on without what is lost.
pub(super) fn resolve<D: StoreDevices>(
    superblock: &Superblock,
    devices: &D,
    report: &mut RecoveryReport,
    resumes: &mut [ShardResume],
    is_salvage: bool,
) -> Result<(), PrepareError<D::Error>> {
    let decided = report.shards.iter().flat_map(|shard| &shard.space.over.decided);
    let shares = decided.flat_map(|(id, parts)| parts.iter().map(move |part| (*id, part.0, part.1)));
    let shares: Vec<_> = shares.collect();
    let mut read = BTreeSet::new();
    for (id, shard, root) in shares {
        let (Some(found), Some(resume)) =
            (report.shards.get_mut(usize::from(shard.0)), resumes.get_mut(usize::from(shard.0)))
        else {
            continue;
        };
        // A list is of one batch: whoever says otherwise shall not fill the memory with it.
        if found.space.over.has_resolved(id) || !read.insert(root.to_bits()) {
            continue;
        }
        match read_prepared(superblock, devices, found, root) {
            Ok(_) if mutant::is_active(Mutant::ShareForgotten) => {}
            Ok(list) => resume.space.unresolved.push(Unresolved { id, list }),
            Err(PrepareError::Recovery(RecoveryError::ShareLost { .. })) if is_salvage => {
                let place = place_of(superblock, found, root);
                found.losses.push(Loss { place, kind: LossKind::LostWrite });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn place_of(superblock: &Superblock, found: &RecoveredShard, root: Address) -> Place {
    let slot = root.slot(&superblock.geometry);
    let (shard, frame) = (found.shard, found.next_frame);
    Place { shard, frame, slot, on_device: superblock.locate(slot) }
}

/// The list of a batch, which was durable before the batch was decided, as was all that it lists.
fn read_prepared<D: StoreDevices>(
    superblock: &Superblock,
    devices: &D,
    found: &RecoveredShard,
    root: Address,
) -> Result<Vec<u8>, PrepareError<D::Error>> {
    let geometry = &superblock.geometry;
    let slot = root.slot(geometry);
    let lost = || RecoveryError::ShareLost { shard: found.shard, address: root };
    let (Some(generation), Some((device, offset))) =
        (generation_in_log(superblock, found, root), superblock.locate(slot))
    else {
        return Err(lost().into());
    };
    let slots = root.slots_hint().min(geometry.slots_left(slot));
    let mut buffer =
        PooledBuffer::alone((slots * geometry.slot_bytes()) as usize).map_err(PrepareError::Memory)?;
    devices
        .read(device, offset, buffer.as_mut_slice())
        .map_err(|source| RecoveryError::Unreadable { slot, source })?;
    let start = (root.byte() - geometry.byte_of(slot)) as usize;
    let seed = StoreSeed::new(superblock.store).record_seed(generation, root.byte());
    match check_record(buffer.as_mut_slice().get(start..).unwrap_or_default(), seed) {
        Ok(view) if view.kind == RecordKind::BATCH_COMMIT && view.flags == RecordFlags::PREPARED => {
            Ok(view.payload.to_vec())
        }
        _ => Err(lost().into()),
    }
}

/// The generation of the extent that a record is in. `None`: it is not before the end of the shard's log, where it may be
/// good, and what it lists cut off.
fn generation_in_log(superblock: &Superblock, found: &RecoveredShard, root: Address) -> Option<Generation> {
    let geometry = &superblock.geometry;
    let (slot, extent) = (root.slot(geometry), root.extent(geometry));
    let used = found.extents.get(..found.used_extents)?;
    let claim = used.iter().find(|it| it.index == extent && root.is_of(it.generation))?;
    let ends_here = found.next_slot.filter(|next| geometry.extent_of(*next) == extent);
    ends_here.is_none_or(|next| slot < next).then_some(claim.generation)
}
