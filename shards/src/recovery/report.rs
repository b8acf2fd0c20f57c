//! What recovery found, for the caller and for the program's output.

use crate::shard_owner::SpaceStart;
use crate::{
    format::{
        moved::Origin,
        superblock::{ShardEntry, ShardState},
    },
    ids::{DeviceIndex, ExtentIndex, ExtentOrdinal, FrameNumber, Generation, ShardId, SlotIndex, Term},
};
use serde::Serialize;

/// A place in a shard's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The shard.
    pub shard: ShardId,
    /// The frame that has to be there.
    pub frame: FrameNumber,
    /// The slot.
    pub slot: SlotIndex,
    /// The device that holds the slot, and the byte on it; `None` if the superblock has no such slot.
    pub on_device: Option<(DeviceIndex, u64)>,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "shard {}, frame {}, slot {}", self.shard, self.frame, self.slot)?;
        match self.on_device {
            Some((device, byte)) => write!(f, " (device {device}, byte {byte})"),
            None => Ok(()),
        }
    }
}

/// An extent of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RecoveredExtent {
    /// Which.
    pub index: ExtentIndex,
    /// Its generation.
    pub generation: Generation,
    /// Its place in the shard's sequence.
    pub ordinal: ExtentOrdinal,
}

/// How a shard's log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TailKind {
    /// Exactly where a clean close left it.
    Clean,
    /// Behind the last frame is nothing.
    EndOfLog,
    /// What is behind was in flight when the store went down; nobody was told that it is durable.
    TornTail,
    /// What is behind may have been in flight, or may be damage of something that was durable: nothing tells which.
    TailUncertain,
    /// Salvage cut the log where opening would have failed.
    Salvaged,
}

/// The end of a shard's log, and what was cut off behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TailReport {
    /// How it ends.
    pub kind: TailKind,
    /// Where the next frame was looked for; `None` for a shard without an extent.
    pub place: Option<Place>,
    /// Frames that were part of the chain, or seen behind its end, and are not part of the log.
    pub cut_frames: u64,
    /// Bytes of those of them that were read.
    pub cut_bytes: u64,
    /// The highest frame number seen behind the end.
    pub highest_seen: Option<FrameNumber>,
}

/// What salvage gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// Where.
    pub place: Place,
    /// Why.
    pub kind: LossKind,
}

/// Why salvage gave something up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// The frame's header is damaged or broken off: the log is cut here.
    HeaderCorrupt,
    /// Some of its records are damaged: the frame stays, reading them is an error.
    BodyCorrupt,
    /// The frame is not there: the log is cut here.
    LostWrite,
    /// Another frame is in its place: the log is cut here.
    Misdirected,
    /// The device cannot read it: the log is cut here.
    Unreadable,
}

/// A shard as recovery leaves it to its owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecoveredShard {
    /// Which.
    pub shard: ShardId,
    /// Takes appends, or is drained.
    #[serde(skip)]
    pub state: ShardState,
    /// The extents of the shard in the order of their ordinals. What was freed leaves gaps before the checkpoint.
    pub extents: Vec<RecoveredExtent>,
    /// How many of them the log uses; the last of those is the one that the next frame goes to, if it fits. Those
    /// behind were claimed ahead, or hold what was cut off; the shard may go on in them, in order.
    pub used_extents: usize,
    /// Extents of the shard behind a missing ordinal: to be freed before the shard claims another.
    pub orphans: Vec<RecoveredExtent>,
    /// Extents that still carry the shard's claim, and that its log says are freed.
    #[serde(skip)]
    pub freed: Vec<FreeExtent>,
    /// What its log says of its space.
    #[serde(skip)]
    pub space: SpaceStart,
    /// The first frame that was looked at: what is before it is covered by a checkpoint. `None`: there is none.
    pub began_at: Option<FrameNumber>,
    /// The oldest frame of the log; equal to `next_frame` if there is none.
    pub first_frame: FrameNumber,
    /// The number of the next frame.
    pub next_frame: FrameNumber,
    /// Where it goes; `None`: into the extent behind the used ones, or a new one.
    pub next_slot: Option<SlotIndex>,
    /// Checksum of the last header: the link of the next frame.
    pub link: u32,
    /// Frames of the log.
    pub frames: u64,
    /// Records in them, void ones included.
    pub records: u64,
    /// Used bytes of the frames, headers included.
    pub bytes: u64,
    /// Frames whose records were all checked.
    pub frames_checked: u64,
    /// Frames below this number were known to be durable from what is stored.
    pub durable_witness: FrameNumber,
    /// The highest term of a frame that was seen, part of the log or not.
    pub highest_term: Term,
    /// How the log ends.
    pub tail: TailReport,
    /// What salvage gave up.
    pub losses: Vec<Loss>,
}

impl RecoveredShard {
    /// True if an extent that copies in this shard were made of is no longer what it was, so that they count.
    #[must_use]
    pub fn is_gone(&self, origin: &Origin) -> bool {
        if origin.shard == self.shard {
            return !self.extents.iter().any(|it| {
                (it.ordinal, it.index, it.generation) == (origin.ordinal, origin.extent, origin.generation)
            });
        }
        !self.space.moves.iter().any(|it| it.origin == *origin)
    }

    /// What the next superblock says about the shard, once the devices were synced.
    #[must_use]
    pub const fn entry(&self) -> ShardEntry {
        ShardEntry {
            state: self.state,
            durable: self.next_frame,
            tail_slot: self.next_slot,
            tail_link: self.link,
        }
    }
}

/// An extent that nobody owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FreeExtent {
    /// Which.
    pub index: ExtentIndex,
    /// The highest generation seen in it; the next claim takes a higher one. 0: never claimed.
    pub generation: Generation,
}

/// An extent header with one copy of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BadHeaderCopy {
    /// Which extent.
    pub extent: ExtentIndex,
    /// Which of its two copies.
    pub copy: usize,
}

/// Everything that opening a store found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RecoveryReport {
    /// The shards, by id.
    pub shards: Vec<RecoveredShard>,
    /// Extents that nobody owns.
    #[serde(skip)]
    pub free_extents: Vec<FreeExtent>,
    /// How many of those.
    pub extents_free: u64,
    /// Extents that shards own.
    pub extents_owned: u64,
    /// Those of them that no log reaches.
    pub extents_unused: u64,
    /// Extents whose header cannot be read; only salvage goes on over them, and nothing is put there again.
    pub extents_bad: Vec<ExtentIndex>,
    /// Extent headers of which one copy counts and the other is of no use.
    pub bad_header_copies: Vec<BadHeaderCopy>,
    /// Places of superblock copies that were of no use; filled in by who read them.
    pub bad_superblock_copies: Vec<(DeviceIndex, u64)>,
    /// The highest term seen anywhere; the next open takes a higher one.
    pub highest_term: Term,
    /// True if the superblock says that the store was closed cleanly.
    pub clean: bool,
    /// How long it took; filled in by who has a clock.
    pub seconds: f64,
}

impl RecoveryReport {
    /// What the next superblock says about the shards. It may be written only after the devices were synced, and
    /// has to be: a frame of an older term behind these tails is never part of a log again.
    #[must_use]
    pub fn shard_entries(&self) -> Vec<ShardEntry> {
        self.shards.iter().map(RecoveredShard::entry).collect()
    }
}
