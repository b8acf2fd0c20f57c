//! The file system below a store is shut down under it without writing its journal, as a power cut does. What was
//! acknowledged is there afterwards, in a file of written zeros and in a sparse one, whose blocks the file system has
//! to remember as well (fault matrix row 37, ground truth 13).
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/host.rs"]
mod host;
#[path = "common/kernel.rs"]
mod kernel;
#[path = "common/stores.rs"]
mod stores;

use corelog::{Durability, FormatOptions, Route, ShardId, Store, SyncMethod};
use std::path::Path;
use stores::{Acked, EXTENT_BYTES, STORE_BYTES, append_durable, assert_there, options, payload};

/// `mkfs` and mount options.
struct Kind {
    name: &'static str,
    make: &'static [&'static str],
    options: &'static str,
}

const EXT4: Kind = Kind { name: "mkfs.ext4", make: &["mkfs.ext4", "-q", "-F"], options: "loop" };
const XFS: Kind = Kind { name: "mkfs.xfs", make: &["mkfs.xfs", "-q", "-f"], options: "loop" };

fn run(test: &str, kind: &Kind) {
    if !host::has(kind.name) {
        return host::skipped(test, &format!("the host has no {}", kind.name));
    }
    let Some(folder) = host::in_child(test, &host::As::RootWithOwnMounts) else { return };
    let image = folder.join("image");
    let point = folder.join("mount");
    host::sparse(&image, 512 << 20);
    host::mount_new(kind.make, &image, &point, kind.options);
    for is_sparse in [false, true] {
        for sync in [SyncMethod::Auto, SyncMethod::Fdatasync, SyncMethod::Dsync] {
            one_life(&image, &point, kind, is_sparse, sync);
        }
    }
    host::run("umount", &[point.to_str().unwrap()]);
}

fn one_life(image: &Path, point: &Path, kind: &Kind, is_sparse: bool, sync: SyncMethod) {
    let path = point.join("store");
    let format = FormatOptions::sized(STORE_BYTES).shards(2).extent_bytes(EXTENT_BYTES).replace();
    let format = if is_sparse { format.sparse() } else { format };
    Store::format(&[&path], &format).unwrap();
    let store = Store::open(&path, &options().sync(sync)).unwrap();
    // Over several extents of each shard.
    let mut acked: Vec<Acked> = Vec::new();
    for name in 0..200_u64 {
        for filler in 0..30 {
            store.append_to(Route::Shard(ShardId((name % 2) as u16)), &payload(name << 8 | filler)).unwrap();
        }
        acked.push(append_durable(&store, (name % 2) as u16, name));
    }
    let late = store.append_to(Route::Shard(ShardId(0)), b"written, not durable").unwrap();
    let _may_be_lost = late.wait(Durability::Written);
    kernel::shut_down(point).unwrap();
    assert!(
        store
            .append_to(Route::Shard(ShardId(0)), b"x")
            .map_or(true, |ticket| ticket.wait(Durability::Durable).is_err())
    );
    assert!(store.close().is_err());
    drop(store);

    host::run("umount", &[point.to_str().unwrap()]);
    host::run("mount", &["-o", kind.options, image.to_str().unwrap(), point.to_str().unwrap()]);
    let store = Store::open(&path, &options().sync(sync))
        .unwrap_or_else(|error| panic!("{}, sparse {is_sparse}, {sync:?}: {error}", kind.name));
    assert_there(&store, &acked);
    append_durable(&store, 0, 1 << 40);
    store.close().unwrap();
}

#[test]
fn ext4() {
    run("ext4", &EXT4);
}

#[test]
fn xfs() {
    run("xfs", &XFS);
}
