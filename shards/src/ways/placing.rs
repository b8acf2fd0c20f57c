//! Ways 5, 6, 8, 9 and 20: where frames go, and how they are counted.

use super::{EXTENT_BYTES, LARGE, Options, World};
use crate::{
    device::Verb,
    format::record::record_bytes,
    ids::DeviceIndex,
    limits::{BUFFER_BYTES_MIN, FRAME_HEADER_BYTES},
    mutant::Mutant,
    shard::ShardRefusal,
    twins::{breaks_with, proves},
    watermark::Durability,
};

fn frames_in_a_row() {
    let mut world = World::open(Options::default());
    let records: Vec<_> = (0..40).map(|byte| (world.append_durably(&[byte; 3000]), [byte; 3000])).collect();
    for (placed, bytes) in &records {
        world.expect(*placed, bytes);
    }
    let last = records.last().map(|(placed, _)| placed.address.byte());
    assert!(last.is_some_and(|byte| byte < EXTENT_BYTES), "a frame of one slot takes one slot");
}

#[test]
fn each_frame_goes_behind_the_last() {
    // Way 5: what was flushed between "sealed" and "slot chosen" went to the slot of the frame before.
    proves(frames_in_a_row, Mutant::RotateReusesBase, "lost");
}

#[test]
fn a_reopened_shard_counts_from_where_it_stopped() {
    // Way 6: the allocator started at one number and the watermark at another, and it never advanced.
    let scenario = || {
        let mut world = World::open(Options::default());
        let first = world.append_durably(b"first");
        let mut world = world.reopen();
        let frame = world.ask(Durability::Durable);
        assert_eq!(frame, first.frame, "nothing was accepted since");
        world.turns();
        assert!(world.has(first, Durability::Durable), "never advances");
        let second = world.append_durably(b"second");
        let marks = world.shard.watermarks();
        assert_eq!((marks.submitted, marks.durable), (second.frame.next(), second.frame.next()));
    };
    proves(scenario, Mutant::WatermarkStartsOff, "never advances");
}

#[test]
fn a_part_filled_frame_is_written_once_and_padded_with_zeros() {
    // Way 8: going on in a part-filled buffer rewrote an acknowledged block, or wrote stale bytes of the last turn
    // behind the end.
    let scenario = || {
        let mut world = World::open(Options::default());
        // One turn of the ring leaves these bytes in all buffers.
        (0..4).for_each(|_| _ = world.append_durably(&[0xAA; LARGE]));
        let first = world.append_durably(b"a part of a slot");
        let slot = first.address.slot(world.layout.geometry());
        let place = world.layout.place(slot).unwrap();
        let block = || {
            let range = place.offset as usize..place.offset as usize + 4096;
            world.image.with(DeviceIndex(0), |bytes| bytes[range].to_vec()).unwrap()
        };
        let before = block();
        // Behind the record: a checksum or a time in the headers may hold any byte.
        let end = (FRAME_HEADER_BYTES + record_bytes(16)) as usize;
        assert!(!before[end..].contains(&0xAA), "stale bytes behind the end");
        let placed = world.append(b"more");
        world.ask(Durability::Durable);
        world.turns();
        let range = place.offset as usize..place.offset as usize + 4096;
        let after = world.image.with(DeviceIndex(0), |bytes| bytes[range].to_vec()).unwrap();
        assert!(before == after, "an acknowledged block was rewritten");
        world.expect(placed, b"more");
    };
    proves(scenario, Mutant::PaddingNotCleared, "stale bytes");
    breaks_with(Mutant::RotateReusesBase, "rewritten", scenario);
}

#[test]
fn a_reopened_shard_overwrites_nothing() {
    // Way 9: reopening started again at the first slot.
    let scenario = || {
        let mut world = World::open(Options::default());
        let first = world.append_durably(b"before");
        let mut world = world.reopen();
        let second = world.append_durably(b"after");
        world.expect(second, b"after");
        world.expect(first, b"before");
    };
    proves(scenario, Mutant::ReopenAtStart, "lost");
}

#[test]
fn the_buffer_size_that_was_asked_for_decides() {
    // Way 20: the buffer size was an option, but a constant elsewhere decided.
    let scenario = || {
        let mut world = World::open(Options::default());
        world.hold(Verb::Write);
        let frames = [1, 2, 3].map(|byte| world.append(&[byte; LARGE]).frame.0);
        assert_eq!(frames, [0, 1, 2], "two of these do not fit into a buffer");
        let max = BUFFER_BYTES_MIN - 136;
        assert_eq!(world.shard.try_reserve(max as usize + 1).err(), Some(ShardRefusal::TooLarge { max }));
        world.let_go(Verb::Write);
    };
    proves(scenario, Mutant::CapacityFromConstant, "do not fit");
}
