//! Reading records and runs of slots on a core: from a ring while the frame is in memory, else from the device.

mod lengths;

use crate::{
    address::Address,
    device::{Completion, Device, Errno, Instant, Operation, Token},
    directory::{Directory, Mail, MailError},
    extents::ExtentUse,
    format::{
        manifest::{Manifest, ManifestOf},
        record::{RecordError, RecordHeader, RecordKind, RecordView, check_record},
    },
    ids::{CoreId, DeviceIndex, FrameNumber, Generation, ShardId, SlotIndex},
    limits::{READ_WAIT_MS_MAX, RECORD_HEADER_BYTES},
    memory::{BufferPool, PooledBuffer},
    requests::{Reply, Responder},
    ring::owner::CopyOut,
    shard_owner::{InMemory, ShardOwner},
    token::Purpose,
};
use bytes::Bytes;
use lengths::Lengths;
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// Times that a short read is asked for again.
const SHORT_READS_MAX: u32 = 4;
/// How long a read is tried again before it ends with an error.
const READ_WAIT_MAX: Duration = Duration::from_millis(READ_WAIT_MS_MAX);

/// Why a record was not read. Nothing else is ever returned in its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The address lies outside the store, or in an extent that nobody ever claimed.
    #[error("address {address} is not one of this store: {why}")]
    NoSuchAddress {
        /// As given.
        address: Address,
        /// What does not fit.
        why: &'static str,
    },
    /// The extent was freed or reused since the address was made: the record is gone, by the owner's wish.
    #[error("the record at {address} was reclaimed: its extent belongs to a later generation")]
    Reclaimed {
        /// As given.
        address: Address,
    },
    /// What is there fails its checksum: damaged on the device, or the address is not one of a record.
    #[error(
        "damage at {slot:?} of {shard:?} ({device:?}): {error}; run `verify`, and restore the record from elsewhere"
    )]
    Corrupt {
        /// Owner of the extent.
        shard: ShardId,
        /// Slot in which the record begins.
        slot: SlotIndex,
        /// The device of the store.
        device: DeviceIndex,
        /// As given.
        address: Address,
        /// What is wrong.
        error: RecordError,
    },
    /// A good record is there, but not one that an append of the caller made.
    #[error("the record at {address} holds no data: its append was dropped or refused")]
    NotData {
        /// As given.
        address: Address,
    },
    /// It is a large record, which is read part by part.
    #[error(
        "the record at {address} has {bytes} bytes in parts; use `open_large`, which reads them one by one"
    )]
    Large {
        /// As given.
        address: Address,
        /// Bytes of the whole record.
        bytes: u64,
    },
    /// The record was accepted at most: its shard stopped before it was written.
    #[error(
        "the record at {address} was not written before {shard:?} stopped; append it again once the store is reopened"
    )]
    NeverWritten {
        /// Owner of the extent.
        shard: ShardId,
        /// As given.
        address: Address,
    },
    /// The device failed the read.
    #[error("reading {slots} slots at {slot:?} ({device:?}) failed: {errno}")]
    Io {
        /// The device of the store.
        device: DeviceIndex,
        /// First slot.
        slot: SlotIndex,
        /// Slots.
        slots: u64,
        /// Why.
        errno: Errno,
    },
    /// The device ended before the bytes that should be there.
    #[error(
        "reading at {slot:?} ({device:?}) gave {found} of {expected} bytes: the device is shorter than the store"
    )]
    Truncated {
        /// The device of the store.
        device: DeviceIndex,
        /// First slot.
        slot: SlotIndex,
        /// Bytes asked for.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },
    /// No memory for the read.
    #[error("no memory for a read of {bytes} bytes; read less at once, or drop records that are held")]
    NoMemory {
        /// Bytes needed.
        bytes: u64,
    },
    /// The core that was to read is gone.
    #[error("{core:?} died before it answered; reopen the store")]
    CoreDead {
        /// The core.
        core: CoreId,
    },
    /// Waiting on a thread that drives a core would stop that core.
    #[error("this thread drives {core:?}, so it cannot wait for a read; use `read_async`, and turn the core")]
    OnCoreThread {
        /// The core.
        core: CoreId,
    },
    /// The core's mailbox, or the table of requests, is full.
    #[error("{core:?} has no room for another request; wait for an answer first")]
    Busy {
        /// The core.
        core: CoreId,
    },
    /// The record's frame stayed unfinished: an append that holds a reservation in it, or in a frame before it, was
    /// neither committed nor dropped, or the device takes no writes.
    #[error(
        "the record at {address} was not readable within {waited:?}: a reservation in {shard:?} is still open, or its device is stalled; commit or drop the reservation and read again"
    )]
    Unfinished {
        /// Owner of the extent.
        shard: ShardId,
        /// As given.
        address: Address,
        /// How long the read waited.
        waited: Duration,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The store was opened by the process that this one was forked from.
    #[error("the store belongs to the parent process; open it after forking, and in one process only")]
    Forked,
}

