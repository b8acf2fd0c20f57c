//! Whoever retires shards in the midst of a life, durably, and empties them, in this life or a later one: as
//! `Store::drain_shard` does, step by step, so that everybody else acts between the steps and a crash may come at each.

use super::{
    cleaning::Index,
    clients::Scene,
    device::lock,
    growing::Grounds,
    oracle::Oracle,
    payload::{ID_BYTES, fill},
    random::{Random, mix},
};
use crate::{
    address::Address,
    cleaning::RecordOwner,
    directory::Mail,
    draining::DrainRound,
    failure::SyncFailures,
    format::{control::LogPlace, record::RecordKind, superblock::Superblock},
    ids::{FrameNumber, ShardId, StoreId},
    limits::record_bytes_max,
    opening::{retiring_superblock, write_superblock},
    requests::{Pending, Reply},
    scan::{
        CleaningPause, Limit, LiveExtents, OnDamage, Position, Run, ScanPin, ScanRecord, ScanSetup, Scanner,
        Start, Step, Wanted,
    },
    shard::{Shard, ShardRefusal},
    shard_owner::{SpaceAsk, SpaceDone, SpaceRefusal},
    watermark::Durability,
};
use bytes::Bytes;
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

/// Most copies of a round.
const ROUND_MAX: u64 = 8;
/// What is read at once.
const CHUNK_BYTES: u64 = 64 << 10;

#[derive(Debug, Default)]
struct Alarm(AtomicBool);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A record on its way.
pub(super) struct Moving {
    pub original: u64,
    pub from: Address,
    pub copy: u64,
    pub bytes: u64,
    to: ShardId,
    frame: FrameNumber,
}

/// What the one who empties a shard waits for, or does.
enum Stage {
    EndCleaning(Pending),
    /// What was accepted before the scan has to be written.
    Flush(Option<FrameNumber>),
    Scan(Box<Scanner>),
    /// The copies have to be durable. `None`: the scan is at its end.
    Settle(Option<Box<Scanner>>),
    /// What was moved is trimmed, and the scan goes on.
    Mark(Box<Scanner>, LogPlace, Pending),
    Leave(Pending),
    Trim(LogPlace, Pending),
}

/// A shard that is being emptied.
struct Emptying<'life> {
    shard: &'life Arc<Shard>,
    _pause: CleaningPause,
    pin: Option<ScanPin>,
    stage: Stage,
    /// Found no room yet.
    waiting: Option<ScanRecord>,
    /// The extent in which the shard ended was left.
    has_left: bool,
    /// The scan gave something.
    has_any: bool,
    /// Where the last scan ended.
    position: Option<Position>,
    /// Of what is before this only what shares its extent is left.
    done: LogPlace,
    /// Records that had been moved before.
    again: u64,
    store: StoreId,
}

/// Whoever retires and empties the shards of a life.
pub(super) struct Drainer<'life> {
    random: Random,
    alarm: Arc<Alarm>,
    waker: Waker,
    sleeps: bool,
    is_due: bool,
    round: DrainRound<Moving>,
    round_max: u64,
    emptying: Option<Emptying<'life>>,
    store: StoreId,
}

/// What a step came to.
enum Stepped {
    On,
    /// Given up, or done.
    Over,
}

impl<'life> Drainer<'life> {
    /// `drains`: in a case that has this.
    pub(super) fn new(seed: u64, drains: bool, store: StoreId) -> Self {
        let mut random = Random::new(mix(seed ^ 0x6472_6169));
        let alarm = Arc::new(Alarm::default());
        let waker = Waker::from(Arc::clone(&alarm));
        let (is_due, round_max) = (drains && !random.one_in(4), 1 + random.below(ROUND_MAX));
        Self {
            random,
            alarm,
            waker,
            sleeps: false,
            is_due,
            round: DrainRound::default(),
            round_max,
            emptying: None,
            store,
        }
    }

    pub(super) fn can_step(&self) -> bool {
        let is_awake = !self.sleeps || self.alarm.0.load(Ordering::Relaxed);
        if self.emptying.is_some() { is_awake } else { self.is_due }
    }

