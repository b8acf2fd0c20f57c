//! Tests of the ring without a device.
