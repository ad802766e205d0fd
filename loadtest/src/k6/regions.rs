//! How the regions answer: one of them fails when told to, and whether the others feel it.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::http;
use crate::sink::Answer;

use super::scripts::Act;

/// How long a slow region takes for an answer. With 64 parcels on their way that is 64 a second.
const SLOW: Duration = Duration::from_secs(1);

const DAY_MS: u64 = 86_400_000;

/// What the driver tells the regions to do, and what they noticed.
#[derive(Debug)]
pub struct Regions {
    /// Index of the one that fails.
    failing: usize,
    /// 0, or an [`Act`] that lasts.
    mode: AtomicU8,
    /// When it began to fail and when it was well again, in milliseconds of Unix time; 0: not yet.
    since: AtomicU64,
    until: AtomicU64,
    /// Requests that were answered badly or slowly.
    hit: AtomicU64,
    /// Milliseconds from the provider's call to the delivery, of the other regions' parcels that came to the gateway
    /// while one failed.
    felt: Mutex<Vec<u64>>,
}

const REFUSE: u8 = 1;
const BREAK: u8 = 2;
const DELAY: u8 = 3;

impl Regions {
    pub fn new(failing: usize) -> Self {
        Self {
            failing,
            mode: AtomicU8::new(0),
            since: AtomicU64::new(0),
            until: AtomicU64::new(0),
            hit: AtomicU64::new(0),
            felt: Mutex::default(),
        }
    }

    /// Begins or ends what concerns the regions.
    pub fn act(&self, act: Act) {
        let mode = match act {
            Act::Refuse => REFUSE,
            Act::Break => BREAK,
            Act::Delay => DELAY,
            Act::Heal => 0,
            Act::Restart | Act::Settled => return,
        };
        let now = unix_ms();
        if mode == 0 {
            self.until.store(now, Relaxed);
        } else if self.since.load(Relaxed) == 0 {
            self.since.store(now, Relaxed);
        }
        self.mode.store(mode, Relaxed);
    }

    /// What a request to `region` is answered.
    pub fn answer(&self, region: Option<usize>, request: &[u8]) -> Answer {
        if region != Some(self.failing) {
            self.note(request, unix_ms());
            return Answer::Taken;
        }
        let answer = match self.mode.load(Relaxed) {
            REFUSE => Answer::Refused,
            BREAK => Answer::Broken,
            DELAY => Answer::TakenAfter(SLOW),
            _ => return Answer::Taken,
        };
        self.hit.fetch_add(1, Relaxed);
        answer
    }

    fn note(&self, request: &[u8], now: u64) {
        let since = self.since.load(Relaxed);
        if since == 0 {
            return;
        }
        let Some(took) = http::header(request, "penstock-received-at").and_then(|at| since_received(at, now))
        else {
            return;
        };
        let (received, until) = (now - took, self.until.load(Relaxed));
        if received >= since && (until == 0 || received < until) {
            self.felt.lock().unwrap_or_else(PoisonError::into_inner).push(took);
        }
    }

    /// What is wrong with how it went; nothing if no region was to fail.
    pub fn faults(&self) -> Vec<String> {
        /// For one delivery in a hundred of the other regions. A queue behind the failing one is seconds long.
        const MOST_MS: u64 = 1000;
        if self.since.load(Relaxed) == 0 {
            return Vec::new();
        }
        let (mut faults, felt) = (Vec::new(), self.felt());
        if self.hit.load(Relaxed) == 0 {
            faults
                .push("the failing region was asked nothing while it failed, expected 1 or more".to_owned());
        }
        match felt {
            None => faults.push("the other regions got nothing while one failed, expected 1 or more".to_owned()),
            Some((_, p99)) if p99 > MOST_MS => faults.push(format!(
                "the other regions felt it: 1 of 100 deliveries took {p99} ms or more, expected {MOST_MS} at most"
            )),
            Some(_) => {}
        }
        faults
    }

