//! What the bench appends: bytes that differ from record to record, and that can be made again for checking.

use corelog::Address;

/// A fast sequence of numbers that can be repeated (splitmix64).
#[derive(Debug, Clone)]
pub struct Sequence(u64);

impl Sequence {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    #[inline]
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0. The bias of the shortcut is far below what a measurement sees.
    #[inline]
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
}

/// The payloads of one lane: filler that cannot be compressed, with the record's number in front. Another seed gives
/// other filler, so that what an older run left on the device never passes for this run's.
#[derive(Debug, Clone)]
pub struct Payload {
    bytes: Vec<u8>,
}

impl Payload {
    pub fn new(record_bytes: usize, seed: u64) -> Self {
        let mut sequence = Sequence::new(seed);
        let mut bytes = vec![0; record_bytes];
        for chunk in bytes.chunks_mut(8) {
            let word = sequence.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Self { bytes }
    }

    /// The payload of record `number`.
    #[inline]
    pub fn of(&mut self, number: u64) -> &[u8] {
        let word = number.to_le_bytes();
        let stamped = self.bytes.len().min(word.len());
        self.bytes[..stamped].copy_from_slice(&word[..stamped]);
        &self.bytes
    }
}

/// A record that was appended and can be read and checked.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    pub address: Address,
    pub lane: u16,
    pub number: u64,
}

/// Most records that one lane remembers, so that long runs of small records do not eat the memory.
const KEPT_MAX: usize = 1 << 20;

/// The records that a lane remembers: all of them at first, then every second, every fourth, and so on.
#[derive(Debug)]
pub struct Keeper {
    kept: Vec<Kept>,
    every: u64,
}

impl Keeper {
    pub fn new() -> Self {
        // Every page is touched now and not while the appends are measured.
        let mut kept = vec![Kept { address: Address::from_bits(u64::MAX), lane: 0, number: 0 }; KEPT_MAX];
        kept.clear();
        Self { kept, every: 1 }
    }

    #[inline]
    pub fn keep(&mut self, lane: u16, number: u64, address: Address) {
        if number & (self.every - 1) != 0 {
            return;
        }
        if self.kept.len() == KEPT_MAX {
            self.thin_out();
        }
        self.kept.push(Kept { address, lane, number });
    }

    #[cold]
    fn thin_out(&mut self) {
        self.every *= 2;
        self.kept.retain(|kept| kept.number & (self.every - 1) == 0);
    }

    pub fn into_kept(self) -> Vec<Kept> {
        self.kept
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::{KEPT_MAX, Keeper, Payload, Sequence};
    use corelog::Address;

    #[test]
    fn payloads_differ_by_number_and_seed_and_repeat() {
        let mut payload = Payload::new(61, 1);
        let first = payload.of(1).to_vec();
        assert_ne!(first, payload.of(2));
        assert_eq!(first, payload.of(1));
        assert_ne!(first, Payload::new(61, 2).of(1));
        assert_eq!(Payload::new(3, 1).of(0x0403_0201), [1, 2, 3]);
        assert!(Payload::new(0, 1).of(7).is_empty());
    }

    #[test]
    fn below_stays_below() {
        let mut sequence = Sequence::new(7);
        assert!((0..10_000).all(|_| sequence.below(3) < 3));
    }

    #[test]
    fn a_keeper_stays_within_its_bound_and_spreads_over_all() {
        let mut keeper = Keeper::new();
        let count = 3 * KEPT_MAX as u64;
        for number in 0..count {
            keeper.keep(0, number, Address::from_bits(number));
        }
        let kept = keeper.into_kept();
        assert!(kept.len() <= KEPT_MAX && kept.len() > KEPT_MAX / 4);
        assert!(kept.last().unwrap().number > count - 8);
    }
}
