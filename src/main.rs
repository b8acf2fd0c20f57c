//! The `corelog` program.
fn main() {}
