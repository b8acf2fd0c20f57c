//! Newtypes for everything that is counted: an index, a count and a size never mix by accident.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! newtype {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

newtype!(
    /// One append stream of a store; stable for the life of the store.
    ShardId(u16),
    "shard "
);
newtype!(
    /// One pinned thread (or caller-driven core) of an open store; not stored.
    CoreId(u16),
    "core "
);
newtype!(
    /// A device (file or block device) of the store, in the order of the superblock's list.
    DeviceIndex(u16),
    "device "
);
newtype!(
    /// An extent of the store, counted over all devices.
    ExtentIndex(u32),
    "extent "
);
newtype!(
    /// A slot of the store, counted over all devices: `extent index x slots per extent + slot in extent`.
    SlotIndex(u64),
    "slot "
);
newtype!(
    /// Position of a frame in its shard's stream; the first is 0, and there are no holes.
    FrameNumber(u64),
    "frame "
);
newtype!(
    /// Raised by each writable open of the store; frames carry it.
    Term(u64),
    "term "
);
newtype!(
    /// How often an extent was claimed. 0: never.
    Generation(u32),
    "generation "
);
newtype!(
    /// Position of an extent in its shard's sequence of extents; the first is 0.
    ExtentOrdinal(u64),
    "extent ordinal "
);

impl FrameNumber {
    /// The frame after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl SlotIndex {
    /// The slot `count` slots further on.
    #[must_use]
    pub const fn offset_by(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

/// 16 random bytes that name a store; every header carries them, so that blocks of another store are recognised.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoreId(pub [u8; 16]);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "store {self}")
    }
}