    /// Median and 99th percentile, in milliseconds, of what the others got while one failed.
    fn felt(&self) -> Option<(u64, u64)> {
        let mut felt = self.felt.lock().unwrap_or_else(PoisonError::into_inner).clone();
        felt.sort_unstable();
        let at = |percent: usize| {
            felt.get((felt.len() * percent / 100).min(felt.len().saturating_sub(1))).copied()
        };
        at(50).zip(at(99))
    }

    /// What is to be told of it.
    pub fn told(&self) -> Option<String> {
        let (p50, p99) = self.felt()?;
        let (since, until) = (self.since.load(Relaxed), self.until.load(Relaxed));
        Some(format!(
            "region-{} failed for {:.1} s with {} requests; meanwhile the others' deliveries took p50 {p50} ms, p99 {p99} ms",
            self.failing,
            until.saturating_sub(since) as f64 / 1e3,
            self.hit.load(Relaxed)
        ))
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since `2026-09-14T12:00:05.678Z`, which is less than a day ago.
fn since_received(at: &[u8], now: u64) -> Option<u64> {
    let number = |from: usize, to: usize| std::str::from_utf8(at.get(from..to)?).ok()?.parse::<u64>().ok();
    let of_day = ((number(11, 13)? * 60 + number(14, 16)?) * 60 + number(17, 19)?) * 1000 + number(20, 23)?;
    let took = (now % DAY_MS + DAY_MS - of_day) % DAY_MS;
    // Both clocks are one; a difference of almost a day is one of rounding.
    Some(if took > DAY_MS / 2 { 0 } else { took })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(received: u64) -> Vec<u8> {
        let (s, ms) = (received / 1000, received % 1000);
        let (hour, minute, second) = (s / 3600 % 24, s / 60 % 60, s % 60);
        let at = format!("2026-09-14T{hour:02}:{minute:02}:{second:02}.{ms:03}Z");
        format!("POST /region-0 HTTP/1.1\r\npenstock-received-at: {at}\r\n\r\n").into_bytes()
    }

    #[test]
    fn failing_region_fails_as_told_and_no_other() {
        let regions = Regions::new(1);
        let check = |act, expected| {
            regions.act(act);
            assert_eq!(regions.answer(Some(1), b""), expected, "{act:?}");
            assert_eq!(regions.answer(Some(0), b""), Answer::Taken, "{act:?}");
        };
        check(Act::Settled, Answer::Taken);
        assert!(regions.faults().is_empty(), "none was to fail");
        check(Act::Refuse, Answer::Refused);
        check(Act::Break, Answer::Broken);
        check(Act::Delay, Answer::TakenAfter(SLOW));
        check(Act::Heal, Answer::Taken);
        assert_eq!(regions.hit.load(Relaxed), 3);
    }

    #[test]
    fn delay_is_told_over_midnight() {
        let check =
            |at: &str, now, expected| assert_eq!(since_received(at.as_bytes(), now), expected, "{at}");
        check("2026-09-14T12:00:05.678Z", 43_205_700, Some(22));
        check("2026-09-14T23:59:59.990Z", 3 * DAY_MS + 10, Some(20));
        check("2026-09-14T12:00:05.678Z", 43_205_677, Some(0));
        check("long ago", 0, None);
    }

    #[test]
    fn others_that_feel_it_and_a_fault_that_never_was_are_found() {
        let regions = Regions::new(1);
        regions.act(Act::Refuse);
        assert_eq!(regions.faults().len(), 2, "nobody was asked anything");
        regions.answer(Some(1), b"");
        let since = regions.since.load(Relaxed);
        // Of before it began, and quick ones.
        regions.note(&request(since - 10), since + 5000);
        (0..500).for_each(|n| regions.note(&request(since + n), since + n + 5));
        assert_eq!((regions.faults(), regions.felt()), (Vec::new(), Some((5, 5))));
        // What came meanwhile and is delivered only afterwards counts, too.
        regions.act(Act::Heal);
        regions.until.store(since + 600, Relaxed);
        (0..20).for_each(|n| regions.note(&request(since + 500 + n), since + 9000));
        assert!(regions.faults()[0].contains("the other regions felt it"), "{:?}", regions.faults());
    }
}
