//! Reading many records at once.

use crate::store::{Store, block::Sleeper};
use bytes::Bytes;
use corelog_shards::{
    address::Address,
    directory::{CoreHandle, Mail},
    limits::{MAILBOX_TRIES_MAX, READ_MANY_IN_FLIGHT_MAX},
    read_batch::{BatchRead, plan},
    reads::ReadError,
    requests::{Pending, Reply},
};
use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

impl Store {
    /// Reads many records; the results are in the order of `addresses`. Neighbours are read together, and reads run
    /// side by side. Each record is checked as [`Store::read`] checks it.
    #[must_use]
    pub fn read_many(&self, addresses: &[Address]) -> Vec<Result<Bytes, ReadError>> {
        let busy = ReadError::Busy { core: self.reading_core().id() };
        if self.driven_core().is_some() {
            return addresses.iter().map(|_| Err(busy.clone())).collect();
        }
        let mut reading = self.read_many_async(addresses);
        match Sleeper::wait(&mut reading, self.stall()) {
            Some(results) => results,
            None => reading.give_up(&busy),
        }
    }

    /// As [`Store::read_many`], as a future for any executor.
    pub fn read_many_async(&self, addresses: &[Address]) -> ReadingMany {
        let results: Vec<_> = addresses.iter().map(|address| self.read_cached(*address).map(Ok)).collect();
        let missed = results.iter().zip(addresses).enumerate();
        let missed =
            missed.filter_map(|(index, (found, address))| found.is_none().then_some((index, *address)));
        ReadingMany {
            store: self.clone(),
            planned: plan(self.directory(), missed).into(),
            addresses: addresses.to_vec(),
            under_way: Vec::new(),
            results,
            tries: 0,
        }
    }
}

#[derive(Debug)]
struct UnderWay {
    read: BatchRead,
    core: Arc<CoreHandle>,
    pending: Pending,
}

/// Many reads under way. Dropping it abandons them.
#[derive(Debug)]
#[must_use = "a future does nothing unless it is polled"]
pub struct ReadingMany {
    store: Store,
    addresses: Vec<Address>,
    planned: VecDeque<BatchRead>,
    under_way: Vec<UnderWay>,
    results: Vec<Option<Result<Bytes, ReadError>>>,
    /// How often a full mailbox was tried in vain with nothing under way.
    tries: u32,
}

impl Future for ReadingMany {
    type Output = Vec<Result<Bytes, ReadError>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            this.send();
            let progress = this.receive(context);
            if this.planned.is_empty() && this.under_way.is_empty() {
                let gone = ReadError::Closed;
                return Poll::Ready(this.give_up(&gone));
            }
            if progress {
                continue;
            }
            if this.under_way.is_empty() {
                // The mailbox is full of others' requests, and nothing of ours will wake us.
                this.tries += 1;
                std::thread::yield_now();
                context.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
    }
}

impl ReadingMany {
    fn send(&mut self) {
        while self.under_way.len() < READ_MANY_IN_FLIGHT_MAX {
            let Some(read) = self.planned.pop_front() else { return };
            let core = Arc::clone(self.store.reading_core());
            let asked = self.store.ask(&core, |responder| match &read {
                BatchRead::Single { index } => Mail::Read { address: self.addresses[*index], responder },
                BatchRead::Merged { run, .. } => Mail::Run { slot: run.slot, slots: run.slots, responder },
            });
            match asked {
                Ok(pending) => {
                    self.tries = 0;
                    self.under_way.push(UnderWay { read, core, pending });
                }
                Err(ReadError::Busy { .. }) if self.tries < MAILBOX_TRIES_MAX => {
                    self.planned.push_front(read);
                    return;
                }
                Err(error) => self.fail(&read, &error),
            }
        }
    }

    /// Takes what has been answered. True if anything was.
    fn receive(&mut self, context: &mut Context<'_>) -> bool {
        let before = self.under_way.len();
        let mut index = 0;
        while let Some(read) = self.under_way.get_mut(index) {
            match Pin::new(&mut read.pending).poll(context) {
                Poll::Pending => index += 1,
                Poll::Ready(reply) => {
                    let UnderWay { read, core, .. } = self.under_way.swap_remove(index);
                    self.take(read, &core, reply);
                }
            }
        }
        self.under_way.len() < before
    }

    fn take(&mut self, read: BatchRead, core: &CoreHandle, reply: Reply) {
        match (read, reply) {
            (BatchRead::Single { index }, Reply::Record(result)) => self.results[index] = Some(result),
            (BatchRead::Merged { run, members }, Reply::Run(Ok(bytes))) => {
                for member in members {
                    match member.decode(self.store.directory(), core, run.slot, bytes.as_slice()) {
                        Some(result) => self.results[member.index] = Some(result),
                        None => self.planned.push_back(BatchRead::Single { index: member.index }),
                    }
                }
            }
            // A place that cannot be read must not hide its neighbours: each record is tried by itself.
            (BatchRead::Merged { members, .. }, Reply::Run(Err(_))) => {
                let singles = members.iter().map(|member| BatchRead::Single { index: member.index });
                self.planned.extend(singles);
            }
            (read, _) => self.fail(&read, &ReadError::CoreDead { core: core.id() }),
        }
    }

    fn fail(&mut self, read: &BatchRead, error: &ReadError) {
        match read {
            BatchRead::Single { index } => self.results[*index] = Some(Err(error.clone())),
            BatchRead::Merged { members, .. } => {
                for member in members {
                    self.results[member.index] = Some(Err(error.clone()));
                }
            }
        }
    }

    /// What is there; the rest with this error.
    fn give_up(&mut self, error: &ReadError) -> Vec<Result<Bytes, ReadError>> {
        let results = std::mem::take(&mut self.results).into_iter();
        results.map(|result| result.unwrap_or_else(|| Err(error.clone()))).collect()
    }
}
