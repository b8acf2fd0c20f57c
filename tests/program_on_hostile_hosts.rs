//! Hosts that forbid, or have too little: no io_uring, no memory to pin, a full disk, a read-only one, one that is
//! only memory. The program says which, and what to do; what it acknowledged is kept.
//!
//! This file holds unsafe code.
#![expect(clippy::unwrap_used, reason = "tests")]

mod program;

use program::{
    DONE, FAILED, FULL, PROGRAM, Ran, corelog, folder, lines, read_all, run, run_with, store_in, text_of,
};
use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
};

const NOBODY: u32 = 65534;

/// Has one system call fail in the program that the command starts.
fn forbid(command: &mut Command, call: libc::c_long, errno: libc::c_int) {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let load_number = statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0);
    let mut is_call = statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call as u32);
    is_call.jf = 1;
    let fail = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32);
    let allow = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW);
    let mut filter = [load_number, is_call, fail, allow];
    let set = move || {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: only forbids gaining privileges from here on.
        let no_new = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        // SAFETY: the program and its statements outlive the call, which copies them.
        let set = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &program) };
        if no_new == 0 && set == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec it makes two system calls, and allocates nothing.
    unsafe { command.pre_exec(set) };
}

#[test]
fn io_uring_forbidden_is_an_error_that_names_the_way_out() {
    let folder = folder();
    let path = store_in(folder.path());
    let lines = lines(300);
    let input = folder.path().join("input");
    fs::write(&input, text_of(&lines)).unwrap();
    let append = |more: &[&str]| {
        let words = ["append".as_ref(), path.as_os_str(), input.as_os_str(), "--addresses".as_ref()];
        let mut command = corelog(words);
        command.args(more);
        forbid(&mut command, libc::SYS_io_uring_setup, libc::EPERM);
        Ran::of("append", command.output().unwrap())
    };
    let before = fs::read(&path).unwrap();
    append(&[]).refused(FAILED, &["io_uring", "seccomp", "--backend threads"]);
    assert!(fs::read(&path).unwrap() == before, "the store was touched");
    let addresses = append(&["--backend", "threads"]).done();
    assert_eq!(read_all(&path, addresses.lines()), lines);
    // The commands that only look need no ring.
    let mut info = corelog(["info".as_ref(), path.as_os_str()]);
    forbid(&mut info, libc::SYS_io_uring_setup, libc::ENOSYS);
    assert_eq!(info.output().unwrap().status.code(), Some(DONE));
}

/// The kernel counts locked memory by user, over all processes and for a while after they ended: so the rings
/// themselves may be refused, or only the registration of buffers. Both are told; and threads need none.
#[test]
fn an_ordinary_user_with_little_memlock_is_told_and_served() {
    let folder = folder();
    let lines = lines(300);
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let path = folder.path().join("store");
    fs::write(folder.path().join("input"), text_of(&lines)).unwrap();
    let as_user = |line: &str| {
        let mut command = Command::new("sh");
        let script = format!("ulimit -l 64; \"$0\" {line}");
        command.args(["-c", &script, PROGRAM]).current_dir(folder.path()).stdin(Stdio::null());
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        Ran::of(line, command.output().unwrap())
    };
    as_user("format store --size 32MiB --shards 2").done();
    let ran = as_user("append store input --json");
    if ran.code == Some(DONE) {
        let report = ran.json();
        let not_granted = report["not_granted"].to_string();
        assert!(not_granted.contains("ulimit -l"), "{not_granted}");
        assert_eq!(report["records"], 300);
    } else {
        ran.refused(FAILED, &["io_uring", "ulimit -l", "--backend threads"]);
    }
    let addresses = as_user("append store input --addresses --backend threads").done();
    assert_eq!(read_all(&path, addresses.lines()), lines);
    // The bench takes what there is, and says what it misses.
    let report = as_user("bench bench --size 64MiB --bytes 256KiB --seconds 0.3 --json").json();
    assert!(report["granted"].to_string().contains("ulimit -l"), "{report:#}");
}

