//! What is done to the image: a header that says what to mend, then edits.

use super::{AREA, Base, EXTENT, SLOT, mend};
use crate::fuzzing::input::Input;
use std::collections::BTreeSet;

/// Most edits of one script.
const EDITS_MAX: usize = 64;
/// Most slots of one edit.
const RUN_MAX: usize = 70;

/// The image after the script.
pub(super) struct Changed {
    pub(super) bytes: Vec<u8>,
    /// Nothing was forged: bytes were lost, moved or flipped, as devices do.
    pub(super) is_honest: bool,
    /// How a store is opened on it; see [`super::library`].
    pub(super) how: u8,
}

const POKE: u8 = 0;
const ZERO: u8 = 1;
const COPY: u8 = 2;
const FLIP: u8 = 3;
const POKE_ALL_SUPERBLOCKS: u8 = 4;
const TRUNCATE: u8 = 5;
const KINDS: u8 = 6;

/// Plays the script at the front of `input`: a byte of what to mend, one of how to open, one of how many edits, and
/// those.
pub(super) fn play(input: &mut Input<'_>, base: &Base) -> Changed {
    let mut bytes = base.bytes.clone();
    let (mend, how, edits) = (input.u8(), input.u8(), usize::from(input.u8()));
    let mut touched = BTreeSet::new();
    let mut is_honest = mend == 0;
    for _ in 0..edits.min(EDITS_MAX) {
        if input.is_empty() {
            break;
        }
        let kind = input.u8() % KINDS;
        is_honest &= matches!(kind, ZERO | COPY | FLIP | TRUNCATE);
        match kind {
            POKE => poke(input, base, &mut bytes, &mut touched),
            ZERO => {
                let run = slots(input, &bytes);
                note(&mut touched, run.clone());
                bytes[run].fill(0);
            }
            COPY => {
                let from = slots(input, &bytes);
                let to = SLOT * input.index(bytes.len() / SLOT);
                let length = from.len().min(bytes.len() - to);
                bytes.copy_within(from.start..from.start + length, to);
                note(&mut touched, to..to + length);
            }
            FLIP => {
                let at = SLOT * input.index(bytes.len() / SLOT) + input.index(SLOT);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << (input.u8() % 8);
                    touched.insert(at / SLOT);
                }
            }
            POKE_ALL_SUPERBLOCKS => {
                let (offset, value) = (input.index(512), value(input));
                for copy in &base.places.superblocks {
                    put(&mut bytes, copy + offset, &value, &mut touched);
                }
            }
            _ => {
                let extents = (bytes.len() - AREA.min(bytes.len())) / EXTENT;
                bytes.truncate(AREA + EXTENT * input.index(extents + 1));
            }
        }
    }
    mend::mend(&mut bytes, mend, &touched, &base.places);
    Changed { bytes, is_honest, how }
}

/// A run of slots, in bytes.
fn slots(input: &mut Input<'_>, image: &[u8]) -> std::ops::Range<usize> {
    let start = SLOT * input.index(image.len() / SLOT);
    let end = start + SLOT * (1 + usize::from(input.u8()) % RUN_MAX);
    start..end.min(image.len())
}

fn note(touched: &mut BTreeSet<usize>, bytes: std::ops::Range<usize>) {
    touched.extend(bytes.step_by(SLOT).map(|at| at / SLOT));
}

/// Writes a value at an offset of some structure.
fn poke(input: &mut Input<'_>, base: &Base, image: &mut [u8], touched: &mut BTreeSet<usize>) {
    let places = &base.places;
    let (list, length) = match input.u8() % 4 {
        0 => (&places.superblocks, 1024),
        1 => (&places.extent_headers, 128),
        2 => (&places.frames, 128),
        _ => (&places.records, 32),
    };
    let place = list[input.index(list.len())];
    let offset = usize::from(input.u16()) % length;
    let value = value(input);
    put(image, place + offset, &value, touched);
}

/// 1, 2, 4 or 8 bytes; of those often a bound.
fn value(input: &mut Input<'_>) -> Vec<u8> {
    let how = input.u8();
    let width = 1 << (how % 4);
    let value = match how / 4 % 8 {
        0 => u64::MAX,
        1 => u64::MAX - 1,
        2 => u64::from(u32::MAX),
        3 => 0,
        4 => u64::from(input.u8()),
        5 => u64::from(input.u16()),
        6 => u64::from(input.u32()),
        _ => input.u64(),
    };
    value.to_le_bytes()[..width].to_vec()
}

fn put(image: &mut [u8], at: usize, value: &[u8], touched: &mut BTreeSet<usize>) {
    let Some(place) = image.get_mut(at..at + value.len()) else { return };
    place.copy_from_slice(value);
    touched.extend([at / SLOT, (at + value.len() - 1) / SLOT]);
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let slot = |slot: u16| slot.to_le_bytes();
    let edit = |kind: u8, fields: &[&[u8]]| [&[kind], fields.concat().as_slice()].concat();
    let script = |mend: u8, opening: u8, edits: &[Vec<u8>]| {
        [&[mend, opening, edits.len() as u8], edits.concat().as_slice()].concat()
    };
    let frames: Vec<u16> = base_frames();
    let (first, middle, last) = (frames[0], frames[frames.len() / 2], frames[frames.len() - 1]);
    // The byte of the superblock that says "closed cleanly".
    let unclean = edit(POKE_ALL_SUPERBLOCKS, &[&slot(74), &[3 << 2]]);
    vec![
        script(0, 0, &[]),
        script(0, 1, &[edit(ZERO, &[&slot(last), &[0]])]),
        script(0, 2, &[edit(COPY, &[&slot(first), &[1], &slot(last)])]),
        script(0, 3, &[edit(FLIP, &[&slot(middle), &slot(200), &[3]])]),
        script(1, 0, std::slice::from_ref(&unclean)),
        script(1, 4, &[unclean.clone(), edit(ZERO, &[&slot(middle), &[9]])]),
        script(0xff, 0, &[unclean.clone(), edit(COPY, &[&slot(first), &[0], &slot(last + 1)])]),
        // A frame number, a durable watermark, used bytes; an extent's generation, ordinal, owner.
        script(0xff, 0, &[edit(POKE, &[&[2], &slot(3), &slot(48), &[1 << 2 | 3]])]),
        script(0xff, 0, &[unclean.clone(), edit(POKE, &[&[2], &slot(3), &slot(72), &[3]])]),
        script(
            0xff,
            0,
            &[unclean.clone(), edit(POKE, &[&[2], &slot(3), &slot(64), &[6 << 2 | 2, 0, 0, 8, 0]])],
        ),
        script(0xff, 0, &[edit(POKE, &[&[1], &slot(1), &slot(32), &[2]])]),
        script(0xff, 0, &[edit(POKE, &[&[1], &slot(1), &slot(40), &[1 << 2 | 3]])]),
        script(0xff, 0, &[edit(POKE, &[&[1], &slot(1), &slot(12), &[4 << 2, 7]])]),
        script(0xff, 0, &[edit(POKE, &[&[3], &slot(8), &slot(4), &[6 << 2 | 2, 9, 0, 0, 4]])]),
        script(0, 0, &[edit(TRUNCATE, &[&slot(4)])]),
    ]
}

/// Slots of the device in which frames begin.
fn base_frames() -> Vec<u16> {
    super::base().places.frames.iter().map(|at| (at / SLOT) as u16).collect()
}
