//! Appending by mail: the payload goes to the core that runs the shard, and the core appends it.

use super::{
    Store,
    append::explain,
    block::{Pause, Sleeper},
};
use crate::{
    error::{AppendError, Refused},
    options::AppendPath,
    ticket::Ticket,
};
use bytes::Bytes;
use corelog_shards::{
    directory::{CoreHandle, Mail, MailError, WhenFull},
    ids::ShardId,
    requests::{Pending, Reply},
    shard::Shard,
    waiting::Room,
};
use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
};

impl Store {
    /// True if a call that waits for the answer goes by mail. On a thread that drives a core it would stop that core,
    /// and two such cores would wait for each other: there every append is direct.
    pub(super) fn is_routed(&self) -> bool {
        self.options().append == AppendPath::Routed && self.driven_core().is_none()
    }

    /// True if a task's append goes by mail: whenever its thread does not itself drive the core of the shard.
    pub(super) fn is_routed_to(&self, shard: ShardId) -> bool {
        self.options().append == AppendPath::Routed
            && self
                .driven_core()
                .is_none_or(|own| self.inner.directory.core_of(shard).is_none_or(|core| core.id() != own))
    }

    pub(super) fn append_routed<'s>(
        &'s self,
        shard: &'s Shard,
        mut payload: Bytes,
    ) -> Result<Ticket<'s>, AppendError> {
        let limit = self.stall();
        let mut pause = Pause::until(limit);
        loop {
            match self.mail(shard, payload, WhenFull::Wait) {
                Ok(pending) => return self.answer_to(shard, pending),
                Err(Refused { error: AppendError::Full { .. }, payload: back }) => payload = back,
                Err(refused) => return Err(refused.error),
            }
            // The mailbox is full: its core is at work and needs the time more than we do.
            if !pause.rest() {
                return Err(self.stalled(shard));
            }
        }
    }

    pub(super) fn try_append_routed<'s, P: AsRef<[u8]>>(
        &'s self,
        shard: &'s Shard,
        payload: P,
    ) -> Result<Ticket<'s>, Refused<P>> {
        let copy = Bytes::copy_from_slice(payload.as_ref());
        let appended = match self.mail(shard, copy, WhenFull::Refuse) {
            Ok(pending) => self.answer_to(shard, pending),
            Err(refused) => Err(refused.error),
        };
        appended.map_err(|error| Refused { error, payload })
    }

    pub(super) async fn append_routed_async<'s>(
        &'s self,
        shard: &'s Shard,
        mut payload: Bytes,
    ) -> Result<Ticket<'s>, AppendError> {
        let dead = AppendError::CoreDead { shard: shard.id() };
        let core = self.inner.directory.core_of(shard.id()).ok_or(dead)?;
        loop {
            let seen = core.room().changes();
            match self.mail(shard, payload, WhenFull::Wait) {
                Ok(pending) => {
                    return Sent { store: self, shard, pending }.await.map_err(|refused| refused.error);
                }
                Err(Refused { error: AppendError::Full { .. }, payload: back }) => payload = back,
                Err(refused) => return Err(refused.error),
            }
            mailbox_room(core, seen).await;
        }
    }

    /// Sends, and leaves it to the caller to wait.
    pub(super) fn send_to<'s>(&'s self, shard: &'s Shard, payload: Bytes) -> Result<Sent<'s>, Refused> {
        Ok(Sent { store: self, shard, pending: self.mail(shard, payload, WhenFull::Wait)? })
    }

    fn answer_to<'s>(&'s self, shard: &'s Shard, pending: Pending) -> Result<Ticket<'s>, AppendError> {
        let mut sent = Sent { store: self, shard, pending };
        let unanswered =
            || AppendError::Unanswered { shard: shard.id(), waited: self.stall().unwrap_or_default() };
        let answer = Sleeper::wait(&mut sent, self.stall()).ok_or_else(unanswered)?;
        answer.map_err(|refused| refused.error)
    }

    fn stalled(&self, shard: &Shard) -> AppendError {
        AppendError::Stalled { shard: shard.id(), waited: self.stall().unwrap_or_default() }
    }

    fn mail(&self, shard: &Shard, payload: Bytes, when_full: WhenFull) -> Result<Pending, Refused> {
        let id = shard.id();
        let Some(core) = self.inner.directory.core_of(id) else {
            return Err(Refused { error: AppendError::CoreDead { shard: id }, payload });
        };
        let Some((pending, responder)) = self.requests().open() else {
            return Err(Refused { error: AppendError::Full { shard: id }, payload });
        };
        let (error, mail) = match core.send(Mail::Append { shard: id, payload, when_full, responder }) {
            Ok(()) => return Ok(pending),
            Err(MailError::Full(mail)) => (AppendError::Full { shard: id }, mail),
            Err(MailError::Dead(mail)) => {
                (shard.failure().map_or(AppendError::Closed, AppendError::Failed), mail)
            }
        };
        match mail {
            Mail::Append { payload, .. } => Err(Refused { error, payload }),
            _ => Err(Refused { error, payload: Bytes::new() }),
        }
    }
}

/// Resolves when a core has taken mail since `seen`.
async fn mailbox_room(core: &CoreHandle, seen: u64) {
    if !core.has_mailbox_room() {
        return Room::of(core.room(), seen).await;
    }
    // There is room by now, or it was the table of requests that was full, and nobody announces room there.
    let mut has_yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// An append on its way to its core.
pub(super) struct Sent<'store> {
    store: &'store Store,
    shard: &'store Shard,
    pending: Pending,
}

impl<'store> Future for Sent<'store> {
    type Output = Result<Ticket<'store>, Refused>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let shard = self.shard.id();
        Pin::new(&mut self.pending).poll(context).map(|reply| match reply {
            Reply::Appended(Ok(placed)) => Ok(Ticket::new(self.store, self.shard, placed)),
            Reply::Appended(Err((refusal, payload))) => {
                Err(Refused { error: explain(shard, refusal, payload.len()), payload })
            }
            Reply::CoreDead | Reply::Record(_) | Reply::Run(_) | Reply::Space(_) | Reply::Added(_) => {
                Err(Refused { error: AppendError::CoreDead { shard }, payload: Bytes::new() })
            }
        })
    }
}
