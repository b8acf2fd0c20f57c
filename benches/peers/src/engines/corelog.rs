//! Ours. A driving thread has an owned core; independent callers share one hosted core.

use crate::{
    engine::{Engine, EngineName, Ground, Load, Place, Reader, Writer},
    error::{Fault, PeerError},
    limits::{CLOSE_MAX, SLEEP_MAX},
    payload::{Payloads, RecordId},
    workloads::read::{InFlight, ReadRun},
};
use corelog::{
    Address, AppendError, Core, Durability, FormatOptions, FrameNumber, Opening, Options, ReadError, Reading,
    Route, Seat, ShardId, Store, TicketId, Turn,
};
use std::{
    future::Future,
    pin::Pin,
    sync::{Mutex, OnceLock, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// Header and padding of a record, at most.
const RECORD_OVERHEAD: u64 = 16;
/// Extents of a shard, more or less, where the default extent is too large for the store.
const EXTENTS_PER_SHARD: u64 = 16;
/// The smallest and the default extent.
const EXTENT_BYTES: (u64, u64) = (1 << 20, 64 << 20);
/// Extents of a shard that are begun, or hold no record.
const SPARE_EXTENTS: u64 = 4;
/// All callers go to one shard, so that they share its syncs.
const LOG: ShardId = ShardId(0);

/// An open store, or one whose cores are still to be started by the threads that will drive them.
#[derive(Debug)]
pub struct Corelog {
    store: OnceLock<Store>,
    opening: Mutex<Option<Opening>>,
    seats: Mutex<Vec<Option<Seat>>>,
}

impl Corelog {
    /// Starts a core on this thread. The first to come waits for all, and lets the others have the store.
    fn start(&self, number: u16) -> Result<(Core, &Store), Fault> {
        let seat = {
            let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
            seats.get_mut(usize::from(number)).and_then(Option::take).ok_or("there is no such seat")?
        };
        // A host that does not let it be pinned costs speed, nothing else.
        let _is_pinned = seat.pin();
        let core = seat.start()?;
        let mut opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opening) = opening.take() {
            let _first = self.store.set(opening.store()?);
        }
        drop(opening);
        Ok((core, self.store()?))
    }

    fn store(&self) -> Result<&Store, Fault> {
        self.store.get().ok_or_else(|| "the store has not been opened by its cores".into())
    }
}

impl Engine for Corelog {
    const NAME: EngineName = EngineName::Corelog;
    type Writer<'engine> = CorelogWriter<'engine>;
    type Reader<'engine> = CorelogReader<'engine>;

    fn open(ground: &Ground<'_>) -> Result<Self, Fault> {
        let path = ground.folder.join("store.corelog");
        let cores = match ground.load {
            Load::Driven => ground.writers as u32,
            Load::Independent => 1,
        };
        if ground.is_new()? {
            Store::format(&[&path], &shape(ground.room(RECORD_OVERHEAD), cores))?;
        }
        let options = Options::default().cores(cores);
        let mut engine = Self { store: OnceLock::new(), opening: Mutex::default(), seats: Mutex::default() };
        match ground.load {
            Load::Driven => {
                let mut opening = Store::open_owned(&[&path], &options)?;
                engine.seats = Mutex::new(opening.take_seats().into_iter().map(Some).collect());
                engine.opening = Mutex::new(Some(opening));
            }
            Load::Independent => engine.store = OnceLock::from(Store::open(&path, &options)?),
        }
        Ok(engine)
    }

    fn writer(&self, number: u16) -> Result<CorelogWriter<'_>, Fault> {
        if let Some(store) = self.store.get()
            && self.seats.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
        {
            return Ok(CorelogWriter { store, core: None, frame: FrameNumber(0), last: None });
        }
        let (core, store) = self.start(number)?;
        Ok(CorelogWriter { store, core: Some(core), frame: FrameNumber(0), last: None })
    }

    fn reader(&self) -> Result<CorelogReader<'_>, Fault> {
        Ok(CorelogReader { store: self.store()? })
    }

    fn close(self) -> Result<(), Fault> {
        // Seats that nobody took, or the store that they made.
        drop((self.seats, self.opening));
        match self.store.into_inner() {
            Some(store) => Ok(store.close()?),
            None => Ok(()),
        }
    }

    fn read_in_flight(&self, work: &InFlight<'_>) -> Result<ReadRun, PeerError> {
        let of = PeerError::of(Self::NAME);
        let (core, store) = self.start(0).map_err(&of)?;
        let mut core = OwnedCore(core);
        let found = keep_in_flight(&mut core.0, store, work);
        drop(core);
        found
    }
}

/// A store with room for so many bytes of log.
fn shape(log_bytes: u64, shards: u32) -> FormatOptions {
    let share = (log_bytes / u64::from(shards) / EXTENTS_PER_SHARD).max(1);
    let extent_bytes = (1 << share.ilog2()).clamp(EXTENT_BYTES.0, EXTENT_BYTES.1);
    let spare = log_bytes / 8 + extent_bytes * SPARE_EXTENTS * u64::from(shards);
    let size = (log_bytes + spare).next_multiple_of(extent_bytes);
    FormatOptions::sized(size).shards(shards).extent_bytes(extent_bytes)
}

