//! Where a process's CPU time went, and which CPU a thread may use.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Context;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Nanoseconds of a tick in `/proc/<pid>/stat`: USER_HZ is 100.
const TICK_NS: u64 = 10_000_000;

/// Lets the calling thread run on `cpu` only.
pub fn pin(cpu: usize) -> anyhow::Result<()> {
    pin_to(&[cpu])
}

/// Lets the calling thread run on any of `cpus`, and on no other.
pub fn pin_to(cpus: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    cpus.iter()
        .try_for_each(|cpu| set.set(*cpu))
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .with_context(|| format!("pin to CPUs {cpus:?}"))
}

/// Nanoseconds of CPU time so far.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// By thread name without its number: `ingest`, `forward`, ... A kernel worker of a ring counts for the
    /// thread that the ring belongs to.
    pub threads: BTreeMap<String, u64>,
    /// All threads, those that have ended too; in steps of 10 ms.
    pub process: u64,
    /// Times that a thread went to sleep.
    pub sleeps: u64,
}

impl Usage {
    /// Of a process and of all that it has started.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let mut usage = Self::of_one(pid)?;
        for child in descendants(pid) {
            // One may end meanwhile.
            let Ok(of_child) = Self::of_one(child) else { continue };
            for (name, busy) in of_child.threads {
                *usage.threads.entry(name).or_default() += busy;
            }
            usage.process += of_child.process;
            usage.sleeps += of_child.sleeps;
        }
        Ok(usage)
    }

    fn of_one(pid: u32) -> anyhow::Result<Self> {
        let mut tasks = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{pid}/task")).context("read the server's threads")? {
            let task = task?.path();
            // A thread may end between the listing and the reading.
            let (Ok(name), Ok(times)) =
                (fs::read_to_string(task.join("comm")), fs::read_to_string(task.join("schedstat")))
            else {
                continue;
            };
            let sleeps = fs::read_to_string(task.join("status")).ok().and_then(|status| {
                status.lines().find_map(|line| {
                    line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok()
                })
            });
            let busy: u64 = times.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
            let id = task.file_name().map(|id| id.to_string_lossy().into_owned()).unwrap_or_default();
            tasks.insert(id, (name.trim().to_owned(), busy, sleeps.unwrap_or(0)));
        }
        let mut usage = Self { process: process_ns(pid)?, ..Self::default() };
        for (name, busy, sleeps) in tasks.values() {
            let owner = name.strip_prefix("iou-wrk-").and_then(|id| Some(&tasks.get(id)?.0)).unwrap_or(name);
            let kind = owner.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
            *usage.threads.entry(kind.to_owned()).or_default() += busy;
            usage.sleeps += sleeps;
        }
        Ok(usage)
    }

    /// What was used since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |name: &str| earlier.threads.get(name).copied().unwrap_or(0);
        Self {
            threads: self
                .threads
                .iter()
                .map(|(name, ns)| (name.clone(), ns.saturating_sub(before(name))))
                .collect(),
            process: self.process.saturating_sub(earlier.process),
            sleeps: self.sleeps.saturating_sub(earlier.sleeps),
        }
    }

    pub fn thread(&self, name: &str) -> u64 {
        self.threads.get(name).copied().unwrap_or(0)
    }

    /// The finer of the two readings: the steps of the process's own can hide up to 20 ms.
    pub fn all(&self) -> u64 {
        let threads: u64 = self.threads.values().sum();
        if self.process > threads + 2 * TICK_NS { self.process } else { threads }
    }
}

/// All processes that `pid` has started, and those that they have, and so on.
pub fn descendants(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let parent_of = |pid: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let all: Vec<(u32, u32)> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, parent_of(pid)?)))
        .collect();
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(all.iter().filter(|(_, of)| *of == parent).map(|(child, _)| *child));
        at += 1;
    }
    found.split_off(1)
}

fn process_ns(pid: u32) -> anyhow::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .context("read the server's CPU time: it has ended")?;
    // The name may hold blanks; user and system time are the 12th and 13th field after it.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let ticks =
        |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).context("read /proc/<pid>/stat");
    Ok((ticks(11)? + ticks(12)?) * TICK_NS)
}

/// CPU time that the hypervisor gave to others, and all, since boot; in ticks.
#[derive(Debug, Clone, Copy)]
pub struct Steal {
    stolen: u64,
    total: u64,
}

impl Steal {
    pub fn now() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let ticks: Vec<u64> =
            stat.lines().next().unwrap_or("").split(' ').filter_map(|text| text.parse().ok()).collect();
        Self { stolen: ticks.get(7).copied().unwrap_or(0), total: ticks.iter().take(8).sum() }
    }

    /// Percent of all CPU time from then until now.
    pub fn percent_since(self) -> f64 {
        let now = Self::now();
        let total = now.total.saturating_sub(self.total).max(1);
        now.stolen.saturating_sub(self.stolen) as f64 / total as f64 * 100.0
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn children_of_children_are_found() {
        let mut shell =
            std::process::Command::new("sh").args(["-c", "sh -c 'sleep 5; true' & wait"]).spawn().unwrap();
        let start = Instant::now();
        while descendants(shell.id()).len() < 2 && start.elapsed() < Duration::from_secs(4) {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(descendants(shell.id()).len(), 2);
        assert!(descendants(std::process::id()).contains(&shell.id()));
        shell.kill().unwrap();
        shell.wait().unwrap();
    }

    #[test]
    fn busy_thread_is_found_under_its_name() {
        let pid = std::process::id();
        let before = Usage::of(pid).unwrap();
        let (busy, used) = std::sync::mpsc::channel();
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("busy-7".into()).spawn(move || {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(300) {
                std::hint::spin_loop();
            }
            busy.send(()).unwrap();
            wait.recv().unwrap_err();
        });
        used.recv().unwrap();
        let usage = Usage::of(pid).unwrap().since(&before);
        drop(done);
        thread.unwrap().join().unwrap();
        assert!(usage.thread("busy") > 1_000_000, "{usage:?}");
        assert!(usage.all() >= usage.thread("busy"), "{usage:?}");
    }
}
