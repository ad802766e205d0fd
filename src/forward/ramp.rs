//! How many parcels at once a region gets after an outage: few, then more while it takes them.
//!
//! A region that just came back has cold caches and a backlog in front of it; all at once would bring it
//! down again. Full again after some 10 s if all goes well; halved where it does not.

use std::time::{Duration, Instant};

use crate::fault;

/// Share of `in_flight` that it begins with, and that is added each second.
const STEP: f64 = 0.1;
/// How long outcomes are collected before the next step is decided.
const ROUND: Duration = Duration::from_millis(500);
/// One failure of that many is no reason to halve: every region has some.
const FAILURES: u32 = 10;
/// Answers that take less than this longer than usual say nothing: a connection was opened, say.
const SLOWER: Duration = Duration::from_millis(100);

/// The limit of one region.
#[derive(Debug)]
pub struct Ramp {
    most: usize,
    limit: f64,
    round: Round,
    /// About the median of what a delivery takes while there is no ramp, or one at once.
    usual: Duration,
}

#[derive(Debug)]
struct Round {
    start: Instant,
    delivered: u32,
    failed: u32,
    took: Duration,
}

impl Round {
    fn new(now: Instant) -> Self {
        Self { start: now, delivered: 0, failed: 0, took: Duration::ZERO }
    }
}

impl Ramp {
    /// Full.
    pub fn new(most: usize, now: Instant) -> Self {
        Self { most, limit: most as f64, round: Round::new(now), usual: Duration::ZERO }
    }

    /// Parcels at once, at least one.
    pub fn limit(&self) -> usize {
        (self.limit as usize).max(1)
    }

    pub fn is_full(&self) -> bool {
        self.limit >= self.most as f64
    }

    /// The region accepts again.
    pub fn begin(&mut self, now: Instant) {
        let share = if fault::planted("ramp-begins-full") { 1.0 } else { STEP };
        self.limit = (self.most as f64 * share).max(1.0);
        self.round = Round::new(now);
    }

    /// A parcel was delivered or failed, after `took`.
    pub fn note(&mut self, delivered: bool, took: Duration, now: Instant) {
        // With one at once it is not we who make it slow: a region that is slower than before an outage, a standby
        // far away, is as it is.
        if delivered && (self.is_full() || self.limit() == 1) {
            self.learn(took);
        }
        if self.is_full() {
            return;
        }
        if delivered {
            self.round.delivered += 1;
            self.round.took += took;
        } else {
            self.round.failed += 1;
        }
        let passed = now.saturating_duration_since(self.round.start);
        if passed >= ROUND {
            self.decide(passed);
            self.round = Round::new(now);
        }
    }

    fn decide(&mut self, passed: Duration) {
        let Round { delivered, failed, took, .. } = self.round;
        let slow = delivered > 0 && took / delivered > (self.usual * 2).max(self.usual + SLOWER);
        let failing = failed * FAILURES > delivered + failed && !fault::planted("ramp-ignores-failures");
        if failing || slow && !self.usual.is_zero() {
            self.limit = (self.limit / 2.0).max(1.0);
        } else if delivered > 0 {
            // A pause without traffic is no proof of strength.
            let seconds = passed.as_secs_f64().min(1.0);
            self.limit = (self.limit + self.most as f64 * STEP * seconds).min(self.most as f64);
        }
    }

    /// Steps of a fiftieth end around the median: as many are above it as below.
    fn learn(&mut self, took: Duration) {
        if self.usual.is_zero() {
            self.usual = took;
        } else if took > self.usual {
            self.usual += self.usual / 50 + Duration::from_nanos(50);
        } else {
            self.usual -= self.usual / 50;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Seconds until full with that many outcomes a second, one in `failing` failing, each taking `took`.
    fn seconds(ramp: &mut Ramp, start: Instant, failing: u32, took: Duration) -> Option<u32> {
        for step in 1..=6_000u32 {
            let now = start + MS * step * 10;
            ramp.note(step % failing != 0, took, now);
            if ramp.is_full() {
                return Some(step / 100);
            }
        }
        None
    }

    fn healthy(most: usize, now: Instant) -> Ramp {
        let mut ramp = Ramp::new(most, now);
        (0..1_000).for_each(|n| ramp.note(true, MS * (40 + n % 20), now));
        ramp
    }

    #[test]
    fn it_begins_with_a_tenth_and_is_full_within_some_ten_seconds() {
        let start = Instant::now();
        for most in [1, 5, 64, 1_000] {
            let mut ramp = healthy(most, start);
            ramp.begin(start);
            assert_eq!(ramp.limit(), (most / 10).max(1));
            let full = seconds(&mut ramp, start, u32::MAX, MS * 60).unwrap();
            assert!(full <= 10 && (most == 1 || full >= 7), "{most}: {full} s");
            assert_eq!(ramp.limit(), most);
        }
    }

    #[test]
    fn failures_and_slow_answers_halve_it() {
        let start = Instant::now();
        let mut ramp = healthy(64, start);
        ramp.begin(start);
        assert_eq!(seconds(&mut ramp, start, 3, MS * 50), None, "a third fails");
        assert!(ramp.limit() < 12, "{}", ramp.limit());
        ramp.begin(start);
        for step in 1..110 {
            ramp.note(true, MS * 200, start + MS * step * 10);
        }
        assert_eq!(ramp.limit(), 1, "four times as slow");
        ramp.begin(start);
        assert!(seconds(&mut ramp, start, 50, MS * 90).is_some(), "a few failures do not stop it for ever");
    }

    #[test]
    fn region_that_is_slower_for_good_is_full_again() {
        let start = Instant::now();
        let mut ramp = healthy(64, start);
        ramp.begin(start);
        let mut now = start;
        // One after the other as long as that is the limit, then more at once.
        let full = (0..5_000).find(|_| {
            now += MS * 250 / ramp.limit() as u32;
            ramp.note(true, MS * 250, now);
            ramp.is_full()
        });
        assert!(full.is_some() && now < start + Duration::from_mins(2), "{full:?}, {:?}", now - start);
    }

    #[test]
    fn idle_region_gains_little_by_waiting() {
        let start = Instant::now();
        let mut ramp = healthy(100, start);
        ramp.begin(start);
        ramp.note(true, MS, start + Duration::from_hours(1));
        assert_eq!(ramp.limit(), 20);
    }
}
