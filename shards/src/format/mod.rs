//! The device format. `docs/FORMAT.md` describes it; this module encodes, decodes and checks it, and knows nothing
//! of I/O.
