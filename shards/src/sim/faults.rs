//! What can go wrong in a case.

use super::random::Random;
use std::str::FromStr;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// Completions come in any order.
    Reorder,
    /// Reads and writes transfer less than asked.
    Short,
    /// Writes fail.
    WriteError,
    /// Reads fail.
    ReadError,
    /// Syncs fail, and the device forgets what it held in its cache.
    SyncError,
    /// Some operations take very long.
    Slow,
    /// A crash tears writes, at sectors or pages.
    Tear,
    /// Operations that were in flight when the process died land later.
    Late,
    /// Writes go to another place.
    Misdirected,
    /// Bits flip at rest.
    Flip,
    /// Writes are acknowledged and never land.
    Lost,
    /// Syncs succeed and do nothing.
    LyingSync,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Reorder,
        Self::Short,
        Self::WriteError,
        Self::ReadError,
        Self::SyncError,
        Self::Slow,
        Self::Tear,
        Self::Late,
        Self::Misdirected,
        Self::Flip,
        Self::Lost,
        Self::LyingSync,
    ];

    /// As written on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reorder => "reorder",
            Self::Short => "short",
            Self::WriteError => "write-error",
            Self::ReadError => "read-error",
            Self::SyncError => "sync-error",
            Self::Slow => "slow",
            Self::Tear => "tear",
            Self::Late => "late",
            Self::Misdirected => "misdirected",
            Self::Flip => "flip",
            Self::Lost => "lost",
            Self::LyingSync => "lying-sync",
        }
    }
}

/// A set of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Faults(u16);

/// The text names no set of faults.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no kind of fault; there are all, none, and a list of: {list}", list = names())]
pub struct UnknownFault(String);

fn names() -> String {
    Fault::ALL.map(Fault::name).join(",")
}

impl Faults {
    /// No fault but crashes.
    pub const NONE: Self = Self(0);
    /// Every kind.
    pub const ALL: Self = Self((1 << Fault::ALL.len()) - 1);

    /// True if `fault` is among them.
    #[must_use]
    pub const fn has(self, fault: Fault) -> bool {
        self.0 & 1 << fault as u16 != 0
    }

    /// These and `fault`.
    #[must_use]
    pub const fn with(self, fault: Fault) -> Self {
        Self(self.0 | 1 << fault as u16)
    }

    /// These, but not `fault`.
    #[must_use]
    pub const fn without(self, fault: Fault) -> Self {
        Self(self.0 & !(1 << fault as u16))
    }

    /// Each with a probability of a third.
    pub(super) fn draw(self, random: &mut Random) -> Self {
        let drawn = Fault::ALL.into_iter().filter(|fault| random.one_in(3) && self.has(*fault));
        drawn.fold(Self::NONE, Self::with)
    }
}

impl FromStr for Faults {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        match text {
            "all" => return Ok(Self::ALL),
            "none" => return Ok(Self::NONE),
            _ => {}
        }
        text.split(',').try_fold(Self::NONE, |faults, name| {
            let fault = Fault::ALL.into_iter().find(|fault| fault.name() == name);
            fault.map(|fault| faults.with(fault)).ok_or_else(|| UnknownFault(name.to_owned()))
        })
    }
}

impl std::fmt::Display for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> =
            Fault::ALL.into_iter().filter(|fault| self.has(*fault)).map(Fault::name).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(","))
    }
}
