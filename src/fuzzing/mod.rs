//! Bodies of the fuzz targets: what must hold for any input at all, as ordinary functions that panic where it does
//! not. `fuzz/` runs them under libFuzzer, `tests/fuzz_replay.rs` over the kept corpus and random mutations of it.
//!
//! Not part of the library: behind the feature `fuzzing`, for this project's own tests.

mod format;
mod image;
mod input;
mod manifest;
mod mutation;
mod text;

pub use mutation::{Random, mutate};

/// Most bytes of an input that a target looks at.
pub const INPUT_BYTES_MAX: usize = 128 << 10;

/// What can be fuzzed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A superblock copy, and the choice among four.
    Superblock,
    /// An extent's header slot.
    ExtentHeader,
    /// A frame: header and records.
    Frame,
    /// A record, and an address.
    Record,
    /// The list of a batch, or of a large record.
    Manifest,
    /// A store's device: recovery, opening, reads, appends.
    Image,
    /// A TOML profile.
    Profile,
    /// A command line.
    CommandLine,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Superblock,
        Self::ExtentHeader,
        Self::Frame,
        Self::Record,
        Self::Manifest,
        Self::Image,
        Self::Profile,
        Self::CommandLine,
    ];

    /// Its name: of the folder of its corpus, and of the program in `fuzz/`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Superblock => "superblock",
            Self::ExtentHeader => "extent_header",
            Self::Frame => "frame",
            Self::Record => "record",
            Self::Manifest => "manifest",
            Self::Image => "image",
            Self::Profile => "profile",
            Self::CommandLine => "command_line",
        }
    }

    /// Runs one input.
    ///
    /// # Panics
    /// If something does not hold: that is the finding.
    pub fn run(self, input: &[u8]) {
        let input = input.get(..INPUT_BYTES_MAX).unwrap_or(input);
        match self {
            Self::Superblock => format::superblock(input),
            Self::ExtentHeader => format::extent_header(input),
            Self::Frame => format::frame(input),
            Self::Record => format::record(input),
            Self::Manifest => manifest::run(input),
            Self::Image => image::run(input),
            Self::Profile => text::profile(input),
            Self::CommandLine => text::command_line(input),
        }
    }

    /// Inputs to begin with.
    #[must_use]
    pub fn seeds(self) -> Vec<Vec<u8>> {
        match self {
            Self::Superblock | Self::ExtentHeader | Self::Frame | Self::Record => format::seeds(self),
            Self::Manifest => manifest::seeds(),
            Self::Image => image::seeds(),
            Self::Profile => text::profile_seeds(),
            Self::CommandLine => text::command_line_seeds(),
        }
    }
}
