//! One life of a store: the scheduler that decides who is next, until the store is closed or the crash comes.

use super::{
    Tally,
    check::{Look, look},
    clients::{Client, Scene},
    cutting::Cutter,
    device::{Disks, SharedWorld, lock},
    disk::Crash,
    draining::Drainer,
    growing::Grower,
    opened::{Opened, SimCore},
    oracle::Oracle,
    random::{Random, mix},
    retiring::Retirer,
    world::{Stopped, Submitted},
};
use crate::{
    core::Turn,
    failure::SyncFailures,
    format::superblock::{ShardEntry, Superblock},
    ids::ShardId,
    opening::{WriteSuperblockError, closing_superblock, write_superblock},
    shard::Shard,
    shard_owner::ShardOwner,
    sync::Ordering,
};
use std::sync::Arc;

/// Scheduler steps of a life; one that goes on for longer never ends.
const STEPS_MAX: u32 = 100_000;

/// How a life goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    pub clients: usize,
    pub work: u32,
    /// The clients append as much as they can, and ask for nothing.
    pub is_bulk: bool,
    /// Closed in order at the end, rather than dropped.
    pub closes: bool,
    /// The cores are asked to close while the clients are at work.
    pub closes_early: bool,
    /// How much more often cores, clients and devices are chosen than the others.
    pub weights: [u64; 3],
    pub probe_one_in: u64,
    /// Of those who cut through the store and retire shards.
    pub seed: u64,
    /// Shards are retired for good, and emptied.
    pub drains: bool,
    /// The life may end as soon as an extent is half cleaned.
    pub crashes_in_cleaning: bool,
}

impl Course {
    pub(super) fn draw(random: &mut Random, probe_one_in: u64, seed: u64, cleans: bool) -> Self {
        let course = Self::draw_plain(random, probe_one_in, seed);
        // What is to be cleaned has to be written first.
        if cleans { Self { work: 8 * course.work, ..course } } else { course }
    }

    fn draw_plain(random: &mut Random, probe_one_in: u64, seed: u64) -> Self {
        Self {
            clients: 1 + random.index(5),
            work: random.pick(&[5, 20, 40, 80, 160]),
            is_bulk: random.one_in(6),
            closes: !random.one_in(4),
            closes_early: random.one_in(8),
            weights: [random.pick(&[1, 3, 9]), random.pick(&[1, 3, 9]), random.pick(&[1, 3, 9])],
            probe_one_in,
            seed,
            drains: false,
            crashes_in_cleaning: false,
        }
    }
}

/// How a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Crashed,
    /// Closed; true if the superblock says so.
    Closed(bool),
}

/// The scheduler of a life.
pub(super) struct Life<'life> {
    scene: Scene<'life>,
    cores: Vec<Option<SimCore>>,
    clients: Vec<Client<'life>>,
    oracle: &'life mut Oracle,
    tally: &'life mut Tally,
    random: Random,
    course: Course,
    tails: Vec<(ShardId, ShardEntry)>,
    is_closing: bool,
    /// As written last.
    superblock: Superblock,
    sync_failures: Arc<SyncFailures>,
    grower: Grower,
    cutter: Cutter<'life>,
    retirer: Retirer,
    drainer: Drainer<'life>,
    spoiler: Option<Random>,
}

#[derive(Clone, Copy)]
enum Next {
    Core(usize),
    Client(usize),
    Device,
    Grower,
    Cutter,
    Retirer,
    Drainer,
}

/// Of every other life, so that what is begun in one is ended in another. By a generator of its own.
fn spoiler(course: &Course) -> Option<Random> {
    let mut random = Random::new(mix(course.seed ^ 0x7370_6f69));
    (course.crashes_in_cleaning && random.one_in(2)).then_some(random)
}

