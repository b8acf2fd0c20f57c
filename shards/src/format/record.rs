//! Records: 8 bytes of header, the payload, nothing between. The functions here run once per record on the append
//! and read paths, so they are small and allocate nothing.

use super::{
    checksum::{RecordsDigest, StoreSeed, crc32c, crc32c_of_two},
    manifest::Manifest,
};
use crate::{
    ids::{ExtentOrdinal, Generation},
    limits::{RECORD_ALIGNMENT, RECORD_HEADER_BYTES, RECORD_PAYLOAD_BYTES_MAX},
};
use std::fmt;

const LENGTH_BITS: u32 = 24;
const KIND_BITS: u32 = 5;
const FLAG_BITS: u32 = 3;
const KIND_SHIFT: u32 = LENGTH_BITS;
const FLAG_SHIFT: u32 = LENGTH_BITS + KIND_BITS;
const _: () = assert!(LENGTH_BITS + KIND_BITS + FLAG_BITS == 32);
const _: () = assert!(RECORD_PAYLOAD_BYTES_MAX == (1 << LENGTH_BITS) - 1);

const LENGTH_MASK: u32 = (1 << LENGTH_BITS) - 1;
const KIND_MASK: u32 = (1 << KIND_BITS) - 1;

const RECORD_HEADER: usize = 8;
const _: () = assert!(RECORD_HEADER as u64 == RECORD_HEADER_BYTES);
/// Where the checksum ends and the checksummed bytes begin.
const CHECKSUM_BYTES: usize = 4;

/// What a record is. 0 is no kind, so that zeros are never a record.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordKind(u8);

impl RecordKind {
    /// A caller's bytes.
    pub const DATA: Self = Self(1);
    /// A reservation that was dropped: its payload means nothing.
    pub const VOID: Self = Self(2);
    /// Fills space that no record may begin in; its payload means nothing.
    pub const PADDING: Self = Self(3);
    /// The engine's own notes; the first payload byte says which (see [`ControlKind`]).
    pub const CONTROL: Self = Self(4);
    /// A caller's bytes, that count once a batch commit lists them.
    pub const BATCH_DATA: Self = Self(5);
    /// The list of a batch's records: the batch is complete.
    pub const BATCH_COMMIT: Self = Self(6);
    /// A part of a record that is longer than a buffer.
    pub const LARGE_PART: Self = Self(7);
    /// The list of a large record's parts; its address is the record's address.
    pub const LARGE_MANIFEST: Self = Self(8);
    /// A copy of a caller's bytes, made by cleaning. It counts as the group says that it is in.
    pub const MOVED: Self = Self(9);

    /// The kind with this code; `None` for 0 and what does not fit into 5 bits.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        if code == 0 || code as u32 > KIND_MASK { None } else { Some(Self(code)) }
    }

    /// As stored.
    #[must_use]
    pub const fn code(self) -> u8 {
        self.0
    }

    /// True if cleaning copies it by itself, or may leave it behind; what is of a large record goes with that as a whole.
    #[must_use]
    pub const fn is_movable(self) -> bool {
        let is_left = matches!(self, Self::VOID | Self::PADDING | Self::CONTROL | Self::BATCH_COMMIT);
        self.is_copied() || self.is_of_large() || is_left
    }

    /// A part of a large record, or of its list.
    #[must_use]
    pub const fn is_of_large(self) -> bool {
        matches!(self, Self::LARGE_PART | Self::LARGE_MANIFEST)
    }

    /// True if cleaning copies it where it is wanted. Control records that still say something are repeated by the
    /// checkpoint that freeing needs; and what a list makes count needs no list once it is copied.
    #[must_use]
    pub const fn is_copied(self) -> bool {
        matches!(self, Self::DATA | Self::MOVED | Self::BATCH_DATA)
    }

    /// True for a copy that cleaning made, and that counts as the group says that it is in: a caller's bytes, or with this
    /// flag the list of a large record. The copied parts that such a list leads to count by the list.
    #[must_use]
    pub const fn is_copy(self, flags: RecordFlags) -> bool {
        matches!((self, flags), (Self::MOVED, _) | (Self::LARGE_MANIFEST, RecordFlags::MOVED))
    }

    /// False for a kind that a later version brought.
    #[must_use]
    pub const fn is_known(self) -> bool {
        self.0 >= 1 && self.0 <= 9
    }
}

