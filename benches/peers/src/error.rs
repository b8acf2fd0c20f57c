//! What can go wrong in a comparison.

use crate::{engine::EngineName, payload::RecordId};
use std::{io, path::PathBuf};

/// Whatever an engine calls an error.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Why a run ended without a figure.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The engine refused something.
    #[error("{engine}: {fault}")]
    Engine {
        /// Which.
        engine: EngineName,
        /// What it said.
        fault: Fault,
    },
    /// A record that was acknowledged was not there, or had other bytes.
    #[error("{engine} does not give back record {id}")]
    Lost {
        /// Which engine.
        engine: EngineName,
        /// Which record.
        id: RecordId,
    },
    /// A thread of a workload panicked.
    #[error("a thread of {engine} panicked")]
    Died {
        /// Which engine.
        engine: EngineName,
    },
    /// The process that was to be killed ended by itself, or took too long.
    #[error("the process that fills {engine} ended with {status:?} before it was killed")]
    Filler {
        /// Which engine.
        engine: EngineName,
        /// How it ended; `None`: it took too long.
        status: Option<std::process::ExitStatus>,
    },
    /// The host refused something.
    #[error("{path}: {error}")]
    Host {
        /// Of what.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// A report could not be written or read.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A plot could not be drawn.
    #[error("plot: {0}")]
    Plot(Fault),
}

impl PeerError {
    /// Names the engine whose error it is.
    pub fn of(engine: EngineName) -> impl Fn(Fault) -> Self {
        move |fault| Self::Engine { engine, fault }
    }

    /// Names the path whose error it is.
    pub fn host(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::Host { path, error }
    }
}
