//! Whoever cuts through the store, step by step, so that everybody else appends between the steps; and what is asked of
//! a cut.

use super::{
    oracle::{Fate, Oracle},
    over::Over,
    random::{Random, mix},
};
use crate::{
    directory::Directory,
    format::control::BatchId,
    ids::{FrameNumber, ShardId},
    over::{OverCut, ShareOfCut},
};
use std::collections::HashMap;

/// A cut on its way.
struct Cutting<'life> {
    over: OverCut<'life>,
    number: u64,
    begun_at: u64,
    stage: Stage,
    /// Rings that this stage is done with.
    done: usize,
    frames: Vec<FrameNumber>,
}

#[derive(Clone, Copy)]
enum Stage {
    Marking,
    Deciding,
    Unmarking,
}

/// A cut that was made.
struct Cut {
    /// By the clock of the oracle.
    begun_at: u64,
    frames: Vec<FrameNumber>,
    shares: Vec<ShareOfCut>,
}

/// A shard's share of a batch, and where it was resolved.
type Resolved = (BatchId, ShardId, Option<FrameNumber>);

/// Whoever makes the cuts of a life.
pub(super) struct Cutter<'life> {
    random: Random,
    cutting: Option<Cutting<'life>>,
    left: u32,
    /// Of so many of its turns it uses one.
    pace: u64,
    made: Vec<Cut>,
}

impl<'life> Cutter<'life> {
    /// Half of the lives are cut through. By a generator of its own, so that the others are what they were.
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(mix(seed ^ 0x0063_7574));
        let left = if random.one_in(2) { 1 + random.below(6) as u32 } else { 0 };
        let pace = random.pick(&[1, 4, 20]);
        Self { random, cutting: None, left, pace, made: Vec::new() }
    }

    pub(super) const fn can_step(&self) -> bool {
        self.cutting.is_some() || self.left > 0
    }

    /// One step of the cut under way, or the beginning of one.
    pub(super) fn step(&mut self, directory: &'life Directory, oracle: &Oracle) {
        if !self.random.one_in(self.pace) {
            return;
        }
        let cuts = directory.extents.cuts();
        let Some(cutting) = &mut self.cutting else {
            self.left -= 1;
            self.cutting = Some(Cutting {
                over: directory.over.begin_cut(),
                number: cuts.number(),
                begun_at: oracle.clock,
                stage: Stage::Marking,
                done: 0,
                frames: Vec::new(),
            });
            return;
        };
        if let Some(shard) = directory.shards.get(cutting.done) {
            match cutting.stage {
                Stage::Marking => shard.ring().mark_for_cut(true),
                Stage::Deciding => cutting.frames.push(shard.ring().decide(cutting.number)),
                Stage::Unmarking => shard.ring().mark_for_cut(false),
            }
            cutting.done += 1;
            return;
        }
        cutting.done = 0;
        cutting.stage = match cutting.stage {
            Stage::Marking => {
                cuts.let_decide(cutting.number);
                Stage::Deciding
            }
            Stage::Deciding => {
                cuts.let_decide(0);
                Stage::Unmarking
            }
            Stage::Unmarking => {
                if let Some(Cutting { over, begun_at, frames, .. }) = self.cutting.take() {
                    let shares = over.end(&frames);
                    self.made.push(Cut { begun_at, frames, shares });
                }
                return;
            }
        };
    }

    /// To be asked once all is known that the clients of this life were told. `has_lied`: the device did, so that shards
    /// may have lost what earlier lives resolved.
    pub(super) fn check(&self, directory: &Directory, oracle: &Oracle, has_lied: bool) -> Result<(), String> {
        let shares = directory.over.shares();
        // What was over before is what the device left of it.
        let is_new =
            |over: &&Over| directory.over.has_begun(over.id) || shares.iter().any(|(id, ..)| *id == over.id);
        let batches: Vec<&Over> = oracle.overs.iter().filter(is_new).collect();
        self.made.iter().try_for_each(|cut| {
            cut.check(&batches, oracle)?;
            let forgives = |batch: &Over| has_lied && !directory.over.has_begun(batch.id);
            batches.iter().try_for_each(|batch| cut.check_batch(batch, &shares, oracle, forgives(batch)))
        })
    }
}

impl Cut {
    fn has_frame(&self, shard: ShardId, frame: FrameNumber) -> bool {
        self.frames.get(usize::from(shard.0)).is_some_and(|behind| frame < *behind)
    }

    fn has_share(&self, id: BatchId, shard: ShardId) -> bool {
        self.shares.iter().any(|share| share.id == id && share.shard == shard)
    }

    /// C1: what was there before the cut is in it. C2: nothing in it follows something that is not.
    fn check(&self, batches: &[&Over], oracle: &Oracle) -> Result<(), String> {
        let batches: HashMap<u64, BatchId> =
            batches.iter().flat_map(|over| over.records.iter().map(|id| (*id, over.id))).collect();
        let mut first_out: Option<(u64, usize)> = None;
        let mut last_in: Option<(u64, usize)> = None;
        for (id, record) in oracle.records.iter().enumerate() {
            let Fate::Placed(placed) = record.fate else { continue };
            let batch = batches.get(&(id as u64));
            let is_in = self.has_frame(record.shard, placed.frame)
                || batch.is_some_and(|batch| self.has_share(*batch, record.shard));
            if is_in {
                last_in = last_in.max(Some((record.issued_at, id)));
                continue;
            }
            if record.placed_at < self.begun_at {
                return Err(format!("C1: record {id} ({record:?}) is not in a later cut: {:?}", self.frames));
            }
            first_out = first_out.into_iter().chain([(record.placed_at, id)]).min();
        }
        if let (Some((placed_at, out)), Some((issued_at, within))) = (first_out, last_in)
            && placed_at < issued_at
        {
            return Err(format!(
                "C2: record {within} follows {out}, which is not in the cut {:?}",
                self.frames
            ));
        }
        Ok(())
    }

    /// C3: it has all of a batch or nothing. `forgives`: apart from what lies nowhere and nobody has yet to resolve, which
    /// the device lost of a batch of an earlier life.
    fn check_batch(
        &self,
        over: &Over,
        resolved: &[Resolved],
        oracle: &Oracle,
        forgives: bool,
    ) -> Result<(), String> {
        let is_lost = |id: &&u64| {
            let record = &oracle.records[**id as usize];
            let is_placed = matches!(record.fate, Fate::Placed(_));
            forgives && !is_placed && !resolved.iter().any(|it| (it.0, it.1) == (over.id, record.shard))
        };
        let is_in = |id: &u64| {
            let record = &oracle.records[*id as usize];
            let frame = match record.fate {
                Fate::Placed(placed) => Some(placed.frame),
                // Nobody was told yet.
                _ => resolved.iter().find(|it| (it.0, it.1) == (over.id, record.shard)).and_then(|it| it.2),
            };
            frame.is_some_and(|it| self.has_frame(record.shard, it)) || self.has_share(over.id, record.shard)
        };
        let all = over.records.iter().filter(|id| !is_lost(id)).count();
        let within = over.records.iter().filter(|id| is_in(id)).count();
        if within == 0 || within == all {
            return Ok(());
        }
        Err(format!("C3: the cut {:?} has {within} of the {all} records of batch {:?}", self.frames, over.id))
    }
}
