//! The ways in which a flush ring goes wrong: a test for each, and its broken twin. `docs/WAYS.md` says which test
//! and which mutants belong to which way.

mod acceptance;
mod completing;
mod durability;
mod ending;
mod gathering;
#[cfg(shuttle)]
mod many_threads;
mod placing;
mod space;
mod waiting;

use crate::{
    core::{Core, CoreSetup, Turn},
    device::{
        Verb,
        ram::{MemoryControl, MemoryDevice, MemoryImage},
    },
    directory::CoreHandle,
    extents::ExtentTable,
    format::{
        checksum::StoreSeed,
        record::{RecordKind, check_record},
    },
    geometry::Geometry,
    ids::{CoreId, DeviceIndex, ExtentIndex, FrameNumber, ShardId, StoreId, Term},
    layout::{Layout, RegionRun},
    limits::{BUFFER_BYTES_MIN, SUPERBLOCK_AREA_BYTES},
    memory::{BufferPool, Placement},
    nearness::Nearness,
    open::{RingOptions, ShardResume, open_shard},
    over::OverTable,
    ring::reservation::Placed,
    shard::{Shard, ShardRefusal},
    shard_owner::{FrameOrder, ShardContext, SpaceStart, SyncMethod},
    watermark::Durability,
};
use std::{sync::Arc, time::Duration};

const EXTENTS: u32 = 8;
const EXTENT_BYTES: u64 = 256 << 10;
const STORE: StoreId = StoreId(*b"ways it fails...");
/// A payload of which two fit into no buffer.
const LARGE: usize = 10_000;
/// Turns that any scenario is done in.
const TURNS_MAX: u32 = 1_000;

/// What a scenario may vary.
#[derive(Clone, Copy)]
struct Options {
    order: FrameOrder,
    linger: Option<Duration>,
    quiet: Option<Duration>,
    depth: u32,
    mailbox: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { order: FrameOrder::TailLocalised, linger: None, quiet: None, depth: 64, mailbox: 16 }
    }
}

/// A core with one shard on a device in memory, its turns taken by hand.
struct World {
    core: Core,
    shard: Arc<Shard>,
    image: Arc<MemoryImage>,
    control: Arc<MemoryControl>,
    layout: Arc<Layout>,
    table: Arc<ExtentTable>,
    options: Options,
}

impl World {
    fn open(options: Options) -> Self {
        let geometry = Geometry::new(4096, EXTENT_BYTES).unwrap();
        let run = RegionRun {
            device: DeviceIndex(0),
            first_extent: ExtentIndex(0),
            extents: EXTENTS,
            device_offset: SUPERBLOCK_AREA_BYTES,
        };
        let layout = Arc::new(Layout::new(geometry, vec![run]));
        let image = MemoryImage::new(&[SUPERBLOCK_AREA_BYTES + u64::from(EXTENTS) * EXTENT_BYTES]);
        let table = Arc::new(ExtentTable::new(geometry, EXTENTS));
        Self::start(options, image, layout, table, ShardResume::fresh(ShardId(0)), Term(1))
    }

    fn start(
        options: Options,
        image: Arc<MemoryImage>,
        layout: Arc<Layout>,
        table: Arc<ExtentTable>,
        resume: ShardResume,
        term: Term,
    ) -> Self {
        let (mut device, control) = MemoryDevice::new(&image, options.depth).unwrap();
        let context = ShardContext {
            store: STORE,
            term,
            layout: Arc::clone(&layout),
            extents: Arc::clone(&table),
            near: Nearness::default(),
            over: Arc::new(OverTable::new(term, [], 0)),
            headers: BufferPool::new(4096, 4).unwrap(),
            shard_count: 1,
            order: options.order,
            sync: SyncMethod::Fdatasync,
            checkpoint_bytes: crate::limits::CHECKPOINT_BYTES_DEFAULT,
            quiet: options.quiet,
            discard: false,
            cleaning: Arc::default(),
            cold_of: None,
            to_cold: false,
            linger: options.linger,
            sync_failures: Arc::default(),
        };
        let ring =
            RingOptions { buffer_bytes: BUFFER_BYTES_MIN, buffers: 4, placement: Placement::default() };
        let seed = StoreSeed::new(STORE);
        let owner = open_shard(&mut device, context, seed, ring, 0, resume).unwrap();
        let shard = Arc::clone(owner.shared());
        let (handle, mailbox) = CoreHandle::new(CoreId(0), Arc::clone(shard.ring().bell()), options.mailbox);
        let core = Core::new(CoreSetup {
            device: Box::new(device),
            handle,
            mailbox,
            shards: vec![owner],
            small_reads: BufferPool::new(4096, 4).unwrap(),
            large_reads: BufferPool::new(4096, 4).unwrap(),
        });
        let mut world = Self { core, shard, image, control, layout, table, options };
        // The spare extent is ready before a scenario holds anything back.
        world.turns();
        world
    }

