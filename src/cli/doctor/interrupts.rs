//! Which CPUs the network cards interrupt, held against those that the cores are pinned to.
//!
//! A core that also answers all of a card's interrupts takes fewer webhooks than its neighbours. Good
//! is either: one queue per ingest core, or the queues on CPUs that no core is pinned to.

use std::collections::BTreeMap;

use super::machine::{Machine, as_list, number_list};
use super::{Finding, Subject};

/// Below this many since boot nothing can be said.
const FEW: u64 = 10_000;
/// One CPU's part of a card's interrupts above which the others are spared at its cost.
const MOST: f64 = 0.6;

/// What one interrupt has done and may do.
struct Line {
    number: String,
    counts: Vec<u64>,
    /// CPUs that it may come to.
    allowed: Vec<usize>,
}

pub(super) fn check(machine: &Machine, subject: &Subject) -> Vec<Finding> {
    let Some(table) = machine.text("proc/interrupts") else { return Vec::new() };
    let (columns, counts) = parse(&table);
    let mut findings = Vec::new();
    for (card, device) in machine.cards() {
        let folder = machine.above(&device, "msi_irqs");
        let numbers = folder.map(|folder| machine.names(folder)).unwrap_or_default();
        let lines: Vec<Line> = numbers
            .into_iter()
            .filter_map(|number| {
                let counts = counts.get(&number)?.clone();
                let list = ["effective_affinity_list", "smp_affinity_list"].iter().find_map(|name| {
                    machine.text(format!("proc/irq/{number}/{name}")).filter(|text| !text.is_empty())
                });
                Some(Line { number, counts, allowed: number_list(&list.unwrap_or_default()) })
            })
            .filter(|line| line.counts.iter().sum::<u64>() > 0)
            .collect();
        if !lines.is_empty() {
            findings.push(judge(&card, &lines, &columns, machine, subject));
        }
    }
    findings
}

/// The CPUs of the columns, and each interrupt's counts.
fn parse(table: &str) -> (Vec<usize>, BTreeMap<String, Vec<u64>>) {
    let mut lines = table.lines();
    let head = lines.next().unwrap_or_default();
    let columns: Vec<usize> =
        head.split_whitespace().filter_map(|name| name.strip_prefix("CPU")?.parse().ok()).collect();
    let rows = lines.filter_map(|line| {
        let (number, rest) = line.trim_start().split_once(':')?;
        let counts =
            rest.split_whitespace().take(columns.len()).map_while(|count| count.parse().ok()).collect();
        Some((number.to_owned(), counts))
    });
    let rows = rows.collect();
    (columns, rows)
}

