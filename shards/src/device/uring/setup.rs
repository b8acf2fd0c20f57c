//! Making a ring: the best that the kernel gives, and why it is not better.

use crate::{
    device::{Errno, Grants},
    limits::{DEVICES_MAX, IO_MEMORY_PAUSE_MS_MAX, IO_MEMORY_WAIT_MS_MAX, IO_WORKERS_MAX},
};
use io_uring::IoUring;
use std::time::Duration;

/// When the kernel finishes completions: what the ring asks for first. What the kernel does not have is replaced by
/// the next one below.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Completing {
    /// By interrupting the core, wherever it is.
    Interrupting,
    /// When the core enters the kernel next, whatever for (`COOP_TASKRUN`).
    Cooperative,
    /// When the core asks for completions (`SINGLE_ISSUER`, `DEFER_TASKRUN`).
    #[default]
    Deferred,
}

/// io_uring cannot be used here. Nothing was touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("io_uring is not available: {errno}: {hint}")]
pub struct RingUnavailable {
    /// What the kernel said.
    pub errno: Errno,
    /// What to do.
    pub hint: String,
}

/// The feature whose absence from the grants makes the ring's descriptor pollable.
pub(super) const DEFERRED: &str = "DEFER_TASKRUN";

/// One rung of the ladder.
#[derive(Clone, Copy)]
struct Attempt {
    completing: Completing,
    single_issuer: bool,
    no_sqarray: bool,
    /// Of Linux 5.18; nothing else on the lowest rung is younger than 5.11.
    submit_all: bool,
}

const LADDER: [Attempt; 6] = [
    Attempt { completing: Completing::Deferred, single_issuer: true, no_sqarray: true, submit_all: true },
    Attempt { completing: Completing::Deferred, single_issuer: true, no_sqarray: false, submit_all: true },
    Attempt { completing: Completing::Cooperative, single_issuer: true, no_sqarray: false, submit_all: true },
    Attempt {
        completing: Completing::Cooperative,
        single_issuer: false,
        no_sqarray: false,
        submit_all: true,
    },
    Attempt {
        completing: Completing::Interrupting,
        single_issuer: false,
        no_sqarray: false,
        submit_all: true,
    },
    Attempt {
        completing: Completing::Interrupting,
        single_issuer: false,
        no_sqarray: false,
        submit_all: false,
    },
];

/// Makes a ring of `entries` submissions. One that is `disabled` has no issuer yet: the thread that enables it
/// becomes it.
pub(super) fn build(
    entries: u32,
    completing: Completing,
    disabled: bool,
    grants: &mut Grants,
) -> Result<IoUring, RingUnavailable> {
    let mut refused = None;
    for attempt in LADDER.iter().filter(|attempt| attempt.completing <= completing) {
        match while_short_of_memory(std::thread::sleep, || attempt_build(entries, *attempt, disabled)) {
            Ok(ring) => {
                if !ring.params().is_feature_ext_arg() || !ring.params().is_feature_nodrop() {
                    return Err(unavailable(Errno(libc::ENOSYS)));
                }
                note(*attempt, completing, refused, grants);
                return Ok(ring);
            }
            // The kernel does not know a flag: try without.
            Err(errno) if errno.0 == libc::EINVAL => refused = Some(errno),
            Err(errno) => return Err(unavailable(errno)),
        }
    }
    Err(unavailable(refused.unwrap_or(Errno(libc::EINVAL))))
}

/// Tries again while there is no memory, for a bounded time: who opens one store after another may find the limit still
/// taken up by rings that are gone.
fn while_short_of_memory<T>(
    mut rest: impl FnMut(Duration),
    mut make: impl FnMut() -> Result<T, Errno>,
) -> Result<T, Errno> {
    let mut pause = Duration::from_millis(1);
    let mut left = Duration::from_millis(IO_MEMORY_WAIT_MS_MAX);
    loop {
        match make() {
            Err(errno) if errno.0 == libc::ENOMEM && !left.is_zero() => {
                pause = pause.min(left);
                rest(pause);
                left -= pause;
                pause = (2 * pause).min(Duration::from_millis(IO_MEMORY_PAUSE_MS_MAX));
            }
            made => return made,
        }
    }
}

fn attempt_build(entries: u32, attempt: Attempt, disabled: bool) -> Result<IoUring, Errno> {
    let mut builder = IoUring::builder();
    // Twice the submissions: the bell has room beside all operations in flight.
    builder.setup_cqsize(2 * entries);
    if disabled {
        builder.setup_r_disabled();
    }
    if attempt.submit_all {
        builder.setup_submit_all();
    }
    if attempt.single_issuer {
        builder.setup_single_issuer();
    }
    if attempt.no_sqarray {
        builder.setup_no_sqarray();
    }
    match attempt.completing {
        Completing::Deferred => builder.setup_defer_taskrun().setup_taskrun_flag(),
        Completing::Cooperative => builder.setup_coop_taskrun().setup_taskrun_flag(),
        Completing::Interrupting => &mut builder,
    };
    builder.build(entries).map_err(Errno::from)
}