#[derive(Debug)]
enum Job {
    Record { address: Address, generation: Generation, shard: ShardId },
    Run,
}

#[derive(Debug)]
struct ReadState {
    job: Job,
    responder: Responder,
    slot: SlotIndex,
    /// Bytes at the front of the slot that are not read: whole sectors before the record.
    skipped: u64,
    short_reads: u32,
}

/// What keeps a read from being started or answered.
#[derive(Clone, Copy, Debug)]
enum Obstacle {
    /// The record's frame is in memory and cannot be read yet.
    Frame(ShardId),
    /// The mailbox of the core that has the record in memory is full.
    Mailbox(CoreId),
}

/// A read that is tried again.
#[derive(Debug)]
struct Deferred {
    address: Address,
    responder: Responder,
    obstacle: Obstacle,
    since: Instant,
}

/// The reads of one core.
#[derive(Debug)]
pub(crate) struct Reads {
    states: Vec<Option<ReadState>>,
    vacant: Vec<usize>,
    lengths: Lengths,
    small: Arc<BufferPool>,
    large: Arc<BufferPool>,
    deferred: VecDeque<Deferred>,
    held: VecDeque<(Token, Operation)>,
}

/// What a read needs of its core.
pub(crate) struct ReadContext<'core> {
    pub directory: &'core Directory,
    pub shards: &'core mut [ShardOwner],
    pub device: &'core mut dyn Device,
    pub core: CoreId,
}

impl Reads {
    pub(crate) fn new(small: Arc<BufferPool>, large: Arc<BufferPool>) -> Self {
        Self {
            states: Vec::new(),
            vacant: Vec::new(),
            lengths: Lengths::unknown(),
            small,
            large,
            deferred: VecDeque::new(),
            held: VecDeque::new(),
        }
    }

    /// Reads that were taken and not answered.
    pub(crate) fn outstanding(&self) -> usize {
        self.states.len() - self.vacant.len() + self.deferred.len()
    }

    /// True if the device has some of them, or is to get them.
    pub(crate) fn has_under_way(&self) -> bool {
        self.states.len() > self.vacant.len()
    }

    /// Answers everything with the death of the core. What the device still holds stays with the device.
    pub(crate) fn abandon(&mut self) {
        self.deferred.clear();
        self.held.clear();
        self.states.clear();
        self.vacant.clear();
    }

    /// True if something waits for another try rather than for a completion.
    pub(crate) fn has_deferred(&self) -> bool {
        !self.deferred.is_empty()
    }

    /// True if the queue had no room for something.
    pub(crate) fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Tries again what was put off. True if anything moved.
    pub(crate) fn pump(&mut self, context: &mut ReadContext<'_>) -> bool {
        let mut progress = false;
        while let Some((token, operation)) = self.held.pop_front() {
            if let Err(rejected) = context.device.submit(token, operation) {
                self.held.push_front((rejected.token, rejected.operation));
                break;
            }
            progress = true;
        }
        if self.deferred.is_empty() {
            return progress;
        }
        let now = context.device.now();
        for _ in 0..self.deferred.len() {
            let Some(Deferred { address, responder, since, .. }) = self.deferred.pop_front() else { break };
            match self.start_record(context, address, responder) {
                Ok(()) => progress = true,
                Err((responder, obstacle)) => {
                    let deferred = Deferred { address, responder, obstacle, since };
                    progress |= self.defer(deferred, now);
                }
            }
        }
        progress
    }

