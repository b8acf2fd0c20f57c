//! What fault tests do with a store: records that name themselves, acknowledged or not, and looking for them.
#![allow(dead_code, reason = "each test file uses a part of it")]

use crate::disk::Random;
use corelog::{Address, Durability, Options, Route, ShardId, Store};
use std::{ops::Range, time::Duration};

pub const EXTENT_BYTES: u64 = 1 << 20;
pub const STORE_BYTES: u64 = (1 << 20) + 64 * EXTENT_BYTES;

/// Where the extents of the first and of the second of two shards are, as long as neither has used half the store.
pub const HALVES: [Range<u64>; 2] =
    [1 << 20..(1 << 20) + 32 * EXTENT_BYTES, (1 << 20) + 32 * EXTENT_BYTES..(1 << 20) + 64 * EXTENT_BYTES];

/// Two cores, small buffers, and a stall that a test can wait for.
pub fn options() -> Options {
    Options::default()
        .cores(2)
        .pin(false)
        .huge_pages(false)
        .buffer_bytes(32 << 10)
        .buffers(4)
        .stall(Duration::from_secs(10))
}

/// A payload that says what it is, so that any other bytes in its place are noticed.
pub fn payload(name: u64) -> Vec<u8> {
    let length = 8 + Random(name).below(900) as usize;
    let mut bytes = name.to_le_bytes().to_vec();
    bytes.extend((8..length).map(|at| (name as usize).wrapping_mul(31).wrapping_add(at) as u8));
    bytes
}

/// A record that was acknowledged as durable.
#[derive(Clone, Copy, Debug)]
pub struct Acked {
    pub name: u64,
    pub address: Address,
}

/// Appends to one shard and waits until it is durable.
pub fn append_durable(store: &Store, shard: u16, name: u64) -> Acked {
    let ticket = store.append_to(Route::Shard(ShardId(shard)), &payload(name)).unwrap();
    ticket.wait(Durability::Durable).unwrap();
    Acked { name, address: ticket.address() }
}

/// Reads what was acknowledged and compares it.
pub fn assert_there(store: &Store, acked: &[Acked]) {
    for Acked { name, address } in acked {
        let found = store.read(*address).unwrap_or_else(|error| panic!("record {name:x}: {error}"));
        assert_eq!(found, payload(*name), "record {name:x}");
    }
}

/// The byte of the first device where a record begins.
pub fn byte_of(store: &Store, address: Address) -> u64 {
    let layout = &store.directory().layout;
    let geometry = layout.geometry();
    let slot = address.slot(geometry);
    let in_slot = address.byte() - geometry.byte_of(slot);
    layout.place(slot).unwrap().offset + in_slot
}
