//! Those who use the store: each does one thing at a time, and sleeps until the store wakes it.

use super::{
    cleaning::{Index, release},
    device::{SharedWorld, lock},
    faults::Fault,
    image::Taint,
    opened::{SimCore, append_by_owner},
    oracle::{Fate, Oracle},
    payload::{ID_BYTES, fill, identify},
    random::Random,
};
use crate::{
    address::Address,
    directory::{Directory, Mail, MailError, WhenFull},
    format::{
        control::{Cursor, LogPlace},
        record::{RecordFlags, RecordKind},
    },
    ids::{FrameNumber, ShardId},
    limits::record_bytes_max,
    reads::ReadError,
    requests::{Pending, Reply, Requests},
    ring::reservation::Reservation,
    shard::{Shard, ShardRefusal},
    shard_owner::{SpaceAsk, SpaceRefusal},
    watermark::Durability,
};
use bytes::Bytes;
use groups::{Batching, Streaming};
use overs::Spreading;
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

mod groups;
mod overs;

/// Set by whoever wakes a client.
#[derive(Debug, Default)]
struct Alarm(AtomicBool);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What all clients of a life share.
pub(super) struct Scene<'life> {
    pub directory: &'life Directory,
    pub requests: &'life Arc<Requests>,
    pub world: &'life SharedWorld,
    pub buffer_bytes: u64,
}

impl<'life> Scene<'life> {
    /// A shard that may take appends.
    fn pick(&self, random: &mut Random) -> &'life Arc<Shard> {
        let shards = &self.directory.shards;
        let takers = shards.iter().filter(|shard| shard.cold_of().is_none());
        let index = random.index(takers.clone().count());
        takers.clone().nth(index).unwrap_or(&shards[0])
    }
}

/// What a client is at.
enum Doing<'life> {
    Nothing,
    /// Waits for room, to append again.
    Room {
        shard: &'life Shard,
        length: usize,
    },
    /// Found no room, and has not said yet that it waits for some.
    Late {
        shard: &'life Shard,
        length: usize,
        seen: u64,
    },
    /// Saw that a frame has not arrived, and has not said yet that it waits for it.
    LateFor {
        shard: &'life Shard,
        frame: FrameNumber,
        durability: Durability,
    },
    /// Sent an append by mail.
    Sent {
        id: u64,
        pending: Pending,
    },
    /// Holds a reservation for some more steps.
    Holding {
        id: u64,
        reservation: Reservation<'life>,
        steps: u32,
    },
    /// Writes a batch.
    Batch(Box<Batching<'life>>),
    /// Writes a large record.
    Large(Box<Streaming<'life>>),
    /// Writes a batch over several shards.
    Over(Box<Spreading>),
    /// Waits for a frame.
    Waiting {
        shard: &'life Shard,
        frame: FrameNumber,
        durability: Durability,
    },
    /// Asked for something about a shard's space.
    Asking {
        shard: ShardId,
        ask: SpaceAsk,
        pending: Pending,
    },
    Reading {
        id: u64,
        address: Address,
        pending: Pending,
    },
    Done,
}

/// A user of the store.
pub(super) struct Client<'life> {
    random: Random,
    alarm: Arc<Alarm>,
    waker: Waker,
    doing: Doing<'life>,
    /// It is the thread that drives a core, where the core runs the shard that it appends to.
    drives: bool,
    /// Waits until it is woken.
    sleeps: bool,
    work_left: u32,
    is_bulk: bool,
    /// Addresses to read again.
    known: Vec<(u64, Address)>,
    /// Of its cursors.
    name: String,
}

impl<'life> Client<'life> {
    pub(super) fn new(index: usize, random: Random, work: u32, is_bulk: bool) -> Self {
        let alarm = Arc::new(Alarm::default());
        let waker = Waker::from(Arc::clone(&alarm));
        Self {
            random,
            alarm,
            waker,
            doing: Doing::Nothing,
            drives: index % 3 == 2,
            sleeps: false,
            work_left: work,
            is_bulk,
            known: Vec::new(),
            name: format!("of client {index}"),
        }
    }

    pub(super) const fn is_done(&self) -> bool {
        matches!(self.doing, Doing::Done)
    }

