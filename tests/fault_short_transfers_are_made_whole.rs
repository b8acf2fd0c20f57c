//! A write that moves only a part of its bytes is made whole before anything of it is acknowledged, and a read that
//! does is continued; with io_uring and with threads (fault matrix rows 17 and 18).
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/fuse.rs"]
mod fuse;
#[path = "common/host.rs"]
mod host;
#[path = "common/stores.rs"]
mod stores;

use corelog::{Backend, Durability, ReadError, Route, ShardId};
use disk::{Effect, Fault, Verb};
use fuse::Mounted;
use stores::{Acked, HALVES, STORE_BYTES, append_durable, assert_there, byte_of, options, payload};

fn with_every_backend(test: &str, run: impl Fn(&Mounted, Backend)) {
    let Some(folder) = host::with_fuse(test) else { return };
    for backend in [Backend::IoUring, Backend::Threads] {
        let device = Mounted::new(&folder, STORE_BYTES);
        device.format(2, stores::EXTENT_BYTES);
        run(&device, backend);
    }
}

#[test]
fn a_short_write_is_not_taken_for_a_whole_one() {
    with_every_backend("a_short_write_is_not_taken_for_a_whole_one", |device, backend| {
        let store = device.open(&options().backend(backend)).unwrap();
        append_durable(&store, 0, 0);
        let mut acked = Vec::new();
        for (round, moved) in [0, 100, 512, 4096, 4097, 8192].into_iter().enumerate() {
            // Several slots, of which the first part arrives.
            let tickets: Vec<_> = (0..30)
                .map(|count| {
                    let name = (round * 100 + count) as u64;
                    let ticket = store.append_to(Route::Shard(ShardId(0)), &payload(name)).unwrap();
                    Acked { name, address: ticket.address() }
                })
                .collect();
            device.disk.add(Fault::once(Verb::Write, Effect::Short(moved)).within(HALVES[0].clone()));
            store
                .flush(ShardId(0), Durability::Durable)
                .unwrap_or_else(|error| panic!("{backend:?}, {moved}: {error}"));
            acked.extend(tickets);
        }
        assert_eq!(device.disk.counts().faults, 6);
        device.disk.cut_power_and_lose_the_cache();
        let _failed = store.close();
        device.disk.restore_power();
        let store = device.open(&options()).unwrap();
        assert_there(&store, &acked);
        store.close().unwrap();
    });
}

#[test]
fn a_short_read_is_continued_and_a_device_that_ends_is_named() {
    with_every_backend("a_short_read_is_continued_and_a_device_that_ends_is_named", |device, backend| {
        let store = device.open(&options().backend(backend)).unwrap();
        let acked: Vec<_> = (0..30).map(|name| append_durable(&store, 0, name)).collect();
        for moved in [512, 100] {
            device.disk.add(Fault::once(Verb::Read, Effect::Short(moved)));
            // Of a FUSE file this kernel's io_uring continues a short read itself, from the wrong place: then the
            // checksum fails, and other bytes are never returned.
            match store.read(acked[0].address) {
                Ok(bytes) => assert_eq!(bytes, payload(acked[0].name)),
                Err(ReadError::Corrupt { .. }) if backend == Backend::IoUring => {}
                Err(error) => panic!("{backend:?}, {moved}: {error}"),
            }
            assert_there(&store, &acked);
        }
        // Truncated under the running store.
        let last = acked[29].address;
        device.disk.resize(byte_of(&store, last) / disk::BLOCK * disk::BLOCK);
        let error = store.read(last).unwrap_err();
        assert!(matches!(error, ReadError::Truncated { found: 0, .. }), "{backend:?}: {error}");
        assert_there(&store, &acked[..20]);
        device.disk.resize(STORE_BYTES);
        store.close().unwrap();
    });
}
