//! Where the newest version of each value is: what an owner of records keeps above a store.

use corelog::{Address, RecordOwner};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bits of a record's number that count versions of its value, and that name the value; above them is the lane.
const VERSION_BITS: u32 = 24;
const KEY_BITS: u32 = 30;

/// A value of a lane.
#[derive(Debug, Clone, Copy, Default)]
pub struct Entry {
    pub address: Option<Address>,
    pub version: u32,
}

/// The values of all lanes.
#[derive(Debug)]
pub struct Index {
    lanes: Vec<Vec<Mutex<Entry>>>,
}

impl Index {
    pub fn new(lanes: usize, keys: u64) -> Self {
        let keys = keys.min(1 << KEY_BITS);
        Self { lanes: (0..lanes).map(|_| (0..keys).map(|_| Mutex::default()).collect()).collect() }
    }

    /// Values of a lane.
    pub fn keys(&self) -> usize {
        self.lanes.first().map_or(0, Vec::len)
    }

    pub fn entry(&self, lane: u16, key: usize) -> MutexGuard<'_, Entry> {
        self.lanes[usize::from(lane)][key].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of_payload(&self, payload: &[u8]) -> Option<MutexGuard<'_, Entry>> {
        let number = u64::from_le_bytes(*payload.first_chunk()?);
        let key = (number >> VERSION_BITS) & ((1 << KEY_BITS) - 1);
        let lane = self.lanes.get((number >> (VERSION_BITS + KEY_BITS)) as usize)?;
        Some(lane.get(key as usize)?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The number that is stamped on a version of a value.
pub const fn number(lane: u16, key: usize, version: u32) -> u64 {
    let version = version as u64 & ((1 << VERSION_BITS) - 1);
    (lane as u64) << (VERSION_BITS + KEY_BITS) | (key as u64) << VERSION_BITS | version
}

impl RecordOwner for Index {
    fn is_live(&self, address: Address, payload: &[u8]) -> bool {
        self.of_payload(payload).is_some_and(|entry| entry.address == Some(address))
    }

    fn relocated(&self, from: Address, to: Address, payload: &[u8]) -> bool {
        let Some(mut entry) = self.of_payload(payload) else { return false };
        if entry.address == Some(from) {
            entry.address = Some(to);
        }
        entry.address == Some(to)
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, Index, number};
    use corelog::{Address, RecordOwner};

    #[test]
    fn a_value_is_live_where_it_was_written_last_and_follows_its_copies() {
        let index = Index::new(2, 9);
        let payload = number(1, 7, 3).to_le_bytes();
        let [one, two, three] = [1, 2, 3].map(Address::from_bits);
        assert!(!index.is_live(one, &payload));
        *index.entry(1, 7) = Entry { address: Some(one), version: 3 };
        assert!(index.is_live(one, &payload) && !index.is_live(two, &payload));
        assert!(index.relocated(one, two, &payload) && index.is_live(two, &payload));
        assert!(!index.relocated(one, three, &payload), "a copy that came too late");
        assert!(!index.is_live(two, &number(0, 7, 3).to_le_bytes()), "another lane");
        assert!(!index.is_live(two, &number(9, 7, 3).to_le_bytes()) && !index.is_live(two, b"short"));
    }
}
