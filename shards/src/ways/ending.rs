//! Ways 16, 19 and 22: the end of a core, its rest, and what the models run.

use super::{LARGE, Options, World};
use crate::{core::Turn, device::Verb, mutant::Mutant, twins::proves, watermark::Durability};
use std::{
    fs,
    path::Path,
    sync::{Arc, atomic::Ordering},
    task::Waker,
    thread,
    time::Duration,
};

#[test]
fn closing_and_dropping_lose_nothing() {
    // Way 16: dropping the store lost accepted records.
    let scenario = || {
        let world = World::open(Options::default());
        let placed = world.append(b"accepted");
        let World { core, shard, image, control, layout, table, options } = world;
        drop(core);
        assert!(shard.durable.has(placed.frame), "lost at the drop");
        let rest = World::open(Options::default());
        World { core: rest.core, shard, image, control, layout, table, options }.expect(placed, b"accepted");
    };
    proves(scenario, Mutant::CloseForgetsAccepted, "lost at the drop");
}

#[test]
fn closing_wakes_those_who_wait_for_room() {
    // An append that waited for an extent, with nothing in flight that could complete, slept through the close.
    let scenario = || {
        let mut world = World::open(Options::default());
        let seen = world.shard.room().changes();
        assert!(!world.shard.room().register(seen, Waker::noop()));
        world.core.close();
        world.turns();
        assert!(world.core.is_closed());
        assert!(world.shard.room().register(seen, Waker::noop()), "never called");
    };
    proves(scenario, Mutant::CloseWakesNobody, "never called");
}

#[test]
fn dropping_waits_for_what_is_in_flight() {
    // Way 16: dropping the store freed buffers under I/O.
    let mut world = World::open(Options::default());
    world.hold(Verb::Write);
    let placed = world.append(&[4; LARGE]);
    world.ask(Durability::Durable);
    world.turns();
    let control = Arc::clone(&world.control);
    let memory = Arc::downgrade(world.shard.ring().memory());
    let releaser = thread::spawn(move || {
        thread::sleep(Duration::from_millis(30));
        let is_there = memory.strong_count() > 0;
        control.hold(Verb::Write, false);
        control.release_all();
        is_there
    });
    let World { core, shard, .. } = world;
    drop(core);
    assert!(releaser.join().unwrap(), "the memory went away under a write");
    assert!(shard.durable.has(placed.frame));
}

#[test]
fn a_core_that_waits_for_its_device_is_idle() {
    // Way 19: a retry loop span at full speed while the device was slow, and an idle core burnt its CPU.
    let scenario = || {
        let mut world = World::open(Options::default());
        world.hold(Verb::Write);
        world.append(b"slow");
        world.ask(Durability::Written);
        world.turns();
        assert_eq!(world.core.turn(), Turn::Idle);
        let sleeps = || world.core.handle().counters.sleeps.load(Ordering::Relaxed);
        let before = sleeps();
        world.core.wait(Some(Duration::from_millis(10)));
        assert_eq!(world.core.handle().counters.sleeps.load(Ordering::Relaxed), before + 1);
        assert_eq!(world.core.turn(), Turn::Idle, "nothing came of the sleep");
        world.let_go(Verb::Write);
    };
    proves(scenario, Mutant::SpinWhileBusy, "spins");
}

/// What a modelled file may not do: bring atomics, cells or locks of its own, which loom would not see.
fn bypasses(source: &str) -> Vec<&'static str> {
    let product = source.split("#[cfg(all(test").next().unwrap_or_default();
    let doors = ["std::sync::atomic", "core::sync::atomic", "UnsafeCell", "std::sync::Mutex"];
    doors.into_iter().filter(|door| product.contains(door)).collect()
}

/// What a file of models may not do: define what it should take from the product.
fn copies(source: &str) -> Vec<&'static str> {
    let shipped = [
        "struct Ring",
        "struct AtomicState",
        "struct Bell",
        "struct Mark",
        "struct ExtentTable",
        "struct BriefLock",
    ];
    shipped.into_iter().filter(|name| source.contains(name)).collect()
}

#[test]
fn models_run_the_shipped_types() {
    // Way 22: the model checker passed on a copy of the code that differed from the shipped one.
    let read = |file: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    for file in [
        "ring/mod.rs",
        "ring/owner.rs",
        "ring/reservation.rs",
        "ring/state.rs",
        "park.rs",
        "watermark.rs",
        "extents.rs",
        "waiting.rs",
    ] {
        assert_eq!(bypasses(&read(file)), [""; 0], "{file}");
    }
    for file in [
        "ring/loom_tests.rs",
        "park_loom_tests.rs",
        "watermark_loom_tests.rs",
        "extents_loom_tests.rs",
        "directory_loom_tests.rs",
        "brief_lock_loom_tests.rs",
        "ways/many_threads.rs",
    ] {
        let source = read(file);
        assert_eq!(copies(&source), [""; 0], "{file}");
        assert!(source.contains("(Mutant::"), "{file} has no broken twin");
    }
    // The twins of this test itself.
    assert_eq!(bypasses("use std::sync::atomic::AtomicU64;"), ["std::sync::atomic"]);
    assert_eq!(copies("struct Ring { current: AtomicU64 }"), ["struct Ring"]);
}
