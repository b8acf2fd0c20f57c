//! The `corelog` program: its command line, what it prints, how it ends. The commands themselves use the library only.

pub mod args;
pub mod exit;
pub mod output;
pub mod progress;
pub mod size;
