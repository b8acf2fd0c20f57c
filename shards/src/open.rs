//! Bringing a shard to life on the core that will run it: memory, first extent, ring.

use crate::{
    device::{Completion, Device, DeviceBroken, Errno, Operation, Token, WriteSync},
    extents::{Claim, ExtentTable},
    format::{
        checksum::StoreSeed,
        extent_header::{ExtentHeader, ExtentState},
    },
    geometry::Geometry,
    ids::{DeviceIndex, ExtentIndex, ExtentOrdinal, FrameNumber, ShardId, SlotIndex},
    layout::Layout,
    memory::{MemoryError, Placement, PooledBuffer, Region},
    mutant::{self, Mutant},
    nearness::Nearness,
    ring::{RingSetup, owner::RingOwner},
    shard::ShardExtent,
    shard_owner::{ShardContext, ShardOwner, ShardStart, SpaceStart},
    token::{LocalShard, Purpose},
};
use std::sync::Arc;

/// Why a shard could not be opened. Nothing of it was changed but, at most, the header of an extent that it claimed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenShardError {
    /// No memory for its buffers.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Its first extent header could not be written.
    #[error("writing the extent header of {extent:?} for {shard:?} ({device:?}) failed: {errno}")]
    Io {
        /// The shard.
        shard: ShardId,
        /// The extent.
        extent: ExtentIndex,
        /// The device of the store.
        device: DeviceIndex,
        /// Why.
        errno: Errno,
    },
    /// The core's queue broke.
    #[error(transparent)]
    Broken(#[from] DeviceBroken),
}

/// Where a shard's log ends, as recovery found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardResume {
    /// The shard.
    pub shard: ShardId,
    /// The first frame of this open.
    pub next_frame: FrameNumber,
    /// Where it goes; `None`: into the extent behind the used ones.
    pub next_slot: Option<SlotIndex>,
    /// Checksum of the last frame header; 0 if there is none.
    pub link: u32,
    /// The shard's extents in order. What was freed leaves gaps in their ordinals, before the checkpoint.
    pub extents: Vec<ShardExtent>,
    /// How many of them hold frames.
    pub used_extents: usize,
    /// The extent that it goes on in where those have no room, set aside for it in the table: its header is written
    /// when the shard is opened.
    pub claim: Option<Claim>,
    /// What is known of its space.
    pub space: SpaceStart,
}

impl ShardResume {
    /// A shard that never existed.
    #[must_use]
    pub fn fresh(shard: ShardId) -> Self {
        Self {
            shard,
            next_frame: FrameNumber(0),
            next_slot: None,
            link: 0,
            extents: Vec::new(),
            used_extents: 0,
            claim: None,
            space: SpaceStart::default(),
        }
    }

    /// Where the first frame goes without claiming anything: behind the last one, if a whole buffer fits there, or
    /// into an extent that was claimed and not used.
    pub(crate) fn first_slot(&self, geometry: &Geometry, buffer_bytes: u64) -> Option<SlotIndex> {
        if mutant::is_active(Mutant::ReopenAtStart) {
            return self.extents.first().map(|first| geometry.first_frame_slot(first.extent));
        }
        let fits = |slot: &SlotIndex| geometry.slots_left(*slot) * geometry.slot_bytes() >= buffer_bytes;
        let unused = self.extents.get(self.used_extents);
        self.next_slot.filter(fits).or_else(|| unused.map(|unused| geometry.first_frame_slot(unused.extent)))
    }

    /// Claims the extent that the shard goes on in. `None`: no extent is free.
    pub(crate) fn claim(
        &self,
        near: &Nearness,
        layout: &Layout,
        extents: &ExtentTable,
        shards: u32,
    ) -> Option<Claim> {
        let home = near.home(self.shard, shards, layout, extents);
        near.claim(self.shard, self.next_ordinal(), home, layout, extents)
    }

    fn next_ordinal(&self) -> ExtentOrdinal {
        ExtentOrdinal(self.extents.last().map_or(0, |last| last.ordinal.0 + 1))
    }
}

/// Size and place of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingOptions {
    /// Bytes of one buffer; a multiple of the slot.
    pub buffer_bytes: u64,
    /// Buffers; a power of two.
    pub buffers: u32,
    /// Pages and node.
    pub placement: Placement,
}

