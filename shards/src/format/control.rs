//! The engine's own notes in a shard's log: what was trimmed and freed, where cursors stand, and checkpoints, which
//! say it all at once.

use super::{
    codec::{Fields, Writer},
    frame::FrameHeader,
    moved::MovedGroup,
};
use crate::{
    address::Address,
    format::record::ControlKind,
    ids::{ExtentIndex, ExtentOrdinal, FrameNumber, Generation, ShardId, Term},
    limits::{
        CHECKPOINT_ENTRY_BYTES, CHECKPOINT_HEAD_BYTES, CONTROL_BYTES_MAX, COUNTER_MAX, CURSOR_NAME_BYTES_MAX,
        CURSORS_MAX, OVER_SHARDS_MAX,
    },
};
use serde::{Deserialize, Serialize};

const HEAD: usize = CHECKPOINT_HEAD_BYTES;
const ENTRY: usize = CHECKPOINT_ENTRY_BYTES;
const HEAD_WORDS: u8 = 6;
const ENTRY_WORDS: u8 = 9;
const _: () = assert!(HEAD == 8 * HEAD_WORDS as usize && ENTRY == 8 * ENTRY_WORDS as usize);
/// Of the first checkpoints that there were, which do not say it.
const FIRST_ENTRY: usize = 64;
const FREED_HEAD: usize = 8;
const FREED_ENTRY: usize = 16;
const CURSOR_HEAD: usize = 24;

/// A place in a shard's log that does not change when the extent is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct LogPlace {
    /// The extent's place in the shard's sequence.
    pub ordinal: ExtentOrdinal,
    /// Byte of the store; it lies in that extent.
    pub byte: u64,
}

/// An extent that a shard gave back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreedExtent {
    /// Its place in the shard's sequence.
    pub ordinal: ExtentOrdinal,
    /// Which it was.
    pub extent: ExtentIndex,
    /// In which generation.
    pub generation: Generation,
}

/// An extent of a shard, as a checkpoint lists it. The counts are of the frames before [`Checkpoint::covers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ExtentFacts {
    /// Its place in the shard's sequence.
    pub ordinal: ExtentOrdinal,
    /// Which.
    pub extent: ExtentIndex,
    /// In which generation.
    pub generation: Generation,
    /// Its first frame.
    pub first_frame: FrameNumber,
    /// The link that its first frame carries.
    pub first_link: u32,
    /// Frames in it.
    pub frames: u32,
    /// Records in them.
    pub records: u64,
    /// Used bytes of the frames, headers included.
    pub bytes: u64,
    /// Bytes of records that are no longer wanted, as far as that was noted.
    pub dead_bytes: u64,
    /// When its last frame was submitted, in nanoseconds of the Unix clock.
    pub unix_ns: u64,
    /// The oldest extent that the lists whose roots are in it lead to; `None`: there are no such roots.
    pub lists_from: Option<ExtentOrdinal>,
}

impl ExtentFacts {
    /// Of an extent whose first frame has this header, with no frame counted yet.
    pub(crate) const fn begun_by(ordinal: ExtentOrdinal, extent: ExtentIndex, first: &FrameHeader) -> Self {
        Self {
            ordinal,
            extent,
            generation: first.generation,
            first_frame: first.number,
            first_link: first.link,
            frames: 0,
            records: 0,
            bytes: 0,
            dead_bytes: 0,
            unix_ns: 0,
            lists_from: None,
        }
    }

    /// Counts a frame.
    pub(crate) fn count(&mut self, header: &FrameHeader) {
        self.frames = self.frames.saturating_add(1);
        self.records = self.records.saturating_add(u64::from(header.records));
        self.bytes = self.bytes.saturating_add(u64::from(header.used_bytes));
        self.unix_ns = header.unix_ns;
        self.lists_from = self.lists_from.into_iter().chain(header.lists_from).min();
    }

    /// The frame behind the last one that is counted.
    #[must_use]
    pub fn frames_end(&self) -> FrameNumber {
        FrameNumber(self.first_frame.0.saturating_add(u64::from(self.frames)))
    }
}

/// A named place in a shard's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cursor {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub place: LogPlace,
    /// The same as an address.
    pub address: Address,
}

