//! The store: what a user opens, appends to, reads from and closes.

mod append;
mod batch;
pub(crate) mod block;
mod close;
mod core;
mod drain;
mod format;
mod grow;
mod hosting;
mod in_place;
mod large;
mod local;
mod near;
pub(crate) mod opening;
mod over;
mod restore;
mod retire;
mod routed;
mod seat;
pub(crate) mod superblocks;
mod warnings;

pub use self::core::Core;
pub use batch::{Batch, BatchTicket};
pub use corelog_shards::waiting::Room;
pub use drain::Drained;
pub use format::{Formatted, format};
pub use grow::{GrowBy, Grown};
pub use in_place::Reservation;
pub use large::LargeWriter;
pub use over::{OverBatch, OverTicket};
pub use seat::{CoreGrants, Seat};
pub use warnings::DeviceWarning;

use crate::{
    error::{CloseError, OpenError, WaitError},
    options::Options,
    router::Route,
    ticket::{Reached, Ticket, TicketId},
};
use corelog_shards::{
    cleaning::Cleaning,
    directory::Directory,
    failure::ShardFailure,
    ids::{CoreId, FrameNumber, ShardId, StoreId, Term},
    limits::CORES_MAX,
    opening::AddedShards,
    recovery::RecoveryReport,
    requests::Requests,
    shard::Shard,
    watermark::{Durability, Patience, Watermarks},
};
use corelog_tuning::topology::{CorePlace, Topology};
use seat::Assembly;
use std::{
    num::NonZeroU32,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

/// An open store. Clones are handles to the same store; it is closed by [`Store::close`], or when the last handle of
/// a hosted store is dropped.
///
/// Any thread may use it. Appends copy into the ring of one shard and return at once with a [`Ticket`]; nothing is
/// durable before [`Ticket::wait`], or one of its kin, said so.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    assembly: Arc<Assembly>,
    directory: Arc<Directory>,
    requests: Arc<Requests>,
    /// The shards that each core runs; [`Route::Local`] picks the first.
    local_shards: Vec<Vec<ShardId>>,
    /// The core whose CPU is this one, by CPU number.
    core_of_cpu: Vec<CoreId>,
    turn: AtomicU32,
    /// Shards that appends may be routed to.
    takers: u32,
    /// Some shard is retired, or the takers are not the first ones.
    has_retired: AtomicBool,
    hosting: hosting::Hosting,
    /// How long those who block on a watermark watch it before they sleep.
    wait_spin: OnceLock<Duration>,
}

impl Store {
    /// Makes a store; see [`format()`].
    pub fn format<P: AsRef<Path>>(
        paths: &[P],
        options: &crate::FormatOptions,
    ) -> Result<Formatted, crate::FormatError> {
        format(paths, options, &mut |_, _| {})
    }

    /// Opens a store on one device and starts its cores' threads: recovers, raises the term, pins one thread per
    /// core.
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Self, OpenError> {
        Self::open_all(&[path], options)
    }

    /// Opens a store on all of its devices, given in any order.
    pub fn open_all<P: AsRef<Path>>(paths: &[P], options: &Options) -> Result<Self, OpenError> {
        let seats = Opening::new(paths, options)?;
        hosting::host(seats)
    }

    /// Opens a store whose cores the caller drives: each [`Seat`] goes to the thread that will drive its core, and
    /// [`Opening::store`] gives the store once they have all started.
    pub fn open_owned<P: AsRef<Path>>(paths: &[P], options: &Options) -> Result<Opening, OpenError> {
        Opening::new(paths, options)
    }

