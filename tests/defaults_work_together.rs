//! A store with the smallest extents opened with no option was refused: the default buffer of 256 KiB does not fit beside
//! the header of an extent of 256 KiB. A buffer that nobody asked for fits every store; one that was asked for and does
//! not fit is an error, as before.
#![allow(clippy::unwrap_used, reason = "tests")]

mod program;

use corelog::{Backend, FormatOptions, OpenError, OptionError, Options, Store};
use program::{USAGE, folder, run, run_with};
use std::fs;

/// The host of a test may have no io_uring, and one CPU.
fn options() -> Options {
    Options::default().pin(false).backend(Backend::Auto)
}

#[test]
fn every_size_of_slot_and_extent_opens_with_the_defaults() {
    let folder = folder();
    let path = folder.path().join("store");
    for (slot, extent) in
        [(4 << 10, 256 << 10), (64 << 10, 256 << 10), (64 << 10, 512 << 10), (4 << 10, 1 << 20)]
    {
        let format = FormatOptions::sized(16 << 20).shards(2).slot_bytes(slot).extent_bytes(extent);
        Store::format(&[&path], &format.sparse().replace()).unwrap();
        let store = Store::open(&path, &options()).unwrap();
        let largest = vec![7; store.record_bytes_max() as usize];
        let ticket = store.append(&largest).unwrap();
        store.sync().unwrap();
        assert_eq!(store.read(ticket.address()).unwrap(), largest);
        let room = (extent - slot).min(256 << 10);
        assert!(
            largest.len() as u64 > room - 1024,
            "slots of {slot}, extents of {extent}: {}",
            largest.len()
        );
        store.close().unwrap();
        drop(store);
        let beyond = options().buffer_bytes(extent);
        let error = Store::open(&path, &beyond).unwrap_err();
        assert!(matches!(error, OpenError::Option(OptionError::BufferBeyondExtent { .. })), "{error}");
    }
}

#[test]
fn the_program_appends_to_a_store_with_the_smallest_extents() {
    let folder = folder();
    let path = folder.path().join("store");
    run(&path, "format @ --size 16MiB --extent 256KiB --shards 2").done();
    run_with(&path, "append @ --shard 1", b"one\ntwo\n").done();
    assert_eq!(run(&path, "cat @").done(), "one\ntwo\n");
    let profile = folder.path().join("profile.toml");
    fs::write(&profile, "buffer-bytes = 262144\n").unwrap();
    let refused = run_with(&path, &format!("append @ --profile {}", profile.display()), b"three\n");
    refused.refused(USAGE, &["buffer-bytes is 262144; an extent of 262144 bytes has room"]);
}