    pub(super) fn can_step(&self) -> bool {
        !self.is_done() && (!self.sleeps || self.alarm.0.load(Ordering::Relaxed))
    }

    /// What it waits for, for the message about one who waits in vain.
    pub(super) fn describe(&self) -> String {
        match &self.doing {
            Doing::Nothing => "nothing".to_owned(),
            Doing::Room { shard, .. } | Doing::Late { shard, .. } => {
                format!("room in {:?} ({:?})", shard.id(), shard.watermarks())
            }
            Doing::Sent { id, .. } => format!("the answer to record {id}"),
            Doing::Holding { id, .. } => format!("its own reservation for record {id}"),
            Doing::Waiting { shard, frame, durability } | Doing::LateFor { shard, frame, durability } => {
                format!("{frame:?} of {:?} to be {durability} ({:?})", shard.id(), shard.watermarks())
            }
            Doing::Batch(batch) => batch.describe(),
            Doing::Large(large) => large.describe(),
            Doing::Over(over) => over.describe(),
            Doing::Asking { shard, ask, .. } => format!("{ask:?} of {shard:?}"),
            Doing::Reading { address, .. } => format!("the record at {address}"),
            Doing::Done => "no more".to_owned(),
        }
    }

    /// One step. An error is a violation.
    pub(super) fn step(
        &mut self,
        scene: &Scene<'life>,
        cores: &mut [Option<SimCore>],
        oracle: &mut Oracle,
    ) -> Result<(), String> {
        self.alarm.0.store(false, Ordering::Relaxed);
        self.sleeps = false;
        match std::mem::replace(&mut self.doing, Doing::Nothing) {
            Doing::Nothing => self.begin(scene, cores, oracle),
            Doing::Room { shard, length } => self.append(shard, length, cores, oracle),
            Doing::Late { shard, length, seen } => {
                self.sleeps = !shard.room().register(seen, &self.waker);
                self.doing = Doing::Room { shard, length };
                Ok(())
            }
            Doing::LateFor { shard, frame, durability } => {
                self.register(shard, frame, durability);
                Ok(())
            }
            Doing::Sent { id, pending } => self.sent(id, pending, scene, oracle),
            Doing::Holding { id, reservation, steps } => self.hold(id, reservation, steps, oracle),
            Doing::Batch(batch) => self.batch(batch, scene, oracle),
            Doing::Large(large) => self.large(large, oracle),
            Doing::Over(over) => self.over(over, scene, oracle),
            Doing::Waiting { shard, frame, durability } => {
                self.wait(shard, frame, durability);
                Ok(())
            }
            Doing::Asking { shard, ask, pending } => self.asking(shard, ask, pending, oracle),
            Doing::Reading { id, address, pending } => self.reading(id, address, pending, scene, oracle),
            Doing::Done => Ok(()),
        }
    }

    fn begin(
        &mut self,
        scene: &Scene<'life>,
        cores: &mut [Option<SimCore>],
        oracle: &mut Oracle,
    ) -> Result<(), String> {
        if self.work_left == 0 {
            self.doing = Doing::Done;
            return Ok(());
        }
        self.work_left -= 1;
        let releases = |index: &Arc<Index>| if index.is_kept { (5, 3) } else { (3, 8) };
        let (one_in, most) = oracle.index.as_ref().map_or((3, 8), releases);
        if let Some(index) = oracle.index.clone().filter(|_| self.random.one_in(one_in)) {
            for _ in 0..1 + self.random.below(most) {
                let Some(id) = index.pick(&mut self.random) else { break };
                let length = u64::from(oracle.records[id as usize].length);
                release(&index, scene.directory, &oracle.geometry, id, length);
            }
        }
        let shard: &'life Shard = scene.pick(&mut self.random);
        if self.is_bulk && self.random.one_in(8) {
            return match self.random.below(3) {
                0 => self.read(scene, oracle),
                _ => self.ask(scene, oracle),
            };
        }
        if self.is_bulk {
            // Records that fill a buffer are not moved.
            let part = if oracle.index.is_some() { 4 } else { 1 };
            let length = record_bytes_max(scene.buffer_bytes) as usize / part - self.random.index(3000);
            return self.append(shard, length, cores, oracle);
        }
        let (length, what) = (self.length(scene), self.random.below(24));
        let (length, what) = match oracle.index.as_ref().map(|index| index.is_plain) {
            None => (length, what),
            Some(true) => (length.min(scene.buffer_bytes as usize / 4), Self::without_batches(what)),
            // Extents with records that fill a buffer are not cleaned.
            Some(false) if self.random.one_in(16) => (length, what),
            Some(false) if self.random.one_in(2) => {
                (length.min(scene.buffer_bytes as usize / 4), Self::without_batches(what))
            }
            Some(false) => (length.min(scene.buffer_bytes as usize / 4), what),
        };
        match what {
            22..=23 => self.begin_over(scene, oracle),
            20..=21 => self.ask(scene, oracle),
            0..=6 => self.append(shard, length, cores, oracle),
            7..=8 => self.send(shard, length, scene, oracle),
            9..=10 => self.reserve(shard, length, oracle),
            11..=13 => self.read(scene, oracle),
            14..=16 => self.begin_batch(shard, scene, oracle),
            17 => self.begin_large(shard, scene, oracle),
            _ => {
                if let Some(frame) = shard.seal_for_flush() {
                    self.wait(shard, frame, Durability::Durable);
                }
                Ok(())
            }
        }
    }

