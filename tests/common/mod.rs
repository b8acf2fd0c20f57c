//! What the tests of stores share.
#![allow(dead_code, reason = "each test uses some of it")]
#![allow(clippy::unwrap_used, reason = "tests")]

use corelog::{Core, FormatOptions, Options, Store, Turn};
use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::Thread,
    time::{Duration, Instant},
};

/// A store in a folder of its own, gone with it.
pub struct Place {
    _folder: tempfile::TempDir,
    pub path: PathBuf,
}

impl Place {
    /// A formatted store of `shards`, with small extents.
    pub fn formatted(shards: u32) -> Self {
        Self::with(&FormatOptions::sized(64 << 20).shards(shards).extent_bytes(1 << 20).sparse())
    }

    pub fn with(options: &FormatOptions) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = folder.path().join("store");
        Store::format(&[&path], options).unwrap();
        Self { _folder: folder, path }
    }
}

/// Tells the other threads of a scope that it is over, also where it ends in a panic: of that nobody hears before they
/// have ended, and who goes on until he is told would go on for ever.
pub struct Over<'a>(pub &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Options for hosts with few CPUs and other work: small buffers, no huge pages, a stall that a test notices.
pub fn options(cores: u32) -> Options {
    Options::default()
        .cores(cores)
        .pin(false)
        .huge_pages(false)
        .buffer_bytes(64 << 10)
        .buffers(4)
        .stall(Duration::from_secs(20))
}

/// Opens a store whose cores each run on an own thread that only turns them.
pub fn open_on_threads(
    path: &Path,
    options: &Options,
    drive: impl Fn(Core) + Clone + Send + 'static,
) -> (Store, Vec<std::thread::JoinHandle<()>>) {
    let mut opening = Store::open_owned(&[path], options).unwrap();
    let threads = opening
        .take_seats()
        .into_iter()
        .map(|seat| {
            let drive = drive.clone();
            std::thread::spawn(move || drive(seat.start().unwrap()))
        })
        .collect();
    (opening.store().unwrap(), threads)
}

/// The plain loop of an owned core.
pub fn turn_until_closed(mut core: Core) {
    loop {
        match core.turn() {
            Turn::Progress => {}
            Turn::Idle => core.wait(None),
            Turn::Closed => return,
        }
    }
}

/// Turns cores in turn on this thread until `done`; panics when that takes longer than a minute.
pub fn turn_until(cores: &mut [Core], mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "the cores did not get there");
        let idle = cores.iter_mut().all(|core| core.turn() != Turn::Progress);
        if idle {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest executor: nothing polls the future except its waker.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        let left = end.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "nobody woke the future");
        std::thread::park_timeout(left);
    }
}

/// A payload that tells who wrote it, and whose every byte depends on that.
pub fn payload(writer: u64, index: u64, length: usize) -> Vec<u8> {
    let mut state = (writer << 40 ^ index).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let byte = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(byte).collect()
}

/// Numbers that repeat with their seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}
