//! Who is where in an open store: the shards, the core that runs each, and the way to reach a core.

use crate::{
    address::Address,
    cache::RecordCache,
    cleaning::Cleaning,
    device::file::DeviceFile,
    extents::ExtentTable,
    fork::Birthplace,
    format::checksum::StoreSeed,
    ids::{CoreId, DeviceIndex, ShardId, SlotIndex},
    layout::Layout,
    mutant::{self, Mutant},
    over::OverTable,
    park::Bell,
    reads::{self, ReadError},
    requests::{Reply, Responder},
    shard::{Shard, ShardRefusal},
    shard_owner::{SpaceAsk, SpaceRefusal},
    sync::{self, AtomicBool, Ordering, fence},
    watermark::RoomWaiters,
};
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, TrySendError};
use std::{
    sync::{Arc, atomic::AtomicU64 as PlainU64},
    task::Wake,
};

/// What is sent to a core.
#[derive(Debug)]
pub enum Mail {
    /// Append to a shard that the core runs.
    Append {
        /// The shard.
        shard: ShardId,
        /// The payload.
        payload: Bytes,
        /// What to do if the shard's ring has no room.
        when_full: WhenFull,
        /// Gets [`crate::requests::Reply::Appended`].
        responder: Responder,
    },
    /// Read one record.
    Read {
        /// Where it is.
        address: Address,
        /// Gets [`crate::requests::Reply::Record`].
        responder: Responder,
    },
    /// Read whole slots, as they are on the device.
    Run {
        /// First slot.
        slot: SlotIndex,
        /// Slots; they lie in one extent.
        slots: u64,
        /// Gets [`crate::requests::Reply::Run`].
        responder: Responder,
    },
    /// About the space of a shard that the core runs.
    Space {
        /// The shard.
        shard: ShardId,
        /// What.
        ask: SpaceAsk,
        /// Gets [`crate::requests::Reply::Space`].
        responder: Responder,
    },
    /// Use a further device of the store.
    AddDevice {
        /// Which it is.
        device: DeviceIndex,
        /// What it is.
        file: Arc<DeviceFile>,
        /// Gets [`crate::requests::Reply::Added`].
        responder: Responder,
    },
    /// Panic, for the test of what a dead core does to others.
    #[cfg(any(test, feature = "mutants"))]
    Panic,
}

/// What a core does with an append that its ring has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Appends it once there is room.
    Wait,
    /// Hands it back.
    Refuse,
}

/// The outside of a core.
#[derive(Debug)]
pub struct CoreHandle {
    id: CoreId,
    mailbox: Sender<Mail>,
    /// For the mail that a dead core did not take: a channel keeps it as long as there is a sender.
    unread: Receiver<Mail>,
    /// Tasks that wait for room in the mailbox.
    room: RoomWaiters,
    bell: Arc<Bell>,
    is_dead: AtomicBool,
    /// It died in order: everything accepted is durable.
    has_closed: AtomicBool,
    /// Not by mail: the mailbox may be full of what only the asking thread could take out.
    is_close_asked: AtomicBool,
    /// Somebody wants a turn of it, whatever for.
    is_poked: AtomicBool,
    birthplace: Birthplace,
    /// Records that it read lately; none unless the options ask for it, and then apart, with its counters.
    cache: Option<Box<RecordCache>>,
    /// Turns and sleeps, for figures.
    pub counters: CoreCounters,
}

/// Counters of a core since it started; written by the core.
#[derive(Debug, Default)]
pub struct CoreCounters {
    /// Turns run.
    pub turns: PlainU64,
    /// Sleeps in the kernel.
    pub sleeps: PlainU64,
    /// Times it watched for the end of a read or of a write before it would sleep.
    pub watches: PlainU64,
    /// Mail taken.
    pub mail: PlainU64,
    /// Records read from the device.
    pub device_reads: PlainU64,
    /// Records read from a ring.
    pub ring_reads: PlainU64,
    /// Device syncs issued.
    pub syncs: PlainU64,
}

