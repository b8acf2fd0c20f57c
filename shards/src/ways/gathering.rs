//! Gathering: a frame that is left open for those who were told last is sealed once they are back, and when they do not come.

use super::{Options, World};
use crate::{
    core::Callers,
    limits::{GATHER_US_MAX, SYNC_SPIN_CALLERS_MIN},
    mutant::Mutant,
    ring::reservation::Placed,
    twins::proves,
    watermark::Durability,
};
use std::{task::Waker, thread, time::Duration};

const LENGTH: usize = 200;
const GATHER: Duration = Duration::from_micros(GATHER_US_MAX);

impl World {
    /// A core that has just told as many callers as it takes to wait for them.
    fn after_a_group(callers: Callers) -> Self {
        let mut world = Self::open(Options::default());
        // The first frame holds more than what was appended.
        world.append_durably(b"first");
        world.core.watch_syncs(Duration::from_secs(1), callers);
        let group: Vec<Placed> = (0..SYNC_SPIN_CALLERS_MIN).map(|_| world.append(&[1; LENGTH])).collect();
        for placed in &group {
            assert!(!world.shard.durable.register(placed.frame, Waker::noop()), "nothing is durable yet");
        }
        world.shard.request(group[0].frame, Durability::Durable);
        while !world.has(group[0], Durability::Durable) {
            let _more_or_less = world.core.turn();
        }
        world
    }

    /// One of the callers is back.
    fn come_back(&self) -> Placed {
        let placed = self.append(&[2; LENGTH]);
        self.shard.request(placed.frame, Durability::Durable);
        placed
    }

    fn is_open(&self, placed: Placed) -> bool {
        self.shard.ring().current_frame() == placed.frame
    }
}

#[test]
fn a_frame_is_sealed_although_those_who_were_told_do_not_come_back() {
    let scenario = || {
        let mut world = World::after_a_group(Callers::Beside);
        let placed = world.come_back();
        world.turns();
        thread::sleep(2 * GATHER);
        world.turns();
        assert!(world.has(placed, Durability::Durable), "left open for ever");
        // They are not waited for again at once.
        let placed = world.come_back();
        world.turns();
        assert!(world.has(placed, Durability::Durable), "left open although nobody was told");
    };
    proves(scenario, Mutant::GatheringWithoutEnd, "left open for ever");
}

#[test]
fn a_frame_is_sealed_at_once_when_all_are_back() {
    // Time does not end it.
    let _planted = Mutant::GatheringWithoutEnd.plant();
    let mut world = World::after_a_group(Callers::Beside);
    for _ in 1..SYNC_SPIN_CALLERS_MIN {
        let placed = world.come_back();
        world.turns();
        assert!(world.is_open(placed), "sealed for a part of them");
    }
    let last = world.come_back();
    world.turns();
    assert!(world.has(last, Durability::Durable), "left open although all are back");
}

#[test]
fn nobody_is_gathered_who_may_wait_for_the_core_s_own_thread_or_its_cpu() {
    let _planted = Mutant::GatheringWithoutEnd.plant();
    for callers in [Callers::Driver, Callers::Crowded] {
        let mut world = World::after_a_group(callers);
        let placed = world.come_back();
        world.turns();
        assert!(world.has(placed, Durability::Durable), "{callers:?}");
    }
}

#[test]
fn a_core_that_gathers_does_not_sleep_for_longer() {
    let mut world = World::after_a_group(Callers::Beside);
    let _back = world.come_back();
    let _more_or_less = world.core.turn();
    let timer = world.core.timer();
    // It may be over already.
    assert!(timer.is_none_or(|timer| timer <= GATHER), "{timer:?}");
}
