//! A host with fewer CPUs than the store has shards, or without the memory that the options ask for: the store opens
//! with less, or says what is missing (fault matrix rows 38, 39 and 40), and what a device says of its cache is
//! passed on (row 26).
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/fuse.rs"]
mod fuse;
#[path = "common/host.rs"]
mod host;
#[path = "common/stores.rs"]
mod stores;

use corelog::{DeviceWarning, FormatOptions, Store, Warning};
use fuse::Mounted;
use rustix::process::{Resource, Rlimit, setrlimit};
use std::path::Path;
use stores::{EXTENT_BYTES, STORE_BYTES, append_durable, assert_there, options};

fn format(path: &Path) {
    let options = FormatOptions::sized(STORE_BYTES).shards(4).extent_bytes(EXTENT_BYTES).sparse();
    Store::format(&[path], &options).unwrap();
}

/// Four shards on one CPU of the machine: the cpuset is respected, and no core is lost.
#[test]
fn a_smaller_cpuset_is_respected() {
    if let Some(path) = host::role() {
        let store = Store::open(path, &options().cores(4).pin(true)).unwrap();
        for shard in 0..4 {
            append_durable(&store, shard, u64::from(shard));
        }
        let cpus: Vec<_> = store.grants().iter().map(|grants| grants.cpu).collect();
        assert!(cpus.iter().all(|cpu| *cpu == Some(0) || cpu.is_none()), "{cpus:?}");
        return store.close().unwrap();
    }
    let test = "a_smaller_cpuset_is_respected";
    if !host::has("taskset") {
        return host::skipped(test, "the host has no taskset");
    }
    let folder = host::folder();
    let path = folder.path().join("store");
    format(&path);
    let mut limited = std::process::Command::new("taskset");
    let role = host::start_role(test, path.to_str().unwrap());
    limited.args(["-c", "0"]).arg(role.get_program()).args(role.get_args());
    for (name, value) in role.get_envs() {
        limited.env(name, value.unwrap_or_default());
    }
    let output = limited.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let store = Store::open(&path, &options().cores(1)).unwrap();
    assert_eq!(store.shards().len(), 4, "shards come from the superblock, not from the CPUs");
    store.close().unwrap();
}

/// Buffers that do not fit into the memory that the process may have: an error, no abort, and the store is as it was.
#[test]
fn memory_that_is_refused_is_an_error() {
    let big = options().buffers(64).buffer_bytes(512 << 10).cores(1);
    if let Some(path) = host::role() {
        let limit = Rlimit { current: Some(512 << 20), maximum: Some(512 << 20) };
        setrlimit(Resource::As, limit).unwrap();
        // Four shards of 64 buffers of 8 MiB ask for 2 GiB.
        let error = Store::open(path, &options().cores(1).buffers(64).buffer_bytes(8 << 20)).unwrap_err();
        assert!(error.to_string().contains("memory"), "{error}");
        return;
    }
    let test = "memory_that_is_refused_is_an_error";
    let folder = host::folder();
    let path = folder.path().join("store");
    let format = FormatOptions::sized(1 << 30).shards(4).extent_bytes(16 << 20).sparse();
    Store::format(&[&path], &format).unwrap();
    let store = Store::open(&path, &big).unwrap();
    let acked = [append_durable(&store, 3, 1)];
    store.close().unwrap();
    drop(store);
    let output = host::start_role(test, path.to_str().unwrap()).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    let store = Store::open(&path, &big).unwrap();
    assert_there(&store, &acked);
    store.close().unwrap();
}

/// A file system that keeps its bytes who knows where is warned of; the disk of this machine is not said to lose them.
#[test]
fn what_the_device_says_of_itself_is_passed_on() {
    let Some(folder) = host::with_fuse("what_the_device_says_of_itself_is_passed_on") else { return };
    let device = Mounted::new(&folder, STORE_BYTES);
    device.format(1, EXTENT_BYTES);
    let store = device.open(&options()).unwrap();
    let warnings = store.warnings();
    let is_remote = |warning: &DeviceWarning| {
        matches!(warning, DeviceWarning::Device { warning: Warning::RemoteFileSystem(_), .. })
    };
    assert!(warnings.iter().any(is_remote), "{warnings:?}");
    assert!(warnings.iter().any(|warning| matches!(warning, DeviceWarning::Opened { .. })), "{warnings:?}");
    store.close().unwrap();
    let path = folder.join("on-disk");
    format(&path);
    let store = Store::open(&path, &options()).unwrap();
    let of_devices = |warning: &DeviceWarning| matches!(warning, DeviceWarning::Opened { .. });
    assert!(!store.warnings().iter().any(of_devices), "{:?}", store.warnings());
    store.close().unwrap();
}
