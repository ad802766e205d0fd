//! Memory: pages that are too large, and pages that are on a disk.

use super::Finding;
use super::machine::Machine;

pub(super) fn check(machine: &Machine) -> Vec<Finding> {
    huge_pages(machine).into_iter().chain(swap(machine)).collect()
}

fn huge_pages(machine: &Machine) -> Option<Finding> {
    let text = machine.text("sys/kernel/mm/transparent_hugepage/enabled")?;
    // "always [madvise] never": the chosen one stands in brackets.
    let chosen = text.split(['[', ']']).nth(1)?.to_owned();
    if chosen != "always" {
        return Some(Finding::ok("huge pages", chosen));
    }
    Some(Finding::warn(
        "huge pages",
        chosen,
        "madvise or never: small buffers of many connections grow to 2 MiB pages, and making these can stall a core",
        "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled (transparent_hugepage=madvise at boot)",
    ))
}

fn swap(machine: &Machine) -> Option<Finding> {
    let total = machine.field("proc/meminfo", "SwapTotal")?;
    let kib: u64 = total.split(' ').next()?.parse().ok()?;
    if kib == 0 {
        return Some(Finding::ok("swap", "none"));
    }
    let found = format!("{:.1} GiB", kib as f64 / f64::from(1 << 20));
    if machine.control_group("memory.swap.max").as_deref() == Some("0") {
        return Some(Finding::ok("swap", format!("{found}, not for this control group")));
    }
    Some(Finding::warn(
        "swap",
        found,
        "none for the gateway: a core that waits for a page stands still, and secrets could reach the disk",
        "MemorySwapMax=0 in the unit, --memory-swap equal to --memory for a container, or swapoff -a",
    ))
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::super::machine::fake;
    use super::*;

    #[test]
    fn huge_pages_for_everything_are_found() {
        let check = |text: &str, level: Level| {
            let (_folder, machine) = fake(&[("sys/kernel/mm/transparent_hugepage/enabled", text)]);
            assert_eq!(huge_pages(&machine).unwrap().level, level, "{text}");
        };
        check("[always] madvise never\n", Level::Warn);
        check("always [madvise] never\n", Level::Ok);
        check("always madvise [never]\n", Level::Ok);
        assert!(check_none().is_empty(), "a kernel without them has nothing to say");
    }

    fn check_none() -> Vec<Finding> {
        let (_folder, machine) = fake(&[]);
        check(&machine)
    }

    #[test]
    fn swap_is_found_unless_the_control_group_has_none() {
        let check = |kib: &str, max: &str, level: Level| {
            let (_folder, machine) = fake(&[
                ("proc/meminfo", &format!("MemTotal: 1 kB\nSwapTotal:       {kib} kB\n")),
                ("proc/self/cgroup", "0::/a\n"),
                ("sys/fs/cgroup/a/memory.swap.max", max),
            ]);
            assert_eq!(swap(&machine).unwrap().level, level, "{kib} {max}");
        };
        check("0", "max", Level::Ok);
        check("2097152", "max", Level::Warn);
        check("2097152", "0", Level::Ok);
    }
}
