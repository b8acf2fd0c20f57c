//! From disks to running cores, by the code that opens real stores.

use super::{
    check::{HOW, View, compare, superblock_of},
    cleaning,
    device::{Alarm, Disks, SharedWorld, SimDevice, lock},
    disk::Crash,
    faults::Fault,
    oracle::Oracle,
    random::Random,
    world::Stopped,
};
use crate::{
    cleaning::{Cleaning, CleaningOptions},
    core::{Callers, Core, CoreSetup},
    device::Device,
    directory::{CoreHandle, Directory},
    failure::SyncFailures,
    format::{
        checksum::StoreSeed,
        superblock::{ShardState, Superblock},
    },
    ids::{CoreId, DeviceIndex, FrameNumber, ShardId},
    limits::{BUFFER_BYTES_MIN, CHECKPOINT_BYTES_MIN, IO_DEPTH_MIN, RING_BUFFERS_MIN},
    memory::{BufferPool, Placement},
    nearness::Nearness,
    open::{OpenShardError, RingOptions, open_shard},
    opening::{HowToOpen, PrepareError, Prepared, prepare},
    recovery::RecoveryError,
    requests::Requests,
    ring::reservation::Placed,
    shard::ShardRefusal,
    shard_owner::{FrameOrder, ShardContext, ShardOwner, SyncMethod},
};
use std::{sync::Arc, time::Duration};

/// Any but zero.
const WATCH: Duration = Duration::from_micros(100);

/// How a life is opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    cores: u32,
    pub buffer_bytes: u64,
    buffers: u32,
    pub order: FrameOrder,
    sync: SyncMethod,
    linger: Option<Duration>,
    checkpoint_bytes: u64,
    quiet: Option<Duration>,
    discard: bool,
    /// In a case with cleaning; in a life without it, what is under way has to be kept.
    cleans: bool,
    /// Cold shards are made, in a store of that size, and copies go there.
    cold_from: Option<u32>,
    cleaning: CleaningOptions,
    depth: usize,
    mailbox: usize,
    cache_bytes: u64,
    /// Cores leave frames open for those whom they told.
    pub gathers: bool,
}

impl Options {
    pub(super) fn draw(random: &mut Random) -> Self {
        // Apart, so that cases without cleaning are what they were before there was any.
        let mut apart = random.clone().fork();
        Self {
            cleans: !apart.one_in(5),
            cleaning: cleaning::draw(&mut apart),
            cold_from: apart.one_in(2).then(|| apart.pick(&[2, 4])),
            cores: random.pick(&[1, 1, 2, 2, 3]),
            buffer_bytes: BUFFER_BYTES_MIN << random.pick(&[0, 0, 0, 1]),
            buffers: RING_BUFFERS_MIN << random.pick(&[0, 0, 0, 1]),
            order: random.pick(&[
                FrameOrder::TailLocalised,
                FrameOrder::TailLocalised,
                FrameOrder::Serialised,
            ]),
            sync: random.pick(&[SyncMethod::Auto, SyncMethod::Fdatasync, SyncMethod::Dsync]),
            linger: random.pick(&[None, None, Some(Duration::from_micros(200))]),
            checkpoint_bytes: CHECKPOINT_BYTES_MIN << random.pick(&[0, 1, 3, 6]),
            quiet: random.pick(&[None, Some(Duration::from_micros(100)), Some(Duration::from_millis(3))]),
            discard: random.one_in(3),
            depth: random.pick(&[2, IO_DEPTH_MIN as usize, 64]),
            mailbox: random.pick(&[2, 64]),
            cache_bytes: apart.pick(&[0, 16 << 10, 256 << 10]),
            gathers: apart.one_in(2),
        }
    }
}

impl Options {
    /// Every other core is near to one device, where there are several.
    fn near(&self, superblock: &Superblock) -> Nearness {
        let devices = superblock.devices.len() as u16;
        let of = |core: u32| match core % 2 {
            0 => vec![DeviceIndex((core as u16 + 1) % devices)],
            _ => Vec::new(),
        };
        Nearness::by_core((0..self.cores).map(of).collect())
    }
}

/// A core and whether it sleeps.
pub(super) struct SimCore {
    pub core: Core,
    pub alarm: Arc<Alarm>,
    pub sleeps: bool,
    /// Its last turn found nothing to do: it looks once more, and sleeps.
    pub is_idle: bool,
    /// Of its own timer, in nanoseconds.
    pub wakes_at: Option<u64>,
}

