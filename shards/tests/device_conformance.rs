//! Every backend keeps the contract of the device trait.

#![allow(clippy::unwrap_used, reason = "tests")]

use corelog_shards::{
    device::{
        Completion, Device, Errno, Operation, Token, WriteSync,
        file::{CreateOptions, DeviceFile, Fill},
        null::{NullDevice, NullOptions},
        ram::{MemoryDevice, MemoryImage},
        threads::{ThreadsDevice, ThreadsOptions},
        uring::{Completing, UringDevice, UringOptions},
    },
    ids::DeviceIndex,
    memory::{BufferPool, PooledBuffer},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

const BLOCK: usize = 4096;
const FILE_BYTES: u64 = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// A backend over a fresh file, and what keeps the file.
struct Bench {
    name: String,
    device: Box<dyn Device>,
    /// Whether what is written can be read back.
    stores: bool,
    _folder: tempfile::TempDir,
}

fn file(folder: &tempfile::TempDir) -> Arc<DeviceFile> {
    let options = CreateOptions { bytes: Some(FILE_BYTES), fill: Fill::Zeros, ..CreateOptions::default() };
    // Not the system's folder for temporary files, which may be in memory.
    Arc::new(DeviceFile::create(folder.path().join("device"), &options, &mut |_, _| {}).unwrap())
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn every_backend(depth: u32) -> Vec<Bench> {
    let mut all = Vec::new();
    let mut add = |name: String, stores, make: &dyn Fn(Arc<DeviceFile>) -> Box<dyn Device>| {
        let folder = folder();
        let device = make(file(&folder));
        all.push(Bench { name, device, stores, _folder: folder });
    };
    for completing in [Completing::Deferred, Completing::Cooperative, Completing::Interrupting] {
        for register_buffers in [true, false] {
            let pollable = completing == Completing::Deferred && !register_buffers;
            let options = UringOptions { depth, completing, register_buffers, pollable };
            add(format!("{options:?}"), true, &move |file| {
                Box::new(UringDevice::new(vec![file], options).unwrap())
            });
        }
    }
    add("threads".into(), true, &|file| {
        Box::new(ThreadsDevice::new(vec![file], ThreadsOptions { depth, threads: 3 }).unwrap())
    });
    add("memory".into(), true, &|_| {
        Box::new(MemoryDevice::new(&MemoryImage::new(&[FILE_BYTES]), depth).unwrap().0)
    });
    add("null".into(), false, &|_| {
        Box::new(NullDevice::new(NullOptions { depth, ..NullOptions::default() }).unwrap())
    });
    all
}

fn filled(length: usize, byte: u8) -> PooledBuffer {
    let mut buffer = PooledBuffer::alone(length).unwrap();
    buffer.as_mut_slice().fill(byte);
    buffer
}

fn write(offset: u64, buffer: PooledBuffer, sync: WriteSync) -> Operation {
    Operation::Write { device: DeviceIndex(0), offset, bytes: buffer.into(), sync }
}

fn read(offset: u64, length: usize) -> Operation {
    Operation::Read { device: DeviceIndex(0), offset, buffer: filled(length, 0xEE) }
}

const SYNC: Operation = Operation::Sync { device: DeviceIndex(0) };

/// Waits until nothing is in flight.
fn finish(device: &mut dyn Device) -> Vec<Completion> {
    let start = Instant::now();
    let mut completions = Vec::new();
    while device.in_flight() > 0 {
        device.wait(Some(Duration::from_secs(1)), &mut completions).unwrap();
        assert!(start.elapsed() < PATIENCE, "{} operations never completed", device.in_flight());
    }
    completions
}

fn one(device: &mut dyn Device, operation: Operation) -> Completion {
    device.submit(Token(77), operation).unwrap();
    let mut completions = finish(device);
    assert_eq!(completions.len(), 1);
    let completion = completions.remove(0);
    assert_eq!(completion.token, Token(77));
    completion
}

#[test]
fn what_is_written_and_synced_reads_back() {
    for mut bench in every_backend(16) {
        let device = &mut *bench.device;
        let pool = BufferPool::new(2 * BLOCK, 4).unwrap();
        device.register(pool.region());
        for (number, sync) in [WriteSync::None, WriteSync::Data].into_iter().enumerate() {
            let offset = (3 * BLOCK * number) as u64;
            let mut buffer = pool.take(2 * BLOCK).unwrap();
            buffer.as_mut_slice().fill(0x40 + number as u8);
            let written = one(device, write(offset, buffer, sync));
            assert_eq!(written.result, Ok(2 * BLOCK as u64), "{}", bench.name);
            assert!(matches!(written.operation, Operation::Write { .. }));
            assert_eq!(one(device, SYNC).result, Ok(0), "{}", bench.name);
            let back =
                Operation::Read { device: DeviceIndex(0), offset, buffer: pool.take(2 * BLOCK).unwrap() };
            let read = one(device, back);
            assert_eq!(read.result, Ok(2 * BLOCK as u64), "{}", bench.name);
            let Operation::Read { buffer, .. } = read.operation else {
                panic!("another operation came back")
            };
            let expected = if bench.stores { 0x40 + number as u8 } else { 0 };
            assert!(buffer.as_slice().iter().all(|&byte| byte == expected), "{}", bench.name);
        }
    }
}

#[test]
fn many_operations_in_flight_all_complete_once_with_their_own_memory() {
    for mut bench in every_backend(64) {
        let device = &mut *bench.device;
        for round in 0..4_u64 {
            let mut expected = BTreeSet::new();
            for number in 0..64 {
                let token = round * 100 + number;
                let operation = match number % 8 {
                    7 => SYNC,
                    5 | 6 => read(number * BLOCK as u64, BLOCK),
                    _ => write(number * BLOCK as u64, filled(BLOCK, number as u8), WriteSync::None),
                };
                device.submit(Token(token), operation).unwrap();
                expected.insert(token);
            }
            for completion in finish(device) {
                assert!(expected.remove(&completion.token.0), "{}: twice", bench.name);
                assert_eq!(completion.result, Ok(completion.operation.transfer_bytes()), "{}", bench.name);
                let number = completion.token.0 - round * 100;
                if let Operation::Write { offset, bytes, .. } = &completion.operation {
                    assert_eq!(*offset, number * BLOCK as u64);
                    assert_eq!(bytes.as_slice()[0], number as u8);
                }
            }
            assert!(expected.is_empty(), "{}", bench.name);
        }
    }
}

#[test]
fn a_full_queue_hands_the_operation_back_and_takes_it_after_a_completion() {
    for mut bench in every_backend(4) {
        let device = &mut *bench.device;
        assert_eq!(device.depth(), 4);
        for number in 0..4 {
            device.submit(Token(number), read(0, BLOCK)).unwrap();
        }
        let rejected = device.submit(Token(4), read(BLOCK as u64, BLOCK)).unwrap_err();
        assert_eq!(rejected.token, Token(4), "{}", bench.name);
        assert_eq!(rejected.operation.offset(), BLOCK as u64);
        let mut completions = Vec::new();
        while completions.is_empty() {
            device.wait(Some(PATIENCE), &mut completions).unwrap();
        }
        device.submit(rejected.token, rejected.operation).unwrap();
        completions.extend(finish(device));
        assert_eq!(completions.len(), 5, "{}", bench.name);
    }
}

#[test]
fn a_read_over_the_end_is_delivered_short_and_a_read_behind_it_empty() {
    for mut bench in every_backend(4).into_iter().filter(|bench| bench.stores) {
        let device = &mut *bench.device;
        let over = one(device, read(FILE_BYTES - BLOCK as u64, 4 * BLOCK));
        assert_eq!(over.result, Ok(BLOCK as u64), "{}", bench.name);
        assert_eq!(one(device, read(FILE_BYTES, BLOCK)).result, Ok(0), "{}", bench.name);
    }
}

#[test]
fn an_unknown_device_and_a_misaligned_write_fail_alone() {
    for mut bench in every_backend(4).into_iter().filter(|bench| bench.stores) {
        let device = &mut *bench.device;
        let unknown = one(device, Operation::Sync { device: DeviceIndex(9) });
        assert_eq!(unknown.result, Err(Errno(libc::EBADF)), "{}", bench.name);
        if bench.name != "memory" {
            let misaligned = one(device, write(7, filled(BLOCK, 1), WriteSync::None));
            assert_eq!(misaligned.result, Err(Errno(libc::EINVAL)), "{}", bench.name);
        }
        assert_eq!(one(device, SYNC).result, Ok(0), "{}", bench.name);
    }
}

#[test]
fn discarded_bytes_can_be_written_again() {
    for mut bench in every_backend(4).into_iter().filter(|bench| bench.stores) {
        let device = &mut *bench.device;
        let discard = Operation::Discard { device: DeviceIndex(0), offset: 0, length: 1 << 20 };
        assert_eq!(one(device, discard).result, Ok(0), "{}", bench.name);
        assert_eq!(one(device, write(0, filled(BLOCK, 9), WriteSync::None)).result, Ok(BLOCK as u64));
        let Operation::Read { buffer, .. } = one(device, read(0, BLOCK)).operation else { panic!() };
        assert!(buffer.as_slice().iter().all(|&byte| byte == 9), "{}", bench.name);
    }
}

#[test]
fn a_wait_with_nothing_to_do_ends_with_its_time() {
    for mut bench in every_backend(4) {
        let start = Instant::now();
        let mut completions = Vec::new();
        // A wait may end early for no reason, but not every time.
        while start.elapsed() < Duration::from_millis(50) {
            bench.device.wait(Some(Duration::from_millis(50)), &mut completions).unwrap();
            assert!(start.elapsed() < PATIENCE);
        }
        assert!(bench.device.counters().enters < 20, "{}: {:?}", bench.name, bench.device.counters());
        assert!(completions.is_empty());
    }
}

#[test]
fn a_poll_with_nothing_to_do_makes_no_system_call() {
    for mut bench in every_backend(4) {
        let mut completions = Vec::new();
        bench.device.poll(&mut completions).unwrap();
        let before = bench.device.counters();
        for _ in 0..1000 {
            bench.device.poll(&mut completions).unwrap();
        }
        assert_eq!(bench.device.counters(), before, "{}", bench.name);
    }
}

/// Checked by not arming the bell again, and by leaving out `Signal::raise` in its wake-up.
#[test]
fn no_bell_is_lost() {
    const RINGS: u64 = 3000;
    for mut bench in every_backend(4) {
        let work = Arc::new(AtomicU64::new(0));
        let done = Arc::new(AtomicU64::new(0));
        let bell = bench.device.bell();
        let ringer = std::thread::spawn({
            let (work, done, bell) = (Arc::clone(&work), Arc::clone(&done), Arc::clone(&bell));
            move || {
                for number in 1..=RINGS {
                    work.store(number, Ordering::Release);
                    bell.ring();
                    let start = Instant::now();
                    // Every other time the next piece comes while the core is still on its way to sleep.
                    while number % 2 == 0 && done.load(Ordering::Acquire) < number {
                        assert!(start.elapsed() < PATIENCE, "the core sleeps on with work waiting");
                        std::thread::yield_now();
                    }
                }
            }
        });
        let mut completions = Vec::new();
        while done.load(Ordering::Relaxed) < RINGS {
            bell.prepare_sleep();
            let seen = work.load(Ordering::Acquire);
            if seen == done.load(Ordering::Relaxed) {
                if seen.is_multiple_of(3) {
                    // A poll between the announcement and the sleep must not swallow the ring.
                    bench.device.poll(&mut completions).unwrap();
                }
                let start = Instant::now();
                bench.device.wait(Some(PATIENCE), &mut completions).unwrap();
                assert!(start.elapsed() < PATIENCE / 2, "{}: a ring was lost", bench.name);
            }
            bell.awake();
            done.store(work.load(Ordering::Acquire), Ordering::Release);
        }
        ringer.join().unwrap();
    }
}

/// A poll between the announcement of sleep and the sleep takes the bell's signal, and the wait must know of it.
/// Checked by leaving out what keeps it (`rung`), in the ring and in `Signal`.
#[test]
fn a_bell_that_a_poll_took_still_ends_the_next_wait() {
    for mut bench in every_backend(4) {
        let mut completions = Vec::new();
        bench.device.poll(&mut completions).unwrap();
        let bell = bench.device.bell();
        bell.prepare_sleep();
        std::thread::spawn(move || bell.ring()).join().unwrap();
        for _ in 0..3 {
            bench.device.poll(&mut completions).unwrap();
        }
        let start = Instant::now();
        bench.device.wait(Some(PATIENCE), &mut completions).unwrap();
        assert!(start.elapsed() < PATIENCE / 2, "{}", bench.name);
        assert_eq!(bench.device.counters().wakes, 1, "{}", bench.name);
    }
}

#[test]
fn a_completion_ends_a_wait_before_its_time() {
    for mut bench in every_backend(4) {
        bench.device.submit(Token(1), read(0, BLOCK)).unwrap();
        let start = Instant::now();
        let mut completions = Vec::new();
        while completions.is_empty() {
            bench.device.wait(Some(PATIENCE), &mut completions).unwrap();
        }
        assert!(start.elapsed() < PATIENCE / 2, "{}", bench.name);
    }
}

fn is_readable(device: &dyn Device, timeout: Duration) -> bool {
    let fd = device.fd().unwrap();
    let mut entries = [PollFd::new(&fd, PollFlags::IN)];
    let limit = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
    let start = Instant::now();
    let readable = poll(&mut entries, Some(&limit)).unwrap() > 0;
    // A poll that only finds out when its time is over was not woken.
    readable && (timeout.is_zero() || start.elapsed() < timeout / 2)
}

#[test]
fn the_descriptor_is_readable_for_completions_and_for_the_bell() {
    for mut bench in every_backend(4).into_iter().filter(|bench| bench.stores) {
        let device = &mut *bench.device;
        if device.fd().is_none() {
            assert!(
                bench.name.contains("Deferred") && bench.name.contains("pollable: false"),
                "{}",
                bench.name
            );
            continue;
        }
        let mut completions = Vec::new();
        device.poll(&mut completions).unwrap();
        assert!(!is_readable(device, Duration::ZERO), "{}", bench.name);

        device.submit(Token(1), write(0, filled(BLOCK, 1), WriteSync::None)).unwrap();
        device.poll(&mut completions).unwrap();
        if completions.is_empty() {
            assert!(is_readable(device, PATIENCE), "{}: a completion", bench.name);
        }
        completions.extend(finish(device));
        device.poll(&mut completions).unwrap();
        assert!(!is_readable(device, Duration::ZERO), "{}: nothing left", bench.name);

        let bell = device.bell();
        bell.prepare_sleep();
        let ringer = std::thread::spawn(move || bell.ring());
        assert!(is_readable(device, PATIENCE), "{}: the bell", bench.name);
        ringer.join().unwrap();
        device.poll(&mut completions).unwrap();
        assert!(!is_readable(device, Duration::ZERO), "{}: the bell was taken", bench.name);
    }
}

#[test]
fn dropping_a_device_with_operations_in_flight_finishes_them() {
    for make in 0..9 {
        let mut bench = every_backend(32).remove(make);
        let path = bench._folder.path().join("device");
        let writes = bench.stores && bench.name != "memory";
        for number in 0..32 {
            let operation = write(number * BLOCK as u64, filled(BLOCK, 0x80 + number as u8), WriteSync::None);
            bench.device.submit(Token(number), operation).unwrap();
        }
        drop(bench.device);
        if writes {
            let bytes = std::fs::read(path).unwrap();
            for number in 0..32 {
                assert_eq!(bytes[number * BLOCK], 0x80 + number as u8, "{}", bench.name);
            }
        }
    }
}

#[test]
fn grants_name_what_the_host_gave() {
    let folder = folder();
    let mut device = UringDevice::new(vec![file(&folder)], UringOptions::default()).unwrap();
    let pool = BufferPool::new(BLOCK, 4).unwrap();
    device.register(pool.region());
    let grants = device.grants();
    assert_eq!(grants.backend, "io_uring");
    assert!(grants.features.contains(&"fixed files"), "{grants:?}");
    println!("{grants:#?}");
}

/// A ring belongs to the thread that uses it first, and may be built on another.
#[test]
fn a_ring_may_move_before_its_first_use_and_not_after() {
    let folder = folder();
    let mut device = UringDevice::new(vec![file(&folder)], UringOptions::default()).unwrap();
    let single = device.grants().features.contains(&"SINGLE_ISSUER");
    let mut device = std::thread::spawn(move || {
        assert_eq!(one(&mut device, SYNC).result, Ok(0));
        device
    })
    .join()
    .unwrap();
    if single {
        device.submit(Token(1), SYNC).unwrap();
        let broken = device.poll(&mut Vec::new()).unwrap_err();
        assert_eq!(broken.errno, Errno(libc::EEXIST));
    }
}

/// Where a ring cannot be drained the memory is leaked: the kernel may still write to it.
#[test]
fn a_ring_dropped_by_a_thread_that_cannot_drain_it_frees_no_memory() {
    let folder = folder();
    let mut device = UringDevice::new(vec![file(&folder)], UringOptions::default()).unwrap();
    if !device.grants().features.contains(&"SINGLE_ISSUER") {
        return;
    }
    let pool = BufferPool::new(BLOCK, 1).unwrap();
    let buffer = pool.take(BLOCK).unwrap();
    device.submit(Token(1), Operation::Read { device: DeviceIndex(0), offset: 0, buffer }).unwrap();
    // Passes it on; with deferred completions nothing comes back within the same call.
    let mut completions = Vec::new();
    device.poll(&mut completions).unwrap();
    if completions.is_empty() {
        std::thread::spawn(move || drop(device)).join().unwrap();
        assert!(pool.take(BLOCK).is_none(), "the buffer went back to its pool");
    }
}
