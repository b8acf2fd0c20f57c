//! Of the superblock's copies any three may be damaged: the store opens, says which, and writes them again. With none
//! left it is no store (fault matrix row 20), and a device that fails a superblock write fails the open by name.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/fuse.rs"]
mod fuse;
#[path = "common/host.rs"]
mod host;
#[path = "common/stores.rs"]
mod stores;

use corelog::OpenError;
use disk::{Effect, Fault, Verb};
use fuse::Mounted;
use stores::{STORE_BYTES, append_durable, assert_there, options};

/// Sides A and B, each written twice.
const COPIES: [u64; 4] = [0, 128 << 10, 64 << 10, 192 << 10];

#[test]
fn damaged_copies_are_named_and_written_again() {
    let Some(folder) = host::with_fuse("damaged_copies_are_named_and_written_again") else { return };
    let device = Mounted::new(&folder, STORE_BYTES);
    device.format(2, stores::EXTENT_BYTES);
    let store = device.open(&options()).unwrap();
    let acked: Vec<_> = (0..10).map(|name| append_durable(&store, (name % 2) as u16, name)).collect();
    store.close().unwrap();
    for whole in COPIES {
        let mut damaged: Vec<u64> = COPIES.into_iter().filter(|copy| *copy != whole).collect();
        damaged.iter().for_each(|offset| device.disk.flip(offset + 40, 1));
        let store = device
            .open(&options())
            .unwrap_or_else(|error| panic!("only the copy at {whole} was whole: {error}"));
        let mut named: Vec<u64> =
            store.recovery().bad_superblock_copies.iter().map(|(_, byte)| *byte).collect();
        named.sort_unstable();
        damaged.sort_unstable();
        assert_eq!(named, damaged);
        assert_there(&store, &acked);
        store.close().unwrap();
        // The open and the close wrote one side each.
        let store = device.open(&options()).unwrap();
        assert_eq!(store.recovery().bad_superblock_copies, [], "they were written again");
        store.close().unwrap();
    }
    COPIES.iter().for_each(|offset| device.disk.flip(offset + 40, 1));
    let error = device.open(&options()).unwrap_err();
    assert!(matches!(error, OpenError::Superblock { .. }), "{error}");
}

#[test]
fn an_open_that_cannot_write_its_superblock_fails_and_changes_nothing() {
    let test = "an_open_that_cannot_write_its_superblock_fails_and_changes_nothing";
    let Some(folder) = host::with_fuse(test) else { return };
    let device = Mounted::new(&folder, STORE_BYTES);
    device.format(2, stores::EXTENT_BYTES);
    let store = device.open(&options()).unwrap();
    let acked: Vec<_> = (0..10).map(|name| append_durable(&store, (name % 2) as u16, name)).collect();
    store.close().unwrap();
    drop(store);
    for verb in [Verb::Write, Verb::Sync] {
        device.disk.add(Fault::once(verb, Effect::Errno(libc::EIO)));
        let error = device.open(&options()).unwrap_err();
        assert!(matches!(error, OpenError::File(_)), "{verb:?}: {error}");
        device.disk.mend();
        let store = device.open(&options()).unwrap();
        assert_there(&store, &acked);
        store.close().unwrap();
    }
}