    const fn without_batches(what: u64) -> u64 {
        if 18 <= what && what < 22 { what } else { what % 10 }
    }

    /// Mostly short; now and then as long as can be.
    fn length(&mut self, scene: &Scene<'life>) -> usize {
        let most = record_bytes_max(scene.buffer_bytes);
        let bound = match self.random.below(16) {
            0 => return most as usize,
            1..=3 => most,
            4..=9 => 2000,
            _ => 200,
        };
        ID_BYTES + self.random.below(bound - ID_BYTES as u64 + 1) as usize
    }

    fn append(
        &mut self,
        shard: &'life Shard,
        length: usize,
        cores: &mut [Option<SimCore>],
        oracle: &mut Oracle,
    ) -> Result<(), String> {
        let seen = shard.room().changes();
        let id = oracle.issue(shard.id(), length);
        let mut payload = vec![0; length];
        fill(id, &mut payload);
        let is_retired = shard.is_retired();
        let by_owner = if self.drives { append_by_owner(cores, shard.id(), &payload) } else { None };
        match by_owner.unwrap_or_else(|| shard.try_append(&payload)) {
            Ok(placed) if is_retired => {
                return Err(format!("R1: record {id} is at {placed:?}, in a retired shard"));
            }
            Ok(placed) => {
                oracle.placed(id, placed)?;
                oracle.is_behind_all(shard.id(), placed)?;
                self.accepted(shard, id, placed.frame, placed.address);
                return Ok(());
            }
            Err(ShardRefusal::Full) => {
                self.doing = Doing::Late { shard, length, seen };
            }
            Err(ShardRefusal::TooLarge { max }) => {
                return Err(format!("a record of {length} bytes is too large for {max}"));
            }
            Err(
                ShardRefusal::StoreFull
                | ShardRefusal::Closed
                | ShardRefusal::Retired
                | ShardRefusal::Failed(_),
            ) => {}
        }
        oracle.gone(id);
        Ok(())
    }

    fn accepted(&mut self, shard: &'life Shard, id: u64, frame: FrameNumber, address: Address) {
        self.known.push((id, address));
        match self.random.below(if self.is_bulk { 40 } else { 4 }) {
            0 => self.wait(shard, frame, Durability::Durable),
            1 => self.wait(shard, frame, Durability::Written),
            _ => {}
        }
    }

    /// As a ticket waits: leave a waker, ask, and look at the shard's health last.
    fn wait(&mut self, shard: &'life Shard, frame: FrameNumber, durability: Durability) {
        let Some(mark) = shard.mark(durability) else { return };
        if mark.has(frame) {
            return;
        }
        if self.random.one_in(3) {
            self.doing = Doing::LateFor { shard, frame, durability };
        } else {
            self.register(shard, frame, durability);
        }
    }

    fn register(&mut self, shard: &'life Shard, frame: FrameNumber, durability: Durability) {
        let Some(mark) = shard.mark(durability) else { return };
        if mark.register(frame, &self.waker) {
            return;
        }
        shard.request(frame, durability);
        if shard.failure().is_none() {
            self.doing = Doing::Waiting { shard, frame, durability };
            self.sleeps = true;
        }
    }

