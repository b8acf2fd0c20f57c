//! The monotonic clock that all backends on real hardware share.

use super::Instant;
use std::sync::OnceLock;

/// Now, by the host's monotonic clock (`CLOCK_MONOTONIC`). Zero is the first call of the process, so instants of
/// different cores can be compared.
#[must_use]
pub fn monotonic_now() -> Instant {
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    let passed = START.get_or_init(std::time::Instant::now).elapsed();
    Instant(passed.as_nanos() as u64)
}
