//! Which CPUs the core threads run on. Pure, but for [`Cpus::of_this_process`].

use std::ops::RangeInclusive;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use super::Cores;

/// What this process may run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpus {
    /// CPUs by their number, ascending; never empty.
    pub allowed: Vec<usize>,
    /// How many of them the process may keep busy: a container's quota can be less.
    pub quota: usize,
}

impl Cpus {
    /// Asks the kernel: the CPU affinity, and the control group's quota.
    pub fn of_this_process() -> Self {
        let set = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
        let mut allowed: Vec<usize> =
            (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect();
        let quota = std::thread::available_parallelism().map_or(allowed.len(), usize::from).max(1);
        if allowed.is_empty() {
            // The mask does not fit or may not be read: number as many as there are.
            allowed = (0..quota).collect();
        }
        Self { quota: quota.min(allowed.len()), allowed }
    }
}

/// What `cores.ingest` or `cores.forward` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    Auto,
    Threads(usize),
    /// One thread on each of these.
    List(Vec<usize>),
}

/// Threads of one kind: more than any machine this runs on has CPUs for.
pub(super) const THREADS: RangeInclusive<usize> = 1..=256;
/// Highest number of a CPU that an affinity mask can name.
const CPU_MAX: usize = 1023;

impl Wish {
    /// Reads `"auto"` or a CPU list such as `"0-3,8"`. None if it is neither, or names a CPU twice.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == "auto" {
            return Some(Self::Auto);
        }
        let mut list = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            if first > last || last > CPU_MAX {
                return None;
            }
            list.extend(first..=last);
        }
        let mut once = list.clone();
        once.sort_unstable();
        once.dedup();
        (once.len() == list.len() && THREADS.contains(&list.len())).then_some(Self::List(list))
    }

    fn threads(&self) -> Option<usize> {
        match self {
            Self::Auto => None,
            Self::Threads(threads) => Some(*threads),
            Self::List(list) => Some(list.len()),
        }
    }

    fn list(&self) -> &[usize] {
        match self {
            Self::List(list) => list,
            _ => &[],
        }
    }
}

/// Places the threads. With `pin` every thread gets a CPU of its own as far as they go round, the
/// ingest threads first; the rest run where the kernel puts them.
pub(super) fn place(ingest: &Wish, forward: &Wish, pin: bool, cpus: &Cpus) -> Cores {
    let n = cpus.quota;
    // Delivering a webhook costs about half of what taking it does (one verification, one parse
    // and one disk write against one write and one read): one thread in three.
    let (ingests, forwards) = match (ingest.threads(), forward.threads()) {
        (Some(ingest), Some(forward)) => (ingest, forward),
        (Some(ingest), None) => (ingest, n.saturating_sub(ingest).max(1)),
        (None, Some(forward)) => (n.saturating_sub(forward).max(1), forward),
        (None, None) => {
            let forward = ((n + 1) / 3).max(1);
            (n.saturating_sub(forward).max(1), forward)
        }
    };
    let listed = [ingest.list(), forward.list()].concat();
    let mut free = cpus.allowed.iter().copied().filter(|cpu| !listed.contains(cpu));
    let mut seats = |wish: &Wish, threads: usize| match wish {
        _ if !pin => vec![None; threads],
        Wish::List(list) => list.iter().copied().map(Some).collect(),
        _ => (0..threads).map(|_| free.next()).collect(),
    };
    Cores { ingest: seats(ingest, ingests), forward: seats(forward, forwards) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpus(count: usize) -> Cpus {
        Cpus { allowed: (0..count).collect(), quota: count }
    }

    #[test]
    fn wish_is_read() {
        let check = |text: &str, expected: Option<Wish>| assert_eq!(Wish::parse(text), expected, "{text:?}");
        check("auto", Some(Wish::Auto));
        check("0-3,8", Some(Wish::List(vec![0, 1, 2, 3, 8])));
        check("5", Some(Wish::List(vec![5])));
        check("3-1", None);
        check("0,0", None);
        check("0-99999", None);
        check("", None);
        check("many", None);
    }

    #[test]
    fn automatic_shares_leave_room_for_forwarding() {
        let check = |count: usize, ingest: usize, forward: usize| {
            let cores = place(&Wish::Auto, &Wish::Auto, true, &cpus(count));
            assert_eq!((cores.ingest.len(), cores.forward.len()), (ingest, forward), "{count} CPUs");
            let mut pinned: Vec<usize> =
                cores.ingest.iter().chain(&cores.forward).flatten().copied().collect();
            assert_eq!(pinned.len(), count.min(ingest + forward), "each CPU is used");
            pinned.dedup();
            assert_eq!(pinned.len(), count, "no CPU twice");
        };
        check(1, 1, 1);
        check(2, 1, 1);
        check(3, 2, 1);
        check(4, 3, 1);
        check(6, 4, 2);
        check(8, 5, 3);
        check(64, 43, 21);
    }

    #[test]
    fn quota_bounds_the_automatic_share() {
        let cpus = Cpus { allowed: (8..72).collect(), quota: 2 };
        let cores = place(&Wish::Auto, &Wish::Auto, true, &cpus);
        assert_eq!((cores.ingest, cores.forward), (vec![Some(8)], vec![Some(9)]));
    }

    #[test]
    fn threads_go_where_they_were_put() {
        let list = |list: &[usize]| Wish::List(list.to_vec());
        let check = |ingest: Wish, forward: Wish, pin, expected: (&[Option<usize>], &[Option<usize>])| {
            let cores = place(&ingest, &forward, pin, &cpus(4));
            assert_eq!((&cores.ingest[..], &cores.forward[..]), expected, "{ingest:?} {forward:?}");
        };
        check(list(&[2, 0]), Wish::Auto, true, (&[Some(2), Some(0)], &[Some(1), Some(3)]));
        check(Wish::Auto, list(&[0]), true, (&[Some(1), Some(2), Some(3)], &[Some(0)]));
        check(Wish::Threads(1), Wish::Threads(1), true, (&[Some(0)], &[Some(1)]));
        check(Wish::Threads(3), Wish::Threads(2), true, (&[Some(0), Some(1), Some(2)], &[Some(3), None]));
        check(Wish::Threads(1), Wish::Threads(2), false, (&[None], &[None, None]));
        check(Wish::Threads(9), Wish::Auto, false, (&[None; 9], &[None]));
    }

    #[test]
    fn this_process_runs_somewhere() {
        let cpus = Cpus::of_this_process();
        assert!(!cpus.allowed.is_empty() && cpus.quota >= 1 && cpus.quota <= cpus.allowed.len());
    }
}