    fn reserve(&mut self, shard: &'life Shard, length: usize, oracle: &mut Oracle) -> Result<(), String> {
        if let Ok(mut reservation) = shard.try_reserve(length) {
            let id = oracle.issue(shard.id(), length);
            fill(id, reservation.payload_mut());
            self.doing = Doing::Holding { id, reservation, steps: self.random.below(6) as u32 };
        }
        Ok(())
    }

    fn hold(
        &mut self,
        id: u64,
        mut reservation: Reservation<'life>,
        steps: u32,
        oracle: &mut Oracle,
    ) -> Result<(), String> {
        if steps > 0 {
            if identify(reservation.payload_mut()) != Some(id) {
                return Err(format!("I8: somebody wrote into the reservation of record {id}"));
            }
            self.doing = Doing::Holding { id, reservation, steps: steps - 1 };
        } else if self.random.one_in(3) {
            drop(reservation);
            oracle.gone(id);
        } else {
            oracle.placed(id, reservation.commit(RecordKind::DATA, RecordFlags::NONE))?;
        }
        Ok(())
    }

    fn send(
        &mut self,
        shard: &'life Shard,
        length: usize,
        scene: &Scene<'life>,
        oracle: &mut Oracle,
    ) -> Result<(), String> {
        let shard = shard.id();
        let (Some(core), Some((pending, responder))) =
            (scene.directory.core_of(shard), scene.requests.open())
        else {
            return Ok(());
        };
        let id = oracle.issue(shard, length);
        let mut payload = vec![0; length];
        fill(id, &mut payload);
        let when_full = if id.is_multiple_of(3) { WhenFull::Refuse } else { WhenFull::Wait };
        match core.send(Mail::Append { shard, payload: Bytes::from(payload), when_full, responder }) {
            Ok(()) => self.doing = Doing::Sent { id, pending },
            Err(MailError::Full(mail) | MailError::Dead(mail)) => {
                oracle.gone(id);
                let Mail::Append { payload, .. } = mail else {
                    return Err("other mail came back".to_owned());
                };
                if identify(&payload) != Some(id) {
                    return Err(format!("P3: record {id} came back changed"));
                }
            }
        }
        Ok(())
    }

    fn sent(
        &mut self,
        id: u64,
        mut pending: Pending,
        scene: &Scene<'life>,
        oracle: &mut Oracle,
    ) -> Result<(), String> {
        match Pin::new(&mut pending).poll(&mut Context::from_waker(&self.waker)) {
            Poll::Pending => {
                self.doing = Doing::Sent { id, pending };
                self.sleeps = true;
            }
            Poll::Ready(Reply::Appended(Ok(placed))) => {
                let shard: ShardId = oracle.records[id as usize].shard;
                oracle.placed(id, placed)?;
                if let Some(shard) = scene.directory.shard(shard) {
                    self.accepted(shard, id, placed.frame, placed.address);
                }
            }
            Poll::Ready(Reply::Appended(Err((_refusal, payload)))) => {
                oracle.gone(id);
                if identify(&payload) != Some(id) {
                    return Err(format!("P3: record {id} came back changed"));
                }
            }
            // Whether it took place is not known.
            Poll::Ready(Reply::CoreDead) => {}
            Poll::Ready(other) => return Err(format!("I10: {other:?} answers record {id}")),
        }
        Ok(())
    }