/// Closed when dropped, within a bound.
#[derive(Debug)]
struct OwnedCore(Core);

impl Drop for OwnedCore {
    fn drop(&mut self) {
        if !self.0.close(CLOSE_MAX) {
            eprintln!("core {} did not close in time", self.0.id());
        }
    }
}

/// A thread's way to append: its own core, or a client of a hosted one.
#[derive(Debug)]
pub struct CorelogWriter<'engine> {
    store: &'engine Store,
    core: Option<Core>,
    /// The frame of the last append: when the next goes to another, the core has something to submit.
    frame: FrameNumber,
    last: Option<TicketId>,
}

impl Writer for CorelogWriter<'_> {
    #[inline]
    fn append(&mut self, _id: RecordId, record: &[u8]) -> Result<Place, Fault> {
        let ticket = match &mut self.core {
            None => self.store.append_to(Route::Shard(LOG), record)?.id(),
            Some(core) => loop {
                match core.append(ShardId(core.id().0), record) {
                    Ok(ticket) => {
                        if ticket.frame != self.frame {
                            self.frame = ticket.frame;
                            turn(core)?;
                        }
                        break ticket;
                    }
                    Err(AppendError::Full { .. }) => work(core, Some(SLEEP_MAX))?,
                    Err(error) => return Err(error.into()),
                }
            },
        };
        self.last = Some(ticket);
        Ok(Place { log: 0, at: ticket.address.to_bits() })
    }

    fn sync(&mut self) -> Result<(), Fault> {
        let Some(last) = self.last.take().and_then(|last| self.store.ticket(last)) else { return Ok(()) };
        let Some(core) = &mut self.core else { return Ok(last.wait(Durability::Durable)?) };
        last.request(Durability::Durable);
        while !last.has_reached(Durability::Durable) {
            if let Some(failure) = self.store.shard(last.shard()).and_then(|shard| shard.failure()) {
                return Err(failure.into());
            }
            // What is waited for comes from this core alone, so no timer is needed.
            work(core, None)?;
        }
        Ok(())
    }
}

impl Drop for CorelogWriter<'_> {
    fn drop(&mut self) {
        drop(self.core.take().map(OwnedCore));
    }
}

/// Lets the core do what there is, and sleep if there is nothing.
fn work(core: &mut Core, limit: Option<Duration>) -> Result<(), Fault> {
    match core.turn_or_wait(limit) {
        Turn::Closed => Err("the core was closed".into()),
        Turn::Progress | Turn::Idle => Ok(()),
    }
}

fn turn(core: &mut Core) -> Result<(), Fault> {
    match core.turn() {
        Turn::Closed => Err("the core was closed".into()),
        Turn::Progress | Turn::Idle => Ok(()),
    }
}

/// Reads one record at a time, from any thread.
#[derive(Debug)]
pub struct CorelogReader<'engine> {
    store: &'engine Store,
}

impl Reader for CorelogReader<'_> {
    fn read(&mut self, _id: RecordId, place: Place, record: &mut Vec<u8>) -> Result<bool, Fault> {
        let found = self.store.read(Address::from_bits(place.at))?;
        record.clear();
        record.extend_from_slice(&found);
        Ok(true)
    }
}

/// A read under way, and what it has to give.
type UnderWay = (Reading, RecordId);

/// One thread with its core keeps the reads under way.
fn keep_in_flight(core: &mut Core, store: &Store, reads: &InFlight<'_>) -> Result<ReadRun, PeerError> {
    let of = PeerError::of(Corelog::NAME);
    let mut payloads = Payloads::new(reads.record_bytes);
    let mut under_way: Vec<Option<UnderWay>> = (0..reads.in_flight).map(|_| None).collect();
    let mut context = Context::from_waker(Waker::noop());
    let mut run = ReadRun::default();
    let mut next = reads.records.iter();
    let began = Instant::now();
    let mut is_over = false;
    loop {
        let mut has_some = false;
        for slot in &mut under_way {
            if let Some((reading, id)) = slot {
                let Poll::Ready(output) = Pin::new(reading).poll(&mut context) else {
                    has_some = true;
                    continue;
                };
                let found = output.map_err(|error| of(error.into()))?;
                if found != payloads.of(*id) {
                    return Err(PeerError::Lost { engine: Corelog::NAME, id: *id });
                }
                run.reads += 1;
                *slot = None;
            }
            if !is_over && let Some(kept) = next.next() {
                *slot = Some(begin(store, kept.place, kept.id).map_err(|error| of(error.into()))?);
                has_some = true;
            }
        }
        if !has_some {
            run.seconds = began.elapsed().as_secs_f64();
            return Ok(run);
        }
        // All of them come from this core.
        work(core, None).map_err(&of)?;
        is_over = began.elapsed() >= reads.time;
    }
}

fn begin(store: &Store, place: Place, id: RecordId) -> Result<UnderWay, ReadError> {
    Ok((store.read_async(Address::from_bits(place.at))?, id))
}
