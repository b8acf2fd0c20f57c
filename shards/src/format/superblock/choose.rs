//! Which superblock copy counts.

use super::{Superblock, SuperblockError};
use crate::ids::{DeviceIndex, StoreId};

/// A copy of no use while others are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadCopy {
    /// Its place in the list given to [`choose`].
    pub index: usize,
    /// Why.
    pub error: SuperblockError,
}

/// The superblock that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The valid copy with the highest sequence.
    pub superblock: Superblock,
    /// Its place in the list.
    pub index: usize,
    /// Copies that are damaged or missing. After a crash while one side was written, that side's may be.
    pub bad: Vec<BadCopy>,
}

/// No copy counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SuperblockChoiceError {
    /// All zeros: format it.
    #[error("this was never formatted as a store, or the formatting was interrupted; format it")]
    NotFormatted,
    /// There is something else.
    #[error("this is not a store; formatting it would destroy what it holds")]
    NotAStore,
    /// There was a store, and no copy of its superblock can be read.
    #[error("no copy of the superblock can be read; the last one: {error}")]
    NoValidCopy {
        /// What is wrong with the last damaged copy.
        error: SuperblockError,
    },
    /// A later program wrote it.
    #[error("the store has format version {found}; this program knows versions up to {supported}")]
    NewerVersion {
        /// Stored.
        found: u16,
        /// The newest known.
        supported: u16,
    },
    /// A feature that has to be known is not.
    #[error("the store uses incompatible feature {bit}, which this program does not know; use a later one")]
    UnknownFeature {
        /// Number of the bit.
        bit: u32,
    },
    /// Valid copies of two stores: devices were mixed up, or a device was formatted over.
    #[error("the superblock copies are of two stores, {one} and {other}")]
    TwoStores {
        /// One of them.
        one: StoreId,
        /// The other.
        other: StoreId,
    },
    /// Two copies have one sequence and say different things.
    #[error("two superblock copies have sequence {sequence} and differ")]
    Contradiction {
        /// Of both.
        sequence: u64,
    },
}

/// Picks from the copies of one device, or of several: the newest valid one.
///
/// A copy of a later version, or with an unknown incompatible feature, ends the search whatever the others say: a
/// later program owns this store, and an older side of it is not its state.
pub fn choose(copies: &[Result<Superblock, SuperblockError>]) -> Result<Chosen, SuperblockChoiceError> {
    let mut best: Option<(usize, &Superblock)> = None;
    let mut bad = Vec::new();
    for (index, copy) in copies.iter().enumerate() {
        match copy {
            Ok(superblock) => best = Some(newer(best, (index, superblock))?),
            Err(SuperblockError::NewerVersion { found, supported }) => {
                return Err(SuperblockChoiceError::NewerVersion { found: *found, supported: *supported });
            }
            Err(SuperblockError::UnknownFeature { bit }) => {
                return Err(SuperblockChoiceError::UnknownFeature { bit: *bit });
            }
            Err(error) => bad.push(BadCopy { index, error: *error }),
        }
    }
    match best {
        Some((index, superblock)) => Ok(Chosen { superblock: superblock.clone(), index, bad }),
        None => Err(why_none(&bad)),
    }
}

type Candidate<'a> = (usize, &'a Superblock);

fn newer<'a>(
    best: Option<Candidate<'a>>,
    next: Candidate<'a>,
) -> Result<Candidate<'a>, SuperblockChoiceError> {
    let Some((index, superblock)) = best else {
        return Ok(next);
    };
    if superblock.store != next.1.store {
        return Err(SuperblockChoiceError::TwoStores { one: superblock.store, other: next.1.store });
    }
    if superblock.sequence == next.1.sequence && !same_state(superblock, next.1) {
        return Err(SuperblockChoiceError::Contradiction { sequence: superblock.sequence });
    }
    Ok(if next.1.sequence > superblock.sequence { next } else { (index, superblock) })
}

/// Copies of one write differ in the device they are for, and in nothing else.
fn same_state(one: &Superblock, other: &Superblock) -> bool {
    let as_of_first = |superblock: &Superblock| Superblock { device: DeviceIndex(0), ..superblock.clone() };
    as_of_first(one) == as_of_first(other)
}

fn why_none(bad: &[BadCopy]) -> SuperblockChoiceError {
    let of_a_store = |copy: &&BadCopy| {
        !matches!(
            copy.error,
            SuperblockError::Absent | SuperblockError::NotASuperblock | SuperblockError::Truncated { .. }
        )
    };
    if let Some(damaged) = bad.iter().rfind(of_a_store) {
        return SuperblockChoiceError::NoValidCopy { error: damaged.error };
    }
    if bad.iter().any(|copy| copy.error == SuperblockError::NotASuperblock) {
        return SuperblockChoiceError::NotAStore;
    }
    SuperblockChoiceError::NotFormatted
}
