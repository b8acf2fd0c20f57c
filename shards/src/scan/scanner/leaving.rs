//! Extents that cleaning takes away from under a scan: it goes on behind them, and meets what it has not seen as copies.

use super::{Next, Scanner};
use crate::{ids::ExtentOrdinal, scan::ExtentSequence};

impl Scanner {
    /// True if cleaning may have moved records behind the limit that the scan has not seen before it: the limit has to
    /// be set anew, to what is written by now.
    pub fn take_jumped(&mut self) -> bool {
        std::mem::take(&mut self.has_jumped)
    }

    /// True if cleaning freed the extent that the scan is in: the copies of what it has not seen lie ahead.
    pub(super) fn is_cleaned_away(&self, extents: &impl ExtentSequence) -> bool {
        extents.extent_at(self.next.ordinal).is_none()
            && extents.ordinal_after(self.next.ordinal).is_some()
            && !extents.is_trimmed(self.next.ordinal)
    }

    /// Goes on behind an extent that was cleaned, of which the records before `byte` were seen.
    pub(super) fn leave(&mut self, ordinal: ExtentOrdinal, byte: u64, extents: &impl ExtentSequence) {
        self.seen.leave(ordinal, byte);
        let ordinal = extents.ordinal_after(ordinal).unwrap_or(ordinal);
        self.next = Next { ordinal, slot: None, number: None, link: None };
        (self.frame, self.tried, self.plan) = (None, None, None);
        (self.resume, self.resume_batch, self.skip_to) = (0, 0, None);
        self.has_jumped = true;
        self.window.clear();
    }
}
