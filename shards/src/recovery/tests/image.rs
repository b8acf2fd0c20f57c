//! Store images made by hand, with the encoders and nothing else.

use super::super::{
    RecoveryError, RecoveryOptions, RecoveryReport, RecoverySource, SourceError, recover_store,
};
use crate::{
    address::Address,
    device::Errno,
    format::{
        checksum::StoreSeed,
        extent_header::{ExtentHeader, ExtentState},
        frame::FrameHeader,
        record::{RecordFlags, RecordKind, record_bytes, seal_record, summarise_body},
        superblock::{DeviceEntry, Features, RegionEntry, ShardEntry, Superblock},
    },
    geometry::Geometry,
    ids::*,
    limits::SUPERBLOCK_AREA_BYTES,
};
use std::collections::HashSet;

pub const SLOT: usize = 4096;
pub const SLOTS_PER_EXTENT: u64 = 64;
pub const EXTENTS: u32 = 8;
pub const STORE: StoreId = StoreId(*b"a store of tests");

/// One frame as it was written.
#[derive(Clone, Debug)]
pub struct Written {
    pub header: FrameHeader,
    pub link: u32,
    pub bytes: Vec<u8>,
}

impl Written {
    pub fn slot(&self) -> u64 {
        self.header.base_slot.0
    }
    pub fn start(&self) -> usize {
        self.slot() as usize * SLOT
    }
}

/// Where a shard goes on.
#[derive(Clone, Debug)]
pub struct Stream {
    pub number: u64,
    pub link: u32,
    pub slot: Option<u64>,
    pub extents: Vec<ExtentHeader>,
    pub durable: u64,
    pub oldest: u64,
    pub checkpoint: Option<Address>,
    /// The extent of `extents` that the next frame goes to, if it fits.
    pub current: usize,
}

/// The slots of a store, in memory, and a writer for each shard.
#[derive(Clone)]
pub struct Image {
    pub bytes: Vec<u8>,
    pub superblock: Superblock,
    pub streams: Vec<Stream>,
    pub term: u64,
    pub unreadable: HashSet<u64>,
    pub free: Vec<u32>,
    pub generations: Vec<u32>,
}

impl RecoverySource for Image {
    fn read(&self, slot: SlotIndex, bytes: &mut [u8]) -> Result<(), SourceError> {
        assert!(bytes.len().is_multiple_of(SLOT) && !bytes.is_empty());
        let (start, slots) = (slot.0 as usize * SLOT, (bytes.len() / SLOT) as u64);
        assert!(slot.0 % SLOTS_PER_EXTENT + slots <= SLOTS_PER_EXTENT, "a read leaves its extent");
        if (slot.0..slot.0 + slots).any(|slot| self.unreadable.contains(&slot)) {
            return Err(SourceError::Io { device: DeviceIndex(0), offset: start as u64, errno: Errno(5) });
        }
        let (expected, found) = ((start + bytes.len()) as u64, self.bytes.len() as u64);
        let there = self.bytes.get(start..start + bytes.len());
        let there = there.ok_or(SourceError::Truncated { device: DeviceIndex(0), expected, found })?;
        bytes.copy_from_slice(there);
        Ok(())
    }
}

impl Image {
    pub fn new(shards: usize) -> Self {
        let geometry = Geometry::new(SLOT as u64, SLOT as u64 * SLOTS_PER_EXTENT).unwrap();
        let bytes = u64::from(EXTENTS) * geometry.extent_bytes();
        let superblock = Superblock {
            store: STORE,
            sequence: 1,
            term: Term(1),
            features: Features::default(),
            geometry,
            clean: false,
            device: DeviceIndex(0),
            reach_bytes: 64 << 10,
            created_unix_ns: 0,
            written_unix_ns: 0,
            devices: vec![DeviceEntry { uuid: [1; 16], bytes: SUPERBLOCK_AREA_BYTES + bytes }],
            regions: vec![RegionEntry {
                device: DeviceIndex(0),
                first_extent: ExtentIndex(0),
                extent_count: EXTENTS,
                device_offset: SUPERBLOCK_AREA_BYTES,
            }],
            shards: vec![ShardEntry::default(); shards],
        };
        let stream = Stream {
            number: 0,
            link: 0,
            slot: None,
            extents: Vec::new(),
            durable: 0,
            oldest: 0,
            checkpoint: None,
            current: 0,
        };
        Self {
            bytes: vec![0; bytes as usize],
            superblock,
            streams: vec![stream; shards],
            term: 1,
            unreadable: HashSet::new(),
            free: (0..EXTENTS).rev().collect(),
            generations: vec![0; EXTENTS as usize],
        }
    }

