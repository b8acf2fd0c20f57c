//! Which shard an append goes to. Every call has exactly one.

use corelog_shards::ids::ShardId;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where an append goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Route {
    /// To a shard of the core that the calling thread drives; a thread without a core uses that of the CPU it runs
    /// on.
    #[default]
    Local,
    /// To the shard of a key, given by a hash of it. It is the same shard as long as the store has as many shards.
    Key(u64),
    /// To each shard in turn.
    RoundRobin,
    /// To this shard.
    Shard(ShardId),
}

/// The shard of a key: the high half of `hash x shards`, after mixing, so that a poor hash does no harm (the multiply
/// reduction of Lemire, "Fast Random Integer Generation in an Interval", section 3).
pub(crate) fn shard_of_key(hash: u64, shards: u32) -> ShardId {
    // The finaliser of MurmurHash3: every bit of the key's hash moves half of the bits.
    let mut mixed = hash;
    for factor in [0xff51_afd7_ed55_8ccd_u64, 0xc4ce_b9fe_1a85_ec53] {
        mixed = (mixed ^ (mixed >> 33)).wrapping_mul(factor);
    }
    mixed ^= mixed >> 33;
    ShardId(((u128::from(mixed) * u128::from(shards)) >> 64) as u16)
}

/// The next shard in turn. One counter for all threads: this is the one route on which callers share a cache line.
pub(crate) fn next_in_turn(turn: &AtomicU32, shards: u32) -> ShardId {
    ShardId((turn.fetch_add(1, Ordering::Relaxed) % shards) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_spread_evenly_whatever_their_hash_is_like() {
        for stride in [1, 256, 1 << 32, 1 << 48] {
            for shards in [1, 2, 3, 7, 64] {
                let mut counts = vec![0_u32; shards as usize];
                (0..64_000_u64).for_each(|key| {
                    counts[usize::from(shard_of_key(key.wrapping_mul(stride), shards).0)] += 1;
                });
                let fair = 64_000 / shards;
                assert!(
                    counts.iter().all(|count| count.abs_diff(fair) < fair / 4),
                    "{stride} {shards} {counts:?}"
                );
            }
        }
    }

    #[test]
    fn turns_reach_every_shard_alike() {
        let turn = AtomicU32::new(0);
        let taken: Vec<u16> = (0..6).map(|_| next_in_turn(&turn, 3).0).collect();
        assert_eq!(taken, [0, 1, 2, 0, 1, 2]);
    }
}
