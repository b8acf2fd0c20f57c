//! `corelog bench`.

use super::{args::Bench, exit::Exit, failure::Failure};

/// Runs the command.
pub fn run(_args: &Bench) -> Result<(), Failure> {
    Err(Failure::new(Exit::Failed, "this build has no benches"))
}
