//! Loom models of the global allocator: an extent has one owner, also while another gives extents back.

use super::{Claim, ExtentTable};
use crate::{
    geometry::Geometry,
    ids::{ExtentIndex, ExtentOrdinal, Generation, ShardId},
    models::{breaks, holds, started},
    mutant::Mutant,
};
use loom::thread;
use std::sync::Arc;

fn table(count: u32) -> Arc<ExtentTable> {
    Arc::new(ExtentTable::new(Geometry::new(4096, 1 << 20).expect("within the bounds"), count))
}

fn claim(table: &ExtentTable, shard: u16) -> Option<Claim> {
    table.claim(ShardId(shard), ExtentOrdinal(u64::from(shard)), ExtentIndex(0))
}

/// Would have found an extent that two shards both own.
fn two_claims() {
    let table = table(2);
    let other = {
        let table = Arc::clone(&table);
        thread::spawn(move || claim(&table, 1))
    };
    started();
    let own = claim(&table, 2).expect("there are two");
    let other = other.join().unwrap().expect("there are two");
    assert_ne!(own.extent, other.extent, "claimed twice");
    assert_eq!(table.free_count(), 0);
    assert_eq!(table.ordinal(own.extent), Some(ExtentOrdinal(2)));
    assert_eq!(table.get(own.extent).map(|entry| entry.shard), Some(ShardId(2)));
    assert_eq!(table.get(other.extent).map(|entry| entry.shard), Some(ShardId(1)));
}

#[test]
fn loom_two_claims() {
    holds(two_claims);
    breaks(Mutant::ClaimNotAtomic, "claimed twice", two_claims);
}

/// Would have found a claim that goes on with the generation of an earlier owner.
fn claim_against_free() {
    let table = table(1);
    claim(&table, 1).expect("it is free");
    let freer = {
        let table = Arc::clone(&table);
        thread::spawn(move || table.free(ExtentIndex(0)))
    };
    started();
    let again = claim(&table, 2);
    freer.join().unwrap();
    match again {
        Some(again) => {
            assert_eq!(again.generation, Generation(2));
            assert_eq!(table.get(again.extent).map(|entry| entry.shard), Some(ShardId(2)), "lost its owner");
            assert_eq!(table.free_count(), 0);
        }
        None => assert_eq!(table.free_count(), 1),
    }
}

#[test]
fn loom_claim_against_free() {
    holds(claim_against_free);
    breaks(Mutant::FreeBeforeDone, "lost its owner", claim_against_free);
}
