//! A slot that the device cannot read is named by the read that meets it, and its neighbours are read; so is one whose
//! bits changed (fault matrix rows 12 and 19; P2, P7).
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/fuse.rs"]
mod fuse;
#[path = "common/host.rs"]
mod host;
#[path = "common/stores.rs"]
mod stores;

use corelog::{Address, Durability, ReadError, Route, ShardId, Store};
use disk::{BLOCK, Effect, Fault, Verb};
use fuse::Mounted;
use std::path::Path;
use stores::{Acked, STORE_BYTES, append_durable, assert_there, byte_of, options, payload};

/// A reopened store with a frame for each record, so that reads go to the device and records lie in slots of their
/// own.
fn reopened(folder: &Path) -> (Mounted, Store, Vec<Acked>) {
    let device = Mounted::new(folder, STORE_BYTES);
    device.format(2, stores::EXTENT_BYTES);
    let store = device.open(&options()).unwrap();
    let acked = (0..20).map(|name| append_durable(&store, (name % 2) as u16, name)).collect();
    store.close().unwrap();
    drop(store);
    let store = device.open(&options()).unwrap();
    (device, store, acked)
}

fn assert_names_its_slot(store: &Store, address: Address, error: &ReadError) {
    let geometry = store.directory().layout.geometry();
    match error {
        ReadError::Io { slot, slots, errno, .. } => {
            let needed = address.slot(geometry);
            assert!(*slot <= needed && needed.0 < slot.0 + slots, "{error}");
            assert_eq!(errno.0, libc::EIO);
        }
        ReadError::Corrupt { slot, address: named, .. } => {
            assert_eq!((*slot, *named), (address.slot(geometry), address));
        }
        _ => panic!("{error}"),
    }
}

#[test]
fn a_read_that_fails_names_the_slot_and_hides_no_neighbour() {
    let Some(folder) = host::with_fuse("a_read_that_fails_names_the_slot_and_hides_no_neighbour") else {
        return;
    };
    let (device, store, acked) = reopened(&folder);
    let broken = acked[9];
    let block = byte_of(&store, broken.address) / BLOCK * BLOCK;
    device.disk.add(Fault::always(Verb::Read, Effect::Errno(libc::EIO)).within(block..block + BLOCK));
    assert_names_its_slot(&store, broken.address, &store.read(broken.address).unwrap_err());
    let others: Vec<_> = acked.iter().copied().filter(|record| record.name != broken.name).collect();
    assert_there(&store, &others);
    // A record whose read is merged with its neighbours' fails alone.
    append_durable(&store, 1, 500);
    assert_eq!(store.failure(ShardId(1)), None, "a failed read stops no shard");
    device.disk.mend();
    assert_there(&store, &acked);
    store.close().unwrap();
}

#[test]
fn a_flipped_bit_is_damage_with_its_place_and_hides_no_neighbour() {
    let test = "a_flipped_bit_is_damage_with_its_place_and_hides_no_neighbour";
    let Some(folder) = host::with_fuse(test) else { return };
    let (device, store, acked) = reopened(&folder);
    let broken = acked[9];
    device.disk.flip(byte_of(&store, broken.address) + 12, 0x10);
    assert_names_its_slot(&store, broken.address, &store.read(broken.address).unwrap_err());
    let others: Vec<_> = acked.iter().copied().filter(|record| record.name != broken.name).collect();
    assert_there(&store, &others);
    let ticket = store.append_to(Route::Shard(ShardId(1)), &payload(500)).unwrap();
    ticket.wait(Durability::Durable).unwrap();
    store.close().unwrap();
}
