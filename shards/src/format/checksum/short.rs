//! CRC-32C of a header word and a short payload that lie in different places, by the processor's own instruction.
//!
//! The checksum crate takes one slice. The bytes of a record that was just copied into its buffer are one, but reading them
//! back waits for the stores, and these wait for a line that the device drove out of the cache. The payload's
//! source is in the cache. Up to [`SHORT_BYTES_MAX`] a plain chain of 8-byte steps is also faster than what the crate does to begin
//! from another state; see `docs/PERFORMANCE.md`.
//!
//! This file holds unsafe code.

/// Longer payloads go to the crate.
pub(super) const SHORT_BYTES_MAX: usize = 256;

/// The checksum of the word's bytes (little-endian) and then the payload's. `None`: this processor has no such instruction.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn crc32c_of_short(word: u32, payload: &[u8]) -> Option<u32> {
    // SAFETY: the function needs nothing but the instructions of SSE 4.2, and the processor has them.
    std::arch::is_x86_feature_detected!("sse4.2").then(|| unsafe { by_instruction(word, payload) })
}

/// The same for processors whose instruction is not used.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(super) fn crc32c_of_short(_word: u32, _payload: &[u8]) -> Option<u32> {
    None
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn by_instruction(word: u32, payload: &[u8]) -> u32 {
    use std::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u32, _mm_crc32_u64};
    let (eights, rest) = payload.as_chunks::<8>();
    let begun = u64::from(_mm_crc32_u32(!0, word));
    let crc = eights.iter().fold(begun, |crc, eight| _mm_crc32_u64(crc, u64::from_le_bytes(*eight)));
    #[expect(clippy::cast_possible_truncation, reason = "the instruction leaves the upper half zero")]
    let crc = rest.iter().fold(crc as u32, |crc, byte| _mm_crc32_u8(crc, *byte));
    !crc
}
