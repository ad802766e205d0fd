//! When to write: group commit with a CPU budget. Pure.
//!
//! A commit costs CPU whatever it carries, so committing as fast as the disk allows would spend
//! half a core at high rates. Instead the next write starts no earlier than
//! `max(F, c / beta)` after the last one started, where `F` is the disk's own sync time (measured),
//! `c` the CPU of one commit and `beta` the share of a core that commits may take. Slow disks
//! (`F` above that) become greedy by themselves. Three cut-offs end the wait early: enough bytes,
//! the oldest webhook has waited long enough, or there is so little traffic that waiting gains nobody.

use std::time::{Duration, Instant};

/// CPU of one commit: 30 to 40 us for a 4 KiB `O_DIRECT|O_DSYNC` write through the ring, measured on ext4 and virtio,
/// and at least as much for what it sets off: the core that waits for it wakes, a doorbell rings, the forwarding core
/// wakes. Each commit left out at 10,000 to 25,000 webhooks a second saved 140 to 170 us where all threads share one CPU.
const COMMIT_CPU: Duration = Duration::from_micros(70);
/// Commits may take one twentieth of a core.
const CPU_SHARE: u32 = 20;
/// Enough to write at once: from here on bandwidth, not the sync, is what a commit costs.
const BYTES_AT_ONCE: usize = 256 * 1024;
/// Fewer than this many arrivals expected during a sync: a lone webhook does not wait for company.
const LONE: f64 = 0.1;
/// Marks wait for company: losing the last ones in a crash costs duplicates of 100 ms, as promised.
const MARKS_DELAY: Duration = Duration::from_millis(100);
/// Idle time after which an empty frame proves the last one, so that a later damage to it cannot
/// look like a torn write.
const TICK_AFTER: Duration = Duration::from_millis(20);

/// What waits to be written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Waiting {
    pub bytes: usize,
    pub entries: usize,
    /// When the oldest entry came.
    pub oldest_entry: Option<Instant>,
    /// When the oldest mark came.
    pub oldest_mark: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Write what waits.
    Write,
    /// Write an empty frame.
    Tick,
    /// Ask again then, or when more comes.
    Until(Instant),
    /// Ask again when something comes.
    Idle,
}

/// Decides for one journal, of which one write at a time is in flight.
#[derive(Debug)]
pub struct CommitPolicy {
    /// Longest wait of the oldest entry.
    delay: Duration,
    /// Moving average of the sync time.
    sync: Duration,
    /// Moving average of arrivals, per second.
    rate: f64,
    last_start: Option<Instant>,
    last_end: Option<Instant>,
    /// The newest frame carries records that no later frame proves.
    unproven: bool,
}

impl CommitPolicy {
    pub fn new(delay: Duration) -> Self {
        Self { delay, sync: COMMIT_CPU * 3, rate: 0.0, last_start: None, last_end: None, unproven: false }
    }

    /// What to do at `now`, when no write is in flight.
    pub fn decide(&self, now: Instant, waiting: &Waiting) -> Decision {
        let due = [self.entries_due(now, waiting), waiting.oldest_mark.map(|t| t + MARKS_DELAY)]
            .into_iter()
            .flatten()
            .min();
        match due {
            Some(at) if at <= now => Decision::Write,
            Some(at) => Decision::Until(at),
            None => match self.last_end {
                Some(end) if self.unproven && end + TICK_AFTER <= now => Decision::Tick,
                Some(end) if self.unproven => Decision::Until(end + TICK_AFTER),
                _ => Decision::Idle,
            },
        }
    }

    fn entries_due(&self, now: Instant, waiting: &Waiting) -> Option<Instant> {
        let oldest = waiting.oldest_entry?;
        let Some(last) = self.last_start else { return Some(now) };
        if waiting.bytes >= BYTES_AT_ONCE || self.rate * self.sync.as_secs_f64() < LONE {
            return Some(now);
        }
        let cadence = self.sync.max(COMMIT_CPU * CPU_SHARE);
        Some((last + cadence).min(oldest + self.delay))
    }