    pub fn geometry(&self) -> Geometry {
        self.superblock.geometry
    }

    pub fn put_header(&mut self, header: &ExtentHeader) {
        let start = self.geometry().header_slot(header.extent).0 as usize * SLOT;
        header.encode_slot(&self.superblock.geometry, &mut self.bytes[start..start + SLOT]);
    }

    pub fn claim(&mut self, shard: usize) -> ExtentHeader {
        let extent = ExtentIndex(self.free.pop().expect("a free extent"));
        self.generations[extent.0 as usize] += 1;
        let stream = &self.streams[shard];
        let header = ExtentHeader {
            store: STORE,
            extent,
            generation: Generation(self.generations[extent.0 as usize]),
            owner: ShardId(shard as u16),
            state: ExtentState::Claimed,
            ordinal: ExtentOrdinal(stream.extents.last().map_or(0, |last| last.ordinal.0 + 1)),
            term: Term(self.term),
            frame_floor: FrameNumber(stream.number),
        };
        self.put_header(&header);
        self.streams[shard].extents.push(header);
        header
    }

    /// Goes on in the extent that was claimed ahead, or claims one.
    fn advance(&mut self, shard: usize) {
        let stream = &self.streams[shard];
        let next = if stream.slot.is_some() { stream.current + 1 } else { stream.current };
        if next == stream.extents.len() {
            self.claim(shard);
        }
        let first = self.geometry().first_frame_slot(self.streams[shard].extents[next].extent);
        let stream = &mut self.streams[shard];
        (stream.current, stream.slot) = (next, Some(first.0));
    }

    /// Makes the next frame of a shard, as if it had been submitted, without writing it.
    pub fn make(&mut self, shard: usize, payloads: &[Vec<u8>]) -> Written {
        let records: Vec<_> = payloads.iter().map(|payload| (RecordKind::DATA, payload.clone())).collect();
        self.make_of(shard, &records)
    }

    /// The same of records of any kind.
    pub fn make_of(&mut self, shard: usize, payloads: &[(RecordKind, Vec<u8>)]) -> Written {
        let body: u64 = payloads.iter().map(|(_, payload)| record_bytes(payload.len() as u64)).sum();
        let used = 128 + body;
        let geometry = self.geometry();
        let slots = geometry.slots_for(used);
        let fits = |slot: u64| {
            !slot.is_multiple_of(SLOTS_PER_EXTENT) && geometry.slots_left(SlotIndex(slot)) >= slots
        };
        if !self.streams[shard].slot.is_some_and(fits) {
            self.advance(shard);
        }
        let stream = &mut self.streams[shard];
        let base = stream.slot.unwrap();
        let generation = stream.extents[stream.current].generation;
        let mut bytes = vec![0; slots as usize * SLOT];
        let mut at = 128;
        for (kind, payload) in payloads {
            bytes[at + 8..at + 8 + payload.len()].copy_from_slice(payload);
            let seed = StoreSeed::new(STORE).record_seed(generation, base * SLOT as u64 + at as u64);
            seal_record(&mut bytes[at..at + 8 + payload.len()], *kind, RecordFlags::NONE, seed);
            at += record_bytes(payload.len() as u64) as usize;
        }
        let summary = summarise_body(&bytes[128..at]).unwrap();
        let header = FrameHeader {
            store: STORE,
            shard: ShardId(shard as u16),
            generation,
            term: Term(self.term),
            number: FrameNumber(stream.number),
            link: stream.link,
            base_slot: SlotIndex(base),
            used_bytes: used as u32,
            records: summary.records,
            records_digest: summary.digest,
            durable: FrameNumber(stream.durable),
            oldest: ExtentOrdinal(stream.oldest),
            checkpoint: stream.checkpoint,
            has_control: summary.has_control,
            lists_from: summary.lists_from,
            unix_ns: 0,
        };
        stream.link = header.encode(&mut bytes);
        stream.number += 1;
        stream.slot = Some(base + slots);
        Written { header, link: stream.link, bytes }
    }

