//! How much may be begun by a thread that gives way and yet must get on. Pure.

use std::time::Duration;

/// What a thread did not spend is forgotten from here on, in seconds of CPU time.
const SAVED: f64 = 0.002;

/// What a thread has while it gives way.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// So much of the CPU time of the core that needs it.
    pub part: f64,
    /// What it spent beyond is forgotten from here on, in seconds of CPU time: it has other things to do than what it
    /// begins, and they must not keep it from that for ever.
    pub debt: f64,
    /// However much it spent, it begins something so often.
    pub at_least: Duration,
}

/// CPU time that is left to spend.
#[derive(Debug)]
pub(super) struct Ration {
    terms: Terms,
    /// In seconds.
    left: f64,
    /// Since something might be begun.
    waited: Duration,
}

impl Ration {
    pub(super) fn new(terms: Terms) -> Self {
        Self { terms, left: 0.0, waited: Duration::ZERO }
    }

    /// `passed` since the last look, and the thread `spent` CPU time; who asks it to give way has the share `asker` of a
    /// CPU. Whether it may begin something now; `None`: whatever it likes.
    pub(super) fn look(&mut self, passed: Duration, spent: Duration, asker: Option<f64>) -> Option<bool> {
        let Terms { part, debt, at_least } = self.terms;
        let Some(share) = asker else {
            *self = Self::new(self.terms);
            return None;
        };
        let due = passed.as_secs_f64() * share * part - spent.as_secs_f64();
        self.left = (self.left + due).clamp(-debt, SAVED);
        self.waited += passed;
        let may = self.left > 0.0 || self.waited >= at_least;
        if may {
            self.waited = Duration::ZERO;
        }
        Some(may)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(20);
    const TERMS: Terms = Terms { part: 0.1, debt: 0.02, at_least: Duration::from_secs(1) };

    /// CPU time that a thread spends in ten seconds: `basis` in each tick, `burst` whenever it may begin something.
    fn spends(share: f64, basis: Duration, burst: Duration) -> (Duration, usize) {
        let (mut ration, mut spent, mut all, mut bursts) =
            (Ration::new(TERMS), Duration::ZERO, Duration::ZERO, 0);
        for _ in 0..500 {
            let may = ration.look(TICK, spent, Some(share)).unwrap();
            spent = basis + burst * u32::from(may);
            all += spent;
            bursts += usize::from(may);
        }
        (all, bursts)
    }

    #[test]
    fn it_has_a_tenth_of_what_the_core_has() {
        let us = Duration::from_micros;
        for share in [0.2, 0.7] {
            let (all, bursts) = spends(share, us(50), us(1500));
            let tenth = Duration::from_secs_f64(share);
            assert!(all > tenth * 9 / 10 && all < tenth * 11 / 10, "{share}: {all:?} in {bursts} bursts");
        }
    }

    #[test]
    fn it_gets_on_though_it_spends_all_on_other_things_and_has_all_again_when_nobody_asks() {
        let (_, bursts) = spends(0.2, Duration::from_millis(5), Duration::from_millis(1));
        assert_eq!(bursts, 10);
        let mut ration = Ration::new(TERMS);
        assert_eq!(ration.look(TICK, TICK, None), None);
        assert_eq!(ration.look(TICK, TICK, Some(0.2)), Some(false));
        assert_eq!(ration.look(TICK, TICK, None), None);
        assert_eq!(ration.look(TICK, Duration::ZERO, Some(0.2)), Some(true));
    }
}
