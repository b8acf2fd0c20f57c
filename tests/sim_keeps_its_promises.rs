//! The simulator over a fixed set of seeds: on devices that keep their word, crash as they may, no promise is broken. Other
//! seeds, and lying devices, are still open: see docs/RELIABILITY.md.
#![allow(clippy::unwrap_used, reason = "tests")]

use corelog_shards::sim::{Fault, Faults, Settings, Tally, run_case};
use std::time::{Duration, Instant};

/// Runs cases until the time is over, at least one of them.
fn run(seeds: impl Iterator<Item = u64>, settings: &Settings, limit: Duration) -> Tally {
    let (start, mut total) = (Instant::now(), Tally::default());
    for seed in seeds {
        let outcome = run_case(seed, settings);
        assert_eq!(outcome.violation, None, "seed {seed}, faults {}", settings.faults);
        total += outcome.tally;
        if start.elapsed() > limit {
            break;
        }
    }
    total
}

/// What a device may do that keeps its word.
fn honest() -> Faults {
    let honest =
        [Fault::Reorder, Fault::Short, Fault::WriteError, Fault::SyncError, Fault::Slow, Fault::Tear];
    honest.into_iter().fold(Faults::NONE, Faults::with)
}

#[test]
fn with_crashes_alone() {
    let settings = Settings { faults: Faults::NONE, ..Settings::default() };
    let total = run(1..=12, &settings, Duration::from_secs(60));
    assert!(total.crash_points > 50, "{total:?}");
    assert_eq!(total.named, 0, "an honest device was accused");
}

#[test]
fn with_errors_that_the_device_admits() {
    let total = run(1..=12, &Settings { faults: honest(), ..Settings::default() }, Duration::from_secs(60));
    assert_eq!(total.named, 0, "an honest device was accused");
}

#[test]
fn a_seed_gives_the_same_case_again() {
    let settings = Settings { trace: true, ..Settings::default() };
    for seed in 1..=5 {
        let (one, other) = (run_case(seed, &settings), run_case(seed, &settings));
        assert_eq!((one.tally, one.trace), (other.tally, other.trace), "seed {seed}");
    }
}
