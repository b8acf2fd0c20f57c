//! A core whose device stores nothing: what the engine costs by itself. For benches.

use crate::{
    core::{Core, CoreSetup},
    device::{
        Device, Errno,
        null::{NullDevice, NullOptions},
    },
    directory::{CoreHandle, Directory},
    extents::ExtentTable,
    format::checksum::StoreSeed,
    geometry::{Geometry, GeometryError},
    ids::{CoreId, DeviceIndex, ExtentIndex, ShardId, StoreId, Term},
    layout::{Layout, RegionRun},
    limits::{
        EXTENT_BYTES_MAX, MAILBOX_MESSAGES_DEFAULT, SLOT_BYTES_DEFAULT, STORE_BYTES_MAX,
        SUPERBLOCK_AREA_BYTES,
    },
    memory::{BufferPool, MemoryError},
    nearness::Nearness,
    open::{OpenShardError, RingOptions, ShardResume, open_shard},
    over::OverTable,
    shard::Shard,
    shard_owner::{FrameOrder, ShardContext, SyncMethod},
};
use std::sync::Arc;

/// Buffers for extent headers, and for reads that nobody makes.
const BUFFERS: usize = 4;

/// Why there is no core.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NullCoreError {
    /// The host refused the descriptor of the device's bell.
    #[error("a null device cannot be made: {0}")]
    Device(Errno),
    /// The device that is to be stood in for cannot be described.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// No memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The shard did not open.
    #[error(transparent)]
    Shard(#[from] OpenShardError),
}

/// A core that runs one shard on a null device as large as a store can be: at full speed its log ends after hours. It reads
/// what its ring still holds; anything else reads as zeros.
pub fn null_core(options: NullOptions, ring: RingOptions) -> Result<(Core, Arc<Shard>), NullCoreError> {
    let geometry = Geometry::new(SLOT_BYTES_DEFAULT, EXTENT_BYTES_MAX)?;
    let extents = (STORE_BYTES_MAX / EXTENT_BYTES_MAX - 1) as u32;
    let run = RegionRun {
        device: DeviceIndex(0),
        first_extent: ExtentIndex(0),
        extents,
        device_offset: SUPERBLOCK_AREA_BYTES,
    };
    let store = StoreId([7; 16]);
    let layout = Arc::new(Layout::new(geometry, vec![run]));
    let extents = Arc::new(ExtentTable::new(geometry, extents));
    let over = Arc::new(OverTable::new(Term(1), [], 0));
    let context = ShardContext {
        store,
        term: Term(1),
        layout: Arc::clone(&layout),
        extents: Arc::clone(&extents),
        near: Nearness::default(),
        over: Arc::clone(&over),
        headers: BufferPool::new(SLOT_BYTES_DEFAULT as usize, BUFFERS)?,
        shard_count: 1,
        order: FrameOrder::default(),
        sync: SyncMethod::default(),
        sync_failures: Arc::default(),
        checkpoint_bytes: crate::limits::CHECKPOINT_BYTES_DEFAULT,
        quiet: None,
        discard: false,
        cleaning: Arc::default(),
        cold_of: None,
        to_cold: false,
        linger: None,
    };
    let mut device: Box<dyn Device> = Box::new(NullDevice::new(options).map_err(NullCoreError::Device)?);
    let seed = StoreSeed::new(store);
    let owner = open_shard(&mut *device, context, seed, ring, 0, ShardResume::fresh(ShardId(0)))?;
    let shard = Arc::clone(owner.shared());
    let (handle, mailbox) = CoreHandle::new(CoreId(0), device.bell(), MAILBOX_MESSAGES_DEFAULT as usize);
    let reads = BufferPool::new(SLOT_BYTES_DEFAULT as usize, BUFFERS)?;
    let directory = Directory {
        layout,
        extents,
        seed,
        shards: vec![Arc::clone(&shard)],
        runs_on: vec![CoreId(0)],
        cores: vec![Arc::clone(&handle)],
        over,
    };
    let mut core = Core::new(CoreSetup {
        device,
        handle,
        mailbox,
        shards: vec![owner],
        small_reads: Arc::clone(&reads),
        large_reads: reads,
    });
    core.join(Arc::new(directory));
    Ok((core, shard))
}