/// Everything that recovery has to know of a shard's log before a frame.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Checkpoint {
    /// What lies in frames below this one is covered; recovery begins with this frame.
    pub covers: FrameNumber,
    /// The link that this frame carries.
    pub link: u32,
    /// What was trimmed: nothing before it is wanted.
    pub trim: LogPlace,
    /// The extents that hold frames, in order.
    pub extents: Vec<ExtentFacts>,
    /// The cursors, by name.
    pub cursors: Vec<Cursor>,
}

/// One record of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointPart {
    /// Its place among the parts, from 0.
    pub part: u32,
    /// How many there are.
    pub parts: u32,
    /// Its share; `covers`, `link` and `trim` are the same in all.
    pub share: Checkpoint,
}

/// A batch over several shards: the open that began it, and a number within that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BatchId {
    /// The open.
    pub term: Term,
    /// Counted from 0.
    pub number: u64,
}

/// A control record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Nothing of the shard before the place is wanted; extents before `kept_from` are freed once this is durable.
    Trim {
        /// The place.
        place: LogPlace,
        /// Of the place's extent, or lower: what lies behind the place has parts before it.
        kept_from: ExtentOrdinal,
    },
    /// These extents are freed once this is durable.
    Freed(Vec<FreedExtent>),
    /// A part of a checkpoint.
    Checkpoint(CheckpointPart),
    /// The shard has nothing to say, but a frame that states what is durable.
    IdleMark,
    /// A cursor stands somewhere else, or is new.
    CursorSet(Cursor),
    /// There is no such cursor any more.
    CursorRemoved(String),
    /// A batch over several shards counts.
    Decided {
        /// The batch.
        id: BatchId,
        /// All batches with lower ids are over.
        settled: BatchId,
        /// Its shards, and where its list is in each.
        parts: Vec<(ShardId, Address)>,
    },
    /// The shard has made its share of a batch count, in this frame.
    Resolved {
        /// The batch.
        id: BatchId,
        /// All batches with lower ids are over.
        settled: BatchId,
    },
    /// The copies that follow it in its frame, and what they are copies of.
    Moved(MovedGroup),
}

/// The payload of a control record says something that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a control record says something that cannot be: {field}")]
pub struct ControlError {
    /// What.
    pub field: &'static str,
}

impl Control {
    /// The payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.encoded_bytes()];
        let mut fields = Writer::new(&mut bytes);
        match self {
            Self::Trim { place, kept_from } => {
                fields.put(&[ControlKind::Trim as u8, 1, 0, 0, 0, 0, 0, 0]);
                put_place(&mut fields, *place);
                fields.u64(kept_from.0);
            }
            Self::Freed(extents) => {
                fields.put(&[ControlKind::ExtentFreed as u8, 0, 0, 0]);
                fields.u32(u32::try_from(extents.len()).unwrap_or(u32::MAX));
                for freed in extents {
                    fields.u64(freed.ordinal.0);
                    fields.u32(freed.extent.0);
                    fields.u32(freed.generation.0);
                }
            }
            Self::Checkpoint(part) => part.encode(&mut fields),
            Self::IdleMark => fields.put(&[ControlKind::IdleMark as u8, 0, 0, 0, 0, 0, 0, 0]),
            Self::CursorSet(cursor) => put_cursor(&mut fields, &cursor.name, Some(cursor)),
            Self::CursorRemoved(name) => put_cursor(&mut fields, name, None),
            Self::Decided { id, settled, parts } => {
                fields.put(&[ControlKind::Decided as u8, 0, 0, 0]);
                fields.u32(u32::try_from(parts.len()).unwrap_or(u32::MAX));
                put_ids(&mut fields, [*id, *settled]);
                for (shard, list) in parts {
                    fields.u16(shard.0);
                    fields.put(&[0; 6]);
                    fields.u64(list.to_bits());
                }
            }
            Self::Resolved { id, settled } => {
                fields.put(&[ControlKind::Resolved as u8, 0, 0, 0, 0, 0, 0, 0]);
                put_ids(&mut fields, [*id, *settled]);
            }
            Self::Moved(group) => group.encode(&mut fields),
        }
        bytes
    }

    /// Bytes of a decision over so many shards.
    pub(crate) const fn decided_bytes(shards: usize) -> usize {
        40 + 16 * shards
    }

    fn encoded_bytes(&self) -> usize {
        match self {
            Self::Trim { .. } => 32,
            Self::Freed(extents) => FREED_HEAD + extents.len() * FREED_ENTRY,
            Self::Checkpoint(part) => part.encoded_bytes(),
            Self::IdleMark => 8,
            Self::Decided { parts, .. } => Self::decided_bytes(parts.len()),
            Self::Resolved { .. } => 40,
            Self::CursorSet(Cursor { name, .. }) | Self::CursorRemoved(name) => CURSOR_HEAD + name.len(),
            Self::Moved(group) => group.encoded_bytes(),
        }
    }

    /// Reads the payload of a control record. `Ok(None)`: it is of a kind that a later version brought.
    pub fn decode(payload: &[u8]) -> Result<Option<Self>, ControlError> {
        let Some(kind) = ControlKind::of(payload) else { return Ok(None) };
        let mut fields = Fields::new(payload);
        let read = match kind {
            ControlKind::Trim => take_trim(&mut fields)?,
            ControlKind::ExtentFreed => take_freed(&mut fields),
            ControlKind::Checkpoint => CheckpointPart::decode(&mut fields)?.map(Self::Checkpoint),
            ControlKind::IdleMark => Some(Self::IdleMark),
            ControlKind::Cursor => take_cursor(&mut fields)?,
            ControlKind::Decided => take_decided(&mut fields),
            ControlKind::Resolved => fields.skip(8).and_then(|()| {
                let [id, settled] = take_ids(&mut fields)?;
                Some(Self::Resolved { id, settled })
            }),
            ControlKind::MovedGroup => MovedGroup::decode(&mut fields)?.map(Self::Moved),
        };
        read.map(Some).ok_or(ControlError { field: "length" })
    }
}

