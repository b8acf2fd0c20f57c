//! Makes a store, appends a record, waits until it is durable, reads it back, and finds it again after a reopen.
//!
//! `hello [FOLDER]`: the store is made in a temporary folder of FOLDER, the working folder by default, since direct I/O
//! does not work on every file system that temporary files are on.
use corelog::{Durability, FormatOptions, Options, Store};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let folder = tempfile::tempdir_in(folder)?;
    let path = folder.path().join("hello.corelog");
    // Small extents, since the store is small; the defaults suit stores of gigabytes.
    Store::format(&[&path], &FormatOptions::sized(64 << 20).extent_bytes(4 << 20))?;

    let store = Store::open(&path, &Options::default())?;
    let ticket = store.append(b"hello")?;
    println!("appended to shard {}, address {}", ticket.shard(), ticket.address());
    ticket.wait(Durability::Durable)?;
    println!("durable: it survives a power loss now");
    println!("read back: {}", String::from_utf8_lossy(&store.read(ticket.address())?));
    let address = ticket.address();
    store.close()?;

    let store = Store::open(&path, &Options::default())?;
    let found: u64 = store.recovery().shards.iter().map(|shard| shard.records).sum();
    println!("reopened: {found} record found; {}", String::from_utf8_lossy(&store.read(address)?));
    store.close()?;
    Ok(())
}