    /// A trim, a cursor or a checkpoint, of the shard of a record that is known.
    fn ask(&mut self, scene: &Scene<'life>, oracle: &mut Oracle) -> Result<(), String> {
        let from = self.known.len() * self.random.below(3) as usize / 3;
        if from >= self.known.len() {
            return Ok(());
        }
        let (_, address) = self.known[from + self.random.index(self.known.len() - from)];
        let Ok(shard) = scene.directory.owner_of(address) else { return Ok(()) };
        let extents = &scene.directory.extents;
        let ordinal = extents.ordinal(address.extent(&oracle.geometry)).unwrap_or_default();
        let place = LogPlace { ordinal, byte: address.byte() };
        let name = self.name.clone();
        // Cursors keep what is behind them from being cleaned, and marks leave nothing to clean.
        let kinds = if oracle.index.is_some() && !self.random.one_in(4) { 1 } else { 8 };
        let ask = match self.random.below(kinds) {
            0 => SpaceAsk::Checkpoint,
            1..=2 => SpaceAsk::SetCursor(Cursor { name, place, address }),
            3 => SpaceAsk::RemoveCursor(name),
            kind => SpaceAsk::Trim { place, respect_cursors: kind == 4 },
        };
        let (Some(core), Some((pending, responder))) =
            (scene.directory.core_of(shard), scene.requests.open())
        else {
            return Ok(());
        };
        if core.send(Mail::Space { shard, ask: ask.clone(), responder }).is_ok() {
            match &ask {
                SpaceAsk::Trim { place, .. } => oracle.ask_trim(shard, *place),
                SpaceAsk::SetCursor(cursor) => oracle.ask_cursor(shard, &cursor.name, Some(cursor.address)),
                SpaceAsk::RemoveCursor(name) => oracle.ask_cursor(shard, name, None),
                SpaceAsk::Checkpoint | SpaceAsk::Leave(_) | SpaceAsk::EndCleaning => {}
            }
            self.doing = Doing::Asking { shard, ask, pending };
        }
        Ok(())
    }

    fn asking(
        &mut self,
        shard: ShardId,
        ask: SpaceAsk,
        mut pending: Pending,
        oracle: &mut Oracle,
    ) -> Result<(), String> {
        let done = match Pin::new(&mut pending).poll(&mut Context::from_waker(&self.waker)) {
            Poll::Pending => {
                self.doing = Doing::Asking { shard, ask, pending };
                self.sleeps = true;
                return Ok(());
            }
            Poll::Ready(Reply::Space(Ok(done))) => done,
            Poll::Ready(Reply::Space(Err(SpaceRefusal::Ahead))) => {
                return Err(format!("S4: {ask:?} of {shard:?}: the place of a record is ahead of the log"));
            }
            // Nothing was promised.
            Poll::Ready(Reply::Space(Err(_)) | Reply::CoreDead) => return Ok(()),
            Poll::Ready(other) => return Err(format!("I10: {other:?} answers {ask:?}")),
        };
        match ask {
            SpaceAsk::Trim { place, respect_cursors } => {
                if !respect_cursors && done.trim < place {
                    return Err(format!(
                        "S4: {shard:?} was to be trimmed to {place:?}, and is to {:?}",
                        done.trim
                    ));
                }
                oracle.trimmed(shard, &done);
            }
            SpaceAsk::SetCursor(Cursor { name, .. }) | SpaceAsk::RemoveCursor(name) => {
                oracle.cursor_moved(shard, &name);
            }
            SpaceAsk::Checkpoint | SpaceAsk::Leave(_) | SpaceAsk::EndCleaning => {}
        }
        Ok(())
    }

    fn read(&mut self, scene: &Scene<'life>, oracle: &Oracle) -> Result<(), String> {
        if self.known.is_empty() {
            return Ok(());
        }
        let (id, address) = self.known[self.random.index(self.known.len())];
        look_into_caches(id, address, scene, oracle)?;
        let cores = &scene.directory.cores;
        let core = &cores[self.random.index(cores.len())];
        let Some((pending, responder)) = scene.requests.open() else { return Ok(()) };
        if core.send(Mail::Read { address, responder }).is_ok() {
            self.doing = Doing::Reading { id, address, pending };
        }
        Ok(())
    }

    fn reading(
        &mut self,
        id: u64,
        address: Address,
        mut pending: Pending,
        scene: &Scene<'life>,
        oracle: &Oracle,
    ) -> Result<(), String> {
        let reply = match Pin::new(&mut pending).poll(&mut Context::from_waker(&self.waker)) {
            Poll::Pending => {
                self.doing = Doing::Reading { id, address, pending };
                self.sleeps = true;
                return Ok(());
            }
            Poll::Ready(reply) => reply,
        };
        match reply {
            Reply::Record(Ok(bytes)) if identify(&bytes) == Some(id) => Ok(()),
            // A lost write leaves what an earlier life wrote in the same place: see RELIABILITY.md.
            Reply::Record(Ok(_)) if is_lied_about(address, scene, oracle) => Ok(()),
            Reply::Record(Ok(_)) => {
                Err(format!("P3: a read of record {id} at {address} gave something else"))
            }
            Reply::Record(Err(error)) => explained(&error, id, scene, oracle),
            Reply::CoreDead => Ok(()),
            other => Err(format!("I10: {other:?} answers a read")),
        }
    }
}