impl Checkpoint {
    /// Divides it into records of at most `bytes` of payload each.
    ///
    /// # Panics
    /// If `bytes` is less than what a head and one cursor take.
    #[must_use]
    pub fn split(&self, bytes: usize) -> Vec<CheckpointPart> {
        let bytes = bytes.min(CONTROL_BYTES_MAX);
        assert!(bytes >= HEAD + CURSOR_HEAD + CURSOR_NAME_BYTES_MAX, "a buffer holds a part of a checkpoint");
        let per_part = (bytes - HEAD) / ENTRY;
        let mut shares: Vec<Self> = self
            .extents
            .chunks(per_part.max(1))
            .map(|extents| Self { extents: extents.to_vec(), cursors: Vec::new(), ..*self })
            .collect();
        let mut room = shares.last().map_or(0, |last| bytes - HEAD - last.extents.len() * ENTRY);
        for cursor in &self.cursors {
            let needs = CURSOR_HEAD + cursor.name.len();
            if needs > room {
                shares.push(Self { extents: Vec::new(), cursors: Vec::new(), ..*self });
                room = bytes - HEAD;
            }
            room -= needs;
            if let Some(share) = shares.last_mut() {
                share.cursors.push(cursor.clone());
            }
        }
        if shares.is_empty() {
            shares.push(Self { extents: Vec::new(), cursors: Vec::new(), ..*self });
        }
        let parts = u32::try_from(shares.len()).unwrap_or(u32::MAX);
        (0..).zip(shares).map(|(part, share)| CheckpointPart { part, parts, share }).collect()
    }
}

impl CheckpointPart {
    fn encoded_bytes(&self) -> usize {
        let cursors: usize = self.share.cursors.iter().map(|cursor| CURSOR_HEAD + cursor.name.len()).sum();
        HEAD + self.share.extents.len() * ENTRY + cursors
    }

