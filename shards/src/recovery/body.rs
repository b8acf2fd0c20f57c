//! Whether the records of a frame are the ones that its header was made for.

use super::decision::BodyFact;
use crate::{
    format::{
        checksum::{RecordsDigest, StoreSeed},
        frame::FrameHeader,
        record::{RecordHeader, records},
    },
    geometry::Geometry,
    limits::{FRAME_HEADER_BYTES, SECTOR_BYTES},
};

/// Checks every record of a frame. `frame` begins at its header and holds at least its used bytes.
#[must_use]
pub fn check_body(header: &FrameHeader, frame: &[u8], geometry: &Geometry, seed: StoreSeed) -> BodyFact {
    let body = usize::try_from(FRAME_HEADER_BYTES)
        .ok()
        .and_then(|start| frame.get(start..header.used_bytes as usize));
    let Some(body) = body else {
        return BodyFact::Torn;
    };
    let first_byte = geometry.byte_of(header.base_slot) + FRAME_HEADER_BYTES;
    let (mut count, mut digest) = (0_u32, RecordsDigest::new());
    for record in records(body, seed, header.generation, first_byte) {
        let at = match &record {
            Ok((at, _)) | Err((at, _)) => *at,
        };
        let rest = usize::try_from(at).ok().and_then(|at| body.get(at..)).unwrap_or_default();
        if record.is_err() {
            return fault_of(FRAME_HEADER_BYTES + at, rest);
        }
        if let Some(bytes) = rest.first_chunk() {
            digest = digest.with(*bytes);
        }
        count = count.saturating_add(1);
    }
    let same = count == header.records && digest.value() == header.records_digest;
    // Good records that are not the header's own: an earlier write left them, and this one did not all arrive.
    if same { BodyFact::Good } else { BodyFact::Torn }
}

/// Tells damage from an interrupted write, where that can be told: what precedes the bad record in its sector is
/// good, so that the sector did arrive; if the record does not leave that sector, it was damaged in it.
fn fault_of(offset: u64, record: &[u8]) -> BodyFact {
    let in_sector = offset % SECTOR_BYTES;
    if in_sector == 0 {
        return BodyFact::Torn;
    }
    let bytes = RecordHeader::peek(record).map_or(0, RecordHeader::stride);
    if in_sector + bytes <= SECTOR_BYTES { BodyFact::Damaged } else { BodyFact::Torn }
}
