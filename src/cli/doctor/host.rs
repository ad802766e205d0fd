//! Kernel, limits and clock.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use super::machine::Machine;
use super::{Finding, Subject};

/// Locked memory of one ring with 1,024 entries; 8 MiB were measured to hold 78 of them.
const RING_BYTES: u64 = 108 << 10;
/// Descriptors besides connections: rings, journals, regions' connections.
const OTHER_FILES: u64 = 4096;

pub(super) fn kernel(machine: &Machine) -> Finding {
    let release = machine.text("proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Finding::warn(
            "kernel",
            format!("version \"{release}\""),
            "Linux 6.1 or later",
            "look at uname -r",
        );
    };
    let found = format!("Linux {release}");
    match (major, minor) {
        (..=4, _) | (5, ..=5) => Finding::bad(
            "kernel",
            found,
            "Linux 6.1 or later: this one lacks the io_uring calls",
            "install a later kernel",
        ),
        (5, _) | (6, 0) => Finding::warn(
            "kernel",
            found,
            "Linux 6.1 or later: earlier rings cost a quarter more CPU",
            "install a later kernel",
        ),
        _ => Finding::ok("kernel", found),
    }
}

pub(super) fn limits(machine: &Machine, subject: &Subject) -> Vec<Finding> {
    let limit = |name| limit(&machine.text("proc/self/limits").unwrap_or_default(), name);
    // One ring per core and two for others, and again as much while a restart overlaps: the limit counts per user.
    let rings = 2 * (subject.pinned(machine).len() as u64 + 2);
    vec![
        judge_limit(
            "locked memory",
            limit("Max locked memory"),
            rings * RING_BYTES,
            "LimitMEMLOCK=infinity in the unit, --ulimit memlock=-1 for a container",
        ),
        judge_limit(
            "open files",
            // The gateway raises its soft limit to the hard one.
            limit("Max open files"),
            subject.connections + OTHER_FILES,
            "LimitNOFILE=1048576 in the unit, --ulimit nofile=1048576 for a container, or fewer listen.limits.connections",
        ),
    ]
}

/// A hard limit from `/proc/self/limits`; `None` = no limit. 0 if it is not there.
fn limit(limits: &str, name: &str) -> Option<u64> {
    let Some(line) = limits.lines().find_map(|line| line.strip_prefix(name)) else { return Some(0) };
    match line.split_whitespace().nth(1) {
        Some("unlimited") => None,
        hard => Some(hard.and_then(|hard| hard.parse().ok()).unwrap_or(0)),
    }
}

fn judge_limit(subject: &'static str, limit: Option<u64>, needed: u64, remedy: &str) -> Finding {
    match limit {
        None => Finding::ok(subject, "no limit"),
        Some(limit) if limit < needed => {
            Finding::warn(subject, format!("limit {limit}"), format!("about {needed}"), remedy)
        }
        Some(limit) => Finding::ok(subject, format!("limit {limit}, about {needed} needed")),
    }
}

pub(super) fn clock(machine: &Machine) -> Vec<Finding> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut findings = vec![judge_clock(now, is_synchronised(machine))];
    findings.extend(clock_source(machine));
    findings
}

fn clock_source(machine: &Machine) -> Option<Finding> {
    let source = machine.text("sys/devices/system/clocksource/clocksource0/current_clocksource")?;
    Some(match source.as_str() {
        "hpet" | "acpi_pm" | "jiffies" | "refined-jiffies" | "xen" => Finding::warn(
            "clock source",
            source,
            "tsc, or the hypervisor's own: with this one every reading is a system call",
            "boot with clocksource=tsc if the CPU's counter is stable",
        ),
        _ => Finding::ok("clock source", source),
    })
}

/// What systemd knows, also of other programs' work; `None` where it is not there to be asked.
fn is_synchronised(machine: &Machine) -> Option<bool> {
    if machine.path("run/systemd/timesync/synchronized").exists() {
        return Some(true);
    }
    if !machine.is_here() {
        return None;
    }
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
    let expected = "a synchronised clock: time stamps in the archive and on parcels come from it";
    let remedy = "run chrony or systemd-timesyncd";
    match synchronised {
        _ if !PLAUSIBLE.contains(&now) => {
            Finding::bad("clock", format!("{now} s since 1970, which cannot be"), expected, remedy)
        }
        Some(true) => Finding::ok("clock", "synchronised"),
        Some(false) => Finding::warn("clock", "not synchronised", expected, remedy),
        None => Finding::ok(
            "clock",
            "plausible; whether it is synchronised cannot be asked here (no timedatectl)",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::super::machine::fake;
    use super::*;

    #[test]
    fn kernel_is_judged_by_its_first_two_numbers() {
        let check = |release: &str, level: Level| {
            let (_folder, machine) = fake(&[("proc/sys/kernel/osrelease", release)]);
            assert_eq!(kernel(&machine).level, level, "{release}");
        };
        check("4.19.0-27-amd64", Level::Bad);
        check("5.4.0", Level::Bad);
        check("5.15.0-91-generic", Level::Warn);
        check("6.0.12", Level::Warn);
        check("6.1.0-18-amd64\n", Level::Ok);
        check("6.18.44-fc-v657", Level::Ok);
        check("10.0", Level::Ok);
        check("", Level::Warn);
    }

    #[test]
    fn hard_limits_are_judged_against_the_need() {
        let check = |files: &str, memory: &str, expected: [Level; 2]| {
            let limits = format!(
                "Limit                     Soft Limit           Hard Limit           Units     \n\
                 Max open files            1024                 {files}                files     \n\
                 Max locked memory         1                    {memory}              bytes     \n"
            );
            let (_folder, machine) =
                fake(&[("proc/self/limits", &limits), ("proc/self/status", "Cpus_allowed_list:\t0-1\n")]);
            let subject = Subject { connections: 1000, ..Subject::default() };
            let findings = super::limits(&machine, &subject);
            let found: Vec<_> = findings.iter().map(|finding| (finding.subject, finding.level)).collect();
            assert_eq!(found, [("locked memory", expected[0]), ("open files", expected[1])], "{findings:?}");
        };
        check("1048576", "unlimited", [Level::Ok, Level::Ok]);
        // Two cores: 8 rings of 108 KiB.
        check("5096", "884736", [Level::Ok, Level::Ok]);
        check("5095", "884735", [Level::Warn, Level::Warn]);
        check("nonsense", "0", [Level::Warn, Level::Warn]);
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
    fn keeper_of_the_clock_leaves_a_file() {
        let (_folder, machine) = fake(&[("run/systemd/timesync/synchronized", "")]);
        assert_eq!(is_synchronised(&machine), Some(true));
        let (_folder, machine) = fake(&[]);
        assert_eq!(is_synchronised(&machine), None, "not here, so nobody is asked");
    }

    #[test]
    fn clock_source_that_costs_a_system_call_is_found() {
        let check = |source: &str, level: Level| {
            let path = "sys/devices/system/clocksource/clocksource0/current_clocksource";
            let (_folder, machine) = fake(&[(path, source)]);
            assert_eq!(clock_source(&machine).unwrap().level, level, "{source}");
        };
        check("tsc\n", Level::Ok);
        check("kvm-clock\n", Level::Ok);
        check("hpet\n", Level::Warn);
        check("acpi_pm\n", Level::Warn);
    }
}