    fn encode(&self, fields: &mut Writer<'_>) {
        let share = &self.share;
        fields.put(&[ControlKind::Checkpoint as u8, HEAD_WORDS, ENTRY_WORDS, 0]);
        fields.u32(share.link);
        fields.u64(share.covers.0);
        put_place(fields, share.trim);
        fields.u32(self.part);
        fields.u32(self.parts);
        fields.u32(u32::try_from(share.extents.len()).unwrap_or(u32::MAX));
        fields.u32(u32::try_from(share.cursors.len()).unwrap_or(u32::MAX));
        for facts in &share.extents {
            fields.u64(facts.ordinal.0);
            fields.u32(facts.extent.0);
            fields.u32(facts.generation.0);
            fields.u64(facts.first_frame.0);
            fields.u32(facts.first_link);
            fields.u32(facts.frames);
            for count in [facts.records, facts.bytes, facts.dead_bytes, facts.unix_ns] {
                fields.u64(count);
            }
            fields.u64(facts.lists_from.map_or(0, |ordinal| ordinal.0 + 1));
        }
        for cursor in &share.cursors {
            put_cursor(fields, &cursor.name, Some(cursor));
        }
    }

    fn decode(fields: &mut Fields<'_>) -> Result<Option<Self>, ControlError> {
        let Some((mut part, entry_bytes, extents, cursors)) = Self::head(fields)? else { return Ok(None) };
        for _ in 0..extents {
            // What is announced and not there ends the loop; nothing is reserved for it.
            let Some(facts) = take_facts(fields, entry_bytes) else { return Ok(None) };
            if [facts.ordinal.0, facts.first_frame.0].iter().any(|count| *count > COUNTER_MAX) {
                return Err(ControlError { field: "an extent of a checkpoint" });
            }
            part.share.extents.push(facts);
        }
        for _ in 0..cursors {
            match take_cursor(fields)? {
                Some(Control::CursorSet(cursor)) => part.share.cursors.push(cursor),
                Some(_) => return Err(ControlError { field: "a cursor of a checkpoint" }),
                None => return Ok(None),
            }
        }
        Ok(Some(part))
    }

    /// The part without its lists, the bytes of an extent in it, and how long the lists are.
    fn head(fields: &mut Fields<'_>) -> Result<Option<(Self, usize, u32, u32)>, ControlError> {
        let read = (|| {
            fields.skip(1)?;
            let (head, entry) = (usize::from(fields.u8()?) * 8, usize::from(fields.u8()?) * 8);
            fields.skip(1)?;
            let link = fields.u32()?;
            let covers = FrameNumber(fields.u64()?);
            let trim = take_place(fields)?;
            let (part, parts) = (fields.u32()?, fields.u32()?);
            let share = Checkpoint { covers, link, trim, ..Checkpoint::default() };
            let (extents, cursors) = (fields.u32()?, fields.u32()?);
            fields.skip(head.max(HEAD) - HEAD)?;
            Some((Self { part, parts, share }, entry.max(FIRST_ENTRY), extents, cursors))
        })();
        match read {
            Some((part, ..)) if part.part >= part.parts => {
                Err(ControlError { field: "the part of a checkpoint" })
            }
            Some((part, ..)) if part.share.covers.0 > COUNTER_MAX => Err(ControlError { field: "covers" }),
            Some((.., cursors)) if cursors as usize > CURSORS_MAX => Err(ControlError { field: "cursors" }),
            read => Ok(read),
        }
    }
}

fn put_ids(fields: &mut Writer<'_>, ids: [BatchId; 2]) {
    for id in ids {
        fields.u64(id.term.0);
        fields.u64(id.number);
    }
}

fn take_ids(fields: &mut Fields<'_>) -> Option<[BatchId; 2]> {
    let mut next = || Some(BatchId { term: Term(fields.u64()?), number: fields.u64()? });
    let ids = [next()?, next()?];
    ids.iter().all(|id| id.term.0 <= COUNTER_MAX && id.number <= COUNTER_MAX).then_some(ids)
}

fn take_decided(fields: &mut Fields<'_>) -> Option<Control> {
    fields.skip(4)?;
    let count = usize::try_from(fields.u32()?).ok().filter(|count| *count <= OVER_SHARDS_MAX)?;
    let [id, settled] = take_ids(fields)?;
    let mut parts = Vec::new();
    for _ in 0..count {
        let shard = ShardId(fields.u16()?);
        fields.skip(6)?;
        parts.push((shard, Address::from_bits(fields.u64()?)));
    }
    Some(Control::Decided { id, settled, parts })
}

fn put_place(fields: &mut Writer<'_>, place: LogPlace) {
    fields.u64(place.ordinal.0);
    fields.u64(place.byte);
}

