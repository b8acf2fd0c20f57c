//! Random mutations for runs without a fuzzer: no feedback, but everywhere and at once.

/// A small generator; the same seed gives the same numbers for ever.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number (splitmix64).
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `count`; 0 if that is 0.
    pub const fn below(&mut self, count: usize) -> usize {
        (self.next() % if count == 0 { 1 } else { count as u64 }) as usize
    }
}

const INTERESTING: [u64; 12] =
    [0, 1, 7, 8, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 34, i64::MAX as u64, u64::MAX];

/// Changes `input` in a few places; `other` is a second input to take pieces from.
pub fn mutate(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(6) {
        let at = random.below(input.len() + 1);
        let length = 1 + random.below(16);
        match random.below(7) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            1 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = random.next() as u8;
                }
            }
            2 => put(
                input,
                at,
                &INTERESTING[random.below(INTERESTING.len())].to_le_bytes()[..1 << random.below(4)],
            ),
            3 => {
                let end = (at + length).min(input.len());
                input.drain(at..end);
            }
            4 => {
                let fresh: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
                input.splice(at..at, fresh);
            }
            5 => {
                let from = random.below(other.len());
                let piece =
                    other.get(from..(from + 4 * length).min(other.len())).unwrap_or_default().to_vec();
                input.splice(at..at, piece);
            }
            _ => {
                let from = random.below(other.len());
                put(input, at, other.get(from..(from + length).min(other.len())).unwrap_or_default());
            }
        }
    }
    input.truncate(super::INPUT_BYTES_MAX);
}

fn put(input: &mut [u8], at: usize, piece: &[u8]) {
    let room = input.get_mut(at..).unwrap_or_default();
    let length = piece.len().min(room.len());
    room[..length].copy_from_slice(&piece[..length]);
}