    /// True if it can go on without anybody else.
    pub(super) const fn is_at_work(&self) -> bool {
        self.emptying.is_some()
    }

    /// What it waits for in vain.
    pub(super) fn waits_for(&self) -> Option<String> {
        let emptying = self.emptying.as_ref()?;
        let what = match &emptying.stage {
            Stage::EndCleaning(_) => "the end of cleaning",
            Stage::Flush(_) => "what was accepted before",
            Stage::Scan(_) => "room elsewhere",
            Stage::Settle(_) => "its copies",
            Stage::Mark(..) => "a mark",
            Stage::Leave(_) => "the shard to leave its extent",
            Stage::Trim(..) => "the last trim",
        };
        Some(format!("whoever empties {:?} waits for {what}", emptying.shard.id()))
    }

    /// One step; `superblock`: nobody else writes one at this moment.
    pub(super) fn step(
        &mut self,
        scene: &Scene<'life>,
        superblock: Option<&mut Superblock>,
        failures: &SyncFailures,
        oracle: &mut Oracle,
    ) -> Result<(), String> {
        self.alarm.0.store(false, Ordering::Relaxed);
        self.sleeps = false;
        let Some(mut emptying) = self.emptying.take() else {
            if self.random.one_in(20) {
                self.begin(scene, superblock, failures, oracle);
            }
            return Ok(());
        };
        match self.go_on(&mut emptying, scene, oracle)? {
            Stepped::On => self.emptying = Some(emptying),
            Stepped::Over => self.round = DrainRound::default(),
        }
        Ok(())
    }

    fn begin(
        &mut self,
        scene: &Scene<'life>,
        superblock: Option<&mut Superblock>,
        failures: &SyncFailures,
        oracle: &mut Oracle,
    ) {
        let shards = &scene.directory.shards;
        let (retired, active): (Vec<_>, Vec<_>) = shards.iter().partition(|shard| shard.is_retired());
        if !retired.is_empty() && !self.random.one_in(3) {
            self.is_due = false;
            let shard: &'life Arc<Shard> = retired[self.random.index(retired.len())];
            self.emptying = self.empty(shard, scene);
        } else if let Some(superblock) = superblock
            && active.len() > 1
        {
            retire(active[self.random.index(active.len())], superblock, scene, failures, oracle);
        } else {
            self.is_due = false;
        }
    }

