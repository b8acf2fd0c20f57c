//! Stores on more than one file or block device: every command takes them in any order, both are used, and one that is
//! missing, given twice, or of another store is named.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/host.rs"]
mod host;
mod program;
#[path = "common/stores.rs"]
mod stores;

use corelog::{DeviceIndex, FormatOptions, GeometryProblem, Inspection, OpenError, Options, Route, Store};
use program::{DONE, FAILED, Ran, USAGE, run, run_with, text_of};
use std::path::{Path, PathBuf};
use stores::{Acked, assert_there, payload};

const EXTENT: u64 = 1 << 20;

fn options() -> Options {
    stores::options()
}

/// Fills half of the store over both devices, closes it, and looks at it in every way that there is.
fn use_of_both(paths: &[PathBuf; 2]) {
    let [first, second] = paths;
    let backwards = [second, first];
    let store = Store::open_all(&backwards, &options()).unwrap();
    let acked: Vec<Acked> = (0..20_000)
        .map(|name| {
            let ticket = store.append_to(Route::RoundRobin, &payload(name)).unwrap();
            Acked { name, address: ticket.address() }
        })
        .collect();
    store.sync().unwrap();
    assert_there(&store, &acked);
    let geometry = *store.directory().layout.geometry();
    let on = |device: u16| {
        let is_on = |it: &&Acked| {
            store.directory().layout.place(it.address.slot(&geometry)).unwrap().device == DeviceIndex(device)
        };
        acked.iter().filter(is_on).count()
    };
    assert!(on(0) > 5000 && on(1) > 5000, "{} and {}", on(0), on(1));
    store.close().unwrap();
    let inspection = Inspection::open(&backwards, &options()).unwrap();
    assert!(inspection.verify(None, &mut |_, _| {}).unwrap().is_good());
    let store = Store::open_all(paths, &options()).unwrap();
    assert_there(&store, &acked);
    assert_eq!(store.scan_all().unwrap().map(Result::unwrap).collect::<Vec<_>>().len(), acked.len());
    store.close().unwrap();
}

fn format() -> FormatOptions {
    FormatOptions::sized((1 << 20) + 32 * EXTENT).shards(2).extent_bytes(EXTENT).sparse()
}

#[test]
fn two_files_are_one_store() {
    let folder = host::folder();
    let paths = [folder.path().join("one"), folder.path().join("two")];
    Store::format(&paths, &format()).unwrap();
    use_of_both(&paths);
}

const ON_LOOPS: &str = "two_block_devices_are_one_store";

#[test]
fn two_block_devices_are_one_store() {
    let Some(folder) = host::in_child(ON_LOOPS, &host::As::RootWithOwnMounts) else { return };
    let image = |name: &str| {
        let image = folder.join(name);
        std::fs::write(&image, vec![0; (1 << 20) + 32 * EXTENT as usize]).unwrap();
        host::Loop::new(ON_LOOPS, &image)
    };
    let (Some(one), Some(two)) = (image("one"), image("two")) else { return };
    let paths = [one.path.clone(), two.path.clone()];
    Store::format(&paths, &FormatOptions { size_bytes: None, ..format() }).unwrap();
    use_of_both(&paths);
}

#[test]
fn devices_that_do_not_belong_together_are_named() {
    let folder = host::folder();
    let path = |name: &str| folder.path().join(name);
    let (one, two, other, copy) = (path("one"), path("two"), path("other"), path("copy"));
    Store::format(&[&one, &two], &format()).unwrap();
    Store::format(&[&other, &path("another")], &format()).unwrap();
    std::fs::copy(&two, &copy).unwrap();
    let problem = |paths: &[&Path]| match Store::open_all(paths, &options()).unwrap_err() {
        OpenError::Geometry { problem, .. } => problem,
        error => panic!("{error}"),
    };
    assert_eq!(problem(&[&one]), GeometryProblem::DeviceCount { found: 1, expected: 2 });
    assert_eq!(problem(&[&two]), GeometryProblem::DeviceCount { found: 1, expected: 2 });
    assert_eq!(problem(&[&two, &copy]), GeometryProblem::Duplicate);
    assert_eq!(problem(&[&one, &other]), GeometryProblem::OtherStore);
    assert_eq!(problem(&[&one, &path("another")]), GeometryProblem::OtherStore);
    let twice = Store::open_all(&[&one, &one], &options()).unwrap_err();
    assert!(twice.to_string().contains("locked"), "{twice}");
    let missing = Store::open_all(&[&one, &path("nowhere")], &options()).unwrap_err();
    assert!(missing.to_string().contains("does not exist"), "{missing}");
    std::fs::write(&copy, vec![0; 2 << 20]).unwrap();
    let blank = Store::open_all(&[&one, &copy], &options()).unwrap_err();
    assert!(matches!(blank, OpenError::Superblock { .. }) && blank.to_string().contains("copy"), "{blank}");
    Store::open_all(&[&two, &one], &options()).unwrap().close().unwrap();
}

/// `@` is the first device; the others come by --device.
#[test]
fn the_program_takes_further_devices_and_grows_stores() {
    let folder = program::folder();
    let path = folder.path().join("one");
    let two = folder.path().join("two").display().to_string();
    let three = folder.path().join("three").display().to_string();
    let done = |line: &str, input: &[u8]| -> Ran { run_with(&path, line, input) };
    done(&format!("format @ --size 3MiB --shards 2 --extent 512KiB --device {two}"), b"").done();
    let lines: Vec<String> = (0..3000).map(|line| format!("line {line} {}", "x".repeat(900))).collect();
    done(&format!("append @ --device {two}"), &text_of(&lines[..1000])).done();
    run(&path, "info @").refused(FAILED, &["2 devices", "1 were given"]);
    let info = done(&format!("info @ --json --device {two}"), b"").json();
    assert_eq!((info["devices"].as_array().unwrap().len(), &info["extents"]["total"]), (2, &8.into()));
    let full = done(&format!("append @ --device {two}"), &text_of(&lines));
    assert_eq!(full.code, Some(program::FULL), "{full:?}");
    let nothing = run(&path, &format!("grow @ --device {two}"));
    nothing.refused(USAGE, &["make it larger"]);
    let grown = done(&format!("grow @ --device {two} --add {three} --size 9MiB --json"), b"").json();
    assert_eq!(
        (&grown["device"], &grown["extents"], &grown["store_extents"]),
        (&2.into(), &16.into(), &24.into())
    );
    let all = format!("--device {three} --device {two}");
    let grown = done(&format!("grow @ {all} --index 1 --size 5MiB --sparse"), b"").done();
    assert!(grown.contains("4 extents"), "{grown}");
    done(&format!("append @ {all}"), &text_of(&lines)).done();
    let cat = done(&format!("cat @ {all}"), b"").done();
    assert!(cat.lines().count() >= 1000 + lines.len(), "{}", cat.lines().count());
    assert_eq!(run(&path, &format!("verify @ {all}")).code, Some(DONE));
    let info = done(&format!("info @ --json {all}"), b"").json();
    assert_eq!(info["extents"]["total"], 28);
    run(&path, &format!("bench @ --device {two}")).refused(USAGE, &["one device"]);
}
