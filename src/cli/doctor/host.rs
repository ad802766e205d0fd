//! Kernel, limits, clock, CPUs and network settings: what can be read without touching anything.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::unistd::Pid;

use super::{Finding, read_line};

/// Locked memory of one ring with 1,024 entries; 8 MiB were measured to hold 78 of them.
const RING_BYTES: u64 = 108 << 10;
/// Descriptors besides connections: rings, journals, regions' connections.
const OTHER_FILES: u64 = 4096;

pub(super) fn kernel() -> Finding {
    let release = read_line("/proc/sys/kernel/osrelease").unwrap_or_default();
    judge_kernel(&release)
}

fn judge_kernel(release: &str) -> Finding {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Finding::warn(
            "kernel",
            format!("version \"{release}\" cannot be read"),
            "use Linux 6.1 or later",
        );
    };
    let found = format!("Linux {release}");
    match (major, minor) {
        (..=4, _) | (5, ..=5) => {
            Finding::bad("kernel", found, "use Linux 6.1 or later: this one lacks the io_uring calls")
        }
        (5, _) | (6, 0) => {
            Finding::warn("kernel", found, "use Linux 6.1 or later: earlier rings cost a quarter more CPU")
        }
        _ => Finding::ok("kernel", found),
    }
}

pub(super) fn limits(connections: u64) -> Vec<Finding> {
    let cpus = sched_getaffinity(Pid::from_raw(0)).map_or(1, |set| members(&set).len() as u64);
    // One ring per core, and again as much while a restart overlaps: the limit counts per user.
    let locked = 2 * (cpus + 1) * RING_BYTES;
    let limit = |resource| getrlimit(resource).map_or(0, |(soft, _)| soft);
    vec![
        judge_limit(
            "locked memory",
            limit(Resource::RLIMIT_MEMLOCK),
            locked,
            "LimitMEMLOCK=infinity in the unit, --ulimit memlock=-1 for a container",
        ),
        judge_limit(
            "open files",
            limit(Resource::RLIMIT_NOFILE),
            connections + OTHER_FILES,
            "LimitNOFILE=1048576 in the unit, --ulimit nofile=1048576 for a container, or fewer listen.limits.connections",
        ),
    ]
}

fn judge_limit(subject: &'static str, limit: u64, needed: u64, remedy: &str) -> Finding {
    if limit == RLIM_INFINITY {
        Finding::ok(subject, "no limit")
    } else if limit < needed {
        Finding::warn(subject, format!("limit {limit}, needed about {needed}"), remedy)
    } else {
        Finding::ok(subject, format!("limit {limit}, needed about {needed}"))
    }
}

pub(super) fn clock() -> Vec<Finding> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut findings = vec![judge_clock(now, is_synchronised())];
    if let Some(source) = read_line("/sys/devices/system/clocksource/clocksource0/current_clocksource") {
        findings.push(match source.as_str() {
            "hpet" | "acpi_pm" | "jiffies" | "refined-jiffies" | "xen" => Finding::warn(
                "clock source",
                format!("{source}: a clock reading is a system call"),
                "boot with clocksource=tsc if the CPU's counter is stable",
            ),
            _ => Finding::ok("clock source", source),
        });
    }
    findings
}

/// What systemd knows; `None` where it is not there to be asked.
fn is_synchronised() -> Option<bool> {
    let answer =
        Command::new("timedatectl").args(["show", "--property=NTPSynchronized", "--value"]).output().ok()?;
    match answer.stdout.trim_ascii() {
        b"yes" => Some(true),
        b"no" => Some(false),
        _ => None,
    }
}

fn judge_clock(now: u64, synchronised: Option<bool>) -> Finding {
    /// 2026-01-01, before the first release, and 2100-01-01.
    const PLAUSIBLE: std::ops::Range<u64> = 1_767_225_600..4_102_444_800;
    let remedy =
        "run chrony or systemd-timesyncd: time stamps in the archive and on parcels come from this clock";
    match synchronised {
        _ if !PLAUSIBLE.contains(&now) => {
            Finding::bad("clock", format!("says {now} s since 1970, which cannot be"), remedy)
        }
        Some(true) => Finding::ok("clock", "synchronised"),
        Some(false) => Finding::warn("clock", "not synchronised", remedy),
        None => Finding::ok(
            "clock",
            "plausible; whether it is synchronised cannot be asked here (no timedatectl)",
        ),
    }
}

