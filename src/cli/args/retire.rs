//! What `retire` is told.

use super::{DeviceOptions, values::parse_shard};
use clap::ValueHint;
use corelog_shards::ids::ShardId;
use std::path::PathBuf;

/// `corelog retire`.
#[derive(Debug, Clone, PartialEq, clap::Args)]
pub struct Retire {
    /// The store.
    #[arg(value_hint = ValueHint::AnyPath)]
    pub store: PathBuf,
    /// The shard.
    #[arg(long, value_name = "N", value_parser = parse_shard)]
    pub shard: ShardId,
    /// Move its records, in their order, behind those of the next shard that takes appends, and give its extents back. Their
    /// addresses change. If it is interrupted, run it again: a few records may be there twice then.
    #[arg(long)]
    pub drain: bool,
    /// With --drain: write the old and the new address of each record, a pair a line, to this file.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "drain")]
    pub map: Option<PathBuf>,
    /// How the device is used.
    #[command(flatten)]
    pub device: DeviceOptions,
    /// Print as JSON.
    #[arg(long)]
    pub json: bool,
}
