//! Payloads that name themselves: whatever comes back can be checked without being told what it should be.

use super::random::mix;

/// The number of a record, which its payload begins with.
pub(super) const ID_BYTES: usize = 8;

/// Fills a payload; it is at least [`ID_BYTES`] long.
pub(super) fn fill(id: u64, bytes: &mut [u8]) {
    let (head, body) = bytes.split_at_mut(ID_BYTES);
    head.copy_from_slice(&id.to_le_bytes());
    let key = mix(id ^ 0x5eed);
    let (words, rest) = body.as_chunks_mut::<8>();
    let end = key.wrapping_add(words.len() as u64).to_le_bytes();
    for (index, word) in words.iter_mut().enumerate() {
        *word = key.wrapping_add(index as u64).to_le_bytes();
    }
    rest.copy_from_slice(&end[..rest.len()]);
}

/// The number of a payload, if it is one of ours from the first to the last byte.
pub(super) fn identify(bytes: &[u8]) -> Option<u64> {
    let (head, body) = bytes.split_first_chunk::<ID_BYTES>()?;
    let id = u64::from_le_bytes(*head);
    let key = mix(id ^ 0x5eed);
    let (words, rest) = body.as_chunks::<8>();
    let end = key.wrapping_add(words.len() as u64).to_le_bytes();
    let differs =
        |(index, word): (usize, &[u8; 8])| u64::from_le_bytes(*word) != key.wrapping_add(index as u64);
    let is_right = !words.iter().enumerate().any(differs) && *rest == end[..rest.len()];
    is_right.then_some(id)
}
