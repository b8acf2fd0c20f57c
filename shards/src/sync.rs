//! The one door to atomics, cells and threads: `std` in the product, `loom` under `--cfg loom`.
//!
//! Everything that two threads may touch in this crate goes through here, so that the models explore the
//! shipped types and not a copy of them.

#[cfg(loom)]
pub(crate) use loom::{
    hint::spin_loop,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence},
    },
};

#[cfg(not(loom))]
pub(crate) use std::{
    hint::spin_loop,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence},
    },
};
