//! The decoders, one structure at a time: each input as it is, and once more with its magic and checksum put right.

use super::{Target, input::Input};
use corelog_shards::{
    address::Address,
    format::{
        checksum::{StoreSeed, crc32c},
        extent_header::{ExtentHeader, ExtentState},
        frame::{FrameExpectation, FrameHeader},
        record::{
            ControlKind, RecordFlags, RecordHeader, RecordKind, check_record, record_bytes, records,
            seal_record, summarise_body,
        },
        superblock::{
            COPY_OFFSETS, DeviceEntry, Features, RegionEntry, ShardEntry, Superblock, SuperblockError, choose,
        },
    },
    geometry::Geometry,
    ids::{
        DeviceIndex, ExtentIndex, ExtentOrdinal, FrameNumber, Generation, ShardId, SlotIndex, StoreId, Term,
    },
    limits::{EXTENTS_MAX, SUPERBLOCK_AREA_BYTES, SUPERBLOCK_COPY_BYTES_MAX},
    recovery::check_body,
};

const STORE: StoreId = StoreId(*b"a store of fuzz!");
const HEADER: usize = 128;
const FRAME_MAGIC: &[u8; 8] = b"coreLOGf";
const EXTENT_MAGIC: &[u8; 8] = b"coreLOGe";
const SUPERBLOCK_MAGIC: &[u8; 8] = b"coreLOGs";

fn geometry() -> Geometry {
    Geometry::new(4096, 1 << 20).expect("sizes within the bounds")
}