fn take_place(fields: &mut Fields<'_>) -> Option<LogPlace> {
    let place = LogPlace { ordinal: ExtentOrdinal(fields.u64()?), byte: fields.u64()? };
    (place.ordinal.0 <= COUNTER_MAX).then_some(place)
}

fn take_trim(fields: &mut Fields<'_>) -> Result<Option<Control>, ControlError> {
    let read = (|| {
        fields.skip(1)?;
        let states_kept = fields.u8()? != 0;
        fields.skip(6)?;
        let place = take_place(fields)?;
        let kept_from = if states_kept { ExtentOrdinal(fields.u64()?) } else { place.ordinal };
        Some((place, kept_from))
    })();
    match read {
        Some((place, kept_from)) if kept_from > place.ordinal => {
            Err(ControlError { field: "what a trim keeps" })
        }
        read => Ok(read.map(|(place, kept_from)| Control::Trim { place, kept_from })),
    }
}

/// An entry of so many bytes: what is behind those that are known is of a later version.
fn take_facts(fields: &mut Fields<'_>, bytes: usize) -> Option<ExtentFacts> {
    let facts = ExtentFacts {
        ordinal: ExtentOrdinal(fields.u64()?),
        extent: ExtentIndex(fields.u32()?),
        generation: Generation(fields.u32()?),
        first_frame: FrameNumber(fields.u64()?),
        first_link: fields.u32()?,
        frames: fields.u32()?,
        records: fields.u64()?,
        bytes: fields.u64()?,
        dead_bytes: fields.u64()?,
        unix_ns: fields.u64()?,
        lists_from: None,
    };
    if bytes < ENTRY {
        fields.skip(bytes - FIRST_ENTRY)?;
        return Some(facts);
    }
    let lists_from = fields.u64()?.checked_sub(1).map(ExtentOrdinal);
    fields.skip(bytes - ENTRY)?;
    Some(ExtentFacts { lists_from: lists_from.filter(|ordinal| *ordinal <= facts.ordinal), ..facts })
}

fn take_freed(fields: &mut Fields<'_>) -> Option<Control> {
    fields.skip(4)?;
    let count = fields.u32()?;
    let mut extents = Vec::new();
    for _ in 0..count {
        let ordinal = ExtentOrdinal(fields.u64()?);
        extents.push(FreedExtent {
            ordinal,
            extent: ExtentIndex(fields.u32()?),
            generation: Generation(fields.u32()?),
        });
    }
    Some(Control::Freed(extents))
}

fn put_cursor(fields: &mut Writer<'_>, name: &str, cursor: Option<&Cursor>) {
    fields.put(&[ControlKind::Cursor as u8, if cursor.is_some() { 1 } else { 2 }]);
    fields.u16(u16::try_from(name.len()).unwrap_or(u16::MAX));
    fields.put(&[0; 4]);
    fields.u64(cursor.map_or(0, |cursor| cursor.address.to_bits()));
    fields.u64(cursor.map_or(0, |cursor| cursor.place.ordinal.0));
    fields.put(name.as_bytes());
}

fn take_cursor(fields: &mut Fields<'_>) -> Result<Option<Control>, ControlError> {
    let read = (|| {
        fields.skip(1)?;
        let what = fields.u8()?;
        let length = usize::from(fields.u16()?);
        fields.skip(4)?;
        let address = Address::from_bits(fields.u64()?);
        let ordinal = ExtentOrdinal(fields.u64()?);
        Some((what, length, address, ordinal))
    })();
    let Some((what, length, address, ordinal)) = read else { return Ok(None) };
    if length == 0 || length > CURSOR_NAME_BYTES_MAX || ordinal.0 > COUNTER_MAX {
        return Err(ControlError { field: "a cursor" });
    }
    let Some(name) = fields.take(length) else { return Ok(None) };
    let name = str::from_utf8(name).map_err(|_| ControlError { field: "the name of a cursor" })?.to_owned();
    match what {
        1 => {
            let place = LogPlace { ordinal, byte: address.byte() };
            Ok(Some(Control::CursorSet(Cursor { name, place, address })))
        }
        2 => Ok(Some(Control::CursorRemoved(name))),
        _ => Err(ControlError { field: "what becomes of a cursor" }),
    }
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
