//! A slow device makes appends slow and nothing else; one that hangs ends each wait with `Stalled` in time, its buffers
//! stay with the device, and when it goes on everything arrives (fault matrix row 27).
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/fuse.rs"]
mod fuse;
#[path = "common/host.rs"]
mod host;
#[path = "common/stores.rs"]
mod stores;

use corelog::{AppendError, Durability, Route, ShardId, WaitError};
use disk::{Effect, Fault, Verb};
use fuse::Mounted;
use std::time::{Duration, Instant};
use stores::{Acked, HALVES, STORE_BYTES, append_durable, assert_there, options, payload};

#[test]
fn a_device_that_takes_30_ms_is_waited_for() {
    let Some(folder) = host::with_fuse("a_device_that_takes_30_ms_is_waited_for") else { return };
    let device = Mounted::new(&folder, STORE_BYTES);
    device.format(2, stores::EXTENT_BYTES);
    let store = device.open(&options()).unwrap();
    let slow = Duration::from_millis(30);
    for verb in [Verb::Write, Verb::Sync, Verb::Read] {
        device.disk.add(Fault::always(verb, Effect::Slow(slow)));
    }
    let start = Instant::now();
    let acked: Vec<_> = (0..5).map(|name| append_durable(&store, 0, name)).collect();
    assert!(start.elapsed() >= 5 * 2 * slow, "each waited for its write and its sync");
    assert_there(&store, &acked);
    store.close().unwrap();
}

#[test]
fn a_device_that_hangs_is_named_in_time_and_loses_nothing_when_it_goes_on() {
    let test = "a_device_that_hangs_is_named_in_time_and_loses_nothing_when_it_goes_on";
    let Some(folder) = host::with_fuse(test) else { return };
    let device = Mounted::new(&folder, STORE_BYTES);
    device.format(2, stores::EXTENT_BYTES);
    let limit = Duration::from_millis(700);
    let store = device.open(&options().stall(limit)).unwrap();
    append_durable(&store, 0, 0);
    device.disk.add(Fault::always(Verb::Write, Effect::Hold).within(HALVES[0].clone()));

    let ticket = store.append_to(Route::Shard(ShardId(0)), &payload(1)).unwrap();
    let start = Instant::now();
    let stalled = ticket.wait(Durability::Durable).unwrap_err();
    assert!(matches!(stalled, WaitError::Stalled { shard: ShardId(0), .. }), "{stalled}");
    assert!(start.elapsed() >= limit && start.elapsed() < limit + Duration::from_secs(5));

    // All buffers fill up and stay with the device; then appending stalls too, and takes nothing.
    let mut accepted = vec![Acked { name: 1, address: ticket.address() }];
    let refused = (2..)
        .find_map(|name| match store.append_to(Route::Shard(ShardId(0)), &payload(name)) {
            Ok(ticket) => {
                accepted.push(Acked { name, address: ticket.address() });
                None
            }
            Err(error) => Some(error),
        })
        .unwrap();
    assert!(matches!(refused, AppendError::Stalled { shard: ShardId(0), .. }), "{refused}");
    assert!(accepted.len() > 100, "four buffers were filled first");
    assert_eq!(store.failure(ShardId(0)), None, "slow is not failed");
    assert_eq!(store.failure(ShardId(1)), None);

    device.disk.mend();
    // As a device that was slow for long, the machine of the test may be slow now.
    let last = accepted.last().unwrap().address;
    let arrives = Instant::now() + Duration::from_secs(20);
    while store.flush(ShardId(0), Durability::Durable).is_err() {
        assert!(Instant::now() < arrives, "{last} never arrived");
    }
    let mut acked = accepted;
    acked.extend((5000..5010).map(|name| append_durable(&store, 1, name)));
    assert_there(&store, &acked);
    device.disk.cut_power_and_lose_the_cache();
    drop(store);
    device.disk.restore_power();
    let store = device.open(&options()).unwrap();
    assert_there(&store, &acked);
    store.close().unwrap();
}
