//! Reading single records.

use crate::store::{
    Store,
    block::{Pause, Sleeper},
};
use bytes::Bytes;
use corelog_shards::{
    address::Address,
    directory::{CoreHandle, Mail, MailError},
    reads::ReadError,
    requests::{Pending, Reply, Responder},
};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

impl Store {
    /// Reads the record at `address`: from the shard's buffer while its frame is there, else with one direct read
    /// (two for a record longer than the address's length hint). Checks generation and checksum; anything but the
    /// record that was appended there is an error. With a cache ([`Options::cache_bytes`]) a record that it holds is given
    /// from there, with the same check of its extent.
    ///
    /// Waits for room in the core's mailbox, and for the record, for as long as the stall time of the options.
    ///
    /// [`Options::cache_bytes`]: crate::Options::cache_bytes
    #[inline]
    pub fn read(&self, address: Address) -> Result<Bytes, ReadError> {
        // Also where the cache has it: whether this may be called does not depend on what was read before.
        if let Some(core) = self.driven_core() {
            return Err(ReadError::OnCoreThread { core });
        }
        match self.read_cached(address) {
            Some(payload) => Ok(payload),
            None => self.read_by_core(address),
        }
    }

    #[inline(never)]
    fn read_by_core(&self, address: Address) -> Result<Bytes, ReadError> {
        let limit = self.stall();
        let mut pause = Pause::until(limit);
        loop {
            match self.ask_for(address) {
                Ok(mut reading) => {
                    let core = self.reading_core().id();
                    return Sleeper::wait(&mut reading, limit).unwrap_or(Err(ReadError::Busy { core }));
                }
                Err(ReadError::Busy { .. }) if pause.rest() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// As [`Store::read`], as a future for any executor. An error at once: the core's mailbox is full, or the store
    /// is closed.
    /// What the cache has is there at the first poll.
    pub fn read_async(&self, address: Address) -> Result<Reading, ReadError> {
        match self.read_cached(address) {
            Some(payload) => Ok(Reading(Way::Cached(Some(payload)))),
            None => self.ask_for(address),
        }
    }

    /// The record at `address`, if the cache of the core that reads for the calling thread holds it: without a copy, without
    /// allocating, and without waiting, but for a microsecond while another thread looks; also on a thread that drives a
    /// core. `None`: read it.
    ///
    /// The bytes are shared with the cache, and stay as long as somebody holds them, whatever its budget.
    // Where it is called: each copy of the bytes' handle on the way up would wait for all that the look has under way.
    #[inline(always)]
    #[must_use]
    pub fn read_cached(&self, address: Address) -> Option<Bytes> {
        if self.options().cache_bytes == 0 {
            return None;
        }
        self.directory().cached(self.reading_core(), address)
    }

    fn ask_for(&self, address: Address) -> Result<Reading, ReadError> {
        let core = self.reading_core();
        let pending = self.ask(core, |responder| Mail::Read { address, responder })?;
        Ok(Reading(Way::Asked { core: Arc::clone(core), pending }))
    }

    /// Sends a request to a core.
    pub(crate) fn ask(
        &self,
        core: &CoreHandle,
        mail: impl FnOnce(Responder) -> Mail,
    ) -> Result<Pending, ReadError> {
        let core_id = core.id();
        let (pending, responder) = self.requests().open().ok_or(ReadError::Busy { core: core_id })?;
        match core.send(mail(responder)) {
            Ok(()) => Ok(pending),
            Err(MailError::Full(_)) => Err(ReadError::Busy { core: core_id }),
            Err(MailError::Dead(_)) if core.is_forked() => Err(ReadError::Forked),
            Err(MailError::Dead(_)) if core.has_closed() => Err(ReadError::Closed),
            Err(MailError::Dead(_)) => Err(ReadError::CoreDead { core: core_id }),
        }
    }

    /// The core that reads for the calling thread: its own, or the nearest that lives.
    #[inline]
    pub(crate) fn reading_core(&self) -> &Arc<CoreHandle> {
        let cores = &self.directory().cores;
        match cores.get(usize::from(self.local_core().0)) {
            Some(core) if !core.is_dead() => core,
            _ => self.any_living_core(),
        }
    }

    #[cold]
    fn any_living_core(&self) -> &Arc<CoreHandle> {
        let cores = &self.directory().cores;
        cores.iter().find(|core| !core.is_dead()).unwrap_or(&cores[0])
    }
}

/// A read under way. Dropping it abandons the read.
#[derive(Debug)]
#[must_use = "a future does nothing unless it is polled"]
pub struct Reading(Way);

#[derive(Debug)]
enum Way {
    Asked {
        core: Arc<CoreHandle>,
        pending: Pending,
    },
    /// Until it is taken.
    Cached(Option<Bytes>),
}

impl Future for Reading {
    type Output = Result<Bytes, ReadError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (core, pending) = match &mut self.0 {
            Way::Asked { core, pending } => (core, pending),
            Way::Cached(payload) => {
                return payload.take().map_or(Poll::Pending, |found| Poll::Ready(Ok(found)));
            }
        };
        Pin::new(pending).poll(context).map(|reply| match reply {
            Reply::Record(result) => result,
            Reply::CoreDead | Reply::Appended(_) | Reply::Run(_) | Reply::Space(_) | Reply::Added(_) => {
                Err(ReadError::CoreDead { core: core.id() })
            }
        })
    }
}
