//! What the control records of a shard's log say of its space: extents, what was trimmed, cursors.

use super::{Context, FreeExtent, RecoveredExtent, ShardExtents};
use crate::{
    address::Address,
    format::{
        control::{Checkpoint, CheckpointPart, Control, ControlError, ExtentFacts},
        extent_header::ExtentHeader,
        frame::FrameHeader,
        moved::MovedGroup,
        record::{RecordKind, records},
    },
    geometry::Geometry,
    ids::{ExtentOrdinal, FrameNumber, Generation, ShardId},
    limits::FRAME_HEADER_BYTES,
    over::OverNotes,
    shard_owner::{Move, SpaceStart},
};
use std::collections::BTreeMap;

/// Gathers what control records say, in the order of the log.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// The frame that the walk began with, if a checkpoint covers what is before.
    covers: Option<FrameNumber>,
    /// The parts of that checkpoint, as far as they were seen.
    parts: Vec<CheckpointPart>,
    /// It is whole; or there is none to wait for.
    pub(super) is_whole: bool,
    /// What it lists, and the frames that it covers say.
    pub(super) checkpoint: Checkpoint,
    /// Freed by later records.
    freed: Vec<ExtentOrdinal>,
    /// Trimmed by later records: what is before is freed.
    kept_from: ExtentOrdinal,
    /// Of batches over several shards.
    over: OverNotes,
    /// Dead bytes by later checkpoints.
    dead: BTreeMap<ExtentOrdinal, u64>,
    /// How far cleaning had come with each extent, as of the newest group of copies.
    moves: BTreeMap<(ShardId, ExtentOrdinal), Move>,
}

impl Gathered {
    pub(super) fn new(covers: Option<FrameNumber>) -> Self {
        Self { covers, is_whole: covers.is_none(), ..Self::default() }
    }

    /// Takes the control records of a frame, whose records are known to be good.
    pub(super) fn take_frame<S: ?Sized>(
        &mut self,
        context: &Context<'_, S>,
        geometry: &Geometry,
        header: &FrameHeader,
        frame: &[u8],
    ) -> Result<(), ControlError> {
        let start = usize::try_from(FRAME_HEADER_BYTES).unwrap_or(usize::MAX);
        let body = frame.get(start..header.used_bytes as usize).unwrap_or_default();
        let byte = geometry.byte_of(header.base_slot) + FRAME_HEADER_BYTES;
        for record in records(body, context.seed, header.generation, byte) {
            let Ok((offset, view)) = record else { break };
            if view.kind != RecordKind::CONTROL {
                continue;
            }
            match Control::decode(view.payload)? {
                Some(Control::Moved(group)) => {
                    let length = view.payload.len() as u64;
                    let at = Address::new(geometry, byte + offset, header.generation, length);
                    self.take_group(&group, at);
                }
                Some(control) => self.take(control),
                None => {}
            }
        }
        Ok(())
    }

    fn take(&mut self, control: Control) {
        if let Control::Checkpoint(part) = control {
            return self.take_part(part);
        }
        // These go with a checkpoint, and say the same wherever they are.
        self.over.take(&control);
        if !self.is_whole {
            // It came before the checkpoint, which knows of it.
            return;
        }
        let known = &mut self.checkpoint;
        match control {
            Control::Trim { place, kept_from } => {
                known.trim = known.trim.max(place);
                self.kept_from = self.kept_from.max(kept_from);
            }
            Control::Freed(extents) => self.freed.extend(extents.iter().map(|freed| freed.ordinal)),
            Control::CursorSet(cursor) => match known.cursors.iter_mut().find(|it| it.name == cursor.name) {
                Some(known) => *known = cursor,
                None => known.cursors.push(cursor),
            },
            Control::CursorRemoved(name) => known.cursors.retain(|cursor| cursor.name != name),
            Control::Checkpoint(_)
            | Control::IdleMark
            | Control::Decided { .. }
            | Control::Resolved { .. }
            | Control::Moved(_) => {}
        }
    }

    /// Also before the checkpoint is whole: what it says stands in groups that are written beside it.
    fn take_group(&mut self, group: &MovedGroup, at: Address) {
        let last = if group.records.is_empty() { group.previous } else { Some(at) };
        let known = self.moves.entry((group.origin.shard, group.origin.ordinal)).or_insert(Move {
            origin: group.origin,
            up_to: 0,
            last: None,
        });
        // What repeats an earlier state may be written behind a later one.
        if group.up_to >= known.up_to {
            *known = Move { origin: group.origin, up_to: group.up_to, last };
        }
    }

