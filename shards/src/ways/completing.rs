//! Ways 10, 11, 12, 14 and 18: what a completion means.

use super::{LARGE, Options, World};
use crate::{
    device::{
        Errno, Verb,
        ram::{Effect, Fault},
    },
    failure::ShardFailure,
    ids::FrameNumber,
    limits::WRITE_RETRIES_MAX,
    mutant::Mutant,
    ring::reservation::Placed,
    shard_owner::FrameOrder,
    twins::{breaks_with, proves},
    watermark::Durability,
};
use std::sync::atomic::Ordering;

const FULL: Errno = Errno(libc::ENOSPC);

fn fault(times: u32, effect: Effect) -> Fault {
    Fault { verb: Verb::Write, skip: 0, times, effect }
}

/// Three frames on their way to the device, which holds their writes back.
fn three_held(options: Options) -> (World, [Placed; 3]) {
    let mut world = World::open(options);
    world.hold(Verb::Write);
    let placed = [1, 2, 3].map(|byte| world.append(&[byte; LARGE]));
    world.ask(Durability::Written);
    world.turns();
    (world, placed)
}

#[test]
fn a_completion_counts_for_its_own_frame() {
    // Way 10: a flush took the completion of another buffer for its own.
    let scenario = || {
        let (mut world, placed) = three_held(Options::default());
        let held = world.control.held();
        assert!(world.control.release(held[1].id));
        world.turns();
        assert_eq!(world.shard.watermarks().written, FrameNumber(0), "frame 0 is still on its way");
        world.let_go(Verb::Write);
        placed.iter().zip(1..).for_each(|(placed, byte)| world.expect(*placed, &[byte; LARGE]));
    };
    proves(scenario, Mutant::CompletionByOrder, "its own slice");
}

#[test]
fn crosswise_completions_move_the_watermark_over_both() {
    // Way 14: two completions arrived crosswise, and the watermark stalled although all was done.
    let scenario = || {
        let (mut world, placed) = three_held(Options::default());
        let held = world.control.held();
        for (index, written) in [(2, 0), (1, 0), (0, 3)] {
            assert!(world.control.release(held[index].id));
            world.turns();
            assert_eq!(world.shard.watermarks().written, FrameNumber(written), "after write {index}");
        }
        assert!(placed.iter().all(|placed| world.has(*placed, Durability::Written)));
    };
    proves(scenario, Mutant::WatermarkOneStep, "after write 0");
    breaks_with(Mutant::WatermarkSkipsHoles, "after write 2", scenario);
    breaks_with(Mutant::WrittenAtSubmit, "after write 2", scenario);
}

#[test]
fn a_failing_write_stops_the_shard() {
    // Way 11: a failing write was tried again without bound and never reported.
    let scenario = || {
        let mut world = World::open(Options::default());
        world.control.inject(fault(u32::MAX, Effect::Fail(FULL)));
        let placed = world.append(b"nowhere to go");
        world.ask(Durability::Written);
        world.turns();
        let failure = world.shard.failure();
        let is_named = matches!(failure, Some(ShardFailure::DeviceFull { .. }));
        assert!(is_named, "{failure:?}");
        assert!(!world.has(placed, Durability::Written), "acknowledged all the same");
        assert!(world.shard.try_append(b"more").is_err(), "it takes no more");
    };
    proves(scenario, Mutant::RetryForever, "spins");
}

#[test]
fn a_refused_submission_is_made_again() {
    // Way 11: a submission that a full queue refused was lost.
    let scenario = || {
        let mut world = World::open(Options { depth: 1, ..Options::default() });
        world.hold(Verb::Write);
        let placed = [1, 2, 3].map(|byte| world.append(&[byte; LARGE]));
        world.ask(Durability::Written);
        world.turns();
        world.let_go(Verb::Write);
        assert!(placed.iter().all(|placed| world.has(*placed, Durability::Written)), "lost in the queue");
        placed.iter().zip(1..).for_each(|(placed, byte)| world.expect(*placed, &[byte; LARGE]));
    };
    proves(scenario, Mutant::RejectedForgotten, "lost in the queue");
}

#[test]
fn serialised_frames_are_written_one_by_one() {
    // Way 12: linked submissions that are submitted one by one order nothing; a cancelled link was taken for success.
    let scenario = || {
        let (mut world, placed) = three_held(Options { order: FrameOrder::Serialised, ..Options::default() });
        for next in &placed[..2] {
            let held = world.control.held();
            assert_eq!(held.len(), 1, "side by side");
            assert!(world.control.release(held[0].id));
            world.turns();
            assert!(world.has(*next, Durability::Written));
        }
        // The third fails: nothing is written behind it.
        world.control.inject(fault(1, Effect::Fail(Errno(libc::ECANCELED))));
        world.control.release_all();
        world.turns();
        assert!(!world.has(placed[2], Durability::Written), "a cancelled write was taken for success");
        assert!(world.shard.failure().is_some() && world.control.held().is_empty());
    };
    proves(scenario, Mutant::SerialisedOverlaps, "side by side");
}

#[test]
fn a_short_write_is_made_again() {
    // Way 18: a short write counted as success.
    let scenario = || {
        let mut world = World::open(Options::default());
        world.control.inject(fault(2, Effect::Short(4096)));
        let placed = world.append_durably(&[9; LARGE]);
        world.expect(placed, &[9; LARGE]);
        assert_eq!(world.shard.counters().rewrites.load(Ordering::Relaxed), 2);
    };
    proves(scenario, Mutant::ShortWriteTrusted, "lost");
}

#[test]
fn a_write_that_stays_short_stops_the_shard_after_a_bounded_number_of_tries() {
    let mut world = World::open(Options::default());
    world.control.inject(fault(u32::MAX, Effect::Short(4096)));
    let placed = world.append(&[9; LARGE]);
    world.ask(Durability::Written);
    world.turns();
    let failure = world.shard.failure();
    let tries = WRITE_RETRIES_MAX + 1;
    assert!(matches!(failure, Some(ShardFailure::ShortWrite { tries: made, .. }) if made == tries));
    assert!(!world.has(placed, Durability::Written));
}