    pub fn put(&mut self, frame: &Written) {
        self.bytes[frame.start()..frame.start() + frame.bytes.len()].copy_from_slice(&frame.bytes);
    }

    /// Writes only some of a frame's sectors.
    pub fn put_sectors(&mut self, frame: &Written, arrived: impl Fn(usize) -> bool) {
        for (sector, bytes) in frame.bytes.chunks(512).enumerate().filter(|(sector, _)| arrived(*sector)) {
            let start = frame.start() + sector * 512;
            self.bytes[start..start + 512].copy_from_slice(bytes);
        }
    }

    pub fn append(&mut self, shard: usize, payloads: &[Vec<u8>]) -> Written {
        let frame = self.make(shard, payloads);
        self.put(&frame);
        frame
    }

    /// Several frames with one record of `bytes` each.
    pub fn append_many(&mut self, shard: usize, frames: u64, bytes: usize) -> Vec<Written> {
        (0..frames)
            .map(|_| {
                let payload = vec![self.streams[shard].number as u8; bytes];
                self.append(shard, &[payload])
            })
            .collect()
    }

    /// Everything so far is durable, and later frames will say so.
    pub fn sync(&mut self, shard: usize) {
        self.streams[shard].durable = self.streams[shard].number;
    }

    pub fn recover_with(&self, options: RecoveryOptions) -> Result<RecoveryReport, RecoveryError> {
        let first = recover_store(self, &self.superblock, options);
        assert_eq!(first, recover_store(self, &self.superblock, options), "recovery is idempotent");
        first
    }

    pub fn recover(&self) -> Result<RecoveryReport, RecoveryError> {
        self.recover_with(RecoveryOptions::default())
    }

    pub fn verify(&self) -> Result<RecoveryReport, RecoveryError> {
        self.recover_with(RecoveryOptions { verify_bodies: true, ..RecoveryOptions::default() })
    }

    pub fn salvage(&self) -> RecoveryReport {
        let options = RecoveryOptions { salvage: true, verify_bodies: true, ..RecoveryOptions::default() };
        self.recover_with(options).unwrap()
    }

    /// Opens the store for writing once more, as `docs/RECOVERY.md` says that it has to be done.
    pub fn reopen(&mut self) -> RecoveryReport {
        let report = self.recover().unwrap();
        self.term = report.highest_term.0 + 1;
        self.superblock.term = Term(self.term);
        self.superblock.sequence += 1;
        self.superblock.clean = false;
        self.superblock.shards = report.shard_entries();
        self.free = report.free_extents.iter().rev().map(|free| free.index.0).collect();
        for free in &report.free_extents {
            self.generations[free.index.0 as usize] = free.generation.0;
        }
        for orphan in report.shards.iter().flat_map(|shard| &shard.orphans) {
            self.free.push(orphan.index.0);
            let mut of_shard = self.streams.iter().flat_map(|stream| &stream.extents);
            let header = *of_shard.rfind(|header| header.extent == orphan.index).unwrap();
            self.put_header(&ExtentHeader { state: ExtentState::Freed, ..header });
        }
        for (stream, shard) in self.streams.iter_mut().zip(&report.shards) {
            stream.number = shard.next_frame.0;
            stream.link = shard.link;
            stream.durable = shard.next_frame.0;
            stream.slot = shard.next_slot.map(|slot| slot.0);
            stream.extents.truncate(shard.extents.len());
            stream.current = shard.used_extents.saturating_sub(1);
            if shard.next_slot.is_none() && shard.used_extents > 0 {
                stream.slot = Some(u64::from(stream.extents[stream.current].extent.0 + 1) * SLOTS_PER_EXTENT);
            }
        }
        report
    }

    pub fn close(&mut self) {
        self.reopen();
        self.superblock.clean = true;
    }
}
