//! What the program's exit code says.

/// Exit codes; `--help` documents them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything was done.
    Done = 0,
    /// The store has damage, or what was read is not what was written.
    Damage = 1,
    /// The command line is wrong, or an option is out of its bounds. (clap uses the same code.)
    Usage = 2,
    /// A store or a file could not be opened, or reading or writing it failed.
    Failed = 3,
    /// The store, or the disk under it, is full. What was reported as appended is kept.
    Full = 4,
    /// Another process has the store.
    Locked = 5,
    /// An address has no record, or has none any more.
    NoRecord = 6,
}

/// The table for `--help`.
pub const HELP: &str = "\
Exit codes:
  0  everything was done
  1  damage: the store has some, or what was read is not what was written
  2  usage: the command line is wrong, or an option is out of its bounds
  3  failed: a store or file could not be opened, read or written
  4  full: the store or the disk; what was reported as appended is kept
  5  locked: another process has the store
  6  no record: an address has none, or none any more";

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::{Exit, HELP};

    #[test]
    fn help_lists_every_code_in_order() {
        let all =
            [Exit::Done, Exit::Damage, Exit::Usage, Exit::Failed, Exit::Full, Exit::Locked, Exit::NoRecord];
        let listed: Vec<&str> = HELP.lines().skip(1).collect();
        assert_eq!(listed.len(), all.len());
        for (exit, line) in all.into_iter().zip(listed) {
            assert!(line.starts_with(&format!("  {}  ", exit as u8)), "{exit:?}: {line}");
        }
    }
}
