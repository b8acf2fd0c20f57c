//! Lists of batches and large records: decoded as they are, and walked over records whose checksums are right.

use super::input::Input;
use bytes::Bytes;
use corelog_shards::{
    address::Address,
    format::{
        checksum::StoreSeed,
        manifest::{Manifest, ManifestEntry, ManifestOf},
        record::{RecordFlags, RecordHeader, RecordKind, record_bytes, seal_record},
    },
    geometry::Geometry,
    ids::{ExtentIndex, ExtentOrdinal, Generation, StoreId},
    limits::{MANIFEST_LEVELS_MAX, WALK_BYTES_PER_READ_MIN, WALK_READS_MIN},
    manifest::{ManifestWalk, WalkSetup, WalkStep},
    scan::{ExtentSequence, Run, SequencedExtent},
};
use std::ops::Range;

const STORE: StoreId = StoreId(*b"a store of fuzz!");
const SLOT: usize = 4096;
const EXTENT: usize = 256 << 10;
const GENERATION: Generation = Generation(3);
/// Byte of the extent at which the input's records begin.
const FIRST: usize = SLOT;

/// A shard of one extent.
struct Shard;

impl ExtentSequence for Shard {
    fn extent_at(&self, ordinal: ExtentOrdinal) -> Option<SequencedExtent> {
        let extent = SequencedExtent { extent: ExtentIndex(0), generation: GENERATION };
        (ordinal.0 == 0).then_some(extent)
    }

    fn ordinals(&self) -> Range<u64> {
        0..1
    }
}

fn geometry() -> Geometry {
    Geometry::new(SLOT as u64, EXTENT as u64).expect("sizes within the bounds")
}

/// The input is how much to skip, and records of any kind one after the other. Each is tried as a root, over all of
/// them.
pub(super) fn run(input: &[u8]) {
    let mut fields = Input::new(input);
    let skip = fields.u64();
    let records = fields.rest();
    for of in [ManifestOf::Batch, ManifestOf::Large] {
        for payload in [records, records.get(8..).unwrap_or_default()] {
            if let Ok(list) = Manifest::decode(payload, of) {
                let mut again = vec![0xff; payload.len()];
                Manifest::encode(list.level, list.from, &list.entries, &mut again);
                assert_eq!(Manifest::decode(&again, of).as_ref(), Ok(&list), "what was read can be written");
                assert!(list.level < MANIFEST_LEVELS_MAX && list.entries.len() * 32 <= payload.len());
            }
        }
    }
    let mut image = vec![0; EXTENT];
    let length = records.len().min(EXTENT - FIRST);
    image[FIRST..FIRST + length].copy_from_slice(&records[..length]);
    let image = seal(image, FIRST + length);
    let image = Bytes::from(image);
    let mut at = FIRST;
    let mut walks = 0;
    while let Some(header) = image.get(at..FIRST + length).and_then(RecordHeader::peek) {
        let of = match header.kind {
            RecordKind::BATCH_COMMIT => Some(ManifestOf::Batch),
            RecordKind::LARGE_MANIFEST => Some(ManifestOf::Large),
            _ => None,
        };
        let payload = image.get(at + 8..at + 8 + header.length as usize).unwrap_or_default();
        if let Some(of) = of
            && let Ok(root) = Manifest::decode_root(payload, of)
            && walks < 4
        {
            walks += 1;
            walk(&image, of, &root, skip % 64);
            walk(&image, of, &root, 0);
        }
        at += header.stride() as usize;
    }
}

fn seal(mut image: Vec<u8>, end: usize) -> Vec<u8> {
    let mut at = FIRST;
    while let Some(header) = image.get(at..end).and_then(RecordHeader::peek) {
        let Some(record) = image.get_mut(at..at + 8 + header.length as usize) else { break };
        let seed = StoreSeed::new(STORE).record_seed(GENERATION, at as u64);
        seal_record(record, header.kind, header.flags, seed);
        at += header.stride() as usize;
    }
    image
}

