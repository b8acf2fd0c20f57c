//! Lines, whole files and length-prefixed records go in by `append` and come out by `read`, byte for byte, whatever
//! the options are.
#![expect(clippy::unwrap_used, reason = "tests")]

mod program;

use corelog::{Address, Inspection, Options};
use program::{folder, lines, read_all, run, run_with, spawn, store_in, text_of};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
};

/// The records at these addresses.
fn records(store: &Path, addresses: &str) -> Vec<Vec<u8>> {
    let inspection = Inspection::open(&[store], &Options::default()).unwrap();
    let read = |address: &str| inspection.read(address.parse::<Address>().unwrap()).unwrap().to_vec();
    addresses.lines().map(read).collect()
}

/// Source files of this machine, up to about 20 MB of them: real text.
fn real_text() -> Vec<u8> {
    const BYTES_MAX: usize = 20 << 20;
    let home = std::env::var_os("CARGO_HOME").map(std::path::PathBuf::from);
    let home = home.or_else(|| Some(std::path::PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let mut text = Vec::new();
    let mut folders = vec![home.unwrap().join("registry").join("src"), env!("CARGO_MANIFEST_DIR").into()];
    while let Some(folder) = folders.pop().filter(|_| text.len() < BYTES_MAX) {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() && !path.is_symlink() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && text.len() < BYTES_MAX {
                text.extend(fs::read(&path).unwrap());
            }
        }
    }
    text
}

#[test]
fn real_text_comes_back_by_address_in_input_order() {
    let folder = folder();
    let path = folder.path().join("store");
    run(&path, "format @ --size 128MiB --shards 2").done();
    let text = real_text();
    let addresses = run_with(&path, "append @ --addresses", &text).done();
    let expected: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    assert_eq!(addresses.lines().count(), expected.len());
    let inspection = Inspection::open(&[&path], &Options::default()).unwrap();
    for (number, (address, expected)) in addresses.lines().zip(&expected).enumerate().step_by(29) {
        let line = expected.strip_suffix(b"\n").unwrap_or(expected);
        let found = inspection.read(address.parse::<Address>().unwrap()).unwrap();
        assert!(found == line, "line {}", number + 1);
    }
    // All of it, in the order of each shard.
    let lines = || expected.iter().map(|line| line.strip_suffix(b"\n").unwrap_or(line));
    for shard in 0..2 {
        let printed = run(&path, &format!("cat @ --shard {shard}")).out;
        let own: Vec<&[u8]> = lines().skip(shard).step_by(2).collect();
        assert!(printed == [&own.join(&b'\n')[..], b"\n"].concat(), "shard {shard}");
    }
    assert_eq!(run(&path, "verify @ --json").json()["records"], expected.len());
    let info = run(&path, "info @ --json").json();
    let per_shard: Vec<u64> =
        info["shards"].as_array().unwrap().iter().map(|shard| shard["records"].as_u64().unwrap()).collect();
    assert_eq!(per_shard.iter().sum::<u64>(), expected.len() as u64);
    assert!(per_shard[0].abs_diff(per_shard[1]) <= 1, "in turn: {per_shard:?}");
}

#[test]
fn each_way_to_split_has_a_way_to_join() {
    let folder = folder();
    let path = store_in(folder.path());
    let prefixed = b"\x04\0\0\0a\nb\0\0\0\0\0\x01\0\0\0\xff";
    let addresses = run_with(&path, "append @ --split u32le --addresses", prefixed).done();
    let line = format!("read @ --join u32le {}", addresses.lines().collect::<Vec<_>>().join(" "));
    assert_eq!(run(&path, &line).out, prefixed);
    for name in ["one", "two"] {
        fs::write(folder.path().join(name), format!("{name}\n\n{name}")).unwrap();
    }
    let folder = folder.path().display();
    let line = format!("append @ {folder}/one - {folder}/two --split none --addresses");
    let addresses = run_with(&path, &line, b"from the pipe").done();
    assert_eq!(records(&path, &addresses), [&b"one\n\none"[..], b"from the pipe", b"two\n\ntwo"]);
    let line = format!("read @ --join none {}", addresses.lines().collect::<Vec<_>>().join(" "));
    assert_eq!(run(&path, &line).out, b"one\n\nonefrom the pipetwo\n\ntwo");
}

#[test]
fn a_file_of_any_length_is_one_record() {
    let folder = folder();
    let path = store_in(folder.path());
    let long: Vec<u8> = (0..3_000_000_u32).flat_map(|at| (at / 3).to_le_bytes()).take(3_000_000).collect();
    let file = folder.path().join("long");
    fs::write(&file, &long).unwrap();
    let line = format!("append @ {} --split none --addresses --shard 1", file.display());
    let address = run(&path, &line).done();
    run_with(&path, "append @ --shard 1", b"small").done();
    assert!(run(&path, &format!("read @ --join none {}", address.trim())).out == long);
    assert!(run(&path, "cat @ --shard 1 --join none").out == [&long[..], b"small"].concat());
    let length = (long.len() as u32).to_le_bytes();
    let framed = [&length, &long[..], b"\x05\0\0\0small"].concat();
    assert!(run(&path, "cat @ --shard 1 --join u32le").out == framed);
    assert_eq!(run(&path, "verify @ --json").json()["records"], 2);
}

#[test]
fn every_durability_backend_and_route_keeps_every_record() {
    let folder = folder();
    let path = folder.path().join("store");
    run(&path, "format @ --size 64MiB --shards 3").done();
    let lines = lines(2_000);
    for options in [
        "--durability buffered",
        "--durability written --cores 1",
        "--sync dsync --backend threads",
        "--in-flight 1 --shard 2",
        "--in-flight 7 --key field:2",
        "--key record --cores 3 --backend uring",
    ] {
        let addresses = run_with(&path, &format!("append @ --addresses {options}"), &text_of(&lines)).done();
        assert_eq!(read_all(&path, addresses.lines()), lines, "{options}");
    }
}

#[test]
fn a_key_has_one_shard_and_a_shard_is_taken_at_its_word() {
    let folder = folder();
    let path = store_in(folder.path());
    let report = run_with(&path, "append @ --json --key text:k", b"a\nb\nc\n").json();
    let counts: Vec<u64> =
        report["shards"].as_array().unwrap().iter().map(|shard| shard["records"].as_u64().unwrap()).collect();
    assert_eq!(counts.iter().max(), Some(&3), "{report}");
    let report = run_with(&path, "append @ --json --shard 1", b"a\nb\n").json();
    assert_eq!(report["shards"][1]["records"], 2);
    assert_eq!(report["durability"], "durable");
}

#[test]
fn a_slow_pipe_is_acknowledged_as_it_comes() {
    let folder = folder();
    let path = store_in(folder.path());
    let mut child = spawn(&path, "append @ --addresses");
    let mut stdin = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut addresses = Vec::new();
    for line in ["one", "two", "three"] {
        writeln!(stdin, "{line}").unwrap();
        addresses.push(answers.next().unwrap().unwrap());
    }
    drop(stdin);
    assert!(answers.next().is_none());
    assert!(child.wait().unwrap().success());
    assert_eq!(read_all(&path, addresses.iter().map(String::as_str)), ["one", "two", "three"]);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = folder();
    let path = store_in(folder.path());
    let lines = lines(5_000);
    let addresses = run_with(&path, "append @ --addresses", &text_of(&lines)).done();
    let some: Vec<&str> = addresses.lines().take(2_000).collect();
    let mut child = spawn(&path, &format!("read @ {}", some.join(" ")));
    let mut first = [0; 4];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
    // A writer that cannot say what it acknowledged says that.
    let mut child = spawn(&path, "append @ --addresses");
    drop(child.stdout.take());
    child.stdin.take().unwrap().write_all(b"x\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(program::FAILED), "{error}");
    assert!(
        error.contains("writing addresses to standard output failed") && !error.contains("panic"),
        "{error}"
    );
}

#[test]
fn figures_are_json_on_request() {
    let folder = folder();
    let path = folder.path().join("store");
    let made = run(&path, "format @ --size 32MiB --shards 2 --json").json();
    assert_eq!((made["shards"].as_u64(), made["sparse"].as_bool()), (Some(2), Some(false)));
    let report = run_with(&path, "append @ --json", b"a\nbc\n").json();
    assert_eq!((report["records"].as_u64(), report["bytes"].as_u64()), (Some(2), Some(3)));
    let info = run(&path, "info @ --json --extents").json();
    assert_eq!((info["store"].as_str(), info["term"].as_u64()), (made["store"].as_str(), Some(1)));
    assert_eq!(info["recovery"]["clean"], true);
    assert!(!info["extent_list"].as_array().unwrap().is_empty());
}
