//! One large record on its way: its parts are copied one by one, and then its list is written anew. The new list counts
//! once the extent is gone for which all of it was done, as copies do; the old one lacks something from then on.

use super::{
    Stage, Task,
    large::LargeRecord,
    reading::{Looked, Reading, bytes_from},
};
use crate::{
    address::Address,
    device::Device,
    format::{
        checksum::StoreSeed,
        control::Control,
        manifest::{Manifest, ManifestEntry, ManifestOf},
        moved::{MovedGroup, MovedRecord, Origin},
        record::{RecordFlags, RecordKind, check_record, record_bytes},
    },
    limits::RECORD_ALIGNMENT,
    mutant::{self, Mutant},
    ring::group::RecordGroup,
    shard_owner::ShardOwner,
    sync::Ordering,
};

/// What was done of it.
#[derive(Debug)]
pub(super) struct Moving {
    record: LargeRecord,
    /// Where its parts are now; the rest is still to be copied.
    copies: Vec<ManifestEntry>,
}

impl Moving {
    pub(super) const fn new(record: LargeRecord) -> Self {
        Self { record, copies: Vec::new() }
    }

    fn next(&self) -> Option<ManifestEntry> {
        self.record.parts.as_ref()?.get(self.copies.len()).copied()
    }
}

impl ShardOwner {
    /// One step: copies a part, or makes the list ready that leads to the copies.
    pub(super) fn move_large(&mut self, device: &mut dyn Device) -> bool {
        let Some(mut task) = self.cleaner.task.take() else { return false };
        let Some(moving) = task.moving.take() else {
            task.stage = Stage::Copy;
            self.cleaner.task = Some(task);
            return true;
        };
        let owner = self.context.cleaning.owner();
        let is_dead =
            moving.copies.is_empty() && owner.is_some_and(|owner| !owner.is_large_live(moving.record.root));
        let next = moving.next();
        if is_dead || next.is_some_and(|part| self.own_extent(part.address).is_none()) {
            // It was released since, or is trimmed.
            task.stage = Stage::Copy;
            self.cleaner.task = Some(task);
            return true;
        }
        let Some(part) = next else {
            self.make_list_ready(&mut task, &moving);
            self.cleaner.task = Some(task);
            return true;
        };
        task.moving = Some(moving);
        self.copy_part(device, task, &part)
    }

    fn copy_part(&mut self, device: &mut dyn Device, task: Task, part: &ManifestEntry) -> bool {
        let geometry = *self.context.layout.geometry();
        let slot = part.address.slot(&geometry);
        let in_slot = part.address.byte() - geometry.byte_of(slot);
        let length = record_bytes(u64::from(part.length));
        let slots = geometry.slots_for(in_slot + length);
        let generation = self.own_extent(part.address).map(|(_, generation)| generation);
        self.cleaner.task = Some(task);
        let reading = std::mem::take(&mut self.cleaner.reading);
        let placed = match &reading {
            Reading::Idle => Err(Looked::Needs(slot, slots)),
            Reading::Flying { .. } => {
                self.cleaner.reading = reading;
                return false;
            }
            Reading::Failed => Err(Looked::Bad("the device cannot read a part of a large record of it")),
            Reading::Here { slot: first, buffer } => {
                let rest = bytes_from(buffer.as_slice(), *first, slot, geometry.slot_bytes());
                let bytes = rest.and_then(|rest| rest.get(in_slot as usize..(in_slot + length) as usize));
                let seed = StoreSeed::new(self.context.store)
                    .record_seed(generation.unwrap_or_default(), part.address.byte());
                match bytes.map(|bytes| check_record(bytes, seed)) {
                    None => Err(Looked::Needs(slot, slots)),
                    Some(Ok(view))
                        if view.kind == RecordKind::LARGE_PART
                            && view.payload.len() as u64 == u64::from(part.length) =>
                    {
                        Ok(self.place_part(view.payload))
                    }
                    Some(_) => Err(Looked::Bad("a part of a large record of it is damaged")),
                }
            }
        };
        self.cleaner.reading = reading;
        match placed {
            Ok(Ok(address)) => {
                if let Some(moving) = self.cleaner.task.as_mut().and_then(|task| task.moving.as_mut()) {
                    moving.copies.push(ManifestEntry { address, ..*part });
                }
                true
            }
            Ok(Err(refusal)) => self.has_no_room(refusal, false),
            Err(Looked::Needs(slot, slots)) => self.read_run(device, slot, slots),
            Err(Looked::Bad(why)) => self.leave_alone(why),
            Err(_) => true,
        }
    }

