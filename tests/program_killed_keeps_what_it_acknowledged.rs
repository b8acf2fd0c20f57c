//! `append` is killed with -9 in the middle of its input. Every address that it printed reads the line that it was
//! printed for, and the file of acknowledgements never says more than what is there.
#![expect(clippy::unwrap_used, reason = "tests")]

mod program;

use corelog::{Address, Inspection, Options};
use program::{folder, lines, run, run_with, spawn, text_of};
use std::{
    fs,
    io::{Read, Write},
};

#[test]
fn a_killed_append_has_what_it_said() {
    let folder = folder();
    let path = folder.path().join("store");
    run(&path, "format @ --size 256MiB --shards 2").done();
    let lines = lines(400_000);
    let text = text_of(&lines);
    let acks = folder.path().join("acks");
    let line = format!("append @ --addresses --in-flight 8000 --acks {}", acks.display());
    let mut acknowledged: Vec<(String, usize)> = Vec::new();
    // Another part of the input is under way at each kill.
    for stop_after in [17, 17_000, 500_000, 1_500_000] {
        let mut child = spawn(&path, &line);
        let mut stdin = child.stdin.take().unwrap();
        let mut out = Vec::new();
        std::thread::scope(|scope| {
            // Ends with an error when its reader is killed.
            scope.spawn(|| stdin.write_all(&text));
            let mut stdout = child.stdout.take().unwrap();
            let mut part = [0; 4096];
            while out.len() < stop_after {
                let read = stdout.read(&mut part).unwrap();
                assert!(read > 0, "it ended before it was killed");
                out.extend_from_slice(&part[..read]);
            }
            child.kill().unwrap();
            stdout.read_to_end(&mut out).unwrap();
        });
        child.wait().unwrap();
        // The last line may be cut.
        let whole = out.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let addresses = std::str::from_utf8(&out[..whole]).unwrap();
        acknowledged.extend(addresses.lines().enumerate().map(|(line, address)| (address.to_owned(), line)));
        let counted = fs::read_to_string(&acks).unwrap();
        let counted = counted.lines().last().and_then(|line| line.split(' ').next()?.parse::<usize>().ok());
        assert!(counted.unwrap_or(0) >= addresses.lines().count(), "{counted:?}");

        let inspection = Inspection::open(&[&path], &Options::default()).unwrap();
        // All of the last ones, which are those in danger; of the rest some.
        let (early, last) = acknowledged.split_at(acknowledged.len().saturating_sub(8_000));
        for (address, line) in early.iter().step_by(17).chain(last) {
            let record = inspection.read(address.parse::<Address>().unwrap());
            assert_eq!(record.unwrap(), lines[*line].as_bytes(), "{address}");
        }
        // What more is there is a run of the input in each shard: this life's part follows what was there before.
        assert_eq!(run(&path, "verify @ --json").json()["findings_count"], 0);
        for shard in 0..2 {
            let printed = run(&path, &format!("cat @ --shard {shard}")).done();
            let mut expected = lines.iter().skip(shard).step_by(2);
            for line in printed.lines() {
                if line == lines[shard] {
                    expected = lines.iter().skip(shard).step_by(2);
                }
                assert_eq!(Some(line), expected.next().map(String::as_str), "shard {shard}");
            }
        }
    }
    assert!(acknowledged.len() > 10_000, "{}", acknowledged.len());
    // The next one goes on.
    let report = run_with(&path, "append @ --json", b"after\n").json();
    assert_eq!(report["records"], 1);
    assert!(run(&path, "info @ --json").json()["recovery"]["clean"].as_bool().unwrap());
}