/// Runs the store until it is closed or the crash comes.
pub(super) fn live(
    opened: Opened,
    world: &SharedWorld,
    oracle: &mut Oracle,
    tally: &mut Tally,
    course: Course,
    buffer_bytes: u64,
    grower: Grower,
) -> Result<End, String> {
    let Opened { cores, directory, requests, superblock, sync_failures } = opened;
    let mut random = lock(world).random.fork();
    let clients = (0..course.clients)
        .map(|index| Client::new(index, random.fork(), course.work, course.is_bulk))
        .collect();
    let scene = Scene { directory: &directory, requests: &requests, world, buffer_bytes };
    let (tails, is_closing, store) = (Vec::new(), false, superblock.store);
    let mut life = Life {
        scene,
        cores,
        clients,
        oracle,
        tally,
        random,
        course,
        tails,
        is_closing,
        superblock,
        sync_failures,
        grower,
        cutter: Cutter::new(course.seed),
        retirer: Retirer::new(course.seed),
        drainer: Drainer::new(course.seed, course.drains, store),
        spoiler: spoiler(&course),
    };
    let ran = life.run();
    if ran.is_err() {
        // Whatever is still there must not go on.
        lock(world).is_crashed = true;
    }
    let has_lied = lock(world).lies > 0;
    let ran = ran.and_then(|()| life.cutter.check(&directory, life.oracle, has_lied));
    let Life { cores, clients, oracle, tails, mut superblock, mut grower, .. } = life;
    grower.give_up(&mut superblock);
    drop(clients);
    drop(cores);
    ran?;
    if lock(world).is_crashed {
        return Ok(End::Crashed);
    }
    for shard in &directory.shards {
        oracle.observe(shard)?;
        if shard.failure().is_none() {
            oracle.closed(shard.id())?;
        }
    }
    let unix_ns = lock(world).now_ns;
    let Some(closing) = closing_superblock(&superblock, &tails, unix_ns) else {
        return Ok(End::Closed(false));
    };
    match write_superblock(&closing, &Disks(world)) {
        Ok(()) => {
            oracle.superblock_sequence = closing.sequence;
            Ok(End::Closed(true))
        }
        Err(WriteSuperblockError::Device(Stopped::Crashed)) => Ok(End::Crashed),
        Err(_) => Ok(End::Closed(false)),
    }
}