    fn assembled(assembly: Arc<Assembly>, directory: Arc<Directory>, places: &[CorePlace]) -> Self {
        let cores = directory.cores.len();
        let mut local_shards = vec![Vec::new(); cores];
        let takers = || directory.shards.iter().filter(|shard| shard.cold_of().is_none()).map(|it| it.id());
        for shard in takers() {
            local_shards[usize::from(directory.runs_on[usize::from(shard.0)].0)].push(shard);
        }
        let are_first = (0..).map(ShardId).zip(takers()).all(|(place, shard)| place == shard);
        let cpus = places.iter().map(|place| place.cpu.0 as usize + 1).max().unwrap_or(1);
        let mut core_of_cpu: Vec<CoreId> = (0..cpus).map(|cpu| CoreId((cpu % cores) as u16)).collect();
        for (core, place) in places.iter().enumerate().rev() {
            core_of_cpu[place.cpu.0 as usize] = CoreId((core % cores) as u16);
        }
        let is_retired = |shard: &Arc<Shard>| shard.is_retired() && shard.cold_of().is_none();
        let has_retired = !are_first || directory.shards.iter().any(is_retired);
        let takers = takers().count() as u32;
        let inner = Inner {
            assembly,
            directory,
            requests: Arc::default(),
            local_shards,
            core_of_cpu,
            turn: AtomicU32::new(0),
            takers,
            has_retired: AtomicBool::new(has_retired),
            hosting: hosting::Hosting::default(),
            wait_spin: OnceLock::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    // ---- facts --------------------------------------------------------------------------------------------------

    /// The store's id.
    #[must_use]
    pub fn id(&self) -> StoreId {
        self.inner.assembly.opened.superblock.store
    }

    /// The term of this open; each writable open has a higher one.
    #[must_use]
    pub fn term(&self) -> Term {
        self.inner.assembly.opened.superblock.term
    }

    /// What opening found.
    #[must_use]
    pub fn recovery(&self) -> &RecoveryReport {
        &self.inner.assembly.opened.report
    }

    /// The shards that this open added to the store, and why not more where cores were asked for that have none. They stay:
    /// the store has them in every later open, and keys are routed to them, too.
    #[must_use]
    pub fn added_shards(&self) -> AddedShards {
        self.inner.assembly.opened.added
    }

    /// What the host granted to each core.
    #[must_use]
    pub fn grants(&self) -> Vec<CoreGrants> {
        self.inner.assembly.grants()
    }

    /// What weakens the promises of the store, or its speed, on the devices that it is on; empty when all is well.
    #[must_use]
    pub fn warnings(&self) -> &[DeviceWarning] {
        &self.inner.assembly.warnings
    }

    /// The options that it was opened with.
    #[inline]
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.inner.assembly.options
    }

    /// Shards of the store.
    #[must_use]
    pub fn shards(&self) -> &[Arc<Shard>] {
        &self.inner.directory.shards
    }

    /// A shard by its id.
    #[must_use]
    pub fn shard(&self, shard: ShardId) -> Option<&Arc<Shard>> {
        self.inner.directory.shard(shard)
    }

    /// The store's directory: layout, extents, cores.
    #[inline]
    #[must_use]
    pub fn directory(&self) -> &Arc<Directory> {
        &self.inner.directory
    }

    /// Where a shard stands; `None` if there is no such shard.
    #[must_use]
    pub fn watermarks(&self, shard: ShardId) -> Option<Watermarks> {
        Some(self.shard(shard)?.watermarks())
    }

    /// Why a shard takes no appends, if it failed.
    #[must_use]
    pub fn failure(&self, shard: ShardId) -> Option<ShardFailure> {
        self.shard(shard)?.failure()
    }

    /// Longest payload of one record, in bytes.
    #[must_use]
    pub fn record_bytes_max(&self) -> u64 {
        self.options().record_bytes_max(self.inner.directory.layout.geometry())
    }

    /// The core that the calling thread drives, if it drives one of this store.
    #[inline]
    #[must_use]
    pub fn driven_core(&self) -> Option<CoreId> {
        local::driven_core(self.inner.assembly.key())
    }

    /// How a thread waits that may do so for `limit`.
    pub(crate) fn patience(&self, limit: Option<Duration>) -> Patience {
        Patience { limit, watch: self.inner.wait_spin.get().copied().unwrap_or_default() }
    }

    pub(crate) fn stall(&self) -> Option<Duration> {
        self.options().stall
    }

    pub(crate) fn cleaning(&self) -> &Arc<Cleaning> {
        &self.inner.assembly.opened.cleaning
    }

    pub(crate) fn requests(&self) -> &Arc<Requests> {
        &self.inner.requests
    }

    // ---- routing ------------------------------------------------------------------------------------------------

    /// The shard that a route leads to, now.
    #[must_use]
    pub fn route(&self, route: Route) -> ShardId {
        let shards = self.inner.takers;
        let shard = match route {
            Route::Local => self.local_shard(),
            Route::Key(hash) => crate::router::shard_of_key(hash, shards),
            Route::RoundRobin => crate::router::next_in_turn(&self.inner.turn, shards),
            Route::Shard(shard) => return shard,
        };
        // Relaxed: who comes too early is refused by the shard.
        if self.inner.has_retired.load(Ordering::Relaxed) { self.pass_by(route, shard) } else { shard }
    }

    fn local_shard(&self) -> ShardId {
        self.shard_of_core(self.local_core())
    }

    fn shard_of_core(&self, core: CoreId) -> ShardId {
        self.inner.local_shards[usize::from(core.0)].first().copied().unwrap_or_default()
    }

    /// The core that the calling thread drives, or that of the CPU it runs on.
    #[inline]
    pub(crate) fn local_core(&self) -> CoreId {
        let key = self.inner.assembly.key();
        local::driven_core(key).unwrap_or_else(|| {
            local::near_core(key, |cpu| {
                let cores = &self.inner.core_of_cpu;
                cores[cpu % cores.len()]
            })
        })
    }

    // ---- durability ---------------------------------------------------------------------------------------------

    /// A ticket again, from what [`Ticket::id`] gave. `None` if the store has no such shard.
    #[must_use]
    pub fn ticket(&self, id: TicketId) -> Option<Ticket<'_>> {
        let placed = corelog_shards::ring::reservation::Placed { address: id.address, frame: id.frame };
        Some(Ticket::new(self, self.shard(id.shard)?, placed))
    }

