//! What anybody may write (superblocks, frames, whole devices, profiles, command lines) is answered in bounded time
//! and memory, and never with a panic: the kept corpus, and random mutations of it.
//!
//! Each run has a new seed, which is printed; `CORELOG_FUZZ_SEED` repeats one, `CORELOG_FUZZ_CASES` gives the number of
//! mutations of each target, `CORELOG_FUZZ_SECONDS` says instead how long each goes on. An input that fails is kept in a
//! file whose name is printed.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "bounding memory needs an allocator of our own")]

use corelog::fuzzing::{Random, Target, mutate};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

/// What one input may make the engine hold beside itself: some images of 3 MiB, and the tables of their extents.
const LIVE_BYTES_MAX: isize = 48 << 20;
/// What one input may take, on a machine that does other things too.
const TIME_MAX: Duration = Duration::from_secs(20);
/// What is kept of the corpus, in bytes.
const CORPUS_BYTES_MAX: u64 = 300 << 10;

struct Bounded;

std::thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that is ending has no counter any more; nothing is counted there.
    let _ended = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ended = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

// SAFETY: every call goes on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: as the caller promised.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

fn corpus_folder(target: Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name())
}

/// The kept inputs by name, so that every run goes through them in one order.
fn corpus(target: Target) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(corpus_folder(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).chain(target.seeds()).collect()
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

/// Runs one input and holds it to its bounds.
fn run(target: Target, input: &[u8], name: &str) {
    let (start, live) = (Instant::now(), LIVE.get());
    PEAK.set(live);
    let result = catch_unwind(AssertUnwindSafe(|| target.run(input)));
    let (took, held) = (start.elapsed(), PEAK.get() - live);
    if result.is_err() || took > TIME_MAX || held > LIVE_BYTES_MAX {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{}-{name}", target.name()));
        fs::write(&kept, input).unwrap();
        panic!(
            "{}: {name} took {took:?} and {held} bytes, see above; input kept in {}",
            target.name(),
            kept.display()
        );
    }
}

fn replay_and_mutate(target: Target, cases: u64) {
    let corpus = corpus(target);
    for (index, input) in corpus.iter().enumerate() {
        run(target, input, &format!("corpus-{index}"));
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number("CORELOG_FUZZ_SEED").unwrap_or(now);
    let seconds = number("CORELOG_FUZZ_SECONDS");
    let cases = number("CORELOG_FUZZ_CASES").unwrap_or(if seconds.is_some() { u64::MAX } else { cases });
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    eprintln!("{}: {} kept inputs, mutations with CORELOG_FUZZ_SEED={seed}", target.name(), corpus.len());
    let mut random = Random::new(seed);
    let mut done = 0;
    while done < cases && end.is_none_or(|end| Instant::now() < end) {
        let case = done;
        done += 1;
        let mut input = corpus[random.below(corpus.len())].clone();
        let other = &corpus[random.below(corpus.len())];
        mutate(&mut input, other, &mut random);
        run(target, &input, &format!("seed-{seed}-case-{case}"));
    }
    eprintln!("{}: {done} mutations", target.name());
}

#[test]
fn any_superblock_is_answered() {
    replay_and_mutate(Target::Superblock, 3000);
}

#[test]
fn any_extent_header_is_answered() {
    replay_and_mutate(Target::ExtentHeader, 10_000);
}

#[test]
fn any_frame_is_answered() {
    replay_and_mutate(Target::Frame, 10_000);
}

#[test]
fn any_record_is_answered() {
    replay_and_mutate(Target::Record, 10_000);
}

#[test]
fn any_list_is_answered() {
    replay_and_mutate(Target::Manifest, 5000);
}

#[test]
fn any_device_is_answered() {
    replay_and_mutate(Target::Image, 150);
}

#[test]
fn any_profile_is_answered() {
    replay_and_mutate(Target::Profile, 3000);
}

#[test]
fn any_command_line_is_answered() {
    replay_and_mutate(Target::CommandLine, 500);
}

#[test]
fn the_kept_corpus_is_small() {
    let folders = Target::ALL.map(corpus_folder);
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let bytes: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes <= CORPUS_BYTES_MAX, "{bytes} bytes");
}

/// The beginning of a corpus: `CORELOG_WRITE_CORPUS=1`, once for a new target.
#[test]
fn every_target_has_a_corpus() {
    for target in Target::ALL {
        let folder = corpus_folder(target);
        if env::var_os("CORELOG_WRITE_CORPUS").is_some() {
            fs::create_dir_all(&folder).unwrap();
            for (index, seed) in target.seeds().iter().enumerate() {
                fs::write(folder.join(format!("seed-{index}")), seed).unwrap();
            }
        }
        assert!(fs::read_dir(&folder).unwrap().count() > 0, "{} is empty", folder.display());
    }
}
