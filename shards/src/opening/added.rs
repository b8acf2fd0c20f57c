//! The shards that an open adds to its store, told to whoever opened it: they are there for good.

use crate::limits::{EXTENTS_PER_SHARD_MIN, SHARDS_MAX};
use serde::Serialize;
use std::fmt;

/// Shards that an open added to its store. No later open takes them away, and keys are spread over them, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AddedShards {
    /// Those that take appends, for cores that were asked for and had none.
    pub active: u32,
    /// Those that only cleaning copies to.
    pub cold: u32,
    /// Why there are not as many that take appends as cores were asked for; `None`: there are.
    pub fewer: Option<FewerShards>,
}

/// Why an open added fewer shards than the cores that were asked for would have taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FewerShards {
    /// Too few extents are free beside those that the shards before them need.
    NoRoom {
        /// Shards that were not added.
        lacking: u32,
    },
    /// The store would have more than [`SHARDS_MAX`], retired and cold ones counted.
    TooMany {
        /// Shards that were not added.
        lacking: u32,
    },
}

impl AddedShards {
    /// True if there is nothing to tell: the store has the shards that it had, and none are lacking.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u32 {
        self.active + self.cold
    }
}

impl fmt::Display for AddedShards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shards added to the store for good: {}", self.total())?;
        if self.cold > 0 {
            write!(f, " ({} of them cold)", self.cold)?;
        }
        match self.fewer {
            None => Ok(()),
            Some(FewerShards::NoRoom { lacking }) => write!(
                f,
                "; {lacking} more, for the number of cores asked for, found no room: each takes {EXTENTS_PER_SHARD_MIN} free extents"
            ),
            Some(FewerShards::TooMany { lacking }) => write!(
                f,
                "; {lacking} more, for the number of cores asked for, were not: a store has {SHARDS_MAX} at most"
            ),
        }
    }
}
