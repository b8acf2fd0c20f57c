//! In the steady state neither an append nor the core's turn, nor a group commit, allocates memory. Only a checkpoint
//! does, a few times for its list: one in 64 MiB of the log, unless the options say otherwise.
//!
//! The store is driven by one thread, whose allocations are counted by the allocator of this test program.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "counting needs an allocator of our own")]

use corelog::{
    Address, AppendError, Core, Durability, FormatOptions, Options, Route, ShardId, Store, Turn,
    limits::CHECKPOINT_BYTES_MAX,
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    future::Future,
    io::IoSlice,
    pin::pin,
    task::{Context, Waker},
};

struct Counting;

std::thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending has no counter any more; nothing is counted there.
    let _ended = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: every call goes on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller promised.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Appends one record, turning the core while its ring is full.
fn append<'store>(store: &'store Store, core: &mut Core, payload: &[u8]) -> corelog::Ticket<'store> {
    loop {
        match store.try_append(Route::Local, payload) {
            Ok(ticket) => return ticket,
            Err(refused) => assert!(matches!(refused.error, AppendError::Full { .. }), "{refused}"),
        }
        if core.turn() == Turn::Idle {
            core.wait(None);
        }
    }
}

/// The same in three ways: in one piece, gathered, and written in place.
fn append_as(way: u32, store: &Store, payload: &[u8]) -> Result<Address, AppendError> {
    let (head, tail) = payload.split_at(payload.len() / 3);
    match way % 4 {
        0 => {
            let pieces = [IoSlice::new(head), IoSlice::new(tail)];
            store.try_append_vectored(Route::Local, &pieces).map(|ticket| ticket.address())
        }
        1 => {
            let mut reservation = store.try_reserve(Route::Local, payload.len())?;
            reservation.payload_mut().copy_from_slice(payload);
            Ok(reservation.commit().address())
        }
        2 => {
            let mut reservation = store.try_reserve(Route::Local, payload.len())?;
            reservation.payload_mut()[..head.len()].copy_from_slice(head);
            Ok(reservation.commit_shorter(head.len()).address())
        }
        _ => store.try_append(Route::Local, payload).map(|ticket| ticket.address()).map_err(|it| it.error),
    }
}

fn make_durable(core: &mut Core, ticket: corelog::Ticket<'_>) {
    let mut reached = pin!(ticket.reached(Durability::Durable));
    let mut context = Context::from_waker(Waker::noop());
    while reached.as_mut().poll(&mut context).is_pending() {
        if core.turn() == Turn::Idle {
            core.wait(None);
        }
    }
}

/// Allocations of 40,000 appends and 400 group commits, and the checkpoints that they brought about.
fn allocations_of_appending(options: &Options) -> (u64, u64) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("store");
    Store::format(&[&path], &FormatOptions::sized(256 << 20).shards(1).sparse()).unwrap();
    let mut opening = Store::open_owned(&[&path], &options.clone().cores(1)).unwrap();
    let mut core = opening.take_seats().remove(0).start().unwrap();
    let store = opening.store().unwrap();
    let payload = [7_u8; 1000];
    let mut work = |records: u32| {
        let mut newest = store.space(ShardId(0)).unwrap().checkpoint;
        let (mut allocated, mut checkpoints) = (0, 0);
        for index in 0..records {
            let before = ALLOCATIONS.get();
            let ticket = append(&store, &mut core, &payload);
            if let Err(error) = append_as(index, &store, &payload) {
                assert!(matches!(error, AppendError::Full { .. }), "{error}");
            }
            if index % 50 == 0 {
                make_durable(&mut core, ticket);
            }
            allocated += ALLOCATIONS.get() - before;
            // The look itself copies what it sees.
            let seen = store.space(ShardId(0)).unwrap().checkpoint;
            checkpoints += u64::from(seen != newest);
            newest = seen;
        }
        (allocated, checkpoints)
    };
    work(20_000);
    work(20_000)
}

#[test]
fn appends_turns_and_group_commits_allocate_nothing_once_they_are_warm() {
    let (allocated, _) = allocations_of_appending(&Options::default().checkpoint_bytes(CHECKPOINT_BYTES_MAX));
    assert_eq!(allocated, 0, "40,000 appends and 400 group commits allocated {allocated} times");
}

#[test]
fn a_checkpoint_allocates_its_list_and_nothing_else_does() {
    let (allocated, checkpoints) = allocations_of_appending(&Options::default().checkpoint_bytes(1 << 20));
    assert!(checkpoints > 10, "{checkpoints} checkpoints in 40 MB of log");
    // One more may have been begun than ended.
    assert!(allocated <= 8 * (checkpoints + 1), "{checkpoints} checkpoints allocated {allocated} times");
}
