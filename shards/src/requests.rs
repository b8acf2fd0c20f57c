//! Requests that cross cores: each is answered exactly once, also by a core that dies.
//!
//! The asker keeps a [`Pending`], the answerer a [`Responder`]; between them lies one entry of a sharded slab. A
//! dropped responder answers [`Reply::CoreDead`]; a dropped pending makes the answer go nowhere.

use crate::{
    device::Errno,
    memory::PooledBuffer,
    reads::ReadError,
    ring::reservation::Placed,
    shard::ShardRefusal,
    shard_owner::{SpaceDone, SpaceRefusal},
    sync::Mutex,
};
use bytes::Bytes;
use sharded_slab::Slab;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
};

/// The answer to a request.
#[derive(Debug)]
pub enum Reply {
    /// To an append: where the record is, or why not, with the payload.
    Appended(Result<Placed, (ShardRefusal, Bytes)>),
    /// To a read of one record: its payload.
    Record(Result<Bytes, ReadError>),
    /// To a read of a run of slots: the bytes.
    Run(Result<PooledBuffer, ReadError>),
    /// To a request about a shard's space.
    Space(Result<SpaceDone, SpaceRefusal>),
    /// To a further device: the core can use it, or why not.
    Added(Result<(), Errno>),
    /// The core died before it answered; whether an append took place is not known.
    CoreDead,
}

#[derive(Default)]
struct Entry(Mutex<EntryState>);

#[derive(Default)]
struct EntryState {
    reply: Option<Reply>,
    waker: Option<Waker>,
}

/// The table of requests in flight of a store.
#[derive(Default)]
pub struct Requests {
    slab: Slab<Entry>,
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").finish_non_exhaustive()
    }
}

impl Requests {
    /// Opens a request. `None`: the table is full; wait for an answer first.
    #[must_use]
    pub fn open(self: &Arc<Self>) -> Option<(Pending, Responder)> {
        let key = self.slab.insert(Entry::default())?;
        Some((
            Pending { requests: Arc::clone(self), key },
            Responder { requests: Arc::clone(self), key, is_answered: false },
        ))
    }
}

/// The asker's half: a future of the reply.
#[derive(Debug)]
#[must_use = "the answer comes here"]
pub struct Pending {
    requests: Arc<Requests>,
    key: usize,
}

impl Future for Pending {
    type Output = Reply;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reply> {
        // The entry is removed by our drop alone, so it is there.
        let Some(entry) = self.requests.slab.get(self.key) else { return Poll::Ready(Reply::CoreDead) };
        let mut state = entry.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reply) = state.reply.take() {
            return Poll::Ready(reply);
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.requests.slab.remove(self.key);
    }
}

/// The answerer's half.
#[derive(Debug)]
pub struct Responder {
    requests: Arc<Requests>,
    key: usize,
    is_answered: bool,
}

impl Responder {
    /// Answers and wakes the asker.
    pub fn answer(mut self, reply: Reply) {
        self.put(reply);
    }

    fn put(&mut self, reply: Reply) {
        self.is_answered = true;
        // An asker that lost interest took its entry with it; a stale key finds nothing.
        let Some(entry) = self.requests.slab.get(self.key) else { return };
        let waker = {
            let mut state = entry.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.reply = Some(reply);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if !self.is_answered {
            self.put(Reply::CoreDead);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    fn poll(pending: &mut Pending) -> Poll<Reply> {
        pin!(pending).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_dropped_responder_answers_that_the_core_died() {
        let requests = Arc::new(Requests::default());
        let (mut pending, responder) = requests.open().expect("an empty table has room");
        assert!(poll(&mut pending).is_pending());
        drop(responder);
        assert!(matches!(poll(&mut pending), Poll::Ready(Reply::CoreDead)));
    }

    #[test]
    fn an_answer_to_nobody_is_harmless_and_does_not_reach_the_next_request() {
        let requests = Arc::new(Requests::default());
        let (pending, stale) = requests.open().expect("an empty table has room");
        drop(pending);
        let (mut next, _responder) = requests.open().expect("an empty table has room");
        stale.answer(Reply::CoreDead);
        assert!(poll(&mut next).is_pending());
    }
}
