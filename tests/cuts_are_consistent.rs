//! Cuts of a store that is appended to: what follows a record is never in a cut without it, whichever thread appended it
//! and in whichever shard; a cut holds what had been accepted, and scans of it give that and nothing else, also after a
//! reopen.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Over, Place};
use corelog::{AppendPath, Cut, Durability, FormatOptions, Route, ShardId, Store};
use std::{
    collections::HashSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
};

const SHARDS: u16 = 4;

/// By all threads, so that cuts are made in the midst of appends.
static APPENDED: AtomicU64 = AtomicU64::new(0);

/// An append: who followed whom is the order of the list.
type Chain = Vec<(u64, ShardId, corelog::FrameNumber)>;

fn name(record: &corelog::Record) -> u64 {
    u64::from_le_bytes(record.payload[..8].try_into().unwrap())
}

fn append(store: &Store, name: u64, shard: u64) -> (u64, ShardId, corelog::FrameNumber) {
    let mut payload = vec![0; 8 + (name % 300) as usize];
    payload[..8].copy_from_slice(&name.to_le_bytes());
    let ticket =
        store.append_to(Route::Shard(ShardId((shard % u64::from(SHARDS)) as u16)), &payload).unwrap();
    let id = ticket.id();
    APPENDED.fetch_add(1, Ordering::Relaxed);
    (name, id.shard, id.frame)
}

/// What is in the cut is a beginning of the chain.
fn assert_beginning(cut: &Cut, chain: &Chain) {
    let first_out = chain.iter().position(|(_, shard, frame)| !cut.has(*shard, *frame));
    let Some(first_out) = first_out else { return };
    let back = chain[first_out..].iter().find(|(_, shard, frame)| cut.has(*shard, *frame));
    assert_eq!(back, None, "it follows {:?}, which is not in {cut:?}", chain[first_out]);
}

/// Chains that go from shard to shard, in each thread, and from thread to thread: two threads throw a ball.
#[test]
fn no_cut_has_what_follows_without_what_it_follows() {
    for path in [AppendPath::Direct, AppendPath::Routed] {
        let format = FormatOptions::sized(1 << 30).shards(u32::from(SHARDS)).extent_bytes(1 << 20).sparse();
        let place = Place::with(&format);
        let store = Store::open(&place.path, &common::options(2).append(path)).unwrap();
        let is_over = AtomicBool::new(false);
        let (store, is_over) = (&store, &is_over);
        let (cuts, chains) = std::thread::scope(|scope| {
            let alone: Vec<_> = (0..2_u64)
                .map(|thread| {
                    scope.spawn(move || {
                        let mut chain = Chain::new();
                        while !is_over.load(Ordering::Relaxed) && chain.len() < 100_000 {
                            let count = chain.len() as u64;
                            chain.push(append(store, thread << 32 | count, count * (2 * thread + 1)));
                        }
                        chain
                    })
                })
                .collect();
            let ((to_right, from_left), (to_left, from_right)) = (mpsc::channel(), mpsc::channel());
            to_right.send(Chain::new()).unwrap();
            let (thrown, throws) = (Mutex::new(Chain::new()), AtomicU64::new(0));
            let catch = |from: mpsc::Receiver<Chain>, to: mpsc::Sender<Chain>, step: u64| {
                let (thrown, throws) = (&thrown, &throws);
                move || {
                    let _over = Over(is_over);
                    while let Ok(mut chain) = from.recv() {
                        let count = chain.len() as u64;
                        chain.push(append(store, 7 << 32 | count, count * step + 1));
                        throws.store(chain.len() as u64, Ordering::Relaxed);
                        if is_over.load(Ordering::Relaxed) {
                            *thrown.lock().unwrap() = chain;
                            return;
                        }
                        to.send(chain).unwrap();
                    }
                }
            };
            let cuts = std::thread::scope(|players| {
                let _over = Over(is_over);
                players.spawn(catch(from_left, to_left, 3));
                players.spawn(catch(from_right, to_right, 1));
                let cut = |_| {
                    let target = APPENDED.load(Ordering::Relaxed) + 8;
                    while APPENDED.load(Ordering::Relaxed) < target && !is_over.load(Ordering::Relaxed) {
                        std::thread::yield_now();
                    }
                    store.cut()
                };
                let mut cuts: Vec<Cut> = (0..300).map(cut).collect();
                // Two threads that wait for each other may have been slower than those that wait for nobody.
                while throws.load(Ordering::Relaxed) <= 100 && !is_over.load(Ordering::Relaxed) {
                    cuts.push(cut(0));
                }
                cuts
            });
            let mut chains: Vec<Chain> = alone.into_iter().map(|it| it.join().unwrap()).collect();
            chains.push(thrown.into_inner().unwrap());
            (cuts, chains)
        });
        assert!(
            chains.iter().all(|chain| chain.len() > 100),
            "{:?}",
            chains.iter().map(Vec::len).collect::<Vec<_>>()
        );
        let is_within = |cut: &&Cut| {
            chains.iter().any(|chain| chain.iter().any(|(_, shard, frame)| !cut.has(*shard, *frame)))
        };
        assert!(cuts.iter().filter(is_within).count() > 100, "{path:?}: hardly a cut was made in between");
        for cut in &cuts {
            chains.iter().for_each(|chain| assert_beginning(cut, chain));
        }
        store.close().unwrap();
    }
}

/// Everything that was accepted before is in the cut, nothing that is appended later is, and its scans agree.
#[test]
fn scans_of_a_cut_give_what_is_in_it() {
    let place = Place::formatted(u32::from(SHARDS));
    let options = common::options(2);
    let store = Store::open(&place.path, &options).unwrap();
    assert_eq!(store.scan_all_cut(&store.cut()).unwrap().count(), 0, "an empty store");
    let next = AtomicU64::new(0);
    let many = |count: u64| {
        for _ in 0..count {
            let name = next.fetch_add(1, Ordering::Relaxed);
            append(&store, name, name * 7 / 3);
        }
    };
    many(3000);
    let cut = store.cut();
    many(2000);
    store.wait_for_cut(&cut, Durability::Durable).unwrap();
    for shard in 0..SHARDS {
        let marks = store.watermarks(ShardId(shard)).unwrap();
        assert!(marks.durable >= cut.frame(ShardId(shard)).unwrap(), "{marks:?}");
    }
    let names = |store: &Store| -> HashSet<u64> {
        store.scan_all_cut(&cut).unwrap().map(|record| name(&record.unwrap())).collect()
    };
    let expected: HashSet<u64> = (0..3000).collect();
    assert_eq!(names(&store), expected);
    let by_shard: usize = (0..SHARDS).map(|it| store.scan_cut(&cut, ShardId(it)).unwrap().count()).sum();
    assert_eq!(by_shard, expected.len());
    assert_eq!(store.scan_all().unwrap().count(), 5000);
    let text = serde_json::to_string(&cut).unwrap();
    assert_eq!(serde_json::from_str::<Cut>(&text).unwrap(), cut);
    common::block_on(store.wait_for_cut_async(&store.cut(), Durability::Durable)).unwrap();
    store.close().unwrap();
    assert_eq!(store.cut().store(), store.id());
    let store = Store::open(&place.path, &options).unwrap();
    assert_eq!(names(&store), expected, "a cut outlives the open that made it");
    store.close().unwrap();
}