/// Mail that was not taken; it comes back.
#[derive(Debug)]
pub enum MailError {
    /// The mailbox is full.
    Full(Mail),
    /// The core is dead or closed.
    Dead(Mail),
}

impl CoreHandle {
    /// A core's outside and the receiving end of its mailbox of `capacity` messages.
    #[must_use]
    pub fn new(id: CoreId, bell: Arc<Bell>, capacity: usize) -> (Arc<Self>, Receiver<Mail>) {
        Self::with_cache(id, bell, capacity, 0)
    }

    /// The same, with a cache of records of `cache_bytes`; 0 is none.
    #[must_use]
    pub fn with_cache(
        id: CoreId,
        bell: Arc<Bell>,
        capacity: usize,
        cache_bytes: u64,
    ) -> (Arc<Self>, Receiver<Mail>) {
        let (mailbox, receiver) = crossbeam_channel::bounded(capacity);
        let handle = Self {
            id,
            mailbox,
            unread: receiver.clone(),
            room: RoomWaiters::default(),
            bell,
            birthplace: Birthplace::here(),
            is_dead: AtomicBool::new(false),
            has_closed: AtomicBool::new(false),
            is_close_asked: AtomicBool::new(false),
            is_poked: AtomicBool::new(false),
            cache: RecordCache::new(cache_bytes).map(Box::new),
            counters: CoreCounters::default(),
        };
        (Arc::new(handle), receiver)
    }

    /// Which core this is.
    #[must_use]
    pub const fn id(&self) -> CoreId {
        self.id
    }

    /// Puts mail in the box and wakes the core if it sleeps.
    pub fn send(&self, mail: Mail) -> Result<(), MailError> {
        if self.is_dead() || self.is_forked() {
            return Err(MailError::Dead(mail));
        }
        sync::let_others_run();
        match self.mailbox.try_send(mail) {
            Ok(()) => {
                self.bell.ring();
                // Pairs with the fence in `set_dead`: either the core sees this mail, or we see that it is dead.
                fence(Ordering::SeqCst);
                if self.is_dead() && !mutant::is_active(Mutant::MailLeftByTheDead) {
                    self.drop_mail();
                }
                Ok(())
            }
            Err(TrySendError::Full(mail)) => {
                self.bell.ring();
                Err(MailError::Full(mail))
            }
            Err(TrySendError::Disconnected(mail)) => Err(MailError::Dead(mail)),
        }
    }

    /// Its cache of records, while somebody may use it. Not in a child of the process: a thread that the child does not
    /// have may hold a lock of it.
    #[inline]
    #[must_use]
    pub fn cache(&self) -> Option<&RecordCache> {
        self.cache.as_deref().filter(|_| !self.is_dead() && !self.is_forked())
    }

    /// Those who wait for room in the mailbox: told whenever the core has taken mail, and when it has died.
    #[must_use]
    pub const fn room(&self) -> &RoomWaiters {
        &self.room
    }

    /// True if the mailbox had room at this moment.
    #[must_use]
    pub fn has_mailbox_room(&self) -> bool {
        !self.mailbox.is_full()
    }

