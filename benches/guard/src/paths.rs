//! The paths that are counted: each on one thread, with a device that stores nothing and a core that is turned by hand,
//! so that every run does the same.

use crate::{
    caching::{self, Caching},
    error::GuardError,
};
use bytes::Bytes;
use corelog_shards::{
    address::Address,
    core::{Core, Turn},
    device::null::NullOptions,
    directory::{Mail, MailError, WhenFull},
    format::{
        checksum::StoreSeed,
        frame::FrameHeader,
        record::{RecordFlags, RecordKind, seal_record, summarise_body},
    },
    geometry::Geometry,
    ids::{ExtentOrdinal, FrameNumber, Generation, ShardId, SlotIndex, StoreId, Term},
    limits::{
        BUFFER_BYTES_DEFAULT, EXTENT_BYTES_DEFAULT, FRAME_HEADER_BYTES, RING_BUFFERS_DEFAULT,
        SLOT_BYTES_DEFAULT,
    },
    memory::Placement,
    null_core::null_core,
    open::RingOptions,
    recovery::{BodyFact, check_body},
    requests::{Pending, Reply, Requests, Responder},
    shard::{Shard, ShardRefusal},
    waiting::Reached,
    watermark::Durability,
};
use std::{
    future::Future,
    hint::black_box,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

/// Counted calls of a path's work, after one that is not counted and leaves every list with its memory.
pub const ROUNDS: u64 = 20;
/// Appends of one round.
const APPENDS: u64 = 2_000;
/// Requests by mail that are under way at a time, and records that wait in one group.
const GROUP: usize = 16;
/// Groups of one round.
const GROUPS: u64 = 50;
/// Turns that a core needs at the most until it is idle.
const TURNS_MAX: u32 = 100;
/// Payload of the records in the frame that is decoded.
const DECODED_PAYLOAD_BYTES: usize = 256;
const DECODED_RECORDS: u64 = 100;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    ReserveAndCommit,
    LocalAppend64,
    LocalAppend1024,
    OwnerAppend64,
    RoutedAppend,
    DurableAckAlone,
    DurableAckInGroup,
    ReadHit,
    CachedRead,
    FrameDecode,
}

impl Path {
    pub const ALL: [Self; 10] = [
        Self::ReserveAndCommit,
        Self::LocalAppend64,
        Self::LocalAppend1024,
        Self::OwnerAppend64,
        Self::RoutedAppend,
        Self::DurableAckAlone,
        Self::DurableAckInGroup,
        Self::ReadHit,
        Self::CachedRead,
        Self::FrameDecode,
    ];

    /// As in the file of counts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReserveAndCommit => "reserve-and-commit-64",
            Self::LocalAppend64 => "local-append-64",
            Self::LocalAppend1024 => "local-append-1024",
            Self::OwnerAppend64 => "owner-append-64",
            Self::RoutedAppend => "routed-append-64",
            Self::DurableAckAlone => "durable-ack-of-1",
            Self::DurableAckInGroup => "durable-ack-of-16",
            Self::ReadHit => "read-hit-1024",
            Self::CachedRead => "cached-read-1024",
            Self::FrameDecode => "frame-decode-of-100",
        }
    }

    /// In words.
    pub const fn what(self) -> &'static str {
        match self {
            Self::ReserveAndCommit => {
                "a record of 64 B, its room claimed and committed, the owner's share with it"
            }
            Self::LocalAppend64 => "the same with the payload copied",
            Self::LocalAppend1024 => "the same of 1 KiB",
            Self::OwnerAppend64 => "64 B again, by the thread that drives the core, in runs",
            Self::RoutedAppend => "an append of 64 B by mail, 16 at a time, until the answer is there",
            Self::DurableAckAlone => "a record of 64 B, appended and durable, alone in its frame",
            Self::DurableAckInGroup => "the same, 16 waiting for one frame",
            Self::ReadHit => "a record of 1 KiB, read from the ring by mail",
            Self::CachedRead => "a record of 1 KiB that the cache holds, its extent looked at",
            Self::FrameDecode => "a record of 256 B in a frame of 100, checked as recovery does",
        }
    }

    /// Operations of one round.
    pub const fn operations(self) -> u64 {
        match self {
            Self::ReserveAndCommit | Self::LocalAppend64 | Self::LocalAppend1024 | Self::OwnerAppend64 => {
                APPENDS
            }
            Self::RoutedAppend | Self::DurableAckInGroup | Self::ReadHit => GROUPS * GROUP as u64,
            Self::DurableAckAlone => GROUPS,
            Self::CachedRead => caching::READS,
            Self::FrameDecode => DECODED_RECORDS,
        }
    }

    /// In the steady state it allocates nothing, on any machine. What is read gets memory of its own.
    pub const fn may_allocate(self) -> bool {
        matches!(self, Self::ReadHit)
    }

    /// It asks the kernel for nothing but, for each frame, the time. Valgrind counts that, which costs no system call
    /// outside of it; a frame of one record shows it.
    pub const fn may_enter_the_kernel(self) -> bool {
        matches!(self, Self::DurableAckAlone | Self::DurableAckInGroup)
    }

    /// Does the path's work: once, and then `rounds` times within [`counted_part`].
    pub fn run(self, rounds: u64) -> Result<(), GuardError> {
        if self == Self::FrameDecode {
            return of_rounds(rounds, &mut Decoding::new());
        }
        if self == Self::CachedRead {
            return of_rounds(rounds, &mut Caching::new());
        }
        let mut bench = Bench::new(self)?;
        of_rounds(rounds, &mut bench)
    }
}

