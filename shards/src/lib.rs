//! Everything that one core of a corelog store owns: the flush ring, slots, extents, frames, device I/O, recovery.
//!
//! This crate is the engine room of `corelog`; users open a store through that crate. Unsafe code of the project
//! lives here, in the files that `docs/ARCHITECTURE.md` names.

pub mod address;
pub mod device;
pub mod format;
pub mod geometry;
pub mod ids;
pub mod limits;
pub mod memory;
pub mod park;
mod sync;
