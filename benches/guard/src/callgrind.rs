//! Running a path under callgrind, and what is in its profile.

use crate::{
    counts::Counts,
    error::GuardError,
    paths::{Path, ROUNDS},
};
use std::{collections::BTreeMap, env, fs, process::Command};

/// The function of [`crate::paths`] within which is counted, as callgrind finds it.
const COUNTED: &str = "*counted_part*";
/// Calls of these count as allocations.
const ALLOCATORS: [&str; 6] = ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "memalign"];

/// What one path came to.
#[derive(Debug)]
pub struct Counted {
    pub counts: Counts,
    /// The processor that the path saw.
    pub processor: String,
}

/// Which valgrind is installed. `None`: none, or it does not start.
#[must_use]
pub fn version() -> Option<String> {
    let output = Command::new("valgrind").arg("--version").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs a path under callgrind.
pub fn count(path: Path) -> Result<Counted, GuardError> {
    let failed = |said: String| GuardError::Valgrind { path: path.name(), said };
    let own = env::current_exe().map_err(|error| failed(error.to_string()))?;
    let folder = tempfile::tempdir().map_err(|error| failed(error.to_string()))?;
    let file = folder.path().join("profile");
    // What the environment holds lies on the stack and moves it, and some of it changes what the C library does.
    let kept = ["PATH", "VALGRIND_LIB"].into_iter().filter_map(|name| Some((name, env::var_os(name)?)));
    let output = Command::new("valgrind")
        .env_clear()
        .envs(kept)
        .args(["--tool=callgrind", "--quiet", "--collect-bus=yes", "--collect-systime=yes"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(own)
        .args(["--only-run", path.name()])
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let profile = fs::read_to_string(&file).map_err(|error| failed(error.to_string()))?;
    let total = Totals::of(&profile).map_err(|what| GuardError::Profile { path: path.name(), what })?;
    let per_operation = |count: u64| count as f64 / (ROUNDS * path.operations()) as f64;
    Ok(Counted {
        counts: Counts {
            instructions: per_operation(total.instructions),
            locked: per_operation(total.locked),
            allocations: per_operation(total.allocations),
            system_calls: per_operation(total.system_calls),
        },
        processor: String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    })
}

/// Of all rounds of a path.
#[derive(Debug, Default, PartialEq, Eq)]
struct Totals {
    instructions: u64,
    /// Instructions that lock the bus, which all read-modify-write atomics do.
    locked: u64,
    allocations: u64,
    system_calls: u64,
}

impl Totals {
    fn of(profile: &str) -> Result<Self, &'static str> {
        let field = |name: &str| profile.lines().find_map(|line| line.strip_prefix(name));
        let events: Vec<&str> = field("events:").ok_or("no events")?.split_whitespace().collect();
        let totals: Vec<&str> = field("totals:").ok_or("no totals")?.split_whitespace().collect();
        let total = |event: &str, must: bool| {
            let place = events.iter().position(|found| *found == event);
            match place.map(|place| totals.get(place)) {
                // Zeros at the end are left out.
                Some(Some(count)) => count.parse().map_err(|_| "a total is no number"),
                Some(None) => Ok(0),
                None if must => Err("an event is missing"),
                None => Ok(0),
            }
        };
        let instructions = total("Ir", true)?;
        if instructions == 0 {
            return Err("nothing was counted: the function that is counted was not found");
        }
        Ok(Self {
            instructions,
            locked: total("Ge", true)?,
            system_calls: total("sysCount", true)?,
            allocations: calls_of(profile, &ALLOCATORS),
        })
    }
}

/// How often functions of these names were called. A name stands behind its number where it comes first, and only the
/// number afterwards.
fn calls_of(profile: &str, names: &[&str]) -> u64 {
    let mut known: BTreeMap<&str, &str> = BTreeMap::new();
    let (mut called, mut calls) = ("", 0);
    for line in profile.lines() {
        let (is_callee, rest) = match (line.strip_prefix("cfn="), line.strip_prefix("fn=")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => {
                if let Some(count) = line.strip_prefix("calls=").filter(|_| names.contains(&called)) {
                    calls +=
                        count.split_whitespace().next().and_then(|it| it.parse::<u64>().ok()).unwrap_or(0);
                }
                continue;
            }
        };
        let (number, name) = rest.split_once(' ').unwrap_or((rest, ""));
        if !name.is_empty() {
            known.insert(number, name);
        }
        if is_callee {
            called = known.get(number).copied().unwrap_or_default();
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::Totals;

    const PROFILE: &str = "version: 1\nevents: Ir Ge sysCount sysTime\n\nfn=(1) counted_part\n1 10 2\n\
        cfn=(2) malloc\ncalls=3 0\n1 5\ncfn=(3) memcpy\ncalls=7 0\n1 9\n\
        fn=(4) another\ncfn=(2)\ncalls=4 0\n1 5\ntotals: 24 2\n";

    #[test]
    fn totals_are_by_event_and_allocations_by_calls() {
        let expected = Totals { instructions: 24, locked: 2, allocations: 7, system_calls: 0 };
        assert_eq!(Totals::of(PROFILE), Ok(expected));
    }

    #[test]
    fn a_profile_without_instructions_is_no_count_of_zero() {
        assert!(Totals::of(&PROFILE.replace("totals: 24 2", "totals: 0")).is_err());
        assert!(Totals::of("").is_err());
    }
}