    fn empty(&self, shard: &'life Arc<Shard>, scene: &Scene<'life>) -> Option<Emptying<'life>> {
        if !shard.space().cursors.is_empty() {
            return None;
        }
        let pause = CleaningPause::new(shard)?;
        let stage = Stage::EndCleaning(ask(scene, shard, SpaceAsk::EndCleaning)?);
        lock(scene.world).note(|| format!("EMPTIES {:?}", shard.id()));
        Some(Emptying {
            shard,
            _pause: pause,
            pin: None,
            stage,
            waiting: None,
            has_left: false,
            has_any: false,
            position: None,
            done: LogPlace::default(),
            again: 0,
            store: self.store,
        })
    }

    fn poll(&mut self, pending: &mut Pending) -> Option<Reply> {
        match Pin::new(pending).poll(&mut Context::from_waker(&self.waker)) {
            Poll::Ready(reply) => Some(reply),
            Poll::Pending => {
                self.sleeps = true;
                None
            }
        }
    }

    /// `true`: it arrived. `None`: it never will.
    fn has(&mut self, shard: &Shard, frame: FrameNumber, durability: Durability) -> Option<bool> {
        let mark = shard.mark(durability)?;
        if mark.has(frame) || mark.register(frame, &self.waker) {
            return Some(true);
        }
        shard.request(frame, durability);
        self.sleeps = true;
        shard.failure().is_none().then_some(false)
    }

    fn go_on(
        &mut self,
        emptying: &mut Emptying<'life>,
        scene: &Scene<'life>,
        oracle: &mut Oracle,
    ) -> Result<Stepped, String> {
        let shard = emptying.shard;
        match std::mem::replace(&mut emptying.stage, Stage::Flush(None)) {
            Stage::EndCleaning(mut pending) => match self.poll(&mut pending) {
                None => emptying.stage = Stage::EndCleaning(pending),
                Some(Reply::Space(Ok(_))) => {
                    emptying.done = shard.space().trim;
                    emptying.stage = Stage::Flush(shard.seal_for_flush());
                }
                Some(_) => return Ok(Stepped::Over),
            },
            Stage::Flush(frame) => {
                let has = frame.map_or(Some(true), |frame| self.has(shard, frame, Durability::Written));
                match has {
                    Some(true) => emptying.begin_scan(scene, oracle),
                    Some(false) => emptying.stage = Stage::Flush(frame),
                    None => return Ok(Stepped::Over),
                }
            }
            Stage::Scan(scanner) => return self.scan(emptying, scanner, scene, oracle),
            Stage::Settle(scanner) => return self.settle(emptying, scanner, scene, oracle),
            Stage::Mark(scanner, place, mut pending) => match self.poll(&mut pending) {
                None => emptying.stage = Stage::Mark(scanner, place, pending),
                Some(Reply::Space(Ok(done))) => {
                    trimmed(shard.id(), place, &done, oracle)?;
                    emptying.stage = Stage::Scan(scanner);
                }
                // It frees nothing, and is not written to a store that is full.
                Some(Reply::Space(Err(SpaceRefusal::StoreFull))) => {
                    oracle.drains.has_unmarked = true;
                    emptying.stage = Stage::Scan(scanner);
                }
                Some(_) => return Ok(Stepped::Over),
            },
            Stage::Leave(mut pending) => match self.poll(&mut pending) {
                None => emptying.stage = Stage::Leave(pending),
                Some(Reply::Space(Ok(_))) => {
                    emptying.has_left = true;
                    emptying.stage = Stage::Flush(shard.seal_for_flush());
                }
                Some(_) => return Ok(Stepped::Over),
            },
            Stage::Trim(place, mut pending) => match self.poll(&mut pending) {
                None => emptying.stage = Stage::Trim(place, pending),
                Some(Reply::Space(Ok(done))) => {
                    trimmed(shard.id(), place, &done, oracle)?;
                    lock(scene.world).note(|| format!("EMPTIED {:?}: {done:?}", shard.id()));
                    return Ok(Stepped::Over);
                }
                Some(_) => return Ok(Stepped::Over),
            },
        }
        Ok(Stepped::On)
    }

    /// Some records.
    fn scan(
        &mut self,
        emptying: &mut Emptying<'life>,
        mut scanner: Box<Scanner>,
        scene: &Scene<'life>,
        oracle: &mut Oracle,
    ) -> Result<Stepped, String> {
        let given_up = emptying.pin.as_ref().and_then(ScanPin::given_up);
        let extents = LiveExtents { directory: scene.directory, shard: emptying.shard, given_up };
        for _ in 0..1 + self.random.below(4) {
            let step = emptying.waiting.take().map_or_else(|| scanner.step(&extents), Step::Record);
            match step {
                Step::Record(record) => {
                    emptying.has_any = true;
                    if let Some(Stepped::Over) = self.take(emptying, record, scene, oracle)? {
                        return Ok(Stepped::Over);
                    }
                    if emptying.waiting.is_some() {
                        break;
                    }
                    if self.round.has(u64::MAX, self.round_max as usize) {
                        emptying.stage = Stage::Settle(Some(scanner));
                        return Ok(Stepped::On);
                    }
                }
                Step::Need => {
                    while let Some(run) = scanner.ask(1, &extents) {
                        scanner.supply(run.slot, read(scene, run));
                    }
                }
                Step::End if scanner.take_jumped() => scanner.set_limit(Limit::written(emptying.shard)),
                Step::End => {
                    emptying.position = Some(scanner.position());
                    emptying.pin = None;
                    emptying.stage = Stage::Settle(None);
                    return Ok(Stepped::On);
                }
                // By the device's doing, or the shard was trimmed meanwhile.
                Step::Damage(_) => return Ok(Stepped::Over),
            }
        }
        emptying.stage = Stage::Scan(scanner);
        Ok(Stepped::On)
    }

    /// Copies a record, if it is wanted.
    fn take(
        &mut self,
        emptying: &mut Emptying<'life>,
        record: ScanRecord,
        scene: &Scene<'life>,
        oracle: &mut Oracle,
    ) -> Result<Option<Stepped>, String> {
        let from = record.address;
        let ordinal = scene.directory.extents.ordinal(from.extent(&oracle.geometry)).unwrap_or_default();
        let Some(original) = oracle.id_of(emptying.shard.id(), &record) else { return Ok(None) };
        if (LogPlace { ordinal, byte: from.byte() }) < emptying.done {
            return Ok(None);
        }
        let is_wanted = |index: &Arc<Index>| match record.kind {
            RecordKind::LARGE_MANIFEST => index.is_large_live(from),
            _ => index.is_live(from, &record.payload),
        };
        if !oracle.index.as_ref().is_none_or(is_wanted) {
            return Ok(None);
        }
        let takes: Vec<_> = scene.directory.shards.iter().filter(|shard| !shard.is_retired()).collect();
        if takes.is_empty() {
            return Ok(Some(Stepped::Over));
        }
        let to = takes[self.random.index(takes.len())];
        let part = if oracle.index.is_some() { 4 } else { 1 };
        let most = record_bytes_max(scene.buffer_bytes) as usize / part;
        let length = (oracle.records[original as usize].length as usize).min(most).max(ID_BYTES);
        let (seen, copy) = (to.room().changes(), oracle.issue(to.id(), length));
        let mut payload = vec![0; length];
        fill(copy, &mut payload);
        match to.try_append(&payload) {
            Ok(placed) => {
                oracle.placed(copy, placed)?;
                emptying.count(original, scene, oracle)?;
                let (bytes, frame) = (length as u64, placed.frame);
                self.round.push(Moving { original, from, copy, bytes, to: to.id(), frame }, bytes);
                return Ok(None);
            }
            Err(ShardRefusal::Full) => {
                self.sleeps = !to.room().register(seen, &self.waker);
                emptying.waiting = Some(record);
            }
            Err(_) => {
                oracle.gone(copy);
                return Ok(Some(Stepped::Over));
            }
        }
        oracle.gone(copy);
        Ok(None)
    }

    fn settle(
        &mut self,
        emptying: &mut Emptying<'life>,
        scanner: Option<Box<Scanner>>,
        scene: &Scene<'life>,
        oracle: &mut Oracle,
    ) -> Result<Stepped, String> {
        let mut round = std::mem::take(&mut self.round);
        let mut is_durable = |moving: &Moving| {
            let to = scene.directory.shard(moving.to).ok_or(())?;
            self.has(to, moving.frame, Durability::Durable).ok_or(())
        };
        let settled = round.settle(&mut is_durable);
        self.round = round;
        match settled {
            Err(()) => return Ok(Stepped::Over),
            Ok(Some(moving)) => oracle.tell(&moving, scene),
            Ok(None) => {}
        }
        if !self.round.is_settled() {
            emptying.stage = Stage::Settle(scanner);
            return Ok(Stepped::On);
        }
        let place = |position: Position| position.place(&oracle.geometry);
        if let Some(scanner) = scanner {
            let place = place(scanner.position());
            let Some(pending) = ask_trim(scene, emptying.shard, place, oracle) else {
                return Ok(Stepped::Over);
            };
            emptying.stage = Stage::Mark(scanner, place, pending);
            return Ok(Stepped::On);
        }
        let Some(position) = emptying.position.filter(|_| emptying.has_any || emptying.has_left) else {
            return Ok(Stepped::Over);
        };
        let next = if emptying.has_left {
            let place = place(position);
            ask_trim(scene, emptying.shard, place, oracle).map(|pending| Stage::Trim(place, pending))
        } else {
            ask(scene, emptying.shard, SpaceAsk::Leave(None)).map(Stage::Leave)
        };
        let Some(next) = next else { return Ok(Stepped::Over) };
        emptying.stage = next;
        Ok(Stepped::On)
    }
}