    fn take_part(&mut self, part: CheckpointPart) {
        if self.is_whole {
            self.dead.extend(part.share.extents.iter().map(|facts| (facts.ordinal, facts.dead_bytes)));
            return;
        }
        if part.part == 0 {
            // One that was given up half way has no further parts.
            self.parts.clear();
        }
        if Some(part.share.covers) != self.covers || u64::from(part.part) != self.parts.len() as u64 {
            return;
        }
        let parts = u64::from(part.parts);
        self.parts.push(part);
        if self.parts.len() as u64 == parts {
            self.is_whole = true;
            for CheckpointPart { share, .. } in std::mem::take(&mut self.parts) {
                let Checkpoint { covers, link, trim, extents, cursors } = share;
                let known = &mut self.checkpoint;
                (known.covers, known.link, known.trim) = (covers, link, trim);
                known.extents.extend(extents);
                known.cursors.extend(cursors);
            }
        }
    }

    fn is_freed(&self, ordinal: ExtentOrdinal) -> bool {
        ordinal < self.kept_from || self.freed.binary_search(&ordinal).is_ok()
    }

    /// What the shard's space is, by the claims that there are and the frames that were walked.
    pub(super) fn settle(
        mut self,
        shard: ShardId,
        before: &[ExtentHeader],
        extents: &ShardExtents,
        walked: &[Option<ExtentFacts>],
    ) -> Settled {
        self.freed.sort_unstable();
        let listed = std::mem::take(&mut self.checkpoint.extents).into_iter();
        let mut listed: BTreeMap<_, _> = listed
            .filter(|facts| !self.is_freed(facts.ordinal))
            .map(|facts| ((facts.ordinal, facts.extent, facts.generation), facts))
            .collect();
        let mut settled = Settled::default();
        for claim in before {
            match listed.remove(&(claim.ordinal, claim.extent, claim.generation)) {
                Some(facts) => {
                    settled.kept.push(recovered(claim));
                    settled.space.extents.push(facts);
                }
                None => settled.freed.push(extents.as_free(claim)),
            }
        }
        for (claim, walked) in extents.chain.iter().zip(walked) {
            let covered = listed.remove(&(claim.ordinal, claim.extent, claim.generation));
            match (covered, *walked) {
                (Some(covered), Some(walked)) => settled.space.extents.push(together(&covered, &walked)),
                (Some(only), None) | (None, Some(only)) => settled.space.extents.push(only),
                (None, None) => {}
            }
        }
        settled.lost = listed.into_values().next();
        for facts in &mut settled.space.extents {
            facts.dead_bytes = self.dead.get(&facts.ordinal).copied().unwrap_or(facts.dead_bytes);
        }
        // Whether an extent of another shard is gone, that one's log says.
        let counts = |it: &Move| it.origin.shard == shard && !settled.space.holds(&it.origin);
        settled.space.moves = self.moves.into_values().filter(|it| !counts(it)).collect();
        settled.space.trim = self.checkpoint.trim;
        settled.space.over = self.over;
        settled.space.cursors = self.checkpoint.cursors;
        settled.space.cursors.sort_by(|one, other| one.name.cmp(&other.name));
        settled
    }
}

/// The end of it.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// For the owner.
    pub space: SpaceStart,
    /// Extents before the walk that hold frames of the log.
    pub kept: Vec<RecoveredExtent>,
    /// Claims that were given up: nobody's.
    pub freed: Vec<FreeExtent>,
    /// An extent that the log holds and that is not there.
    pub lost: Option<ExtentFacts>,
}

/// What a checkpoint counted in an extent, and what came behind it.
fn together(covered: &ExtentFacts, walked: &ExtentFacts) -> ExtentFacts {
    ExtentFacts {
        frames: covered.frames.saturating_add(walked.frames),
        records: covered.records.saturating_add(walked.records),
        bytes: covered.bytes.saturating_add(walked.bytes),
        unix_ns: walked.unix_ns,
        lists_from: covered.lists_from.into_iter().chain(walked.lists_from).min(),
        ..*covered
    }
}

pub(super) const fn recovered(header: &ExtentHeader) -> RecoveredExtent {
    RecoveredExtent { index: header.extent, generation: header.generation, ordinal: header.ordinal }
}

impl ShardExtents {
    /// A claim that counts no more. A later claim's header may have been lost with its frames still there: the next
    /// one takes a generation above theirs.
    fn as_free(&self, claim: &ExtentHeader) -> FreeExtent {
        let seen = self.first_generations.iter().find(|(extent, _)| *extent == claim.extent);
        let seen = seen.map_or(Generation(0), |(_, generation)| *generation);
        FreeExtent { index: claim.extent, generation: claim.generation.max(seen) }
    }
}
