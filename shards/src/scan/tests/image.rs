//! One shard's log, made by hand, and a driver that reads it from memory.

use super::super::*;
use crate::{
    device::Errno,
    format::{
        checksum::StoreSeed,
        frame::FrameHeader,
        record::{RecordFlags, RecordKind, record_bytes, seal_record, summarise_body},
    },
    ids::{DeviceIndex, Term},
    reads::ReadError,
};
use std::collections::HashSet;

pub const SLOT: usize = 4096;
pub const SLOTS_PER_EXTENT: u64 = 64;
pub const STORE: StoreId = StoreId(*b"scans in a test!");
pub const SHARD: ShardId = ShardId(3);

/// A record to write, or as it came out.
pub type Payload = Vec<u8>;

pub fn geometry() -> Geometry {
    Geometry::new(SLOT as u64, SLOT as u64 * SLOTS_PER_EXTENT).unwrap()
}

#[derive(Clone)]
pub struct Image {
    pub bytes: Vec<u8>,
    /// By ordinal, from `first_ordinal`.
    pub extents: Vec<SequencedExtent>,
    pub first_ordinal: u64,
    pub slot: u64,
    pub number: u64,
    pub link: u32,
    pub term: u64,
    pub unreadable: HashSet<u64>,
    /// Base slots of the frames.
    pub frames: Vec<u64>,
    pub addresses: Vec<Address>,
    pub payloads: Vec<Payload>,
    /// By ordinal, of the extents that take no more.
    pub frames_end: Vec<u64>,
}

impl ExtentSequence for Image {
    fn extent_at(&self, ordinal: ExtentOrdinal) -> Option<SequencedExtent> {
        self.extents.get(usize::try_from(ordinal.0.checked_sub(self.first_ordinal)?).unwrap()).copied()
    }
    fn frames_end(&self, ordinal: ExtentOrdinal) -> Option<FrameNumber> {
        let place = usize::try_from(ordinal.0.checked_sub(self.first_ordinal)?).unwrap();
        self.frames_end.get(place).copied().map(FrameNumber)
    }

    fn ordinals(&self) -> Range<u64> {
        self.first_ordinal..self.first_ordinal + self.extents.len() as u64
    }

    fn ordinal_after(&self, ordinal: ExtentOrdinal) -> Option<ExtentOrdinal> {
        let next = (ordinal.0 + 1).max(self.first_ordinal);
        self.ordinals().contains(&next).then_some(ExtentOrdinal(next))
    }
}

impl Image {
    /// Room for `extents` extents; they are claimed from the last to the first, so that order in the store is not
    /// order in the log.
    pub fn new(extents: usize) -> Self {
        let mut image = Self {
            bytes: vec![0; extents * SLOTS_PER_EXTENT as usize * SLOT],
            extents: Vec::new(),
            first_ordinal: 0,
            slot: 0,
            number: 0,
            link: 0,
            term: 1,
            unreadable: HashSet::new(),
            frames: Vec::new(),
            addresses: Vec::new(),
            payloads: Vec::new(),
            frames_end: Vec::new(),
        };
        image.claim();
        image
    }

    fn room(&self) -> usize {
        self.bytes.len() / SLOT / SLOTS_PER_EXTENT as usize
    }

    pub fn claim(&mut self) {
        let index = self.room() - 1 - self.extents.len();
        let extent = ExtentIndex(u32::try_from(index).unwrap());
        self.extents.push(SequencedExtent { extent, generation: Generation(5 + index as u32) });
        self.slot = geometry().first_frame_slot(extent).0;
    }

    pub fn append(&mut self, payloads: &[Payload]) {
        let records: Vec<_> = payloads.iter().map(|payload| (RecordKind::DATA, payload.as_slice())).collect();
        self.append_kinds(&records);
    }

    pub fn append_kinds(&mut self, records: &[(RecordKind, &[u8])]) {
        let body: u64 = records.iter().map(|(_, payload)| record_bytes(payload.len() as u64)).sum();
        let used = 128 + body;
        let slots = geometry().slots_for(used);
        if self.slot.is_multiple_of(SLOTS_PER_EXTENT) || geometry().slots_left(SlotIndex(self.slot)) < slots {
            self.claim();
        }
        let generation = self.extents.last().unwrap().generation;
        let mut bytes = vec![0; slots as usize * SLOT];
        let mut at = 128;
        for (kind, payload) in records {
            let byte = self.slot * SLOT as u64 + at as u64;
            let end = at + 8 + payload.len();
            bytes[at + 8..end].copy_from_slice(payload);
            let seed = StoreSeed::new(STORE).record_seed(generation, byte);
            seal_record(&mut bytes[at..end], *kind, RecordFlags::NONE, seed);
            if *kind == RecordKind::DATA {
                self.addresses.push(Address::new(&geometry(), byte, generation, payload.len() as u64));
                self.payloads.push(payload.to_vec());
            }
            at += record_bytes(payload.len() as u64) as usize;
        }
        let summary = summarise_body(&bytes[128..at]).unwrap();
        let header = FrameHeader {
            store: STORE,
            shard: SHARD,
            generation,
            term: Term(self.term),
            number: FrameNumber(self.number),
            link: self.link,
            base_slot: SlotIndex(self.slot),
            used_bytes: used as u32,
            records: summary.records,
            records_digest: summary.digest,
            durable: FrameNumber(0),
            oldest: ExtentOrdinal(0),
            checkpoint: None,
            has_control: summary.has_control,
            lists_from: summary.lists_from,
            unix_ns: 1_000 + self.number,
        };
        self.link = header.encode(&mut bytes);
        self.frames.push(self.slot);
        let start = self.slot as usize * SLOT;
        self.bytes[start..start + bytes.len()].copy_from_slice(&bytes);
        self.number += 1;
        self.slot += slots;
    }

