//! Every command that opens a store prints each warning about its devices as one line on standard error, and its JSON has
//! them: a store knew that its promises were weakened, and the program kept it to itself.
#![allow(clippy::unwrap_used, reason = "tests")]

mod program;

use program::{DONE, Ran, run, run_with};
use std::path::Path;

/// A file system in memory: it buffers, and keeps nothing over a power loss.
const IN_MEMORY: &str = "/dev/shm";

/// The notes that it printed, and the warnings of its JSON document, if it printed one.
fn said(ran: Ran) -> (Vec<String>, Option<Vec<String>>) {
    assert_eq!(ran.code, Some(DONE), "{}: {}", ran.line, ran.error);
    let notes = ran.error.lines().filter_map(|line| line.strip_prefix("corelog: note: ")).map(str::to_owned);
    let json = serde_json::from_slice::<serde_json::Value>(&ran.out).ok();
    let warnings = json.map(|json| serde_json::from_value(json["warnings"].clone()).unwrap());
    (notes.collect(), warnings)
}

#[test]
fn warnings_are_lines_on_standard_error_and_a_list_in_json() {
    if !Path::new(IN_MEMORY).is_dir() {
        return program::skipped(&format!("there is no {IN_MEMORY}"));
    }
    let folder = tempfile::tempdir_in(IN_MEMORY).unwrap();
    let path = folder.path().join("store");
    run(&path, "format @ --size 16MiB --extent 1MiB --shards 1 --allow-buffered").done();
    let store = corelog::Store::open(&path, &corelog::Options::default().allow_buffered(true)).unwrap();
    let expected: Vec<String> = store.warnings().iter().map(ToString::to_string).collect();
    assert!(!expected.is_empty() && expected.iter().all(|warning| !warning.contains('\n')));
    store.close().unwrap();
    drop(store);
    let copy = folder.path().join("copy");
    let salvage = format!("salvage @ {} --sparse --json --allow-buffered", copy.display());
    for line in ["append @ --json --allow-buffered", "verify @ --scrub --json --allow-buffered", &salvage] {
        let (notes, warnings) = said(run_with(&path, line, b"a line\n"));
        let warnings = warnings.unwrap();
        assert_eq!(warnings.len(), expected.len(), "{line}");
        assert!(warnings.iter().all(|warning| notes.contains(warning)), "{line}: {notes:?}");
    }
    let (notes, _) = said(run_with(&path, "append @ --allow-buffered", b"a line\n"));
    assert_eq!(notes, expected);
    // A look at a store says what may make the look doubtful.
    for line in ["info @", "verify @", "cat @"] {
        assert!(!said(run(&path, line)).0.is_empty(), "{line}");
    }
}
