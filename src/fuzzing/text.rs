//! What people write: profiles and command lines.

use super::input::Input;
use crate::{
    FormatOptions, Options,
    cli::{
        args::{Args, Command},
        format,
        size::ByteSize,
    },
};
use clap::Parser;
use corelog_shards::geometry::Geometry;

/// Most words of a command line.
const WORDS_MAX: usize = 64;

pub(super) fn profile(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(options) = toml::from_str::<Options>(text) {
        let geometry = Geometry::new(4096, 64 << 20).expect("sizes within the bounds");
        let is_sound = options.check(&geometry).is_ok();
        if is_sound {
            assert!(options.record_bytes_max(&geometry) < options.buffer_bytes_in(&geometry));
        }
        // TOML has no numbers above 2^63, so a profile came from one that can be written again.
        let written = toml::to_string(&options).expect("options that came from a profile");
        assert_eq!(toml::from_str::<Options>(&written).as_ref(), Ok(&options), "{written}");
    }
    if let Ok(options) = toml::from_str::<FormatOptions>(text) {
        let _any_answer = options.check(1);
    }
}

pub(super) fn profile_seeds() -> Vec<Vec<u8>> {
    let written = toml::to_string(&Options::default()).expect("the default options");
    let made = toml::to_string(&FormatOptions::sized(8 << 30)).expect("format options");
    let full = "cores = 3\nlinger = 500\nspin = 20\nsync = \"dsync\"\norder = \"serialised\"\nbackend = \"threads\"\n\
                append = \"routed\"\nstall = 9223372036854775807\nbuffers = 64\nbuffer-bytes = 8388608\n";
    [written.as_str(), &made, full, "buffers = 16", "[linger]", "cores = -1\n"].map(|it| it.into()).to_vec()
}

/// Words apart by line feeds, so that a word may have blanks.
pub(super) fn command_line(input: &[u8]) {
    let mut fields = Input::new(input);
    let _keeps_words_aligned = fields.u8();
    let text = String::from_utf8_lossy(fields.rest());
    let words = text.split('\n').take(WORDS_MAX);
    match Args::try_parse_from(std::iter::once("corelog").chain(words)) {
        Ok(args) => check_args(&args),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(size) = text.parse::<ByteSize>() {
        assert_eq!(size.to_string().parse(), Ok(size));
    }
}

fn check_args(args: &Args) {
    match &args.command {
        Command::Format(args) => {
            let _any_answer = format::options(args).check(1);
        }
        Command::Append(append) => {
            if let Some(key) = &append.route.key {
                let _any_answer = (key.of(b""), key.of(b"some words of a record"));
            }
        }
        Command::Bench(bench) => assert!(!bench.duration().is_zero()),
        _ => {}
    }
}

pub(super) fn command_line_seeds() -> Vec<Vec<u8>> {
    [
        " format\nx\n--size\n8GiB\n--shards\n2\n--extent\n1_024k\n--slot\n4KiB\n--sparse\n--force\n--json",
        " append\nx\n-\n--split\nu32le\n--key\nprefix:3\n--durability\nwritten\n--addresses\n--in-flight\n9",
        " append\nx\n--shard\n1023\n--cores\n2\n--sync\ndsync\n--backend\nthreads\n--profile\np",
        " cat\nx\n--shard\n0\n--from\n00000000deadbeef\n--follow\n--limit\n3\n--join\nnone",
        " read\nx\n00000000deadbeef\n0123456789abcdef",
        " verify\nx\n--json",
        " info\nx\n--extents",
        " bench\n--workload\nappend,read\n--seconds\n0.5\n--record\n1.5k\n--json",
        " 1.5GiB",
        " --help",
    ]
    .map(|it| it.into())
    .to_vec()
}
