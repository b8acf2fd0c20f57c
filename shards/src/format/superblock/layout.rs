//! Superblock to bytes and back, and what a hostile one cannot get past.

use super::{
    CHECKSUM_BYTES, COPY_BYTES_MAX, DeviceEntry, ENTRY_BYTES, ENVELOPE_BYTES, FIXED_BYTES, FORMAT_VERSION,
    Features, Fields, MAGIC, RegionEntry, ShardEntry, ShardState, Superblock, SuperblockError, Writer,
    all_zero, crc32c, first_unknown,
};
use crate::{
    geometry::Geometry,
    ids::{DeviceIndex, ExtentIndex, FrameNumber, ShardId, SlotIndex, StoreId, Term},
    limits::{
        BUFFER_BYTES_MAX, COUNTER_MAX, DEVICES_MAX, EXTENTS_MAX, REGIONS_MAX, RING_BUFFERS_MAX, SHARDS_MAX,
        STORE_BYTES_MAX, SUPERBLOCK_AREA_BYTES,
    },
};

struct Envelope {
    version: u16,
    device: u16,
    total_bytes: u32,
}

struct Fixed {
    superblock: Superblock,
    devices: usize,
    regions: usize,
    shards: usize,
}

const fn total_bytes(devices: usize, regions: usize, shards: usize) -> usize {
    FIXED_BYTES + ENTRY_BYTES * (devices + regions + shards) + 2 * CHECKSUM_BYTES
}

fn impossible(field: &'static str, value: u64) -> SuperblockError {
    SuperblockError::Impossible { field, value }
}

