//! Why there are no counts.

use corelog_shards::{
    failure::ShardFailure, null_core::NullCoreError, reads::ReadError, shard::ShardRefusal,
};
use std::{io, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    #[error("the counts of a build without optimisation mean nothing; run it with --release")]
    NotOptimised,
    #[error("there is no path {name:?}")]
    NoSuchPath { name: String },
    #[error("{}: {error}", path.display())]
    Host { path: PathBuf, error: io::Error },
    #[error("{} is not a file of counts: {error}", path.display())]
    Kept { path: PathBuf, error: Box<toml::de::Error> },
    #[error("the counts cannot be written: {0}")]
    Unwritable(#[from] toml::ser::Error),
    #[error("valgrind could not be run on {path}: {said}")]
    Valgrind { path: &'static str, said: String },
    #[error("callgrind's profile of {path} is not understood: {what}")]
    Profile { path: &'static str, what: &'static str },
    #[error(transparent)]
    NullCore(#[from] NullCoreError),
    #[error(transparent)]
    Refused(#[from] ShardRefusal),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Shard(#[from] ShardFailure),
    #[error("{path} did not do what it is to count: {what}")]
    Astray { path: &'static str, what: &'static str },
}
