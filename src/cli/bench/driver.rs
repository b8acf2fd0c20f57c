//! Who turns the core: the lane's own thread (owned cores), or a thread of the store (hosted cores).

use super::error::BenchError;
use corelog::{
    AppendError, Core, DeviceCounters, FrameNumber, Reservation, Route, ShardId, Store, Ticket, Turn,
};
use std::{task::Waker, time::Duration};

/// A sleep of a lane whose core is the store's ends after this at the latest.
pub const SLEEP_MAX: Duration = Duration::from_millis(1);

/// What a lane appends and waits through.
pub trait Driver {
    /// Whether the lane's thread drives the core, so that it can look at the watermark after each turn.
    const DRIVES: bool;

    /// Appends, waiting for room if need be. `None`: the store is full.
    fn append<'s>(&mut self, store: &'s Store, payload: &[u8]) -> Result<Option<Ticket<'s>>, BenchError>;

    /// Claims room for a record, waiting for it if need be. `None`: the store is full.
    fn reserve<'s>(&mut self, store: &'s Store, length: usize)
    -> Result<Option<Reservation<'s>>, BenchError>;

    /// A reservation was committed, in this frame.
    fn committed(&mut self, frame: FrameNumber) -> Result<(), BenchError>;

    /// Lets the core work. False: there was nothing to do.
    fn turn(&mut self) -> Result<bool, BenchError>;

    /// Lets the core work, and sleeps until there may be something to do.
    fn turn_or_sleep(&mut self) -> Result<(), BenchError> {
        self.turn_or_sleep_for(Some(SLEEP_MAX))
    }

    /// The same with a bound of the caller's. Without one no timer is set, which costs time too.
    fn turn_or_sleep_for(&mut self, limit: Option<Duration>) -> Result<(), BenchError>;

    /// What ends a sleep of the lane's, where that is a sleep of its core.
    fn waker(&self) -> Option<Waker>;

    /// The shard that it appends to.
    fn shard(&self) -> ShardId;

    /// System calls of the core's device so far.
    fn device_counters(&self) -> DeviceCounters;

    /// Works, and waits, for a record of this lane that somebody asked to become durable; it may return before that.
    fn toward_durable(&mut self, oldest: Ticket<'_>) -> Result<(), BenchError>;
}

/// The lane's thread drives its core.
#[derive(Debug)]
pub struct Owned {
    core: Core,
    shard: ShardId,
    /// The frame of the last append: when the next goes to another, the core has something to submit.
    frame: FrameNumber,
}

impl Owned {
    pub fn new(core: Core) -> Self {
        let shard = ShardId(core.id().0);
        Self { core, shard, frame: FrameNumber(0) }
    }

    pub fn into_core(self) -> Core {
        self.core
    }
}

impl Driver for Owned {
    const DRIVES: bool = true;

    #[inline]
    fn append<'s>(&mut self, store: &'s Store, payload: &[u8]) -> Result<Option<Ticket<'s>>, BenchError> {
        loop {
            match self.core.append(self.shard, payload) {
                Ok(ticket) => {
                    if ticket.frame != self.frame {
                        self.frame = ticket.frame;
                        self.turn()?;
                    }
                    return Ok(store.ticket(ticket));
                }
                Err(AppendError::Full { .. }) => self.turn_or_sleep()?,
                Err(AppendError::StoreFull { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn reserve<'s>(
        &mut self,
        store: &'s Store,
        length: usize,
    ) -> Result<Option<Reservation<'s>>, BenchError> {
        let shard = store.shard(self.shard);
        let mut began = None;
        loop {
            match store.try_reserve(Route::Shard(self.shard), length) {
                Ok(reservation) => {
                    // Nobody else knows how long it took.
                    if let (Some(shard), Some(began)) = (shard, began) {
                        shard.note_wait(began);
                    }
                    return Ok(Some(reservation));
                }
                Err(AppendError::Full { .. }) => {
                    began = began.or_else(|| shard.map(|shard| shard.clean_steps()));
                    self.turn_or_sleep()?;
                }
                Err(AppendError::StoreFull { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn committed(&mut self, frame: FrameNumber) -> Result<(), BenchError> {
        if frame != self.frame {
            self.frame = frame;
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<bool, BenchError> {
        match self.core.turn() {
            Turn::Progress => Ok(true),
            Turn::Idle => Ok(false),
            Turn::Closed => Err(BenchError::CoreClosed { shard: self.shard }),
        }
    }

    fn turn_or_sleep_for(&mut self, limit: Option<Duration>) -> Result<(), BenchError> {
        match self.core.turn_or_wait(limit) {
            Turn::Closed => Err(BenchError::CoreClosed { shard: self.shard }),
            Turn::Progress | Turn::Idle => Ok(()),
        }
    }

    fn waker(&self) -> Option<Waker> {
        Some(self.core.waker())
    }

    fn shard(&self) -> ShardId {
        self.shard
    }

    fn device_counters(&self) -> DeviceCounters {
        self.core.device_counters()
    }

    fn toward_durable(&mut self, _oldest: Ticket<'_>) -> Result<(), BenchError> {
        // What is waited for comes from this core alone, so no timer is needed.
        self.turn_or_sleep_for(None)
    }
}

/// A thread of the store drives the core; the lane's is a client.
#[derive(Debug)]
pub struct Hosted {
    pub shard: ShardId,
}

impl Driver for Hosted {
    const DRIVES: bool = false;

    fn append<'s>(&mut self, store: &'s Store, payload: &[u8]) -> Result<Option<Ticket<'s>>, BenchError> {
        match store.append_to(Route::Shard(self.shard), payload) {
            Ok(ticket) => Ok(Some(ticket)),
            Err(AppendError::StoreFull { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn reserve<'s>(
        &mut self,
        store: &'s Store,
        length: usize,
    ) -> Result<Option<Reservation<'s>>, BenchError> {
        match store.reserve(Route::Shard(self.shard), length) {
            Ok(reservation) => Ok(Some(reservation)),
            Err(AppendError::StoreFull { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn committed(&mut self, _frame: FrameNumber) -> Result<(), BenchError> {
        Ok(())
    }

    fn turn(&mut self) -> Result<bool, BenchError> {
        Ok(false)
    }

    fn turn_or_sleep_for(&mut self, limit: Option<Duration>) -> Result<(), BenchError> {
        std::thread::park_timeout(limit.unwrap_or(SLEEP_MAX));
        Ok(())
    }

    fn waker(&self) -> Option<Waker> {
        None
    }

    fn shard(&self) -> ShardId {
        self.shard
    }

    fn device_counters(&self) -> DeviceCounters {
        DeviceCounters::default()
    }

    fn toward_durable(&mut self, oldest: Ticket<'_>) -> Result<(), BenchError> {
        Ok(oldest.wait(corelog::Durability::Durable)?)
    }
}
