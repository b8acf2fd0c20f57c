//! Whoever retires shards in the midst of a life. That a reopen knows of it is for the tests of stores to ask.

use super::random::{Random, mix};
use crate::directory::Directory;

/// Retires a shard in some lives.
pub(super) struct Retirer {
    random: Random,
    is_due: bool,
}

impl Retirer {
    /// By a generator of its own, so that the other lives are what they were.
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(mix(seed ^ 0x7265_7469));
        let is_due = random.one_in(8);
        Self { random, is_due }
    }

    pub(super) const fn can_step(&self) -> bool {
        self.is_due
    }

    pub(super) fn step(&mut self, directory: &Directory) {
        if self.random.one_in(20) {
            self.is_due = false;
            directory.shards[self.random.index(directory.shards.len())].retire();
        }
    }
}
