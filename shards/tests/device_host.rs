//! The device on a host that interrupts it, or that forbids what it asks for.
//!
//! This file holds unsafe code.

#![allow(clippy::unwrap_used, reason = "tests")]

use corelog_shards::{
    device::{
        Device, Errno, Operation, Token, WriteSync,
        file::{CreateOptions, DeviceFile},
        threads::{ThreadsDevice, ThreadsOptions},
        uring::{Completing, UringDevice, UringOptions},
    },
    ids::DeviceIndex,
    memory::{BufferPool, PooledBuffer},
};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::{
    env, fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

const BLOCK: usize = 4096;
/// Set for a child: the folder that it works in.
const CHILD_FOLDER: &str = "CORELOG_TEST_CHILD_FOLDER";
const NOBODY: u32 = 65534;

fn file(folder: &Path) -> Arc<DeviceFile> {
    let options = CreateOptions { bytes: Some(4 << 20), ..CreateOptions::default() };
    Arc::new(DeviceFile::create(folder.join("device"), &options, &mut |_, _| {}).unwrap())
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Runs one test of this file in a process of its own, which finds its folder by [`child_folder`].
fn run_child(test: &str, uid: Option<u32>) {
    let folder = folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD_FOLDER, folder.path());
    if let Some(uid) = uid {
        command.uid(uid).gid(uid);
    }
    let output = command.output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn child_folder() -> Option<PathBuf> {
    env::var_os(CHILD_FOLDER).map(PathBuf::from)
}

fn finish(device: &mut dyn Device) -> usize {
    let mut completions = Vec::new();
    while device.in_flight() > 0 {
        device.wait(Some(Duration::from_secs(20)), &mut completions).unwrap();
    }
    for completion in &completions {
        assert_eq!(completion.result, Ok(completion.operation.transfer_bytes()));
    }
    completions.len()
}

fn storm(device: &mut dyn Device) {
    extern "C" fn ignore(_signal: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = ignore;
    // SAFETY: the handler does nothing, which is safe at any moment.
    unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
    // SAFETY: it takes no argument and cannot fail.
    let core = unsafe { libc::pthread_self() };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // SAFETY: the scope ends before the core's thread does, so that the handle is valid.
                unsafe { libc::pthread_kill(core, libc::SIGUSR1) };
                std::thread::sleep(Duration::from_micros(20));
            }
        });
        for round in 0..50_u64 {
            for number in 0..16 {
                let (device_index, offset) = (DeviceIndex(0), number * BLOCK as u64);
                let buffer = PooledBuffer::alone(BLOCK).unwrap();
                let operation = match number % 4 {
                    0 => Operation::Sync { device: device_index },
                    1 => Operation::Write {
                        device: device_index,
                        offset,
                        bytes: buffer.into(),
                        sync: WriteSync::None,
                    },
                    _ => Operation::Read { device: device_index, offset, buffer },
                };
                device.submit(Token(round * 16 + number), operation).unwrap();
            }
            assert_eq!(finish(device), 16);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// Signals interrupt the core all the time; nobody above sees it.
#[test]
fn interrupted_calls_are_invisible_with_io_uring() {
    let folder = folder();
    let mut device = UringDevice::new(vec![file(folder.path())], UringOptions::default()).unwrap();
    storm(&mut device);
    println!("{:?}", device.counters());
}

#[test]
fn interrupted_calls_are_invisible_with_threads() {
    let folder = folder();
    let mut device = ThreadsDevice::new(vec![file(folder.path())], ThreadsOptions::default()).unwrap();
    storm(&mut device);
}

/// More completions at once than the queue has room for: the kernel keeps them back, the bell's own poll ends, and nobody
/// above sees it.
#[test]
fn a_completion_queue_that_overflows_loses_no_completion_and_no_bell() {
    const DEPTH: u32 = 2;
    let folder = folder();
    let file = file(folder.path());
    for completing in [Completing::Interrupting, Completing::Cooperative, Completing::Deferred] {
        let options = UringOptions { depth: DEPTH, completing, ..UringOptions::default() };
        let mut device = UringDevice::new(vec![Arc::clone(&file)], options).unwrap();
        let bell = device.bell();
        let mut completions = Vec::new();
        for round in 0..20_u64 {
            device.poll(&mut completions).unwrap();
            for number in 0..u64::from(DEPTH) {
                let buffer = PooledBuffer::alone(BLOCK).unwrap();
                let read = Operation::Read { device: DeviceIndex(0), offset: 0, buffer };
                device.submit(Token(round << 8 | number), read).unwrap();
            }
            // Each ring is an entry of the queue, which has room for four.
            for _ in 0..50 {
                bell.prepare_sleep();
                bell.ring();
            }
            completions.clear();
            while device.in_flight() > 0 {
                device.wait(Some(Duration::from_secs(20)), &mut completions).unwrap();
            }
            assert_eq!(completions.len(), DEPTH as usize);
            // Rings of before may end a wait or two; a new one ends the wait after them.
            for _ in 0..3 {
                device.wait(Some(Duration::ZERO), &mut completions).unwrap();
            }
            let wakes = device.counters().wakes;
            bell.prepare_sleep();
            bell.ring();
            device.wait(Some(Duration::from_secs(20)), &mut completions).unwrap();
            assert!(device.counters().wakes > wakes, "{completing:?}: the bell is deaf");
        }
        println!("{completing:?}: {:?}", device.counters());
    }
}

/// An ordinary user has little memory to pin: I/O goes on without registered buffers, and the grants say so.
#[test]
fn too_little_memlock_for_an_ordinary_user_degrades_and_is_named() {
    let Some(folder) = child_folder() else {
        if !rustix::process::geteuid().is_root() {
            // Then this process is an ordinary user itself.
            return memlock_child(folder().path());
        }
        return run_child("too_little_memlock_for_an_ordinary_user_degrades_and_is_named", Some(NOBODY));
    };
    memlock_child(&folder);
}

fn memlock_child(folder: &Path) {
    let limit = Rlimit { current: Some(64 << 10), maximum: Some(64 << 10) };
    setrlimit(Resource::Memlock, limit).unwrap();
    let mut device = UringDevice::new(vec![file(folder)], UringOptions::default()).unwrap();
    let pool = BufferPool::new(1 << 20, 8).unwrap();
    device.register(pool.region());
    let grants = device.grants().clone();
    assert!(!grants.features.contains(&"registered buffers"), "{grants:?}");
    assert!(grants.missing.iter().any(|line| line.contains("ulimit -l")), "{grants:?}");
    let buffer = pool.take(BLOCK).unwrap();
    device.submit(Token(1), Operation::Read { device: DeviceIndex(0), offset: 0, buffer }).unwrap();
    assert_eq!(finish(&mut device), 1);
}

/// Container engines forbid io_uring: the error says so and names the way out, and the thread pool works.
#[test]
fn io_uring_forbidden_by_seccomp_is_named_and_threads_still_work() {
    let Some(folder) = child_folder() else {
        return run_child("io_uring_forbidden_by_seccomp_is_named_and_threads_still_work", None);
    };
    let file = file(&folder);
    for errno in [libc::EPERM, libc::ENOSYS] {
        // A thread's filter is its own, so that each errno is tried in a new one.
        let file = Arc::clone(&file);
        std::thread::spawn(move || {
            forbid(libc::SYS_io_uring_setup, errno);
            let error = UringDevice::new(vec![Arc::clone(&file)], UringOptions::default()).unwrap_err();
            assert_eq!(error.errno, Errno(errno));
            assert!(error.hint.contains("seccomp") && error.hint.contains("thread-pool"), "{error}");
            let mut device = ThreadsDevice::new(vec![file], ThreadsOptions::default()).unwrap();
            device.submit(Token(1), Operation::Sync { device: DeviceIndex(0) }).unwrap();
            assert_eq!(finish(&mut device), 1);
            assert!(device.grants().missing.iter().any(|line| line.contains("io_uring")));
        })
        .join()
        .unwrap();
    }
}

/// A ring that can be made but not configured works without what it could not get.
#[test]
fn registering_forbidden_by_seccomp_degrades_where_it_can() {
    let Some(folder) = child_folder() else {
        return run_child("registering_forbidden_by_seccomp_degrades_where_it_can", None);
    };
    let file = file(&folder);
    forbid(libc::SYS_io_uring_register, libc::EPERM);
    let mut device = UringDevice::new(vec![file], UringOptions::default()).unwrap();
    device.submit(Token(1), Operation::Sync { device: DeviceIndex(0) }).unwrap();
    assert_eq!(finish(&mut device), 1);
    let grants = device.grants();
    assert!(!grants.features.contains(&"fixed files"), "{grants:?}");
    assert!(grants.missing.len() >= 3, "{grants:?}");
}

/// Has one system call fail in the calling thread and in those that it starts.
fn forbid(call: libc::c_long, errno: libc::c_int) {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let load_number = statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0);
    let mut is_call = statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call as u32);
    is_call.jf = 1;
    let fail = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32);
    let allow = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW);
    let mut filter = [load_number, is_call, fail, allow];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: only forbids gaining privileges from here on.
    let no_new = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(no_new, 0);
    // SAFETY: the program and its statements outlive the call, which copies them.
    let set = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &program) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}
