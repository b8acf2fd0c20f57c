//! A device that says it synced and did not breaks its word: then the log cannot be kept, but opening names what is
//! missing and where, and never shows a shorter log as whole (fault matrix rows 23 and 25; P2).
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/fuse.rs"]
mod fuse;
#[path = "common/host.rs"]
mod host;
#[path = "common/stores.rs"]
mod stores;

use corelog::{OpenError, RecoveryError, Store};
use disk::{Effect, Fault, Verb};
use fuse::Mounted;
use std::path::Path;
use stores::{Acked, EXTENT_BYTES, HALVES, STORE_BYTES, append_durable, options};

/// A store with a few records that are really durable, and the device lying from then on.
fn lying(folder: &Path) -> (Mounted, Store, Vec<Acked>) {
    let device = Mounted::new(folder, STORE_BYTES);
    device.format(2, EXTENT_BYTES);
    let store = device.open(&options()).unwrap();
    let acked = (0..5).map(|name| append_durable(&store, 0, name)).collect();
    device.disk.add(Fault::always(Verb::Sync, Effect::Lie));
    (device, store, acked)
}

fn assert_lost(device: &Mounted, whole: &[Acked]) {
    device.disk.restore_power();
    let error = device.open(&options()).unwrap_err();
    match &error {
        OpenError::Recovery(RecoveryError::LostWrite { place, durable, .. }) => {
            assert_eq!(place.shard.0, 0, "{error}");
            assert!(place.frame < *durable, "{error}");
            assert!(place.on_device.is_some_and(|(_, byte)| HALVES[0].contains(&byte)), "{error}");
        }
        _ => panic!("{error}"),
    }
    // Salvage opens it, and lists what it gave up.
    let store = device.open(&options().salvage(true)).unwrap();
    let losses: usize = store.recovery().shards.iter().map(|shard| shard.losses.len()).sum();
    assert!(losses > 0);
    stores::assert_there(&store, whole);
    store.close().unwrap();
}

#[test]
fn later_frames_that_did_land_prove_the_lost_one() {
    let Some(folder) = host::with_fuse("later_frames_that_did_land_prove_the_lost_one") else { return };
    let (device, store, acked) = lying(&folder);
    for name in 100..110 {
        append_durable(&store, 0, name);
    }
    let cached = device.disk.cached();
    device.disk.cut_power_keeping(|index, _| index + 3 >= cached);
    let _failed = store.close();
    assert_lost(&device, &acked);
}

#[test]
fn a_closing_superblock_that_did_land_proves_the_lost_tail() {
    let test = "a_closing_superblock_that_did_land_proves_the_lost_tail";
    let Some(folder) = host::with_fuse(test) else { return };
    let (device, store, acked) = lying(&folder);
    for name in 100..110 {
        append_durable(&store, 0, name);
    }
    store.close().unwrap();
    device.disk.cut_power_keeping(|_, offset| offset < HALVES[0].start);
    assert_lost(&device, &acked);
}