    /// A write of `entries` entries starts.
    pub fn started(&mut self, now: Instant, entries: usize) {
        if let Some(last) = self.last_start {
            let gap = now.duration_since(last).as_secs_f64().max(1e-6);
            self.rate = 0.8 * self.rate + 0.2 * (entries as f64 / gap);
        }
        self.last_start = Some(now);
    }

    /// The newest frame is proven by other means, or there is no room to prove it.
    pub fn proven(&mut self) {
        self.unproven = false;
    }

    /// The write that started at the last [`CommitPolicy::started`] is durable. `proves_only`: it
    /// carried no entry, so nothing was acknowledged with it and it proves what came before.
    pub fn finished(&mut self, now: Instant, proves_only: bool) {
        if let Some(start) = self.last_start {
            self.sync = (self.sync * 7 + now.duration_since(start)) / 8;
        }
        self.last_end = Some(now);
        self.unproven = !proves_only;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    fn waiting(oldest: Instant, bytes: usize) -> Waiting {
        Waiting { bytes, entries: 1, oldest_entry: Some(oldest), oldest_mark: None }
    }

    /// Policy after a second of `per_ms` entries a millisecond on a disk with sync time `sync`.
    fn busy(start: Instant, per_ms: usize, sync: Duration) -> (CommitPolicy, Instant) {
        let mut policy = CommitPolicy::new(Duration::from_millis(2));
        let mut now = start;
        for _ in 0..1000 {
            policy.started(now, per_ms);
            policy.finished(now + sync, false);
            now += Duration::from_millis(1).max(sync);
        }
        (policy, now)
    }

    #[test]
    fn a_lone_webhook_does_not_wait() {
        let start = Instant::now();
        let mut policy = CommitPolicy::new(Duration::from_millis(2));
        assert_eq!(policy.decide(start, &waiting(start, 1000)), Decision::Write);
        policy.started(start, 1);
        policy.finished(start + 120 * US, false);
        let later = start + Duration::from_secs(1);
        assert_eq!(policy.decide(later, &waiting(later, 1000)), Decision::Write);
    }

    #[test]
    fn under_load_commits_take_a_twentieth_of_a_core() {
        let (policy, _) = busy(Instant::now(), 100, 120 * US);
        let last = policy.last_start.unwrap();
        let due = last + COMMIT_CPU * 20;
        assert_eq!(policy.decide(last + 200 * US, &waiting(last + 150 * US, 1000)), Decision::Until(due));
        assert_eq!(policy.decide(due, &waiting(due, 1000)), Decision::Write, "the cadence has passed");
    }

    #[test]
    fn enough_bytes_or_an_old_webhook_end_the_wait() {
        let (policy, _) = busy(Instant::now(), 100, 120 * US);
        let last = policy.last_start.unwrap();
        let soon = last + 200 * US;
        assert_eq!(policy.decide(soon, &waiting(soon, BYTES_AT_ONCE)), Decision::Write);
        assert_eq!(policy.decide(soon, &waiting(soon - Duration::from_millis(2), 1)), Decision::Write);
    }

    #[test]
    fn a_slow_disk_is_driven_greedily() {
        let (policy, _) = busy(Instant::now(), 100, Duration::from_millis(4));
        let end = policy.last_end.unwrap();
        assert_eq!(
            policy.decide(end + 100 * US, &waiting(end - Duration::from_millis(3), 1)),
            Decision::Write
        );
    }

    #[test]
    fn marks_wait_for_company_and_an_idle_journal_ticks_once() {
        let (mut policy, _) = busy(Instant::now(), 100, 120 * US);
        let end = policy.last_end.unwrap();
        let marks = Waiting { oldest_mark: Some(end), ..Waiting::default() };
        assert_eq!(policy.decide(end + US, &marks), Decision::Until(end + MARKS_DELAY));
        assert_eq!(policy.decide(end + MARKS_DELAY, &marks), Decision::Write);
        let idle = Waiting::default();
        assert_eq!(policy.decide(end + US, &idle), Decision::Until(end + TICK_AFTER));
        assert_eq!(policy.decide(end + TICK_AFTER, &idle), Decision::Tick);
        policy.started(end + TICK_AFTER, 0);
        policy.finished(end + TICK_AFTER + 120 * US, true);
        assert_eq!(policy.decide(end + TICK_AFTER * 2, &idle), Decision::Idle);
    }
}
