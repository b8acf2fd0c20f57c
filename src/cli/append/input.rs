//! Input as records: lines, length-prefixed records, or a file as a whole; of any length, in memory of a fixed size.

use crate::cli::args::Framing;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{AsFd, OwnedFd},
};
use std::{
    fs::File,
    io::{self, BufRead, Read},
    ops::Range,
    path::Path,
};

/// The least that is asked for at once.
const READ_BYTES_MIN: usize = 256 << 10;
/// Bytes of the length in front of a record.
const PREFIX_BYTES: usize = 4;

/// One input, cut into records. The buffer holds the longest record that the store takes, twice.
#[derive(Debug)]
pub struct Input {
    name: String,
    file: File,
    framing: Framing,
    record_bytes_max: usize,
    buffer: Vec<u8>,
    /// What of the buffer is read and not yet given out.
    unread: Range<usize>,
    /// Bytes of `unread` that are known to hold no line end.
    searched: usize,
    is_at_end: bool,
    has_given_whole: bool,
    has_said_waiting: bool,
    /// A whole input that is longer than a buffer is being given out.
    is_in_parts: bool,
    /// Records given out.
    records: u64,
    /// Bytes of the input in front of `unread`.
    offset: u64,
}

/// What an input gives next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// A record.
    Record(&'a [u8]),
    /// A part of an input that is one record, and longer than a buffer holds. The first has as many bytes as any record.
    Part(&'a [u8]),
    /// The last part was given.
    PartsEnd,
    /// Nothing for the moment: the next call waits for whoever writes the other end.
    Waiting,
    /// Nothing more.
    End,
}

/// An input that cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// It cannot be opened.
    #[error("{name}: {error}")]
    Open {
        /// The input.
        name: String,
        /// Why.
        error: io::Error,
    },
    /// The host failed.
    #[error("reading {name} at byte {offset} failed: {error}")]
    Read {
        /// The input.
        name: String,
        /// Where.
        offset: u64,
        /// Why.
        error: io::Error,
    },
    /// No record of the store can be as long.
    #[error(
        "{name}: {unit} {number} (byte {offset}) has {length}; a record has at most {max}: cut it, or raise `buffer-bytes` in a --profile"
    )]
    TooLong {
        /// The input.
        name: String,
        /// Line, record or input.
        unit: &'static str,
        /// Which, from 1.
        number: u64,
        /// Where it begins.
        offset: u64,
        /// How long it is, as far as that is known.
        length: Length,
        /// The most.
        max: usize,
    },
    /// The input ends in a record.
    #[error(
        "{name}: record {number} at byte {offset} is cut off: it needs {expected} bytes and the input ends after {found}"
    )]
    CutOff {
        /// The input.
        name: String,
        /// Which, from 1.
        number: u64,
        /// Where its length stands.
        offset: u64,
        /// Bytes of it, its length included.
        expected: u64,
        /// Bytes there.
        found: u64,
    },
}

/// A length that may not be known to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Known.
    Exactly(u64),
    /// Read so far.
    MoreThan(u64),
}

impl std::fmt::Display for Length {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exactly(bytes) => write!(f, "{bytes} bytes"),
            Self::MoreThan(bytes) => write!(f, "more than {bytes} bytes"),
        }
    }
}

/// What the bytes at hand begin with.
enum Cut {
    /// A record here, and this many bytes with all that is around it.
    Record(Range<usize>, usize),
    TooLong(Length),
    /// All bytes, and they are not all of the record.
    Part,
    PartsEnd,
    /// Not told before this many bytes are there.
    Unfinished(u64),
}

impl Input {
    /// Standard input.
    pub fn standard(framing: Framing, record_bytes_max: usize) -> Result<Self, InputError> {
        let name = "standard input".to_owned();
        match io::stdin().as_fd().try_clone_to_owned() {
            Ok(fd) => Ok(Self::new(name, fd, framing, record_bytes_max)),
            Err(error) => Err(InputError::Open { name, error }),
        }
    }

