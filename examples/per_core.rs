//! A thread per core that runs the application's work and its shard in turn: no message, no lock and no shared cache
//! line between the two.
//!
//! `per_core [FOLDER]` makes its store in a temporary folder of FOLDER (the working folder by default).
use corelog::{AppendError, Durability, FormatOptions, Options, Route, Seat, Store, Ticket, Turn};
use std::{
    error::Error,
    future::Future,
    pin::pin,
    sync::mpsc,
    task::{Context, Waker},
    thread,
};

const RECORDS: u32 = 50_000;

/// The life of one thread: start the core, get the store, append, make it durable, close.
fn work(seat: Seat, stores: &mpsc::Receiver<Store>) -> Result<String, Box<dyn Error + Send + Sync>> {
    if !seat.pin() {
        println!("core {}: the host does not let it be pinned", seat.core());
    }
    // Built on this thread, which drives it from now on.
    let mut core = seat.start()?;
    let store = stores.recv()?;
    let mut last: Option<Ticket<'_>> = None;
    for number in 0..RECORDS {
        let record = format!("record {number} of core {}", core.id());
        last = loop {
            match store.try_append(Route::Local, &record) {
                Ok(ticket) => break Some(ticket),
                Err(refused) if matches!(refused.error, AppendError::Full { .. }) => {}
                Err(refused) => return Err(refused.error.into()),
            }
            // The ring is full: let the core write, and sleep if it has nothing to do but wait.
            if core.turn() == Turn::Idle {
                core.wait(None);
            }
        };
    }
    if let Some(last) = last {
        let mut durable = pin!(last.reached(Durability::Durable));
        let mut context = Context::from_waker(Waker::noop());
        while durable.as_mut().poll(&mut context)?.is_pending() {
            if core.turn() == Turn::Idle {
                core.wait(None);
            }
        }
    }
    let shard = store.route(Route::Local);
    let marks = store.watermarks(shard).ok_or("the shard is there")?;
    let report =
        format!("core {}: {RECORDS} records durable in {} frames of {shard:?}", core.id(), marks.durable);
    drop(store);
    // Dropping the core closes its shards.
    Ok(report)
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir_in(std::env::args().nth(1).unwrap_or_else(|| ".".to_owned()))?;
    let path = folder.path().join("per-core.corelog");
    Store::format(&[&path], &FormatOptions::sized(256 << 20).extent_bytes(16 << 20))?;
    let mut opening = Store::open_owned(&[&path], &Options::default())?;
    let mut senders = Vec::new();
    let mut threads = Vec::new();
    for seat in opening.take_seats() {
        let (sender, stores) = mpsc::channel();
        senders.push(sender);
        threads.push(thread::spawn(move || work(seat, &stores)));
    }
    // All seats have started by then.
    let store = opening.store()?;
    for sender in senders {
        sender.send(store.clone())?;
    }
    drop(store);
    for thread in threads {
        println!("{}", thread.join().map_err(|_| "a thread panicked")?.map_err(|error| error.to_string())?);
    }
    Ok(())
}
