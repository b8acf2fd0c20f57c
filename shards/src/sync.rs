//! The one door to atomics, cells and threads: `std` in the product, `loom` under `--cfg loom`, `shuttle` under
//! `--cfg shuttle`.
//!
//! Everything that two threads may touch in this crate goes through here, so that the models explore the
//! shipped types and not a copy of them. Loom goes through all orders of memory for two or three threads; shuttle
//! draws schedules for as many as a model has, and takes every access for sequentially consistent.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, Ordering, fence},
};

#[cfg(shuttle)]
pub(crate) use shuttle::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, Ordering, fence},
};

#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, Ordering, fence},
};

/// Where the models let other threads run although no type of this module is touched: between what is ours and what
/// another crate does. Nothing in the product.
#[inline]
pub(crate) fn let_others_run() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(shuttle)]
    shuttle::thread::yield_now();
}
