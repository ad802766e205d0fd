//! Does this kernel give us a ring, and with the flags that make it cheap?

use std::io;

use io_uring::{IoUring, Probe, opcode};
use nix::libc::{EACCES, ENOMEM, ENOSYS, EPERM};

use super::Finding;
use super::machine::Machine;
use crate::shard::RingFlags;

/// Entries of a core's ring.
const ENTRIES: u32 = 1024;

pub(super) fn check(machine: &Machine) -> Vec<Finding> {
    let switch = machine.text("proc/sys/kernel/io_uring_disabled");
    let plain = match IoUring::new(ENTRIES) {
        Ok(ring) => ring,
        Err(error) => return vec![refused(&error, switch.as_deref())],
    };
    let mut findings = vec![flags()];
    findings.extend(operations(&plain));
    if let Some("1") = switch.as_deref() {
        findings.push(Finding::ok("io_uring switch", "kernel.io_uring_disabled = 1, and this user may"));
    }
    findings
}

/// A ring as the cores build it.
fn flags() -> Finding {
    let (missing, costs) = match RingFlags::detect() {
        Ok(RingFlags::Deferred) => {
            return Finding::ok("io_uring", "allowed, with SINGLE_ISSUER and DEFER_TASKRUN");
        }
        Ok(RingFlags::Cooperative) => ("DEFER_TASKRUN (it has COOP_TASKRUN)", "a twentieth"),
        Ok(RingFlags::Plain) => ("SINGLE_ISSUER, DEFER_TASKRUN or COOP_TASKRUN", "a quarter to a half"),
        Err(error) => return refused(&error, None),
    };
    Finding::warn(
        "io_uring",
        format!("allowed, but without {missing}"),
        format!("SINGLE_ISSUER and DEFER_TASKRUN: without them a webhook costs {costs} more CPU"),
        "use Linux 6.1 or later",
    )
}

fn operations(ring: &IoUring) -> Option<Finding> {
    let mut probe = Probe::new();
    if let Err(error) = ring.submitter().register_probe(&mut probe) {
        return Some(Finding::warn(
            "io_uring calls",
            format!("cannot be asked for: {error}"),
            "a kernel that says which calls it has",
            "use Linux 6.1 or later",
        ));
    }
    let needed = [
        ("accept", opcode::Accept::CODE),
        ("connect", opcode::Connect::CODE),
        ("recv", opcode::Recv::CODE),
        ("send", opcode::Send::CODE),
        ("poll", opcode::PollAdd::CODE),
        ("read", opcode::Read::CODE),
        ("write", opcode::Write::CODE),
        ("fsync", opcode::Fsync::CODE),
        ("close", opcode::Close::CODE),
        ("cancel", opcode::AsyncCancel::CODE),
    ];
    let missing: Vec<_> =
        needed.iter().filter(|(_, code)| !probe.is_supported(*code)).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        return None;
    }
    Some(Finding::bad(
        "io_uring calls",
        format!("this kernel lacks {}", missing.join(", ")),
        "all calls that the cores make",
        "use Linux 6.1 or later",
    ))
}

fn refused(error: &io::Error, switch: Option<&str>) -> Finding {
    let (found, remedy) = match (error.raw_os_error(), switch) {
        (_, Some("2")) => (
            "switched off for everyone: kernel.io_uring_disabled = 2".to_owned(),
            "sysctl kernel.io_uring_disabled=0, or 1 with the gateway's group in kernel.io_uring_group",
        ),
        (Some(EPERM | EACCES), Some("1")) => (
            "not allowed for this user: kernel.io_uring_disabled = 1".to_owned(),
            "put the gateway's group into kernel.io_uring_group (sysctl, a group number)",
        ),
        (Some(EPERM | EACCES), _) => (
            "refused by a seccomp profile or a security module".to_owned(),
            "Docker and containerd refuse it by default: use a profile that allows io_uring_setup, \
             io_uring_enter and io_uring_register (--security-opt seccomp=FILE)",
        ),
        (Some(ENOMEM), _) => (
            "no memory that may be locked is left (RLIMIT_MEMLOCK)".to_owned(),
            "LimitMEMLOCK=infinity in the unit, or --ulimit memlock=-1",
        ),
        (Some(ENOSYS), _) => (
            "not in this kernel, or hidden by a sandbox (gVisor has none)".to_owned(),
            "use Linux 6.1 or later, without the sandbox",
        ),
        _ => (format!("cannot be set up: {error}"), "use Linux 6.1 or later"),
    };
    Finding::bad(
        "io_uring",
        found,
        "rings for this user: the gateway has no other way to its sockets and disk",
        remedy,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_names_who_refuses() {
        let check = |errno: i32, switch: Option<&str>, expected: &str| {
            let finding = refused(&io::Error::from_raw_os_error(errno), switch);
            assert!(finding.found.contains(expected), "{finding:?}");
            assert!(!finding.remedy.is_empty());
        };
        check(EPERM, Some("2"), "switched off for everyone");
        check(EPERM, Some("1"), "for this user");
        check(EPERM, Some("0"), "seccomp");
        check(EPERM, None, "seccomp");
        check(ENOMEM, Some("0"), "RLIMIT_MEMLOCK");
        check(ENOSYS, None, "not in this kernel");
        check(22, None, "cannot be set up");
    }
}