/// Work that is counted.
pub trait Work {
    /// Before each round, uncounted.
    fn prepare(&mut self) -> Result<(), GuardError>;

    fn round(&mut self) -> Result<(), GuardError>;
}

fn of_rounds(rounds: u64, work: &mut dyn Work) -> Result<(), GuardError> {
    work.prepare()?;
    work.round()?;
    for _ in 0..rounds {
        work.prepare()?;
        counted_part(work)?;
    }
    Ok(())
}

/// Callgrind counts what happens in this function, by its name.
#[inline(never)]
fn counted_part(work: &mut dyn Work) -> Result<(), GuardError> {
    // Looked at behind the call, so that it is a call, and not a jump that ends the function.
    black_box(work.round())
}

/// A core of its own, driven by hand.
struct Bench {
    path: Path,
    core: Core,
    shard: Arc<Shard>,
    requests: Arc<Requests>,
    payload: Bytes,
    /// Records that the ring still holds.
    held: Vec<Address>,
    /// Under way; empty between uses, with its memory.
    pending: Vec<Pending>,
}

impl Bench {
    fn new(path: Path) -> Result<Self, GuardError> {
        let ring = RingOptions {
            buffer_bytes: BUFFER_BYTES_DEFAULT,
            buffers: RING_BUFFERS_DEFAULT,
            // Huge pages come or do not; ordinary ones are always the same.
            placement: Placement::default(),
        };
        let (core, shard) = null_core(NullOptions::default(), ring)?;
        let bytes = if matches!(path, Path::LocalAppend1024 | Path::ReadHit) { 1024 } else { 64 };
        Ok(Self {
            path,
            core,
            shard,
            requests: Arc::default(),
            payload: Bytes::from(vec![0x5a; bytes]),
            held: Vec::new(),
            pending: Vec::with_capacity(GROUP),
        })
    }

    fn astray(&self, what: &'static str) -> GuardError {
        GuardError::Astray { path: self.path.name(), what }
    }

    /// Appends, and turns the core whenever a frame is full, as a server's core does.
    fn append(
        &mut self,
        mut place: impl FnMut(&mut Core, &Shard, &[u8]) -> Result<FrameNumber, ShardRefusal>,
    ) -> Result<(), GuardError> {
        let mut last = None;
        for _ in 0..APPENDS {
            let frame = loop {
                match place(&mut self.core, &self.shard, black_box(&self.payload)) {
                    Ok(frame) => break frame,
                    Err(ShardRefusal::Full) => {
                        let _progress = self.core.turn();
                    }
                    Err(refusal) => return Err(refusal.into()),
                }
            };
            if last.replace(frame) != Some(frame) {
                let _progress = self.core.turn();
            }
        }
        Ok(())
    }

    /// Sends a group of requests, turns the core, and takes the answers.
    fn by_mail(
        &mut self,
        mail: impl Fn(&Self, usize, Responder) -> Mail,
        is_right: impl Fn(&Reply) -> bool,
    ) -> Result<(), GuardError> {
        for _ in 0..GROUPS {
            for index in 0..GROUP {
                let (pending, responder) =
                    self.requests.open().ok_or_else(|| self.astray("the table of requests is full"))?;
                match self.core.handle().send(mail(self, index, responder)) {
                    Ok(()) => self.pending.push(pending),
                    Err(MailError::Full(_) | MailError::Dead(_)) => {
                        return Err(self.astray("mail was not taken"));
                    }
                }
            }
            let _progress = self.core.turn();
            let mut context = Context::from_waker(Waker::noop());
            while let Some(mut pending) = self.pending.pop() {
                match Pin::new(&mut pending).poll(&mut context) {
                    Poll::Ready(reply) if is_right(&reply) => drop(black_box(reply)),
                    Poll::Ready(_) => return Err(self.astray("another answer came")),
                    Poll::Pending => return Err(self.astray("no answer came")),
                }
            }
        }
        Ok(())
    }