impl Life<'_> {
    fn run(&mut self) -> Result<(), String> {
        for _ in 0..STEPS_MAX {
            let Some(next) = self.choose() else {
                match self.nobody_can()? {
                    true => continue,
                    false => return Ok(()),
                }
            };
            match next {
                Next::Core(core) => self.turn(core),
                Next::Client(client) => {
                    self.clients[client].step(&self.scene, &mut self.cores, self.oracle)?
                }
                Next::Device => self.complete()?,
                Next::Grower => self.grow()?,
                Next::Retirer => self.retirer.step(self.scene.directory, self.scene.requests),
                Next::Drainer => self.drain()?,
                Next::Cutter => self.cutter.step(self.scene.directory, self.oracle),
            }
            self.look_around()?;
            if lock(self.scene.world).is_crashed {
                return Ok(());
            }
            if self.is_spoiled() {
                lock(self.scene.world).is_crashed = true;
                return Ok(());
            }
            if self.course.closes_early && self.random.one_in(64) {
                self.close();
            }
        }
        Err(format!("I9: no end after {STEPS_MAX} steps: {}", self.waiting()))
    }

    /// The crash comes now, since an extent is half cleaned.
    fn is_spoiled(&mut self) -> bool {
        let Some(random) = &mut self.spoiler else { return false };
        let mut owners = self.cores.iter().flatten().flat_map(|core| core.core.shards());
        owners.any(ShardOwner::is_half_cleaned) && random.one_in(30)
    }

    fn choose(&mut self) -> Option<Next> {
        if let Some(core) = lock(self.scene.world).urgent.take() {
            if let Some(core) = &mut self.cores[core] {
                core.is_idle = false;
            }
            return Some(Next::Core(core));
        }
        let (now, in_flight, has_ready) = {
            let world = lock(self.scene.world);
            let ready: u64 =
                (0..world.ready.len()).filter(|core| !world.ready[*core].is_empty()).map(|c| 1 << c).sum();
            (world.now_ns, world.in_flight(), ready)
        };
        let mut choices: Vec<(Next, u64)> = Vec::with_capacity(16);
        let [core_weight, client_weight, device_weight] = self.course.weights;
        for (index, core) in self.cores.iter_mut().enumerate() {
            let Some(core) = core else { continue };
            let is_due = core.wakes_at.is_some_and(|at| at <= now);
            if core.alarm.take() || has_ready & 1 << index != 0 || is_due {
                core.sleeps = false;
                core.wakes_at = None;
            }
            if !core.sleeps {
                choices.push((Next::Core(index), core_weight));
            }
        }
        for (index, client) in self.clients.iter().enumerate() {
            if client.can_step() {
                choices.push((Next::Client(index), client_weight));
            }
        }
        if in_flight > 0 {
            choices.push((Next::Device, device_weight));
        }
        if self.grower.can_step(self.scene.directory) && !self.is_closing {
            choices.push((Next::Grower, 1));
        }
        let may_drain = self.drainer.can_step() && (self.drainer.is_at_work() || !choices.is_empty());
        if self.course.drains && may_drain && !self.is_closing {
            choices.push((Next::Drainer, 1));
        }
        if !self.course.drains && self.retirer.can_step() && !choices.is_empty() {
            choices.push((Next::Retirer, 1));
        }
        // Appends go on if they cannot.
        if self.cutter.can_step() && !choices.is_empty() {
            choices.push((Next::Cutter, 1));
        }
        let total: u64 = choices.iter().map(|(_, weight)| weight).sum();
        if total == 0 {
            return None;
        }
        let mut at = self.random.below(total);
        choices.into_iter().find_map(|(next, weight)| {
            if at < weight {
                return Some(next);
            }
            at -= weight;
            None
        })
    }

    /// True: go on. False: the life is over.
    fn nobody_can(&mut self) -> Result<bool, String> {
        if let Some(at) = self.cores.iter().flatten().filter_map(|core| core.wakes_at).min() {
            let mut world = lock(self.scene.world);
            world.now_ns = world.now_ns.max(at);
            return Ok(true);
        }
        if !self.clients.iter().all(Client::is_done) {
            return Err(format!("I9: nobody can do anything: {}", self.waiting()));
        }
        if !self.is_closing {
            if let Some(what) = self.drainer.waits_for() {
                return Err(format!("I9: nobody can do anything: {what}; {}", self.waiting()));
            }
            self.check_resolved()?;
        }
        if self.cores.iter().all(Option::is_none) {
            return Ok(false);
        }
        if !self.course.closes {
            // The cores are dropped, and have to bring to the device what they accepted.
            return Ok(false);
        }
        if self.is_closing && self.cores.iter().flatten().all(|core| core.sleeps) {
            return Err("I9: the cores do not close".to_owned());
        }
        self.close();
        Ok(true)
    }

    /// O3: what earlier lives decided is resolved in each shard that can be appended to.
    fn check_resolved(&self) -> Result<(), String> {
        let can = |shard: &Shard| {
            let is_full = shard.ring().position().is_none() || shard.is_starved.load(Ordering::Acquire);
            shard.failure().is_none() && !is_full
        };
        let owners = || self.cores.iter().flatten().flat_map(|core| core.core.shards());
        for (id, shard) in &self.oracle.owed {
            let owner = owners().find(|owner| owner.shared().id() == *shard);
            if owner.is_some_and(|owner| can(owner.shared()) && !owner.has_resolved(*id)) {
                return Err(format!("O3: {shard:?} was to resolve batch {id:?}, and has not"));
            }
        }
        Ok(())
    }

    fn waiting(&self) -> String {
        let clients = self.clients.iter().filter(|client| !client.is_done()).map(Client::describe);
        let clients: Vec<_> = clients.map(|what| format!("a client waits for {what}")).collect();
        let cores = self.cores.iter().flatten().filter(|core| core.sleeps).count();
        format!("{}; {cores} cores sleep", clients.join(", "))
    }

    fn close(&mut self) {
        self.is_closing = true;
        for core in self.cores.iter().flatten() {
            core.core.handle().ask_to_close();
        }
    }

    fn turn(&mut self, index: usize) {
        let Some(core) = &mut self.cores[index] else { return };
        (core.sleeps, core.wakes_at) = (false, None);
        if std::mem::take(&mut core.is_idle) {
            core.sleeps = core.core.prepare_wait();
            let now = lock(self.scene.world).now_ns;
            core.wakes_at = core.core.timer().map(|timer| now + timer.as_nanos() as u64);
            return;
        }
        core.core.awake();
        match core.core.turn() {
            Turn::Progress => {}
            // Anything may happen before it looks once more and sleeps.
            Turn::Idle => core.is_idle = true,
            Turn::Closed => {
                let owners = core.core.shards();
                let tails = owners.iter().filter_map(|it| Some((it.shared().id(), it.clean_tail()?)));
                self.tails.extend(tails);
                self.cores[index] = None;
                lock(self.scene.world).note(|| format!("core {index} closed"));
            }
        }
    }

    fn grow(&mut self) -> Result<(), String> {
        let Scene { directory, world, .. } = &self.scene;
        self.grower.step(&mut self.superblock, world, &self.sync_failures, directory, self.oracle);
        if !lock(world).is_crashed && self.random.one_in(self.course.probe_one_in) {
            self.probe()?;
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<(), String> {
        let superblock = (!self.grower.is_busy()).then_some(&mut self.superblock);
        self.drainer.step(&self.scene, superblock, &self.sync_failures, self.oracle)?;
        if !lock(self.scene.world).is_crashed && self.random.one_in(self.course.probe_one_in) {
            self.probe()?;
        }
        Ok(())
    }

    fn complete(&mut self) -> Result<(), String> {
        let completed = {
            let mut world = lock(self.scene.world);
            let completed = world.complete_one(None);
            world.maybe_flip();
            completed
        };
        if completed && self.random.one_in(self.course.probe_one_in) {
            self.probe()?;
        }
        Ok(())
    }

    /// A crash at this moment, on a copy of the disks.
    fn probe(&mut self) -> Result<(), String> {
        let kind = self.random.pick(&[Crash::Power, Crash::Power, Crash::Kill]);
        let (disks, has_dropped) = {
            let world = lock(self.scene.world);
            (world.seen_after(kind, &mut self.random), world.has_dropped)
        };
        self.hand_over_submitted()?;
        self.tally.crash_points += 1;
        let again = self.random.one_in(8);
        // After a failed sync the device may have forgotten what it took.
        let kind = if has_dropped { Crash::Power } else { kind };
        match look(self.oracle, &disks, kind, again) {
            Ok(Look::Whole(..)) => Ok(()),
            Ok(_) => {
                self.tally.named += 1;
                Ok(())
            }
            Err(violation) => Err(format!("after a {kind:?} crash here: {violation}")),
        }
    }

    fn hand_over_submitted(&mut self) -> Result<(), String> {
        let submitted = std::mem::take(&mut lock(self.scene.world).submitted);
        submitted.into_iter().try_for_each(|what| match what {
            Submitted::Frame(header) => self.oracle.submitted(header),
            Submitted::Extent(header) => self.oracle.claimed(&header),
        })
    }

    fn look_around(&mut self) -> Result<(), String> {
        self.hand_over_submitted()?;
        let failed = {
            let mut world = lock(self.scene.world);
            if let Some(violation) = world.violation.take() {
                return Err(violation);
            }
            world.take_failed_writes()
        };
        for shard in failed {
            let failed = self.scene.directory.shard(shard).is_some_and(|shard| shard.failure().is_some());
            if !failed {
                return Err(format!("P5: a write of {shard:?} failed, and it runs on"));
            }
        }
        self.scene.directory.shards.iter().try_for_each(|shard| self.oracle.observe(shard))?;
        self.oracle.check_relocations()
    }
}
