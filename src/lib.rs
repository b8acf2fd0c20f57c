//! corelog: an embeddable, thread-per-core, log-structured storage engine for Linux.
#![forbid(unsafe_code)]
