//! Payloads that differ from record to record and can be made again for checking.

/// A fast, repeatable sequence of numbers; quality matters little here, repeatability does.
pub(crate) struct Sequence(u64);

impl Sequence {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    #[inline]
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not zero. The bias of the shortcut is far below what a measurement sees.
    #[inline]
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// The payload of every record of one run and thread: filler from a seed, with the record's number in front.
/// The filler cannot be compressed, and another seed gives other bytes, so that what an earlier run left in the
/// file never passes for this run's.
pub(crate) struct Payload {
    bytes: Vec<u8>,
}

impl Payload {
    pub(crate) fn new(record_bytes: usize, seed: u64) -> Self {
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
    pub(crate) fn stamp(&mut self, number: u64) -> &[u8] {
        let word = number.to_le_bytes();
        let stamped = self.bytes.len().min(word.len());
        self.bytes[..stamped].copy_from_slice(&word[..stamped]);
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_differ_by_number_and_by_seed_and_repeat() {
        let mut one = Payload::new(61, 1);
        let first = one.stamp(1).to_vec();
        assert_ne!(first, one.stamp(2));
        assert_eq!(first, one.stamp(1));
        assert_ne!(first, Payload::new(61, 2).stamp(1));
        assert_eq!(Payload::new(3, 1).stamp(0x0403_0201), [1, 2, 3]);
    }

    #[test]
    fn below_stays_below() {
        let mut sequence = Sequence::new(7);
        assert!((0..10_000).all(|_| sequence.below(3) < 3));
    }
}