    fn place_part(&mut self, payload: &[u8]) -> Result<Address, crate::ring::Refusal> {
        // Before the copies are there: extents with them are not cleaned as long as a scan runs that began by then.
        self.shared.scans().note_copies(Some(self.last_ordinal));
        let room = self.shared.ring().reserve_privileged(payload.len())?;
        let placed = room.commit_copy(payload, RecordKind::LARGE_PART, RecordFlags::MOVED);
        self.shared.counters().bytes_moved.fetch_add(record_bytes(payload.len() as u64), Ordering::Relaxed);
        self.note_room_taken(false);
        Ok(placed.address)
    }

    /// All parts are copied.
    fn make_list_ready(&self, task: &mut Task, moving: &Moving) {
        let LargeRecord { place, parts, .. } = &moving.record;
        let old = parts.as_deref().unwrap_or_default();
        let parts = if mutant::is_active(Mutant::LargeListNotRenewed) { old } else { &moving.copies };
        let first = parts.first().and_then(|part| self.shared.ring().ordinal_of(part.address));
        let mut list = vec![0; Manifest::payload_bytes(parts.len())];
        Manifest::encode(0, first, parts, &mut list);
        let byte = self.context.layout.geometry().byte_of(task.slot) + task.offset;
        let up_to = byte + RECORD_ALIGNMENT;
        let records = vec![MovedRecord { byte, length: list.len() as u32, root: Some(*place) }];
        let (from, previous) = (task.from, task.last);
        let moved = MovedGroup { origin: self.origin(&task.facts), from, up_to, previous, records };
        let control = Control::Moved(moved.clone());
        let mut group = RecordGroup::new();
        group.push(&control.encode(), RecordKind::CONTROL);
        group.push_flagged(&list, RecordKind::LARGE_MANIFEST, RecordFlags::MOVED);
        task.from = up_to;
        task.ready = Some((group, moved.records));
        task.elsewhere = self.elsewhere_of(task.facts.extent, &moving.record);
        task.stage = Stage::Copy;
    }

    /// The owner of a large record hears of its new place, which is durable. `elsewhere`: what the old one has outside of
    /// the extent that will be freed.
    pub(super) fn tell_large(
        &self,
        origin: &Origin,
        record: &MovedRecord,
        to: Address,
        list: &[u8],
        elsewhere: &[(Address, u64)],
    ) {
        let (Some(owner), Some(root)) = (self.context.cleaning.owner(), record.root) else { return };
        let generation = match root.ordinal == origin.ordinal {
            true => Some(origin.generation),
            false => self.space.extent(root.ordinal).map(|facts| facts.generation),
        };
        // Trimmed, with the extent that is cleaned.
        let Some(generation) = generation else { return };
        let geometry = self.context.layout.geometry();
        let from = Address::new(geometry, root.byte, generation, u64::from(record.length));
        if owner.relocated_large(from, to) {
            return self.note_dead_each(elsewhere);
        }
        let parts =
            Manifest::decode_root(list, ManifestOf::Large).map_or_else(|_| Vec::new(), |it| it.entries);
        let pieces = parts.iter().map(|part| (part.address, u64::from(part.length)));
        let pieces: Vec<_> = pieces.chain([(to, u64::from(record.length))]).collect();
        self.note_dead_each(&pieces);
    }
}
