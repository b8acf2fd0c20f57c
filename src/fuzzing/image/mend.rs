//! Putting checksums right after a script, so that what it changed is believed. Offsets are those of FORMAT.md.

use super::{AREA, EXTENT, Places, SLOT};
use corelog_shards::{
    format::{
        checksum::{RecordsDigest, StoreSeed, crc32c},
        record::RecordHeader,
    },
    ids::{Generation, StoreId},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

const SUPERBLOCKS: u8 = 1;
const EXTENT_HEADERS: u8 = 2;
const FRAMES: u8 = 4;
const RECORDS: u8 = 8;
/// Count and digest of the records, in the frame's header.
const SUMMARIES: u8 = 16;
/// Each frame's link to the one before it on the device.
const LINKS: u8 = 32;
/// Slot and generation in a frame's header are those of where it lies; so are an extent header's index and store.
const PLACES: u8 = 64;

const HEADER: usize = 128;
const CHECKSUM_AT: usize = 124;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk()).copied();
    u32::from_le_bytes(field.unwrap_or_default())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk()).copied();
    u64::from_le_bytes(field.unwrap_or_default())
}

fn set(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// Whether a frame begins at this byte of the device.
pub(super) fn is_frame(image: &[u8], at: usize) -> bool {
    image.get(at..at + 8) == Some(b"coreLOGf")
}

/// The records of the frame at this byte, each with its header, as far as their lengths lead.
pub(super) fn records_of(image: &[u8], frame: usize) -> impl Iterator<Item = Range<usize>> + '_ {
    let end = (frame + u32_at(image, frame + 64) as usize).min(image.len());
    let mut at = frame + HEADER;
    std::iter::from_fn(move || {
        let header = RecordHeader::peek(image.get(at..end)?)?;
        let record = at..at + 8 + header.length as usize;
        at += header.stride() as usize;
        (record.end <= end).then_some(record)
    })
}

pub(super) fn mend(image: &mut [u8], what: u8, touched: &BTreeSet<usize>, places: &Places) {
    if what & SUPERBLOCKS != 0 {
        places.superblocks.iter().for_each(|at| mend_superblock(image, *at));
    }
    if what & EXTENT_HEADERS != 0 {
        let headers = (AREA..image.len()).step_by(EXTENT).filter(|at| touched.contains(&(at / SLOT)));
        for at in headers.flat_map(|slot| [slot, slot + SLOT / 2]).collect::<Vec<_>>() {
            mend_extent_header(image, at, what & PLACES != 0);
        }
    }
    // Of each shard, the checksum of its last frame header so far.
    let mut links = BTreeMap::new();
    for at in (AREA..image.len()).step_by(SLOT) {
        if !is_frame(image, at) {
            continue;
        }
        let slots = (u32_at(image, at + 64) as usize).div_ceil(SLOT).clamp(1, EXTENT / SLOT);
        let is_touched = touched.range(at / SLOT..at / SLOT + slots).next().is_some();
        if is_touched || what & LINKS != 0 {
            let link = links.get(&shard_of(image, at)).copied().unwrap_or_default();
            mend_frame(image, at, what, link);
        }
        links.insert(shard_of(image, at), u32_at(image, at + CHECKSUM_AT));
    }
}

fn shard_of(image: &[u8], frame: usize) -> Option<[u8; 2]> {
    image.get(frame + 12..).and_then(|rest| rest.first_chunk()).copied()
}

fn mend_superblock(image: &mut [u8], at: usize) {
    let length = u32_at(image, at + 12) as usize;
    let Some(copy) = image.get_mut(at..at + length).filter(|copy| copy.len() >= 20) else { return };
    let checksum = crc32c(&copy[..length - 4]);
    set(copy, length - 4, &checksum.to_le_bytes());
}

fn mend_extent_header(image: &mut [u8], at: usize, its_place: bool) {
    if its_place && image.get(at..at + 8) == Some(b"coreLOGe") {
        let extent = ((at - AREA) / EXTENT) as u32;
        set(image, at + 36, &extent.to_le_bytes());
    }
    mend_header(image, at);
}

fn mend_header(image: &mut [u8], at: usize) {
    let Some(header) = image.get(at..at + CHECKSUM_AT).filter(|header| header.starts_with(b"coreLOG")) else {
        return;
    };
    let checksum = crc32c(header);
    set(image, at + CHECKSUM_AT, &checksum.to_le_bytes());
}

fn mend_frame(image: &mut [u8], at: usize, what: u8, link: u32) {
    if what & PLACES != 0 {
        let extent = AREA + (at - AREA) / EXTENT * EXTENT;
        let generation = u32_at(image, extent + 32);
        set(image, at + 32, &generation.to_le_bytes());
        set(image, at + 56, &(((at - AREA) / SLOT) as u64).to_le_bytes());
    }
    if what & RECORDS != 0 {
        mend_records(image, at);
    }
    if what & SUMMARIES != 0 {
        let (mut count, mut digest) = (0_u32, RecordsDigest::new());
        for record in records_of(image, at) {
            digest = digest.with(u64_at(image, record.start).to_le_bytes());
            count += 1;
        }
        set(image, at + 36, &count.to_le_bytes());
        set(image, at + 88, &digest.value().to_le_bytes());
    }
    if what & LINKS != 0 && u64_at(image, at + 48) > 0 {
        set(image, at + 68, &link.to_le_bytes());
    }
    if what & FRAMES != 0 {
        mend_header(image, at);
    }
}

/// Each record gets the checksum of the place and generation that the frame's header states.
fn mend_records(image: &mut [u8], frame: usize) {
    let store = image.get(frame + 16..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
    let seed = StoreSeed::new(StoreId(store));
    let generation = Generation(u32_at(image, frame + 32));
    let first = u64_at(image, frame + 56).wrapping_mul(SLOT as u64);
    for record in records_of(image, frame).collect::<Vec<_>>() {
        let byte = first.wrapping_add((record.start - frame) as u64);
        let checksum = crc32c(&image[record.start + 4..record.end]) ^ seed.record_seed(generation, byte);
        set(image, record.start, &checksum.to_le_bytes());
    }
}
