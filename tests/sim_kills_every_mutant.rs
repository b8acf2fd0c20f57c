//! Bugs planted on purpose: the simulator has to find each. One that survives is a hole in the simulator.
#![allow(clippy::unwrap_used, reason = "tests")]

use corelog_shards::{
    mutant::Mutant,
    sim::{Settings, run_case},
};

/// Mutants and the first seed, from 1, that kills them; few enough cases for every test run. The program's
/// `--mutant all` hunts them all.
const QUICK: [(Mutant, u64); 65] = [
    (Mutant::LargeListNotRenewed, 201),
    (Mutant::DrainedBeforeDurable, 174),
    (Mutant::CleaningBeginsAgain, 61),
    (Mutant::DsyncOverUnsynced, 69),
    (Mutant::ThroughFailureForgotten, 9),
    (Mutant::RunIgnoresOthers, 30),
    (Mutant::RunNotPadded, 2),
    (Mutant::RunLeftOpen, 1),
    (Mutant::CrossingForgotten, 1),
    (Mutant::FlushIgnoresWriters, 1),
    (Mutant::RecycleKeepsTag, 1),
    (Mutant::DropKeepsWriter, 1),
    (Mutant::OnlySealerRotates, 2),
    (Mutant::RotateReusesBase, 1),
    (Mutant::SleepWithoutSecondLook, 1),
    (Mutant::WaiterWithoutSecondLook, 8),
    (Mutant::WrittenAtSubmit, 1),
    (Mutant::DurableAtWrite, 1),
    (Mutant::SyncCoversLater, 1),
    (Mutant::SyncRetried, 4),
    (Mutant::ShortWriteTrusted, 12),
    (Mutant::WatermarkSkipsHoles, 14),
    (Mutant::WatermarkStartsOff, 5),
    (Mutant::RetryForever, 1),
    (Mutant::RejectedForgotten, 1),
    (Mutant::SerialisedOverlaps, 2),
    (Mutant::ReopenAtStart, 1),
    (Mutant::PaddingNotCleared, 1),
    (Mutant::CloseForgetsAccepted, 3),
    (Mutant::CapacityFromConstant, 1),
    (Mutant::ExtentBeforeHeader, 2),
    (Mutant::CompletionByOrder, 1),
    (Mutant::TermNotRaised, 13),
    (Mutant::SyncFailureForgotten, 4),
    (Mutant::GuardTooLong, 1),
    (Mutant::WatermarkOneStep, 51),
    (Mutant::RotationForgotten, 1),
    (Mutant::SpareUsedAgain, 2),
    (Mutant::HalfBatch, 1),
    (Mutant::ManifestSkipsPart, 1),
    (Mutant::OpenWithoutSync, 82),
    (Mutant::FreedBeforeDurable, 91),
    (Mutant::CheckpointForgetsExtent, 3),
    (Mutant::ResurrectedExtent, 3),
    (Mutant::CursorLost, 1),
    (Mutant::TrimNotDurable, 1),
    (Mutant::DecisionNotDurable, 1),
    (Mutant::ResolvedForgotten, 1),
    (Mutant::CutSplitsBatches, 7),
    (Mutant::ShareForgotten, 145),
    (Mutant::CutWithoutHelp, 2),
    (Mutant::TrimIgnoresLists, 3),
    (Mutant::TrimIgnoresWriters, 165),
    (Mutant::GrowBeforeSync, 195),
    (Mutant::FreedBeforeCopiesDurable, 27),
    (Mutant::CopyCountsEarly, 6),
    (Mutant::LiveRecordSkipped, 6),
    (Mutant::RelocatedTwice, 6),
    (Mutant::CachedPastReuse, 29),
    (Mutant::UncountedCopied, 57),
    (Mutant::ListFreedFirst, 302),
    (Mutant::LargeTakenForDead, 57),
    (Mutant::ColdNotDurable, 248),
    (Mutant::ColdShardForgotten, 1137),
    (Mutant::CrossingUnsaid, 1508),
];

#[test]
fn planted_bugs_are_found_by_the_seeds_that_found_them() {
    for (mutant, seed) in QUICK {
        let outcome = run_case(seed, &Settings { mutant: Some(mutant), ..Settings::default() });
        assert!(outcome.violation.is_some(), "{mutant:?} survives seed {seed}");
    }
}

/// The rows of the mutants' table in RELIABILITY.md: name and case, or who else finds it.
fn documented() -> Vec<(String, String)> {
    let text = include_str!("../docs/RELIABILITY.md");
    let table = text.split("<!-- mutants -->").nth(1).unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        (cells[0].trim_matches('`').to_owned(), cells[2].to_owned())
    })
    .collect()
}

#[test]
fn the_table_of_mutants_is_complete() {
    let documented = documented();
    for mutant in Mutant::ALL {
        let name = format!("{mutant:?}");
        let row = documented.iter().find(|(row, _)| *row == name);
        let (_, killer) = row.unwrap_or_else(|| panic!("docs/RELIABILITY.md does not name {name}"));
        let is_number = killer.parse::<u64>().is_ok();
        assert_eq!(is_number, mutant.found_elsewhere().is_none(), "{name}: {killer}");
    }
    assert_eq!(documented.len(), Mutant::ALL.len(), "docs/RELIABILITY.md names mutants that there are not");
}
