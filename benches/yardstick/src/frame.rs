//! The least framing that gives what a log gives: a header per buffer, a checksum per record, eight-byte
//! alignment. Sizes are the engine's, so that a comparison is one of work and not of layout; the fields are not.

use crate::{
    error::{RunError, bounded},
    payload::Payload,
};
use corelog_shards::limits::{
    BUFFER_BYTES_MAX, BUFFER_BYTES_MIN, FRAME_HEADER_BYTES, RECORD_ALIGNMENT, RECORD_HEADER_BYTES,
    SLOT_BYTES_MIN, record_bytes_max,
};
use crc_fast::crc32_iscsi;

const FRAME_HEADER: usize = FRAME_HEADER_BYTES as usize;
const RECORD_HEADER: usize = RECORD_HEADER_BYTES as usize;
const MAGIC: [u8; 8] = *b"yardstck";

/// How records of one size lie in frames of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) record_bytes: usize,
    pub(crate) buffer_bytes: usize,
    /// From one record's header to the next one's.
    stride: usize,
    pub(crate) records_per_frame: u64,
}

impl Shape {
    /// As many records in a frame as a buffer holds.
    pub(crate) fn new(record_bytes: usize, buffer_bytes: usize) -> Result<Self, RunError> {
        bounded("buffer_bytes", buffer_bytes as u64, BUFFER_BYTES_MIN..=BUFFER_BYTES_MAX)?;
        let buffer_bytes = buffer_bytes.next_multiple_of(SLOT_BYTES_MIN as usize);
        bounded("record_bytes", record_bytes as u64, 1..=record_bytes_max(buffer_bytes as u64))?;
        let stride = stride(record_bytes);
        let records_per_frame = ((buffer_bytes - FRAME_HEADER) / stride) as u64;
        Ok(Self { record_bytes, buffer_bytes, stride, records_per_frame })
    }

    /// `records` records in each frame, and a buffer just large enough.
    pub(crate) fn group(record_bytes: usize, records: u64) -> Result<Self, RunError> {
        bounded("record_bytes", record_bytes as u64, 1..=BUFFER_BYTES_MAX)?;
        let stride = stride(record_bytes);
        let used = FRAME_HEADER as u64 + stride as u64 * records;
        let buffer_bytes = used.next_multiple_of(SLOT_BYTES_MIN);
        bounded("bytes of a group", buffer_bytes, SLOT_BYTES_MIN..=BUFFER_BYTES_MAX)?;
        Ok(Self { record_bytes, buffer_bytes: buffer_bytes as usize, stride, records_per_frame: records })
    }

    /// Device bytes of a frame with `records` records.
    pub(crate) fn frame_bytes(&self, records: u64) -> u64 {
        (FRAME_HEADER as u64 + self.stride as u64 * records).next_multiple_of(SLOT_BYTES_MIN)
    }

    /// Device bytes of a full frame.
    pub(crate) fn full_frame_bytes(&self) -> u64 {
        self.frame_bytes(self.records_per_frame)
    }

    pub(crate) fn frames(&self, records: u64) -> u64 {
        records.div_ceil(self.records_per_frame)
    }

    /// Device bytes of a log of `records` records.
    pub(crate) fn log_bytes(&self, records: u64) -> u64 {
        self.frames(records) * self.full_frame_bytes()
    }

    /// Where record `number` of the log begins, in bytes.
    pub(crate) fn position(&self, number: u64) -> u64 {
        let (frame, index) = (number / self.records_per_frame, number % self.records_per_frame);
        frame * self.full_frame_bytes() + FRAME_HEADER as u64 + index * self.stride as u64
    }

    /// Bytes of a record with its header.
    pub(crate) fn record_with_header(&self) -> usize {
        RECORD_HEADER + self.record_bytes
    }
}

const fn stride(record_bytes: usize) -> usize {
    (RECORD_HEADER + record_bytes).next_multiple_of(RECORD_ALIGNMENT as usize)
}

/// Differs for every place in the file, so that a record in the wrong place fails its check.
#[inline]
fn seed(position: u64) -> u32 {
    (position / RECORD_ALIGNMENT).wrapping_mul(0x9E37_79B1) as u32
}

/// Fills one buffer.
pub(crate) struct Framer<'a> {
    bytes: &'a mut [u8],
    /// Where the frame begins in the file.
    base: u64,
    used: usize,
    records: u32,
}

impl<'a> Framer<'a> {
    pub(crate) fn new(bytes: &'a mut [u8], base: u64) -> Self {
        Self { bytes, base, used: FRAME_HEADER, records: 0 }
    }

    /// Copies a record behind the last one; `false` if it does not fit.
    #[inline]
    pub(crate) fn append(&mut self, payload: &[u8]) -> bool {
        let next = self.used + stride(payload.len());
        let Some(space) = self.bytes.get_mut(self.used..next) else {
            return false;
        };
        let (header, rest) = space.split_at_mut(RECORD_HEADER);
        header[4..].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        let (body, padding) = rest.split_at_mut(payload.len());
        body.copy_from_slice(payload);
        for byte in padding {
            *byte = 0;
        }
        let checksum =
            crc32_iscsi(&space[4..RECORD_HEADER + payload.len()]) ^ seed(self.base + self.used as u64);
        space[..4].copy_from_slice(&checksum.to_le_bytes());
        self.used = next;
        self.records += 1;
        true
    }