    /// Closes, and opens again where the shard stopped.
    fn reopen(mut self) -> Self {
        assert!(self.core.drain(Duration::from_secs(5)), "it drains");
        let tail = self.core.shards()[0].clean_tail().expect("it is drained");
        let extents = self.shard.extents();
        let last = tail.tail_slot.map(|slot| self.layout.geometry().extent_of(slot));
        let used = extents.iter().position(|it| Some(it.extent) == last).map_or(0, |index| index + 1);
        let resume = ShardResume {
            shard: ShardId(0),
            next_frame: tail.durable,
            next_slot: tail.tail_slot,
            link: tail.tail_link,
            extents,
            used_extents: used,
            claim: None,
            space: SpaceStart::default(),
        };
        let Self { core, image, layout, table, options, .. } = self;
        drop(core);
        Self::start(options, image, layout, table, resume, Term(2))
    }

    /// Turns until the core is idle or closed.
    fn turns(&mut self) {
        for _ in 0..TURNS_MAX {
            if self.core.turn() != Turn::Progress {
                return;
            }
        }
        panic!("spins: {TURNS_MAX} turns and no end");
    }

    fn append(&self, payload: &[u8]) -> Placed {
        self.shard.try_append(payload).unwrap_or_else(|refusal| panic!("refused: {refusal}"))
    }

    /// Asks for all that was accepted, without waiting.
    fn ask(&self, durability: Durability) -> FrameNumber {
        let frame = self.shard.seal_for_flush().expect("something was accepted");
        self.shard.request(frame, durability);
        frame
    }

    /// Appends and brings it to stable media, as a frame of its own.
    fn append_durably(&mut self, payload: &[u8]) -> Placed {
        let placed = self.append(payload);
        self.ask(Durability::Durable);
        self.turns();
        assert!(self.shard.durable.has(placed.frame), "never durable: {placed:?}");
        placed
    }

    fn has(&self, placed: Placed, durability: Durability) -> bool {
        self.shard.mark(durability).is_none_or(|mark| mark.has(placed.frame))
    }

    fn hold(&self, verb: Verb) {
        self.control.hold(verb, true);
    }

    fn let_go(&mut self, verb: Verb) {
        self.control.hold(verb, false);
        self.control.release_all();
        self.turns();
    }

    /// The record is on the device at its address, with these bytes.
    fn expect(&self, placed: Placed, payload: &[u8]) {
        let geometry = self.layout.geometry();
        let slot = placed.address.slot(geometry);
        let place = self.layout.place(slot).expect("an address of this store");
        let start = (place.offset + placed.address.byte() - geometry.byte_of(slot)) as usize;
        let generation = self.table.generation(placed.address.extent(geometry));
        let seed = StoreSeed::new(STORE).record_seed(generation, placed.address.byte());
        let found = self.image.with(place.device, |bytes| {
            let view = check_record(&bytes[start..], seed).map_err(|error| error.to_string())?;
            let is_it = view.kind == RecordKind::DATA && view.payload == payload;
            if is_it { Ok(()) } else { Err(format!("a {} record of other bytes", view.kind)) }
        });
        match found.expect("a device of this store") {
            Ok(()) => {}
            Err(error) => panic!("lost: {placed:?}: {error}"),
        }
    }

    /// What a try to append gives once the ring is full, and what was accepted before.
    fn fill(&self, payload: &[u8]) -> Vec<Placed> {
        let mut accepted = Vec::new();
        loop {
            match self.shard.try_append(payload) {
                Ok(placed) => accepted.push(placed),
                Err(ShardRefusal::Full) => return accepted,
                Err(refusal) => panic!("refused: {refusal}"),
            }
        }
    }
}
