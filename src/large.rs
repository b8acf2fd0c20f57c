//! Reading large records, part by part.

mod parts;

use crate::{
    error::WaitError,
    inspect::{Inspection, Recovered},
    store::{Store, block::Sleeper},
    ticket::Reached,
};
use bytes::Bytes;
use corelog_shards::{
    address::Address,
    directory::Mail,
    format::{
        checksum::StoreSeed,
        manifest::{Manifest, ManifestOf},
        record::{RecordHeader, RecordKind, check_record},
    },
    geometry::Geometry,
    ids::Generation,
    limits::MAILBOX_TRIES_MAX,
    manifest::{Found, ManifestWalk, WalkSetup, WalkStep},
    reads::ReadError,
    recovery::RecoveredShard,
    requests::Reply,
    scan::{Fault, LiveExtents, Run},
    shard::Shard,
    watermark::Durability,
};
use std::{
    future::{Future, poll_fn},
    io,
    pin::pin,
    sync::Arc,
    task::Poll,
};

/// A large record that could not be opened, or read on. Nothing else is ever given in place of its bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LargeReadError {
    /// A part, or the list of parts, could not be read, or was reclaimed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A part, or the list of parts, is not as it was written.
    #[error("the large record at {address}: {fault}; run `verify`")]
    Damage {
        /// The record's.
        address: Address,
        /// What is wrong, and where.
        fault: Box<Fault>,
    },
    /// A record is there, and not a large one: use `read`.
    #[error("the record at {address} is not a large one ({found}); use `read`")]
    NotLarge {
        /// As given.
        address: Address,
        /// What it is.
        found: RecordKind,
    },
    /// It was accepted, and did not reach the device.
    #[error(transparent)]
    Flush(#[from] WaitError),
}

impl Store {
    /// Opens the large record at `address`. If it is not on the device yet, it is brought there first.
    pub fn open_large(&self, address: Address) -> Result<LargeReader<'_>, LargeReadError> {
        if let Some(core) = self.driven_core() {
            return Err(LargeReadError::Read(ReadError::OnCoreThread { core }));
        }
        self.wait_read(self.open_large_async(address))
    }

    /// As [`Store::open_large`], as a future for any executor.
    pub async fn open_large_async(&self, address: Address) -> Result<LargeReader<'_>, LargeReadError> {
        let directory = self.directory();
        let id = directory.owner_of(address)?;
        let why = "its extent belongs to a shard that the store does not have";
        let shard = self.shard(id).ok_or(ReadError::NoSuchAddress { address, why })?;
        let geometry = *directory.layout.geometry();
        if !directory.is_written(shard, address.slot(&geometry))
            && let Some(frame) = shard.seal_for_flush()
        {
            Reached::of(shard, frame, Durability::Written).await.map_err(WaitError::Failed)?;
        }
        let extent = directory.extents.get(address.extent(&geometry));
        let generation = extent.map(|it| it.generation).unwrap_or_default();
        LargeReader::open(Source::Live(self, shard), address, generation).await
    }

    /// Drives a future of a read, for as long as the stall time.
    fn wait_read<T>(
        &self,
        future: impl Future<Output = Result<T, LargeReadError>>,
    ) -> Result<T, LargeReadError> {
        let core = self.reading_core().id();
        let stalled = || Err(LargeReadError::Read(ReadError::Busy { core }));
        Sleeper::wait(&mut pin!(future), self.stall()).unwrap_or_else(stalled)
    }
}

impl Inspection {
    /// Opens the large record at `address`.
    pub fn open_large(&self, address: Address) -> Result<LargeReader<'_>, LargeReadError> {
        let entry = self.owner(address)?;
        let why = "its extent belongs to a shard that the store does not have";
        let shard = self.report().shards.get(usize::from(entry.shard.0));
        let shard = shard.ok_or(ReadError::NoSuchAddress { address, why })?;
        let opening = LargeReader::open(Source::Look(self, shard), address, entry.generation);
        // Its reads are made at once.
        Sleeper::wait(&mut pin!(opening), None).unwrap_or(Err(LargeReadError::Read(ReadError::Closed)))
    }
}