impl Emptying<'_> {
    fn begin_scan(&mut self, scene: &Scene<'_>, oracle: &Oracle) {
        let pin = ScanPin::new(self.shard);
        let extents = LiveExtents { directory: scene.directory, shard: self.shard, given_up: pin.given_up() };
        self.pin = Some(pin);
        let setup = ScanSetup {
            store: self.store,
            shard: self.shard.id(),
            geometry: oracle.geometry,
            chunk_bytes: CHUNK_BYTES,
            wanted: Wanted::Data,
            on_damage: OnDamage::Stop,
        };
        let start = self.position.map_or(Start::Oldest, Start::Position);
        let mut scanner = Scanner::new(setup, start, Limit::written(self.shard), &extents);
        scanner.set_limit(Limit::written(self.shard));
        self.stage = Stage::Scan(Box::new(scanner));
    }

    /// D3: what was moved before is passed over, but for one round.
    fn count(&mut self, original: u64, scene: &Scene<'_>, oracle: &Oracle) -> Result<(), String> {
        self.again += u64::from(oracle.drains.moved.contains_key(&original));
        let may_be_more = oracle.drains.has_unmarked || lock(scene.world).lies > 0;
        if self.again > ROUND_MAX && !may_be_more {
            return Err(format!("D3: {} records of {:?} are moved again", self.again, self.shard.id()));
        }
        Ok(())
    }
}