    /// True once the core stopped, orderly or not.
    #[inline]
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Acquire)
    }

    /// True once the core stopped after it was closed, with everything that it accepted durable.
    #[must_use]
    pub fn has_closed(&self) -> bool {
        // Acquire pairs with the release of `set_dead`.
        self.has_closed.load(Ordering::Acquire)
    }

    /// Asks the core to close its shards and to stop when everything accepted is durable. It answers the mail that is
    /// in its box by now first. Never waits, whatever the mailbox holds.
    pub fn ask_to_close(&self) {
        // Relaxed: the bell's fence makes it visible to a core that goes to sleep.
        self.is_close_asked.store(true, Ordering::Relaxed);
        self.bell.ring();
    }

    /// True once somebody asked it to close.
    pub(crate) fn is_close_asked(&self) -> bool {
        self.is_close_asked.load(Ordering::Relaxed)
    }

    /// True in a child of the process that the core runs in.
    #[inline]
    #[must_use]
    pub fn is_forked(&self) -> bool {
        !self.birthplace.is_here()
    }

    /// The core takes no more mail; what is in the box is answered. `in_order`: it closed.
    pub(crate) fn set_dead(&self, in_order: bool) {
        if let Some(cache) = self.cache() {
            cache.clear();
        }
        self.has_closed.store(in_order, Ordering::Release);
        self.is_dead.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        self.drop_mail();
        self.room.publish(&mut Vec::new());
    }

    fn drop_mail(&self) {
        self.unread.try_iter().for_each(|mail| self.refuse(mail));
    }

    /// Answers mail that this core will not take: the store is closed, or the core died.
    pub(crate) fn refuse(&self, mail: Mail) {
        if !self.has_closed() {
            // Its responder says that the core died.
            return drop(mail);
        }
        match mail {
            Mail::Append { payload, responder, .. } => {
                responder.answer(Reply::Appended(Err((ShardRefusal::Closed, payload))));
            }
            Mail::Read { responder, .. } => responder.answer(Reply::Record(Err(ReadError::Closed))),
            Mail::Run { responder, .. } => responder.answer(Reply::Run(Err(ReadError::Closed))),
            Mail::Space { responder, .. } => responder.answer(Reply::Space(Err(SpaceRefusal::Closed))),
            // A core that is gone uses no device.
            Mail::AddDevice { responder, .. } => responder.answer(Reply::Added(Ok(()))),
            #[cfg(any(test, feature = "mutants"))]
            Mail::Panic => {}
        }
    }

    /// Wakes the core.
    pub fn ring(&self) {
        self.bell.ring();
    }

    /// Has the core take a turn, now or when it would next sleep: for whoever drives it, and waits for something that the
    /// core knows nothing of.
    pub fn poke(&self) {
        // Release: what was done before is seen by who takes the turn. Visible before the bell, which fences.
        self.is_poked.store(true, Ordering::Release);
        self.ring();
    }

    pub(crate) fn is_poked(&self) -> bool {
        self.is_poked.load(Ordering::Relaxed)
    }

    /// For the core: true if somebody poked since the last time.
    pub(crate) fn take_poke(&self) -> bool {
        self.is_poked() && self.is_poked.swap(false, Ordering::Acquire)
    }
}

impl Wake for CoreHandle {
    fn wake(self: Arc<Self>) {
        self.poke();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.poke();
    }
}

/// The whole open store, as its cores see it.
#[derive(Debug)]
pub struct Directory {
    /// Where slots are.
    pub layout: Arc<Layout>,
    /// Who owns extents.
    pub extents: Arc<ExtentTable>,
    /// Seed of the record checksums.
    pub seed: StoreSeed,
    /// All shards, by id.
    pub shards: Vec<Arc<Shard>>,
    /// The core that runs each shard, by shard id.
    pub runs_on: Vec<CoreId>,
    /// All cores, by id.
    pub cores: Vec<Arc<CoreHandle>>,
    /// Batches over several shards.
    pub over: Arc<OverTable>,
}

impl Directory {
    /// Something may be worth cleaning in a shard whose owner had found nothing. Until it has looked again, appends that
    /// find no room in any shard wait for that; else the store would be full for somebody who just made room.
    pub fn look_again(&self, cleaning: &Cleaning, shard: &Shard) {
        if shard.failure().is_some() {
            // Its owner looks at nothing any more.
            return;
        }
        // Before the flag is raised: whoever takes it gives the hope back.
        cleaning.gain_hope();
        if shard.owe_look() && cleaning.lose_hope() {
            // What was owed was paid meanwhile, and whoever paid was not the last to have hope.
            self.cores.iter().for_each(|core| core.ring());
            return;
        }
        self.shards.iter().for_each(|shard| shard.hope_again());
        shard.ring().bell().ring();
    }

