//! What a user calls, over the changed image: an inspection with its reads, scan and verification, a salvage, and a
//! store that opens on it, reads, appends, closes and opens again. The image is a file in memory.
//!
//! Cores take their turns on the thread of the caller, which counts what they allocate.

use super::{Base, script::Changed};
use crate::{
    Backend, Core, Durability, Inspection, OpenError, Options, Route, Salvage, ScanError, Store, Turn,
};
use corelog_shards::{address::Address, ids::ShardId, limits::RECORD_HEADER_BYTES};
use rustix::fs::{MemfdFlags, memfd_create};
use std::{
    collections::BTreeSet,
    convert::Infallible,
    fs::File,
    future::Future,
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::PathBuf,
    pin::pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// Whatever the image says, a core that has something to do gets it done.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Records that are appended, and shards that they go to at most.
const APPENDS: u16 = 6;

const VERIFY_ON_OPEN: u8 = 1;
const SALVAGE: u8 = 2;
/// All of these bits: the lock on a file outlives its ring by some milliseconds, so that few cases wait for that.
const IO_URING: u8 = 0b1100;

pub(super) fn check(base: &Base, changed: &Changed) {
    let file = MemoryFile::new(&changed.bytes);
    inspect(base, changed, &file);
    salvage(base, changed, &file);
    live(base, changed, &file);
}

struct MemoryFile {
    _open: File,
    path: PathBuf,
}

impl MemoryFile {
    fn new(bytes: &[u8]) -> Self {
        let fd = memfd_create("corelog-image", MemfdFlags::CLOEXEC).expect("a file in memory");
        let path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        let file = File::from(fd);
        file.write_all_at(bytes, 0).expect("memory for the image");
        Self { _open: file, path }
    }
}

fn options(how: u8) -> Options {
    let backend = if how & IO_URING == IO_URING { Backend::IoUring } else { Backend::Threads };
    Options::default()
        .cores(1)
        .pin(false)
        .huge_pages(false)
        .buffer_bytes(16 << 10)
        .buffers(4)
        .io_depth(16)
        .backend(backend)
        .allow_buffered(true)
        .verify_on_open(how & VERIFY_ON_OPEN != 0)
        .salvage(how & SALVAGE != 0)
}

/// What came back was appended there, unless somebody forged it.
fn check_record(base: &Base, changed: &Changed, address: Address, payload: &[u8]) {
    let is_it = |(bits, appended): (&u64, &Vec<u8>)| {
        Address::from_bits(*bits).byte() == address.byte() && appended == payload
    };
    assert!(!changed.is_honest || base.records.iter().any(is_it), "{address} was never appended");
}

/// Counts what a reader of the whole device is given: no byte can be given twice.
struct Given {
    bytes: u64,
    most: u64,
}

impl Given {
    const fn new(changed: &Changed) -> Self {
        Self { bytes: 0, most: changed.bytes.len() as u64 }
    }

    fn add(&mut self, payload: &[u8]) {
        self.bytes += RECORD_HEADER_BYTES + payload.len() as u64;
        assert!(self.bytes <= self.most, "more records than the device has room for");
    }
}

/// Every address that there was, and some beside it: other lengths, generations and places.
fn addresses(base: &Base) -> impl Iterator<Item = Address> + '_ {
    let beside = |(index, bits): (usize, &u64)| [*bits, bits ^ (1 << (index % 64))];
    base.records.keys().enumerate().flat_map(beside).map(Address::from_bits)
}