    /// Frames of several sizes over at least so many extents, some of them longer than a read.
    pub fn varied(extents: usize, frames: usize) -> Self {
        let mut image = Self::new(4 * extents);
        for index in 0..frames {
            let payloads: Vec<Payload> = (0..1 + index % 7)
                .map(|part| vec![(index * 7 + part) as u8; (index * 977 + part * 3001) % 12_000])
                .collect();
            image.append(&payloads);
        }
        assert!(image.extents.len() >= extents, "the test wants several extents");
        image
    }

    /// Flips one bit of a frame, `offset` bytes behind its start.
    pub fn flip(&mut self, frame: usize, offset: usize) {
        self.bytes[self.frames[frame] as usize * SLOT + offset] ^= 4;
    }

    pub fn limit(&self) -> Limit {
        Limit { frames: FrameNumber(self.number), end: SlotIndex(self.slot) }
    }

    pub fn setup(&self) -> ScanSetup {
        ScanSetup {
            store: STORE,
            shard: SHARD,
            geometry: geometry(),
            chunk_bytes: 4 * SLOT as u64,
            wanted: Wanted::Data,
            on_damage: OnDamage::Stop,
        }
    }

    pub fn scanner(&self, start: Start) -> Scanner {
        Scanner::new(self.setup(), start, self.limit(), self)
    }

    pub fn skipping(&self) -> Scanner {
        let setup = ScanSetup { on_damage: OnDamage::Skip, ..self.setup() };
        Scanner::new(setup, Start::Oldest, self.limit(), self)
    }

    /// Reads a run as a device would.
    pub fn read(&self, run: Run) -> Result<Bytes, ReadError> {
        assert!(run.slots > 0 && run.slots <= geometry().slots_left(run.slot), "{run:?} leaves its extent");
        let last = self.extents.last().unwrap().extent;
        assert!(
            geometry().extent_of(run.slot) != last || run.end().0 <= self.slot,
            "{run:?} is behind the limit"
        );
        if (run.slot.0..run.end().0).any(|slot| self.unreadable.contains(&slot)) {
            let Run { slot, slots } = run;
            return Err(ReadError::Io { device: DeviceIndex(0), slot, slots, errno: Errno(5) });
        }
        let range = run.slot.0 as usize * SLOT..run.end().0 as usize * SLOT;
        Ok(Bytes::copy_from_slice(&self.bytes[range]))
    }

    /// Steps until there is something to tell, answering reads last asked first.
    pub fn drive(&self, scanner: &mut Scanner) -> Step {
        let mut asked = Vec::new();
        for _ in 0..100_000 {
            while let Some(run) = scanner.ask(3, self) {
                asked.push(run);
            }
            match scanner.step(self) {
                Step::Need => {
                    if asked.is_empty() {
                        asked.extend(scanner.ask(3, self));
                    }
                    let run = asked.pop().expect("a scan that needs bytes says which");
                    match self.read(run) {
                        Ok(bytes) => scanner.supply(run.slot, bytes),
                        Err(error) => scanner.supply_failure(run.slot, error),
                    }
                }
                other => {
                    // What is under way stays under way: here it is read at once.
                    for run in asked {
                        match self.read(run) {
                            Ok(bytes) => scanner.supply(run.slot, bytes),
                            Err(error) => scanner.supply_failure(run.slot, error),
                        }
                    }
                    return other;
                }
            }
        }
        panic!("a scan asks for ever");
    }

    /// All records and all damage up to the end.
    pub fn drain(&self, scanner: &mut Scanner) -> (Vec<ScanRecord>, Vec<Damage>) {
        let (mut records, mut damages) = (Vec::new(), Vec::new());
        loop {
            match self.drive(scanner) {
                Step::Record(record) => records.push(record),
                Step::Damage(damage) => {
                    let is_same = damages.last() == Some(&*damage);
                    if is_same {
                        return (records, damages);
                    }
                    damages.push(*damage);
                }
                Step::End => return (records, damages),
                Step::Need => unreachable!(),
            }
            assert!(records.len() + damages.len() < 100_000, "a scan does not end");
        }
    }

    /// Fails unless the records are exactly those from the `first` on.
    pub fn assert_from(&self, first: usize, records: &[ScanRecord]) {
        assert_eq!(records.len(), self.payloads.len() - first);
        for (index, record) in records.iter().enumerate() {
            assert_eq!(record.payload, self.payloads[first + index], "record {index}");
            assert_eq!(record.address, self.addresses[first + index], "record {index}");
        }
    }
}
