//! What a workload needs from an engine. The workloads are generic over it, so that a call costs no engine more than a call.

use crate::{
    error::{Fault, PeerError},
    payload::RecordId,
    workloads::read::{InFlight, ReadRun},
};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::{fmt, path::Path};

/// The engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineName {
    /// Ours.
    Corelog,
    /// TiKV's log engine.
    RaftEngine,
    /// A write-ahead log.
    Okaywal,
    /// A commit log.
    Commitlog,
    /// A log of one file.
    Seglog,
    /// An LSM tree in Rust.
    Fjall,
    /// A tree over a log.
    Sled,
    /// A B+tree that is copied on write.
    Redb,
    /// The LSM tree in C++.
    #[cfg(feature = "rocksdb")]
    Rocksdb,
}

impl EngineName {
    /// Why its acks are not durable, where its source says so.
    pub const fn not_durable(self) -> Option<&'static str> {
        match self {
            Self::Sled => Some("flush() ends in sync_file_range, which sends the device no flush"),
            _ => None,
        }
    }
}

impl fmt::Display for EngineName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Corelog => "corelog",
            Self::RaftEngine => "raft-engine",
            Self::Okaywal => "okaywal",
            Self::Commitlog => "commitlog",
            Self::Seglog => "seglog",
            Self::Fjall => "fjall",
            Self::Sled => "sled",
            Self::Redb => "redb",
            #[cfg(feature = "rocksdb")]
            Self::Rocksdb => "RocksDB",
        })
    }
}

/// Who appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// Each writer is a thread that gives its time to the engine, and batches for all who wait.
    Driven,
    /// Each writer is a thread of somebody else's that appends a record and waits for it.
    Independent,
}

/// Where a store lies and what it is opened for.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'folder> {
    /// A folder of the store's own. Empty: make the store.
    pub folder: &'folder Path,
    /// Writers that there will be.
    pub writers: usize,
    /// Who they are.
    pub load: Load,
    /// Payload of all writers, at most.
    pub payload_bytes: u64,
    /// Records of all writers, at most.
    pub records: u64,
}

impl Ground<'_> {
    /// Room that the payload takes with `overhead` bytes a record.
    pub const fn room(&self, overhead: u64) -> u64 {
        self.payload_bytes + self.records * overhead
    }

    /// Whether there is no store yet.
    pub fn is_new(&self) -> Result<bool, std::io::Error> {
        Ok(std::fs::read_dir(self.folder)?.next().is_none())
    }
}

/// Where an engine put a record, in its own words; a key-value engine needs none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Which log or file.
    pub log: u64,
    /// Where in it.
    pub at: u64,
}

/// An open store of an engine.
pub trait Engine: Sized + Send + Sync {
    /// Which.
    const NAME: EngineName;
    /// False: the library takes one writer, so that each of several gets a log of its own, and callers that do not know of
    /// each other cannot share one.
    const SHARES_LOG: bool = true;
    /// What a thread appends through.
    type Writer<'engine>: Writer
    where
        Self: 'engine;
    /// What a thread reads through.
    type Reader<'engine>: Reader
    where
        Self: 'engine;

    /// Makes or opens the store.
    fn open(ground: &Ground<'_>) -> Result<Self, Fault>;

    /// The writer `number`, on the thread that will use it. All of the ground's writers begin at about the same time.
    fn writer(&self, number: u16) -> Result<Self::Writer<'_>, Fault>;

    /// A reader, on the thread that will use it.
    fn reader(&self) -> Result<Self::Reader<'_>, Fault>;

    /// Brings what is written to where it stays, as far as the engine has such a thing.
    fn settle(&self) -> Result<(), Fault> {
        Ok(())
    }

    /// Closes the store, in the engine's orderly way.
    fn close(self) -> Result<(), Fault>;

    /// Keeps reads under way: by default as many threads as reads.
    fn read_in_flight(&self, work: &InFlight<'_>) -> Result<ReadRun, PeerError> {
        crate::workloads::read::on_threads(self, work)
    }
}

/// Appends records.
pub trait Writer {
    /// Appends a record; it need not be anywhere before [`Writer::sync`]. Ids ascend by one.
    fn append(&mut self, id: RecordId, record: &[u8]) -> Result<Place, Fault>;

    /// Returns when everything that this writer appended is durable.
    fn sync(&mut self) -> Result<(), Fault>;
}

/// Reads records.
pub trait Reader {
    /// Puts the record into `record`, whatever that held. False: it is not there.
    fn read(&mut self, id: RecordId, place: Place, record: &mut Vec<u8>) -> Result<bool, Fault>;
}
