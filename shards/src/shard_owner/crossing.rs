//! A shard and its cold shard, side by side on one core: what cleaning copies of the first goes to the second.

use super::{Move, ShardOwner};
use crate::{
    crossing::{Crossing, Side},
    format::moved::Origin,
    ids::{ExtentOrdinal, ShardId},
    mutant::{self, Mutant},
    shard::Shard,
    sync::Ordering,
};
use std::sync::Arc;

/// The other one of the two.
#[derive(Debug)]
pub(super) struct Mate {
    pub(super) crossing: Arc<Crossing>,
    /// Which the owner's own shard is.
    pub(super) side: Side,
    pub(super) shard: Arc<Shard>,
}

/// Makes the owners of cold shards known to those of the shards that they belong to.
pub(crate) fn pair_up(shards: &mut [ShardOwner]) {
    let id_of = |owner: &ShardOwner| owner.shared.id();
    for cold in 0..shards.len() {
        let Some(hot) = shards[cold].context.cold_of else { continue };
        let Some(hot) = shards.iter().position(|owner| id_of(owner) == hot) else { continue };
        let (of_hot, of_cold) = (Arc::clone(&shards[hot].shared), Arc::clone(&shards[cold].shared));
        let crossed = shards[cold].space.take_moves_of(of_hot.id());
        let crossing = Arc::new(Crossing::new(crossed.into_iter()));
        for shard in [&of_hot, &of_cold] {
            shard.set_crossing(&crossing);
        }
        let mate = Mate { crossing: Arc::clone(&crossing), side: Side::Hot, shard: of_cold };
        shards[hot].mate = Some(mate);
        shards[cold].mate = Some(Mate { crossing, side: Side::Cold, shard: of_hot });
    }
}

impl ShardOwner {
    fn mate_as(&self, side: Side) -> Option<&Mate> {
        self.mate.as_ref().filter(|mate| mate.side == side)
    }

    /// The cold shard, if this one has one, and what they share.
    pub(super) fn cold(&self) -> Option<&Mate> {
        self.mate_as(Side::Hot)
    }

    /// Where copies go.
    pub(super) fn target(&self, crosses: bool) -> &Arc<Shard> {
        self.cold().filter(|_| crosses).map_or(&self.shared, |cold| &cold.shard)
    }

    /// True if what is cleaned from now on goes to the cold shard.
    pub(super) fn crosses(&self) -> bool {
        let is_asked = self.context.to_cold && self.context.cleaning.options().policy.is_by_worth();
        let takes = |cold: &Mate| cold.shard.failure().is_none() && !cold.crossing.is_scanned();
        is_asked && self.cold().is_some_and(takes)
    }

    /// What was copied of this shard's extents to the cold one, and does not count yet.
    pub(super) fn begun_crossings(&self) -> Vec<Move> {
        let own = self.shared.id();
        self.cold().map_or_else(Vec::new, |cold| cold.crossing.begun(own))
    }

    /// What a checkpoint of this shard repeats of extents of the other one.
    pub(super) fn crossings_to_repeat(&self) -> Vec<Move> {
        if mutant::is_active(Mutant::CrossingUnsaid) {
            return Vec::new();
        }
        self.mate_as(Side::Cold).map_or_else(Vec::new, |mate| mate.crossing.moves(&self.context.extents))
    }

    /// Copies that do not count yet may lie in extents of this shard from here on.
    pub(super) fn first_uncounted(&self) -> Option<ExtentOrdinal> {
        self.mate_as(Side::Cold)?.crossing.first(&self.context.extents)
    }

    /// True if the originals need not be kept for a scan any more. The copies are durable.
    pub(super) fn gives_up(&self, origin: Origin, crosses: bool) -> bool {
        let crossing = self.cold().filter(|_| crosses).map(|cold| &cold.crossing);
        self.shared.scans().may_free(|| crossing.is_none_or(|crossing| crossing.give_up(origin)))
    }

    /// True if it is this one of the two that cleans now.
    pub(super) fn takes_turn(&self, worth: f64) -> bool {
        let Some(mate) = &self.mate else { return true };
        let is_alone =
            mate.shard.failure().is_some() || !self.context.cleaning.options().policy.is_by_worth();
        is_alone || mate.crossing.takes_turn(mate.side, worth)
    }

    /// The other one of the two may have something to clean that it had not: nobody is told that the store is full before
    /// it has looked.
    pub(super) fn let_mate_look(&mut self) {
        let Some(mate) = self.mate.as_ref().filter(|mate| mate.shard.failure().is_none()) else { return };
        let shard = Arc::clone(&mate.shard);
        // Before the flag is raised, and so that what the mate remembers does not count: see `Directory::look_again`.
        self.context.cleaning.gain_hope();
        let _rung_in_any_case = shard.note_release();
        if shard.owe_look() && self.context.cleaning.lose_hope() {
            self.space.tell_all();
        }
        shard.ring().bell().ring();
    }

    pub(super) fn is_mate_busy(&self) -> bool {
        self.mate
            .as_ref()
            .is_some_and(|mate| mate.shard.failure().is_none() && mate.crossing.is_busy(mate.side.other()))
    }

    /// Asks the owner of the cold shard for room. Nothing is to be done before there is some.
    pub(super) fn want_room_in_cold(&self) {
        let Some(cold) = self.cold() else { return };
        if !cold.shard.wants_room.swap(true, Ordering::AcqRel) {
            cold.shard.ring().bell().ring();
        }
    }

    /// True if the owner of the cold shard is about to have room, or has none to take.
    pub(super) fn is_cold_claiming(&self) -> bool {
        self.cold().is_some_and(|cold| cold.shard.is_claiming.load(Ordering::Acquire))
    }

    /// Whose copies are in this shard.
    pub(super) fn is_cold(&self) -> bool {
        self.context.cold_of.is_some()
    }
}

impl super::Space {
    fn take_moves_of(&mut self, hot: ShardId) -> Vec<Move> {
        self.moves.extract_if(.., |it| it.origin.shard == hot).collect()
    }
}