/// The first 128 bytes with magic and checksum put right: frame and extent headers have them at the same places.
fn mended_header(input: &[u8], magic: &[u8; 8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    bytes.resize(bytes.len().max(HEADER), 0);
    bytes[..8].copy_from_slice(magic);
    bytes[8..10].copy_from_slice(&1_u16.to_le_bytes());
    let checksum = crc32c(&bytes[..HEADER - 4]);
    bytes[HEADER - 4..HEADER].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

pub(super) fn superblock(input: &[u8]) {
    let _any_answer = Superblock::decode_copy(input);
    let mended = mended_superblock(input);
    if let Ok(superblock) = Superblock::decode_copy(&mended) {
        check_superblock(&superblock);
    }
    // Four copies: the mended one in places that the input names, pieces of the input in the others.
    let which = input.first().copied().unwrap_or_default();
    let copies: Vec<Result<Superblock, SuperblockError>> = (0..COPY_OFFSETS.len())
        .map(|index| match which >> index & 1 {
            0 => Superblock::decode_copy(&mended),
            _ => Superblock::decode_copy(input.get(index..).unwrap_or_default()),
        })
        .collect();
    if let Ok(chosen) = choose(&copies) {
        assert!(copies.contains(&Ok(chosen.superblock)));
    }
}

fn mended_superblock(input: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    bytes.resize(bytes.len().clamp(HEADER + 3 * 24 + 8, SUPERBLOCK_COPY_BYTES_MAX as usize), 0);
    bytes[..8].copy_from_slice(SUPERBLOCK_MAGIC);
    bytes[8..10].copy_from_slice(&1_u16.to_le_bytes());
    let count = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let entries = [76, 80, 84].into_iter().fold(0_u32, |sum, at| sum.saturating_add(count(at)));
    let total = HEADER + 24 * entries as usize + 8;
    let total = if total <= bytes.len() { total } else { bytes.len() };
    bytes[12..16].copy_from_slice(&(total as u32).to_le_bytes());
    let checksum = crc32c(&bytes[..total - 4]);
    bytes[total - 4..total].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// What the rest of the engine relies on, once a superblock was decoded.
fn check_superblock(superblock: &Superblock) {
    assert_eq!(superblock.check(), Ok(()));
    assert!(superblock.extent_count() <= EXTENTS_MAX, "{} extents", superblock.extent_count());
    let mut copy = vec![0xff; superblock.encoded_bytes()];
    superblock.encode_copy(superblock.device, &mut copy);
    assert_eq!(Superblock::decode_copy(&copy).as_ref(), Ok(superblock), "what was read can be written");
    let slots = u64::from(superblock.extent_count()) * superblock.geometry.slots_per_extent();
    for slot in [0, 1, slots / 2, slots.saturating_sub(1), slots, u64::MAX] {
        let Some((device, byte)) = superblock.locate(SlotIndex(slot)) else { continue };
        let device = superblock.devices[usize::from(device.0)];
        assert!(slot < slots && byte + superblock.geometry.slot_bytes() <= device.bytes);
    }
}

pub(super) fn extent_header(input: &[u8]) {
    let mut slot = input.to_vec();
    slot.resize(4096, 0);
    let _any_answer = (ExtentHeader::decode(input), ExtentHeader::decode_slot(input, STORE, ExtentIndex(0)));
    let mended = mended_header(input, EXTENT_MAGIC);
    let Ok(header) = ExtentHeader::decode(&mended) else { return };
    let mut again = vec![0xff; 4096];
    header.encode_slot(&geometry(), &mut again);
    let read = ExtentHeader::decode_slot(&again, header.store, header.extent);
    assert_eq!(read.copies, [Ok(header), Ok(header)]);
    // A torn pair: the mended copy, and whatever the input has where the other one is.
    slot[..mended.len().min(2048)].copy_from_slice(&mended[..mended.len().min(2048)]);
    let read = ExtentHeader::decode_slot(&slot, header.store, header.extent);
    assert!(read.header.is_ok(), "one good copy is enough: {:?}", read.header);
}

pub(super) fn frame(input: &[u8]) {
    let _any_answer = FrameHeader::decode(input);
    let mended = mended_header(input, FRAME_MAGIC);
    let Ok(checked) = FrameHeader::decode(&mended) else { return };
    let header = checked.header;
    let mut again = [0xff; HEADER];
    assert_eq!(header.encode(&mut again), FrameHeader::decode(&again).expect("just encoded").link);
    assert_eq!(FrameHeader::decode(&again).expect("just encoded").header, header);
    let FrameHeader { store, shard, generation, number, link, base_slot, .. } = header;
    let expected = FrameExpectation { store, shard, generation, number, link, base_slot };
    assert_eq!(expected.check(&header), Ok(()));
    let _any_answer = check_body(&header, &mended, &geometry(), StoreSeed::new(store));
    let body = mended.get(HEADER..).unwrap_or_default();
    let seed = StoreSeed::new(store);
    let found = records(body, seed, generation, geometry().byte_of(base_slot)).count();
    assert!(found <= body.len() / 8 + 1);
}

pub(super) fn record(input: &[u8]) {
    let mut fields = Input::new(input);
    let (generation, byte) = (Generation(fields.u32()), fields.u64() / 8 * 8);
    let seed = StoreSeed::new(STORE).record_seed(generation, byte);
    let body = fields.rest();
    let _any_answer = (check_record(body, seed), RecordHeader::peek(body));
    if let Ok(summary) = summarise_body(body) {
        assert!(summary.records as usize <= body.len() / 8);
    }
    // The same bytes, each record with the checksum of its place.
    let mut sealed = body.to_vec();
    let count = seal_records(&mut sealed, StoreSeed::new(STORE), generation, byte);
    let good = records(&sealed, StoreSeed::new(STORE), generation, byte).take_while(Result::is_ok).count();
    assert_eq!(good, count);
    for (at, view) in records(&sealed, StoreSeed::new(STORE), generation, byte).flatten() {
        assert!(at + view.stride() <= (sealed.len() as u64).next_multiple_of(8));
        let _any_answer = (ControlKind::of(view.payload), view.kind.to_string());
    }
    check_address(byte, generation, body);
}

/// Seals records from length to length, as far as that leads; how many.
fn seal_records(bytes: &mut [u8], seed: StoreSeed, generation: Generation, byte: u64) -> usize {
    let (mut at, mut count) = (0, 0);
    while let Some(header) = bytes.get(at..).and_then(RecordHeader::peek) {
        let end = at + 8 + header.length as usize;
        let Some(record) = bytes.get_mut(at..end) else { break };
        let place = seed.record_seed(generation, byte.wrapping_add(at as u64));
        seal_record(record, header.kind, header.flags, place);
        (at, count) = (at + header.stride() as usize, count + 1);
    }
    count
}

fn check_address(byte: u64, generation: Generation, text: &[u8]) {
    let geometry = geometry();
    let bits = Address::from_bits(byte.rotate_left(generation.0));
    assert_eq!(bits.to_string().parse(), Ok(bits));
    let _any_answer = (bits.slot(&geometry), bits.extent(&geometry), bits.slots_hint());
    if let Some(Ok(address)) = std::str::from_utf8(text).ok().map(str::parse::<Address>) {
        assert_eq!(address.to_string().parse(), Ok(address));
    }
    let byte = byte % (1 << 46);
    let made = Address::new(&geometry, byte, generation, text.len() as u64);
    assert_eq!(made.byte(), byte);
    assert!(made.is_of(generation));
}

// ---- inputs to begin with -------------------------------------------------------------------------------------------

pub(super) fn seeds(target: Target) -> Vec<Vec<u8>> {
    match target {
        Target::Superblock => [1, 3, 40].map(superblock_of).to_vec(),
        Target::ExtentHeader => {
            let mut slot = vec![0; 4096];
            extent_header_of().encode_slot(&geometry(), &mut slot);
            vec![slot[..HEADER].to_vec(), slot]
        }
        Target::Frame => vec![frame_of(&[]), frame_of(&[b"one", b"", &[7; 300]])],
        _ => {
            let place = [5, 0, 0, 0, 128, 16, 0, 0, 0, 0, 0, 0];
            let of = |payloads: &[&[u8]]| [&place[..], &frame_of(payloads)[HEADER..]].concat();
            vec![of(&[b"one", b"two"]), of(&[&[4; 33]]), [&place[..], b"00000000deadbeef"].concat()]
        }
    }
}

fn superblock_of(shards: usize) -> Vec<u8> {
    let region = |device, first_extent, extent_count, device_offset| RegionEntry {
        device: DeviceIndex(device),
        first_extent: ExtentIndex(first_extent),
        extent_count,
        device_offset,
    };
    let superblock = Superblock {
        store: STORE,
        sequence: 8,
        term: Term(5),
        features: Features::default(),
        geometry: geometry(),
        clean: shards.is_multiple_of(2),
        device: DeviceIndex(0),
        reach_bytes: 8 << 18,
        created_unix_ns: 1,
        written_unix_ns: 2,
        devices: vec![DeviceEntry { uuid: [1; 16], bytes: 101 << 20 }; 2],
        regions: vec![region(0, 0, 60, SUPERBLOCK_AREA_BYTES), region(1, 60, 50, SUPERBLOCK_AREA_BYTES)],
        shards: vec![
            ShardEntry {
                durable: FrameNumber(7),
                tail_slot: Some(SlotIndex(9)),
                ..ShardEntry::default()
            };
            shards
        ],
    };
    let mut bytes = vec![0; superblock.encoded_bytes()];
    superblock.encode_copy(superblock.device, &mut bytes);
    bytes
}

fn extent_header_of() -> ExtentHeader {
    ExtentHeader {
        store: STORE,
        extent: ExtentIndex(0),
        generation: Generation(3),
        owner: ShardId(1),
        state: ExtentState::Claimed,
        ordinal: ExtentOrdinal(9),
        term: Term(11),
        frame_floor: FrameNumber(12),
    }
}

fn frame_of(payloads: &[&[u8]]) -> Vec<u8> {
    let (base, generation) = (SlotIndex(1), Generation(5));
    let body: usize = payloads.iter().map(|payload| record_bytes(payload.len() as u64) as usize).sum();
    let mut bytes = vec![0; HEADER + body];
    let mut at = HEADER;
    for payload in payloads {
        let end = at + 8 + payload.len();
        bytes[at + 8..end].copy_from_slice(payload);
        let seed = StoreSeed::new(STORE).record_seed(generation, geometry().byte_of(base) + at as u64);
        seal_record(&mut bytes[at..end], RecordKind::DATA, RecordFlags::NONE, seed);
        at += record_bytes(payload.len() as u64) as usize;
    }
    let summary = summarise_body(&bytes[HEADER..]).expect("records one after the other");
    let header = FrameHeader {
        store: STORE,
        shard: ShardId(1),
        generation,
        term: Term(2),
        number: FrameNumber(3),
        link: 4,
        base_slot: base,
        used_bytes: bytes.len() as u32,
        records: summary.records,
        records_digest: summary.digest,
        durable: FrameNumber(2),
        oldest: ExtentOrdinal(0),
        checkpoint: None,
        has_control: false,
        lists_from: None,
        unix_ns: 0,
    };
    header.encode(&mut bytes);
    bytes
}
