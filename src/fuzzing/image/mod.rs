//! A whole store's device: a good one, damaged and forged by a script, and then everything that opens one.
//!
//! The script (see [`script`]) is the input. A hostile image may pass its checksums, so what the script changed can
//! be mended afterwards (see [`mend`]): then decoding is no longer the wall, and the code behind it is reached.

use super::input::Input;
use corelog_shards::address::Address;
use std::{collections::BTreeMap, sync::OnceLock};

mod library;
mod life;
mod mend;
mod script;

/// Sizes of the image that is changed.
const SLOT: usize = 4096;
const EXTENT: usize = 256 << 10;
const AREA: usize = 1 << 20;

/// A good store, as a released version wrote it.
struct Base {
    bytes: Vec<u8>,
    /// Where on the device structures begin.
    places: Places,
    /// What it holds, by the bits of the address.
    records: BTreeMap<u64, Vec<u8>>,
}

/// Bytes of the device at which structures of the good store begin.
struct Places {
    superblocks: Vec<usize>,
    extent_headers: Vec<usize>,
    frames: Vec<usize>,
    records: Vec<usize>,
}

fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| {
        let bytes = unpack(include_bytes!("../../../tests/golden/version-1.image"));
        let places = find_places(&bytes);
        assert!(places.frames.len() > 10 && places.records.len() >= 120);
        let records = listed(include_str!("../../../tests/golden/version-1.list"));
        Base { bytes, places, records }
    })
}

/// The golden image is kept as runs of sectors, each behind its offset and length, behind the length of the whole.
fn unpack(packed: &[u8]) -> Vec<u8> {
    let mut fields = Input::new(packed);
    let mut image = vec![0; fields.u64() as usize];
    while !fields.is_empty() {
        let (offset, length) = (fields.u64() as usize, fields.u64() as usize);
        image[offset..offset + length].copy_from_slice(fields.bytes(length));
    }
    image
}

/// Address and payload of each record of the golden image, as its test makes them.
fn listed(list: &str) -> BTreeMap<u64, Vec<u8>> {
    let payload = |index: usize| (0..index * index % 3000).map(|at| (index * 7 + at) as u8).collect();
    let of_line = |line: &str| {
        let (index, address) = line.split_once(' ').expect("index and address");
        let address: Address = address.parse().expect("an address");
        (address.to_bits(), payload(index.parse().expect("an index")))
    };
    list.lines().map(of_line).collect()
}

fn find_places(image: &[u8]) -> Places {
    let mut places = Places {
        superblocks: corelog_shards::format::superblock::COPY_OFFSETS.map(|at| at as usize).to_vec(),
        extent_headers: Vec::new(),
        frames: Vec::new(),
        records: Vec::new(),
    };
    for slot in (AREA..image.len()).step_by(SLOT) {
        if (slot - AREA).is_multiple_of(EXTENT) {
            places.extent_headers.extend([slot, slot + SLOT / 2]);
        }
        if mend::is_frame(image, slot) {
            places.frames.push(slot);
            places.records.extend(mend::records_of(image, slot).map(|record| record.start));
        }
    }
    places
}

pub(super) fn run(input: &[u8]) {
    let mut fields = Input::new(input);
    let base = base();
    let changed = script::play(&mut fields, base);
    life::check(base, &changed);
    library::check(base, &changed);
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    script::seeds()
}
