//! Who owns which extent, from the extent headers alone.

use super::{BadHeaderCopy, FreeExtent, RecoveryError, RecoverySource, SourceError, window::Window};
use crate::{
    format::{
        extent_header::{ExtentHeader, ExtentHeaderError, ExtentState},
        frame::FrameHeader,
        superblock::Superblock,
    },
    geometry::Geometry,
    ids::{ExtentIndex, ExtentOrdinal, FrameNumber, Generation, Term},
};
use std::ops::Range;

/// What an extent's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentFinding {
    /// Never claimed.
    Unused,
    /// Claimed or freed.
    Header(ExtentHeader),
    /// Neither copy is a header of this extent.
    Bad(ExtentHeaderError),
    /// The device cannot read it.
    Unreadable(SourceError),
}

/// What an extent says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentSurvey {
    /// Which.
    pub extent: ExtentIndex,
    /// Its header.
    pub finding: ExtentFinding,
    /// The copy of its header that is of no use while the other one is.
    pub bad_copy: Option<usize>,
    /// A sound frame header of this store in its first frame slot, of whatever shard and generation.
    pub first_frame: Option<FrameHeader>,
}

/// Reads the headers of a range of extents, each with the first frame behind it.
pub fn survey_extents<S: RecoverySource + ?Sized>(
    source: &S,
    superblock: &Superblock,
    range: Range<u32>,
) -> Result<Vec<ExtentSurvey>, RecoveryError> {
    // A header and the frame behind it.
    let mut window = Window::new(source, superblock.geometry, 2 * superblock.geometry.slot_bytes())?;
    range.map(|extent| survey_extent(&mut window, superblock, ExtentIndex(extent))).collect()
}

fn survey_extent<S: RecoverySource + ?Sized>(
    window: &mut Window<'_, S>,
    superblock: &Superblock,
    extent: ExtentIndex,
) -> Result<ExtentSurvey, RecoveryError> {
    let geometry = superblock.geometry;
    let mut survey =
        ExtentSurvey { extent, finding: ExtentFinding::Unused, bad_copy: None, first_frame: None };
    let mut is_torn_claim = false;
    let slot_bytes = usize::try_from(geometry.slot_bytes()).unwrap_or(usize::MAX);
    match window.at(geometry.header_slot(extent), 1, 2) {
        Ok(bytes) => {
            let slot = bytes.get(..slot_bytes).unwrap_or_default();
            let read = ExtentHeader::decode_slot(slot, superblock.store, extent);
            is_torn_claim = read.is_torn_claim();
            survey.bad_copy = read.bad_copy().map(|(copy, _)| copy);
            survey.finding = match read.header {
                Ok(header) => ExtentFinding::Header(header),
                Err(ExtentHeaderError::Absent) => ExtentFinding::Unused,
                Err(ExtentHeaderError::NewerVersion { found }) => {
                    return Err(RecoveryError::NewerVersion { slot: geometry.header_slot(extent), found });
                }
                Err(error) => ExtentFinding::Bad(error),
            };
        }
        Err(RecoveryError::Unreadable { source, .. }) => survey.finding = ExtentFinding::Unreadable(source),
        Err(error) => return Err(error),
    }
    survey.first_frame = first_frame(window, superblock, extent)?;
    // A frame behind it was never durable, for a sync that covers it covers the header too: like zeros with a frame behind.
    if is_torn_claim {
        (survey.finding, survey.bad_copy) = (ExtentFinding::Unused, Some(0));
    }
    Ok(survey)
}