fn judge(card: &str, lines: &[Line], columns: &[usize], machine: &Machine, subject: &Subject) -> Finding {
    let mut by_cpu: BTreeMap<usize, u64> = BTreeMap::new();
    for line in lines {
        for (cpu, count) in columns.iter().zip(&line.counts) {
            *by_cpu.entry(*cpu).or_default() += count;
        }
    }
    let total: u64 = by_cpu.values().sum();
    let reached: Vec<usize> = by_cpu.iter().filter(|(_, count)| **count > 0).map(|(cpu, _)| *cpu).collect();
    let where_to = format!("{card}: {} queues to CPUs {}", lines.len(), as_list(&reached));
    let busiest = by_cpu.iter().max_by_key(|(_, count)| **count).map(|(cpu, count)| (*cpu, *count));
    let Some((cpu, count)) = busiest.filter(|_| total >= FEW) else {
        return Finding::ok("interrupts", format!("{where_to}, too few so far to judge"));
    };
    let share = count as f64 / total as f64;
    let pinned = subject.pinned(machine);
    let elsewhere: Vec<usize> = columns.iter().copied().filter(|cpu| !pinned.contains(cpu)).collect();
    let several = subject.ingest.len() > 1 || !elsewhere.is_empty();
    if share <= MOST || !pinned.contains(&cpu) || !several {
        return Finding::ok("interrupts", format!("{where_to}, CPU {cpu} takes {:.0} %", share * 100.0));
    }
    let targets = if subject.ingest.len() > 1 { &subject.ingest } else { &elsewhere };
    let remedy = if lines.len() == 1 {
        format!("ethtool -L {card} combined {} for more queues, then look again", targets.len())
    } else {
        let movable: Vec<_> = lines.iter().filter(|line| line.allowed.contains(&cpu)).collect();
        let numbers: Vec<_> = movable.iter().map(|line| line.number.as_str()).collect();
        format!(
            "stop irqbalance and spread interrupts {} over CPUs {}: echo CPU > /proc/irq/NUMBER/smp_affinity_list",
            numbers.join(", "),
            as_list(targets)
        )
    };
    Finding::warn(
        "interrupts",
        format!("{where_to}, CPU {cpu} takes {:.0} % and is a core's", share * 100.0),
        "one queue per ingest core, or the queues on CPUs that no core is pinned to",
        remedy,
    )
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::super::machine::fake;
    use super::*;

    fn found(table: &str, ingest: &[usize], forward: &[usize]) -> Vec<Finding> {
        let (_folder, machine) = fake(&[
            ("proc/interrupts", table),
            ("proc/irq/38/effective_affinity_list", "0\n"),
            ("proc/irq/39/effective_affinity_list", ""),
            ("proc/irq/39/smp_affinity_list", "0-3\n"),
            ("sys/class/net/eth0/device->", "sys/devices/pci0/card/virtio2"),
            ("sys/devices/pci0/card/msi_irqs/38", ""),
            ("sys/devices/pci0/card/msi_irqs/39", ""),
            ("sys/devices/pci0/card/msi_irqs/40", ""),
        ]);
        let subject = Subject { ingest: ingest.to_vec(), forward: forward.to_vec(), ..Subject::default() };
        check(&machine, &subject)
    }

    const HEAD: &str = "           CPU0       CPU1       CPU2       CPU3\n";

    #[test]
    fn core_that_answers_all_interrupts_is_found() {
        let table = format!(
            "{HEAD} 38:   900000  0 0 0  PCI-MSIX eth0-rx\n 39: 100 90000 0 0 PCI-MSIX eth0-tx\n 40: 0 0 0 0 config\nLOC: 1 2 3 4 x\n"
        );
        let findings = found(&table, &[0, 1], &[2]);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].level, Level::Warn, "{findings:?}");
        assert_eq!(findings[0].found, "eth0: 2 queues to CPUs 0-1, CPU 0 takes 91 % and is a core's");
        assert!(findings[0].remedy.contains("38, 39 over CPUs 0-1"), "{findings:?}");
        // One ingest core, CPU 3 free: there they belong.
        let findings = found(&table, &[0], &[1, 2]);
        assert!(findings[0].remedy.contains("over CPUs 3:"), "{findings:?}");
    }

    #[test]
    fn spread_few_or_elsewhere_is_well() {
        let check = |rows: &str, ingest: &[usize], forward: &[usize], text: &str| {
            let findings = found(&format!("{HEAD}{rows}"), ingest, forward);
            assert_eq!(findings[0].level, Level::Ok, "{findings:?}");
            assert!(findings[0].found.contains(text), "{findings:?}");
        };
        check("38: 50000 0 0 0 x\n39: 0 50000 0 0 x\n", &[0, 1], &[2, 3], "takes 50 %");
        check("38: 50 0 0 0 x\n", &[0, 1], &[2, 3], "too few");
        check("38: 50000 0 0 0 x\n", &[1, 2], &[3], "CPU 0 takes 100 %");
        // Nowhere else to go.
        check("38: 50000 0 0 0 x\n", &[0], &[1, 2, 3], "takes 100 %");
    }

    #[test]
    fn single_queue_asks_for_more_queues() {
        let findings = found(&format!("{HEAD}38: 50000 0 0 0 x\n"), &[0, 1], &[2, 3]);
        assert!(findings[0].remedy.contains("ethtool -L eth0 combined 2"), "{findings:?}");
    }
}
