//! How much a region is asked to take: retries, and parcels a second.
//!
//! Retries feed an overload: each is work that the region has refused once already. So they are paid for
//! by successes, and by a little that comes with time, so that a region that takes nothing is asked at all.

use std::time::{Duration, Instant};

use crate::fault;

/// What each success is worth. Finagle's default is twice that.
const PER_SUCCESS: f64 = 0.1;
/// What comes without any success.
const PER_SECOND: f64 = 5.0;
/// Most that is saved up: what comes with 10 s.
const RETRIES_MOST: f64 = PER_SECOND * 10.0;

/// Share of a second whose parcels may go out at once.
const RATE_BURST: f64 = 0.05;

/// How many retries a region has left.
#[derive(Debug)]
pub struct Retries {
    left: f64,
    at: Instant,
}

impl Retries {
    pub fn new(now: Instant) -> Self {
        Self { left: RETRIES_MOST, at: now }
    }

    /// A parcel was delivered.
    pub fn earn(&mut self) {
        self.left = (self.left + PER_SUCCESS).min(RETRIES_MOST);
    }

    /// Spends one; false if there is none.
    pub fn spend(&mut self, now: Instant) -> bool {
        self.refill(now);
        let any = self.left >= 1.0 || fault::planted("retries-unpaid");
        if any {
            self.left -= 1.0;
        }
        any
    }

    /// When there will be one even if nothing succeeds.
    pub fn ready_at(&self) -> Instant {
        self.at + Duration::from_secs_f64((1.0 - self.left).max(0.0) / PER_SECOND)
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * PER_SECOND).min(RETRIES_MOST);
        self.at = self.at.max(now);
    }
}

/// Parcels a second, smoothly: never more than 50 ms' worth and one at once.
#[derive(Debug)]
pub struct Rate {
    per_second: f64,
    left: f64,
    at: Instant,
}

impl Rate {
    /// `per_second` 0: no limit.
    pub fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, left: Self::most(per_second), at: now }
    }

    /// How many may go out now.
    pub fn left(&mut self, now: Instant) -> usize {
        if self.per_second == 0.0 {
            return usize::MAX;
        }
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * self.per_second).min(Self::most(self.per_second));
        self.at = self.at.max(now);
        self.left as usize
    }

    /// One goes out; only when [`Rate::left`] is above 0.
    pub fn take(&mut self) {
        if self.per_second > 0.0 && !fault::planted("rate-not-kept") {
            self.left -= 1.0;
        }
    }

    /// When one may go out.
    pub fn ready_at(&self) -> Instant {
        if self.per_second == 0.0 {
            return self.at;
        }
        self.at + Duration::from_secs_f64((1.0 - self.left).max(0.0) / self.per_second)
    }

    fn most(per_second: f64) -> f64 {
        1.0 + per_second * RATE_BURST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn retries_are_a_tenth_of_successes_and_five_a_second() {
        let start = Instant::now();
        let mut retries = Retries::new(start);
        let mut spent = 0;
        for ms in 0..60_000 {
            retries.earn();
            spent += (0..100).take_while(|_| retries.spend(at(start, ms))).count();
        }
        // 60,000 successes in a minute.
        assert!((6_300..=6_350).contains(&spent), "{spent}");
    }

    #[test]
    fn retries_saved_up_are_those_of_ten_seconds() {
        let start = Instant::now();
        let mut retries = Retries::new(start);
        (0..10_000).for_each(|_| retries.earn());
        let later = at(start, 3_600_000);
        assert_eq!((0..1_000).filter(|_| retries.spend(later)).count(), 50);
        let next = retries.ready_at();
        assert_eq!(next, at(later, 200));
        assert!(!retries.spend(at(later, 199)) && retries.spend(at(later, 201)));
    }

    #[test]
    fn rate_is_kept_without_bursts() {
        let start = Instant::now();
        for (per_second, most_at_once) in [(1, 1), (10, 1), (1_000, 51)] {
            let mut rate = Rate::new(per_second, start);
            let (mut out, mut most) = (0, 0);
            // A minute of idleness is worth no more than 50 ms.
            for ms in (60_000..90_000).step_by(20) {
                let now = rate.left(at(start, ms));
                (0..now).for_each(|_| rate.take());
                out += now;
                most = most.max(now);
            }
            let expected = 30 * per_second as usize;
            assert!(out >= expected - 1 && out <= expected + most_at_once, "{per_second}/s: {out} in 30 s");
            assert!(most <= most_at_once, "{per_second}/s: {most} at once");
        }
        let mut free = Rate::new(0, start);
        assert_eq!((free.left(start), free.ready_at()), (usize::MAX, start));
    }
}
