//! The regions of an outage: one of them fails when told to, all tell what came and how long it took.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::bits::Bits;
use crate::pool::Numbered;
use crate::sink::region;

/// Longest delay that is told apart.
const LONGEST_US: u64 = 600_000_000;

/// Delays are looked at in slices as well: a virtual machine that stands still for seconds spoils one of them, and
/// the 99th percentile of all.
const SLICE: Duration = Duration::from_secs(10);

/// Parts of a run of which delays are kept apart; nothing is kept before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Before = 1,
    During = 2,
    After = 3,
}

/// When webhooks are due: number `first + n` by `n / rate` seconds after `started`.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    pub started: Instant,
    pub first: u64,
    pub rate: u64,
}

/// What the regions know. The sink writes, the driver tells it what to do and reads.
pub struct Regions {
    /// Index of the one that fails.
    failing: usize,
    pub down: AtomicBool,
    phase: AtomicUsize,
    pub clock: OnceLock<Clock>,
    /// Webhooks delivered, by number.
    pub received: Bits,
    /// Those of them that came to the failing region.
    pub to_failing: AtomicU64,
    /// Deliveries of what had been delivered already.
    pub again: AtomicU64,
    pub refused: AtomicU64,
    /// Of the other regions, by phase.
    delays: Mutex<[Delays; 3]>,
}

/// From due to delivered, in microseconds.
struct Delays {
    all: Histogram<u64>,
    slice: Histogram<u64>,
    since: Option<Instant>,
    /// The 99th percentile of each slice that is over.
    slices: Vec<u64>,
}

impl Delays {
    fn new() -> anyhow::Result<Self> {
        let all = Histogram::new_with_bounds(1, LONGEST_US, 3)?;
        Ok(Self { slice: all.clone(), all, since: None, slices: Vec::new() })
    }

    fn note(&mut self, micros: u64, now: Instant) {
        if now.saturating_duration_since(*self.since.get_or_insert(now)) >= SLICE {
            self.slices.push(self.slice.value_at_quantile(0.99));
            self.slice.reset();
            self.since = Some(now);
        }
        self.all.saturating_record(micros);
        self.slice.saturating_record(micros);
    }
}

/// What a phase looked like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    pub median: Duration,
    pub p99: Duration,
    /// The 99th percentile of the middle one of the slices.
    pub typical_p99: Duration,
    pub slices: usize,
}

impl Regions {
    pub fn new(failing: usize) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            failing,
            down: AtomicBool::new(false),
            phase: AtomicUsize::new(0),
            clock: OnceLock::new(),
            received: Bits::default(),
            to_failing: AtomicU64::new(0),
            again: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            delays: Mutex::new([Delays::new()?, Delays::new()?, Delays::new()?]),
        }))
    }

    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as usize, Relaxed);
    }

    /// What was noted of a phase.
    pub fn delays(&self, phase: Phase) -> Summary {
        let all = self.delays.lock().unwrap_or_else(PoisonError::into_inner);
        let delays = &all[phase as usize - 1];
        let [median, p99] =
            [0.5, 0.99].map(|share| Duration::from_micros(delays.all.value_at_quantile(share)));
        let mut slices = delays.slices.clone();
        slices.sort_unstable();
        let typical_p99 = slices.get(slices.len() / 2).map_or(p99, |micros| Duration::from_micros(*micros));
        Summary { median, p99, typical_p99, slices: slices.len() }
    }

    /// Takes a parcel or refuses it.
    pub fn take(&self, request: &[u8]) -> bool {
        let to_failing = region(request) == Some(self.failing);
        if to_failing && self.down.load(Relaxed) {
            self.refused.fetch_add(1, Relaxed);
            return false;
        }
        let Some(number) = Numbered::number(request) else { return true };
        if !self.received.set(number) {
            self.again.fetch_add(1, Relaxed);
            return true;
        }
        if to_failing {
            self.to_failing.fetch_add(1, Relaxed);
        } else {
            self.note(number);
        }
        true
    }

    fn note(&self, number: u64) {
        let Some(clock) = self.clock.get() else { return };
        let phase = self.phase.load(Relaxed);
        let Some(turn) = number.checked_sub(clock.first).filter(|_| phase > 0) else { return };
        let due = clock.started + Duration::from_nanos(turn.saturating_mul(1_000_000_000) / clock.rate);
        let now = Instant::now();
        let micros = u64::try_from(now.saturating_duration_since(due).as_micros()).unwrap_or(LONGEST_US);
        self.delays.lock().unwrap_or_else(PoisonError::into_inner)[phase - 1].note(micros.max(1), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(region: usize, number: u64) -> Vec<u8> {
        let mut request = Vec::new();
        Numbered::new(10, &format!("/region-{region}"), "secret").write(number, &mut request);
        request
    }

    #[test]
    fn region_that_is_down_refuses_and_the_others_take_each_parcel_once() {
        let regions = Regions::new(2).unwrap();
        regions.down.store(true, Relaxed);
        assert!(!regions.take(&parcel(2, 5)) && regions.take(&parcel(1, 6)) && regions.take(&parcel(1, 6)));
        regions.down.store(false, Relaxed);
        assert!(regions.take(&parcel(2, 5)));
        let counted =
            [&regions.refused, &regions.again, &regions.to_failing].map(|count| count.load(Relaxed));
        assert_eq!((counted, regions.received.len()), ([1, 1, 1], 2));
    }

    #[test]
    fn delay_counts_from_when_a_webhook_was_due() {
        let regions = Regions::new(0).unwrap();
        let started = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        regions.clock.set(Clock { started, first: 100, rate: 10 }).unwrap();
        regions.take(&parcel(1, 100));
        regions.enter(Phase::During);
        // Due 6 s after the start; what the failing region gets is not counted.
        regions.take(&parcel(1, 160));
        regions.take(&parcel(0, 101));
        let Summary { median, .. } = regions.delays(Phase::During);
        assert!(median >= Duration::from_secs(4) && median < Duration::from_secs(6), "{median:?}");
        assert_eq!(regions.delays(Phase::Before), Summary::default());
    }

    #[test]
    fn one_bad_slice_spoils_the_percentile_of_all_and_not_that_of_the_middle_one() {
        let (mut delays, start) = (Delays::new().unwrap(), Instant::now());
        for second in 0..=50 {
            let micros = if (20..30).contains(&second) { 1_000_000 } else { 1000 };
            (0..100).for_each(|_| delays.note(micros, start + Duration::from_secs(second)));
        }
        assert_eq!(delays.slices.len(), 5);
        assert_eq!(delays.slices.iter().filter(|p99| **p99 > 10_000).count(), 1);
        assert!(delays.all.value_at_quantile(0.99) > 900_000);
    }
}