/// Appends as the thread that drives the core of a shard does; its next turn comes before any sleep. `None`: the core is
/// gone.
pub(super) fn append_by_owner(
    cores: &mut [Option<SimCore>],
    shard: ShardId,
    payload: &[u8],
) -> Option<Result<Placed, ShardRefusal>> {
    cores.iter_mut().flatten().find_map(|owner| {
        let appended = owner.core.append_here(shard, payload)?;
        (owner.sleeps, owner.is_idle, owner.wakes_at) = (false, false, None);
        Some(appended)
    })
}

/// A store with its cores.
pub(super) struct Opened {
    pub cores: Vec<Option<SimCore>>,
    pub directory: Arc<Directory>,
    pub requests: Arc<Requests>,
    pub superblock: Superblock,
    pub sync_failures: Arc<SyncFailures>,
}

/// Why there are no cores.
pub(super) enum Closed {
    /// The crash came first.
    Crashed,
    /// The device failed; another try may do better.
    Failed,
    /// Recovery named damage.
    Named,
}

/// Opens the store on the disks of the world. `Err(Err(_))` is a violation.
pub(super) fn open(
    world: &SharedWorld,
    oracle: &mut Oracle,
    options: &Options,
) -> Result<Opened, Result<Closed, String>> {
    let (before, unix_ns) = {
        let world = lock(world);
        (superblock_of(&world.seen()), world.now_ns)
    };
    let before = before.map_err(|_| Ok(Closed::Named))?;
    let how = HowToOpen {
        shards_min: options.cores,
        cold_from: options.cold_from.filter(|_| oracle.index.is_some()),
        buffer_bytes: options.buffer_bytes,
        reach_bytes: options.buffer_bytes * u64::from(options.buffers),
        unix_ns,
        recovery: HOW,
        near: options.near(&before),
    };
    let prepared = prepare(&Disks(world), before.clone(), how).map_err(|error| explain(world, error))?;
    let seen = lock(world).seen();
    compare(oracle, &seen, &before, &prepared.report, Crash::Power).map_err(Err)?;
    for shard in 0..prepared.superblock.shards.len() {
        let next = prepared.report.shards.get(shard).map_or(FrameNumber(0), |found| found.next_frame);
        oracle.resume(ShardId(shard as u16), next);
        let space = prepared.report.shards.get(shard).map(|found| found.space.clone()).unwrap_or_default();
        oracle.shards[shard].space.resume(&space);
    }
    oracle.resume_overs(&prepared.report);
    oracle.resume_drains(&prepared.superblock);
    oracle.superblock_sequence = prepared.superblock.sequence;
    oracle.rebuild_index(&View { disks: &seen, superblock: &before }, &prepared.report);
    let cleaning = Arc::new(Cleaning::new(options.cleaning));
    if let Some(index) = oracle.index.clone().filter(|_| options.cleans) {
        cleaning.turn_on(index);
    }
    build(world, prepared, options, &cleaning)
}

fn explain(world: &SharedWorld, error: PrepareError<Stopped>) -> Result<Closed, String> {
    let world = lock(world);
    match error {
        PrepareError::Device(Stopped::Crashed) => Ok(Closed::Crashed),
        PrepareError::Device(Stopped::Failed(_)) => Ok(Closed::Failed),
        PrepareError::Recovery(RecoveryError::Unreadable { .. }) if world.faults.has(Fault::ReadError) => {
            Ok(Closed::Failed)
        }
        PrepareError::Recovery(_) if world.lies > 0 => Ok(Closed::Named),
        error => Err(format!("I5: the same disks were recovered a moment ago: {error}")),
    }
}

