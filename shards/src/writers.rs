//! Writers of batches and large records that are not done. What they have written is needed by a list that is not there
//! yet, so that trimming has to leave it: each pins the extent that it began in.
//!
//! A pin is taken before anything is written, at the place where the ring stands: what is written later lies there or
//! further on. It ends when the root of the list is in a frame that was submitted, for then the owner knows of the list
//! itself, or when the writer is given up. Taken once per batch or large record that does not fit a buffer, so a mutex
//! is good enough. Whoever has to read all of a shard, and is not to lose any of it to trims, pins all of it.

use crate::{
    ids::{ExtentOrdinal, FrameNumber},
    park::Bell,
};
use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// The writer is at work.
const OPEN: u64 = u64::MAX;
/// The writer was given up: whatever was submitted, nobody needs what it wrote.
const GIVEN_UP: u64 = 0;

#[derive(Debug)]
struct Pin {
    from: ExtentOrdinal,
    /// It is over once frames below this number were submitted.
    until: AtomicU64,
}

/// Who sleeps until a writer is given up: that of one that is done shows in the log.
#[derive(Debug, Default)]
struct Sleeper {
    listens: AtomicBool,
    bell: OnceLock<Arc<Bell>>,
}

/// The open writers of a shard.
#[derive(Debug, Default)]
pub(crate) struct OpenWriters {
    pins: Mutex<Vec<Arc<Pin>>>,
    sleeper: Arc<Sleeper>,
}

impl OpenWriters {
    /// Keeps the extents from `from` on. `submitted`: frames below were submitted.
    pub(crate) fn pin(&self, from: ExtentOrdinal, submitted: FrameNumber) -> WriterPin {
        let pin = Arc::new(Pin { from, until: AtomicU64::new(OPEN) });
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that are over are taken out here, so that there are never more than were open at a time.
        pins.retain(|pin| !pin.is_over(submitted));
        pins.push(Arc::clone(&pin));
        WriterPin { pin, sleeper: Arc::clone(&self.sleeper) }
    }

    /// The oldest extent that an open writer needs.
    pub(crate) fn oldest(&self, submitted: FrameNumber) -> Option<ExtentOrdinal> {
        let pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        pins.iter().filter(|pin| !pin.is_over(submitted)).map(|pin| pin.from).min()
    }

    /// Rings the bell when the next writer is given up. The caller looks at [`OpenWriters::oldest`] once more before it
    /// sleeps.
    pub(crate) fn ring_at_next_end(&self, bell: &Arc<Bell>) {
        let _same = self.sleeper.bell.get_or_init(|| Arc::clone(bell));
        self.sleeper.listens.store(true, Ordering::SeqCst);
    }
}

impl Pin {
    fn is_over(&self, submitted: FrameNumber) -> bool {
        self.until.load(Ordering::SeqCst) <= submitted.0
    }
}

/// Held by a writer; dropping it gives up what was written.
#[derive(Debug)]
pub(crate) struct WriterPin {
    pin: Arc<Pin>,
    sleeper: Arc<Sleeper>,
}

impl WriterPin {
    /// The root of the list is in `frame`.
    pub(crate) fn end(&self, frame: FrameNumber) {
        self.pin.until.store(frame.0 + 1, Ordering::Release);
    }
}

impl Drop for WriterPin {
    fn drop(&mut self) {
        let given_up = self.pin.until.compare_exchange(OPEN, GIVEN_UP, Ordering::SeqCst, Ordering::Relaxed);
        // Either the sleeper's second look sees this one given up, or it is seen to listen here.
        if given_up.is_ok()
            && self.sleeper.listens.swap(false, Ordering::SeqCst)
            && let Some(bell) = self.sleeper.bell.get()
        {
            bell.ring();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_pin_holds_until_the_frame_of_the_root_was_submitted_or_the_writer_is_gone() {
        let writers = OpenWriters::default();
        let (first, second) =
            (writers.pin(ExtentOrdinal(4), FrameNumber(9)), writers.pin(ExtentOrdinal(6), FrameNumber(9)));
        assert_eq!(writers.oldest(FrameNumber(100)), Some(ExtentOrdinal(4)));
        first.end(FrameNumber(100));
        drop(first);
        assert_eq!(writers.oldest(FrameNumber(100)), Some(ExtentOrdinal(4)), "it is not submitted yet");
        assert_eq!(writers.oldest(FrameNumber(101)), Some(ExtentOrdinal(6)));
        drop(second);
        assert_eq!(writers.oldest(FrameNumber(0)), Some(ExtentOrdinal(4)), "the second was given up");
        let _third = writers.pin(ExtentOrdinal(8), FrameNumber(101));
        assert_eq!(writers.pins.lock().unwrap_or_else(PoisonError::into_inner).len(), 1);
    }
}