/// The kinds of records that are what somebody appended, each by itself, as bits. A large one counts by its list.
const ONE_APPENDED: u32 = 1 << RecordKind::DATA.0 | 1 << RecordKind::BATCH_DATA.0;
/// And those that hold bytes of it. What the engine wrote beside them, or again, is in neither.
const APPENDED: u32 = ONE_APPENDED | 1 << RecordKind::LARGE_PART.0;

impl fmt::Debug for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::DATA => "data",
            Self::VOID => "void",
            Self::PADDING => "padding",
            Self::CONTROL => "control",
            Self::BATCH_DATA => "batch data",
            Self::BATCH_COMMIT => "batch commit",
            Self::LARGE_PART => "large part",
            Self::LARGE_MANIFEST => "large manifest",
            Self::MOVED => "moved",
            Self(code) => return write!(f, "kind {code}"),
        })
    }
}

/// The first payload byte of a control record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ControlKind {
    /// Everything of the shard before a place is no longer wanted.
    Trim = 1,
    /// An extent was freed; its blocks may be claimed again once this is durable.
    ExtentFreed = 2,
    /// Recovery may begin here.
    Checkpoint = 3,
    /// The shard is alive and has nothing to say.
    IdleMark = 4,
    /// A named cursor of a scan.
    Cursor = 5,
    /// Records that cleaning moved follow.
    MovedGroup = 6,
    /// A batch over several shards counts.
    Decided = 8,
    /// The shard has made its share of such a batch count.
    Resolved = 9,
}

impl ControlKind {
    /// True for what a checkpoint consists of, or is followed by; beside a commit some of it is written alone.
    const fn is_of_checkpoints(self) -> bool {
        matches!(self, Self::Checkpoint | Self::IdleMark | Self::Decided | Self::Resolved)
    }

    /// The control kind of a control record's payload; `None` if it is empty or of a later version.
    #[must_use]
    pub fn of(payload: &[u8]) -> Option<Self> {
        Some(match payload.first()? {
            1 => Self::Trim,
            2 => Self::ExtentFreed,
            3 => Self::Checkpoint,
            4 => Self::IdleMark,
            5 => Self::Cursor,
            6 => Self::MovedGroup,
            8 => Self::Decided,
            9 => Self::Resolved,
            _ => return None,
        })
    }
}

/// Three bits for the kind to use; a data record has none set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct RecordFlags(u8);

impl RecordFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// Of a batch commit or a large manifest: a part of a list, that the list itself leads to. It says nothing alone.
    pub const LIST_PART: Self = Self(1);
    /// Of a batch commit: it makes nothing count yet, for it is one of a batch over several shards.
    pub const PREPARED: Self = Self(2);
    /// Of a large manifest: cleaning wrote it anew, and it counts as the group says that it is in. Of a large part: it is a
    /// copy that such a list leads to.
    pub const MOVED: Self = Self(4);

    /// The flags with these bits; `None` if they do not fit.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits < 1 << FLAG_BITS { Some(Self(bits)) } else { None }
    }

    /// As stored.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }
}

/// A record header as it stands, its checksum not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Bytes of the payload.
    pub length: u32,
    /// What it is.
    pub kind: RecordKind,
    /// The kind's flags.
    pub flags: RecordFlags,
}

impl RecordHeader {
    /// Reads the first 8 bytes. `None`: there are fewer, or no kind is stated, so that this is no record.
    #[inline]
    #[must_use]
    pub fn peek(bytes: &[u8]) -> Option<Self> {
        let (_, word, _) = split(bytes)?;
        Self::unpack(word)
    }

