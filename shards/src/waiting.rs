//! Waiting for a shard: for a frame to be as safe as asked, and for room in its ring.
//!
//! Each looks, leaves its waker, and looks again; whoever moves what is waited for does it in the other order (see
//! [`crate::watermark`]).

use crate::{
    failure::ShardFailure,
    ids::FrameNumber,
    shard::Shard,
    watermark::{Durability, Patience, RoomWaiters},
};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

/// Resolves when a frame has reached a durability, or its shard has failed. Never allocates in the steady state.
#[derive(Debug)]
#[must_use = "a future does nothing unless it is polled"]
pub struct Reached<'store> {
    shard: &'store Shard,
    frame: FrameNumber,
    durability: Durability,
    /// The waker that was left with the watermark.
    registered: Option<Waker>,
    has_asked: bool,
}

impl<'store> Reached<'store> {
    /// Waits for `frame` of `shard`.
    pub const fn of(shard: &'store Shard, frame: FrameNumber, durability: Durability) -> Self {
        Self { shard, frame, durability, registered: None, has_asked: false }
    }
}

impl Shard {
    /// Blocks until `frame` is as safe as asked, the shard has failed, or the patience is at its end (`None`). As [`Reached`], for a thread that has
    /// nothing else to do; it is woken together with all others.
    pub fn wait_for(
        &self,
        frame: FrameNumber,
        durability: Durability,
        patience: Patience,
    ) -> Option<Result<(), ShardFailure>> {
        let Some(mark) = self.mark(durability) else { return Some(Ok(())) };
        let (mut has_asked, mut failure) = (false, None);
        let has_failed = || {
            if !has_asked {
                self.request(frame, durability);
                has_asked = true;
            }
            failure = self.failure();
            failure.is_some()
        };
        if mark.wait(frame, patience, has_failed) { Some(Ok(())) } else { failure.map(Err) }
    }
}

impl Future for Reached<'_> {
    type Output = Result<(), ShardFailure>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(mark) = this.shard.mark(this.durability) else { return Poll::Ready(Ok(())) };
        if mark.has(this.frame) {
            return Poll::Ready(Ok(()));
        }
        let is_known = this.registered.as_ref().is_some_and(|waker| waker.will_wake(context.waker()));
        if !is_known {
            if mark.register(this.frame, context.waker()) {
                return Poll::Ready(Ok(()));
            }
            this.registered = Some(context.waker().clone());
        }
        if !this.has_asked {
            // After registering, so that the answer finds us.
            this.shard.request(this.frame, this.durability);
            this.has_asked = true;
        }
        // A failure wakes whoever is registered by then; one before that is seen here.
        match this.shard.failure() {
            Some(failure) if !mark.has(this.frame) => Poll::Ready(Err(failure)),
            Some(_) => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    }
}

/// Resolves when the ring of a shard, or the mailbox of a core, has changed since `seen`.
#[derive(Debug)]
pub struct Room<'store> {
    waiters: &'store RoomWaiters,
    seen: u64,
    registered: Option<Waker>,
}

impl<'store> Room<'store> {
    /// `seen` is what [`crate::watermark::RoomWaiters::changes`] said before the try that found no room.
    #[must_use]
    pub const fn new(shard: &'store Shard, seen: u64) -> Self {
        Self::of(shard.room(), seen)
    }

    /// The same, wherever the room is.
    #[must_use]
    pub const fn of(waiters: &'store RoomWaiters, seen: u64) -> Self {
        Self { waiters, seen, registered: None }
    }
}

impl Future for Room<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.waiters.changes() != this.seen {
            return Poll::Ready(());
        }
        let is_known = this.registered.as_ref().is_some_and(|waker| waker.will_wake(context.waker()));
        if !is_known {
            if this.waiters.register(this.seen, context.waker()) {
                return Poll::Ready(());
            }
            this.registered = Some(context.waker().clone());
        }
        Poll::Pending
    }
}
