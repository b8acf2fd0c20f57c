#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod image;
mod scanning;
mod skipping;