fn retire(
    shard: &Shard,
    superblock: &mut Superblock,
    scene: &Scene<'_>,
    failures: &SyncFailures,
    oracle: &mut Oracle,
) {
    let unix_ns = lock(scene.world).now_ns;
    let Some(next) = retiring_superblock(superblock, shard.id(), unix_ns) else { return };
    lock(scene.world).note(|| format!("RETIRES {:?}", shard.id()));
    oracle.drains.retired.entry(shard.id()).or_insert(false);
    match write_superblock(&next, &Grounds { world: scene.world, failures }) {
        Ok(()) => {
            oracle.superblock_sequence = next.sequence;
            oracle.drains.retired.insert(shard.id(), true);
            *superblock = next;
            shard.retire();
        }
        // It may be on a device: the next one goes to the side that this one was written to.
        Err(_) => superblock.sequence = next.sequence + 1,
    }
}

fn ask(scene: &Scene<'_>, shard: &Shard, ask: SpaceAsk) -> Option<Pending> {
    let (core, (pending, responder)) = (scene.directory.core_of(shard.id())?, scene.requests.open()?);
    core.send(Mail::Space { shard: shard.id(), ask, responder }).ok().map(|()| pending)
}

fn ask_trim(scene: &Scene<'_>, shard: &Shard, place: LogPlace, oracle: &mut Oracle) -> Option<Pending> {
    let pending = ask(scene, shard, SpaceAsk::Trim { place, respect_cursors: false })?;
    oracle.ask_trim(shard.id(), place);
    Some(pending)
}

fn trimmed(shard: ShardId, place: LogPlace, done: &SpaceDone, oracle: &mut Oracle) -> Result<(), String> {
    if done.trim < place {
        return Err(format!("S4: {shard:?} was to be trimmed to {place:?}, and is to {:?}", done.trim));
    }
    oracle.trimmed(shard, done);
    Ok(())
}

/// As a core would read it, without its faults.
fn read(scene: &Scene<'_>, run: Run) -> Bytes {
    let slot_bytes = scene.directory.layout.geometry().slot_bytes();
    let mut bytes = vec![0; (run.slots * slot_bytes) as usize];
    let world = lock(scene.world);
    if let Some(place) = scene.directory.layout.place(run.slot) {
        world.disks[usize::from(place.device.0)].visible.read(place.offset, &mut bytes);
    }
    Bytes::from(bytes)
}
