//! A run: room for several records of the owner's, taken by one reservation.
//!
//! A reservation and its commit are two read-modify-writes of the state word, and each waits until every store before it
//! has left the core, those to buffer lines that the device drove out of the cache included. The owner takes room for
//! many records at once instead, and puts them there with plain stores. It ends the run before it does anything else
//! with its ring, so that no frame waits for it.
//!
//! A record of a run stands for a reservation at the moment at which it is put: the run goes on only while the buffer is
//! open and nobody reserved behind the run. What the owner puts after it has seen the doing of others, a seal by a cut
//! included, lies behind that, as if it had reserved.
//!
//! This file holds unsafe code.

use super::{
    Position, Refusal, Ring,
    owner::RingOwner,
    reservation::{Placed, Reservation},
    state::{Committed, FrameTag},
};
use crate::{
    address::Address,
    format::record::{RecordFlags, RecordKind, Summed, record_bytes, seal_record, write_record},
    ids::{FrameNumber, Generation},
    limits::{FRAME_HEADER_BYTES, RECORD_HEADER_BYTES, RUN_BYTES_MAX},
    mutant::{self, Mutant},
    sync::Ordering,
};

/// A run is doubled once one was filled, and from this length on once eight were: what others' reservations turn into padding
/// is then little beside what was appended since the last time.
const QUICKLY_GROWN_BYTES_MAX: u64 = 4096;
const LONG_RUNS_BEFORE_GROWTH: u32 = 8;
/// How far ahead of a short record the lines of the buffer are fetched, and up to which length. The copy of a longer one has
/// enough stores under way by itself.
const PREFETCH_AHEAD_BYTES: u64 = 512;
const PREFETCHED_RECORD_BYTES_MAX: u64 = 128;

/// Room that the owner has reserved.
#[derive(Debug)]
pub(super) struct Run {
    tag: FrameTag,
    frame: FrameNumber,
    generation: Generation,
    /// Of the first byte of the frame, in the ring's memory and in the store.
    memory: usize,
    base_byte: u64,
    /// From the start of the frame: the first record, the next one, and the end of the room.
    first: u64,
    next: u64,
    end: u64,
    /// Of the records from the start of the frame to `next`, if the owner put them all.
    summed: Option<Summed>,
}

/// What the owner knows of the records that a frame begins with.
#[derive(Clone, Copy, Debug)]
struct Beginning {
    frame: FrameNumber,
    summed: Summed,
    /// Where they end, from the start of the frame.
    end: u64,
}

impl Run {
    fn new(reservation: Reservation<'_>, ring: &Ring, beginnings: &[Option<Beginning>]) -> Self {
        let (Position { tag, base }, first, bytes) = reservation.into_room();
        // While the frame has a writer it cannot be recycled: `oldest` is at most `buffers` behind.
        let frame = ring.frame_of(tag, ring.oldest.load(Ordering::Relaxed));
        Self {
            tag,
            frame,
            generation: ring.extents.generation(ring.geometry.extent_of(base)),
            memory: ring.memory_offset(tag),
            base_byte: ring.geometry.byte_of(base),
            first,
            next: first,
            end: first + bytes,
            summed: Beginning::before(beginnings, frame, first),
        }
    }

    /// True if nobody reserved behind the run or sealed its buffer.
    #[inline]
    fn is_last(&self, ring: &Ring) -> bool {
        ring.state(self.tag).ends_at(self.tag, self.end - FRAME_HEADER_BYTES)
    }

    /// True if a record may be put into what is left of the room.
    #[inline]
    fn goes_on(&self, ring: &Ring) -> bool {
        // Acquire, and before the state: see `Ring::set_gate`. A cut that is over sealed the buffer before it opened the
        // gate.
        let is_free = ring.gate.load(Ordering::Acquire) == 0;
        (is_free && self.is_last(ring)) || mutant::is_active(Mutant::RunIgnoresOthers)
    }

    #[inline]
    fn put(&mut self, ring: &Ring, payload: &[u8]) -> Placed {
        let bytes = record_bytes(payload.len() as u64);
        let byte = self.base_byte + self.next;
        // SAFETY: the range is a part of one that was reserved in one atomic step and is not committed yet, so that nobody
        // flushes or recycles the buffer; `next` moves over it, so that it is lent once.
        let record = unsafe { ring.memory.slice_mut(self.memory + self.next as usize, bytes as usize) };
        let seed = ring.seed.record_seed(self.generation, byte);
        let header = write_record(record, payload, RecordKind::DATA, RecordFlags::NONE, seed);
        if let Some(summed) = &mut self.summed {
            summed.add(header, payload.len());
        }
        if bytes <= PREFETCHED_RECORD_BYTES_MAX {
            ring.memory.prefetch_to_write(self.memory + (self.next + PREFETCH_AHEAD_BYTES) as usize);
        }
        self.next += bytes;
        let address = Address::new(ring.geometry(), byte, self.generation, payload.len() as u64);
        Placed { address, frame: self.frame }
    }

