//! What tests need of the host: a process of their own, mounts that nobody else sees, loop devices. Where the host
//! does not give it, the test says on standard error that it was skipped, and why.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    env, fs,
    io::Write,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output},
};

const CHILD_FOLDER: &str = "CORELOG_TEST_CHILD_FOLDER";
const CHILD_ROLE: &str = "CORELOG_TEST_CHILD_ROLE";
pub const NOBODY: u32 = 65534;

pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

pub fn skipped(test: &str, why: &str) {
    // Past the capture of the test harness, so that nobody takes it for run.
    let _nobody_reads_it = writeln!(std::io::stderr(), "{test}: SKIPPED: {why}");
}

/// How a test runs itself again in another process.
pub enum As {
    /// As root, with mounts that nobody else sees and that end with it.
    RootWithOwnMounts,
    /// As this user.
    User(u32),
}

/// In the child: its folder. In the parent: `None`, after the child has run this same test and passed, or after the
/// test was skipped.
pub fn in_child(test: &str, how: &As) -> Option<PathBuf> {
    if let Some(folder) = env::var_os(CHILD_FOLDER) {
        return Some(folder.into());
    }
    if !is_root() {
        skipped(test, "it needs root");
        return None;
    }
    let folder = folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let this = env::current_exe().unwrap();
    let mut command = match how {
        As::User(uid) => {
            let mut command = Command::new(this);
            command.uid(*uid).gid(*uid);
            command
        }
        As::RootWithOwnMounts => {
            let mut command = Command::new("unshare");
            command.args(["--mount", "--"]).arg(this);
            command
        }
    };
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD_FOLDER, folder.path());
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    assert!(status.success() && text.contains("1 passed"), "{text}");
    for line in text.lines().filter(|line| line.contains("SKIPPED") || line.contains("seed")) {
        let _nobody_reads_it = writeln!(std::io::stderr(), "{line}");
    }
    None
}

/// As [`in_child`], for a test that mounts a FUSE file system.
pub fn with_fuse(test: &str) -> Option<PathBuf> {
    if !Path::new("/dev/fuse").exists() {
        skipped(test, "the host has no /dev/fuse");
        return None;
    }
    in_child(test, &As::RootWithOwnMounts)
}

/// Starts `test` of this file again in a process of its own, with `role` to be found by [`role`].
pub fn start_role(test: &str, role: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD_ROLE, role);
    command
}

pub fn role() -> Option<String> {
    env::var(CHILD_ROLE).ok()
}

/// Kills with -9 and waits for the end.
pub fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|status| std::os::unix::fs::MetadataExt::uid(&status) == 0)
}

pub fn has(program: &str) -> bool {
    let paths = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&paths).any(|folder| folder.join(program).exists())
}

pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A loop device over a file; it is detached when it is dropped.
pub struct Loop {
    pub path: PathBuf,
}

impl Loop {
    /// `None`: the host does not make one; the test was skipped.
    pub fn new(test: &str, image: &Path) -> Option<Self> {
        let output = Command::new("losetup")
            .args(["--find", "--show", "--direct-io=on", "--sector-size=512"])
            .arg(image)
            .output();
        match output {
            Ok(output) if output.status.success() => {
                Some(Self { path: String::from_utf8(output.stdout).unwrap().trim().into() })
            }
            other => {
                skipped(test, &format!("no loop device: {other:?}"));
                None
            }
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _already_gone = Command::new("losetup").arg("--detach").arg(&self.path).status();
    }
}

/// A file of a size, without blocks.
pub fn sparse(path: &Path, bytes: u64) {
    fs::File::create(path).unwrap().set_len(bytes).unwrap();
}

/// Mounts what is made anew on `image`, in the mounts of the calling process.
pub fn mount_new(make: &[&str], image: &Path, point: &Path, options: &str) {
    let image = image.to_str().unwrap();
    let (program, arguments) = make.split_first().unwrap();
    run(program, &[arguments, &[image]].concat());
    fs::create_dir_all(point).unwrap();
    run("mount", &["-o", options, image, point.to_str().unwrap()]);
}
