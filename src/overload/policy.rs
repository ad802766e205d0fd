//! When do others have to give way to a core? Decides from how late it is.
//!
//! A queue as such is no overload: a burst makes one, and it goes away by itself. One that is found again and again is
//! (the idea of CoDel, RFC 8289).

use std::time::Duration;

/// From here on a core is late. A webhook waits this long twice, before it is read and after its commit, and the
/// provider wants half of its answers within 250 ms.
pub const LATE: Duration = Duration::from_millis(50);
/// Late so many times in a row: others give way.
const AGAIN: u32 = 2;
/// Within this time after they did one is enough: the load has not gone away.
const REMEMBERED: Duration = Duration::from_secs(1);
/// A core that had less than this of a CPU while it was late waited for others.
const STARVED: f64 = 0.75;
/// After this time it is looked again whether they are in its way at all: if they are it will be starved.
const BELIEVED: Duration = Duration::from_secs(10);
/// For how long others give way each time they are asked to, beside twice the lag: the next look is as late.
const AWHILE: Duration = Duration::from_millis(250);

/// The lags of one core.
#[derive(Debug, Default)]
pub struct Policy {
    /// Looks in a row that found it late.
    late: u32,
    /// When others were last asked to give way.
    asked: Option<Duration>,
    /// When the core was last found starved.
    starved: Duration,
}

impl Policy {
    /// At `now`, counted from any fixed moment: the core is `lag` behind, and had the share `busy` of a CPU since the last
    /// look. For how long whoever works on the same CPU should leave it to this core.
    pub fn look(&mut self, now: Duration, lag: Duration, busy: f64) -> Option<Duration> {
        self.late = if lag >= LATE { self.late.saturating_add(1) } else { 0 };
        let starved = self.late > 0 && busy < STARVED;
        if starved {
            self.starved = now;
        }
        // While others give way the core is not starved. Is it late all the same, they go on, for a time.
        let since = self.asked.map(|at| now.saturating_sub(at));
        let helped =
            since.is_some_and(|since| since < AWHILE + lag) && now.saturating_sub(self.starved) < BELIEVED;
        let again = if since.is_some_and(|since| since < REMEMBERED + lag) { 1 } else { AGAIN };
        let ask = self.late >= again && (starved || helped);
        if ask {
            self.asked = Some(now);
        }
        ask.then_some(AWHILE + lag * 2)
    }

    /// The last look found it in time.
    pub fn is_calm(&self) -> bool {
        self.late == 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    /// Seconds that one webhook costs ingest and forwarding.
    const ACCEPT: f64 = 50e-6;
    const FORWARD: f64 = 60e-6;

    #[derive(Debug)]
    struct Outcome {
        /// By what can be accepted and forwarded.
        accepted: f64,
        asked: usize,
        /// In the second half.
        p99: Duration,
    }

    /// A core with a queue, and forwarding that takes what it may of the same CPU, or has its own. `offered`: webhooks by
    /// the time in which one could be accepted and forwarded on one CPU.
    fn simulate(offered: f64, shared: bool) -> Outcome {
        const END: f64 = 20.0;
        let of = Duration::from_secs_f64;
        let gap = (ACCEPT + FORWARD) / offered;
        let (mut policy, mut probe, mut asked, mut give_way_until) = (Policy::default(), 0.010, 0, 0.0);
        let (mut now, mut next, mut seen, mut used) = (0.0, 0.0, 0.0, 0.0);
        let (mut waiting, mut backlog, mut forwarded) = (VecDeque::new(), 0u32, 0.0);
        let (mut accepted, mut lags) = (0, Vec::new());
        while now < END {
            while next <= now {
                waiting.push_back(next);
                next += gap;
            }
            // A probe stands in the queue as a webhook does.
            if probe <= now && waiting.front().is_none_or(|came| probe <= *came) {
                let ask = policy.look(of(now), of(now - probe), used / (now - seen).max(1e-9));
                if let Some(time) = ask {
                    give_way_until = now + time.as_secs_f64();
                    asked += 1;
                }
                (seen, used, probe) = (now, 0.0, now + 0.010);
            }
            match waiting.pop_front() {
                Some(came) => {
                    now += ACCEPT;
                    used += ACCEPT;
                    backlog += 1;
                    accepted += 1;
                    if came > END / 2.0 {
                        lags.push(now - came);
                    }
                }
                None => now = next.min(probe.max(now + 1e-6)),
            }
            // It forwards as much as is accepted, or has about a twentieth of the CPU.
            if shared && backlog > 0 {
                let time = if now < give_way_until { ACCEPT / 19.0 } else { FORWARD };
                now += time;
                forwarded += time / FORWARD;
                if forwarded >= 1.0 {
                    (backlog, forwarded) = (backlog - 1, forwarded - 1.0);
                }
            }
        }
        lags.sort_by(f64::total_cmp);
        let p99 = of(lags.get(lags.len() * 99 / 100).copied().unwrap_or_default());
        Outcome { accepted: f64::from(accepted) * (ACCEPT + FORWARD) / END, asked, p99 }
    }

    #[test]
    fn near_twice_the_peak_is_accepted_in_time_while_forwarding_gives_way() {
        let seen = simulate(1.9, true);
        assert!(seen.accepted > 0.99 * 1.9 && seen.p99 < 200 * MS, "{seen:?}");
    }

    #[test]
    fn forwarding_goes_on_where_the_load_is_below_the_peak_or_its_giving_way_would_not_help() {
        for (offered, shared) in [(0.95, true), (2.5, false)] {
            let seen = simulate(offered, shared);
            assert_eq!(seen.asked, 0, "{offered}: {seen:?}");
        }
    }

    #[test]
    fn one_late_look_is_a_burst() {
        let mut policy = Policy::default();
        assert_eq!(policy.look(MS, 500 * MS, 0.1), None);
        assert!(policy.look(520 * MS, 5 * MS, 0.1).is_none() && policy.is_calm());
        assert!(policy.look(530 * MS, 500 * MS, 0.1).is_none() && !policy.is_calm());
        assert_eq!(policy.look(540 * MS, LATE, 0.1), Some(350 * MS));
    }

    #[test]
    fn who_gives_way_goes_on_while_the_core_is_late_though_it_has_the_cpu_now() {
        let mut policy = Policy::default();
        let looks = [(100, 0.3), (140, 0.3), (180, 0.98), (300, 0.98), (700, 0.98)];
        let asked: Vec<bool> =
            looks.iter().map(|(now, busy)| policy.look(MS * *now, LATE, *busy).is_some()).collect();
        assert_eq!(asked, [false, true, true, true, false]);
    }

    #[test]
    fn who_was_not_in_the_way_after_all_goes_on() {
        let mut policy = Policy::default();
        let looks: Vec<bool> = (0..300u32)
            .map(|look| policy.look(MS * 40 * look, LATE, if look == 1 { 0.3 } else { 0.98 }).is_some())
            .collect();
        let first = looks.iter().position(|asked| *asked);
        let last = looks.iter().rposition(|asked| *asked);
        assert_eq!((first, last), (Some(1), Some(250)), "one hiccup of the machine, and ten seconds");
    }
}