    /// Makes what is left of the room one record of padding.
    fn pad(&self, ring: &Ring) {
        let rest = (self.end - self.next) as usize;
        // SAFETY: as in `put`.
        let padding = unsafe { ring.memory.slice_mut(self.memory + self.next as usize, rest) };
        padding.fill(0);
        let seed = ring.seed.record_seed(self.generation, self.base_byte + self.next);
        seal_record(padding, RecordKind::PADDING, RecordFlags::NONE, seed);
    }
}

impl Beginning {
    /// What is known of all records of `frame` in front of `first`.
    fn before(beginnings: &[Option<Self>], frame: FrameNumber, first: u64) -> Option<Summed> {
        if first == FRAME_HEADER_BYTES {
            return Some(Summed::default());
        }
        let known = Self::of(beginnings, frame)?;
        (known.end == first).then_some(known.summed)
    }

    fn of(beginnings: &[Option<Self>], frame: FrameNumber) -> Option<Self> {
        beginnings[frame.0 as usize % beginnings.len()].filter(|known| known.frame == frame)
    }
}

/// The run of a ring's owner, and how much room the next one takes.
#[derive(Debug)]
pub(super) struct Runs {
    open: Option<Run>,
    /// Bytes of the next: twice as many after some that were filled; none, so that it holds one record, after one that
    /// others reserved behind, since what was left of it became padding.
    next_bytes: u64,
    /// Runs of that size that were filled.
    filled: u32,
    /// Of each buffer's frame.
    beginnings: Box<[Option<Beginning>]>,
}

impl RingOwner {
    /// Appends a record, for whoever drives the owner: [`Ring::reserve`], the copy and the commit in one, without a
    /// read-modify-write for most records. What others may do, and what they see, is the same.
    ///
    /// The frame is not handed over before [`RingOwner::end_run`].
    #[inline]
    pub fn append(&mut self, payload: &[u8]) -> Result<Placed, Refusal> {
        let ring = &self.ring;
        if let Some(run) = &mut self.runs.open
            && record_bytes(payload.len() as u64) <= run.end - run.next
            && run.goes_on(ring)
        {
            return Ok(run.put(ring, payload));
        }
        self.begin_run(payload)
    }

    #[cold]
    fn begin_run(&mut self, payload: &[u8]) -> Result<Placed, Refusal> {
        let bytes = record_bytes(payload.len() as u64);
        let was_full = self.runs.open.as_ref().is_some_and(|run| bytes > run.end - run.next);
        if self.end_run() && was_full {
            self.runs.grow(&self.ring);
        }
        let ring = &self.ring;
        // No more than there is, so that a run seals no buffer that the record fits into.
        let room = ring.position().map_or(0, |position| {
            let state = ring.state(position.tag).load();
            if state.tag() == position.tag { ring.capacity() - state.offset() } else { 0 }
        });
        let wanted = self.runs.next_bytes.min(room).max(bytes);
        // A payload that is too long is refused before it is looked at further.
        let reservation = ring.reserve((wanted - RECORD_HEADER_BYTES) as usize)?;
        let mut run = Run::new(reservation, ring, &self.runs.beginnings);
        let placed = run.put(ring, payload);
        self.runs.next_bytes = self.runs.next_bytes.max(bytes);
        self.runs.open = Some(run);
        Ok(placed)
    }

    /// Ends the run, if there is one: its frame waits for it no longer. False: others reserved behind it.
    pub fn end_run(&mut self) -> bool {
        let Some(run) = self.runs.open.take() else { return true };
        let ring = &self.ring;
        self.runs.keep(&run);
        let (state, rest) = (ring.state(run.tag), run.end - run.next);
        let is_last = run.is_last(ring);
        let given_back = rest > 0 && state.give_back(run.tag, run.end - FRAME_HEADER_BYTES, rest);
        let mut committed = Committed::Open;
        if !given_back {
            if rest > 0 && !mutant::is_active(Mutant::RunNotPadded) {
                run.pad(ring);
            }
            committed = state.commit();
        }
        let was_alone = given_back || (rest == 0 && is_last);
        if !was_alone {
            self.runs.next_bytes = 0;
            self.runs.filled = 0;
        }
        if committed == Committed::HandedOver || (ring.lingers && run.first == FRAME_HEADER_BYTES) {
            ring.bell.ring();
        }
        was_alone
    }

