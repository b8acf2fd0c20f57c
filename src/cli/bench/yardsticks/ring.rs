//! The ring on a device that stores nothing, against copying and checksumming into plain buffers.

use super::{
    super::{error::BenchError, figures::thread_cpu},
    Comparison,
    verdict::{Pairs, Target, Verdicts},
};
use corelog::{Options, Turn, limits::BUFFER_BYTES_DEFAULT};
use corelog_shards::{
    core::Core,
    device::null::NullOptions,
    format::record::{RecordFlags, RecordKind},
    memory::Placement,
    null_core::null_core,
    open::RingOptions,
    ring::reservation::Placed,
    shard::{Shard, ShardRefusal},
};
use corelog_yardstick::BareCopy;
use std::{
    hint::black_box,
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const RECORD_BYTES: usize = 64;
/// Of each writer.
const RECORDS: u64 = 4_000_000;
/// What a record may cost, in nanoseconds.
const NS_MAX: f64 = 25.0;
const COPY_RATIO_MAX: f64 = 1.3;
const TWO_RINGS_RATIO_MIN: f64 = 1.9;
const ONE_RING_RATIO_MIN: f64 = 1.0;

pub(super) fn run(how: &Comparison<'_>, found: &mut Verdicts) -> Result<(), BenchError> {
    // As many as the bytes that were asked for hold, if that is less.
    let records = RECORDS.min(how.bytes(u64::MAX) / RECORD_BYTES as u64).max(1);
    let (mut limit, mut copy) = (Pairs::default(), Pairs::default());
    let (mut two_rings, mut one_ring) = (Pairs::default(), Pairs::default());
    let has_two = how.core_counts().count() == 2;
    for _ in 0..how.repeats {
        limit.add(one_writer(how.options, records, reserve_and_commit)?.cpu_ns, NS_MAX);
        let alone = one_writer(how.options, records, append)?;
        copy.add(alone.cpu_ns, BareCopy::new(RECORD_BYTES, records, 1).run()?.cpu_ns_per_record());
        if has_two {
            two_rings.add(rings_of_their_own(how.options, records)?, alone.per_s);
            one_ring.add(both_into_one(how.options, records)?, alone.per_s);
        }
    }
    let name = |what: &str| format!("ring, {RECORD_BYTES} B, {what}");
    found.add(name("reserve + commit, CPU"), "ns/record", "the limit", limit, Target::AtMost(1.0));
    found.add(name("append, CPU"), "ns/record", "bare copy", copy, Target::AtMost(COPY_RATIO_MAX));
    if has_two {
        let mega = "M/s";
        found.add(
            name("2 writers, 2 rings"),
            mega,
            "1 writer",
            two_rings,
            Target::AtLeast(TWO_RINGS_RATIO_MIN),
        );
        found.add(name("2 writers, 1 ring"), mega, "1 writer", one_ring, Target::AtLeast(ONE_RING_RATIO_MIN));
    }
    Ok(())
}

/// What one writer did.
struct Alone {
    /// CPU time, so that other processes disturb it less.
    cpu_ns: f64,
    /// Millions of records in a second of the clock.
    per_s: f64,
}

fn made(options: &Options) -> Result<(Core, Arc<Shard>), BenchError> {
    let how = RingOptions {
        buffer_bytes: options.buffer_bytes.unwrap_or(BUFFER_BYTES_DEFAULT),
        buffers: options.buffers,
        placement: Placement { huge: options.huge_pages, node: None },
    };
    Ok(null_core(NullOptions::default(), how)?)
}

/// A record by a copy of the caller's bytes.
#[inline(always)]
fn append(shard: &Shard) -> Result<Placed, ShardRefusal> {
    shard.try_append(black_box(&[0x5a; RECORD_BYTES]))
}

/// A record that is reserved and committed, with the bytes that lie there: what the ring itself costs, its header and
/// checksum included.
#[inline(always)]
fn reserve_and_commit(shard: &Shard) -> Result<Placed, ShardRefusal> {
    let reservation = shard.try_reserve(black_box(RECORD_BYTES))?;
    Ok(reservation.commit(RecordKind::DATA, RecordFlags::NONE))
}

/// Appends from the thread that turns the core.
fn fill(
    core: &mut Core,
    shard: &Shard,
    to_append: u64,
    one: impl Fn(&Shard) -> Result<Placed, ShardRefusal>,
) -> Result<(), BenchError> {
    let (mut frame, mut records) = (None, 0);
    while records < to_append {
        let is_new = match one(shard) {
            Ok(placed) => {
                records += 1;
                frame.replace(placed.frame) != Some(placed.frame)
            }
            Err(ShardRefusal::Full) => true,
            Err(_) => return Err(BenchError::CoreClosed { shard: shard.id() }),
        };
        if is_new && core.turn() == Turn::Closed {
            return Err(BenchError::CoreClosed { shard: shard.id() });
        }
    }
    Ok(())
}

fn per_s(records: u64, time: Duration) -> f64 {
    records as f64 / time.as_secs_f64() / 1e6
}

fn one_writer(
    options: &Options,
    records: u64,
    one: impl Fn(&Shard) -> Result<Placed, ShardRefusal>,
) -> Result<Alone, BenchError> {
    let (mut core, shard) = made(options)?;
    let (started, cpu) = (Instant::now(), thread_cpu());
    fill(&mut core, &shard, records, one)?;
    let used = thread_cpu().saturating_sub(cpu);
    Ok(Alone { cpu_ns: used.as_nanos() as f64 / records as f64, per_s: per_s(records, started.elapsed()) })
}

/// Runs two threads on two CPUs from a common start, and gives the millions of records that both did in a second.
fn two<T: Send>(
    records: u64,
    set_up: impl Fn(usize) -> Result<T, BenchError> + Sync,
    work: impl Fn(T) -> Result<(), BenchError> + Sync,
) -> Result<f64, BenchError> {
    let cpus = core_affinity::get_core_ids().unwrap_or_default();
    let start = Barrier::new(2);
    let (set_up, work, start, cpus) = (&set_up, &work, &start, &cpus);
    let spans = thread::scope(|scope| {
        let threads = [0, 1].map(|index| {
            scope.spawn(move || {
                let _unpinned_is_slower = cpus.get(index).map(|cpu| core_affinity::set_for_current(*cpu));
                let made = set_up(index);
                // Also after a failure, or the other would wait for ever.
                start.wait();
                let started = Instant::now();
                work(made?)?;
                Ok((started, Instant::now()))
            })
        });
        threads.map(|thread| thread.join().unwrap_or(Err(BenchError::LaneDied)))
    });
    let [first, second] = spans;
    let ((began, ended), (also_began, also_ended)) = (first?, second?);
    Ok(per_s(2 * records, ended.max(also_ended) - began.min(also_began)))
}

fn rings_of_their_own(options: &Options, records: u64) -> Result<f64, BenchError> {
    two(records, |_| made(options), |(mut core, shard)| fill(&mut core, &shard, records, append))
}

/// The first writer also turns the core.
fn both_into_one(options: &Options, records: u64) -> Result<f64, BenchError> {
    let (core, shard) = made(options)?;
    let core = std::sync::Mutex::new(Some(core));
    let others = AtomicUsize::new(1);
    let set_up = |index: usize| {
        let core = core.lock().ok().filter(|_| index == 0).and_then(|mut core| core.take());
        Ok((core, Arc::clone(&shard)))
    };
    let work = |(core, shard): (Option<Core>, Arc<Shard>)| match core {
        Some(mut core) => {
            fill(&mut core, &shard, records, append)?;
            // The other needs buffers until it is done.
            while others.load(Ordering::Acquire) > 0 {
                if core.turn() == Turn::Closed {
                    return Err(BenchError::CoreClosed { shard: shard.id() });
                }
            }
            Ok(())
        }
        None => {
            let result = append_beside(&shard, records);
            others.fetch_sub(1, Ordering::Release);
            result
        }
    };
    two(records, set_up, work)
}

fn append_beside(shard: &Shard, to_append: u64) -> Result<(), BenchError> {
    let payload = [0xa5; RECORD_BYTES];
    let mut records = 0;
    while records < to_append {
        match shard.try_append(black_box(&payload)) {
            Ok(_) => records += 1,
            Err(ShardRefusal::Full) => std::hint::spin_loop(),
            Err(_) => return Err(BenchError::CoreClosed { shard: shard.id() }),
        }
    }
    Ok(())
}