/// Where the parts are read.
#[derive(Clone, Copy, Debug)]
enum Source<'store> {
    Live(&'store Store, &'store Arc<Shard>),
    Look(&'store Inspection, &'store RecoveredShard),
}

impl Source<'_> {
    fn geometry(&self) -> Geometry {
        match self {
            Self::Live(store, _) => *store.directory().layout.geometry(),
            Self::Look(store, _) => store.superblock().geometry,
        }
    }

    fn seed(&self) -> StoreSeed {
        match self {
            Self::Live(store, _) => store.directory().seed,
            Self::Look(store, _) => StoreSeed::new(store.superblock().store),
        }
    }

    fn step(&self, walk: &mut ManifestWalk) -> WalkStep {
        match self {
            Self::Live(store, shard) => {
                walk.step(&LiveExtents { directory: store.directory(), shard, given_up: None })
            }
            Self::Look(_, shard) => walk.step(&Recovered(shard)),
        }
    }

    async fn slots(&self, run: Run) -> Result<Bytes, ReadError> {
        match self {
            Self::Live(store, _) => live_slots(store, run).await,
            Self::Look(store, _) => store.slots(run.slot, run.slots).map(Bytes::from_owner),
        }
    }
}

async fn live_slots(store: &Store, run: Run) -> Result<Bytes, ReadError> {
    let mut tries = 0;
    loop {
        let core = store.reading_core();
        match store.ask(core, |responder| Mail::Run { slot: run.slot, slots: run.slots, responder }) {
            Ok(pending) => {
                return match pending.await {
                    Reply::Run(result) => result.map(Bytes::from_owner),
                    _ => Err(ReadError::CoreDead { core: core.id() }),
                };
            }
            Err(ReadError::Busy { .. }) if tries < MAILBOX_TRIES_MAX => {
                tries += 1;
                rest().await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Gives way once.
async fn rest() {
    let mut has_rested = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_rested, true) {
            return Poll::Ready(());
        }
        std::thread::yield_now();
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A large record that is open for reading: from the beginning as an [`io::Read`] or part by part, and any range of it.
/// Each part is checked when it is read.
///
/// Memory: one part, and the lists that lead to it.
#[derive(Debug)]
pub struct LargeReader<'store> {
    source: Source<'store>,
    address: Address,
    list: Manifest,
    walk: ManifestWalk,
    /// What is read and not taken yet.
    rest: Bytes,
}

impl<'store> LargeReader<'store> {
    async fn open(
        source: Source<'store>,
        address: Address,
        generation: Generation,
    ) -> Result<Self, LargeReadError> {
        let list = read_list(&source, address, generation).await?;
        let walk = ManifestWalk::new(setup(&source), &list, 0);
        Ok(Self { source, address, list, walk, rest: Bytes::new() })
    }

    /// The record's address.
    #[must_use]
    pub const fn address(&self) -> Address {
        self.address
    }

    /// Bytes of the record.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.list.bytes
    }

    /// True for a record without any.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.list.bytes == 0
    }

    /// The next bytes, as many as a part has. `None` behind the last. They are a piece of a read of up to half a
    /// buffer's size, which stays in memory as long as they do.
    pub fn next_part(&mut self) -> Result<Option<Bytes>, LargeReadError> {
        self.check_thread()?;
        let source = self.source;
        block(&source, self.next_part_async())
    }

    /// As [`LargeReader::next_part`], as a future for any executor. Dropping it loses nothing.
    pub async fn next_part_async(&mut self) -> Result<Option<Bytes>, LargeReadError> {
        if !self.rest.is_empty() {
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        let found = next_found(&self.source, &mut self.walk, self.address).await?;
        Ok(found.map(|found| found.payload))
    }

    /// Reads the bytes from `offset` on, as many as fit into `bytes` and there are, and says how many. Only the parts
    /// that hold them are read. The place of [`LargeReader::next_part`] stays where it is.
    pub fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<usize, LargeReadError> {
        self.check_thread()?;
        block(&self.source, self.read_at_async(offset, bytes))
    }

    /// As [`LargeReader::read_at`], as a future for any executor.
    pub async fn read_at_async(&self, offset: u64, bytes: &mut [u8]) -> Result<usize, LargeReadError> {
        let mut walk = ManifestWalk::new(setup(&self.source), &self.list, offset);
        let mut filled = 0;
        while filled < bytes.len() {
            let Some(found) = next_found(&self.source, &mut walk, self.address).await? else { break };
            let room = &mut bytes[filled..];
            let taken = found.payload.len().min(room.len());
            room[..taken].copy_from_slice(&found.payload[..taken]);
            filled += taken;
        }
        Ok(filled)
    }

    fn check_thread(&self) -> Result<(), LargeReadError> {
        match self.source {
            Source::Live(store, _) => match store.driven_core() {
                Some(core) => Err(LargeReadError::Read(ReadError::OnCoreThread { core })),
                None => Ok(()),
            },
            Source::Look(..) => Ok(()),
        }
    }
}

impl io::Read for LargeReader<'_> {
    /// An error holds the [`LargeReadError`].
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            self.rest = self.next_part().map_err(io::Error::other)?.unwrap_or_default();
        }
        let taken = self.rest.split_to(self.rest.len().min(bytes.len()));
        bytes[..taken.len()].copy_from_slice(&taken);
        Ok(taken.len())
    }
}

