//! What the host offers to a store: CPUs and NUMA nodes, a one-look probe of a device, and the host's limits.
//!
//! Everything here reads; nothing is changed on the host. All facts come from files below folders that are given
//! as parameters (`/sys`, `/proc`), so that tests describe a machine by a folder. A fact that the host does not
//! tell is `None`, never a guess.
#![forbid(unsafe_code)]

pub mod host;
pub mod interrupts;
pub mod probe;
mod sysfs;
pub mod topology;

#[cfg(test)]
mod fake;
