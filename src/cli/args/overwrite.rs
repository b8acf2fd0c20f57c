//! What `bench --workload overwrite` is told.

use clap::ValueEnum;
use corelog::CleaningPolicy;

/// Options of the overwrite workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args)]
pub struct OverwriteOptions {
    /// Overwrite: how much of the store is wanted, in percent of its extents.
    #[arg(long, value_name = "PERCENT", default_value = "70")]
    #[arg(value_parser = clap::value_parser!(u8).range(5..=85))]
    pub live: u8,
    /// Overwrite: which values are written over.
    #[arg(long, value_enum, default_value_t = Skew::Uniform)]
    pub skew: Skew,
    /// Overwrite: which extent is cleaned first.
    #[arg(long, value_enum, default_value_t = Policy::CostBenefit)]
    pub policy: Policy,
    /// Overwrite: copy what is cleaned to shards of its own.
    #[arg(long)]
    pub cold_shards: bool,
}

/// Which values are written over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Skew {
    /// Each as often as any other.
    Uniform,
    /// Nine of ten writes go to a tenth of them.
    NineToOne,
}

/// Which extent is cleaned first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// The one with the fewest live bytes.
    Greedy,
    /// By live share and age.
    CostBenefit,
    /// The oldest.
    Fifo,
}

impl From<Policy> for CleaningPolicy {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Greedy => Self::Greedy,
            Policy::CostBenefit => Self::CostBenefit,
            Policy::Fifo => Self::Fifo,
        }
    }
}
