//! The yardsticks: what a machine could do if a log cost nothing but framing, a checksum and the device.
//!
//! Nothing of the engine runs here; from `corelog-shards` come only aligned memory and the limits. Each yardstick
//! is a struct with public options, `prepare` where it needs a file, and `run`, which may be called again and
//! again so that runs can be interleaved with the engine's. Each checks what it wrote or read and fails with
//! [`RunError::Damage`] if a byte differs: a yardstick that skips work is worse than none.
//!
//! | yardstick | what it is |
//! |---|---|
//! | [`BareCopy`] | frame, CRC-32C and copy into a few buffers, no device |
//! | [`BareLoop`] | the same, each full buffer written by io_uring, one pinned thread and file per core |
//! | [`BareDurable`] | one issuer, groups of small records, each group on stable media before the next begins |
//! | [`PreparedDurable::run_open`] | the same under an [`OpenLoop`], which asks at fixed times |
//! | [`BareRead`] | random reads of single records, a fixed number in flight |
//! | [`fio`](fio::run) | the same shapes by fio, where it is installed |
//!
//! Unsafe code is in `ring.rs` alone: io_uring cannot be driven without it.
#![deny(unsafe_code)]

mod bare_copy;
mod bare_durable;
mod bare_loop;
mod bare_open;
mod bare_read;
mod error;
mod figures;
pub mod fio;
mod frame;
mod limits;
mod open_loop;
mod payload;
mod pinning;
#[expect(unsafe_code, reason = "io_uring takes raw pointers; the file's head says why they stay valid")]
mod ring;
mod space;
mod workers;

pub use bare_copy::BareCopy;
pub use bare_durable::{BareDurable, PreparedDurable, SyncBy};
pub use bare_loop::{BareLoop, PreparedLoop};
pub use bare_read::{BareRead, PreparedRead};
pub use error::{RunError, Step};
pub use figures::{Figures, Latency};
pub use open_loop::{OpenLoop, Served, Service};
pub use pinning::Pinning;
pub use ring::RingError;
pub use space::{Space, SpaceError};