#[test]
fn a_bench_without_io_uring_runs_on_threads_and_says_so() {
    let folder = folder();
    let path = folder.path().join("store");
    let bench = |more: &str| {
        let line = format!("--size 64MiB --bytes 256KiB --seconds 0.3 --json {more}");
        let mut command = corelog(["bench".as_ref(), path.as_os_str()]);
        command.args(line.split_whitespace());
        forbid(&mut command, libc::SYS_io_uring_setup, libc::EPERM);
        Ran::of(&line, command.output().unwrap())
    };
    let report = bench("").json();
    let granted = report["granted"].as_array().unwrap();
    assert!(granted.iter().all(|core| core["device"]["backend"] == "threads"), "{report:#}");
    assert!(granted[0]["device"]["missing"].to_string().contains("io_uring"), "{report:#}");
    bench("--backend uring").refused(FAILED, &["io_uring", "--backend threads"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "something was left");
}

#[test]
fn a_bench_on_a_disk_without_room_is_told_and_leaves_nothing() {
    let folder = folder();
    for (size, words) in [
        ("", ["too little for a bench store", "name another path"]),
        ("--size 64MiB", ["no space left", "ask for less"]),
    ] {
        let bench =
            format!("$corelog bench disk/store --allow-buffered {size}; code=$?; ls disk; exit $code");
        let Some(ran) = on_a_small_disk(folder.path(), &bench) else { return };
        ran.refused(FULL, &words);
        assert_eq!(ran.text(), "", "a file was left");
    }
}

/// Runs a script with `$corelog`, in a folder `disk` that is a file system of its own with 8 MiB, seen by the script
/// alone. `None`: this host lets nobody mount.
fn on_a_small_disk(folder: &Path, script: &str) -> Option<Ran> {
    fs::create_dir_all(folder.join("disk")).unwrap();
    let user = if rustix::process::geteuid().is_root() { "--mount" } else { "-rm" };
    let mount = "mount -t tmpfs -o size=8m none disk || exit 99\n";
    let output = Command::new("unshare")
        .args([user, "sh", "-c", &format!("{mount}{script}")])
        .env("corelog", PROGRAM)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let ran = Ran::of(script, output);
    if ran.code == Some(99) || ran.error.contains("unshare failed") {
        program::skipped(&format!("this host does not let a test mount: {}", ran.error));
        return None;
    }
    Some(ran)
}

#[test]
fn a_disk_without_room_for_the_store_is_told_and_left_clean() {
    let folder = folder();
    let format = "$corelog format disk/store --size 64MiB --allow-buffered; code=$?; ls disk; exit $code";
    let Some(ran) = on_a_small_disk(folder.path(), format) else { return };
    ran.refused(FULL, &["no space left for 67108864 bytes", "ask for less"]);
    assert_eq!(ran.text(), "", "a file was left");
}

#[test]
fn a_disk_that_fills_up_under_a_sparse_store_keeps_what_was_acknowledged() {
    let folder = folder();
    let lines = lines(100_000);
    fs::write(folder.path().join("input"), text_of(&lines)).unwrap();
    let script = "
        $corelog format disk/store --size 64MiB --shards 2 --sparse --allow-buffered >&2 || exit 98
        $corelog append disk/store input --addresses --in-flight 1000 --allow-buffered > addresses
        code=$?
        $corelog info disk/store >&2 || exit 97
        xargs $corelog read disk/store < addresses > records || exit 96
        exit $code";
    let Some(ran) = on_a_small_disk(folder.path(), script) else { return };
    assert_eq!(ran.code, Some(FULL), "{}", ran.error);
    // The disk may refuse a write, or take only a part of it for ever.
    let says_full = ran.error.contains("no space left") || ran.error.contains("file system is full");
    assert!(says_full && ran.error.contains("are durable"), "{}", ran.error);
    let records = fs::read_to_string(folder.path().join("records")).unwrap();
    let kept: Vec<&str> = records.lines().collect();
    assert!(kept.len() > 1000, "{}", kept.len());
    assert!(kept.iter().zip(&lines).all(|(kept, line)| kept == line));
}

#[test]
fn a_read_only_disk_can_be_looked_at_and_nothing_else() {
    let folder = folder();
    let script = "
        $corelog format disk/store --size 5MiB --shards 2 --allow-buffered >&2 || exit 98
        echo one | $corelog append disk/store --addresses --allow-buffered > addresses || exit 97
        mount -o remount,ro disk || exit 96
        $corelog read disk/store $(cat addresses) || exit 95
        $corelog info disk/store >&2 || exit 94
        $corelog format disk/other --size 5MiB --allow-buffered 2>&1 && exit 93
        echo two | $corelog append disk/store --allow-buffered";
    let Some(ran) = on_a_small_disk(folder.path(), script) else { return };
    ran.refused(FAILED, &["read-only file system", "remount it"]);
    assert!(ran.text().starts_with("one\ncorelog: disk/other is on a read-only"), "{}", ran.text());
}

#[test]
fn a_file_system_without_direct_io_is_refused_unless_allowed() {
    let folder = folder();
    let script = "
        $corelog format disk/store --size 5MiB && exit 98
        $corelog format disk/store --size 5MiB --shards 2 --allow-buffered >&2 || exit 97
        echo one | $corelog append disk/store && exit 96
        echo one | $corelog append disk/store --addresses --allow-buffered > addresses || exit 95
        $corelog read disk/store $(cat addresses) || exit 94
        echo two | $corelog append disk/store";
    let Some(ran) = on_a_small_disk(folder.path(), script) else { return };
    ran.refused(FAILED, &["tmpfs does not do direct I/O", "--allow-buffered"]);
    assert_eq!(ran.text(), "one\n");
}

#[test]
fn a_folder_that_may_not_be_written_is_named() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = folder();
    let path = store_in(folder.path());
    run_with(&path, "append @", b"x\n").done();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for (line, words) in [
        ("format other --size 32MiB", ["other", "run as a user who may"]),
        ("append store", ["store", "run as a user who may"]),
        ("info store", ["store", "run as a user who may"]),
    ] {
        let mut command = corelog(line.split(' '));
        command.current_dir(folder.path()).uid(NOBODY).gid(NOBODY);
        Ran::of(line, command.output().unwrap()).refused(FAILED, &words);
    }
    run(&path, "info @").done();
}
