//! A device that stores nothing: what the engine costs by itself.

use super::{
    Completion, Counters, Device, DeviceBroken, Errno, Grants, Instant, Operation, Rejected, Token,
    clock::monotonic_now, signal::Signal,
};
use crate::{
    ids::DeviceIndex,
    limits::{IO_DEPTH_DEFAULT, IO_DEPTH_MAX, SLOT_BYTES_MIN},
    memory::Region,
    park::Bell,
};
use std::{collections::VecDeque, fmt, os::fd::BorrowedFd, sync::Arc, time::Duration};

/// In which order completions come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Order {
    /// As submitted.
    #[default]
    Submitted,
    /// Any; the same for the same seed.
    Shuffled {
        /// Of the random order.
        seed: u64,
    },
}

/// How a null device behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NullOptions {
    /// Operations in flight at the same time.
    pub depth: u32,
    /// Polls that an operation stays in flight beyond the next one.
    pub delay_polls: u64,
    /// Order of the completions that are due in one poll.
    pub order: Order,
}

impl Default for NullOptions {
    fn default() -> Self {
        Self { depth: IO_DEPTH_DEFAULT, delay_polls: 0, order: Order::default() }
    }
}

/// Writes and syncs succeed and go nowhere; reads give zeros.
pub struct NullDevice {
    options: NullOptions,
    /// With the poll in which each is due.
    waiting: VecDeque<(u64, Token, Operation)>,
    polls: u64,
    random: u64,
    signal: Arc<Signal>,
    bell: Arc<Bell>,
    grants: Grants,
    counters: Counters,
}

impl NullDevice {
    /// A device of this behaviour. The host may refuse the descriptor of its bell.
    pub fn new(options: NullOptions) -> Result<Self, Errno> {
        let depth = options.depth.clamp(1, IO_DEPTH_MAX);
        let signal = Arc::new(Signal::new()?);
        let random = match options.order {
            Order::Submitted => 0,
            Order::Shuffled { seed } => seed,
        };
        Ok(Self {
            options: NullOptions { depth, ..options },
            waiting: VecDeque::with_capacity(depth as usize),
            polls: 0,
            random,
            bell: Arc::new(Bell::new(signal.clone())),
            signal,
            grants: Grants { backend: "null", ..Grants::default() },
            counters: Counters::default(),
        })
    }
}

impl Device for NullDevice {
    fn submit(&mut self, token: Token, operation: Operation) -> Result<(), Box<Rejected>> {
        if self.waiting.len() >= self.depth() {
            return Err(Box::new(Rejected { operation, token }));
        }
        self.counters.sqes += 1;
        self.waiting.push_back((self.polls + 1 + self.options.delay_polls, token, operation));
        Ok(())
    }

    fn read_alignment(&self, _device: DeviceIndex) -> u64 {
        SLOT_BYTES_MIN
    }

    fn flushes_write_through(&self, _device: DeviceIndex) -> bool {
        true
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) -> Result<(), DeviceBroken> {
        self.polls += 1;
        self.signal.lower();
        let before = completions.len();
        while self.waiting.front().is_some_and(|(due, ..)| *due <= self.polls) {
            let Some((_, token, mut operation)) = self.waiting.pop_front() else { break };
            if let Operation::Read { buffer, .. } = &mut operation {
                buffer.as_mut_slice().fill(0);
            }
            let result = Ok(operation.transfer_bytes());
            completions.push(Completion { token, operation, result });
        }
        let due = &mut completions[before..];
        self.counters.cqes += due.len() as u64;
        if let Order::Shuffled { .. } = self.options.order {
            shuffle(due, &mut self.random);
        }
        Ok(())
    }

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> Result<(), DeviceBroken> {
        let before = completions.len();
        self.poll(completions)?;
        // What is in flight completes by polling alone, so there is nothing to sleep for then.
        let idle = completions.len() == before && self.waiting.is_empty();
        let mut rung = self.signal.take_ring();
        if idle && !rung {
            self.counters.enters += 1;
            self.signal
                .wait(timeout)
                .map_err(|errno| DeviceBroken { during: "waiting for the bell", errno })?;
            self.signal.lower();
            rung = self.signal.take_ring();
        }
        self.counters.wakes += u64::from(rung);
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.waiting.len()
    }

    fn depth(&self) -> usize {
        self.options.depth as usize
    }

    fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.bell)
    }

    /// Readable when the bell rang; what is in flight completes by polling.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.signal.fd())
    }

    fn register(&mut self, _region: &Arc<Region>) {}

    fn grants(&self) -> &Grants {
        &self.grants
    }

    fn now(&self) -> Instant {
        monotonic_now()
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

impl fmt::Debug for NullDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NullDevice")
            .field("options", &self.options)
            .field("in_flight", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

/// Fisher and Yates; the small bias of the remainder does not matter here.
pub(super) fn shuffle<T>(items: &mut [T], random: &mut u64) {
    for last in (1..items.len()).rev() {
        items.swap(last, (next_random(random) % (last as u64 + 1)) as usize);
    }
}

/// The next number of a splitmix64 sequence.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::ids::DeviceIndex;

    fn tokens(options: NullOptions, polls: u32) -> Vec<u64> {
        let mut device = NullDevice::new(options).unwrap();
        for number in 0..8 {
            device.submit(Token(number), Operation::Sync { device: DeviceIndex(0) }).unwrap();
        }
        let mut completions = Vec::new();
        for _ in 0..polls {
            device.poll(&mut completions).unwrap();
        }
        completions.iter().map(|completion| completion.token.0).collect()
    }

    #[test]
    fn completions_come_in_the_order_asked_for() {
        let shuffled = NullOptions { order: Order::Shuffled { seed: 5 }, ..NullOptions::default() };
        let mut order = tokens(shuffled, 1);
        assert_eq!(order, tokens(shuffled, 1));
        assert_ne!(order, (0..8).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..8).collect::<Vec<_>>());
        assert_eq!(tokens(NullOptions::default(), 1), order);
    }

    #[test]
    fn a_delayed_completion_needs_that_many_polls_more() {
        let delayed = NullOptions { delay_polls: 2, ..NullOptions::default() };
        assert!(tokens(delayed, 2).is_empty());
        assert_eq!(tokens(delayed, 3).len(), 8);
    }
}