    /// Groups of `waiting` records that are appended and become durable together.
    fn durably(&mut self, waiting: usize) -> Result<(), GuardError> {
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..GROUPS {
            let shard = &self.shard;
            let mut frames = [FrameNumber(0); GROUP];
            for frame in &mut frames[..waiting] {
                *frame = shard.try_append(black_box(&self.payload))?.frame;
            }
            let mut group = frames.map(|frame| Reached::of(shard, frame, Durability::Durable));
            let mut turns = 0;
            for reached in &mut group[..waiting] {
                if let Poll::Ready(early) = Pin::new(reached).poll(&mut context) {
                    early?;
                }
            }
            for reached in &mut group[..waiting] {
                loop {
                    match Pin::new(&mut *reached).poll(&mut context) {
                        Poll::Ready(outcome) => break outcome?,
                        Poll::Pending if turns == TURNS_MAX => return Err(self.astray("it is never durable")),
                        Poll::Pending => {
                            let _progress = self.core.turn();
                            turns += 1;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

impl Work for Bench {
    fn prepare(&mut self) -> Result<(), GuardError> {
        for _ in 0..TURNS_MAX {
            if self.core.turn() != Turn::Progress {
                break;
            }
        }
        if self.path == Path::ReadHit && self.held.is_empty() {
            for _ in 0..GROUP {
                let placed = self.shard.try_append(&self.payload)?;
                self.held.push(placed.address);
            }
        }
        Ok(())
    }

    fn round(&mut self) -> Result<(), GuardError> {
        match self.path {
            Path::ReserveAndCommit => self.append(|_, shard, payload| {
                let reservation = shard.try_reserve(payload.len())?;
                Ok(reservation.commit(RecordKind::DATA, RecordFlags::NONE).frame)
            }),
            Path::LocalAppend64 | Path::LocalAppend1024 => {
                self.append(|_, shard, payload| shard.try_append(payload).map(|placed| placed.frame))
            }
            Path::OwnerAppend64 => self.append(|core, shard, payload| {
                let appended = core.append_here(shard.id(), payload).unwrap_or(Err(ShardRefusal::Closed));
                appended.map(|placed| placed.frame)
            }),
            Path::RoutedAppend => self.by_mail(
                |bench, _, responder| Mail::Append {
                    shard: ShardId(0),
                    payload: bench.payload.clone(),
                    when_full: WhenFull::Wait,
                    responder,
                },
                |reply| matches!(reply, Reply::Appended(Ok(_))),
            ),
            Path::DurableAckAlone => self.durably(1),
            Path::DurableAckInGroup => self.durably(GROUP),
            Path::ReadHit => self.by_mail(
                |bench, index, responder| Mail::Read { address: bench.held[index], responder },
                |reply| matches!(reply, Reply::Record(Ok(payload)) if payload.len() == 1024),
            ),
            Path::CachedRead | Path::FrameDecode => Err(self.astray("it needs no core")),
        }
    }
}

/// A frame in memory, and what it has to be.
struct Decoding {
    frame: Vec<u8>,
    geometry: Geometry,
    seed: StoreSeed,
}

impl Decoding {
    fn new() -> Self {
        // Constants that a store can have, so that the geometry is one.
        let geometry =
            Geometry::new(SLOT_BYTES_DEFAULT, EXTENT_BYTES_DEFAULT).unwrap_or_else(|error| panic!("{error}"));
        let store = StoreId([7; 16]);
        let (seed, generation, base_slot) = (StoreSeed::new(store), Generation(1), SlotIndex(1));
        let head = FRAME_HEADER_BYTES as usize;
        let stride = 8 + DECODED_PAYLOAD_BYTES;
        let mut frame = vec![0x5a; head + stride * DECODED_RECORDS as usize];
        let first_byte = geometry.byte_of(base_slot) + FRAME_HEADER_BYTES;
        for (index, record) in frame[head..].chunks_exact_mut(stride).enumerate() {
            let place = seed.record_seed(generation, first_byte + (index * stride) as u64);
            seal_record(record, RecordKind::DATA, RecordFlags::NONE, place);
        }
        let body = summarise_body(&frame[head..]).unwrap_or_else(|error| panic!("{error}"));
        let header = FrameHeader {
            store,
            shard: ShardId(0),
            generation,
            term: Term(1),
            number: FrameNumber(3),
            link: 0,
            base_slot,
            used_bytes: frame.len() as u32,
            records: body.records,
            records_digest: body.digest,
            durable: FrameNumber(2),
            oldest: ExtentOrdinal(0),
            checkpoint: None,
            has_control: body.has_control,
            lists_from: body.lists_from,
            unix_ns: 0,
        };
        header.encode(&mut frame);
        Self { frame, geometry, seed }
    }
}

impl Work for Decoding {
    fn prepare(&mut self) -> Result<(), GuardError> {
        Ok(())
    }

    fn round(&mut self) -> Result<(), GuardError> {
        let astray = |what| GuardError::Astray { path: Path::FrameDecode.name(), what };
        let frame = black_box(self.frame.as_slice());
        let found = FrameHeader::decode(frame).map_err(|_| astray("the header is not one"))?;
        match check_body(&found.header, frame, &self.geometry, self.seed) {
            BodyFact::Good => Ok(()),
            _ => Err(astray("the records are not good")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::Path;

    #[test]
    fn every_path_does_what_it_is_to_count() {
        for path in Path::ALL {
            path.run(2).unwrap_or_else(|error| panic!("{}: {error}", path.name()));
        }
    }
}