    /// What the owner's runs know of the records that `frame` begins with, and how many bytes of its body these are.
    #[must_use]
    pub fn summed(&self, frame: FrameNumber) -> (Summed, usize) {
        let known = Beginning::of(&self.runs.beginnings, frame);
        known.map_or_else(Default::default, |known| (known.summed, (known.end - FRAME_HEADER_BYTES) as usize))
    }
}

impl Runs {
    pub(super) fn new(buffers: usize) -> Self {
        Self { open: None, next_bytes: 0, filled: 0, beginnings: vec![None; buffers].into() }
    }

    /// Keeps what an ended run knows of its frame. What others put behind it is walked over when the frame is full.
    fn keep(&mut self, run: &Run) {
        if let Some(summed) = run.summed {
            let of_buffer = run.frame.0 as usize % self.beginnings.len();
            self.beginnings[of_buffer] = Some(Beginning { frame: run.frame, summed, end: run.next });
        }
    }

    /// A run was filled by records of the owner alone. The next one takes a quarter of the buffer at most, so that
    /// others find room in it.
    fn grow(&mut self, ring: &Ring) {
        self.filled += 1;
        if self.next_bytes < QUICKLY_GROWN_BYTES_MAX || self.filled == LONG_RUNS_BEFORE_GROWTH {
            let most = RUN_BYTES_MAX.min(ring.buffer_bytes / 4);
            (self.filled, self.next_bytes) = (0, (2 * self.next_bytes).min(most));
        }
    }
}