    #[inline]
    const fn unpack(word: u32) -> Option<Self> {
        // Masked to 5 and 3 bits, so the casts lose nothing.
        let (kind, flags) = (((word >> KIND_SHIFT) & KIND_MASK) as u8, (word >> FLAG_SHIFT) as u8);
        match RecordKind::from_code(kind) {
            Some(kind) => Some(Self { length: word & LENGTH_MASK, kind, flags: RecordFlags(flags) }),
            None => None,
        }
    }

    #[inline]
    pub(crate) const fn pack(self) -> u32 {
        self.length | (self.kind.0 as u32) << KIND_SHIFT | (self.flags.0 as u32) << FLAG_SHIFT
    }

    /// Bytes from this record to the next.
    #[inline]
    #[must_use]
    pub const fn stride(self) -> u64 {
        record_bytes(self.length as u64)
    }

    /// As [`RecordKind::is_copy`], with the flags that stand here.
    #[must_use]
    pub const fn is_copy(self) -> bool {
        self.kind.is_copy(self.flags)
    }

    /// True for the list of a batch that counts by it, and of a large record, whether or not it counts yet.
    #[must_use]
    pub fn is_root(self) -> bool {
        match self.kind {
            RecordKind::BATCH_COMMIT => self.flags == RecordFlags::NONE,
            RecordKind::LARGE_MANIFEST => self.flags == RecordFlags::NONE || self.flags == RecordFlags::MOVED,
            _ => false,
        }
    }
}

/// Checksum, packed header word, and all that follows.
#[inline]
fn split(bytes: &[u8]) -> Option<(u32, u32, &[u8])> {
    let (checksum, rest) = bytes.split_first_chunk::<CHECKSUM_BYTES>()?;
    let (word, payload) = rest.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*checksum), u32::from_le_bytes(*word), payload))
}

/// Bytes that a record with a payload of this length takes in a frame: header, payload, rest up to 8.
#[inline]
#[must_use]
pub const fn record_bytes(payload_bytes: u64) -> u64 {
    (RECORD_HEADER_BYTES + payload_bytes).next_multiple_of(RECORD_ALIGNMENT)
}

/// Writes the header in front of a payload that is in place. `bytes` is the header's room and exactly the payload;
/// the up to 7 bytes behind it are the caller's to zero.
///
/// # Panics
/// If there is no room for a header, or the payload is longer than a header can say.
#[inline]
pub fn seal_record(bytes: &mut [u8], kind: RecordKind, flags: RecordFlags, seed: u32) {
    let Some((checksum, covered)) = bytes.split_first_chunk_mut::<CHECKSUM_BYTES>() else {
        panic!("a record needs room for its header");
    };
    let Some((word, payload)) = covered.split_first_chunk_mut::<4>() else {
        panic!("a record needs room for its header");
    };
    let length = match u32::try_from(payload.len()) {
        Ok(length) if u64::from(length) <= RECORD_PAYLOAD_BYTES_MAX => length,
        _ => panic!("a payload of {} bytes is longer than a record can be", payload.len()),
    };
    *word = RecordHeader { length, kind, flags }.pack().to_le_bytes();
    *checksum = (crc32c(covered) ^ seed).to_le_bytes();
}