fn inspect(base: &Base, changed: &Changed, file: &MemoryFile) {
    let inspection = match Inspection::open(&[&file.path], &options(changed.how | SALVAGE)) {
        Ok(inspection) => inspection,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    for address in addresses(base) {
        if let Ok(payload) = inspection.read(address) {
            check_record(base, changed, address, &payload);
        }
    }
    let mut given = Given::new(changed);
    for shard in (0..).map(ShardId).take(inspection.superblock().shards.len()) {
        let Ok(scan) = inspection.scan(shard) else { continue };
        for record in scan.skip_damage() {
            match record {
                Ok(record) => {
                    given.add(&record.payload);
                    check_record(base, changed, record.address, &record.payload);
                }
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }
    let Ok(report) = inspection.verify(None, &mut |_, _| {}) else { return };
    assert!(report.bytes + RECORD_HEADER_BYTES * report.records <= given.most);
    assert!(report.findings_count <= given.most && report.findings.len() as u64 <= report.findings_count);
}

fn salvage(base: &Base, changed: &Changed, file: &MemoryFile) {
    let Ok(salvage) = Salvage::open(&[&file.path], &options(changed.how)) else { return };
    let mut given = Given::new(changed);
    let mut places = BTreeSet::new();
    let report = salvage.run::<Infallible>(&mut |record| {
        given.add(&record.payload);
        assert!(places.insert(record.address.byte()), "{} is salvaged twice", record.address);
        check_record(base, changed, record.address, &record.payload);
        Ok(())
    });
    let Ok(report) = report else { return };
    assert_eq!(report.records, places.len() as u64);
    assert!(report.losses <= given.most && report.places.len() as u64 <= given.most);
}

/// A store on the image, and its one core.
struct Live {
    store: Store,
    core: Core,
    end: Instant,
}

impl Live {
    fn open(file: &MemoryFile, how: u8) -> Result<Self, OpenError> {
        let mut opening = Store::open_owned(&[&file.path], &options(how))?;
        let seat = opening.take_seats().pop().expect("one core");
        let core = seat.start()?;
        Ok(Self { store: opening.store()?, core, end: Instant::now() + TIME_MAX })
    }

    /// Turns until there is an answer.
    fn drive<T>(&mut self, mut answer: impl FnMut(&Store, &mut Context<'_>) -> Poll<T>) -> T {
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(answer) = answer(&self.store, &mut context) {
                return answer;
            }
            if self.core.turn() == Turn::Idle {
                self.core.wait(Some(Duration::from_millis(1)));
            }
            assert!(Instant::now() < self.end, "the core does not get there");
        }
    }

    fn read(&mut self, address: Address) -> Option<Vec<u8>> {
        let mut reading = pin!(self.store.read_async(address).ok()?);
        self.drive(|_, context| reading.as_mut().poll(context)).ok().map(Vec::from)
    }

    fn scan(&mut self, base: &Base, changed: &Changed, given: &mut Given) {
        for shard in (0..).map(ShardId).take(self.store.shards().len()) {
            let Ok(scan) = self.store.scan(shard) else { continue };
            let mut scan = scan.skip_damage().read_ahead(1);
            loop {
                match self.drive(|_, context| scan.poll_next(context)) {
                    Some(Ok(record)) => {
                        given.add(&record.payload);
                        check_record(base, changed, record.address, &record.payload);
                    }
                    Some(Err(ScanError::Damage(_))) => {}
                    Some(Err(_)) | None => break,
                }
            }
        }
    }

    /// Appends to some shards, and gives what became durable.
    fn append(&mut self) -> Vec<(Address, Vec<u8>)> {
        let shards = self.store.shards().len() as u16;
        let mut kept = Vec::new();
        for index in 0..APPENDS {
            let payload = vec![index as u8; usize::from(index) * 700];
            let shard = ShardId(index % shards);
            let Ok(ticket) = self.store.try_append(Route::Shard(shard), &payload) else { continue };
            kept.push((ticket.id(), payload));
        }
        kept.retain(|(id, _)| {
            let store = self.store.clone();
            let ticket = store.ticket(*id).expect("a ticket of this store");
            let mut reached = pin!(ticket.reached(Durability::Durable));
            self.drive(|_, context| reached.as_mut().poll(context)).is_ok()
        });
        kept.into_iter().map(|(id, payload)| (id.address, payload)).collect()
    }
}

fn live(base: &Base, changed: &Changed, file: &MemoryFile) {
    let mut live = match Live::open(file, changed.how) {
        Ok(live) => live,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    for address in addresses(base) {
        if let Some(payload) = live.read(address) {
            check_record(base, changed, address, &payload);
        }
    }
    live.scan(base, changed, &mut Given::new(changed));
    let appended = live.append();
    for (address, payload) in &appended {
        assert_eq!(live.read(*address).as_ref(), Some(payload), "{address} was just appended");
    }
    let is_closed = live.core.close(TIME_MAX);
    drop(live);
    if !is_closed {
        return;
    }
    // What somebody forged may fall apart later; what a device did has been seen by now.
    match Live::open(file, changed.how) {
        Ok(mut again) => {
            for (address, payload) in &appended {
                assert_eq!(again.read(*address).as_ref(), Some(payload), "{address} was durable");
            }
        }
        Err(error) => assert!(!changed.is_honest, "it opened once, and then: {error}"),
    }
}
