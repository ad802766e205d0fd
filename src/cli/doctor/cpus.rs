//! CPUs: how many, how much of them, how fast they wake, and whether what works together lies together.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::machine::{Machine, as_list, number_list};
use super::{Finding, Subject};

pub(super) fn check(machine: &Machine, subject: &Subject) -> Vec<Finding> {
    let mut findings = vec![usable(machine)];
    findings.extend(quota(machine));
    findings.extend(governors(machine));
    findings.extend(nodes(machine, subject));
    findings
}

fn usable(machine: &Machine) -> Finding {
    let ours = machine.cpus();
    let online = machine.text("sys/devices/system/cpu/online").unwrap_or_else(|| "unknown".into());
    let found = format!("{} usable, online {online}", ours.len());
    if ours.len() > 1 {
        return Finding::ok("CPUs", found);
    }
    let expected = "two or more: ingest and forwarding take turns on one";
    Finding::warn(
        "CPUs",
        found,
        expected,
        "lift the affinity (CPUAffinity=, cpuset) or take a larger machine",
    )
}

/// A container's share of CPU time: when it is used up, all threads stand still until the next period.
fn quota(machine: &Machine) -> Option<Finding> {
    let max = machine.control_group("cpu.max")?;
    let (quota, period) = max.split_once(' ')?;
    let share = quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?;
    let cpus = machine.cpus().len();
    (share < cpus as f64).then(|| {
        Finding::warn(
            "CPU quota",
            format!("{share:.1} CPUs of time on {cpus} CPUs"),
            "no quota below the CPUs: all cores stop when it is used up",
            "pin the container to whole CPUs (cpuset) and lift the quota",
        )
    })
}

fn governors(machine: &Machine) -> Option<Finding> {
    let path = |cpu| format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
    let found: BTreeSet<String> = machine.cpus().iter().filter_map(|cpu| machine.text(path(*cpu))).collect();
    let names: Vec<&str> = found.iter().map(String::as_str).collect();
    match names.as_slice() {
        // A virtual machine has none: its host decides.
        [] => None,
        ["performance"] => Some(Finding::ok("CPU governor", "performance")),
        _ => Some(Finding::warn(
            "CPU governor",
            names.join(", "),
            "performance: a core that clocks up late answers late",
            "cpupower frequency-set -g performance",
        )),
    }
}

/// Whether cores, disk and network cards hang on one NUMA node; nothing where there is only one.
fn nodes(machine: &Machine, subject: &Subject) -> Vec<Finding> {
    let mut cpus_of = BTreeMap::new();
    for name in machine.names("sys/devices/system/node") {
        if let Some(node) = name.strip_prefix("node").and_then(|number| number.parse::<usize>().ok()) {
            let list = machine.text(format!("sys/devices/system/node/{name}/cpulist")).unwrap_or_default();
            cpus_of.insert(node, number_list(&list));
        }
    }
    if cpus_of.len() < 2 {
        return Vec::new();
    }
    let cores = subject.pinned(machine);
    let node_of = |cpu: &usize| cpus_of.iter().find(|(_, list)| list.contains(cpu)).map(|(node, _)| *node);
    let on: BTreeSet<usize> = cores.iter().filter_map(node_of).collect();
    let mut devices: Vec<(String, usize)> = Vec::new();
    if let Some((disk, node)) = disk_of(machine, &subject.data_dir) {
        devices.push((format!("disk {disk}"), node));
    }
    devices.extend(
        machine
            .cards()
            .iter()
            .filter_map(|(name, device)| Some((format!("card {name}"), machine.node_of(device)?))),
    );
    // Where the webhooks come in is where the cores belong; else where most of them are.
    let home = devices.last().map(|(_, node)| *node).or_else(|| on.first().copied()).unwrap_or_default();
    let near = cpus_of.get(&home).map(|list| as_list(list)).unwrap_or_default();
    let remedy = format!("choose [cores] ingest and forward from CPUs {near} (node {home})");
    let mut findings = Vec::new();
    if on.len() > 1 {
        findings.push(Finding::warn(
            "NUMA",
            format!("cores on nodes {}", as_list(&on.iter().copied().collect::<Vec<_>>())),
            "all on one: what one core hands to another crosses the link between the nodes",
            &remedy,
        ));
    }
    for (device, node) in &devices {
        if on.len() == 1 && !on.contains(node) {
            let found = format!(
                "{device} on node {node}, cores on node {}",
                as_list(&[*on.iter().min().unwrap_or(&0)])
            );
            findings.push(Finding::warn("NUMA", found, "both on one node", &remedy));
        }
    }
    if findings.is_empty() {
        let names: Vec<_> = devices.iter().map(|(name, _)| name.as_str()).collect();
        findings.push(Finding::ok("NUMA", format!("cores on node {home}, as {}", or_none(&names))));
    }
    if machine.number("proc/sys/kernel/numa_balancing").is_some_and(|on| on != 0) {
        findings.push(Finding::warn(
            "NUMA balancing",
            "on",
            "off: it takes pages away from pinned threads to see who misses them",
            "sysctl kernel.numa_balancing=0",
        ));
    }
    findings
}

fn or_none(names: &[&str]) -> String {
    if names.is_empty() { "no device says otherwise".to_owned() } else { names.join(", ") }
}