    /// A file.
    pub fn file(path: &Path, framing: Framing, record_bytes_max: usize) -> Result<Self, InputError> {
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Ok(Self::new(name, file.into(), framing, record_bytes_max)),
            Err(error) => Err(InputError::Open { name, error }),
        }
    }

    fn new(name: String, fd: OwnedFd, framing: Framing, record_bytes_max: usize) -> Self {
        Self {
            name,
            file: fd.into(),
            framing,
            record_bytes_max,
            buffer: vec![0; 2 * record_bytes_max + READ_BYTES_MIN],
            unread: 0..0,
            searched: 0,
            is_at_end: false,
            has_given_whole: false,
            has_said_waiting: false,
            is_in_parts: false,
            records: 0,
            offset: 0,
        }
    }

    /// The next record.
    pub fn next(&mut self) -> Result<Next<'_>, InputError> {
        loop {
            if self.is_at_end && self.unread.is_empty() && !self.is_empty_whole() && !self.is_in_parts {
                return Ok(Next::End);
            }
            match self.cut() {
                Cut::Part => {
                    let part = self.unread.clone();
                    self.unread.start = part.end;
                    self.offset += part.len() as u64;
                    self.is_in_parts = true;
                    return Ok(Next::Part(&self.buffer[part]));
                }
                Cut::PartsEnd => {
                    self.take(0);
                    self.is_in_parts = false;
                    return Ok(Next::PartsEnd);
                }
                Cut::Record(record, used) => {
                    let start = self.unread.start;
                    self.take(used);
                    return Ok(Next::Record(&self.buffer[start + record.start..start + record.end]));
                }
                Cut::TooLong(length) => return Err(self.too_long(length)),
                Cut::Unfinished(expected) if self.is_at_end => return Err(self.cut_off(expected)),
                Cut::Unfinished(_) if self.would_wait() => return Ok(Next::Waiting),
                Cut::Unfinished(_) => self.fill()?,
            }
        }
    }

    /// An input without a byte, taken as a whole, is one record without a byte.
    const fn is_empty_whole(&self) -> bool {
        matches!(self.framing, Framing::None) && !self.has_given_whole
    }

    fn take(&mut self, used: usize) {
        self.unread.start += used;
        self.offset += used as u64;
        self.searched = 0;
        self.records += 1;
        self.has_given_whole = true;
    }

    fn cut(&mut self) -> Cut {
        let bytes = &self.buffer[self.unread.clone()];
        let max = self.record_bytes_max;
        match self.framing {
            Framing::Line => {
                let (found, length) = find_line_end(&bytes[self.searched..]);
                let length = self.searched + length;
                self.searched = length;
                match found {
                    true if length > max => Cut::TooLong(Length::Exactly(length as u64)),
                    true => Cut::Record(0..length, length + 1),
                    false if length > max => Cut::TooLong(Length::MoreThan(max as u64)),
                    false if self.is_at_end => Cut::Record(0..length, length),
                    false => Cut::Unfinished(0),
                }
            }
            Framing::None if bytes.len() > max || (self.is_in_parts && !bytes.is_empty()) => Cut::Part,
            Framing::None if self.is_in_parts && self.is_at_end => Cut::PartsEnd,
            Framing::None if self.is_at_end => Cut::Record(0..bytes.len(), bytes.len()),
            Framing::None => Cut::Unfinished(0),
            Framing::U32le => match bytes.first_chunk() {
                None => Cut::Unfinished(PREFIX_BYTES as u64),
                Some(prefix) => {
                    let length = u32::from_le_bytes(*prefix);
                    let end = length as usize + PREFIX_BYTES;
                    match bytes.len() {
                        _ if length as usize > max => Cut::TooLong(Length::Exactly(length.into())),
                        there if there >= end => Cut::Record(PREFIX_BYTES..end, end),
                        _ => Cut::Unfinished(end as u64),
                    }
                }
            },
        }
    }

    /// True once for each time that reading would wait.
    fn would_wait(&mut self) -> bool {
        if std::mem::take(&mut self.has_said_waiting) {
            return false;
        }
        let mut asked = [PollFd::new(&self.file, PollFlags::IN)];
        // What cannot be polled is read at once.
        self.has_said_waiting = matches!(poll(&mut asked, Some(&Timespec::default())), Ok(0));
        self.has_said_waiting
    }

    fn fill(&mut self) -> Result<(), InputError> {
        if self.buffer.len() - self.unread.end < READ_BYTES_MIN {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        let end = self.unread.end;
        match self.file.read(&mut self.buffer[end..]) {
            Ok(0) => self.is_at_end = true,
            Ok(read) => self.unread.end += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let offset = self.offset + self.unread.len() as u64;
                return Err(InputError::Read { name: self.name.clone(), offset, error });
            }
        }
        Ok(())
    }

    fn too_long(&self, length: Length) -> InputError {
        InputError::TooLong {
            name: self.name.clone(),
            unit: match self.framing {
                Framing::Line => "line",
                Framing::U32le => "record",
                // As a whole it is cut into parts instead.
                Framing::None => "input",
            },
            number: self.records + 1,
            offset: self.offset,
            length,
            max: self.record_bytes_max,
        }
    }

    fn cut_off(&self, expected: u64) -> InputError {
        InputError::CutOff {
            name: self.name.clone(),
            number: self.records + 1,
            offset: self.offset,
            expected,
            found: self.unread.len() as u64,
        }
    }
}

/// Whether there is a line end, and the bytes in front of it. Searches as fast as the standard library's reader does.
fn find_line_end(bytes: &[u8]) -> (bool, usize) {
    let mut rest = bytes;
    // A slice never fails to be read.
    let skipped = rest.skip_until(b'\n').unwrap_or(bytes.len());
    match bytes[..skipped].last() {
        Some(b'\n') => (true, skipped - 1),
        _ => (false, skipped),
    }
}

#[cfg(test)]
mod tests;
