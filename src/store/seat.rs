//! Cores on their way to their threads. A [`Seat`] is sent to the thread that will drive the core; [`Seat::start`]
//! builds the core there, since rings, memory and pinning belong to that thread.

use super::{
    close::Tails,
    core::Core,
    opening::Opened,
    warnings::{self, DeviceWarning},
};
use crate::{
    error::OpenError,
    options::{Backend, Options},
};
use corelog_shards::{
    core::{Callers, Core as Engine, CoreSetup},
    device::{
        Device, Grants,
        file::DeviceFile,
        threads::{ThreadsDevice, ThreadsOptions},
        uring::{UringDevice, UringOptions},
    },
    directory::{CoreHandle, Directory, Mail},
    format::superblock::{ShardState, Superblock},
    ids::{CoreId, ShardId},
    limits::SLOT_BYTES_MAX,
    memory::{BufferPool, Pages, Placement},
    open::{RingOptions, open_shard},
    shard::Shard,
    shard_owner::{ShardContext, ShardOwner},
};
use corelog_tuning::topology::CorePlace;
use std::{
    cell::Cell,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Bytes of a buffer for reads of one record; longer records take a large one.
const SMALL_READ_BYTES: usize = 2 * SLOT_BYTES_MAX as usize / 8;
/// Small read buffers of a core.
const SMALL_READS: usize = 256;
/// Bytes of a buffer for runs and long records.
const LARGE_READ_BYTES: usize = 1 << 20;
/// Large read buffers of a core.
const LARGE_READS: usize = 16;

/// What the host granted to one core.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CoreGrants {
    /// The core.
    pub core: u16,
    /// The CPU that its thread is pinned to; `None`: it runs wherever the host puts it.
    pub cpu: Option<u32>,
    /// The backend and its features.
    pub device: Grants,
    /// Pages of the flush buffers.
    pub pages: Pages,
    /// One line for each thing that was asked for and not granted.
    pub missing: Vec<String>,
}

/// A core that started.
struct Part {
    handle: Arc<CoreHandle>,
    shards: Vec<Arc<Shard>>,
    grants: CoreGrants,
}

/// Opens of stores in this process so far.
static OPENS: AtomicU64 = AtomicU64::new(0);

/// Where the cores of one open meet.
pub(crate) struct Assembly {
    /// Tells this open from all others of the process, also from those that are over: threads remember what they knew
    /// of a store beyond its end, so where it lies in memory does not do.
    key: u64,
    pub(super) opened: Opened,
    /// Emptied when the store is closed, so that the lock on them goes although handles of the store remain.
    devices: Mutex<Vec<Arc<DeviceFile>>>,
    /// As written last.
    current: Mutex<Current>,
    /// Held while the store grows.
    pub(super) growing: Mutex<()>,
    pub(super) options: Options,
    pub(super) warnings: Vec<DeviceWarning>,
    pub(super) cores: u32,
    parts: Mutex<Parts>,
    changed: Condvar,
    directory: OnceLock<Arc<Directory>>,
    pub(super) tails: Mutex<Tails>,
    pub(super) all_closed: Condvar,
}

/// The superblock as it was written last.
pub(super) struct Current {
    pub superblock: Superblock,
    /// The closing one was written: nobody may write another.
    pub is_closed: bool,
}

#[derive(Default)]
struct Parts {
    started: Vec<Part>,
    /// A core did not start; the others must not wait for it.
    has_failed: bool,
}

impl std::fmt::Debug for Assembly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Assembly").field("cores", &self.cores).finish_non_exhaustive()
    }
}

