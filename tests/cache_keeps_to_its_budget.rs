//! What a cache takes of the process's memory is its budget at the most, whatever the records are like; and a hit takes
//! none.
//!
//! The store is driven by the thread of the test; the allocator of this program counts what is allocated and held.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "counting needs an allocator of our own")]

use corelog::{Address, AppendError, Core, FormatOptions, Options, ReadError, Route, Store, Turn};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

struct Counting;

std::thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static HELD: Cell<i64> = const { Cell::new(0) };
}

/// Bytes that the allocator of the C library takes for a request: a word in front, in steps of 16.
fn taken(bytes: usize) -> i64 {
    (bytes + 8).next_multiple_of(16).max(32) as i64
}

fn count(allocations: u64, held: i64) {
    // A thread that is ending has no counters any more; nothing is counted there.
    let _ended = ALLOCATIONS.try_with(|counter| counter.set(counter.get() + allocations));
    let _ended = HELD.try_with(|counter| counter.set(counter.get() + held));
}

// SAFETY: every call goes on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, taken(layout.size()));
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, -taken(layout.size()));
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, taken(size) - taken(layout.size()));
        // SAFETY: as the caller promised.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const BUDGET: u64 = 1 << 20;
/// Reads under way at a time.
const GROUP: usize = 64;

/// A store of records of one length, four times what the budget holds, and the core that the thread drives.
struct Bench {
    _folder: tempfile::TempDir,
    store: Store,
    core: Core,
    addresses: Vec<Address>,
}

impl Bench {
    fn new(length: usize, cache_bytes: u64) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = folder.path().join("store");
        Store::format(&[&path], &FormatOptions::sized(64 << 20).shards(1).extent_bytes(1 << 20).sparse())
            .unwrap();
        let options =
            Options::default().cores(1).huge_pages(false).buffer_bytes(64 << 10).cache_bytes(cache_bytes);
        let mut opening = Store::open_owned(&[&path], &options).unwrap();
        let mut core = opening.take_seats().remove(0).start().unwrap();
        let store = opening.store().unwrap();
        let mut addresses = Vec::new();
        for _ in 0..4 * BUDGET / (length as u64 + 100) {
            let payload = vec![5; length];
            loop {
                match store.try_append(Route::Local, &payload) {
                    Ok(ticket) => break addresses.push(ticket.address()),
                    Err(refused) => assert!(matches!(refused.error, AppendError::Full { .. }), "{refused}"),
                }
                turn(&mut core);
            }
        }
        let last = addresses.len() - 1;
        let mut bench = Self { _folder: folder, store, core, addresses };
        // The last frame is on the device once a record of it is read from there.
        while bench.store.stats().reads.from_device == 0 {
            let _sealed_or_not = bench.store.shards()[0].seal_for_flush();
            (0..100).for_each(|_| turn(&mut bench.core));
            bench.read(last..=last);
        }
        bench
    }

    fn read(&mut self, which: std::ops::RangeInclusive<usize>) {
        let mut context = Context::from_waker(Waker::noop());
        let mut left: Vec<_> =
            self.addresses[which].iter().map(|address| self.store.read_async(*address).unwrap()).collect();
        while let Some(mut reading) = left.pop() {
            loop {
                match Pin::new(&mut reading).poll(&mut context) {
                    Poll::Ready(result) => break drop(result.unwrap()),
                    Poll::Pending => turn(&mut self.core),
                }
            }
        }
    }

    /// What reading everything twice leaves behind, in bytes.
    fn held_by_reading(&mut self) -> i64 {
        let before = HELD.get();
        for _ in 0..2 {
            for first in (0..self.addresses.len() - GROUP).step_by(GROUP) {
                self.read(first..=first + GROUP - 1);
            }
        }
        HELD.get() - before
    }
}

fn turn(core: &mut Core) {
    if core.turn() == Turn::Idle {
        core.wait(Some(std::time::Duration::from_millis(1)));
    }
}

#[test]
fn the_budget_holds_with_everything_that_a_record_takes() {
    for length in [1, 100, 1000, 4000, 60_000] {
        let without = Bench::new(length, 0).held_by_reading();
        let mut bench = Bench::new(length, BUDGET);
        let with = bench.held_by_reading();
        let (held, says) = (with - without, bench.store.stats().reads.cache_bytes as i64);
        println!("records of {length}: {held} bytes are held, and {says} are charged, of {BUDGET}");
        assert!(held <= BUDGET as i64, "records of {length}: {held} of {BUDGET} bytes");
        assert!(says <= BUDGET as i64 && says > BUDGET as i64 / 2, "records of {length}: {says} are charged");
        assert!(held > says / 3, "records of {length}: {held} held, {says} charged");
    }
}

#[test]
fn a_record_of_more_than_its_share_is_not_kept() {
    let mut bench = Bench::new(BUDGET as usize / 32, BUDGET / 2);
    bench.read(0..=0);
    assert!(bench.store.stats().reads.cache_bytes > 0);
    let mut bench = Bench::new(BUDGET as usize / 32 + 1, BUDGET / 2);
    bench.read(0..=0);
    assert_eq!(bench.store.stats().reads.cache_bytes, 0);
}

#[test]
fn a_hit_allocates_nothing_and_copies_nothing() {
    let mut bench = Bench::new(1000, BUDGET);
    bench.read(0..=99);
    let before = ALLOCATIONS.get();
    let mut bytes = 0;
    for _ in 0..10 {
        for address in &bench.addresses[..100] {
            bytes += bench.store.read_cached(*address).unwrap().len();
        }
    }
    assert_eq!((bytes, ALLOCATIONS.get() - before), (1_000_000, 0));
    // From a thread without a core, and through the call that may wait.
    let (store, addresses) = (bench.store.clone(), bench.addresses.clone());
    let reader = std::thread::spawn(move || {
        let read = |index: usize| -> Result<usize, ReadError> { Ok(store.read(addresses[index])?.len()) };
        read(0).unwrap();
        let before = ALLOCATIONS.get();
        let bytes: usize = (0..100).map(|index| read(index).unwrap()).sum();
        (bytes, ALLOCATIONS.get() - before)
    });
    assert_eq!(reader.join().unwrap(), (100_000, 0));
}
