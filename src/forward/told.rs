//! Faults that come back with every try are told once, and again only as a reminder. Pure.
//!
//! A region's window holds thousands of parcels, and one that cannot be made is tried every second: without
//! this, one fault would be thousands of log lines.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A reminder that the fault is still there.
const REMIND_EVERY: Duration = Duration::from_mins(1);

/// When each fault of each region was told. Bounded by regions times kinds of faults.
#[derive(Debug, Default)]
pub struct Told {
    last: RefCell<HashMap<(usize, &'static str), Instant>>,
}

impl Told {
    /// True if `fault` of the region with this index is to be told now.
    pub fn is_due(&self, region: usize, fault: &'static str, now: Instant) -> bool {
        let mut last = self.last.borrow_mut();
        let due =
            last.get(&(region, fault)).is_none_or(|at| now.saturating_duration_since(*at) >= REMIND_EVERY);
        if due {
            last.insert((region, fault), now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_is_told_once_a_minute_and_apart_from_others() {
        let (told, start) = (Told::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(told.is_due(1, "torn", at(0)));
        assert!((1..60).all(|second| !told.is_due(1, "torn", at(second))));
        assert!(told.is_due(2, "torn", at(1)) && told.is_due(1, "odd", at(1)));
        assert!(told.is_due(1, "torn", at(60)));
        assert!(!told.is_due(1, "torn", at(61)));
    }
}