fn walk(image: &Bytes, of: ManifestOf, root: &Manifest, skip: u64) {
    let setup = WalkSetup { seed: StoreSeed::new(STORE), geometry: geometry(), of };
    let mut walk = ManifestWalk::new(setup, root, skip);
    let (mut reads, mut given, mut steps) = (0_u64, 0_u64, 0_u64);
    loop {
        steps += 1;
        assert!(steps < 10_000_000, "a walk does not end");
        match walk.step(&Shard) {
            WalkStep::Need => {
                let Some(Run { slot, slots }) = walk.ask() else {
                    panic!("a walk that needs bytes says which")
                };
                reads += 1;
                let (start, end) = (slot.0 as usize * SLOT, (slot.0 + slots) as usize * SLOT);
                assert!(slots > 0 && end <= EXTENT, "a read leaves its extent");
                walk.supply(slot, Ok(image.slice(start..end)));
            }
            WalkStep::Found(found) => given += found.payload.len() as u64,
            WalkStep::Fault(_) | WalkStep::Reclaimed(_) => {}
            WalkStep::End => break,
        }
    }
    assert!(reads <= WALK_READS_MIN + EXTENT as u64 / WALK_BYTES_PER_READ_MIN, "{reads} reads");
    assert!(given <= EXTENT as u64, "{given} bytes out of a shard of {EXTENT}");
}

/// True lists to begin with: of a batch, of a large record in two levels, and of one that leads to itself.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    vec![batch(), large(), cycle()]
}

/// Records one after the other, as an input.
struct Image(Vec<u8>);

impl Image {
    fn new() -> Self {
        Self(vec![0; 8])
    }

    fn push(&mut self, kind: RecordKind, flags: RecordFlags, payload: &[u8]) -> ManifestEntry {
        let at = FIRST + self.0.len() - 8;
        let mut record = vec![0; 8];
        record.extend_from_slice(payload);
        seal_record(&mut record, kind, flags, 0);
        record.resize(record_bytes(payload.len() as u64) as usize, 0);
        self.0.extend_from_slice(&record);
        let address = Address::new(&geometry(), at as u64, GENERATION, payload.len() as u64);
        ManifestEntry { address, length: payload.len() as u32, bytes: payload.len() as u64, records: 1 }
    }

    fn node(
        &mut self,
        kind: RecordKind,
        flags: RecordFlags,
        level: u8,
        of: &[ManifestEntry],
    ) -> ManifestEntry {
        let mut payload = vec![0; Manifest::payload_bytes(of.len())];
        Manifest::encode(level, Some(ExtentOrdinal(0)), of, &mut payload);
        let entry = self.push(kind, flags, &payload);
        let bytes = of.iter().map(|entry| entry.bytes).sum();
        ManifestEntry { bytes, records: of.iter().map(|entry| entry.records).sum(), ..entry }
    }
}

fn batch() -> Vec<u8> {
    let mut image = Image::new();
    let groups: Vec<_> = [3_usize, 1]
        .map(|records| {
            let placed: Vec<_> = (0..records)
                .map(|it| image.push(RecordKind::BATCH_DATA, RecordFlags::NONE, &[7; 20][it..]))
                .collect();
            let bytes: u64 = placed.iter().map(|entry| record_bytes(entry.bytes)).sum();
            ManifestEntry { length: bytes as u32, bytes, records: records as u64, ..placed[0] }
        })
        .to_vec();
    image.node(RecordKind::BATCH_COMMIT, RecordFlags::NONE, 0, &groups);
    image.0
}

fn large() -> Vec<u8> {
    let mut image = Image::new();
    let parts =
        [4096, 4096, 9].map(|length| image.push(RecordKind::LARGE_PART, RecordFlags::NONE, &vec![1; length]));
    let of = RecordKind::LARGE_MANIFEST;
    let nodes = [&parts[..2], &parts[2..]].map(|parts| image.node(of, RecordFlags::LIST_PART, 0, parts));
    image.node(of, RecordFlags::NONE, 1, &nodes);
    image.0
}

/// A node of level 1 whose children are all itself.
fn cycle() -> Vec<u8> {
    let mut image = Image::new();
    let address = Address::new(&geometry(), FIRST as u64, GENERATION, 96);
    let itself = ManifestEntry { address, length: 96, bytes: 4096, records: 2 };
    image.node(RecordKind::BATCH_COMMIT, RecordFlags::NONE, 1, &[itself, itself]);
    image.0
}