fn build(
    world: &SharedWorld,
    prepared: Prepared,
    options: &Options,
    cleaning: &Arc<Cleaning>,
) -> Result<Opened, Result<Closed, String>> {
    lock(world).is_serialised = options.order == FrameOrder::Serialised;
    lock(world).ready = (0..options.cores).map(|_| Vec::new()).collect();
    let mut parts = Vec::new();
    for core in 0..options.cores {
        parts.push(start(world, &prepared, options, cleaning, core).map_err(|error| {
            let world = lock(world);
            match error {
                OpenShardError::Broken(_) if world.is_crashed => Ok(Closed::Crashed),
                OpenShardError::Io { .. } => Ok(Closed::Failed),
                error => Err(format!("a core did not start: {error}")),
            }
        })?);
    }
    let mut shards: Vec<_> =
        parts.iter().flat_map(|part| part.core.shards().iter().map(|it| Arc::clone(it.shared()))).collect();
    shards.sort_by_key(|shard| shard.id());
    let entries = shards.iter().zip(&prepared.superblock.shards);
    entries.filter(|(_, it)| it.state == ShardState::Retired).for_each(|(shard, _)| shard.retire());
    let directory = Arc::new(Directory {
        layout: Arc::clone(&prepared.layout),
        extents: Arc::clone(&prepared.extents),
        seed: StoreSeed::new(prepared.superblock.store),
        runs_on: (0..shards.len()).map(|shard| core_of(&prepared.superblock, shard, options.cores)).collect(),
        shards,
        cores: parts.iter().map(|part| Arc::clone(part.core.handle())).collect(),
        over: Arc::clone(&prepared.over),
    });
    for part in &mut parts {
        part.core.join(Arc::clone(&directory));
    }
    let cores = parts.into_iter().map(Some).collect();
    let Prepared { superblock, sync_failures, .. } = prepared;
    Ok(Opened { cores, directory, requests: Arc::default(), superblock, sync_failures })
}

/// A cold shard is run beside the one that it belongs to.
fn core_of(superblock: &Superblock, shard: usize, cores: u32) -> CoreId {
    let hot = superblock.shards[shard].state.cold_of().map_or(shard, |hot| usize::from(hot.0));
    CoreId((hot as u32 % cores) as u16)
}

fn start(
    world: &SharedWorld,
    prepared: &Prepared,
    options: &Options,
    cleaning: &Arc<Cleaning>,
    core: u32,
) -> Result<SimCore, OpenShardError> {
    let alarm = Arc::new(Alarm::default());
    let mut device = SimDevice::new(world, core as usize, options.depth, &alarm);
    let superblock = &prepared.superblock;
    let slot_bytes = superblock.geometry.slot_bytes() as usize;
    let context = ShardContext {
        store: superblock.store,
        term: superblock.term,
        layout: Arc::clone(&prepared.layout),
        extents: Arc::clone(&prepared.extents),
        near: options.near(superblock),
        over: Arc::clone(&prepared.over),
        sync_failures: Arc::clone(&prepared.sync_failures),
        headers: BufferPool::new(slot_bytes, 4)?,
        shard_count: superblock.shards.len() as u32,
        order: options.order,
        sync: options.sync,
        checkpoint_bytes: options.checkpoint_bytes,
        quiet: options.quiet,
        discard: options.discard,
        cleaning: Arc::clone(cleaning),
        cold_of: None,
        to_cold: options.cold_from.is_some(),
        linger: options.linger,
    };
    let ring = RingOptions {
        buffer_bytes: options.buffer_bytes,
        buffers: options.buffers,
        placement: Placement::default(),
    };
    let seed = StoreSeed::new(superblock.store);
    let mut shards: Vec<ShardOwner> = Vec::new();
    for (shard, resume) in prepared.resumes.iter().enumerate() {
        if core_of(superblock, shard, options.cores) != CoreId(core as u16) {
            continue;
        }
        let position = shards.len() as u16;
        let context = ShardContext { cold_of: superblock.shards[shard].state.cold_of(), ..context.clone() };
        shards.push(open_shard(&mut device, context, seed, ring, position, resume.clone())?);
    }
    let id = CoreId(core as u16);
    let (handle, mailbox) = CoreHandle::with_cache(id, device.bell(), options.mailbox, options.cache_bytes);
    let mut core = Core::new(CoreSetup {
        device: Box::new(device),
        handle,
        mailbox,
        shards,
        small_reads: BufferPool::new(2 * slot_bytes, 2)?,
        large_reads: BufferPool::new(4 * slot_bytes, 1)?,
    });
    if options.gathers {
        // It never sleeps by a call of its own here, so that it watches nothing.
        core.watch_syncs(WATCH, Callers::Beside);
    }
    Ok(SimCore { core, alarm, sleeps: false, is_idle: false, wakes_at: None })
}