#[cfg(all(test, not(loom)))]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{
        super::{
            owner::CopyOut,
            state::Sealing,
            testing::{Driver, Shape, append},
        },
        *,
    };
    use crate::{
        format::record::{summarise_behind, summarise_body},
        geometry::Geometry,
        limits::BUFFER_BYTES_MIN,
    };
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    const PAYLOAD: usize = 120;
    const STRIDE: u64 = 128;

    fn driver() -> Driver {
        Driver::new(Shape {
            geometry: Geometry::new(4096, 16 << 20).unwrap(),
            buffer_bytes: BUFFER_BYTES_MIN,
            buffers: 4,
            extents: 16,
            first_frame: 0,
            first_slot: 1,
        })
    }

    fn payload(number: u64) -> Vec<u8> {
        number.to_le_bytes().repeat(PAYLOAD / 8)
    }

    fn writers(driver: &Driver, frame: FrameNumber) -> u32 {
        driver.owner.state(frame).writers()
    }

    #[test]
    fn one_reservation_serves_many_records_and_what_is_left_goes_back() {
        let mut driver = driver();
        let mut all: Vec<_> =
            (0..6).map(|n| (driver.owner.append(&payload(n)).unwrap(), payload(n))).collect();
        let frame = all[0].0.frame;
        // Runs of 1, 2 and 4 records.
        assert_eq!((driver.owner.state(frame).offset(), writers(&driver, frame)), (7 * STRIDE, 1));
        driver.owner.end_run();
        assert_eq!((driver.owner.state(frame).offset(), writers(&driver, frame)), (6 * STRIDE, 0));
        let next = append(&driver.ring(), &payload(6)).unwrap();
        assert_eq!(next.address.byte(), all[5].0.address.byte() + STRIDE);
        all.push((next, payload(6)));
        driver.drain();
        driver.check(&all);
    }

    #[test]
    fn runs_sum_up_what_a_frame_begins_with_until_others_append() {
        let mut driver = driver();
        let bytes_of_records = |count: u64| (count * STRIDE) as usize;
        let frame = driver.owner.append(&payload(0)).unwrap().frame;
        (1..6).for_each(|n| assert_eq!(driver.owner.append(&payload(n)).unwrap().frame, frame));
        driver.owner.end_run();
        driver.owner.append(&payload(6)).unwrap();
        driver.owner.end_run();
        let (summed, known) = driver.owner.summed(frame);
        assert_eq!(known, bytes_of_records(7));
        // Another's record, and then the owner's again: these are walked over.
        append(&driver.ring(), &payload(7)).unwrap();
        driver.owner.append(&payload(8)).unwrap();
        driver.owner.end_run();
        assert_eq!(driver.owner.summed(frame), (summed, known));
        let mut body = vec![0; bytes_of_records(9)];
        assert_eq!(driver.owner.copy_out(frame, FRAME_HEADER_BYTES, &mut body), CopyOut::Copied);
        assert_eq!(summarise_behind(&summed, known, &body), summarise_body(&body));
        summarise_behind(&summed, body.len() + 8, &body).unwrap_err();
        // The next turn of the buffer begins with nothing.
        let again = FrameNumber(frame.0 + 4);
        assert_eq!(driver.owner.summed(again), (Summed::default(), 0));
    }

    #[test]
    fn records_lie_behind_what_was_appended_before_them_and_nothing_is_wasted_for_long() {
        let mut driver = driver();
        let mut all = Vec::new();
        for number in 0..100 {
            let by_owner = number < 4 || number % 2 == 0;
            let bytes = payload(number);
            let placed =
                if by_owner { driver.owner.append(&bytes) } else { append(&driver.ring(), &bytes) }.unwrap();
            all.push((placed, bytes));
        }
        assert!(all.is_sorted_by_key(|(placed, _)| placed.address.byte()));
        // The third run, which others cut short, is padded once; after that the owner takes no more than it needs.
        let offset = driver.owner.state(all[0].0.frame).offset();
        assert!(offset <= 104 * STRIDE, "{offset} bytes");
        driver.drain();
        driver.check(&all);
    }

    #[test]
    fn a_sealed_buffer_waits_for_the_run_and_the_next_record_goes_elsewhere() {
        let mut driver = driver();
        let mut all: Vec<_> =
            (0..5).map(|n| (driver.owner.append(&payload(n)).unwrap(), payload(n))).collect();
        assert_eq!(driver.ring().seal(), Sealing::Sealed { handed_over: false });
        assert!(!driver.submit(), "its owner has not ended the run");
        let behind = driver.owner.append(&payload(5)).unwrap();
        assert_eq!(behind.frame, all[0].0.frame.next());
        all.push((behind, payload(5)));
        assert!(driver.submit());
        driver.drain();
        driver.check(&all);
    }

    #[test]
    fn what_a_ring_refuses_is_refused_by_the_owners_append() {
        let mut driver = driver();
        let max = driver.ring().payload_bytes_max();
        assert_eq!(driver.owner.append(&vec![0; max as usize + 1]), Err(Refusal::TooLarge { max }));
        let largest = driver.owner.append(&vec![7; max as usize]).unwrap();
        driver.owner.append(&payload(1)).unwrap();
        driver.ring().restrict(true);
        assert_eq!(driver.owner.append(&payload(2)), Err(Refusal::NoExtent), "there is room in the run");
        driver.ring().restrict(false);
        let last = driver.owner.close();
        assert_eq!(driver.owner.append(&payload(3)), Err(Refusal::Closed));
        assert_eq!((largest.frame.next(), writers(&driver, last)), (last, 0));
    }

    #[test]
    fn three_writers_beside_the_owner_lose_nothing_and_keep_its_order() {
        let mut driver = driver();
        let (ring, is_over) = (driver.ring(), AtomicBool::new(false));
        let mut all = Vec::new();
        thread::scope(|scope| {
            let others: Vec<_> = (1..4)
                .map(|writer| {
                    let (ring, is_over) = (&ring, &is_over);
                    scope.spawn(move || {
                        let mut appended = Vec::new();
                        for number in 0.. {
                            if is_over.load(Ordering::Relaxed) {
                                break;
                            }
                            let bytes = payload(writer << 32 | number);
                            if number % 8 == 0
                                && let Ok(placed) = append(ring, &bytes)
                            {
                                appended.push((placed, bytes));
                            }
                            thread::yield_now();
                        }
                        appended
                    })
                })
                .collect();
            let mut own: Vec<(Placed, Vec<u8>)> = Vec::new();
            while own.len() < 20_000 {
                let bytes = payload(own.len() as u64);
                match driver.owner.append(&bytes) {
                    Ok(placed) => own.push((placed, bytes)),
                    Err(_) => {
                        driver.owner.end_run();
                        let _progress = [driver.offer(), driver.submit(), driver.complete()];
                    }
                }
            }
            is_over.store(true, Ordering::Relaxed);
            assert!(own.is_sorted_by_key(|(placed, _)| (placed.frame, placed.address.byte())));
            all.append(&mut own);
            all.extend(others.into_iter().flat_map(|other| other.join().unwrap()));
        });
        driver.drain();
        driver.check(&all);
    }
}
