//! The one door to atomics, cells and threads: `std` in the product, `loom` under `--cfg loom`.
//!
//! Everything that two threads may touch in this crate goes through here, so that the models explore the
//! shipped types and not a copy of them.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, Ordering, fence},
};

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, Ordering, fence},
};