    /// Keeps a read for another try, or ends it if there were tries for too long. True: it ended.
    fn defer(&mut self, read: Deferred, now: Instant) -> bool {
        let waited = now.since(read.since);
        if waited < READ_WAIT_MAX {
            self.deferred.push_back(read);
            return false;
        }
        let address = read.address;
        read.responder.answer(Reply::Record(Err(match read.obstacle {
            Obstacle::Frame(shard) => ReadError::Unfinished { shard, address, waited },
            Obstacle::Mailbox(core) => ReadError::Busy { core },
        })));
        true
    }

    /// Begins a read (the two kinds of mail that are reads).
    pub(crate) fn start(&mut self, context: &mut ReadContext<'_>, mail: Mail) {
        match mail {
            Mail::Read { address, responder } => {
                if let Err((responder, obstacle)) = self.start_record(context, address, responder) {
                    let since = context.device.now();
                    self.deferred.push_back(Deferred { address, responder, obstacle, since });
                }
            }
            Mail::Run { slot, slots, responder } => {
                let bytes = slots * context.directory.layout.geometry().slot_bytes();
                self.submit(context, Job::Run, responder, slot, bytes);
            }
            other => unreachable!("{other:?} is no read"),
        }
    }

    /// Begins the read of a record, or gives it back with what is in its way.
    fn start_record(
        &mut self,
        context: &mut ReadContext<'_>,
        address: Address,
        responder: Responder,
    ) -> Result<(), (Responder, Obstacle)> {
        let (shard, generation) = match owner_of(context.directory, address) {
            Ok(found) => found,
            Err(error) => return answered(responder, error),
        };
        let Some(shared) = context.directory.shard(shard) else {
            let why = "its extent belongs to a shard that the store does not have";
            return answered(responder, ReadError::NoSuchAddress { address, why });
        };
        let geometry = *context.directory.layout.geometry();
        let slot = address.slot(&geometry);
        if context.directory.is_written(shared, slot) {
            let bytes = address.slots_hint().min(geometry.slots_left(slot)) * geometry.slot_bytes();
            self.submit(context, Job::Record { address, generation, shard }, responder, slot, bytes);
            return Ok(());
        }
        if context.directory.runs_on.get(usize::from(shard.0)) != Some(&context.core) {
            return forward(context, shard, address, responder);
        }
        read_ring(context, shard, address, generation, responder)
    }

    fn submit(
        &mut self,
        context: &mut ReadContext<'_>,
        job: Job,
        responder: Responder,
        slot: SlotIndex,
        bytes: u64,
    ) {
        let Some(place) = context.directory.layout.place(slot) else {
            return answer(&job, responder, Err(ReadError::Closed));
        };
        let (skipped, bytes) = match &job {
            Job::Record { address, .. } => {
                let sector = context.device.read_alignment(place.device);
                let in_slot = address.byte() & (context.directory.layout.geometry().slot_bytes() - 1);
                let end = in_slot.saturating_add(self.lengths.longest()).min(bytes).next_multiple_of(sector);
                let skipped = in_slot - in_slot % sector;
                (skipped, end - skipped)
            }
            Job::Run => (0, bytes),
        };
        let Some(buffer) = self.take_buffer(bytes as usize) else {
            return answer(&job, responder, Err(ReadError::NoMemory { bytes }));
        };
        let key = self.vacant.pop().unwrap_or_else(|| {
            self.states.push(None);
            self.states.len() - 1
        });
        self.states[key] = Some(ReadState { job, responder, slot, skipped, short_reads: 0 });
        self.read(context, key, buffer);
    }