/// Writes a whole record: header, payload, and zeros up to the next. `room` is what [`record_bytes`] says for the payload.
/// Nothing of the room is read, so that a line which is not in the cache is not waited for. Gives the header's bytes.
///
/// # Panics
/// If the room is another, or the payload is longer than a header can say.
#[inline]
pub fn write_record(
    room: &mut [u8],
    payload: &[u8],
    kind: RecordKind,
    flags: RecordFlags,
    seed: u32,
) -> [u8; RECORD_HEADER] {
    let length = match u32::try_from(payload.len()) {
        Ok(length) if u64::from(length) <= RECORD_PAYLOAD_BYTES_MAX => length,
        _ => panic!("a payload of {} bytes is longer than a record can be", payload.len()),
    };
    let word = RecordHeader { length, kind, flags }.pack();
    let header = (u64::from(crc32c_of_two(word, payload) ^ seed) | u64::from(word) << 32).to_le_bytes();
    let Some((first, behind)) = room.split_first_chunk_mut::<RECORD_HEADER>() else {
        panic!("a record needs room for its header");
    };
    *first = header;
    let (bytes, padding) = behind.split_at_mut(payload.len());
    bytes.copy_from_slice(payload);
    assert!((padding.len() as u64) < RECORD_ALIGNMENT, "{} bytes behind a record", padding.len());
    clear_padding(padding);
    header
}

/// Clears the at most seven bytes between a record and the next. They go to the device too, and must not be those of an
/// old turn. A few stores; `fill` would be a call, also for no bytes at all.
#[inline]
pub fn clear_padding(padding: &mut [u8]) {
    match padding {
        [] => {}
        [a, b, c, d, rest @ ..] => {
            [*a, *b, *c, *d] = [0; 4];
            rest.iter_mut().take(3).for_each(|byte| *byte = 0);
        }
        short => short.iter_mut().take(3).for_each(|byte| *byte = 0),
    }
}

/// A record whose checksum is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// What it is.
    pub kind: RecordKind,
    /// The kind's flags.
    pub flags: RecordFlags,
    /// The bytes.
    pub payload: &'a [u8],
}

impl RecordView<'_> {
    /// Bytes from this record to the next.
    #[inline]
    #[must_use]
    pub const fn stride(&self) -> u64 {
        record_bytes(self.payload.len() as u64)
    }

    /// Without the payload.
    #[must_use]
    pub fn header(&self) -> RecordHeader {
        let length = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        RecordHeader { length, kind: self.kind, flags: self.flags }
    }
}

/// There is no good record here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Nothing was ever written here.
    #[error("no record was written here")]
    Absent,
    /// The header asks for more bytes than there are: read more, or it is damaged.
    #[error("the record needs {needed} bytes and {found} are there")]
    Truncated {
        /// Bytes of the record, header included.
        needed: u64,
        /// Bytes at hand.
        found: u64,
    },
    /// The checksum does not match: damaged, stale, misplaced, or another store's.
    #[error("record checksum is {found:08x} where {expected:08x} is right")]
    Checksum {
        /// Computed, for this place.
        expected: u32,
        /// Stored.
        found: u32,
    },
}

/// Checks the record at the start of `bytes` (which may go on behind it) against the seed of its place.
#[inline]
pub fn check_record(bytes: &[u8], seed: u32) -> Result<RecordView<'_>, RecordError> {
    let found_bytes = bytes.len() as u64;
    let Some((found, word, payload)) = split(bytes) else {
        return Err(RecordError::Truncated { needed: RECORD_HEADER_BYTES, found: found_bytes });
    };
    let Some(header) = RecordHeader::unpack(word) else {
        return Err(RecordError::Absent);
    };
    let length = header.length as usize;
    let (Some(payload), Some(covered)) = (payload.get(..length), bytes.get(CHECKSUM_BYTES..8 + length))
    else {
        let needed = RECORD_HEADER_BYTES + u64::from(header.length);
        return Err(RecordError::Truncated { needed, found: found_bytes });
    };
    let expected = crc32c(covered) ^ seed;
    if expected != found {
        return Err(RecordError::Checksum { expected, found });
    }
    Ok(RecordView { kind: header.kind, flags: header.flags, payload })
}

/// The lengths of a frame's records do not lead from its first to its last byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the records of a frame lose their way at byte {offset} of {body_bytes}")]
pub struct MalformedFrame {
    /// Where the walk stopped, from the first record.
    pub offset: u64,
    /// Bytes of all records.
    pub body_bytes: u64,
}

