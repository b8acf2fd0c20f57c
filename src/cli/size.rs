//! Sizes as people write them: `8GiB`, `4k`, `1_000`, `1.5M`.
//!
//! `k`, `Ki` and `KiB` are all 1024 bytes, as the sizes of a store are powers of two; only with a bare `B`, as in
//! `kB`, are they 1000. Case does not matter. A fraction has to come out as whole bytes: a size is exact or refused.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

/// A text that is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// There is no number in front.
    #[error("a size begins with a number, as in 8GiB, 4k or 1_000")]
    NoNumber,
    /// The number is not one.
    #[error("{0:?} is not a number")]
    Number(String),
    /// The unit is not known.
    #[error("{0:?} is not a unit; there are B, k, M, G, T, P (of 1024) and kB, MB, GB, TB, PB (of 1000)")]
    Unit(String),
    /// The fraction leaves a part of a byte.
    #[error("{0} is not a whole number of bytes")]
    Fraction(String),
    /// It does not fit in 64 bits.
    #[error("{0} is more than 2^64 bytes")]
    TooLarge(String),
}

const PREFIXES: [char; 5] = ['k', 'm', 'g', 't', 'p'];
const BINARY_NAMES: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
/// Digits of a fraction that are looked at: more cannot make whole bytes of the largest unit, 1024^5.
const FRACTION_DIGITS_MAX: usize = 18;

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let text = text.trim();
        let end = text.find(|c: char| !matches!(c, '0'..='9' | '_' | '.')).unwrap_or(text.len());
        let (number, unit) = (&text[..end], text[end..].trim_start());
        if number.is_empty() {
            return Err(SizeError::NoNumber);
        }
        let unit_bytes = u128::from(unit_bytes(unit).ok_or_else(|| SizeError::Unit(unit.to_owned()))?);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let not_a_number = || SizeError::Number(number.to_owned());
        let too_large = || SizeError::TooLarge(text.to_owned());
        let whole = digits(whole).ok_or_else(not_a_number)?.parse::<u64>().map_err(|_| too_large())?;
        let fraction = digits(fraction).ok_or_else(not_a_number)?;
        let part =
            fraction_bytes(&fraction, unit_bytes).ok_or_else(|| SizeError::Fraction(text.to_owned()))?;
        u64::try_from(u128::from(whole) * unit_bytes + part).map(Self).map_err(|_| too_large())
    }
}

/// The digits without the separators; `None` unless there is one, at the start, and nothing else.
fn digits(text: &str) -> Option<String> {
    let valid = text.starts_with(|c: char| c.is_ascii_digit()) && !text.ends_with('_') && !text.contains('.');
    valid.then(|| text.replace('_', ""))
}

fn fraction_bytes(digits: &str, unit_bytes: u128) -> Option<u128> {
    let digits = digits.trim_end_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    if digits.len() > FRACTION_DIGITS_MAX {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(digits.len()).ok()?);
    let scaled = digits.parse::<u128>().ok()? * unit_bytes;
    scaled.is_multiple_of(scale).then(|| scaled / scale)
}

fn unit_bytes(unit: &str) -> Option<u64> {
    let unit = unit.to_ascii_lowercase();
    let mut letters = unit.chars();
    let Some(prefix) = letters.next() else { return Some(1) };
    if prefix == 'b' && letters.as_str().is_empty() {
        return Some(1);
    }
    let power = u32::try_from(PREFIXES.iter().position(|known| *known == prefix)?).ok()? + 1;
    match letters.as_str() {
        "" | "i" | "ib" => Some(1024_u64.pow(power)),
        "b" => Some(1000_u64.pow(power)),
        _ => None,
    }
}

/// Exact: the largest unit that divides it, so that what is printed can be given back.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let power = (self.0.trailing_zeros() / 10).min(5);
        match (self.0, power.checked_sub(1).and_then(|index| BINARY_NAMES.get(index as usize))) {
            (1.., Some(name)) => write!(f, "{}{name}", self.0 >> (10 * power)),
            _ => write!(f, "{}B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::{ByteSize, SizeError};

    fn parse(text: &str) -> Result<u64, SizeError> {
        text.parse::<ByteSize>().map(|size| size.0)
    }

    #[test]
    fn sizes_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("1_000", 1000),
            ("4096b", 4096),
            ("4k", 4096),
            ("4K", 4096),
            ("4Ki", 4096),
            ("4KiB", 4096),
            ("4 kib", 4096),
            ("4kB", 4000),
            ("8GiB", 8 << 30),
            ("8GB", 8_000_000_000),
            ("1.5M", 3 << 19),
            ("0.5k", 512),
            ("1.50g", 3 << 29),
            (" 2T ", 2 << 40),
            ("1_024.0P", 1 << 60),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused_by_name() {
        let text = str::to_owned;
        for (wrong, error) in [
            ("", SizeError::NoNumber),
            ("GiB", SizeError::NoNumber),
            ("-1", SizeError::NoNumber),
            ("_1", SizeError::Number(text("_1"))),
            ("1_", SizeError::Number(text("1_"))),
            (".5k", SizeError::Number(text(".5"))),
            ("1.", SizeError::Number(text("1."))),
            ("1.2.3", SizeError::Number(text("1.2.3"))),
            ("1e3", SizeError::Unit(text("e3"))),
            ("0x10", SizeError::Unit(text("x10"))),
            ("4kk", SizeError::Unit(text("kk"))),
            ("4bi", SizeError::Unit(text("bi"))),
            ("1 000", SizeError::Unit(text("000"))),
            ("4µ", SizeError::Unit(text("µ"))),
            ("1.3k", SizeError::Fraction(text("1.3k"))),
            ("0.5", SizeError::Fraction(text("0.5"))),
            ("1.0000000000000000000001P", SizeError::Fraction(text("1.0000000000000000000001P"))),
            ("18446744073709551616", SizeError::TooLarge(text("18446744073709551616"))),
            ("16384P", SizeError::TooLarge(text("16384P"))),
        ] {
            assert_eq!(parse(wrong), Err(error), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_printed_can_be_given_back() {
        let around_powers = (0..64).flat_map(|bit| [1_u64 << bit, (1 << bit) - 1, 3 << bit]);
        for bytes in around_powers.chain([0, 1000, u64::MAX]) {
            let printed = ByteSize(bytes).to_string();
            assert_eq!(parse(&printed), Ok(bytes), "{printed}");
        }
        assert_eq!(ByteSize(64 << 20).to_string(), "64MiB");
        assert_eq!(ByteSize(1000).to_string(), "1000B");
    }
}
