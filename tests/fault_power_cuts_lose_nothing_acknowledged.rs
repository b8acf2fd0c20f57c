//! Power is cut again and again while several threads append. Of the writes that no sync covered any subset is lost,
//! some torn. What was acknowledged is there, and nothing comes back that was not appended (fault matrix rows 4 and 5
//! under the real io_uring; P1, P3).
//!
//! `CORELOG_CUTS` sets how many cuts (20 by default), `CORELOG_SEED` the seed.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/fuse.rs"]
mod fuse;
#[path = "common/host.rs"]
mod host;
#[path = "common/stores.rs"]
mod stores;

use corelog::{Durability, FrameOrder, Options, ReadError, Route, Store, SyncMethod};
use disk::Random;
use fuse::Mounted;
use std::{sync::Mutex, time::Duration};
use stores::{Acked, STORE_BYTES, assert_there, payload};

/// Everything that was appended, and what of it was acknowledged.
#[derive(Default)]
struct Log {
    appended: Mutex<Vec<Acked>>,
    acked: Mutex<Vec<Acked>>,
}

fn options(seed: u64) -> Options {
    let sync = if seed.is_multiple_of(3) { SyncMethod::Dsync } else { SyncMethod::Fdatasync };
    let order = if seed.is_multiple_of(5) { FrameOrder::Serialised } else { FrameOrder::TailLocalised };
    stores::options().cores(1 + (seed % 2) as u32).sync(sync).order(order)
}

/// Appends until the store fails.
fn append_until_the_end(store: &Store, log: &Log, mut random: Random) {
    loop {
        let name = random.next();
        let Ok(ticket) = store.append_to(Route::Key(name), &payload(name)) else { return };
        let record = Acked { name, address: ticket.address() };
        log.appended.lock().unwrap().push(record);
        if random.below(4) == 0 {
            let Ok(()) = ticket.wait(Durability::Durable) else { return };
            log.acked.lock().unwrap().push(record);
        }
    }
}

#[test]
fn what_was_acknowledged_survives_every_cut() {
    let Some(folder) = host::with_fuse("what_was_acknowledged_survives_every_cut") else { return };
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let seed = number("CORELOG_SEED", u64::from(std::process::id()));
    let cuts = number("CORELOG_CUTS", 20);
    println!("seed: CORELOG_SEED={seed}");
    let mut random = Random(seed);
    let device = Mounted::new(&folder, STORE_BYTES);
    let mut log = Log::default();
    for cut in 0..cuts {
        if cut % 5 == 0 {
            device.format(2, stores::EXTENT_BYTES);
            log = Log::default();
        }
        let store = device.open(&options(random.next())).unwrap();
        let random = &mut random;
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let (store, log, random) = (&store, &log, Random(random.next()));
                scope.spawn(move || append_until_the_end(store, log, random));
            }
            std::thread::sleep(Duration::from_millis(random.below(60)));
            device.disk.cut_power(random);
        });
        assert!(store.close().is_err(), "it had no device to close on");
        drop(store);
        device.disk.restore_power();
        let store = device.open(&options(random.next())).unwrap_or_else(|error| panic!("cut {cut}: {error}"));
        assert_there(&store, &log.acked.lock().unwrap());
        let mut gone = 0;
        for record in log.appended.lock().unwrap().iter() {
            match store.read(record.address) {
                Ok(bytes) => assert_eq!(bytes, payload(record.name), "cut {cut}: other bytes"),
                Err(
                    ReadError::Corrupt { .. } | ReadError::NoSuchAddress { .. } | ReadError::Reclaimed { .. },
                ) => gone += 1,
                Err(error) => panic!("cut {cut}: {error}"),
            }
        }
        let (appended, acked) = (log.appended.lock().unwrap().len(), log.acked.lock().unwrap().len());
        println!("cut {cut}: {appended} appended, {acked} acknowledged, {gone} gone");
        // What is gone may be written over from here on.
        log.appended.lock().unwrap().clear();
        store.close().unwrap();
    }
    assert!(!log.acked.lock().unwrap().is_empty());
}
