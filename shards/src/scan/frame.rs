//! A frame in memory, in the parts that it was read in, and its records one by one.

use super::{Fault, ScanRecord};
use crate::{
    address::Address,
    format::{
        checksum::{RecordsDigest, StoreSeed},
        control::Control,
        frame::FrameHeader,
        moved::{MovedGroup, MovedRecord, Origin},
        record::{MalformedFrame, RecordHeader, RecordKind, check_record},
    },
    geometry::Geometry,
    ids::ExtentOrdinal,
    limits::{FRAME_HEADER_BYTES, RECORD_HEADER_BYTES},
};
use bytes::{Bytes, BytesMut};

const BODY_START: usize = FRAME_HEADER_BYTES as usize;
const RECORD_HEADER: usize = RECORD_HEADER_BYTES as usize;

/// A part of a frame, and where in the frame it begins.
#[derive(Clone, Debug)]
struct Part {
    start: usize,
    bytes: Bytes,
}

/// A frame whose header is the right one.
#[derive(Debug)]
pub(super) struct LoadedFrame {
    pub(super) header: FrameHeader,
    /// Of its extent.
    pub(super) ordinal: ExtentOrdinal,
    /// Without anything behind the used bytes. Parts begin at slots, so no record header lies across two.
    parts: Vec<Part>,
    /// Of the next record, from the start of the frame.
    pub(super) offset: usize,
    /// The group of copies that the last record belongs to, and how many of them were met.
    group: Option<(MovedGroup, usize)>,
    /// What the last record is a copy of.
    moved_from: Option<(Origin, MovedRecord)>,
    geometry: Geometry,
    seed: StoreSeed,
}

impl LoadedFrame {
    pub(super) const fn new(
        header: FrameHeader,
        ordinal: ExtentOrdinal,
        geometry: Geometry,
        seed: StoreSeed,
    ) -> Self {
        Self {
            header,
            ordinal,
            parts: Vec::new(),
            offset: BODY_START,
            group: None,
            moved_from: None,
            geometry,
            seed,
        }
    }

    /// Adds the bytes that follow; what is behind the frame is left off.
    pub(super) fn push(&mut self, bytes: &Bytes) {
        let start = self.parts.last().map_or(0, |last| last.start + last.bytes.len());
        let length = bytes.len().min(self.used().saturating_sub(start));
        self.parts.push(Part { start, bytes: bytes.slice(..length) });
    }

    /// True once all parts are there.
    pub(super) fn is_whole(&self) -> bool {
        self.parts.last().is_some_and(|last| last.start + last.bytes.len() >= self.used())
    }

    const fn used(&self) -> usize {
        self.header.used_bytes as usize
    }

    /// The part that holds `offset`, and where in it that is.
    fn part_at(&self, offset: usize) -> Option<(&Bytes, usize)> {
        let index = self.parts.partition_point(|part| part.start <= offset).checked_sub(1)?;
        let part = self.parts.get(index)?;
        let inside = offset - part.start;
        (inside < part.bytes.len()).then_some((&part.bytes, inside))
    }

    fn header_at(&self, offset: usize) -> Option<RecordHeader> {
        let (bytes, inside) = self.part_at(offset)?;
        RecordHeader::peek(bytes.get(inside..)?)
    }