    fn take_buffer(&self, bytes: usize) -> Option<PooledBuffer> {
        let pooled = self.small.take(bytes).or_else(|| self.large.take(bytes));
        pooled.or_else(|| PooledBuffer::alone(bytes).ok())
    }

    fn read(&mut self, context: &mut ReadContext<'_>, key: usize, buffer: PooledBuffer) {
        let Some(Some(state)) = self.states.get(key) else { return };
        let Some(place) = context.directory.layout.place(state.slot) else {
            return self.finish(key, Err(ReadError::Closed));
        };
        let offset = place.offset + state.skipped;
        let operation = Operation::Read { device: place.device, offset, buffer };
        if let Err(rejected) = context.device.submit(Purpose::Read(key as u64).into(), operation) {
            self.held.push_back((rejected.token, rejected.operation));
        }
    }

    /// A read ended: answer it, or read on.
    pub(crate) fn completed(&mut self, context: &mut ReadContext<'_>, key: u64, completion: Completion) {
        let key = key as usize;
        let Operation::Read { device, buffer, .. } = completion.operation else { return };
        let Some(Some(state)) = self.states.get_mut(key) else { return };
        let slot = state.slot;
        let geometry = *context.directory.layout.geometry();
        let expected = buffer.len() as u64;
        match completion.result {
            Err(errno) => {
                let slots = geometry.slots_for(expected);
                self.finish(key, Err(ReadError::Io { device, slot, slots, errno }));
            }
            Ok(found) if found < expected => {
                state.short_reads += 1;
                if state.short_reads > SHORT_READS_MAX {
                    return self.finish(key, Err(ReadError::Truncated { device, slot, expected, found }));
                }
                self.read(context, key, buffer);
            }
            Ok(_) => self.decode(context, key, device, buffer),
        }
    }

    fn decode(
        &mut self,
        context: &mut ReadContext<'_>,
        key: usize,
        device: DeviceIndex,
        buffer: PooledBuffer,
    ) {
        let Some(Some(state)) = self.states.get(key) else { return };
        let Job::Record { address, generation, shard } = state.job else {
            return self.finish(key, Ok(Found::Run(buffer)));
        };
        let geometry = *context.directory.layout.geometry();
        let before = (address.byte() & (geometry.slot_bytes() - 1)) - state.skipped;
        let bytes = buffer.as_slice().get(before as usize..).unwrap_or_default();
        let needed = RecordHeader::peek(bytes).map(|header| before + header.stride());
        let in_extent = geometry.slots_left(state.slot) * geometry.slot_bytes() - state.skipped;
        match needed {
            Some(needed) if needed > buffer.len() as u64 && needed <= in_extent => {
                let whole = needed.next_multiple_of(context.device.read_alignment(device));
                match self.take_buffer(whole as usize) {
                    Some(longer) => self.read(context, key, longer),
                    None => self.finish(key, Err(ReadError::NoMemory { bytes: whole })),
                }
            }
            _ => {
                // The extent may have been reused while the read was under way.
                let result = owner_of(context.directory, address).and_then(|_still_there| {
                    let seed = context.directory.seed.record_seed(generation, address.byte());
                    record_reply(bytes, seed, shard, state.slot, device, address)
                });
                if let (Some(end), Ok(_)) = (needed, &result) {
                    self.lengths.note(end - before);
                }
                if let Some(core) = context.directory.cores.get(usize::from(context.core.0)) {
                    core.counters.device_reads.fetch_add(1, Ordering::Relaxed);
                    if let (Some(cache), Ok(payload)) = (core.cache(), &result) {
                        cache.keep(address, generation, payload);
                    }
                }
                self.finish(key, result.map(Found::Record));
            }
        }
    }

    fn finish(&mut self, key: usize, result: Result<Found, ReadError>) {
        let Some(state) = self.states.get_mut(key).and_then(Option::take) else { return };
        self.vacant.push(key);
        answer(&state.job, state.responder, result);
    }
}

