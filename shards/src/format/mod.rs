//! The device format. `docs/FORMAT.md` is the home of every layout; this module encodes, decodes and checks it, and
//! knows nothing of I/O.
//!
//! Decoding takes bytes that anybody may have written: it never panics, never allocates more than the bytes at hand
//! justify, and says why something is not what was looked for.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation)]

pub mod checksum;
mod codec;
pub mod control;
pub mod extent_header;
pub mod frame;
pub mod manifest;
pub mod moved;
pub mod record;
pub mod superblock;