    /// Whether the headers of the records are the ones that the frame was written with, and whether one of them
    /// begins at `resume`, unless that is 0.
    pub(super) fn check(&self, resume: u32) -> Result<(), Fault> {
        let (mut offset, mut records, mut digest) = (BODY_START, 0_u32, RecordsDigest::new());
        let mut is_between = resume == 0 || resume as usize == self.used();
        let malformed = |offset: usize| {
            let (offset, body_bytes) = ((offset - BODY_START) as u64, (self.used() - BODY_START) as u64);
            Fault::Malformed(MalformedFrame { offset, body_bytes })
        };
        for part in &self.parts {
            let end = part.start + part.bytes.len();
            while offset < end {
                is_between |= offset == resume as usize;
                let rest = part.bytes.get(offset - part.start..).unwrap_or_default();
                let header_bytes = rest.first_chunk::<RECORD_HEADER>().ok_or_else(|| malformed(offset))?;
                let header = RecordHeader::peek(rest).ok_or_else(|| malformed(offset))?;
                let stride = usize::try_from(header.stride()).unwrap_or(usize::MAX);
                if stride > self.used() - offset {
                    return Err(malformed(offset));
                }
                digest = digest.with(*header_bytes);
                records = records.saturating_add(1);
                offset += stride;
            }
        }
        if records != self.header.records || digest.value() != self.header.records_digest {
            return Err(Fault::OtherRecords);
        }
        if is_between { Ok(()) } else { Err(Fault::NotBetweenRecords { offset: resume }) }
    }

    /// The position of the next record in the store, in bytes.
    pub(super) const fn next_byte(&self) -> u64 {
        self.geometry.byte_of(self.header.base_slot) + self.offset as u64
    }

    /// Goes on to the first record at or behind a byte of the store. The frame was checked.
    pub(super) fn skip_to(&mut self, byte: u64) {
        // One by one: a record may be a copy, and what it counts as is said before the first of its group.
        while self.next_byte() < byte && self.next().is_some() {}
    }

    /// What the last record that [`LoadedFrame::next`] gave is a copy of.
    pub(super) const fn moved_from(&self) -> Option<(Origin, MovedRecord)> {
        self.moved_from
    }

    fn note_group(&mut self, header: RecordHeader, record: Option<&ScanRecord>) {
        self.moved_from = None;
        match (header.kind, record) {
            (RecordKind::CONTROL, Some(record)) => {
                self.group = match Control::decode(&record.payload) {
                    Ok(Some(Control::Moved(group))) => Some((group, 0)),
                    _ => None,
                };
            }
            (RecordKind::MOVED | RecordKind::LARGE_MANIFEST, _) if header.is_copy() => {
                if let Some((group, met)) = &mut self.group {
                    self.moved_from = group.records.get(*met).map(|it| (group.origin, *it));
                    *met += 1;
                }
            }
            _ => self.group = None,
        }
    }

    /// The next record. The frame was checked, so that a damaged record does not keep the next one from being found.
    pub(super) fn next(&mut self) -> Option<Result<ScanRecord, Fault>> {
        let header = self.header_at(self.offset)?;
        let (part, inside) = self.part_at(self.offset)?;
        let length = RECORD_HEADER + header.length as usize;
        let copied;
        let (bytes, inside) = if part.len() - inside >= length {
            (part, inside)
        } else {
            copied = self.copy(self.offset, length);
            (&copied, 0)
        };
        let byte = self.next_byte();
        let FrameHeader { generation, number, unix_ns, .. } = self.header;
        let address = Address::new(&self.geometry, byte, generation, u64::from(header.length));
        let seed = self.seed.record_seed(generation, byte);
        let record = match check_record(bytes.get(inside..).unwrap_or_default(), seed) {
            Ok(view) => Ok(ScanRecord {
                address,
                frame: number,
                unix_ns,
                kind: view.kind,
                flags: view.flags,
                payload: bytes.slice(inside + RECORD_HEADER..inside + length),
            }),
            Err(error) => Err(Fault::Record { address, error }),
        };
        self.offset += usize::try_from(header.stride()).unwrap_or(usize::MAX);
        self.note_group(header, record.as_ref().ok());
        Some(record)
    }

    /// The bytes of a record that lies across parts.
    fn copy(&self, offset: usize, length: usize) -> Bytes {
        let mut copied = BytesMut::with_capacity(length.min(self.used()));
        while copied.len() < length {
            let Some((bytes, inside)) = self.part_at(offset + copied.len()) else { break };
            let rest = bytes.get(inside..).unwrap_or_default();
            copied.extend_from_slice(rest.get(..length - copied.len()).unwrap_or(rest));
        }
        copied.freeze()
    }
}
