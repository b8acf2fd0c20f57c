#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::{
    format::moved::{MovedRecord, Origin},
    ids::ShardId,
};
use proptest::prelude::*;

fn facts(ordinal: u64) -> ExtentFacts {
    ExtentFacts {
        ordinal: ExtentOrdinal(ordinal),
        extent: ExtentIndex(u32::try_from(ordinal).unwrap() + 7),
        generation: Generation(3),
        first_frame: FrameNumber(ordinal * 100),
        first_link: 0xdead_beef,
        frames: 60,
        records: 1000,
        bytes: 1 << 20,
        dead_bytes: 99,
        unix_ns: 1_700_000_000_000_000_000,
        lists_from: (ordinal % 8 == 1).then_some(ExtentOrdinal(ordinal - 2)),
    }
}

fn cursor(name: &str, ordinal: u64) -> Cursor {
    let address = Address::from_bits(0x0123_4567);
    let place = LogPlace { ordinal: ExtentOrdinal(ordinal), byte: address.byte() };
    Cursor { name: name.to_owned(), place, address }
}

fn checkpoint(extents: u64, cursors: usize) -> Checkpoint {
    Checkpoint {
        covers: FrameNumber(12_345),
        link: 0x1234_5678,
        trim: LogPlace { ordinal: ExtentOrdinal(4), byte: 8192 },
        extents: (0..extents).map(|index| facts(5 + 2 * index)).collect(),
        cursors: (0..cursors).map(|index| cursor(&format!("{index:03}"), 9)).collect(),
    }
}

fn batch(number: u64) -> BatchId {
    BatchId { term: Term(4), number }
}

fn trim(ordinal: u64, kept_from: u64) -> Control {
    let place = LogPlace { ordinal: ExtentOrdinal(ordinal), byte: 4096 };
    Control::Trim { place, kept_from: ExtentOrdinal(kept_from) }
}

fn moved(records: u64) -> MovedGroup {
    MovedGroup {
        origin: Origin {
            shard: ShardId(3),
            ordinal: ExtentOrdinal(7),
            extent: ExtentIndex(2),
            generation: Generation(70_000),
        },
        from: 1 << 20,
        up_to: (1 << 20) + 4096,
        previous: (records > 0).then(|| Address::from_bits(0x0123_4567)),
        records: (0..records)
            .map(|index| MovedRecord { byte: (1 << 20) + index * 64, length: 40, root: None })
            .collect(),
    }
}

/// Every other one is of batch data.
fn moved_of_batches(records: u64) -> MovedGroup {
    let mut group = moved(records);
    for record in group.records.iter_mut().step_by(2) {
        record.root = Some(LogPlace { ordinal: ExtentOrdinal(8), byte: 5 << 20 });
    }
    group
}

fn controls() -> Vec<Control> {
    let freed = |ordinal| FreedExtent {
        ordinal: ExtentOrdinal(ordinal),
        extent: ExtentIndex(4),
        generation: Generation(2),
    };
    let mut all = vec![
        trim(9, 7),
        Control::Freed(vec![freed(1), freed(8)]),
        Control::IdleMark,
        Control::CursorSet(cursor("näher", 3)),
        Control::CursorRemoved("gone".to_owned()),
        Control::Decided {
            id: batch(7),
            settled: batch(3),
            parts: vec![(ShardId(2), Address::from_bits(99))],
        },
        Control::Resolved { id: batch(7), settled: batch(3) },
        Control::Moved(moved(3)),
        Control::Moved(moved(0)),
        Control::Moved(moved_of_batches(3)),
    ];
    all.extend(checkpoint(3, 2).split(1 << 16).into_iter().map(Control::Checkpoint));
    all
}

#[test]
fn a_control_record_comes_back_as_it_was_and_cut_short_it_is_none() {
    for control in controls() {
        let bytes = control.encode();
        assert_eq!(Control::decode(&bytes), Ok(Some(control.clone())));
        if control != Control::IdleMark {
            for length in 1..bytes.len() {
                assert!(Control::decode(&bytes[..length]).is_err(), "{length} bytes of {control:?}");
            }
        }
    }
    assert_eq!(Control::decode(&[77, 1, 2]), Ok(None), "a kind of a later version is passed over");
}

#[test]
fn a_checkpoint_that_is_divided_holds_the_same_and_each_part_fits() {
    for (extents, cursors, bytes) in [(0, 0, 512), (1, 0, 512), (200, 0, 1024), (7, 40, 512), (0, 40, 512)] {
        let whole = checkpoint(extents, cursors);
        let parts = whole.split(bytes);
        let mut together = Checkpoint { extents: Vec::new(), cursors: Vec::new(), ..whole.clone() };
        for (index, part) in parts.iter().enumerate() {
            assert_eq!((part.part as usize, part.parts as usize), (index, parts.len()));
            assert!(Control::Checkpoint(part.clone()).encode().len() <= bytes);
            together.extents.extend(&part.share.extents);
            together.cursors.extend(part.share.cursors.iter().cloned());
        }
        assert_eq!(together, whole);
    }
}