fn note(attempt: Attempt, wanted: Completing, refused: Option<Errno>, grants: &mut Grants) {
    let features = &mut grants.features;
    match attempt.completing {
        Completing::Deferred => features.push(DEFERRED),
        Completing::Cooperative => features.push("COOP_TASKRUN"),
        Completing::Interrupting => {}
    }
    for (name, has) in [
        ("SINGLE_ISSUER", attempt.single_issuer),
        ("NO_SQARRAY", attempt.no_sqarray),
        ("SUBMIT_ALL", attempt.submit_all),
    ] {
        if has {
            features.push(name);
        }
    }
    if let Some(errno) = refused.filter(|_| attempt.completing < wanted) {
        grants.missing.push(format!("{wanted:?} completions: {errno}; a kernel from 6.1 on has them"));
    }
}

fn unavailable(errno: Errno) -> RingUnavailable {
    let hint = match errno.0 {
        libc::EPERM | libc::EACCES => match sysctl() {
            Some(value @ 1..) => format!(
                "the sysctl kernel.io_uring_disabled is {value}: set it to 0 (or, at 1, join the group of \
                 kernel.io_uring_group), or choose the thread-pool backend"
            ),
            _ => {
                "a seccomp profile or security module forbids it, as the default profile of common container \
                  engines does: allow io_uring_setup, io_uring_enter and io_uring_register, or choose the \
                  thread-pool backend"
                    .to_owned()
            }
        },
        libc::ENOSYS => {
            "the kernel is older than 5.11, built without it, or a seccomp profile hides it: choose the \
                         thread-pool backend"
                .to_owned()
        }
        libc::ENOMEM => {
            "no memory for the queues: raise the memlock limit (`ulimit -l`, `LimitMEMLOCK=`) or the \
                         control group's memory limit, or lower the depth"
                .to_owned()
        }
        libc::EMFILE | libc::ENFILE => "too many open files: raise the limit (`ulimit -n`)".to_owned(),
        _ => "choose the thread-pool backend".to_owned(),
    };
    RingUnavailable { errno, hint }
}

pub(super) fn unavailable_because(errno: Errno) -> RingUnavailable {
    unavailable(errno)
}

fn sysctl() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

/// Bounds the kernel threads that syncs and other blocking operations of this ring run on.
pub(super) fn bound_workers(ring: &IoUring, grants: &mut Grants) {
    match ring.submitter().register_iowq_max_workers(&mut [IO_WORKERS_MAX, IO_WORKERS_MAX]) {
        Ok(()) => grants.features.push("bounded workers"),
        Err(error) => grants.missing.push(format!(
            "bounded workers: {}; a kernel from 5.15 on can bound the threads that run syncs",
            Errno::from(error)
        )),
    }
}

/// Registers the files, so that an operation need not look them up, with places for devices that come later.
pub(super) fn fix_files(ring: &IoUring, fds: &[i32], grants: &mut Grants) -> bool {
    let mut places = [-1; DEVICES_MAX as usize];
    fds.iter().zip(&mut places).for_each(|(fd, place)| *place = *fd);
    match ring.submitter().register_files(&places) {
        Ok(()) => {
            grants.features.push("fixed files");
            true
        }
        Err(error) => {
            let errno = Errno::from(error);
            grants.missing.push(format!("fixed files: {errno}; raise the limit of open files (`ulimit -n`)"));
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_says_what_to_do() {
        for errno in [libc::EPERM, libc::ENOSYS, libc::ENOMEM, libc::EMFILE, libc::EINVAL] {
            let text = unavailable(Errno(errno)).to_string();
            assert!(text.contains("choose") || text.contains("raise"), "{text}");
        }
    }

    /// An ordinary user with 64 KiB of locked memory who closed a store and opened the next got no ring: the kernel
    /// still counted the old one.
    #[test]
    fn memory_that_comes_back_late_is_waited_for_and_no_longer_than_the_bound() {
        for (refusals, errno, expected_tries, expected) in [
            (0, libc::ENOMEM, 1, Ok(())),
            (5, libc::ENOMEM, 6, Ok(())),
            (1, libc::EPERM, 1, Err(Errno(libc::EPERM))),
            (u32::MAX, libc::ENOMEM, 30, Err(Errno(libc::ENOMEM))),
        ] {
            let (mut tries, mut slept) = (0, Duration::ZERO);
            let made = while_short_of_memory(
                |pause| slept += pause,
                || {
                    tries += 1;
                    if tries > refusals { Ok(()) } else { Err(Errno(errno)) }
                },
            );
            assert_eq!((made, tries), (expected, expected_tries));
            assert!(slept <= Duration::from_millis(IO_MEMORY_WAIT_MS_MAX));
            assert_eq!(slept.is_zero(), expected_tries == 1);
        }
    }
}