impl Assembly {
    pub(super) fn new(mut opened: Opened, options: Options, cores: u32) -> Arc<Self> {
        let warnings = warnings::of(&opened.devices);
        let devices = Mutex::new(std::mem::take(&mut opened.devices));
        let current = Mutex::new(Current { superblock: opened.superblock.clone(), is_closed: false });
        Arc::new(Self {
            // Relaxed: it orders nothing, it only has to differ. From 1: a thread that knows no store has 0.
            key: OPENS.fetch_add(1, Ordering::Relaxed) + 1,
            opened,
            devices,
            current,
            growing: Mutex::default(),
            options,
            warnings,
            cores,
            parts: Mutex::default(),
            changed: Condvar::new(),
            directory: OnceLock::new(),
            tails: Mutex::default(),
            all_closed: Condvar::new(),
        })
    }

    /// What tells this open of a store from all others in the process.
    #[inline]
    pub(super) const fn key(&self) -> u64 {
        self.key
    }

    /// The store's devices; none once it is closed.
    pub(super) fn devices(&self) -> Vec<Arc<DeviceFile>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn let_go_of_devices(&self) {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The superblock as it was written last; nobody writes another one meanwhile.
    pub(super) fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn superblock(&self) -> Superblock {
        self.current().superblock.clone()
    }

    pub(super) fn add_devices(&self, files: &[Arc<DeviceFile>]) {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(files);
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store's directory, once all cores have started.
    pub(super) fn directory(&self) -> Option<&Arc<Directory>> {
        self.directory.get()
    }

    /// Waits until all cores have started. `None`: one failed to.
    pub(super) fn wait(&self) -> Option<Arc<Directory>> {
        let mut parts = self.parts();
        loop {
            if let Some(directory) = self.directory.get() {
                return Some(Arc::clone(directory));
            }
            if parts.has_failed {
                return None;
            }
            parts = self.changed.wait(parts).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn grants(&self) -> Vec<CoreGrants> {
        let mut grants: Vec<_> = self.parts().started.iter().map(|part| part.grants.clone()).collect();
        grants.sort_by_key(|grants| grants.core);
        grants
    }

    pub(super) fn fail(&self) {
        self.parts().has_failed = true;
        self.changed.notify_all();
    }

    fn add(&self, part: Part) {
        let mut parts = self.parts();
        parts.started.push(part);
        if parts.started.len() == self.cores as usize {
            let _set_once = self.directory.set(Arc::new(self.assemble(&parts.started)));
        }
        drop(parts);
        self.changed.notify_all();
    }

    fn assemble(&self, started: &[Part]) -> Directory {
        let mut cores: Vec<_> = started.iter().map(|part| Arc::clone(&part.handle)).collect();
        cores.sort_by_key(|core| core.id());
        let mut shards: Vec<_> = started.iter().flat_map(|part| part.shards.iter().cloned()).collect();
        shards.sort_by_key(|shard| shard.id());
        let entries = &self.opened.superblock.shards;
        let retired = shards.iter().zip(entries).filter(|(_, entry)| entry.state == ShardState::Retired);
        retired.for_each(|(shard, _)| shard.retire());
        let runs_on = (0..shards.len()).map(|shard| self.core_of(ShardId(shard as u16))).collect();
        Directory {
            layout: Arc::clone(&self.opened.layout),
            extents: Arc::clone(&self.opened.extents),
            seed: self.opened.seed,
            shards,
            runs_on,
            cores,
            over: Arc::clone(&self.opened.over),
        }
    }

    fn core_of(&self, shard: ShardId) -> CoreId {
        // A cold shard runs beside the one that it belongs to; the others are dealt out by their place among themselves.
        let shards = &self.opened.superblock.shards;
        let hot = shards.get(usize::from(shard.0)).and_then(|entry| entry.state.cold_of()).unwrap_or(shard);
        let before = shards.iter().take(usize::from(hot.0)).filter(|entry| entry.state.cold_of().is_none());
        CoreId((before.count() as u32 % self.cores) as u16)
    }

    fn shards_of(&self, core: CoreId) -> impl Iterator<Item = ShardId> + '_ {
        let all = (0..self.opened.resumes.len()).map(|shard| ShardId(shard as u16));
        all.filter(move |shard| self.core_of(*shard) == core)
    }
}

/// The place of one core, to be started on the thread that will drive it.
///
/// A seat that is dropped without being started makes the open fail for all.
#[derive(Debug)]
#[must_use = "a store works when all of its seats have started"]
pub struct Seat {
    pub(super) assembly: Arc<Assembly>,
    pub(super) core: CoreId,
    pub(super) place: Option<CorePlace>,
    is_pinned: Cell<bool>,
    is_started: bool,
}

impl Seat {
    pub(super) const fn new(assembly: Arc<Assembly>, core: CoreId, place: Option<CorePlace>) -> Self {
        Self { assembly, core, place, is_pinned: Cell::new(false), is_started: false }
    }

    /// Which core this is.
    #[must_use]
    pub const fn core(&self) -> CoreId {
        self.core
    }

    /// The CPU that suits it best, as the host's topology says.
    #[must_use]
    pub fn cpu(&self) -> Option<u32> {
        self.place.map(|place| place.cpu.0)
    }

    /// Pins the calling thread to the seat's CPU. False: the host did not allow it.
    #[must_use]
    pub fn pin(&self) -> bool {
        let Some(cpu) = self.cpu() else { return false };
        let is_pinned = core_affinity::set_for_current(core_affinity::CoreId { id: cpu as usize });
        self.is_pinned.set(is_pinned);
        is_pinned
    }

    /// Builds the core on the calling thread, which drives it from now on. The store works once all seats have
    /// started; until then the core takes turns but gets no work.
    pub fn start(self) -> Result<Core, OpenError> {
        let Options { read_spin, sync_spin, .. } = self.assembly.options;
        let mut core = self.start_with(false)?;
        core.watch_reads(read_spin.unwrap_or_default());
        core.watch_syncs(sync_spin.unwrap_or_default(), Callers::Driver);
        Ok(core)
    }

    /// As [`Seat::start`], on a thread of ours: it leaves the CPU to those who wait for its reads.
    pub(super) fn start_hosted(self, callers: Callers) -> Result<Core, OpenError> {
        let sync_spin = self.assembly.options.sync_spin;
        let mut core = self.start_with(false)?;
        core.watch_syncs(sync_spin.unwrap_or_default(), callers);
        Ok(core)
    }

    /// As [`Seat::start`], for a core whose [`Core::fd`] the caller polls. It costs the ring its deferred
    /// completions, which tell a sleeping `poll(2)` nothing.
    pub fn start_pollable(self) -> Result<Core, OpenError> {
        self.start_with(true)
    }

    fn start_with(mut self, pollable: bool) -> Result<Core, OpenError> {
        let (engine, grants) = self.build(pollable)?;
        self.is_started = true;
        let part = Part {
            handle: Arc::clone(engine.handle()),
            shards: engine.shards().iter().map(|owner| Arc::clone(owner.shared())).collect(),
            grants,
        };
        let core = Core::new(engine, Arc::clone(&self.assembly));
        self.assembly.add(part);
        Ok(core)
    }

    fn build(&self, pollable: bool) -> Result<(Engine, CoreGrants), OpenError> {
        let assembly = &*self.assembly;
        let (mut device, mut missing) = self.device(pollable)?;
        let headers = BufferPool::new(assembly.opened.superblock.geometry.slot_bytes() as usize, HEADERS)?;
        let mut shards: Vec<ShardOwner> = Vec::new();
        for shard in assembly.shards_of(self.core) {
            let position = shards.len() as u16;
            shards.push(self.shard(&mut *device, shard, position, Arc::clone(&headers))?);
        }
        let (handle, mailbox) = self.mailbox(&*device);
        let pages = shards.first().map_or(Pages::Normal, |owner| owner.shared().ring().memory().pages());
        missing.extend(self.missing_memory(&shards, pages));
        let engine = Engine::new(CoreSetup {
            device,
            handle,
            mailbox,
            shards,
            small_reads: BufferPool::new(SMALL_READ_BYTES, SMALL_READS)?,
            large_reads: BufferPool::new(LARGE_READ_BYTES, LARGE_READS)?,
        });
        let grants = CoreGrants {
            core: self.core.0,
            cpu: self.cpu().filter(|_| self.is_pinned.get()),
            device: engine.device().grants().clone(),
            pages,
            missing,
        };
        Ok((engine, grants))
    }

    fn mailbox(&self, device: &dyn Device) -> (Arc<CoreHandle>, crossbeam_channel::Receiver<Mail>) {
        let options = &self.assembly.options;
        CoreHandle::with_cache(self.core, device.bell(), options.mailbox as usize, options.cache_bytes)
    }

    fn shard(
        &self,
        device: &mut dyn Device,
        shard: ShardId,
        position: u16,
        headers: Arc<BufferPool>,
    ) -> Result<ShardOwner, OpenError> {
        let Assembly { opened, options, .. } = &*self.assembly;
        let context = ShardContext {
            store: opened.superblock.store,
            term: opened.superblock.term,
            layout: Arc::clone(&opened.layout),
            extents: Arc::clone(&opened.extents),
            near: opened.near.clone(),
            over: Arc::clone(&opened.over),
            sync_failures: Arc::clone(&opened.sync_failures),
            headers,
            shard_count: opened.resumes.len() as u32,
            order: options.order,
            sync: options.sync,
            checkpoint_bytes: options.checkpoint_bytes,
            quiet: options.quiet,
            discard: options.discard,
            cleaning: Arc::clone(&opened.cleaning),
            cold_of: opened.superblock.shards[usize::from(shard.0)].state.cold_of(),
            to_cold: options.cold_shards,
            linger: options.linger,
        };
        let node = self.place.and_then(|place| place.node).map(|node| node.0);
        let ring = RingOptions {
            buffer_bytes: options.buffer_bytes_in(&opened.superblock.geometry),
            buffers: options.buffers,
            placement: Placement { huge: options.huge_pages, node },
        };
        let resume = opened.resumes[usize::from(shard.0)].clone();
        Ok(open_shard(device, context, opened.seed, ring, position, resume)?)
    }

    fn device(&self, pollable: bool) -> Result<(Box<dyn Device>, Vec<String>), OpenError> {
        let Assembly { options, .. } = &*self.assembly;
        let devices = self.assembly.devices();
        let pool = || -> Result<Box<dyn Device>, OpenError> {
            let how = ThreadsOptions { depth: options.io_depth, ..ThreadsOptions::default() };
            Ok(Box::new(ThreadsDevice::new(devices.clone(), how)?))
        };
        if options.backend == Backend::Threads {
            return Ok((pool()?, Vec::new()));
        }
        let how = UringOptions { depth: options.io_depth, pollable, ..UringOptions::default() };
        match UringDevice::new(devices.clone(), how) {
            Ok(ring) => Ok((Box::new(ring), Vec::new())),
            Err(unavailable) if options.backend == Backend::Auto => {
                tracing::warn!(%unavailable, "the thread pool serves instead");
                Ok((pool()?, vec![format!("io_uring: {unavailable}; a pool of threads serves instead")]))
            }
            Err(unavailable) => Err(OpenError::RingUnavailable { unavailable }),
        }
    }

    fn missing_memory(&self, shards: &[ShardOwner], pages: Pages) -> Vec<String> {
        let mut missing = Vec::new();
        if self.assembly.options.huge_pages && pages == Pages::Normal {
            missing.push(
                "huge pages: the kernel gives none for the flush buffers; raise vm.nr_hugepages".to_owned(),
            );
        }
        let refused = shards.iter().find_map(|owner| owner.shared().ring().memory().node_refused());
        if let Some(errno) = refused {
            missing.push(format!("memory of the core's own node: {errno}"));
        }
        missing
    }
}

/// Buffers for extent headers of a core: each shard writes one at a time.
const HEADERS: usize = 64;

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.is_started {
            self.assembly.fail();
        }
    }
}
