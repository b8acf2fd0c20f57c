//! A retired shard takes nothing, whichever call asks, also after a reopen; all routes but its id pass it by; what it
//! holds is read, and can be trimmed away.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Place, block_on, payload};
use corelog::{AppendError, AppendPath, Durability, Inspection, Options, RetireError, Route, ShardId, Store};

const SHARDS: u16 = 4;
const RETIRED: ShardId = ShardId(1);

fn to(shard: ShardId) -> Route {
    Route::Shard(shard)
}

fn fill(store: &Store, shard: ShardId, from: u64, count: u64) {
    for index in from..from + count {
        store.append_to(to(shard), &payload(u64::from(shard.0), index, 3000)).unwrap();
    }
    store.flush(shard, Durability::Durable).unwrap();
}

fn assert_refuses(store: &Store, shard: ShardId) {
    let assert_retired = |error: &AppendError| {
        assert!(matches!(error, AppendError::Retired { shard: found } if *found == shard), "{error}");
    };
    assert_retired(&store.append_to(to(shard), b"no").unwrap_err());
    let refused = store.try_append(to(shard), b"back").unwrap_err();
    assert_retired(&refused.error);
    assert_eq!(refused.payload, b"back");
    assert_retired(&block_on(store.append_async(to(shard), b"no")).unwrap_err());
    assert_retired(&store.reserve(to(shard), 9).err().unwrap());
    let mut large = store.append_large(to(shard)).unwrap();
    assert_retired(&large.append(&[7; 1 << 20]).and_then(|()| large.finish().map(|_| ())).unwrap_err());
    let mut batch = store.batch_over().unwrap();
    let appended = batch.append_to(to(shard), b"no");
    assert_retired(&appended.and_then(|()| batch.commit().map(|_| ())).unwrap_err());
}

fn keys(store: &Store) -> Vec<ShardId> {
    (0..4000).map(|key| store.route(Route::Key(key))).collect()
}

fn options(path: AppendPath) -> Options {
    common::options(2).append(path)
}

#[test]
fn every_call_is_refused_and_every_other_route_passes_it_by() {
    for path in [AppendPath::Direct, AppendPath::Routed] {
        let place = Place::formatted(SHARDS.into());
        let store = Store::open(&place.path, &options(path)).unwrap();
        (0..SHARDS).for_each(|shard| fill(&store, ShardId(shard), 0, 20));
        let before = keys(&store);
        let mut under_way = store.append_large(to(RETIRED)).unwrap();
        under_way.append(&[1; 300_000]).unwrap();
        store.retire_shard(RETIRED).unwrap();
        store.retire_shard(RETIRED).unwrap();
        let given_up = under_way.append(&[2; 300_000]).and_then(|()| under_way.finish().map(|_| ()));
        assert!(matches!(given_up, Err(AppendError::Retired { .. })), "{given_up:?}");
        let check = |store: &Store| {
            assert_eq!(store.is_retired(RETIRED), Some(true));
            assert_refuses(store, RETIRED);
            let after = keys(store);
            let moved = before.iter().zip(&after).filter(|(_, now)| **now == RETIRED).count();
            assert_eq!(moved, 0, "a key leads to the retired shard");
            assert!(before.iter().zip(&after).all(|(then, now)| then == now || *then == RETIRED));
            for shard in (0..SHARDS).map(ShardId).filter(|shard| *shard != RETIRED) {
                let came =
                    before.iter().zip(&after).filter(|(then, now)| then != now && **now == shard).count();
                assert!(came > 200, "{came} of 1000 keys moved to {shard:?}");
                store.append_to(to(shard), b"yes").unwrap();
            }
            for _ in 0..3 * SHARDS {
                assert_ne!(store.route(Route::RoundRobin), RETIRED);
                assert_ne!(store.append(b"local").unwrap().id().shard, RETIRED);
            }
            assert_eq!(store.scan(RETIRED).unwrap().map(Result::unwrap).count(), 20);
            after
        };
        let after = check(&store);
        store.close().unwrap();
        let store = Store::open(&place.path, &options(path)).unwrap();
        assert_eq!(check(&store), after, "keys stay where they are");
        store.retire_shard(ShardId(0)).unwrap();
        let later = keys(&store);
        assert!(after.iter().zip(&later).all(|(then, now)| then == now || *then == ShardId(0)));
        store.retire_shard(ShardId(3)).unwrap();
        assert!(keys(&store).iter().all(|shard| *shard == ShardId(2)));
        let last = store.retire_shard(ShardId(2)).unwrap_err();
        assert!(matches!(last, RetireError::LastShard { shard: ShardId(2) }), "{last}");
        let none = store.retire_shard(ShardId(9)).unwrap_err();
        assert!(matches!(none, RetireError::NoSuchShard { .. }), "{none}");
        store.close().unwrap();
        assert!(matches!(store.retire_shard(ShardId(2)), Err(RetireError::Closed)));
    }
}

#[test]
fn a_thread_that_drives_a_core_is_refused() {
    let place = Place::formatted(SHARDS.into());
    let mut opening = Store::open_owned(&[&place.path], &common::options(1)).unwrap();
    let mut core = opening.take_seats().remove(0).start().unwrap();
    let store = opening.store().unwrap();
    let _progress = core.turn();
    let error = store.retire_shard(RETIRED).unwrap_err();
    assert!(matches!(error, RetireError::OnCoreThread { .. }), "{error}");
    assert_eq!(store.is_retired(RETIRED), Some(false));
    std::thread::scope(|scope| scope.spawn(|| store.retire_shard(RETIRED)).join().unwrap()).unwrap();
    assert_eq!(store.is_retired(RETIRED), Some(true));
}

#[test]
fn what_it_holds_can_be_trimmed_away_and_new_shards_come_for_new_cores() {
    let place = Place::formatted(SHARDS.into());
    let store = Store::open(&place.path, &options(AppendPath::Direct)).unwrap();
    fill(&store, RETIRED, 0, 2000);
    store.retire_shard(RETIRED).unwrap();
    drop(store);
    let store = Store::open(&place.path, &options(AppendPath::Direct)).unwrap();
    let held = store.shard(RETIRED).unwrap().extents().len();
    assert!(held > 4, "{held}");
    let mut scan = store.scan(RETIRED).unwrap();
    assert_eq!(scan.by_ref().map(Result::unwrap).count(), 2000);
    store.trim(RETIRED, scan.resume_at().unwrap()).unwrap().wait().unwrap();
    let left = store.shard(RETIRED).unwrap().extents().len();
    assert!(left <= 2, "{left} extents are left of {held}");
    let kept = store.scan(RETIRED).unwrap().map(Result::unwrap).count();
    assert!(kept < 400, "{kept} records are in one extent of 1 MiB");
    store.close().unwrap();

    let cores = u32::from(SHARDS);
    let store = Store::open(&place.path, &common::options(cores)).unwrap();
    assert_eq!(store.shards().len() as u32, cores + 1, "each core has a shard that takes appends");
    assert_refuses(&store, RETIRED);
    fill(&store, ShardId(SHARDS), 0, 20);
    store.close().unwrap();
    let report = Inspection::open(&[&place.path], &options(AppendPath::Direct)).unwrap();
    assert!(report.verify(None, &mut |_, _| {}).unwrap().is_good());
}
