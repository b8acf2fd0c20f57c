//! The server of `examples/` on glommio executors is killed with -9 at random moments. Each record that it printed as
//! durable is there after each reopen, byte for byte, and so is what its earlier lives printed.
//!
//! `CORELOG_KILLS` sets how many kills (8 by default).
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

#[allow(dead_code, reason = "its main is of the example")]
#[path = "../examples/glommio_server.rs"]
mod server;

use common::{Place, options};
use corelog::{Address, FormatOptions, Store};
use std::{
    collections::HashSet,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

const CHILD: &str = "CORELOG_GLOMMIO_CHILD";

/// The process that is killed: it serves until then.
#[test]
fn child() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    server::run(Path::new(&path), u64::MAX, true).unwrap();
}

fn start(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The last two words: the test harness puts its own before the first line.
fn parse(line: &str) -> Option<(Address, u64)> {
    let mut words = line.split_whitespace().rev();
    let checksum = words.next()?.parse().ok()?;
    Some((words.next()?.parse().ok()?, checksum))
}

/// Serves until it has printed `lines`, and a little longer; gives the lines that came whole.
fn live_and_die(path: &Path, lines: usize, longer: Duration) -> Vec<(Address, u64)> {
    let mut child = start(path);
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let (tell, told) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut acknowledged = Vec::new();
        let mut line = String::new();
        while output.read_line(&mut line).is_ok_and(|read| read > 0) {
            // A line that the kill cut short acknowledges nothing.
            if line.ends_with('\n') {
                acknowledged.extend(parse(&line));
            }
            line.clear();
            if acknowledged.len() == lines {
                let _nobody_waits = tell.send(());
            }
        }
        acknowledged
    });
    let has_served = lines == 0 || told.recv_timeout(Duration::from_secs(60)).is_ok();
    std::thread::sleep(longer);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(has_served, "the server did not come to {lines} answers");
    reader.join().unwrap()
}

#[test]
fn what_a_killed_server_printed_is_there() {
    let kills = std::env::var("CORELOG_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let format = FormatOptions::sized(1 << 30).shards(2).extent_bytes(4 << 20).sparse();
    let place = Place::with(&format);
    let mut acknowledged = Vec::new();
    for kill in 0..kills {
        // While it opens, after its first answers, and in full swing.
        let lines = [0, 1, 50, 200][kill % 4];
        let longer = Duration::from_millis([3, 20, 0, 71][(kill + kill / 4) % 4]);
        acknowledged.extend(live_and_die(&place.path, lines, longer));
        let store = Store::open(&place.path, &options(2)).unwrap();
        for (address, checksum) in &acknowledged {
            let found =
                store.read(*address).unwrap_or_else(|error| panic!("kill {kill}, {address}: {error}"));
            assert!(found.starts_with(b"request"), "kill {kill}, {address}");
            assert_eq!(server::checksum(&found), *checksum, "kill {kill}, {address}");
        }
        let scanned: HashSet<_> = store.scan_all().unwrap().map(|record| record.unwrap().address).collect();
        assert!(acknowledged.iter().all(|(address, _)| scanned.contains(address)), "kill {kill}: a scan");
    }
    println!("{kills} kills, {} answers", acknowledged.len());
    let distinct: HashSet<_> = acknowledged.iter().map(|(address, _)| address).collect();
    assert_eq!(distinct.len(), acknowledged.len(), "an address was given twice");
    assert!(acknowledged.len() > 50 || kills < 4, "it served too little to tell");
}