/// docs/FORMAT.md states the layout; what is stored depends on it for ever.
#[test]
fn the_layout_never_changes() {
    let encoded = |control: &Control| control.encode();
    let trimmed = encoded(&trim(9, 7));
    assert_eq!(
        (trimmed[0], trimmed[1], trimmed[8], trimmed[17], trimmed[24], trimmed.len()),
        (1, 1, 9, 16, 7, 32)
    );
    let freed = encoded(&controls()[1]);
    assert_eq!((freed[0], freed[4], freed[8], freed[16], freed[20], freed[24]), (2, 2, 1, 4, 2, 8));
    let mut whole = checkpoint(1, 1);
    whole.extents[0].lists_from = Some(ExtentOrdinal(2));
    let part = encoded(&Control::Checkpoint(whole.split(4096).remove(0)));
    assert_eq!((part[0], part[1], part[2], &part[4..8]), (3, 6, 9, &[0x78, 0x56, 0x34, 0x12][..]));
    assert_eq!(part[8..10], [0x39, 0x30]);
    assert_eq!((part[16], part[25], part[32], part[36], part[40], part[44]), (4, 32, 0, 1, 1, 1));
    assert_eq!((part[48], part[56], part[60], part[64], &part[72..74]), (5, 12, 3, 0xf4, &[0xef, 0xbe][..]));
    assert_eq!((part[112], part[120], part[121], part[122], part.len()), (3, 5, 1, 3, 48 + 72 + 24 + 3));
    assert_eq!(encoded(&Control::IdleMark)[0], 4);
    let decided = encoded(&controls()[5]);
    assert_eq!(
        (decided[0], decided[4], decided[8], decided[16], decided[24], decided[32]),
        (8, 1, 4, 7, 4, 3)
    );
    assert_eq!((decided[40], decided[48], decided.len()), (2, 99, 56));
    let resolved = encoded(&controls()[6]);
    assert_eq!((resolved[0], resolved[8], resolved[16], resolved[32], resolved.len()), (9, 4, 7, 3, 40));
}

/// Checkpoints and trims as they were before lists counted, and one with more in it than is known.
#[test]
fn other_lengths_are_read_for_what_is_known_of_them() {
    let whole = Control::Checkpoint(checkpoint(2, 1).split(4096).remove(0));
    let mut bytes = whole.encode();
    for entry in [48 + 72 + 64, 48 + 64] {
        bytes.drain(entry..entry + 8);
    }
    (bytes[1], bytes[2]) = (0, 0);
    assert_eq!(Control::decode(&bytes), Ok(Some(whole.clone())), "none of these has lists");
    let mut bytes = whole.encode();
    for entry in [48 + 2 * 72, 48 + 72, 48] {
        bytes.splice(entry..entry, [9; 16]);
    }
    (bytes[1], bytes[2]) = (6 + 2, 9 + 2);
    assert_eq!(Control::decode(&bytes), Ok(Some(whole)));
    let mut bytes = trim(9, 9).encode();
    bytes.truncate(24);
    bytes[1] = 0;
    assert_eq!(Control::decode(&bytes), Ok(Some(trim(9, 9))));
    assert!(Control::decode(&trim(9, 10).encode()).is_err(), "a trim keeps the extent of its place");
}

proptest! {
    #[test]
    fn forged_records_never_panic(kind in 0u8..11, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = bytes;
        bytes.insert(0, kind);
        if let Ok(Some(control)) = Control::decode(&bytes) {
            prop_assert_eq!(Control::decode(&control.encode()), Ok(Some(control)));
        }
    }
}

#[test]
fn what_makes_a_moved_record_count_lies_behind_it() {
    let mut group = moved_of_batches(3);
    let plain = Control::Moved(moved(3)).encode();
    assert_eq!(plain.len() + 3 * 16, Control::Moved(group.clone()).encode().len());
    group.records[2].root = Some(LogPlace { ordinal: ExtentOrdinal(6), byte: 5 << 20 });
    let error = Control::decode(&Control::Moved(group).encode()).unwrap_err();
    assert_eq!(error.field, "the list of a moved record");
    // One who does not know of roots reads the same records.
    let mut form_0 = Control::Moved(moved_of_batches(3)).encode();
    form_0[1] = 0;
    assert_eq!(Control::decode(&form_0), Ok(Some(Control::Moved(moved(3)))));
}