/// What a frame header says about its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodySummary {
    /// Number of records.
    pub records: u32,
    /// Runs over their headers.
    pub digest: u64,
    /// One of them is a control record.
    pub has_control: bool,
    /// The oldest extent that lists whose roots are among them lead to.
    pub lists_from: Option<ExtentOrdinal>,
    /// One of them is more than a part of a checkpoint, or what goes with one.
    pub has_news: bool,
    /// What cleaning has to know of them.
    pub contents: BodyContents,
    /// Records that somebody appended; a large one counts by its list.
    pub appended: u32,
    /// Bytes of payload that somebody appended.
    pub payload_bytes: u64,
}

/// What cleaning has to know of some records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BodyContents {
    /// The longest payload that may have to be copied.
    pub longest: u32,
    /// One of them cannot be moved by itself.
    pub is_fixed: bool,
    /// There is batch data.
    pub has_batch_data: bool,
    /// There are parts of large records, or of their lists.
    pub has_large: bool,
    /// There is something that a list may need which is not there yet, or some of a list.
    pub is_of_lists: bool,
    /// Bytes that are copied in no case, and keep nothing from being freed.
    pub idle_bytes: u64,
    /// The oldest extent that lists of batches, or parts of such lists, lead to.
    pub batches_from: Option<ExtentOrdinal>,
}

impl BodyContents {
    /// Adds a record. `record`: its bytes, header included.
    pub fn note(&mut self, header: &RecordHeader, record: &[u8]) {
        if header.kind.is_copied() {
            self.longest = header.length.max(self.longest);
            self.has_batch_data |= header.kind == RecordKind::BATCH_DATA;
            self.is_of_lists |= self.has_batch_data;
            return;
        }
        if header.kind.is_of_large() {
            // Live until they are released.
            (self.has_large, self.is_of_lists) = (true, true);
            return;
        }
        self.idle_bytes += header.stride();
        self.is_fixed |= !header.kind.is_movable();
        self.is_of_lists |= header.kind == RecordKind::BATCH_COMMIT;
        // What is prepared makes nothing count.
        if header.kind == RecordKind::BATCH_COMMIT && header.flags != RecordFlags::PREPARED {
            let from = record.get(RECORD_HEADER..).and_then(Manifest::peek_from);
            self.batches_from = self.batches_from.into_iter().chain(from).min();
        }
    }

    /// Adds what is known of other records.
    pub fn add(&mut self, other: &Self) {
        self.longest = self.longest.max(other.longest);
        self.is_fixed |= other.is_fixed;
        self.has_batch_data |= other.has_batch_data;
        self.has_large |= other.has_large;
        self.is_of_lists |= other.is_of_lists;
        self.idle_bytes += other.idle_bytes;
        self.batches_from = self.batches_from.into_iter().chain(other.batches_from).min();
    }
}

/// What is known of the records that a body begins with, all of them data, because whoever put them there summed them up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summed {
    records: u32,
    longest: u32,
    payload_bytes: u64,
    digest: RecordsDigest,
}

impl Summed {
    /// Adds a data record by its header and the length of its payload.
    #[inline]
    pub fn add(&mut self, header: [u8; RECORD_HEADER], payload_bytes: usize) {
        self.records += 1;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a record that was written has 32 bits of length"
        )]
        let length = payload_bytes as u32;
        self.longest = self.longest.max(length);
        self.payload_bytes += u64::from(length);
        self.digest = self.digest.with(header);
    }
}

/// Walks from length to length, without checksums: what the owner does before it submits a frame, and a check that
/// the frame is complete. `body` is everything between the frame header and the used end.
pub fn summarise_body(body: &[u8]) -> Result<BodySummary, MalformedFrame> {
    summarise_behind(&Summed::default(), 0, body)
}

