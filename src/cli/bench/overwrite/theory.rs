//! What theory says of uniform overwrites: `docs/decisions/0018-cleaning.md` has where it comes from.

/// The share of an extent that is live when it is cleaned, where `occupancy` is the live share of all that is written.
/// Oldest first, which emptiest first comes down to where extents hold many records:
/// `occupancy = (u - 1) / ln u`.
pub fn victims_live(occupancy: f64) -> f64 {
    let (mut low, mut high) = (1e-12, 1.0 - 1e-12);
    for _ in 0..200 {
        let middle: f64 = (low + high) / 2.0;
        if (middle - 1.0) / middle.ln() < occupancy { low = middle } else { high = middle }
    }
    low
}

/// How often each byte is written then.
pub fn write_amplification(occupancy: f64) -> f64 {
    1.0 / (1.0 - victims_live(occupancy))
}

/// The store as cleaning finds it, in extents.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    pub extents: f64,
    pub reserve: f64,
    /// Kept free: in the middle between where cleaning begins and where it ends.
    pub free: f64,
    pub shards: f64,
}

impl Room {
    /// Extents that are full of records. Each shard has one that is half written, and one claimed ahead.
    pub fn full(&self) -> f64 {
        self.extents - self.reserve - self.free - 1.5 * self.shards
    }
}

#[cfg(test)]
mod tests {
    use super::{Room, victims_live, write_amplification};

    #[test]
    fn it_solves_its_equation() {
        for percent in [10, 50, 70, 80, 90, 95] {
            let occupancy = f64::from(percent) / 100.0;
            let u = victims_live(occupancy);
            assert!(((u - 1.0) / u.ln() - occupancy).abs() < 1e-9, "{occupancy}: {u}");
        }
        // Worked out apart from this code.
        assert!(
            (write_amplification(0.8) - 2.69).abs() < 0.01 && (write_amplification(0.9) - 5.18).abs() < 0.01
        );
    }

    #[test]
    fn what_is_not_full_of_records_counts() {
        let room = Room { extents: 100.0, reserve: 2.0, free: 5.0, shards: 2.0 };
        assert!((room.full() - 90.0).abs() < 1e-9);
    }
}