fn answered(responder: Responder, error: ReadError) -> Result<(), (Responder, Obstacle)> {
    responder.answer(Reply::Record(Err(error)));
    Ok(())
}

/// Sends a read to the core that has the record in its ring.
fn forward(
    context: &ReadContext<'_>,
    shard: ShardId,
    address: Address,
    responder: Responder,
) -> Result<(), (Responder, Obstacle)> {
    let Some(core) = context.directory.core_of(shard) else { return Ok(()) };
    match core.send(Mail::Read { address, responder }) {
        Err(MailError::Full(Mail::Read { responder, .. })) => Err((responder, Obstacle::Mailbox(core.id()))),
        Err(MailError::Full(mail) | MailError::Dead(mail)) => {
            core.refuse(mail);
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Copies a record from the ring of a shard of this core.
fn read_ring(
    context: &mut ReadContext<'_>,
    shard: ShardId,
    address: Address,
    generation: Generation,
    responder: Responder,
) -> Result<(), (Responder, Obstacle)> {
    let geometry = *context.directory.layout.geometry();
    let slot = address.slot(&geometry);
    let Some(owner) = context.shards.iter_mut().find(|owner| owner.shared().id() == shard) else {
        return Ok(());
    };
    let later = Obstacle::Frame(shard);
    let seed = context.directory.seed.record_seed(generation, address.byte());
    let reply = match owner.in_memory(slot) {
        InMemory::Frame(frame, base) => {
            let at = address.byte() - geometry.byte_of(base);
            match copy_record(owner, frame, at) {
                Ok(record) => record_reply(&record, seed, shard, slot, DeviceIndex(0), address),
                Err(CopyOut::Busy) if owner.shared().failure().is_some() => {
                    Err(ReadError::NeverWritten { shard, address })
                }
                Err(CopyOut::Busy) => {
                    // So that its writers end; the last one out rings the bell of this core.
                    let _sealed_now_or_before = owner.shared().ring().seal();
                    return Err((responder, later));
                }
                Err(_) => Err(ReadError::NoSuchAddress { address, why: "nothing was appended there" }),
            }
        }
        // Written between the two looks: the next turn reads it from the device.
        InMemory::Nowhere if context.directory.is_written(owner.shared(), slot) => {
            return Err((responder, later));
        }
        InMemory::Soon | InMemory::Nowhere if owner.shared().failure().is_some() => {
            Err(ReadError::NeverWritten { shard, address })
        }
        InMemory::Soon => return Err((responder, later)),
        // Or freed, and claimed by somebody else, since the owner was looked up.
        InMemory::Nowhere => Err(owner_of(context.directory, address)
            .err()
            .unwrap_or(ReadError::NoSuchAddress { address, why: "nothing was appended there" })),
    };
    if let Some(core) = context.directory.cores.get(usize::from(context.core.0)) {
        core.counters.ring_reads.fetch_add(1, Ordering::Relaxed);
    }
    responder.answer(Reply::Record(reply));
    Ok(())
}

enum Found {
    Record(Bytes),
    Run(PooledBuffer),
}

fn answer(job: &Job, responder: Responder, result: Result<Found, ReadError>) {
    responder.answer(match (job, result) {
        (Job::Record { .. }, Ok(Found::Record(payload))) => Reply::Record(Ok(payload)),
        (Job::Run, Ok(Found::Run(buffer))) => Reply::Run(Ok(buffer)),
        (Job::Record { .. }, Err(error)) => Reply::Record(Err(error)),
        (Job::Run, Err(error)) => Reply::Run(Err(error)),
        (_, Ok(_)) => Reply::CoreDead,
    });
}

/// The shard and generation that an address belongs to, as of now.
pub(crate) fn owner_of(directory: &Directory, address: Address) -> Result<(ShardId, Generation), ReadError> {
    let extent = address.extent(directory.layout.geometry());
    let no_such = |why| ReadError::NoSuchAddress { address, why };
    let entry = directory.extents.get(extent).ok_or(no_such("it lies behind the end"))?;
    if entry.generation == Generation(0) {
        return Err(no_such("its extent was never used"));
    }
    if entry.usage != ExtentUse::Claimed || !address.is_of(entry.generation) {
        return Err(ReadError::Reclaimed { address });
    }
    Ok((entry.shard, entry.generation))
}

fn copy_record(owner: &ShardOwner, frame: FrameNumber, at: u64) -> Result<Vec<u8>, CopyOut> {
    let copy = |length: usize| {
        let mut bytes = vec![0; length];
        match owner.copy_out(frame, at, &mut bytes) {
            CopyOut::Copied => Ok(bytes),
            other => Err(other),
        }
    };
    let header = copy(RECORD_HEADER_BYTES as usize)?;
    let header = RecordHeader::peek(&header).ok_or(CopyOut::Gone)?;
    // A forged address gives a length of any kind; `copy_out` bounds it by the frame, after this allocation of at
    // most 16 MiB.
    copy(RECORD_HEADER_BYTES as usize + header.length as usize)
}

pub(crate) fn record_reply(
    bytes: &[u8],
    seed: u32,
    shard: ShardId,
    slot: SlotIndex,
    device: DeviceIndex,
    address: Address,
) -> Result<Bytes, ReadError> {
    let view = check_record(bytes, seed).map_err(|error| ReadError::Corrupt {
        shard,
        slot,
        device,
        address,
        error,
    })?;
    payload_of(&view, address)
}

/// The payload of a record that is the caller's. One of a batch counts as such whether or not its batch was committed:
/// nobody was told its address before.
pub fn payload_of(view: &RecordView<'_>, address: Address) -> Result<Bytes, ReadError> {
    match view.kind {
        RecordKind::DATA | RecordKind::BATCH_DATA | RecordKind::MOVED => {
            Ok(Bytes::copy_from_slice(view.payload))
        }
        RecordKind::LARGE_MANIFEST if view.header().is_root() => {
            match Manifest::decode_root(view.payload, ManifestOf::Large) {
                Ok(list) => Err(ReadError::Large { address, bytes: list.bytes }),
                Err(_) => Err(ReadError::NotData { address }),
            }
        }
        _ => Err(ReadError::NotData { address }),
    }
}

#[cfg(all(test, not(loom)))]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::requests::{Pending, Requests};
    use std::{
        future::Future,
        pin::Pin,
        task::{Context, Poll, Waker},
    };

    fn reply(pending: &mut Pending) -> Option<Reply> {
        match Pin::new(pending).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(reply) => Some(reply),
            Poll::Pending => None,
        }
    }

    /// A reservation that was leaked kept every read of its frame waiting for ever.
    #[test]
    fn a_read_that_cannot_be_answered_ends_with_what_was_in_its_way() {
        let mut reads = Reads::new(BufferPool::new(4096, 1).unwrap(), BufferPool::new(4096, 1).unwrap());
        let requests = Arc::new(Requests::default());
        let address = Address::from_bits(0);
        let since = Instant(7);
        for obstacle in [Obstacle::Frame(ShardId(3)), Obstacle::Mailbox(CoreId(2))] {
            let (mut pending, responder) = requests.open().unwrap();
            let read = Deferred { address, responder, obstacle, since };
            let just_before = since.after(READ_WAIT_MAX - Duration::from_nanos(1));
            assert!(!reads.defer(read, just_before));
            assert!(reply(&mut pending).is_none());
            let read = reads.deferred.pop_front().unwrap();
            assert!(reads.defer(read, since.after(READ_WAIT_MAX)));
            assert!(!reads.has_deferred());
            let Some(Reply::Record(Err(error))) = reply(&mut pending) else { panic!("no error") };
            let expected = match obstacle {
                Obstacle::Frame(shard) => ReadError::Unfinished { shard, address, waited: READ_WAIT_MAX },
                Obstacle::Mailbox(core) => ReadError::Busy { core },
            };
            assert_eq!(error, expected);
        }
    }
}
