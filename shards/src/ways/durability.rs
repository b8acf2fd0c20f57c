//! Ways 17 and 21: what durable means, and what a timer may do.

use super::{Options, World};
use crate::{
    device::{
        Errno, Verb,
        ram::{Effect, Fault},
    },
    failure::ShardFailure,
    mutant::Mutant,
    twins::proves,
    watermark::Durability,
};
use std::{thread, time::Duration};

#[test]
fn durable_means_synced() {
    // Way 17: "durable" was said without any flush of the device's cache.
    let scenario = || {
        let mut world = World::open(Options::default());
        world.hold(Verb::Sync);
        let placed = world.append(b"once");
        world.ask(Durability::Durable);
        world.turns();
        assert!(world.has(placed, Durability::Written));
        assert!(!world.has(placed, Durability::Durable), "durable without a sync");
        assert_eq!(world.control.held().len(), 1, "the sync is on its way");
        world.let_go(Verb::Sync);
        assert!(world.has(placed, Durability::Durable));
    };
    proves(scenario, Mutant::DurableAtWrite, "durable without a sync");
}

#[test]
fn a_sync_covers_what_was_written_before_it_and_no_more() {
    // Way 17: a frame that was written while a sync ran was taken for durable with it.
    let scenario = || {
        let mut world = World::open(Options::default());
        world.hold(Verb::Sync);
        let first = world.append(b"first");
        world.ask(Durability::Durable);
        world.turns();
        let second = world.append(b"second");
        world.ask(Durability::Durable);
        world.turns();
        assert!(world.has(second, Durability::Written));
        let held = world.control.held();
        assert!(held.len() == 1 && world.control.release(held[0].id));
        world.turns();
        assert!(world.has(first, Durability::Durable));
        assert!(!world.has(second, Durability::Durable), "covered by an older sync");
        world.let_go(Verb::Sync);
        assert!(world.has(second, Durability::Durable));
    };
    proves(scenario, Mutant::SyncCoversLater, "covered by an older sync");
}

#[test]
fn a_failed_sync_stops_the_shard() {
    // Way 17: a sync that failed was tried again, and the second answer believed; the kernel may have dropped the
    // pages by then.
    let scenario = || {
        let mut world = World::open(Options::default());
        let effect = Effect::Fail(Errno(libc::EIO));
        world.control.inject(Fault { verb: Verb::Sync, skip: 0, times: 1, effect });
        let placed = world.append(b"gone");
        world.ask(Durability::Durable);
        world.turns();
        assert!(!world.has(placed, Durability::Durable), "believed the second answer");
        assert!(matches!(world.shard.failure(), Some(ShardFailure::Io { verb: Verb::Sync, .. })));
    };
    proves(scenario, Mutant::SyncRetried, "believed the second answer");
}

#[test]
fn a_busy_shard_does_not_linger() {
    // Way 21: a timer that sealed buffers on a busy shard cut the size of writes for nothing.
    let linger = Duration::from_millis(5);
    let scenario = || {
        let mut world = World::open(Options { linger: Some(linger), ..Options::default() });
        world.hold(Verb::Write);
        world.append(b"on its way");
        world.ask(Durability::Written);
        world.turns();
        let placed = world.append(b"gathering");
        world.turns();
        thread::sleep(3 * linger);
        world.turns();
        assert_eq!(world.shard.ring().current_frame(), placed.frame, "sealed on a busy shard");
        world.let_go(Verb::Write);
        thread::sleep(3 * linger);
        world.turns();
        assert!(world.has(placed, Durability::Written), "an idle shard's frame lingers for a bounded time");
    };
    proves(scenario, Mutant::LingerWhileBusy, "sealed on a busy shard");
}