impl Superblock {
    /// Bytes of an encoded copy.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        total_bytes(self.devices.len(), self.regions.len(), self.shards.len())
    }

    /// Writes the copy for `device` to the front of `bytes` and zeros the rest.
    ///
    /// # Panics
    /// If `bytes` is shorter than [`Superblock::encoded_bytes`], or there are more entries than the limits allow.
    pub fn encode_copy(&self, device: DeviceIndex, bytes: &mut [u8]) {
        bytes.fill(0);
        let total = self.encoded_bytes();
        let Some((covered, checksum)) = bytes.split_at_mut_checked(total - CHECKSUM_BYTES) else {
            panic!("a superblock of {total} bytes does not fit into {}", bytes.len());
        };
        let mut fields = Writer::new(covered);
        self.put_fixed(device, total, &mut fields);
        for device in &self.devices {
            fields.put(&device.uuid);
            fields.u64(device.bytes);
        }
        for region in &self.regions {
            fields.u16(region.device.0);
            fields.u16(0);
            fields.u32(region.first_extent.0);
            fields.u32(region.extent_count);
            fields.u32(0);
            fields.u64(region.device_offset);
        }
        for shard in &self.shards {
            let (state, hot) = state_codes(shard.state);
            fields.put(&[state, 0]);
            fields.u16(hot.0);
            fields.u32(shard.tail_link);
            fields.u64(shard.durable.0);
            fields.u64(shard.tail_slot.map_or(0, |slot| slot.0));
        }
        let crc = crc32c(covered);
        Writer::new(checksum).u32(crc);
    }

    fn put_fixed(&self, device: DeviceIndex, total: usize, fields: &mut Writer<'_>) {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        fields.put(&MAGIC);
        fields.u16(FORMAT_VERSION);
        fields.u16(device.0);
        fields.u32(count(total));
        fields.put(&self.store.0);
        fields.u64(self.sequence);
        fields.u64(self.term.0);
        fields.u64(self.features.compatible);
        fields.u64(self.features.read_only_compatible);
        fields.u64(self.features.incompatible);
        fields.u8(log2(self.geometry.slot_bytes()));
        fields.u8(log2(self.geometry.extent_bytes()));
        fields.u8(u8::from(self.clean));
        fields.u8(0);
        fields.u32(count(self.devices.len()));
        fields.u32(count(self.regions.len()));
        fields.u32(count(self.shards.len()));
        fields.u64(self.reach_bytes);
        fields.u64(self.created_unix_ns);
        fields.u64(self.written_unix_ns);
        fields.put(&[0; 16]);
    }

    /// Reads the copy at the front of `bytes` (at least the whole copy; what is behind it does not matter).
    pub fn decode_copy(bytes: &[u8]) -> Result<Self, SuperblockError> {
        let truncated = |needed: u64| SuperblockError::Truncated { needed, found: bytes.len() as u64 };
        let magic = bytes.get(..MAGIC.len()).ok_or(truncated(FIXED_BYTES as u64))?;
        if magic != MAGIC {
            let absent = all_zero(bytes);
            return Err(if absent { SuperblockError::Absent } else { SuperblockError::NotASuperblock });
        }
        let mut fields = Fields::new(bytes);
        let envelope = envelope(&mut fields).ok_or(truncated(FIXED_BYTES as u64))?;
        let total = envelope.total_bytes as usize;
        if !(ENVELOPE_BYTES + CHECKSUM_BYTES..=COPY_BYTES_MAX).contains(&total) {
            return Err(impossible("bytes", u64::from(envelope.total_bytes)));
        }
        let (covered, checksum) =
            bytes.split_at_checked(total - CHECKSUM_BYTES).ok_or(truncated(total as u64))?;
        let found = Fields::new(checksum).u32().ok_or(truncated(total as u64))?;
        let expected = crc32c(covered);
        if found != expected {
            return Err(SuperblockError::Checksum { expected, found });
        }
        if envelope.version != FORMAT_VERSION {
            let (found, supported) = (envelope.version, FORMAT_VERSION);
            return Err(SuperblockError::NewerVersion { found, supported });
        }
        let short = impossible("bytes", total as u64);
        let fixed = fixed(&mut fields, DeviceIndex(envelope.device)).ok_or(short)??;
        if total != total_bytes(fixed.devices, fixed.regions, fixed.shards) {
            return Err(short);
        }
        let superblock = lists(fixed, &mut fields).ok_or(short)??;
        superblock.check()?;
        Ok(superblock)
    }

    /// What holds in every superblock that this project writes; decoding refuses one where it does not.
    pub fn check(&self) -> Result<(), SuperblockError> {
        if usize::from(self.device.0) >= self.devices.len() {
            return Err(impossible("device", u64::from(self.device.0)));
        }
        if self.reach_bytes > u64::from(RING_BUFFERS_MAX) * BUFFER_BYTES_MAX {
            return Err(impossible("reach bytes", self.reach_bytes));
        }
        for (field, count) in [("sequence", self.sequence), ("term", self.term.0)] {
            if count > COUNTER_MAX {
                return Err(impossible(field, count));
            }
        }
        let mut extents: u64 = 0;
        for region in &self.regions {
            if u64::from(region.first_extent.0) != extents || region.extent_count == 0 {
                return Err(impossible("first extent of a region", u64::from(region.first_extent.0)));
            }
            extents += u64::from(region.extent_count);
            self.check_region(region)?;
        }
        if extents > (STORE_BYTES_MAX / self.geometry.extent_bytes()).min(u64::from(EXTENTS_MAX)) {
            return Err(impossible("extents", extents));
        }
        // Each shard owns an extent as soon as it was opened once.
        if self.shards.len() as u64 > extents {
            return Err(impossible("shards", self.shards.len() as u64));
        }
        self.check_overlaps()?;
        let slots = extents * self.geometry.slots_per_extent();
        for (index, shard) in self.shards.iter().enumerate() {
            self.check_cold(index, shard.state)?;
            // A tail may stand at the very end of the last extent.
            if let Some(tail) = shard.tail_slot.filter(|tail| tail.0 > slots) {
                return Err(impossible("tail slot", tail.0));
            }
            if shard.durable.0 > COUNTER_MAX {
                return Err(impossible("durable", shard.durable.0));
            }
        }
        Ok(())
    }

    fn check_region(&self, region: &RegionEntry) -> Result<(), SuperblockError> {
        let Some(device) = self.devices.get(usize::from(region.device.0)) else {
            return Err(impossible("device of a region", u64::from(region.device.0)));
        };
        let offset = region.device_offset;
        if offset < SUPERBLOCK_AREA_BYTES || !offset.is_multiple_of(self.geometry.slot_bytes()) {
            return Err(impossible("device offset of a region", offset));
        }
        // At most 2^32 extents of 2^34 bytes: no overflow here, only in the sum.
        let bytes = u64::from(region.extent_count)
            .checked_mul(self.geometry.extent_bytes())
            .and_then(|bytes| bytes.checked_add(offset));
        match bytes {
            Some(end) if end <= device.bytes => Ok(()),
            _ => Err(impossible("extents of a region", u64::from(region.extent_count))),
        }
    }

    /// A cold shard takes copies of one shard that is none itself, and no other does.
    fn check_cold(&self, index: usize, state: ShardState) -> Result<(), SuperblockError> {
        let Some(hot) = state.cold_of() else { return Ok(()) };
        let of_hot = self.shards.get(usize::from(hot.0)).map(|entry| entry.state);
        let is_first = self.shards.iter().position(|entry| entry.state == state) == Some(index);
        match of_hot {
            Some(ShardState::Active | ShardState::Retired) if is_first => Ok(()),
            _ => Err(impossible("shard of a cold shard", u64::from(hot.0))),
        }
    }

    fn check_overlaps(&self) -> Result<(), SuperblockError> {
        let mut regions: Vec<&RegionEntry> = self.regions.iter().collect();
        regions.sort_by_key(|region| (region.device, region.device_offset));
        for (before, after) in regions.iter().zip(regions.iter().skip(1)) {
            let end = before.device_offset + u64::from(before.extent_count) * self.geometry.extent_bytes();
            if before.device == after.device && after.device_offset < end {
                return Err(impossible("device offset of a region", after.device_offset));
            }
        }
        Ok(())
    }
}

