//! Inputs, whole and broken, in pieces of every size.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::{Input, InputError, Length, Next};
use crate::cli::args::Framing;
use std::{fs::File, io::Write, os::unix::net::UnixStream};

fn input(bytes: &[u8], framing: Framing, max: usize) -> Input {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    Input::new("it".to_owned(), file.into(), framing, max)
}

fn all(mut input: Input) -> Result<Vec<Vec<u8>>, InputError> {
    let mut records = Vec::new();
    loop {
        match input.next()? {
            Next::Record(record) => records.push(record.to_vec()),
            Next::Part(_) | Next::PartsEnd => panic!("nothing here is given in parts"),
            Next::Waiting => {}
            Next::End => return Ok(records),
        }
    }
}

fn texts(bytes: &[u8], framing: Framing) -> Vec<String> {
    let records = all(input(bytes, framing, 100)).unwrap();
    records.into_iter().map(|record| String::from_utf8(record).unwrap()).collect()
}

#[test]
fn lines_lose_their_ends_and_nothing_else() {
    assert_eq!(texts(b"a\n\nb\r\n c", Framing::Line), ["a", "", "b\r", " c"]);
    assert_eq!(texts(b"a\n", Framing::Line), ["a"]);
    assert_eq!(texts(b"\n", Framing::Line), [""]);
    assert!(texts(b"", Framing::Line).is_empty());
}

#[test]
fn a_whole_input_is_one_record_even_if_it_is_empty() {
    assert_eq!(texts(b"a\nb", Framing::None), ["a\nb"]);
    assert_eq!(texts(b"", Framing::None), [""]);
}

#[test]
fn a_whole_input_that_is_longer_than_a_buffer_comes_in_parts() {
    for length in [100, 101, 1_000_000] {
        let bytes: Vec<u8> = (0..length).map(|at| (at / 7) as u8).collect();
        let mut input = input(&bytes, Framing::None, 100);
        let (mut found, mut parts, mut ends) = (Vec::new(), 0, 0);
        loop {
            match input.next().unwrap() {
                Next::Record(record) => found.extend_from_slice(record),
                Next::Part(part) => {
                    assert!(parts > 0 || part.len() > 100, "the first part is longer than a record");
                    found.extend_from_slice(part);
                    parts += 1;
                }
                Next::PartsEnd => ends += 1,
                Next::Waiting => {}
                Next::End => break,
            }
        }
        assert_eq!(found, bytes);
        assert_eq!((parts > 0, ends), (length > 100, i32::from(length > 100)));
    }
}

#[test]
fn lengths_are_little_endian() {
    assert_eq!(texts(b"\x01\0\0\0a\0\0\0\0\x02\0\0\0bc", Framing::U32le), ["a", "", "bc"]);
    assert!(texts(b"", Framing::U32le).is_empty());
}

#[test]
fn a_record_is_as_long_as_the_store_allows_and_no_longer() {
    assert_eq!(all(input(&[b'x'; 100], Framing::Line, 100)).unwrap(), [[b'x'; 100]]);
    let error = all(input(&[b'x'; 101], Framing::Line, 100)).unwrap_err();
    assert!(matches!(error, InputError::TooLong { number: 1, max: 100, .. }), "{error}");
    let mut text = b"first\n".to_vec();
    text.extend([b'x'; 101]);
    text.push(b'\n');
    match all(input(&text, Framing::Line, 100)).unwrap_err() {
        InputError::TooLong { number, offset, length, .. } => {
            assert_eq!((number, offset, length), (2, 6, Length::Exactly(101)));
        }
        other => panic!("{other}"),
    }
    let hostile = all(input(b"\xff\xff\xff\xff", Framing::U32le, 100)).unwrap_err();
    assert!(hostile.to_string().contains("4294967295 bytes"), "{hostile}");
}

#[test]
fn a_partial_record_at_the_end_is_named_with_its_byte() {
    for (bytes, expected, found) in
        [(&b"\x01\0\0\0a\x05\0\0\0bc"[..], 9, 6), (&b"\x01\0\0\0a\x05\0"[..], 4, 2)]
    {
        match all(input(bytes, Framing::U32le, 100)).unwrap_err() {
            InputError::CutOff { number: 2, offset: 5, expected: needs, found: has, .. } => {
                assert_eq!((needs, has), (expected, found));
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn long_inputs_pass_through_a_buffer_of_fixed_size() {
    let lines: Vec<Vec<u8>> =
        (0..20_000_usize).map(|line| vec![b'a' + (line % 26) as u8; line % 100]).collect();
    let text = lines.join(&b'\n');
    assert_eq!(all(input(&text, Framing::Line, 100)).unwrap(), lines);
    let prefixed: Vec<u8> = lines
        .iter()
        .flat_map(|line| (line.len() as u32).to_le_bytes().into_iter().chain(line.iter().copied()))
        .collect();
    assert_eq!(all(input(&prefixed, Framing::U32le, 100)).unwrap(), lines);
}

#[test]
fn a_pipe_that_has_nothing_says_so_before_it_is_waited_for() {
    let (mut writer, reader) = UnixStream::pair().unwrap();
    let fd = std::os::fd::OwnedFd::from(reader);
    let mut input = Input::new("pipe".to_owned(), File::from(fd).into(), Framing::Line, 100);
    writer.write_all(b"one\ntw").unwrap();
    assert_eq!(input.next().unwrap(), Next::Record(b"one"));
    assert_eq!(input.next().unwrap(), Next::Waiting);
    writer.write_all(b"o\n").unwrap();
    assert_eq!(input.next().unwrap(), Next::Record(b"two"));
    assert_eq!(input.next().unwrap(), Next::Waiting);
    drop(writer);
    assert_eq!(input.next().unwrap(), Next::End);
}
