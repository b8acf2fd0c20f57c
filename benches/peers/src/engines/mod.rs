//! One file per engine: how it is opened, and how its own documentation says that it is fastest. Why each option is what
//! it is stands in `docs/decisions/0021-peers.md`.

pub mod commitlog;
pub mod corelog;
pub mod fjall;
pub mod okaywal;
pub mod raft_engine;
pub mod redb;
#[cfg(feature = "rocksdb")]
pub mod rocksdb;
pub mod seglog;
pub mod sled;