fn block<T>(
    source: &Source<'_>,
    future: impl Future<Output = Result<T, LargeReadError>>,
) -> Result<T, LargeReadError> {
    match source {
        Source::Live(store, _) => store.wait_read(future),
        // Its reads are made at once.
        Source::Look(..) => {
            Sleeper::wait(&mut pin!(future), None).unwrap_or(Err(LargeReadError::Read(ReadError::Closed)))
        }
    }
}

fn setup(source: &Source<'_>) -> WalkSetup {
    WalkSetup { seed: source.seed(), geometry: source.geometry(), of: ManifestOf::Large }
}

/// Reads the root of the list, which is the record at `address`.
async fn read_list(
    source: &Source<'_>,
    address: Address,
    generation: Generation,
) -> Result<Manifest, LargeReadError> {
    let geometry = source.geometry();
    let slot = address.slot(&geometry);
    let in_slot = address.byte() - geometry.byte_of(slot);
    let in_extent = geometry.slots_left(slot);
    let mut run = Run { slot, slots: address.slots_hint().min(in_extent) };
    let mut bytes = source.slots(run).await?;
    let record = |bytes: &Bytes| bytes.slice((in_slot as usize).min(bytes.len())..);
    if let Some(header) = RecordHeader::peek(&record(&bytes)) {
        let slots = geometry.slots_for(in_slot + header.stride());
        if slots > run.slots && slots <= in_extent {
            run.slots = slots;
            bytes = source.slots(run).await?;
        }
    }
    let damage = |fault| LargeReadError::Damage { address, fault: Box::new(fault) };
    let record = record(&bytes);
    let view = check_record(&record, source.seed().record_seed(generation, address.byte()))
        .map_err(|error| damage(Fault::Record { address, error }))?;
    if view.kind != RecordKind::LARGE_MANIFEST || !view.header().is_root() {
        return Err(LargeReadError::NotLarge { address, found: view.kind });
    }
    Manifest::decode_root(view.payload, ManifestOf::Large)
        .map_err(|error| damage(Fault::Manifest { address, error }))
}

/// The next part. A large record is whole or an error: nothing is passed over.
async fn next_found(
    source: &Source<'_>,
    walk: &mut ManifestWalk,
    address: Address,
) -> Result<Option<Found>, LargeReadError> {
    loop {
        match source.step(walk) {
            WalkStep::Found(found) => return Ok(Some(found)),
            WalkStep::End => return Ok(None),
            WalkStep::Reclaimed(_) => return Err(LargeReadError::Read(ReadError::Reclaimed { address })),
            WalkStep::Fault(fault) => {
                return Err(match fault.fault {
                    Fault::Unreadable(error) => LargeReadError::Read(error),
                    other => LargeReadError::Damage { address, fault: Box::new(other) },
                });
            }
            WalkStep::Need => {
                let Some(run) = walk.ask().or_else(|| walk.wanted()) else { continue };
                let bytes = source.slots(run).await;
                walk.supply(run.slot, bytes);
            }
        }
    }
}