/// The same, where the records in the first `known` bytes are summed up already.
pub fn summarise_behind(summed: &Summed, known: usize, body: &[u8]) -> Result<BodySummary, MalformedFrame> {
    let beyond = MalformedFrame { offset: known as u64, body_bytes: body.len() as u64 };
    let mut rest = body.get(known..).ok_or(beyond)?;
    let (mut records, mut digest, mut has_control) = (summed.records, summed.digest, false);
    let (mut lists_from, mut has_news) = (None::<ExtentOrdinal>, records > 0);
    let mut contents = BodyContents { longest: summed.longest, ..BodyContents::default() };
    let (mut appended, mut payload_bytes) = (summed.records, summed.payload_bytes);
    while !rest.is_empty() {
        let lost = MalformedFrame { offset: (body.len() - rest.len()) as u64, body_bytes: body.len() as u64 };
        let header_bytes = *rest.first_chunk::<8>().ok_or(lost)?;
        let header = RecordHeader::peek(rest).ok_or(lost)?;
        let stride = usize::try_from(header.stride()).map_err(|_| lost)?;
        let (record, behind) = rest.split_at_checked(stride).ok_or(lost)?;
        rest = behind;
        records += 1;
        digest = digest.with(header_bytes);
        // Nearly all are such.
        if header.kind == RecordKind::DATA {
            contents.longest = header.length.max(contents.longest);
            (appended, has_news) = (appended + 1, true);
            payload_bytes += u64::from(header.length);
            continue;
        }
        contents.note(&header, record);
        match header.kind {
            RecordKind::CONTROL => {
                has_control = true;
                let control = record.get(RECORD_HEADER..).and_then(ControlKind::of);
                let is_repeated = match control {
                    // One without copies stands beside a checkpoint.
                    Some(ControlKind::MovedGroup) => {
                        record.get(RECORD_HEADER + 4..RECORD_HEADER + 8) == Some(&[0; 4])
                    }
                    control => control.is_some_and(ControlKind::is_of_checkpoints),
                };
                has_news |= !is_repeated;
            }
            RecordKind::BATCH_COMMIT | RecordKind::LARGE_MANIFEST if header.is_root() => {
                let from = record.get(RECORD_HEADER..).and_then(Manifest::peek_from);
                lists_from = lists_from.into_iter().chain(from).min();
                let is_appended = header.flags == RecordFlags::NONE;
                appended += u32::from(is_appended && header.kind == RecordKind::LARGE_MANIFEST);
                has_news = true;
            }
            _ => has_news = true,
        }
        let kind = 1_u32 << header.kind.code();
        appended += u32::from(kind & ONE_APPENDED != 0);
        let is_appended = kind & APPENDED != 0 && header.flags != RecordFlags::MOVED;
        payload_bytes += u64::from(header.length) * u64::from(is_appended);
    }
    let digest = digest.value();
    Ok(BodySummary { records, digest, has_control, lists_from, has_news, contents, appended, payload_bytes })
}

/// Checks and yields the records of a frame's body, each with its offset in the body. After an error it ends.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    body: &'a [u8],
    offset: usize,
    byte: u64,
    seed: StoreSeed,
    generation: Generation,
}

/// The records of `body`, whose first byte is at `byte` of the store.
#[must_use]
pub const fn records(body: &[u8], seed: StoreSeed, generation: Generation, byte: u64) -> Records<'_> {
    Records { body, offset: 0, byte, seed, generation }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<(u64, RecordView<'a>), (u64, RecordError)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.body.get(self.offset..)?;
        if rest.is_empty() {
            return None;
        }
        let offset = self.offset as u64;
        let seed = self.seed.record_seed(self.generation, self.byte.wrapping_add(offset));
        match check_record(rest, seed) {
            Ok(view) => {
                self.offset += usize::try_from(view.stride()).unwrap_or(rest.len());
                Some(Ok((offset, view)))
            }
            Err(error) => {
                self.offset = self.body.len();
                Some(Err((offset, error)))
            }
        }
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