    /// Brings everything that a shard accepted before the call to `durability`, and waits for it.
    pub fn flush(&self, shard: ShardId, durability: Durability) -> Result<(), WaitError> {
        let Some(shared) = self.shard(shard) else { return Ok(()) };
        let Some(frame) = shared.seal_for_flush() else { return Ok(()) };
        self.wait_for_frame(shared, frame, durability, self.stall())
    }

    /// Blocks until a frame is as safe as asked; `None` waits without bound. On a thread that drives a core it only asks.
    pub(crate) fn wait_for_frame(
        &self,
        shard: &Shard,
        frame: FrameNumber,
        durability: Durability,
        limit: Option<Duration>,
    ) -> Result<(), WaitError> {
        let id = shard.id();
        if shard.mark(durability).is_none_or(|mark| mark.has(frame)) {
            return Ok(());
        }
        if self.driven_core().is_some() {
            shard.request(frame, durability);
            return Err(WaitError::OnCoreThread { shard: id });
        }
        match shard.wait_for(frame, durability, self.patience(limit)) {
            Some(result) => result.map_err(WaitError::Failed),
            None => Err(WaitError::Stalled { shard: id, frame, waited: limit.unwrap_or_default() }),
        }
    }

    /// Makes everything that the store accepted before the call durable, and waits for it. All shards are asked
    /// before any is waited for; the first failure is reported after all others have arrived.
    pub fn sync(&self) -> Result<(), WaitError> {
        let asked: Vec<_> = self.shards().iter().map(|shard| (shard, shard.seal_for_flush())).collect();
        for (shard, frame) in &asked {
            if let Some(frame) = frame {
                shard.request(*frame, Durability::Durable);
            }
        }
        let mut first = Ok(());
        for (shard, frame) in asked {
            let Some(frame) = frame else { continue };
            let waited = self.wait_for_frame(shard, frame, Durability::Durable, self.stall());
            first = first.and(waited);
        }
        first
    }

    /// As [`Store::sync`], as a future for any executor.
    pub async fn sync_async(&self) -> Result<(), WaitError> {
        let asked: Vec<_> = self.shards().iter().map(|shard| (shard, shard.seal_for_flush())).collect();
        let mut first = Ok(());
        let mut waits: Vec<_> = asked
            .into_iter()
            .filter_map(|(shard, frame)| {
                let frame = frame?;
                shard.request(frame, Durability::Durable);
                Some(Reached::of(shard, frame, Durability::Durable))
            })
            .collect();
        for wait in &mut waits {
            let result = wait.await.map_err(WaitError::Failed);
            first = first.and(result);
        }
        first
    }

    /// Takes no more appends, brings what was accepted to the devices, notes that in the superblock, and ends the
    /// hosted threads. Handles that remain get `Closed` errors. The caller's own cores have to be driven meanwhile by
    /// their threads.
    pub fn close(&self) -> Result<(), CloseError> {
        close::close(&self.inner)
    }

    /// As [`Store::close`], as a future for any executor, also for one on whose thread a core takes its turns. It
    /// does not wait for the hosted threads to end, and has no time of its own to give up.
    pub async fn close_async(&self) -> Result<(), CloseError> {
        close::close_async(&self.inner).await
    }
}

/// A store on its way: recovered, and waiting for its cores to start.
#[derive(Debug)]
pub struct Opening {
    assembly: Arc<Assembly>,
    places: Vec<CorePlace>,
    seats: Vec<Seat>,
}

impl Opening {
    fn new<P: AsRef<Path>>(paths: &[P], options: &Options) -> Result<Self, OpenError> {
        opening::check_backend(options)?;
        let topology = Topology::read_near(Path::new("/sys"), Path::new("/proc"), paths)?;
        let places = topology.plan(options.cores.and_then(NonZeroU32::new)).places;
        let default = u32::try_from(places.len()).unwrap_or(CORES_MAX).min(CORES_MAX);
        let cores = options.cores.unwrap_or(default).clamp(1, CORES_MAX);
        let opened = opening::open(paths, options, cores, &places)?;
        // Never more cores than shards: a core without a shard would have nothing to do.
        let hot = opened.superblock.shards.iter().filter(|entry| entry.state.cold_of().is_none()).count();
        let cores = cores.min(hot as u32);
        let assembly = Assembly::new(opened, options.clone(), cores);
        let seats = (0..cores)
            .map(|core| {
                let place = places.get(core as usize % places.len().max(1)).copied();
                Seat::new(Arc::clone(&assembly), CoreId(core as u16), place)
            })
            .collect();
        Ok(Self { assembly, places, seats })
    }

    /// The seats of all cores; each is to be started on the thread that will drive it.
    pub fn take_seats(&mut self) -> Vec<Seat> {
        std::mem::take(&mut self.seats)
    }

    /// Waits until all seats have started, and gives the store.
    pub fn store(self) -> Result<Store, OpenError> {
        let Self { assembly, places, seats } = self;
        // Seats that nobody took will never start.
        drop(seats);
        let directory = assembly.wait().ok_or(OpenError::Abandoned { core: CoreId(0) })?;
        Ok(Store::assembled(assembly, directory, &places))
    }
}
