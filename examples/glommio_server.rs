//! A server on glommio with a task per core: each appends to its own core's shard and reads what the others appended.
//!
//! Without arguments it makes a store in a temporary folder, serves 200 requests per core, closes and looks at what is
//! there. `glommio_server STORE` serves without end and prints `ADDRESS CHECKSUM` of each record once it is durable:
//! kill it at any time, and everything that it printed is found by the next open.
use corelog::{Address, Durability, FormatOptions, Options, Route, Store};
use std::{
    error::Error,
    io::Write,
    path::Path,
    sync::{Arc, Mutex},
    time::Instant,
};

/// Durable records of all cores, as a server's index would have them.
type Index = Arc<Mutex<Vec<Address>>>;

async fn serve(
    store: &Store,
    core: u16,
    requests: u64,
    index: &Index,
    print: bool,
) -> Result<(), Box<dyn Error>> {
    for request in 0..requests {
        let record = format!("request {request} of core {core}, and the answer to it").repeat(8);
        // Local: this core's own shard, without a message to another thread.
        let ticket = store.append_async(Route::Local, record.as_bytes()).await?;
        ticket.reached(Durability::Durable).await?;
        if print {
            writeln!(std::io::stdout(), "{} {}", ticket.address(), checksum(record.as_bytes()))?;
        }
        // Somebody else's record; the index is not locked while it is read.
        let other = {
            let mut index = index.lock().map_err(|_| "a task panicked")?;
            index.push(ticket.address());
            index[request as usize % index.len()]
        };
        let read = store.read_async(other)?.await?;
        assert!(read.starts_with(b"request"), "a record of ours");
    }
    Ok(())
}

/// Enough to compare by.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Serves `requests` per core, and gives how many answers that were.
pub(crate) fn run(path: &Path, requests: u64, print: bool) -> Result<usize, Box<dyn Error>> {
    let index = Index::default();
    let shared = Arc::clone(&index);
    let options = Options::default().allow_buffered(true);
    let executors = corelog::glommio::open(&[path], &options, move |store, core| async move {
        if let Err(error) = serve(&store, core.0, requests, &shared, print).await {
            eprintln!("{core:?}: {error}");
        }
    })?;
    executors.join()?;
    Ok(index.lock().map_err(|_| "a task panicked")?.len())
}

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(path) = std::env::args_os().nth(1) {
        run(Path::new(&path), u64::MAX, true)?;
        return Ok(());
    }
    let folder = tempfile::tempdir_in(".")?;
    let path = folder.path().join("server.corelog");
    Store::format(
        &[&path],
        &FormatOptions {
            allow_buffered: true,
            ..FormatOptions::sized(256 << 20).extent_bytes(4 << 20).sparse()
        },
    )?;
    let start = Instant::now();
    let served = run(&path, 200, false)?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{served} requests, each durable before it was answered, in {seconds:.2} s");
    let store = Store::open(&path, &Options::default().allow_buffered(true))?;
    println!("reopened: closed cleanly: {}", store.recovery().clean);
    store.close()?;
    Ok(())
}
