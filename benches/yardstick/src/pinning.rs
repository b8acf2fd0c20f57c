//! Which thread runs on which core.

use crate::error::{RunError, bounded};
use core_affinity::CoreId;
use corelog_shards::limits::CORES_MAX;

/// Where the threads of a run are.
///
/// It matters for a single waiting thread more than one would think: on the core that takes the device's
/// interrupt a completion needs no wake-up across cores, and that shows in the latency of a single read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Pinning {
    /// Where the kernel puts them.
    Free,
    /// A core for each thread, counted from this one among the cores that the process may use, around the end.
    From(usize),
}

impl Pinning {
    /// A core for each of `threads` threads, or nothing for each.
    pub(crate) fn cores(self, threads: usize) -> Result<Vec<Option<CoreId>>, RunError> {
        bounded("threads", threads as u64, 1..=u64::from(CORES_MAX))?;
        let Self::From(first) = self else {
            return Ok(vec![None; threads]);
        };
        let usable = core_affinity::get_core_ids().unwrap_or_default();
        if usable.len() < threads {
            return Err(RunError::TooFewCores { asked: threads, usable: usable.len() });
        }
        bounded("first core", first as u64, 0..=usable.len() as u64 - 1)?;
        Ok(usable.into_iter().cycle().skip(first).take(threads).map(Some).collect())
    }
}

/// Moves the calling thread to its core, if it has one.
pub(crate) fn pin(core: Option<CoreId>) -> Result<(), RunError> {
    match core {
        Some(core) if !core_affinity::set_for_current(core) => Err(RunError::Pin { core: core.id }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn cores_are_counted_from_the_first_around_the_end() {
        let usable = core_affinity::get_core_ids().unwrap();
        let last = usable.len() - 1;
        let chosen: Vec<_> = Pinning::From(last).cores(usable.len()).unwrap().into_iter().flatten().collect();
        assert_eq!(chosen[0], usable[last]);
        assert_eq!(chosen.last(), usable[..last].last().or(usable.last()));
        assert!(matches!(Pinning::From(0).cores(usable.len() + 1), Err(RunError::TooFewCores { .. })));
        assert!(matches!(Pinning::From(last + 1).cores(1), Err(RunError::Option { name: "first core", .. })));
        assert_eq!(Pinning::Free.cores(3).unwrap(), [None; 3]);
    }
}
