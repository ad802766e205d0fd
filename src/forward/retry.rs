//! When a parcel is tried again: how long to wait, and whose wait is over.
//!
//! Full jitter: a random wait between (nearly) nothing and a bound that doubles with each failure.
//! After an outage the retries of a region then spread evenly instead of coming back in waves, which
//! equal waits with a little jitter would keep doing.
//!
//! An answer that no repetition mends is repeated slowly: a person may mend the region meanwhile.
//!
//! Deliberately absent: giving up (`poison`), how many retries there may be (`budget`), whether the region
//! is asked at all (`breaker`). Pure: the moment and the randomness are arguments.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use super::lane::ParcelId;
use crate::fault;

/// Bound of the first wait; it doubles with each failure.
pub const BASE: Duration = Duration::from_secs(1);

/// The bound never grows above this: after an outage of hours a region is back within 15 minutes at
/// the latest, and a parcel that fails for a day is tried some hundred times, not some thousand.
pub const LONGEST: Duration = Duration::from_mins(15);

/// No wait is shorter. Pure full jitter can be almost 0 several times in a row; 50 ms lets a restarted
/// worker behind the same address come up and keeps one failing parcel below 20 tries a second.
pub const SHORTEST: Duration = Duration::from_millis(50);

/// No wait is shorter after 429 or 503: the region said that it is overloaded.
pub const SHORTEST_OVERLOADED: Duration = Duration::from_millis(500);

/// Bound of the first wait after an answer that no repetition mends; half of it is the least.
pub const BASE_UNWANTED: Duration = Duration::from_secs(10);

/// Bounds of a `Retry-After` that is believed: 0 would be a hot loop, a month would be a loss.
pub const RETRY_AFTER: (Duration, Duration) = (BASE, Duration::from_hours(1));

/// How long to wait after the `failures`-th failure in a row (1, 2, ...).
pub fn wait(failures: u32, overloaded: bool, rng: &mut Rng) -> Duration {
    // 2^20 s is above LONGEST already.
    let bound = LONGEST.min(BASE * (1 << failures.saturating_sub(1).min(20)));
    let shortest = if overloaded { SHORTEST_OVERLOADED } else { SHORTEST };
    let nanos = rng.below(bound.as_nanos() as u64 + 1);
    let shortest = if fault::planted("retries-at-once") { Duration::ZERO } else { shortest };
    Duration::from_nanos(nanos).max(shortest)
}

/// The same after an answer that no repetition mends.
pub fn wait_unwanted(failures: u32, rng: &mut Rng) -> Duration {
    let bound = LONGEST.min(BASE_UNWANTED * (1 << failures.saturating_sub(1).min(20)));
    bound / 2 + Duration::from_nanos(rng.below(bound.as_nanos() as u64 / 2 + 1))
}

/// How long to wait when the region asked for `asked`.
pub fn wait_asked(asked: Duration) -> Duration {
    if fault::planted("any-wish-believed") { asked } else { asked.clamp(RETRY_AFTER.0, RETRY_AFTER.1) }
}

/// Random numbers to spread waits with: SplitMix64, eight bytes of state, the same from the same
/// seed on every machine. Not for secrets.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next_u64(&mut self) -> u64 {
        // The constants are those of Steele, Lea and Flood, "Fast splittable pseudorandom number generators".
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// 0 to `end` - 1, and 0 if `end` is 0. The bias is below `end` / 2^64.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(end)) >> 64) as u64
    }
}

/// Parcels that wait for their moment, the earliest first; at the same moment the oldest first.
#[derive(Debug, Default)]
pub struct Due {
    heap: BinaryHeap<Reverse<(Instant, ParcelId)>>,
}

impl Due {
    pub fn push(&mut self, at: Instant, id: ParcelId) {
        self.heap.push(Reverse((at, id)));
    }

