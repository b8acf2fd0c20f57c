//! What is copied out of a retired shard, and when what it came from may be given up.

use crate::mutant::{self, Mutant};
use std::collections::VecDeque;

/// Copies that were made since a drain last gave up what they came from. Their owner is told of each once it is durable, in
/// their order; what they came from may be trimmed once it was told of all.
#[derive(Debug)]
pub struct DrainRound<T> {
    copies: VecDeque<T>,
    bytes: u64,
}

impl<T> Default for DrainRound<T> {
    fn default() -> Self {
        Self { copies: VecDeque::new(), bytes: 0 }
    }
}

impl<T> DrainRound<T> {
    /// A copy was appended.
    pub fn push(&mut self, copy: T, bytes: u64) {
        self.copies.push_back(copy);
        self.bytes += bytes;
    }

    /// True once it has so many bytes, or copies.
    #[must_use]
    pub fn has(&self, bytes: u64, copies: usize) -> bool {
        self.bytes >= bytes || self.copies.len() >= copies
    }

    /// The next copy to tell of, if it is durable. `None`: it is not, or there is none.
    pub fn settle<E>(&mut self, is_durable: impl FnOnce(&T) -> Result<bool, E>) -> Result<Option<T>, E> {
        let Some(first) = self.copies.front() else {
            self.bytes = 0;
            return Ok(None);
        };
        let settles = mutant::is_active(Mutant::DrainedBeforeDurable) || is_durable(first)?;
        Ok(if settles { self.copies.pop_front() } else { None })
    }

    /// True if its owner was told of all.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.copies.is_empty()
    }
}