    /// Writes the frame header and zeroes the rest of the last slot; gives the bytes to write.
    pub(crate) fn finish(self, number: u64) -> usize {
        let end = self.used.next_multiple_of(SLOT_BYTES_MIN as usize);
        self.bytes[self.used..end].fill(0);
        let header = &mut self.bytes[..FRAME_HEADER];
        header.fill(0);
        header[..8].copy_from_slice(&MAGIC);
        header[8..16].copy_from_slice(&number.to_le_bytes());
        header[16..24].copy_from_slice(&self.base.to_le_bytes());
        header[24..28].copy_from_slice(&(self.used as u32).to_le_bytes());
        header[28..32].copy_from_slice(&self.records.to_le_bytes());
        let checksum = crc32_iscsi(&header[..FRAME_HEADER - 4]);
        header[FRAME_HEADER - 4..].copy_from_slice(&checksum.to_le_bytes());
        end
    }
}

/// Checks the record at the start of `bytes`, which lies at `position` in the file.
#[inline]
pub(crate) fn check_record(bytes: &[u8], position: u64, payload: &[u8]) -> Result<(), RunError> {
    let damage = RunError::Damage { position };
    let Some(record) = bytes.get(..RECORD_HEADER + payload.len()) else {
        return Err(damage);
    };
    let checksum = crc32_iscsi(&record[4..]) ^ seed(position);
    let sound = record[..4] == checksum.to_le_bytes()
        && record[4..RECORD_HEADER] == (payload.len() as u32).to_le_bytes()
        && record[RECORD_HEADER..] == *payload;
    if sound { Ok(()) } else { Err(damage) }
}

/// Checks a whole frame: number `frame`, at `base` in the file, with `records` records of which the first is
/// `first_record`.
pub(crate) fn check_frame(
    bytes: &[u8],
    shape: &Shape,
    frame: u64,
    base: u64,
    records: u64,
    payload: &mut Payload,
) -> Result<(), RunError> {
    let header = bytes.get(..FRAME_HEADER).ok_or(RunError::Damage { position: base })?;
    let checksum = crc32_iscsi(&header[..FRAME_HEADER - 4]);
    let sound = header[..8] == MAGIC
        && header[8..16] == frame.to_le_bytes()
        && header[16..24] == base.to_le_bytes()
        && header[28..32] == (records as u32).to_le_bytes()
        && header[FRAME_HEADER - 4..] == checksum.to_le_bytes();
    if !sound {
        return Err(RunError::Damage { position: base });
    }
    for index in 0..records {
        let offset = FRAME_HEADER + index as usize * shape.stride;
        let expected = payload.stamp(frame * shape.records_per_frame + index);
        check_record(bytes.get(offset..).unwrap_or_default(), base + offset as u64, expected)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn filled(record_bytes: usize) -> (Shape, Vec<u8>, Payload) {
        let shape = Shape::new(record_bytes, BUFFER_BYTES_MIN as usize).unwrap();
        let mut payload = Payload::new(record_bytes, 5);
        let mut buffer = vec![0xFF; shape.buffer_bytes];
        let mut framer = Framer::new(&mut buffer, 8 * shape.full_frame_bytes());
        for index in 0..shape.records_per_frame {
            assert!(framer.append(payload.stamp(8 * shape.records_per_frame + index)));
        }
        assert!(!framer.append(payload.stamp(0)), "a full frame refuses");
        assert_eq!(framer.finish(8) as u64, shape.full_frame_bytes());
        (shape, buffer, payload)
    }

    fn check(shape: &Shape, buffer: &[u8], payload: &mut Payload) -> Result<(), RunError> {
        check_frame(buffer, shape, 8, 8 * shape.full_frame_bytes(), shape.records_per_frame, payload)
    }

    #[test]
    fn what_was_framed_is_found_again_at_every_size() {
        let largest = record_bytes_max(BUFFER_BYTES_MIN) as usize;
        for record_bytes in [1, 7, 8, 9, 64, 256, 1024, 4096, largest - 3, largest] {
            let (shape, buffer, mut payload) = filled(record_bytes);
            check(&shape, &buffer, &mut payload).unwrap();
            assert_eq!(
                shape.position(shape.records_per_frame),
                shape.full_frame_bytes() + FRAME_HEADER_BYTES
            );
        }
    }

    #[test]
    fn a_changed_byte_or_place_is_damage() {
        let (shape, buffer, mut payload) = filled(256);
        for place in [0, 9, 20, 127, 128, 133, 140, FRAME_HEADER + shape.stride] {
            let mut broken = buffer.clone();
            broken[place] ^= 1;
            assert!(matches!(check(&shape, &broken, &mut payload), Err(RunError::Damage { .. })), "{place}");
        }
        let moved = check_record(&buffer[FRAME_HEADER..], 0, payload.stamp(8 * shape.records_per_frame));
        assert!(matches!(moved, Err(RunError::Damage { position: 0 })));
    }

    #[test]
    fn sizes_out_of_bounds_are_named() {
        assert!(matches!(Shape::new(0, 1 << 18), Err(RunError::Option { name: "record_bytes", .. })));
        assert!(matches!(Shape::new(1 << 18, 1 << 18), Err(RunError::Option { name: "record_bytes", .. })));
        assert!(matches!(Shape::new(64, 1), Err(RunError::Option { name: "buffer_bytes", .. })));
        assert!(matches!(Shape::group(4096, 1 << 20), Err(RunError::Option { .. })));
    }
}