    /// A shard by its id.
    #[must_use]
    pub fn shard(&self, id: ShardId) -> Option<&Arc<Shard>> {
        self.shards.get(usize::from(id.0))
    }

    /// The core that runs a shard.
    #[must_use]
    pub fn core_of(&self, id: ShardId) -> Option<&Arc<CoreHandle>> {
        self.cores.get(usize::from(self.runs_on.get(usize::from(id.0))?.0))
    }

    /// The record at `address` from the cache of `core`, as good as a read of it: never of an extent that was freed since.
    /// Neither waits for a core nor allocates.
    #[inline]
    #[must_use]
    pub fn cached(&self, core: &CoreHandle, address: Address) -> Option<Bytes> {
        core.cache()?.get(&self.extents, address)
    }

    /// The shard that an address belongs to, as of now.
    pub fn owner_of(&self, address: Address) -> Result<ShardId, ReadError> {
        reads::owner_of(self, address).map(|(shard, _)| shard)
    }

    /// True if the frame that holds `slot`, which lies in an extent of `shard`, has been written.
    #[must_use]
    pub fn is_written(&self, shard: &Shard, slot: SlotIndex) -> bool {
        let geometry = self.layout.geometry();
        let end = shard.written_end();
        let last_extent = geometry.extent_of(SlotIndex(end.0.saturating_sub(1)));
        let extent = geometry.extent_of(slot);
        if extent == last_extent {
            return slot < end;
        }
        self.extents.ordinal(extent) < self.extents.ordinal(last_extent)
    }
}

#[cfg(all(test, loom))]
#[path = "directory_loom_tests.rs"]
mod loom_tests;

#[cfg(all(test, not(any(loom, shuttle))))]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{park::Wakeup, requests::Requests};
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    struct Nobody;

    impl Wakeup for Nobody {
        fn wake(&self) {}
    }

    /// Mail that came too late for a core that closed was answered with the death of the core.
    #[test]
    fn mail_that_a_core_did_not_take_is_answered_by_how_the_core_ended() {
        for in_order in [true, false] {
            let requests = Arc::new(Requests::default());
            let (handle, _mailbox) = CoreHandle::new(CoreId(0), Arc::new(Bell::new(Arc::new(Nobody))), 4);
            let address = Address::from_bits(0);
            let mails: [fn(Responder, Address) -> Mail; 3] = [
                |responder, _| Mail::Append {
                    shard: ShardId(0),
                    payload: Bytes::from_static(b"late"),
                    when_full: WhenFull::Wait,
                    responder,
                },
                |responder, address| Mail::Read { address, responder },
                |responder, _| Mail::Run { slot: SlotIndex(0), slots: 1, responder },
            ];
            let pending = mails.map(|mail| {
                let (pending, responder) = requests.open().unwrap();
                handle.send(mail(responder, address)).unwrap();
                pending
            });
            handle.set_dead(in_order);
            assert!(matches!(handle.send(Mail::Panic), Err(MailError::Dead(_))));
            for pending in pending {
                let Poll::Ready(reply) = pin!(pending).poll(&mut Context::from_waker(Waker::noop())) else {
                    panic!("no answer")
                };
                let said_so = match &reply {
                    Reply::Appended(Err((ShardRefusal::Closed, payload))) => payload == &b"late"[..],
                    Reply::Record(Err(ReadError::Closed)) | Reply::Run(Err(ReadError::Closed)) => true,
                    _ => false,
                };
                let died = matches!(reply, Reply::CoreDead);
                assert_eq!((said_so, died), (in_order, !in_order), "{reply:?}");
            }
        }
    }
}