pub(super) fn cpus() -> Vec<Finding> {
    let mut findings = Vec::new();
    let online = read_line("/sys/devices/system/cpu/online").unwrap_or_else(|| "unknown".into());
    match sched_getaffinity(Pid::from_raw(0)) {
        Ok(set) => {
            let ours = members(&set);
            let found = format!("{} usable, online {online}", ours.len());
            findings.push(match ours.len() {
                1 => {
                    Finding::warn("CPUs", found, "with one CPU ingest and forwarding take turns; give it two")
                }
                _ => Finding::ok("CPUs", found),
            });
            findings.extend(quota(ours.len()));
            findings.extend(governors(&ours));
        }
        Err(error) => {
            findings.push(Finding::warn("CPUs", format!("cannot be asked for: {error}"), "check the sandbox"))
        }
    }
    findings
}

fn members(set: &CpuSet) -> BTreeSet<usize> {
    (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect()
}

/// A container's share of CPU time: when it is used up, all threads stand still until the next period.
fn quota(cpus: usize) -> Option<Finding> {
    let own = read_line("/proc/self/cgroup")?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let max = read_line(format!("/sys/fs/cgroup{path}/cpu.max"))?;
    judge_quota(&max, cpus)
}

fn judge_quota(max: &str, cpus: usize) -> Option<Finding> {
    let (quota, period) = max.split_once(' ')?;
    let share = quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?;
    (share < cpus as f64).then(|| {
        Finding::warn(
            "CPU quota",
            format!("{share:.1} CPUs of time on {cpus} CPUs"),
            "all cores stop when it is used up: pin the container to whole CPUs (cpuset) and lift the quota",
        )
    })
}

fn governors(cpus: &BTreeSet<usize>) -> Option<Finding> {
    let found: BTreeSet<String> = cpus
        .iter()
        .filter_map(|cpu| read_line(format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor")))
        .collect();
    let names: Vec<&str> = found.iter().map(String::as_str).collect();
    match names.as_slice() {
        // A virtual machine has none: its host decides.
        [] => None,
        ["performance"] => Some(Finding::ok("CPU governor", "performance")),
        _ => Some(Finding::warn(
            "CPU governor",
            names.join(", "),
            "cpupower frequency-set -g performance: a core that clocks up late answers late",
        )),
    }
}

pub(super) fn network() -> Vec<Finding> {
    let backlog = read_line("/proc/sys/net/core/somaxconn").and_then(|text| text.parse::<u64>().ok());
    let ports = read_line("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let ports: Vec<u64> = ports.split_whitespace().filter_map(|port| port.parse().ok()).collect();
    let mut findings = Vec::new();
    if let Some(backlog) = backlog {
        findings.push(if backlog < 1024 {
            let remedy = "sysctl net.core.somaxconn=4096: a burst of connections waits for accept there";
            Finding::warn("accept backlog", format!("net.core.somaxconn = {backlog}"), remedy)
        } else {
            Finding::ok("accept backlog", format!("net.core.somaxconn = {backlog}"))
        });
    }
    if let [first, last] = ports[..] {
        let count = last.saturating_sub(first) + 1;
        findings.push(if count < 16_384 {
            let remedy =
                "sysctl net.ipv4.ip_local_port_range=\"10240 65535\": every connection to a region needs one";
            Finding::warn("local ports", format!("{count} to connect from"), remedy)
        } else {
            Finding::ok("local ports", format!("{count} to connect from"))
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn kernel_is_judged_by_its_first_two_numbers() {
        let check = |release: &str, level: Level| assert_eq!(judge_kernel(release).level, level, "{release}");
        check("4.19.0-27-amd64", Level::Bad);
        check("5.4.0", Level::Bad);
        check("5.15.0-91-generic", Level::Warn);
        check("6.0.12", Level::Warn);
        check("6.1.0-18-amd64", Level::Ok);
        check("6.18.44-fc-v657", Level::Ok);
        check("10.0", Level::Ok);
        check("", Level::Warn);
    }

    #[test]
    fn limit_is_judged_against_the_need() {
        let check = |limit, level| assert_eq!(judge_limit("x", limit, 1000, "raise").level, level, "{limit}");
        check(999, Level::Warn);
        check(1000, Level::Ok);
        check(RLIM_INFINITY, Level::Ok);
    }

    #[test]
    fn clock_is_judged_by_its_year_and_its_keeper() {
        let check =
            |now, synchronised, level| assert_eq!(judge_clock(now, synchronised).level, level, "{now}");
        check(1_790_000_000, Some(true), Level::Ok);
        check(1_790_000_000, Some(false), Level::Warn);
        check(1_790_000_000, None, Level::Ok);
        check(0, Some(true), Level::Bad);
        check(5_000_000_000, Some(true), Level::Bad);
    }

    #[test]
    fn quota_below_the_cpus_is_found() {
        let check = |max: &str, found: bool| assert_eq!(judge_quota(max, 2).is_some(), found, "{max}");
        check("max 100000", false);
        check("200000 100000", false);
        check("150000 100000", true);
        check("", false);
    }
}