fn first_frame<S: RecoverySource + ?Sized>(
    window: &mut Window<'_, S>,
    superblock: &Superblock,
    extent: ExtentIndex,
) -> Result<Option<FrameHeader>, RecoveryError> {
    let slot = superblock.geometry.first_frame_slot(extent);
    let bytes = match window.at(slot, 1, 1) {
        Ok(bytes) => bytes,
        // It is only a witness here; if the log leads to it, the walk will fail on it.
        Err(RecoveryError::Unreadable { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let sound = FrameHeader::decode(bytes).ok().map(|checked| checked.header);
    Ok(sound.filter(|header| header.store == superblock.store && header.base_slot == slot))
}

/// The extents of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardExtents {
    /// By ordinal. What was freed leaves gaps, and until somebody else claims it its claim stays.
    pub chain: Vec<ExtentHeader>,
    /// By ordinal, behind a gap: their frames can be no part of the log, but witnesses.
    pub beyond: Vec<ExtentHeader>,
    /// Extents that begin with a frame of the shard and whose own header does not know of it: the claim was lost.
    /// Made up from the frame; witnesses, like those behind a gap.
    pub headless: Vec<ExtentHeader>,
    /// The first frames of the extents, by slot: what stands there may have replaced a frame that was cut off.
    pub firsts: Vec<FrameHeader>,
    /// The generations that they are of, by extent.
    pub first_generations: Vec<(ExtentIndex, Generation)>,
    /// The highest durable watermark in the first frame of any extent that can speak for the present term.
    pub durable_seen: FrameNumber,
    /// The highest frame number among those.
    pub highest_seen: Option<FrameNumber>,
}

/// Who owns what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// By shard id; every shard of the store has an entry.
    pub shards: Vec<ShardExtents>,
    /// Extents of nobody.
    pub free: Vec<FreeExtent>,
    /// Extents that salvage left out.
    pub bad: Vec<ExtentIndex>,
    /// Headers of which one copy is of no use.
    pub bad_copies: Vec<BadHeaderCopy>,
    /// The highest term of a header or a first frame.
    pub highest_term: Term,
}

/// Sorts surveyed extents to their owners.
pub fn assign(
    superblock: &Superblock,
    surveys: impl IntoIterator<Item = ExtentSurvey>,
    salvage: bool,
) -> Result<Ownership, RecoveryError> {
    let mut ownership = Ownership::default();
    ownership.shards.resize_with(superblock.shards.len(), ShardExtents::default);
    for survey in surveys {
        if let Some(copy) = survey.bad_copy {
            ownership.bad_copies.push(BadHeaderCopy { extent: survey.extent, copy });
        }
        note_witness(superblock, &survey, &mut ownership);
        match place(superblock, &survey, &mut ownership) {
            Err(_) if salvage => ownership.bad.push(survey.extent),
            result => result?,
        }
    }
    for shard in &mut ownership.shards {
        shard.firsts.sort_by_key(|frame| frame.base_slot);
        drop_late_claims(&mut shard.chain, &mut ownership.free);
        shard.chain.sort_by_key(|header| (header.ordinal, std::cmp::Reverse(header.generation)));
        refuse_duplicates(&mut shard.chain, salvage, &mut ownership.bad)?;
    }
    Ok(ownership)
}

fn place(
    superblock: &Superblock,
    survey: &ExtentSurvey,
    ownership: &mut Ownership,
) -> Result<(), RecoveryError> {
    let extent = survey.extent;
    let seen = survey.first_frame.map_or(Generation(0), |frame| frame.generation);
    let header = match survey.finding {
        ExtentFinding::Header(header) => header,
        ExtentFinding::Unused => {
            ownership.free.push(FreeExtent { index: extent, generation: seen });
            return Ok(());
        }
        ExtentFinding::Bad(error) => return Err(RecoveryError::ExtentHeader { extent, error }),
        ExtentFinding::Unreadable(source) => {
            let slot = superblock.geometry.header_slot(extent);
            return Err(RecoveryError::Unreadable { slot, source });
        }
    };
    ownership.highest_term = ownership.highest_term.max(header.term);
    let shards = u32::try_from(ownership.shards.len()).unwrap_or(u32::MAX);
    let Some(owner) = ownership.shards.get_mut(usize::from(header.owner.0)) else {
        return Err(RecoveryError::UnknownShard { extent, shard: header.owner, shards });
    };
    match header.state {
        ExtentState::Claimed => {
            owner.chain.push(header);
            owner.firsts.extend(survey.first_frame);
            owner.first_generations.extend(survey.first_frame.map(|frame| (extent, frame.generation)));
        }
        ExtentState::Freed => {
            let generation = header.generation.max(seen);
            ownership.free.push(FreeExtent { index: extent, generation });
        }
    }
    Ok(())
}

/// A frame proves what was durable before it, wherever it lies. One that an earlier open wrote behind the tail that
/// the superblock states is no part of the log, and proves nothing.
fn note_witness(superblock: &Superblock, survey: &ExtentSurvey, ownership: &mut Ownership) {
    let Some(frame) = survey.first_frame else { return };
    let shard = usize::from(frame.shard.0);
    let (Some(owner), Some(entry)) = (ownership.shards.get_mut(shard), superblock.shards.get(shard)) else {
        return;
    };
    if frame.number < entry.durable || frame.term >= superblock.term {
        ownership.highest_term = ownership.highest_term.max(frame.term);
        owner.durable_seen = owner.durable_seen.max(frame.durable);
        owner.highest_seen = owner.highest_seen.max(Some(frame.number));
        owner.headless.extend(headless(survey, &frame));
    }
}

fn headless(survey: &ExtentSurvey, frame: &FrameHeader) -> Option<ExtentHeader> {
    let known = match survey.finding {
        ExtentFinding::Header(header) => header.generation >= frame.generation,
        ExtentFinding::Unused => false,
        // A header that cannot be read is an error of its own.
        ExtentFinding::Bad(_) | ExtentFinding::Unreadable(_) => true,
    };
    (!known).then_some(ExtentHeader {
        store: frame.store,
        extent: survey.extent,
        generation: frame.generation,
        owner: frame.shard,
        state: ExtentState::Claimed,
        ordinal: ExtentOrdinal(u64::MAX),
        term: frame.term,
        frame_floor: frame.number,
    })
}

/// Ordinals are unique at each open, so of two claims of one place by different opens the earlier one's header reached
/// the device after the later open had looked: a dead process's write, of an extent that holds nothing.
fn drop_late_claims(chain: &mut Vec<ExtentHeader>, free: &mut Vec<FreeExtent>) {
    chain.sort_by_key(|header| (header.ordinal, std::cmp::Reverse(header.term)));
    chain.dedup_by(|other, one| {
        let is_late = one.ordinal == other.ordinal && other.term < one.term;
        if is_late {
            free.push(FreeExtent { index: other.extent, generation: other.generation });
        }
        is_late
    });
}

fn refuse_duplicates(
    chain: &mut Vec<ExtentHeader>,
    salvage: bool,
    bad: &mut Vec<ExtentIndex>,
) -> Result<(), RecoveryError> {
    let twice = chain.iter().zip(chain.iter().skip(1)).find(|(one, other)| one.ordinal == other.ordinal);
    if let (Some((one, other)), false) = (twice, salvage) {
        return Err(RecoveryError::DuplicateOrdinal {
            shard: one.owner,
            ordinal: one.ordinal,
            one: one.extent,
            other: other.extent,
        });
    }
    chain.dedup_by(|other, one| {
        let same = one.ordinal == other.ordinal;
        if same {
            bad.push(other.extent);
        }
        same
    });
    Ok(())
}

/// Whether a frame of this many slots fits between `slot` and the end of its extent.
pub(super) const fn fits(geometry: &Geometry, header: &FrameHeader) -> bool {
    header.slots(geometry) <= geometry.slots_left(header.base_slot)
}