    /// A parcel whose moment has come.
    pub fn pop(&mut self, now: Instant) -> Option<ParcelId> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, id))| id)
    }

    /// The earliest of those that fit, whether its moment has come or not.
    pub fn take_first(&mut self, fits: impl Fn(ParcelId) -> bool) -> Option<ParcelId> {
        let Reverse((at, id)) = *self.heap.iter().filter(|Reverse((_, id))| fits(*id)).max()?;
        self.heap.retain(|Reverse(waiting)| *waiting != (at, id));
        Some(id)
    }

    /// Forgets a parcel.
    pub fn remove(&mut self, id: ParcelId) {
        self.heap.retain(|Reverse((_, other))| *other != id);
    }

    /// Gives each parcel a new moment; `None` keeps the one it has.
    pub fn change(&mut self, mut moment: impl FnMut(ParcelId) -> Option<Instant>) {
        let waiting = std::mem::take(&mut self.heap).into_vec();
        let changed = waiting.into_iter().map(|Reverse((at, id))| Reverse((moment(id).unwrap_or(at), id)));
        self.heap = changed.collect();
    }

    /// When to look again.
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    pub fn len(&self) -> usize {
        self.heap.len()
    }

    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::lane::{Class, Lanes};
    use super::*;

    #[test]
    fn splitmix_matches_its_reference() {
        // First outputs of the reference implementation for seed 1234567.
        let mut rng = Rng::new(1_234_567);
        assert_eq!(rng.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next_u64(), 3_203_168_211_198_807_973);
        assert_eq!(Rng::new(1).below(0), 0);
    }

    #[test]
    fn waits_stay_within_their_bounds_and_use_them() {
        for seed in 0..50 {
            println!("seed {seed}");
            let mut rng = Rng::new(seed);
            let mut check = |failures: u32, overloaded: bool, shortest: f64, longest: f64| {
                let waits: Vec<f64> =
                    (0..200).map(|_| wait(failures, overloaded, &mut rng).as_secs_f64()).collect();
                let (least, most) = (
                    waits.iter().copied().fold(f64::MAX, f64::min),
                    waits.iter().copied().fold(0.0, f64::max),
                );
                assert!(least >= shortest && most <= longest, "seed {seed}, {failures}: {least} to {most}");
                // 200 throws that all miss the upper half would be a broken generator.
                assert!(most > longest / 2.0, "seed {seed}, {failures}: only up to {most}");
                assert!(least < shortest + longest / 4.0, "seed {seed}, {failures}: only from {least}");
            };
            check(1, false, 0.05, 1.0);
            check(1, true, 0.5, 1.0);
            check(2, false, 0.05, 2.0);
            check(5, false, 0.05, 16.0);
            check(11, false, 0.05, 900.0);
            check(u32::MAX, false, 0.05, 900.0);
        }
        let mut rng = Rng::new(0);
        assert!((0..100).all(|_| wait(0, false, &mut rng) <= BASE), "0 counts as 1");
    }

    #[test]
    fn retry_after_is_believed_within_bounds() {
        for (asked, expected) in [(0, 1), (1, 1), (120, 120), (86_400, 3_600), (u64::MAX, 3_600)] {
            assert_eq!(wait_asked(Duration::from_secs(asked)), Duration::from_secs(expected));
        }
    }

    #[test]
    fn due_gives_the_earliest_and_nothing_early() {
        let mut lanes = Lanes::default();
        let ids: Vec<_> = (0..4).map(|_| lanes.push(&[], Class::Backlog, ())).collect();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut due = Due::default();
        assert_eq!((due.pop(start), due.next()), (None, None));
        due.push(at(30), ids[0]);
        due.push(at(10), ids[3]);
        due.push(at(10), ids[1]);
        due.push(at(20), ids[2]);
        assert_eq!(due.pop(at(9)), None);
        assert_eq!(due.next(), Some(at(10)));
        assert_eq!((due.pop(at(20)), due.pop(at(20))), (Some(ids[1]), Some(ids[3])));
        assert_eq!((due.pop(at(20)), due.pop(at(20))), (Some(ids[2]), None));
        assert_eq!(due.len(), 1);
    }
}
