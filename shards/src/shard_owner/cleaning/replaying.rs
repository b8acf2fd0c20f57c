//! What an earlier open copied of an extent, told again: the owner of the records may not have heard of it, or has
//! forgotten.

use super::{
    Stage,
    reading::{Looked, Reading, bytes_from},
};
use crate::{
    address::Address,
    device::Device,
    extents::ExtentUse,
    format::{
        checksum::StoreSeed,
        control::Control,
        moved::{MovedGroup, Origin},
        record::{RecordHeader, RecordKind, check_record, record_bytes},
    },
    ids::{Generation, SlotIndex},
    shard_owner::ShardOwner,
};

impl ShardOwner {
    /// One step back in the chain of groups.
    pub(super) fn replay(&mut self, device: &mut dyn Device, group: Option<Address>) -> bool {
        // A group that was trimmed, and those before it, are gone for their owner too.
        let Some((address, generation)) = group.and_then(|at| Some((at, self.own_generation(at)?))) else {
            // What counts of its batch data has to be found again.
            return self.set_stage(Stage::Survey);
        };
        let slot = address.slot(self.context.layout.geometry());
        let reading = std::mem::take(&mut self.cleaner.reading);
        let told = match &reading {
            Reading::Idle => Err(Looked::Needs(slot, address.slots_hint())),
            Reading::Flying { .. } => {
                self.cleaner.reading = reading;
                return false;
            }
            Reading::Failed => Err(Looked::Bad("the device cannot read what was copied of it")),
            Reading::Here { slot, buffer } => self.tell_group(address, generation, *slot, buffer.as_slice()),
        };
        self.cleaner.reading = reading;
        match told {
            Ok(previous) => self.set_stage(Stage::Replay(previous)),
            Err(Looked::Needs(slot, slots)) => self.read_run(device, slot, slots),
            Err(Looked::Bad(why)) => self.leave_alone(why),
            Err(_) => true,
        }
    }

    fn set_stage(&mut self, stage: Stage) -> bool {
        if let Some(task) = &mut self.cleaner.task {
            task.stage = stage;
        }
        true
    }

    /// The generation of the extent of an address, if it is of the shard that the copies are in.
    fn own_generation(&self, address: Address) -> Option<Generation> {
        let entry = self.context.extents.get(address.extent(self.context.layout.geometry()))?;
        let crosses = self.cleaner.task.as_ref().is_some_and(|task| task.crosses);
        let is_ours = entry.usage == ExtentUse::Claimed && entry.shard == self.target(crosses).id();
        (is_ours && address.is_of(entry.generation)).then_some(entry.generation)
    }

    /// Tells of each copy, and gives the group before.
    fn tell_group(
        &self,
        address: Address,
        generation: Generation,
        first: SlotIndex,
        bytes: &[u8],
    ) -> Result<Option<Address>, Looked> {
        let geometry = *self.context.layout.geometry();
        let slot = address.slot(&geometry);
        let rest = bytes_from(bytes, first, slot, geometry.slot_bytes());
        let rest = rest.ok_or(Looked::Needs(slot, address.slots_hint()))?;
        let in_slot = address.byte() - geometry.byte_of(slot);
        let needs = |bytes: u64| Looked::Needs(slot, geometry.slots_for(in_slot + bytes));
        let at = |offset: u64, length: u64| -> Result<&[u8], Looked> {
            let start = (in_slot + offset) as usize;
            rest.get(start..start + length as usize).ok_or_else(|| needs(offset + length))
        };
        let seed =
            |offset: u64| StoreSeed::new(self.context.store).record_seed(generation, address.byte() + offset);
        let bad = Looked::Bad("what was copied of it is damaged");
        let Some(header) = RecordHeader::peek(at(0, 8)?) else { return Err(bad) };
        let control =
            check_record(at(0, header.stride())?, seed(0)).map(|view| Control::decode(view.payload));
        let Ok(Ok(Some(Control::Moved(group)))) = control else { return Err(bad) };
        let origin = self.cleaner.task.as_ref().map(|task| self.origin(&task.facts));
        if origin != Some(group.origin) {
            return Err(bad);
        }
        // All of it has to be there before the first is told.
        let strides = group.records.iter().map(|record| record_bytes(u64::from(record.length)));
        at(0, header.stride() + strides.sum::<u64>())?;
        self.tell_copies(&group, header.stride(), generation, address, &at)?;
        Ok(group.previous)
    }

    fn tell_copies<'a>(
        &self,
        group: &MovedGroup,
        mut offset: u64,
        generation: Generation,
        address: Address,
        at: &impl Fn(u64, u64) -> Result<&'a [u8], Looked>,
    ) -> Result<(), Looked> {
        let geometry = *self.context.layout.geometry();
        let origin: &Origin = &group.origin;
        for record in &group.records {
            let length = u64::from(record.length);
            let byte = address.byte() + offset;
            let seed = StoreSeed::new(self.context.store).record_seed(generation, byte);
            let Ok(view) = check_record(at(offset, record_bytes(length))?, seed) else {
                return Err(Looked::Bad("what was copied of it is damaged"));
            };
            let to = Address::new(&geometry, byte, generation, length);
            if view.kind == RecordKind::LARGE_MANIFEST {
                // What lies elsewhere may have been counted when it was told before.
                self.tell_large(origin, record, to, view.payload, &[]);
            } else {
                self.tell_relocated(origin, record, to, view.payload);
            }
            offset += record_bytes(length);
        }
        Ok(())
    }
}
