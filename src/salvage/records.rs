//! Records in a stretch of bytes, each believed by its own checksum.

use corelog_shards::{
    format::{
        checksum::StoreSeed,
        frame::FrameHeader,
        record::{RecordFlags, RecordHeader, RecordKind, RecordView, check_record, summarise_body},
    },
    ids::Generation,
    limits::RECORD_ALIGNMENT,
};

/// Bytes that may be checked for each byte of a stretch while the next good record is looked for.
const CHECKED_PER_BYTE_MAX: usize = 64;

/// Where a stretch lies, and what its checksums are made with.
#[derive(Clone, Copy)]
pub(super) struct Stretch {
    pub(super) seed: StoreSeed,
    pub(super) generation: Generation,
    /// The byte of the store at which it begins.
    pub(super) byte: u64,
}

/// What is found in a stretch.
pub(super) enum Piece<'a> {
    /// A good record, and the byte of the store at which it begins.
    Good(u64, RecordView<'a>),
    /// No good record begins at this byte of the store.
    Bad(u64),
}

/// Whether the lengths of a frame's records can be relied on: they are those that its header was made for.
pub(super) fn are_lengths_good(header: &FrameHeader, body: &[u8]) -> bool {
    summarise_body(body)
        .is_ok_and(|summary| summary.records == header.records && summary.digest == header.records_digest)
}

/// Goes through a stretch. Where a record is bad, the next one is behind its length if lengths are good, and else
/// wherever the next good one begins. One `Bad` stands for all that is passed over.
pub(super) fn pieces(bytes: &[u8], stretch: Stretch, lengths_are_good: bool) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut at = 0;
    let mut is_lost = false;
    // Hostile bytes may have a long record begin everywhere.
    let mut budget = CHECKED_PER_BYTE_MAX * bytes.len();
    while at < bytes.len() {
        let byte = stretch.byte + at as u64;
        let rest = &bytes[at..];
        let is_worth_it = RecordHeader::peek(rest).is_some_and(|header| {
            let is_own = matches!(
                header.kind,
                RecordKind::DATA | RecordKind::BATCH_COMMIT | RecordKind::LARGE_MANIFEST | RecordKind::MOVED
            );
            let is_plain = is_own && (header.flags == RecordFlags::NONE || header.is_copy());
            (is_plain || !is_lost) && header.length as usize <= budget.min(rest.len())
        });
        let seed = stretch.seed.record_seed(stretch.generation, byte);
        let checked = if is_worth_it { check_record(rest, seed).ok() } else { None };
        if is_worth_it && !lengths_are_good {
            budget -= RecordHeader::peek(rest).map_or(0, |header| header.length as usize);
        }
        match checked {
            Some(view) => {
                at += view.stride() as usize;
                pieces.push(Piece::Good(byte, view));
                is_lost = false;
            }
            None => {
                if !is_lost || lengths_are_good {
                    pieces.push(Piece::Bad(byte));
                }
                is_lost = true;
                let stride = RecordHeader::peek(rest).filter(|_| lengths_are_good).map(RecordHeader::stride);
                at += stride.unwrap_or(RECORD_ALIGNMENT) as usize;
            }
        }
    }
    pieces
}
