//! The question: should a reservation move the packed word by compare-exchange or by add?
//!
//! Both are written out here on bare words, apart from the shipped ring, so that the answer does not depend on what
//! else the ring does: load `current`, claim 72 bytes (a 64-byte record with its header) and count the writer,
//! leave. Eight words, as a ring has them; the last one out of a full word opens it for its next turn.
//!
//! - *compare-exchange*: the offset never passes the end. Whoever does not fit seals, and whoever finds a sealed word
//!   can move `current` on.
//! - *compare-exchange from a guess*: the same, but the first try starts from what the writer's last commit left in
//!   the word instead of a load. Right when nobody came between; when wrong, the failed try has fetched the cache
//!   line for writing, which a load has not.
//! - *add*: one unconditional step; the offset runs past the end. Only the one whose add crossed the end knows where
//!   the used bytes ended, so only it can move `current` on; all others wait for it.
//!
//! "with copy" puts a copy of 64 bytes into the writer's own memory between claiming and leaving, which is how densely
//! a real writer comes back to the word. Time is per reservation over all writers together.
//!
//! The decision and its figures: `docs/decisions/0006-reserve-by-compare-exchange.md`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crossbeam_utils::CachePadded;
use std::{
    hint::{black_box, spin_loop},
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const WORDS: u64 = 8;
const CAPACITY: u64 = (256 << 10) / 8;
/// In units of 8 bytes.
const CLAIM: u64 = 72 / 8;

const OFFSET_MASK: u64 = (1 << 21) - 1;
const ONE_WRITER: u64 = 1 << 21;
const WRITERS_MASK: u64 = (1 << 10) - 1;
const SEALED: u64 = 1 << 31;
const TURN_SHIFT: u32 = 34;
const TURN_MASK: u64 = (1 << 30) - 1;

const fn filling(turn: u64) -> u64 {
    (turn & TURN_MASK) << TURN_SHIFT
}

const fn offset(word: u64) -> u64 {
    word & OFFSET_MASK
}

const fn writers(word: u64) -> u64 {
    (word >> 21) & WRITERS_MASK
}

const fn is_in_turn(word: u64, turn: u64) -> bool {
    word >> TURN_SHIFT == turn & TURN_MASK
}

struct Ring {
    current: CachePadded<AtomicU64>,
    words: [CachePadded<AtomicU64>; WORDS as usize],
}

impl Ring {
    fn new() -> Self {
        Self {
            current: CachePadded::new(AtomicU64::new(0)),
            words: std::array::from_fn(|turn| CachePadded::new(AtomicU64::new(filling(turn as u64)))),
        }
    }

    fn word(&self, turn: u64) -> &AtomicU64 {
        &self.words[(turn % WORDS) as usize]
    }

    /// Moves on from `turn`, unless somebody did.
    fn rotate(&self, turn: u64) {
        // A failure means that it is done.
        let _moved = self.current.compare_exchange(turn, turn + 1, Ordering::AcqRel, Ordering::Relaxed);
    }

    fn is_idle(&self) -> bool {
        self.words.iter().all(|word| writers(word.load(Ordering::Relaxed)) == 0)
    }
}

/// Waits without starving a writer that shares this core: four writers run on two.
struct Patience(u32);

impl Patience {
    fn wait(&mut self) {
        self.0 += 1;
        if self.0.is_multiple_of(64) { thread::yield_now() } else { spin_loop() }
    }
}

trait Strategy {
    const NAME: &str;

    /// Claims a range; gives its turn. `guess` is what the last commit left.
    fn reserve(ring: &Ring, guess: u64) -> u64;

    /// Ends the reservation; gives what it left in the word.
    fn commit(ring: &Ring, turn: u64) -> u64;
}

struct CompareExchange<const FROM_GUESS: bool>;

impl<const FROM_GUESS: bool> CompareExchange<FROM_GUESS> {
    /// One try on the word of `turn`; true if a range was claimed.
    #[inline]
    fn try_reserve(ring: &Ring, turn: u64, guess: u64, patience: &mut Patience) -> bool {
        let word = ring.word(turn);
        let mut seen =
            if FROM_GUESS && is_in_turn(guess, turn) { guess } else { word.load(Ordering::Relaxed) };
        loop {
            if !is_in_turn(seen, turn) {
                patience.wait();
                return false;
            }
            if seen & SEALED != 0 {
                ring.rotate(turn);
                return false;
            }
            let fits = offset(seen) + CLAIM <= CAPACITY;
            let next = if fits { seen + CLAIM + ONE_WRITER } else { seen | SEALED };
            match word.compare_exchange_weak(seen, next, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) if fits => return true,
                Ok(_) => {
                    ring.rotate(turn);
                    if writers(seen) == 0 {
                        word.store(filling(turn + WORDS), Ordering::Release);
                    }
                    return false;
                }
                Err(other) => seen = other,
            }
        }
    }
}

impl<const FROM_GUESS: bool> Strategy for CompareExchange<FROM_GUESS> {
    const NAME: &str = if FROM_GUESS { "compare-exchange from a guess" } else { "compare-exchange" };

