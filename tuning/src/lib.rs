//! What the host offers: CPU and NUMA topology, and a one-look probe of a device.
#![forbid(unsafe_code)]
