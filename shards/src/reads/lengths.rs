//! How long the records are that are read, so that a read of the next one asks the device for no more sectors than it
//! has. An address tells the slots of its record and no length.

/// Records in a window; at most one in so many is longer than was expected, and read again.
const WINDOW_RECORDS: u32 = 256;

/// The longest record of this window and of the one before.
#[derive(Debug)]
pub(super) struct Lengths {
    now: u64,
    before: u64,
    /// In this window.
    records: u32,
}

impl Lengths {
    /// Nothing is known until a window is over.
    pub(super) const fn unknown() -> Self {
        Self { now: 0, before: u64::MAX, records: 0 }
    }

    /// Bytes that hardly any record exceeds, its header included.
    pub(super) fn longest(&self) -> u64 {
        self.now.max(self.before)
    }

    /// A record of `bytes` was read.
    pub(super) fn note(&mut self, bytes: u64) {
        self.now = self.now.max(bytes);
        self.records += 1;
        if self.records == WINDOW_RECORDS {
            *self = Self { now: 0, before: self.now, records: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(windows: &[(u64, u32)]) -> u64 {
        let mut lengths = Lengths::unknown();
        windows.iter().for_each(|&(bytes, records)| (0..records).for_each(|_| lengths.note(bytes)));
        lengths.longest()
    }

    #[test]
    fn nothing_is_expected_of_the_first_window() {
        assert_eq!(after(&[(100, WINDOW_RECORDS - 1)]), u64::MAX);
        assert_eq!(after(&[(100, WINDOW_RECORDS)]), 100);
    }

    #[test]
    fn a_long_record_is_remembered_for_at_least_a_window() {
        let short = (100, WINDOW_RECORDS);
        assert_eq!(after(&[short, (900, 1), (100, WINDOW_RECORDS - 1)]), 900);
        assert_eq!(after(&[short, (900, 1), (100, WINDOW_RECORDS - 1), (100, WINDOW_RECORDS - 1)]), 900);
        assert_eq!(after(&[short, (900, 1), (100, WINDOW_RECORDS - 1), short]), 100);
    }
}
