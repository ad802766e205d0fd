//! The regions of an outage: one of them fails when told to, all tell what came and how long it took.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::bits::Bits;
use crate::pool::Numbered;

/// Longest delay that is told apart.
const LONGEST_US: u64 = 600_000_000;

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
    /// From due to delivered, of the other regions, in microseconds, by phase.
    delays: Mutex<[Histogram<u64>; 3]>,
}

impl Regions {
    pub fn new(failing: usize) -> anyhow::Result<Arc<Self>> {
        let histogram = || Histogram::new_with_bounds(1, LONGEST_US, 3);
        Ok(Arc::new(Self {
            failing,
            down: AtomicBool::new(false),
            phase: AtomicUsize::new(0),
            clock: OnceLock::new(),
            received: Bits::default(),
            to_failing: AtomicU64::new(0),
            again: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            delays: Mutex::new([histogram()?, histogram()?, histogram()?]),
        }))
    }

    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as usize, Relaxed);
    }

    /// Median and 99th percentile of a phase.
    pub fn delays(&self, phase: Phase) -> [Duration; 2] {
        let delays = self.delays.lock().unwrap_or_else(PoisonError::into_inner);
        [0.5, 0.99].map(|share| Duration::from_micros(delays[phase as usize - 1].value_at_quantile(share)))
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
        let micros = u64::try_from(due.elapsed().as_micros()).unwrap_or(LONGEST_US);
        self.delays.lock().unwrap_or_else(PoisonError::into_inner)[phase - 1]
            .saturating_record(micros.max(1));
    }
}

/// From the path, `/region-3`.
fn region(request: &[u8]) -> Option<usize> {
    let digits = request.strip_prefix(b"POST /region-")?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
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
        let [median, _] = regions.delays(Phase::During);
        assert!(median >= Duration::from_secs(4) && median < Duration::from_secs(6), "{median:?}");
        assert_eq!(regions.delays(Phase::Before), [Duration::ZERO; 2]);
    }
}
