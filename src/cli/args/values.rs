//! Values of the command line that are more than a number or a path.

use clap::ValueEnum;
use corelog_shards::{ids::ShardId, limits::SHARDS_MAX};
use std::{convert::Infallible, num::NonZeroUsize, path::PathBuf, str::FromStr, time::Duration};

/// The longest that one workload of `bench` may take, in seconds: a day.
const SECONDS_MAX: f64 = 86_400.0;

/// Where one record ends and the next begins, in a stream of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Framing {
    /// A line feed after each record, which is not part of it.
    Line,
    /// Nothing: a whole input is one record, and printed records follow each other directly.
    None,
    /// The record's length in bytes, 32 bits little endian, in front of it.
    U32le,
}

/// The part of a record that decides its shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPart {
    /// All of it.
    Record,
    /// Its first bytes, this many; all of it if it is shorter.
    Prefix(NonZeroUsize),
    /// Its word with this number, counted from 1; nothing if it has fewer.
    Field(NonZeroUsize),
    /// Not the record: this text.
    Text(String),
}

impl KeyPart {
    /// The key of `record`.
    #[must_use]
    pub fn of<'a>(&'a self, record: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Record => record,
            Self::Prefix(bytes) => record.get(..bytes.get()).unwrap_or(record),
            Self::Field(number) => record
                .split(u8::is_ascii_whitespace)
                .filter(|word| !word.is_empty())
                .nth(number.get() - 1)
                .unwrap_or_default(),
            Self::Text(text) => text.as_bytes(),
        }
    }
}

/// A value of the command line that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not a key.
    #[error("a key is `record`, `prefix:N`, `field:N` (N from 1) or `text:T`")]
    Key,
    /// Not a shard's number.
    #[error("a shard is a number from 0 to {}", SHARDS_MAX - 1)]
    Shard,
    /// Not a time.
    #[error("a time is a number of seconds above 0 and up to {SECONDS_MAX}, such as 0.5")]
    Seconds,
}

pub(super) fn parse_key(text: &str) -> Result<KeyPart, ValueError> {
    let (kind, value) = text.split_once(':').unwrap_or((text, ""));
    let number = || value.parse().map_err(|_| ValueError::Key);
    match kind {
        "record" if text == kind => Ok(KeyPart::Record),
        "prefix" => number().map(KeyPart::Prefix),
        "field" => number().map(KeyPart::Field),
        "text" if text != kind => Ok(KeyPart::Text(value.to_owned())),
        _ => Err(ValueError::Key),
    }
}

pub(super) fn parse_shard(text: &str) -> Result<ShardId, ValueError> {
    let shard: u16 = text.parse().map_err(|_| ValueError::Shard)?;
    if u32::from(shard) < SHARDS_MAX { Ok(ShardId(shard)) } else { Err(ValueError::Shard) }
}

/// A time, given in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds(pub Duration);

pub(super) fn parse_seconds(text: &str) -> Result<Seconds, ValueError> {
    let seconds: f64 = text.parse().map_err(|_| ValueError::Seconds)?;
    if !(seconds > 0.0 && seconds <= SECONDS_MAX) {
        return Err(ValueError::Seconds);
    }
    Duration::try_from_secs_f64(seconds).map(Seconds).map_err(|_| ValueError::Seconds)
}

/// Where `bench` writes its JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonTarget {
    /// To standard output, in place of the table.
    Standard,
    /// To this file, beside the table.
    File(PathBuf),
}

impl FromStr for JsonTarget {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(if text == "-" { Self::Standard } else { Self::File(PathBuf::from(text)) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::{ValueError, parse_key, parse_seconds, parse_shard};
    use corelog_shards::ids::ShardId;
    use std::time::Duration;

    #[test]
    fn a_key_is_a_part_of_the_record() {
        let key = |part: &str, record: &str| {
            String::from_utf8(parse_key(part).unwrap().of(record.as_bytes()).to_vec()).unwrap()
        };
        assert_eq!(key("record", "a b"), "a b");
        assert_eq!(key("prefix:2", "abc"), "ab");
        assert_eq!(key("prefix:9", "abc"), "abc");
        assert_eq!(key("field:2", " one  two three"), "two");
        assert_eq!(key("field:4", "one two three"), "");
        assert_eq!(key("text:a:b", "anything"), "a:b");
        assert_eq!(key("text:", "anything"), "");
        for wrong in
            ["", "records", "record:1", "prefix", "prefix:", "prefix:0", "prefix:-1", "field:x", "text"]
        {
            assert_eq!(parse_key(wrong), Err(ValueError::Key), "{wrong:?}");
        }
    }

    #[test]
    fn shards_and_times_have_bounds() {
        assert_eq!(parse_shard("1023"), Ok(ShardId(1023)));
        for wrong in ["1024", "-1", "65536", "x", ""] {
            assert_eq!(parse_shard(wrong), Err(ValueError::Shard), "{wrong:?}");
        }
        assert_eq!(parse_seconds("0.5").unwrap().0, Duration::from_millis(500));
        for wrong in ["0", "-1", "nan", "inf", "1e9", "", "3s"] {
            assert_eq!(parse_seconds(wrong), Err(ValueError::Seconds), "{wrong:?}");
        }
    }
}