    #[inline]
    fn reserve(ring: &Ring, guess: u64) -> u64 {
        let mut patience = Patience(0);
        loop {
            let turn = ring.current.load(Ordering::Acquire);
            if Self::try_reserve(ring, turn, guess, &mut patience) {
                return turn;
            }
        }
    }

    #[inline]
    fn commit(ring: &Ring, turn: u64) -> u64 {
        let word = ring.word(turn);
        let before = word.fetch_sub(ONE_WRITER, Ordering::AcqRel);
        if before & SEALED != 0 && writers(before) == 1 {
            word.store(filling(turn + WORDS), Ordering::Release);
        }
        before - ONE_WRITER
    }
}

struct Add;

impl Add {
    /// One try on the word of `turn`; true if a range was claimed.
    fn try_reserve(ring: &Ring, turn: u64, patience: &mut Patience) -> bool {
        let before = ring.word(turn).fetch_add(CLAIM + ONE_WRITER, Ordering::AcqRel);
        if is_in_turn(before, turn) && offset(before) + CLAIM <= CAPACITY {
            return true;
        }
        if is_in_turn(before, turn) && offset(before) <= CAPACITY {
            ring.rotate(turn);
        }
        // In another turn the claimed bytes stay claimed: a real ring would have to fill them with a void record.
        let _left = Self::commit(ring, turn);
        while ring.current.load(Ordering::Acquire) == turn
            && offset(ring.word(turn).load(Ordering::Relaxed)) > CAPACITY
        {
            patience.wait();
        }
        false
    }
}

impl Strategy for Add {
    const NAME: &str = "add";

    #[inline]
    fn reserve(ring: &Ring, _guess: u64) -> u64 {
        let mut patience = Patience(0);
        loop {
            let turn = ring.current.load(Ordering::Acquire);
            if Self::try_reserve(ring, turn, &mut patience) {
                return turn;
            }
        }
    }

    #[inline]
    fn commit(ring: &Ring, turn: u64) -> u64 {
        let word = ring.word(turn);
        let before = word.fetch_sub(ONE_WRITER, Ordering::AcqRel);
        // Past the end means sealed. A late add may bring a writer back after the last one left, so the word is
        // opened only by whoever finds it unchanged; if it changed, the late one does it when it leaves.
        if offset(before) > CAPACITY && writers(before) == 1 {
            let next = filling((before >> TURN_SHIFT) + WORDS);
            let _opened =
                word.compare_exchange(before - ONE_WRITER, next, Ordering::AcqRel, Ordering::Relaxed);
        }
        before - ONE_WRITER
    }
}

/// A writer's own memory, for the copy.
struct Copy64 {
    from: [u8; 64],
    to: Vec<[u8; 64]>,
    next: usize,
}

impl Copy64 {
    fn new() -> Self {
        // 256 KiB, as a buffer: more than the first cache level holds.
        Self { from: [7; 64], to: vec![[0; 64]; 4096], next: 0 }
    }

    #[inline]
    fn copy(&mut self) {
        let place = self.next % self.to.len();
        self.to[place] = black_box(self.from);
        self.next += 1;
    }
}

/// Wall time of `reservations` in total, shared by `writers`.
fn run<S: Strategy>(writers: u64, reservations: u64, with_copy: bool) -> Duration {
    let ring = Ring::new();
    let barrier = Barrier::new(writers as usize);
    let each = reservations.div_ceil(writers);
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let work = |writer: u64| {
        // Two writers that share a core never meet at the word, so each has its own as far as there are cores.
        if let Some(core) = cores.get(writer as usize % cores.len().max(1)) {
            core_affinity::set_for_current(*core);
        }
        let mut copy = Copy64::new();
        barrier.wait();
        let started = Instant::now();
        let mut guess = 0;
        for _ in 0..each {
            let turn = S::reserve(&ring, guess);
            if with_copy {
                copy.copy();
            }
            guess = S::commit(&ring, turn);
        }
        let ended = Instant::now();
        black_box(&copy.to);
        (started, ended)
    };
    let spans = thread::scope(|scope| {
        let handles: Vec<_> = (0..writers)
            .map(|writer| {
                let work = &work;
                scope.spawn(move || work(writer))
            })
            .collect();
        handles.into_iter().filter_map(|handle| handle.join().ok()).collect::<Vec<_>>()
    });
    assert!(ring.is_idle() && spans.len() as u64 == writers, "a writer was lost");
    let first = spans.iter().map(|span| span.0).min();
    let last = spans.iter().map(|span| span.1).max();
    last.zip(first).map_or(Duration::ZERO, |(last, first)| last - first)
}

fn measure<S: Strategy>(criterion: &mut Criterion) {
    for with_copy in [false, true] {
        let name = if with_copy { "reserve, with copy" } else { "reserve" };
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(1));
        for writers in [1, 2, 4] {
            group.bench_function(BenchmarkId::new(S::NAME, writers), |bencher| {
                bencher.iter_custom(|reservations| run::<S>(writers, reservations, with_copy));
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30);
    targets = measure::<CompareExchange<false>>, measure::<CompareExchange<true>>, measure::<Add>
}
criterion_main!(benches);