/// Looks for a record in the caches of all cores. It is read by mail all the same, so that a case goes the same way with
/// caches and without.
fn look_into_caches(id: u64, address: Address, scene: &Scene<'_>, oracle: &Oracle) -> Result<(), String> {
    for core in &scene.directory.cores {
        let Some(bytes) = scene.directory.cached(core, address) else { continue };
        if identify(&bytes) != Some(id) && !is_lied_about(address, scene, oracle) {
            return Err(format!("P3: a cache has something else than record {id} at {address}"));
        }
        // As the device was told, beside what the table of extents says, at which the cache looks itself.
        let claim = oracle.claim_of(address);
        let is_other = claim.is_some_and(|claim| !address.is_of(claim.generation));
        if is_other || scene.directory.owner_of(address).is_err() {
            return Err(format!("S5: a cache has record {id} at {address}; its extent: {claim:?}"));
        }
    }
    Ok(())
}

fn is_lied_about(address: Address, scene: &Scene<'_>, oracle: &Oracle) -> bool {
    let place = scene.directory.layout.place(address.slot(&oracle.geometry));
    let length = address.slots_hint() * oracle.geometry.slot_bytes();
    let world = lock(scene.world);
    place.is_some_and(|it| {
        let disk = &world.disks[usize::from(it.device.0)].visible;
        let tainted = |taint| disk.is_tainted(it.offset, length, taint);
        tainted(Taint::LIE) || tainted(Taint::DROPPED)
    })
}

/// An error of a read has to have a reason that the device gave.
fn explained(error: &ReadError, id: u64, scene: &Scene<'_>, oracle: &Oracle) -> Result<(), String> {
    let record = oracle.records[id as usize];
    if let ReadError::NotData { address } = error {
        // As above: the old record may be one of those that were never committed.
        return match is_lied_about(*address, scene, oracle) || record.fate == Fate::Gone {
            true => Ok(()),
            false => Err(format!("P1: record {id} ({:?}) cannot be read: {error}", record.fate)),
        };
    }
    if let ReadError::Large { bytes, .. } = error
        && record.is_large
    {
        return match *bytes == u64::from(record.length) {
            true => Ok(()),
            false => Err(format!("P3: record {id} of {} bytes says {bytes}", record.length)),
        };
    }
    if let ReadError::Reclaimed { address } = error
        && ((oracle.may_be_reclaimed(record.shard, *address) && !oracle.is_wanted(&record))
            || oracle.may_have_moved(id, *address))
    {
        return Ok(());
    }
    let world = lock(scene.world);
    let is_explained = match error {
        ReadError::Io { .. } => world.faults.has(Fault::ReadError),
        ReadError::Truncated { .. } => world.faults.has(Fault::Short),
        ReadError::Corrupt { slot, .. } => {
            let slots = oracle.geometry.slots_for(u64::from(record.length) + 8) + 1;
            let place = scene.directory.layout.place(*slot);
            let length = slots * oracle.geometry.slot_bytes();
            place.is_some_and(|place| {
                let disk = &world.disks[usize::from(place.device.0)].visible;
                disk.is_tainted(place.offset, length, Taint::LIE)
                    || disk.is_tainted(place.offset, length, Taint::DROPPED)
            })
        }
        ReadError::Busy { .. } | ReadError::CoreDead { .. } | ReadError::Closed => true,
        // A shard that failed forgets what it never wrote.
        ReadError::NeverWritten { .. } => {
            let failed = |id| scene.directory.shard(id).is_some_and(|shard| shard.failure().is_some());
            failed(record.shard)
        }
        _ => false,
    };
    if is_explained || record.fate == Fate::Gone {
        return Ok(());
    }
    Err(format!("P1: record {id} ({:?}) cannot be read: {error}", record.fate))
}
