//! What an append costs without a device: reserve, copy, checksum, commit, and the owner's share (sealing, frame
//! headers, recycling), on a core whose device stores nothing. Time is per record, over all writers together.
//!
//! `own core`: one thread appends and turns the core, as a server's core does; its CPU time is measured, which others
//! on the machine disturb less. `writers`: so many threads append while another turns the core; wall time.
#![allow(clippy::unwrap_used, reason = "benches")]

use corelog_shards::{
    core::{Core, Turn},
    device::null::NullOptions,
    format::record::{RecordFlags, RecordKind},
    limits::{BUFFER_BYTES_DEFAULT, RING_BUFFERS_DEFAULT},
    memory::Placement,
    null_core::null_core,
    open::RingOptions,
    shard::{Shard, ShardRefusal},
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rustix::time::{ClockId, clock_gettime};
use std::{
    hint::black_box,
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn core() -> (Core, Arc<Shard>) {
    let ring = RingOptions {
        buffer_bytes: BUFFER_BYTES_DEFAULT,
        buffers: RING_BUFFERS_DEFAULT,
        placement: Placement { huge: true, node: None },
    };
    null_core(NullOptions::default(), ring).unwrap()
}

/// Appends from the thread that turns the core.
fn own_core(core: &mut Core, shard: &Shard, payload: &[u8], records: u64) {
    let mut frame = None;
    for _ in 0..records {
        loop {
            match shard.try_append(black_box(payload)) {
                Ok(placed) => {
                    if frame.replace(placed.frame) != Some(placed.frame) {
                        let _progress = core.turn();
                    }
                    break;
                }
                Err(ShardRefusal::Full) => {
                    let _progress = core.turn();
                }
                Err(refusal) => panic!("{refusal}"),
            }
        }
    }
}

/// Reserves and commits without writing the payload.
fn reserve_and_commit(core: &mut Core, shard: &Shard, length: usize, records: u64) {
    let mut frame = None;
    for _ in 0..records {
        let reservation = loop {
            match shard.try_reserve(length) {
                Ok(reservation) => break reservation,
                Err(ShardRefusal::Full) => {
                    let _progress = core.turn();
                }
                Err(refusal) => panic!("{refusal}"),
            }
        };
        let placed = reservation.commit(RecordKind::DATA, RecordFlags::NONE);
        if frame.replace(placed.frame) != Some(placed.frame) {
            let _progress = core.turn();
        }
    }
}

/// Appends from `writers` threads while this one turns the core.
fn writers(core: &mut Core, shard: &Arc<Shard>, payload: &[u8], writers: usize, records: u64) -> Duration {
    let barrier = Barrier::new(writers + 1);
    let left = AtomicUsize::new(writers);
    thread::scope(|scope| {
        for _ in 0..writers {
            scope.spawn(|| {
                barrier.wait();
                for _ in 0..records.div_ceil(writers as u64) {
                    while let Err(refusal) = shard.try_append(black_box(payload)) {
                        assert_eq!(refusal, ShardRefusal::Full);
                        thread::yield_now();
                    }
                }
                left.fetch_sub(1, Ordering::Release);
            });
        }
        barrier.wait();
        let start = Instant::now();
        while left.load(Ordering::Acquire) > 0 {
            if core.turn() == Turn::Idle {
                core.wait(Some(Duration::from_micros(50)));
            }
        }
        start.elapsed()
    })
}

fn ring(criterion: &mut Criterion) {
    for bytes in [64_usize, 1024] {
        let mut group = criterion.benchmark_group(format!("ring/{bytes} B"));
        group.throughput(Throughput::Bytes(bytes as u64));
        let (mut core, shard) = core();
        let payload = vec![0x5a; bytes];
        group.bench_function("own core", |bencher| {
            bencher.iter_custom(|records| {
                let start = thread_cpu();
                own_core(&mut core, &shard, &payload, records);
                thread_cpu() - start
            });
        });
        group.bench_function("own core, in place", |bencher| {
            bencher.iter_custom(|records| {
                let start = thread_cpu();
                reserve_and_commit(&mut core, &shard, bytes, records);
                thread_cpu() - start
            });
        });
        for count in [1, 2, 4] {
            group.bench_function(BenchmarkId::new("writers", count), |bencher| {
                bencher.iter_custom(|records| writers(&mut core, &shard, &payload, count, records));
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = ring
}
criterion_main!(benches);
