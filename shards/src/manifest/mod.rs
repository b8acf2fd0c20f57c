//! Batches and large records of one shard: writing their parts and lists into the shard's ring, and going through them.
//!
//! What is written before the root of a list says nothing by itself, and the root is written last, behind all that it
//! lists: a shard's log is cut at its end only, so a root that is there has everything below it. Nothing here does
//! I/O, waits, or remembers anything about a batch that was given up.

mod batch;
mod large;
mod levels;
mod over;
mod walk;

pub(crate) use batch::resolve;
pub use batch::{BatchWriter, CommittedBatch};
pub use large::{LargeWriter, large_bytes_max, part_bytes};
pub use over::{OverBatch, OverPart, OverStep};
pub use walk::{Found, ManifestWalk, WalkFault, WalkSetup, WalkStep};
