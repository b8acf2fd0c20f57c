//! The four workloads, generic over the engine.

pub mod durable;
pub mod ingest;
pub mod read;
pub mod reopen;

use crate::{
    engine::{Engine, Ground, Load, Place, Reader},
    error::PeerError,
    payload::{Payloads, RecordId},
};
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;

/// What all workloads of a run have in common.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where each store gets a folder of its own.
    pub folder: PathBuf,
    /// Payload of a log that is filled, and the most that a run appends.
    pub size: u64,
    /// The longest that a run by the clock lasts.
    pub time: Duration,
}

impl Setup {
    fn ground(&self) -> Result<TempDir, PeerError> {
        tempfile::Builder::new()
            .prefix("peer-")
            .tempdir_in(&self.folder)
            .map_err(PeerError::host(&self.folder))
    }
}

/// A record that is remembered, to be looked for later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Which.
    pub id: RecordId,
    /// Where the engine put it.
    pub place: Place,
}

/// Remembers one of so many records, and the last.
#[derive(Debug)]
struct Keeper {
    every: u64,
    /// Number of the next that is remembered anyway.
    next: u64,
    kept: Vec<Kept>,
    last: Option<Kept>,
}

impl Keeper {
    /// For a writer that appends `records` at most, of which `most` are to be remembered.
    fn new(records: u64, most: u64) -> Self {
        let every = records.div_ceil(most.max(1)).max(1);
        Self { every, next: 0, kept: Vec::with_capacity(most as usize + 1), last: None }
    }

    #[inline]
    fn keep(&mut self, id: RecordId, place: Place) {
        let kept = Kept { id, place };
        self.last = Some(kept);
        // No division: it would be a visible part of the fastest appends.
        if id.number == self.next {
            self.next += self.every;
            self.kept.push(kept);
        }
    }

    fn into_kept(mut self) -> Vec<Kept> {
        let last = self.last.filter(|last| self.kept.last() != Some(last));
        self.kept.extend(last);
        self.kept
    }
}

/// Opens the store as a later process would, and compares records with what was appended.
fn verify<E: Engine>(ground: &Ground<'_>, record_bytes: usize, kept: &[Kept]) -> Result<(), PeerError> {
    let of = PeerError::of(E::NAME);
    let engine = E::open(&Ground { load: Load::Independent, ..*ground }).map_err(&of)?;
    compare(&engine, record_bytes, kept)?;
    engine.close().map_err(&of)
}

fn compare<E: Engine>(engine: &E, record_bytes: usize, kept: &[Kept]) -> Result<(), PeerError> {
    let of = PeerError::of(E::NAME);
    let mut payloads = Payloads::new(record_bytes);
    let mut found = Vec::with_capacity(record_bytes);
    let mut reader = engine.reader().map_err(&of)?;
    for &Kept { id, place } in kept {
        if !reader.read(id, place, &mut found).map_err(&of)? || found != payloads.of(id) {
            return Err(PeerError::Lost { engine: E::NAME, id });
        }
    }
    Ok(())
}

/// Brings what other runs left in the page cache to the device, so that it is not this run that pays.
fn settle_host(folder: &Path) -> Result<(), PeerError> {
    let opened = std::fs::File::open(folder).map_err(PeerError::host(folder))?;
    rustix::fs::syncfs(opened).map_err(|errno| PeerError::host(folder)(errno.into()))
}

#[cfg(test)]
mod tests;
