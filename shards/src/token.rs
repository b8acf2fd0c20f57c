//! What a core submitted an operation for, packed into the token that its completion gives back.

use crate::{device::Token, ids::FrameNumber};

const KIND_BITS: u32 = 3;
const SHARD_BITS: u32 = 12;
const VALUE_BITS: u32 = 64 - KIND_BITS - SHARD_BITS;
const VALUE_MASK: u64 = (1 << VALUE_BITS) - 1;
const SHARD_MASK: u64 = (1 << SHARD_BITS) - 1;
const _: () = assert!(crate::limits::SHARDS_MAX as u64 <= SHARD_MASK + 1);

/// Position of a shard in the list of the core that runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LocalShard(pub u16);

/// The purpose of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The write of a frame (by the low 49 bits of its number).
    Frame(LocalShard, FrameNumber),
    /// The write of the header of the extent that the shard is claiming.
    ExtentHeader(LocalShard),
    /// The discard of an extent that the shard freed.
    Discard(LocalShard),
    /// A part of the core's sync round.
    Sync,
    /// A read, by its place in the core's table.
    Read(u64),
    /// The read of a run that the shard's cleaning goes through.
    Clean(LocalShard),
}

impl From<Purpose> for Token {
    fn from(purpose: Purpose) -> Self {
        let pack = |kind: u64, shard: u16, value: u64| {
            Self(kind << (SHARD_BITS + VALUE_BITS) | u64::from(shard) << VALUE_BITS | (value & VALUE_MASK))
        };
        match purpose {
            Purpose::Frame(shard, frame) => pack(0, shard.0, frame.0),
            Purpose::ExtentHeader(shard) => pack(1, shard.0, 0),
            Purpose::Sync => pack(2, 0, 0),
            Purpose::Read(key) => pack(3, 0, key),
            Purpose::Discard(shard) => pack(4, shard.0, 0),
            Purpose::Clean(shard) => pack(5, shard.0, 0),
        }
    }
}

impl Purpose {
    /// `None`: no core makes such a token.
    pub(crate) fn of(token: Token) -> Option<Self> {
        let shard = LocalShard((token.0 >> VALUE_BITS & SHARD_MASK) as u16);
        let value = token.0 & VALUE_MASK;
        match token.0 >> (SHARD_BITS + VALUE_BITS) {
            0 => Some(Self::Frame(shard, FrameNumber(value))),
            1 => Some(Self::ExtentHeader(shard)),
            2 => Some(Self::Sync),
            3 => Some(Self::Read(value)),
            4 => Some(Self::Discard(shard)),
            5 => Some(Self::Clean(shard)),
            _ => None,
        }
    }
}
