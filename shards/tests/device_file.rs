//! Opening, creating, locking and filling what a store lives on; each refusal has its name and says what to do.
//!
//! Tests that mount something run in a mount namespace of their own and need root; without it they pass and say so.

#![allow(clippy::unwrap_used, reason = "tests")]

use corelog_shards::{
    device::{
        Device, Operation, Token, WriteSync,
        file::{
            Access, CreateError, CreateOptions, DeviceFile, FileError, FileKind, Fill, OpenError, OpenOptions,
        },
        threads::{ThreadsDevice, ThreadsOptions},
        uring::{UringDevice, UringOptions},
    },
    ids::DeviceIndex,
    memory::PooledBuffer,
};
use std::{
    env,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

const BYTES: u64 = 8 << 20;
const CHILD_FOLDER: &str = "CORELOG_TEST_CHILD_FOLDER";
const NOBODY: u32 = 65534;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn sized(bytes: u64) -> CreateOptions {
    CreateOptions { bytes: Some(bytes), lock_wait: Duration::ZERO, ..CreateOptions::default() }
}

fn create(path: &Path, options: &CreateOptions) -> Result<DeviceFile, CreateError> {
    DeviceFile::create(path, options, &mut |_, _| {})
}

fn at_once(access: Access) -> OpenOptions {
    OpenOptions { access, lock_wait: Duration::ZERO, ..OpenOptions::default() }
}

fn open(path: impl AsRef<Path>) -> Result<DeviceFile, OpenError> {
    DeviceFile::open(path, &at_once(Access::ReadWrite))
}

/// How a test runs itself again in another process.
enum Child {
    /// As this user.
    User(u32),
    /// As root, with mounts that nobody else sees and that end with it.
    OwnMounts,
}

/// In the child: its folder. In the parent: `None`, after the child has run this same test and passed.
fn in_child(test: &str, child: &Child) -> Option<PathBuf> {
    if let Some(folder) = env::var_os(CHILD_FOLDER) {
        return Some(folder.into());
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("{test}: not run, it needs root");
        return None;
    }
    let folder = folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let this = env::current_exe().unwrap();
    let mut command = match child {
        Child::User(uid) => {
            let mut command = Command::new(this);
            command.uid(*uid).gid(*uid);
            command
        }
        Child::OwnMounts => {
            let mut command = Command::new("unshare");
            command.args(["--mount", "--"]).arg(this);
            command
        }
    };
    command.args(["--exact", test, "--nocapture"]).env(CHILD_FOLDER, folder.path());
    let output = command.output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    None
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_new_file_is_private_and_of_real_zeros() {
    let folder = folder();
    let path = folder.path().join("device");
    let mut seen = Vec::new();
    let file =
        DeviceFile::create(&path, &sized(BYTES + 4096), &mut |done, total| seen.push((done, total))).unwrap();
    assert_eq!((file.bytes(), file.kind(), file.is_direct()), (BYTES + 4096, FileKind::Regular, true));
    assert!(file.alignment() >= 4096);
    let status = fs::metadata(&path).unwrap();
    assert_eq!(status.mode() & 0o777, 0o600);
    assert!(status.blocks() * 512 >= BYTES, "all of it has blocks");
    assert!(seen.is_sorted() && seen.first() == Some(&(0, BYTES + 4096)), "{seen:?}");
    assert_eq!(seen.last(), Some(&(BYTES + 4096, BYTES + 4096)));
    assert!(fs::read(&path).unwrap().iter().all(|&byte| byte == 0));
}

#[test]
fn a_sparse_file_takes_no_blocks() {
    let folder = folder();
    let path = folder.path().join("device");
    let file = create(&path, &CreateOptions { fill: Fill::Sparse, ..sized(1 << 30) }).unwrap();
    assert_eq!(file.bytes(), 1 << 30);
    assert!(fs::metadata(&path).unwrap().blocks() < 64);
}

#[test]
fn what_exists_is_replaced_only_on_request() {
    let folder = folder();
    let path = folder.path().join("device");
    fs::write(&path, "something of value").unwrap();
    assert!(matches!(create(&path, &sized(BYTES)), Err(CreateError::Exists { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"something of value");
    let file = create(&path, &CreateOptions { replace: true, ..sized(BYTES) }).unwrap();
    assert_eq!(file.bytes(), BYTES);
    assert!(fs::read(&path).unwrap().iter().all(|&byte| byte == 0));
    file.remove_if_created();
    assert!(path.exists(), "it was there before");

    let locked = create(&path, &CreateOptions { replace: true, ..sized(BYTES) });
    assert!(matches!(locked, Err(CreateError::Open(OpenError::Locked { .. }))), "{locked:?}");
}

#[test]
fn a_size_that_cannot_be_is_refused_and_leaves_no_file() {
    let folder = folder();
    let path = folder.path().join("device");
    let without = CreateOptions { bytes: None, ..sized(0) };
    assert!(matches!(create(&path, &without), Err(CreateError::SizeMissing { .. })));
    for bytes in [0, 4096, 1 << 20, BYTES + 1, BYTES + 512] {
        assert!(matches!(create(&path, &sized(bytes)), Err(CreateError::Size { .. })), "{bytes}");
    }
    let huge = create(&path, &sized(u64::MAX - 4095));
    assert!(matches!(huge, Err(CreateError::Full { .. } | CreateError::Open(_))), "{huge:?}");
    assert!(!path.exists());
    let nowhere = create(&folder.path().join("no/device"), &sized(BYTES));
    assert!(matches!(nowhere, Err(CreateError::FolderMissing { .. })));
}

#[test]
fn a_failed_store_can_remove_the_file_that_it_made() {
    let folder = folder();
    let path = folder.path().join("device");
    create(&path, &sized(BYTES)).unwrap().remove_if_created();
    assert!(!path.exists());
}

#[test]
fn paths_that_are_no_device_are_named() {
    let folder = folder();
    let pipe = folder.path().join("pipe");
    run("mkfifo", &[pipe.to_str().unwrap()]);
    assert!(matches!(open(folder.path().join("nothing")), Err(OpenError::Missing { .. })));
    assert!(matches!(open(folder.path()), Err(OpenError::Folder { .. })));
    assert!(matches!(open(&pipe), Err(OpenError::WrongKind { .. })));
    assert!(matches!(open("/dev/null"), Err(OpenError::WrongKind { .. })));
    assert!(matches!(create(folder.path(), &sized(BYTES)), Err(CreateError::Open(OpenError::Folder { .. }))));
    let error = open(folder.path().join("nothing")).unwrap_err().to_string();
    assert!(error.contains("nothing") && error.contains("corelog format"), "{error}");
}

#[test]
fn a_second_open_in_the_same_process_is_locked_out_and_an_inspection_is_not() {
    let folder = folder();
    let path = folder.path().join("device");
    let first = create(&path, &sized(BYTES)).unwrap();
    let start = Instant::now();
    let wait = Duration::from_millis(60);
    let second = DeviceFile::open(&path, &OpenOptions { lock_wait: wait, ..at_once(Access::ReadWrite) });
    assert!(matches!(second, Err(OpenError::Locked { .. })));
    assert!(start.elapsed() >= wait);
    let inspected = DeviceFile::open(&path, &at_once(Access::Inspect)).unwrap();
    assert!(inspected.warnings().iter().any(|line| line.contains("another process")), "{inspected:?}");
    drop(first);
    // With patience: a process that another test starts has the file for a moment, until it runs its own program.
    let again = DeviceFile::open(&path, &OpenOptions::default()).unwrap();
    assert!(again.warnings().is_empty(), "{again:?}");
}

/// The lock waits for a process that is about to end, and dies with it however it ends.
#[test]
fn the_lock_of_another_process_holds_until_it_is_killed() {
    let test = "the_lock_of_another_process_holds_until_it_is_killed";
    if let Some(folder) = env::var_os(CHILD_FOLDER) {
        let _file = DeviceFile::open(PathBuf::from(folder).join("device"), &OpenOptions::default()).unwrap();
        println!("locked");
        std::io::stdout().flush().unwrap();
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    let folder = folder();
    let path = folder.path().join("device");
    drop(create(&path, &sized(BYTES)).unwrap());
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD_FOLDER, folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The test's own name may stand before it on the line.
    assert!(lines.any(|line| line.unwrap().ends_with("locked")));
    assert!(matches!(open(&path), Err(OpenError::Locked { .. })));
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        child.kill().unwrap();
        child.wait().unwrap();
    });
    DeviceFile::open(&path, &OpenOptions::default()).unwrap();
    killer.join().unwrap();
}

#[test]
fn reads_and_writes_go_on_until_all_is_done_and_name_a_truncation() {
    let folder = folder();
    let path = folder.path().join("device");
    let file = create(&path, &sized(BYTES)).unwrap();
    let mut bytes = PooledBuffer::alone(3 * 4096).unwrap();
    bytes.as_mut_slice().iter_mut().enumerate().for_each(|(index, byte)| *byte = index as u8);
    let expected = bytes.as_slice().to_vec();
    file.write_all_at(4096, &bytes.into()).unwrap();
    file.sync_data().unwrap();
    let mut back = PooledBuffer::alone(3 * 4096).unwrap();
    file.read_exact_at(4096, &mut back).unwrap();
    assert_eq!(back.as_slice(), expected);
    file.discard(4096, 4096).unwrap();
    let truncated = file.read_exact_at(BYTES - 4096, &mut back).unwrap_err();
    assert!(matches!(truncated, FileError::Truncated { expected: 12288, found: 4096, .. }), "{truncated:?}");
    // Also where the cut is in the middle of a block.
    File::options().write(true).open(&path).unwrap().set_len(BYTES - 4096 - 100).unwrap();
    let truncated = file.read_exact_at(BYTES - 8192, &mut back).unwrap_err();
    assert!(matches!(truncated, FileError::Truncated { found: 3996, .. }), "{truncated:?}");
    drop(file);
    let inspected = DeviceFile::open(&path, &at_once(Access::Inspect)).unwrap();
    let refused = inspected.write_all_at(0, &PooledBuffer::alone(4096).unwrap().into()).unwrap_err();
    assert!(matches!(refused, FileError::Failed { verb: "write", .. }), "{refused:?}");
}

#[test]
fn a_file_of_another_user_is_forbidden() {
    let test = "a_file_of_another_user_is_forbidden";
    let Some(folder) = in_child(test, &Child::User(NOBODY)) else { return };
    let path = folder.join("device");
    drop(create(&path, &sized(BYTES)).unwrap());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    assert!(matches!(open(&path), Err(OpenError::Forbidden { .. })));
    DeviceFile::open(&path, &at_once(Access::Inspect)).unwrap();
    let foreign = create(Path::new("/etc/corelog-test-device"), &sized(BYTES));
    assert!(matches!(foreign, Err(CreateError::Open(OpenError::Forbidden { .. }))), "{foreign:?}");
}

/// Writes and reads a block by both backends.
fn works(file: DeviceFile) {
    let file = Arc::new(file);
    let uring = UringDevice::new(vec![Arc::clone(&file)], UringOptions::default()).unwrap();
    let threads = ThreadsDevice::new(vec![file], ThreadsOptions::default()).unwrap();
    let backends: [Box<dyn Device>; 2] = [Box::new(uring), Box::new(threads)];
    for (number, mut device) in (1_u8..).zip(backends) {
        let mut block = PooledBuffer::alone(4096).unwrap();
        block.as_mut_slice().fill(number);
        let index = DeviceIndex(0);
        let write =
            Operation::Write { device: index, offset: 8192, bytes: block.into(), sync: WriteSync::None };
        let read =
            Operation::Read { device: index, offset: 8192, buffer: PooledBuffer::alone(4096).unwrap() };
        let mut completions = Vec::new();
        for operation in [write, Operation::Sync { device: index }, read] {
            device.submit(Token(1), operation).unwrap();
            while device.in_flight() > 0 {
                device.wait(None, &mut completions).unwrap();
            }
        }
        assert!(completions.iter().all(|completion| completion.result.is_ok()), "{completions:?}");
        let Some(Operation::Read { buffer, .. }) = completions.pop().map(|completion| completion.operation)
        else {
            panic!("the read is the last")
        };
        assert!(buffer.as_slice().iter().all(|&byte| byte == number));
    }
}

#[test]
fn tmpfs_is_not_direct_unless_buffered_io_is_allowed() {
    let Some(folder) = in_child("tmpfs_is_not_direct_unless_buffered_io_is_allowed", &Child::OwnMounts)
    else {
        return;
    };
    run("mount", &["-t", "tmpfs", "-o", "size=32m", "none", folder.to_str().unwrap()]);
    let path = folder.join("device");
    let refused = create(&path, &sized(BYTES));
    let Err(CreateError::Open(OpenError::NotDirect { file_system, .. })) = &refused else {
        panic!("{refused:?}")
    };
    assert_eq!(*file_system, "tmpfs");
    assert!(!path.exists(), "what was made for it is gone");
    let file = create(&path, &CreateOptions { allow_buffered: true, ..sized(BYTES) }).unwrap();
    assert!(!file.is_direct() && file.warnings().iter().any(|line| line.contains("buffered")), "{file:?}");
    works(file);
    assert!(matches!(open(&path), Err(OpenError::NotDirect { .. })));
    DeviceFile::open(&path, &at_once(Access::Inspect)).unwrap();

    run("mount", &["-o", "remount,ro", folder.to_str().unwrap()]);
    assert!(matches!(open(&path), Err(OpenError::ReadOnly { .. })));
    let refused = create(&folder.join("other"), &sized(BYTES));
    assert!(matches!(refused, Err(CreateError::Open(OpenError::ReadOnly { .. }))), "{refused:?}");
}

#[test]
fn a_full_file_system_fails_the_format_and_keeps_no_half_made_file() {
    let test = "a_full_file_system_fails_the_format_and_keeps_no_half_made_file";
    let Some(folder) = in_child(test, &Child::OwnMounts) else { return };
    run("mount", &["-t", "tmpfs", "-o", "size=6m", "none", folder.to_str().unwrap()]);
    let path = folder.join("device");
    let buffered = CreateOptions { allow_buffered: true, ..sized(BYTES) };
    let full = create(&path, &buffered);
    assert!(matches!(full, Err(CreateError::Full { bytes: BYTES, .. })), "{full:?}");
    assert!(!path.exists());

    // A sparse one is made, and its writes meet the end of the space.
    let sparse = create(&path, &CreateOptions { fill: Fill::Sparse, ..buffered }).unwrap();
    let whole = PooledBuffer::alone(BYTES as usize).unwrap();
    let error = sparse.write_all_at(0, &whole.into()).unwrap_err();
    assert!(matches!(error, FileError::Full { .. }), "{error:?}");
}

/// An image with ext4 on it, mounted on a folder until the namespace ends.
fn mount_ext4(folder: &Path, bytes: u64, options: &str) -> PathBuf {
    let image = folder.join("image");
    File::create(&image).unwrap().set_len(bytes).unwrap();
    run("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()]);
    let place = folder.join("mounted");
    fs::create_dir(&place).unwrap();
    let options = format!("loop{options}");
    run("mount", &["-o", &options, image.to_str().unwrap(), place.to_str().unwrap()]);
    place
}

#[test]
fn ext4_that_journals_data_is_not_direct() {
    let Some(folder) = in_child("ext4_that_journals_data_is_not_direct", &Child::OwnMounts) else { return };
    let place = mount_ext4(&folder, 64 << 20, ",data=journal");
    let refused = create(&place.join("device"), &sized(BYTES));
    let Err(CreateError::Open(error @ OpenError::NotDirect { .. })) = &refused else { panic!("{refused:?}") };
    assert!(error.to_string().contains("data=journal"), "{error}");
}

#[test]
fn a_small_ext4_on_a_buffered_loop_is_warned_of_and_can_be_full() {
    let test = "a_small_ext4_on_a_buffered_loop_is_warned_of_and_can_be_full";
    let Some(folder) = in_child(test, &Child::OwnMounts) else { return };
    let place = mount_ext4(&folder, 64 << 20, "");
    let path = place.join("device");
    let full = create(&path, &sized(256 << 20));
    assert!(matches!(full, Err(CreateError::Full { .. })), "{full:?}");
    assert!(!path.exists());
    let file = create(&path, &sized(BYTES)).unwrap();
    assert!(file.is_direct());
    assert!(file.warnings().iter().any(|line| line.contains("--direct-io=on")), "{file:?}");
    works(file);
}

/// A loop device that is gone with this value.
struct Loop(String);

impl Loop {
    fn new(image: &Path) -> Self {
        Self(run("losetup", &["--find", "--show", "--direct-io=on", image.to_str().unwrap()]))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _detached = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

/// A write over the end of a block device is delivered as short as it was.
fn short_at_the_end(file: DeviceFile) {
    let mut device = UringDevice::new(vec![Arc::new(file)], UringOptions::default()).unwrap();
    let bytes = PooledBuffer::alone(8192).unwrap().into();
    let (index, offset) = (DeviceIndex(0), BYTES - 4096);
    device
        .submit(Token(1), Operation::Write { device: index, offset, bytes, sync: WriteSync::None })
        .unwrap();
    let mut completions = Vec::new();
    while completions.is_empty() {
        device.wait(None, &mut completions).unwrap();
    }
    assert_eq!(completions[0].result, Ok(4096));
}

#[test]
fn a_block_device_is_taken_whole_checked_and_locked() {
    let Some(folder) = in_child("a_block_device_is_taken_whole_checked_and_locked", &Child::OwnMounts) else {
        return;
    };
    let image = folder.join("image");
    File::create(&image).unwrap().set_len(BYTES).unwrap();
    let device = Loop::new(&image);
    let path = Path::new(&device.0);
    let whole = CreateOptions { bytes: None, ..sized(0) };
    let file = create(path, &whole).unwrap();
    assert_eq!((file.kind(), file.bytes(), file.is_direct()), (FileKind::Block, BYTES, true));
    assert!(file.warnings().is_empty(), "{file:?}");
    assert!(matches!(open(path), Err(OpenError::Locked { .. })));
    DeviceFile::open(path, &at_once(Access::Inspect)).unwrap();
    file.remove_if_created();
    assert!(path.exists());
    works(file);
    short_at_the_end(open(path).unwrap());

    let larger = create(path, &sized(2 * BYTES));
    assert!(matches!(larger, Err(CreateError::Occupied { .. } | CreateError::TooSmall { .. })), "{larger:?}");
    let occupied = create(path, &whole);
    assert!(matches!(occupied, Err(CreateError::Occupied { .. })), "{occupied:?}");
    let file = create(path, &CreateOptions { replace: true, ..whole }).unwrap();
    let mut first = PooledBuffer::alone(16384).unwrap();
    file.read_exact_at(0, &mut first).unwrap();
    assert!(first.as_slice().iter().all(|&byte| byte == 0));
    file.discard(1 << 20, 1 << 20).unwrap();
}
