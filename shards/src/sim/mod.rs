//! The simulator: whole stores over simulated devices, many short lives per case, everything decided by one seed.
//!
//! The engine is the shipped one: cores, rings, allocator, mail, recovery, opening and closing. Simulated are the
//! devices, time, and who runs when. Every device step is a moment at which a crash is tried, on a copy of the disks,
//! and what recovery makes of it is compared with what was promised. `docs/RELIABILITY.md` says what is checked.

mod case;
mod check;
mod cleaning;
mod clients;
mod cutting;
mod device;
mod disk;
mod drained;
mod draining;
mod faults;
mod growing;
mod image;
mod life;
mod opened;
mod oracle;
mod over;
mod payload;
mod random;
mod retiring;
mod space;
mod world;

pub use case::{Outcome, Settings, run_case};
pub use faults::{Fault, Faults, UnknownFault};

/// What a case did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Crashes, tried on a copy or real, each with a recovery and a comparison.
    pub crash_points: u64,
    /// Recoveries that named damage done by the device.
    pub named: u64,
    /// Times that the store was opened.
    pub lives: u64,
    /// Device steps.
    pub steps: u64,
    /// Records given to the store.
    pub records: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.crash_points += other.crash_points;
        self.named += other.named;
        self.lives += other.lives;
        self.steps += other.steps;
        self.records += other.records;
    }
}