/// Opens a shard. `position` is its place in the list of the core that runs it. A shard for which there is no room is
/// parked: it takes appends once an extent is free.
pub fn open_shard(
    device: &mut dyn Device,
    context: ShardContext,
    seed: StoreSeed,
    ring: RingOptions,
    position: u16,
    mut resume: ShardResume,
) -> Result<ShardOwner, OpenShardError> {
    let memory = Region::new(ring.buffer_bytes as usize * ring.buffers as usize, ring.placement)?;
    let first = match resume.first_slot(context.layout.geometry(), ring.buffer_bytes) {
        Some(slot) => Some((slot, false)),
        None => claim_first(device, &context, &mut resume)?,
    };
    let first_slot = first.map(|(slot, _)| slot);
    let extent = first_slot.map(|slot| context.layout.geometry().extent_of(slot));
    let current = resume.extents.iter().find(|other| Some(other.extent) == extent);
    let current = current.or(resume.extents.last());
    let ordinal = current.map_or(ExtentOrdinal(0), |current| current.ordinal);
    let owner = RingOwner::new(RingSetup {
        extents: Arc::clone(&context.extents),
        seed,
        memory,
        buffer_bytes: ring.buffer_bytes,
        buffers: ring.buffers,
        bell: device.bell(),
        lingers: context.linger.is_some(),
        first_frame: resume.next_frame,
        first_slot,
    });
    let start = ShardStart {
        shard: resume.shard,
        first_frame: resume.next_frame,
        first_slot,
        tail_slot: resume.next_slot,
        ordinal,
        link: resume.link,
        extents: resume.extents,
        is_reserve: first.is_some_and(|(_, is_reserve)| is_reserve),
        space: resume.space,
    };
    Ok(ShardOwner::new(context, LocalShard(position), owner, start))
}

/// The first slot of an extent that is claimed here, and whether it was one of the reserve. `None`: no extent is free.
fn claim_first(
    device: &mut dyn Device,
    context: &ShardContext,
    resume: &mut ShardResume,
) -> Result<Option<(SlotIndex, bool)>, OpenShardError> {
    let ordinal = resume.next_ordinal();
    let ShardContext { near, layout, extents, shard_count, .. } = context;
    let claim = resume.claim.take().or_else(|| resume.claim(near, layout, extents, *shard_count));
    let Some(claim) = claim else { return Ok(None) };
    // Set aside when the store was opened, or claimed now; either way the last that there was for appends is gone.
    let is_reserve = context.extents.free_count() < context.extents.reserve();
    let header = claimed_header(context, resume.shard, claim, ordinal, resume.next_frame);
    write_header(device, context, resume.shard, &header)?;
    resume.extents.push(ShardExtent { ordinal, extent: claim.extent });
    Ok(Some((context.layout.geometry().first_frame_slot(claim.extent), is_reserve)))
}

pub(crate) fn claimed_header(
    context: &ShardContext,
    shard: ShardId,
    claim: Claim,
    ordinal: ExtentOrdinal,
    frame_floor: FrameNumber,
) -> ExtentHeader {
    ExtentHeader {
        store: context.store,
        extent: claim.extent,
        generation: claim.generation,
        owner: shard,
        state: ExtentState::Claimed,
        ordinal,
        term: context.term,
        frame_floor,
    }
}

/// Writes an extent header and waits for it, on stable media: a shard that opens has no later sync to rely on.
fn write_header(
    device: &mut dyn Device,
    context: &ShardContext,
    shard: ShardId,
    header: &ExtentHeader,
) -> Result<(), OpenShardError> {
    let geometry = context.layout.geometry();
    let slot = geometry.header_slot(header.extent);
    let Some(place) = context.layout.place(slot) else {
        unreachable!("{slot:?} came from a claimed extent of this layout");
    };
    let mut buffer = PooledBuffer::alone(geometry.slot_bytes() as usize)?;
    header.encode_slot(geometry, buffer.as_mut_slice());
    let expected = buffer.len() as u64;
    let bytes = buffer.into();
    let write = Operation::Write { device: place.device, offset: place.offset, bytes, sync: WriteSync::None };
    let sync = Operation::Sync { device: place.device };
    for (operation, expected) in [(write, expected), (sync, 0)] {
        let io = |errno| OpenShardError::Io { shard, extent: header.extent, device: place.device, errno };
        match run(device, operation)?.result {
            Ok(bytes) if bytes == expected => {}
            Ok(_) => return Err(io(Errno(libc::EIO))),
            Err(errno) => return Err(io(errno)),
        }
    }
    Ok(())
}

/// Submits one operation to an otherwise idle device and waits for its end.
fn run(device: &mut dyn Device, operation: Operation) -> Result<Completion, DeviceBroken> {
    let token: Token = Purpose::Sync.into();
    let mut completions = Vec::new();
    let idle = "submitting to an idle queue";
    device.submit(token, operation).map_err(|_| DeviceBroken { during: idle, errno: Errno(libc::EAGAIN) })?;
    loop {
        device.poll(&mut completions)?;
        if let Some(completion) = completions.pop() {
            return Ok(completion);
        }
        device.wait(None, &mut completions)?;
        if let Some(completion) = completions.pop() {
            return Ok(completion);
        }
    }
}
