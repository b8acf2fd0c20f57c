//! Everything that one core of a corelog store owns: the flush ring, slots, extents, frames, device I/O, recovery.
//!
//! This crate is the engine room of `corelog`; users open a store through that crate. Unsafe code of the project
//! lives here, in the files that `docs/ARCHITECTURE.md` names.

pub mod address;
mod brief_lock;
pub mod cache;
pub mod cleaning;
pub mod core;
mod crossing;
pub mod cut;
pub mod device;
pub mod directory;
pub mod draining;
pub mod extents;
pub mod failure;
mod fork;
pub mod format;
mod futex;
pub mod geometry;
pub mod growth;
pub mod ids;
pub mod layout;
pub mod limits;
pub mod manifest;
pub mod memory;
#[cfg(all(test, loom))]
mod models;
pub mod mutant;
pub mod nearness;
#[cfg(not(loom))]
pub mod null_core;
pub mod open;
pub mod opening;
pub mod over;
pub mod park;
pub mod read_batch;
pub mod reads;
pub mod recovery;
pub mod requests;
pub mod ring;
pub mod scan;
pub mod shard;
pub mod shard_owner;
#[cfg(feature = "sim")]
pub mod sim;
mod sleepers;
mod sync;
mod token;
#[cfg(test)]
mod twins;
pub mod waiting;
pub mod watermark;
#[cfg(all(test, not(loom)))]
#[expect(clippy::unwrap_used, reason = "tests")]
mod ways;
mod writers;