const fn state_codes(state: ShardState) -> (u8, ShardId) {
    match state {
        ShardState::Active => (1, ShardId(0)),
        ShardState::Retired => (2, ShardId(0)),
        ShardState::Cold(hot) => (3, hot),
    }
}

fn log2(power_of_two: u64) -> u8 {
    u8::try_from(power_of_two.trailing_zeros()).unwrap_or(u8::MAX)
}

fn envelope(fields: &mut Fields<'_>) -> Option<Envelope> {
    fields.skip(MAGIC.len())?;
    Some(Envelope { version: fields.u16()?, device: fields.u16()?, total_bytes: fields.u32()? })
}

fn fixed(fields: &mut Fields<'_>, device: DeviceIndex) -> Option<Result<Fixed, SuperblockError>> {
    let store = StoreId(fields.bytes()?);
    let sequence = fields.u64()?;
    let term = Term(fields.u64()?);
    let features = Features {
        compatible: fields.u64()?,
        read_only_compatible: fields.u64()?,
        incompatible: fields.u64()?,
    };
    let (slot_log2, extent_log2) = (fields.u8()?, fields.u8()?);
    let clean = fields.u8()?;
    fields.skip(1)?;
    let counts = [fields.u32()?, fields.u32()?, fields.u32()?];
    let reach_bytes = fields.u64()?;
    let created_unix_ns = fields.u64()?;
    let written_unix_ns = fields.u64()?;
    fields.skip(16)?;
    // The features first: another layout behind an unknown one is no reason to call the store damaged.
    if let Some(bit) = first_unknown(features.incompatible, Features::KNOWN.incompatible) {
        return Some(Err(SuperblockError::UnknownFeature { bit }));
    }
    let bytes = |log2: u8| 1_u64.checked_shl(u32::from(log2)).unwrap_or(0);
    let geometry = match Geometry::new(bytes(slot_log2), bytes(extent_log2)) {
        Ok(geometry) => geometry,
        Err(error) => return Some(Err(SuperblockError::Geometry(error))),
    };
    let [devices, regions, shards] = counts;
    for (field, count, max) in
        [("devices", devices, DEVICES_MAX), ("regions", regions, REGIONS_MAX), ("shards", shards, SHARDS_MAX)]
    {
        if count == 0 || count > max {
            return Some(Err(impossible(field, u64::from(count))));
        }
    }
    if clean > 1 {
        return Some(Err(impossible("clean", u64::from(clean))));
    }
    let superblock = Superblock {
        store,
        sequence,
        term,
        features,
        geometry,
        clean: clean == 1,
        device,
        reach_bytes,
        created_unix_ns,
        written_unix_ns,
        devices: Vec::new(),
        regions: Vec::new(),
        shards: Vec::new(),
    };
    let [devices, regions, shards] = [devices as usize, regions as usize, shards as usize];
    Some(Ok(Fixed { superblock, devices, regions, shards }))
}

/// The counts were bounded and compared with the bytes at hand, so the lists are as long as the copy can hold.
fn lists(fixed: Fixed, fields: &mut Fields<'_>) -> Option<Result<Superblock, SuperblockError>> {
    let mut superblock = fixed.superblock;
    for _ in 0..fixed.devices {
        superblock.devices.push(DeviceEntry { uuid: fields.bytes()?, bytes: fields.u64()? });
    }
    for _ in 0..fixed.regions {
        let device = DeviceIndex(fields.u16()?);
        fields.skip(2)?;
        let first_extent = ExtentIndex(fields.u32()?);
        let extent_count = fields.u32()?;
        fields.skip(4)?;
        let device_offset = fields.u64()?;
        superblock.regions.push(RegionEntry { device, first_extent, extent_count, device_offset });
    }
    for _ in 0..fixed.shards {
        let code = fields.u8()?;
        fields.skip(1)?;
        let hot = ShardId(fields.u16()?);
        let state = match code {
            1 => ShardState::Active,
            2 => ShardState::Retired,
            3 => ShardState::Cold(hot),
            other => return Some(Err(impossible("state of a shard", u64::from(other)))),
        };
        let tail_link = fields.u32()?;
        let durable = FrameNumber(fields.u64()?);
        let tail_slot = Some(fields.u64()?).filter(|slot| *slot != 0).map(SlotIndex);
        superblock.shards.push(ShardEntry { state, durable, tail_slot, tail_link });
    }
    Some(Ok(superblock))
}