/// The disk under the data folder and its node. Of several disks in one volume the first.
fn disk_of(machine: &Machine, folder: &Path) -> Option<(String, usize)> {
    let number = std::fs::metadata(folder).ok()?.dev();
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let mut device: PathBuf = machine.device(format!("sys/dev/block/{major}:{minor}"))?;
    // A volume has no place of its own: it lies where its parts do.
    for _ in 0..8 {
        let parts = std::fs::read_dir(device.join("slaves")).into_iter().flatten().flatten();
        let Some(part) = parts.map(|part| part.path()).min() else { break };
        device = part.canonicalize().ok()?;
    }
    let name = device.file_name()?.to_str()?.to_owned();
    Some((name, machine.node_of(&device)?))
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::super::machine::fake;
    use super::*;

    const BOTH: (&str, &str) = ("proc/self/status", "Cpus_allowed_list:\t0-3\n");

    #[test]
    fn one_cpu_is_few() {
        let (_folder, machine) = fake(&[("proc/self/status", "Cpus_allowed_list:\t3\n")]);
        assert_eq!(usable(&machine).level, Level::Warn);
        let (_folder, machine) = fake(&[BOTH, ("sys/devices/system/cpu/online", "0-7\n")]);
        assert_eq!(
            (usable(&machine).level, usable(&machine).found.as_str()),
            (Level::Ok, "4 usable, online 0-7")
        );
    }

    #[test]
    fn quota_below_the_cpus_is_found() {
        let check = |max: &str, found: bool| {
            let group = ("proc/self/cgroup", "0::/\n");
            let (_folder, machine) = fake(&[BOTH, group, ("sys/fs/cgroup/cpu.max", max)]);
            assert_eq!(quota(&machine).is_some(), found, "{max}");
        };
        check("max 100000", false);
        check("400000 100000", false);
        check("350000 100000", true);
        check("", false);
    }

    #[test]
    fn governor_that_saves_power_is_found() {
        let check = |names: &[&str], level: Option<Level>| {
            let paths: Vec<_> = (0..names.len())
                .map(|cpu| format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"))
                .collect();
            let mut files = vec![BOTH];
            files.extend(paths.iter().map(String::as_str).zip(names.iter().copied()));
            let (_folder, machine) = fake(&files);
            assert_eq!(governors(&machine).map(|finding| finding.level), level, "{names:?}");
        };
        check(&[], None);
        check(&["performance", "performance"], Some(Level::Ok));
        check(&["performance", "powersave"], Some(Level::Warn));
    }

    /// Two nodes, a card on node 1 and a disk on node 0.
    fn found(ingest: &[usize], forward: &[usize], more: &[(&str, &str)]) -> Vec<(Level, String, String)> {
        let data = tempfile::tempdir().unwrap();
        let number = std::fs::metadata(data.path()).unwrap().dev();
        let link =
            format!("sys/dev/block/{}:{}->", nix::sys::stat::major(number), nix::sys::stat::minor(number));
        let mut files = vec![
            BOTH,
            ("sys/devices/system/node/node0/cpulist", "0-1\n"),
            ("sys/devices/system/node/node1/cpulist", "2-3\n"),
            ("sys/class/net/eth0/device->", "sys/devices/pci1/card"),
            ("sys/devices/pci1/card/numa_node", "1\n"),
        ];
        files.extend(
            more.iter().map(|(path, text)| (if *path == "disk->" { link.as_str() } else { *path }, *text)),
        );
        let (_folder, machine) = fake(&files);
        let subject = Subject {
            data_dir: data.path().to_owned(),
            ingest: ingest.to_vec(),
            forward: forward.to_vec(),
            ..Subject::default()
        };
        let findings = nodes(&machine, &subject);
        findings.into_iter().map(|finding| (finding.level, finding.found, finding.remedy)).collect()
    }

    #[test]
    fn cores_away_from_each_other_or_from_their_devices_are_found() {
        let check =
            |ingest: &[usize], forward: &[usize], more: &[(&str, &str)], expected: &[(Level, &str)]| {
                let all = found(ingest, forward, more);
                let short: Vec<_> = all.iter().map(|(level, found, _)| (*level, found.as_str())).collect();
                assert_eq!(short, expected, "{all:?}");
                assert!(all.iter().all(|(level, _, remedy)| *level == Level::Ok || !remedy.is_empty()));
            };
        check(&[2], &[3], &[], &[(Level::Ok, "cores on node 1, as card eth0")]);
        check(&[1, 2], &[3], &[], &[(Level::Warn, "cores on nodes 0-1")]);
        check(&[0], &[1], &[], &[(Level::Warn, "card eth0 on node 1, cores on node 0")]);
        let volume = [
            ("disk->", "sys/devices/virtual/block/dm-0"),
            ("sys/devices/virtual/block/dm-0/slaves/nvme0n1->", "sys/devices/pci0/nvme0n1"),
            ("sys/devices/pci0/numa_node", "0\n"),
        ];
        check(&[2], &[3], &volume, &[(Level::Warn, "disk nvme0n1 on node 0, cores on node 1")]);
        let balancing = [("proc/sys/kernel/numa_balancing", "1\n")];
        check(&[2], &[3], &balancing, &[(Level::Ok, "cores on node 1, as card eth0"), (Level::Warn, "on")]);
        assert!(found(&[0], &[1], &[])[0].2.contains("CPUs 2-3"), "the remedy names the card's CPUs");
    }

    #[test]
    fn machine_with_one_node_has_nothing_to_say_about_nodes() {
        let (_folder, machine) = fake(&[BOTH, ("sys/devices/system/node/node0/cpulist", "0-3\n")]);
        assert!(nodes(&machine, &Subject::default()).is_empty());
    }
}
