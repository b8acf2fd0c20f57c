//! The operations that the kernel holds: each owned here, with its memory, until its completion is taken.

use crate::device::{Operation, Token};

/// Names an entry in the kernel's 64 bits: the index below, how often the entry was used above. A completion that
/// was delivered twice, or that nobody asked for, does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(pub(super) u64);

impl Key {
    fn new(index: u32, uses: u32) -> Self {
        Self(u64::from(uses) << 32 | u64::from(index))
    }

    fn split(self) -> (usize, u32) {
        (self.0 as u32 as usize, (self.0 >> 32) as u32)
    }
}

struct Entry {
    /// Less than `u32::MAX`, so that no key equals the one of the bell.
    uses: u32,
    held: Option<(Token, Operation)>,
}

/// A table of fixed size. Neither taking nor giving back allocates.
pub(super) struct InFlight {
    entries: Vec<Entry>,
    free: Vec<u32>,
}

impl InFlight {
    pub(super) fn new(depth: u32) -> Self {
        Self {
            entries: (0..depth).map(|_| Entry { uses: 0, held: None }).collect(),
            // Low indices are used first: they stay in the cache.
            free: (0..depth).rev().collect(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(super) fn depth(&self) -> usize {
        self.entries.len()
    }

    /// Keeps an operation; hands it back if the table is full.
    pub(super) fn insert(&mut self, token: Token, operation: Operation) -> Result<Key, (Token, Operation)> {
        let Some(index) = self.free.pop() else { return Err((token, operation)) };
        let entry = &mut self.entries[index as usize];
        debug_assert!(entry.held.is_none(), "a free entry holds nothing");
        entry.held = Some((token, operation));
        Ok(Key::new(index, entry.uses))
    }

    /// What the kernel works on under this key.
    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Operation> {
        let (index, uses) = key.split();
        let entry = self.entries.get_mut(index).filter(|entry| entry.uses == uses)?;
        entry.held.as_mut().map(|(_, operation)| operation)
    }

    /// Takes it out, if the key is the one that it was kept under.
    pub(super) fn remove(&mut self, key: Key) -> Option<(Token, Operation)> {
        let (index, uses) = key.split();
        let entry = self.entries.get_mut(index).filter(|entry| entry.uses == uses)?;
        let held = entry.held.take()?;
        entry.uses = if uses + 1 == u32::MAX { 0 } else { uses + 1 };
        self.free.push(index as u32);
        Some(held)
    }

    /// Never frees what is still in here: the kernel may yet write to it.
    pub(super) fn leak(&mut self) {
        for entry in &mut self.entries {
            std::mem::forget(entry.held.take());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::ids::DeviceIndex;

    fn sync() -> Operation {
        Operation::Sync { device: DeviceIndex(0) }
    }

    #[test]
    fn a_key_works_once() {
        let mut table = InFlight::new(2);
        let key = table.insert(Token(7), sync()).unwrap();
        assert_eq!(table.remove(key).unwrap().0, Token(7));
        assert!(table.remove(key).is_none());
        let again = table.insert(Token(8), sync()).unwrap();
        assert_ne!(key, again);
        assert!(table.remove(key).is_none());
        assert!(table.get_mut(key).is_none());
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_full_table_hands_the_operation_back() {
        let mut table = InFlight::new(1);
        table.insert(Token(1), sync()).unwrap();
        assert_eq!(table.insert(Token(2), sync()).unwrap_err().0, Token(2));
        assert!(table.remove(Key(99)).is_none());
    }
}
