//! Whether a region is asked at all.
//!
//! ```text
//! closed ──too many failures, slow answers, nobody there──> open ──its pause is over──> half-open
//!    ^                     ^    │ Retry-After sets the pause                              │   │
//!    └──1, then 3, then 5 probes were taken───────────────┼──────a probe failed───────────┘   │
//!                                                         └───────────────────────────────────┘
//! paused: it answered 410; one probe now and then tells when this is over
//! ```
//!
//! What a parcel that failed before brings says something about this parcel, not about the region, as long
//! as others are taken meanwhile: such outcomes are *suspect*, and neither open the breaker nor keep it closed.
//!
//! Pure: the moment and the randomness are arguments.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::retry::{Rng, wait_asked};
use crate::fault;

/// It opens at half of this many outcomes failed, or more than half of them slow.
const LEAST: usize = 20;
/// Outcomes that are looked at: these, and none that is older. So that a busy region's failure shows
/// within a moment, not when half of 30 s of its traffic have failed.
const LAST: usize = 128;
const YOUNG: Duration = Duration::from_secs(30);
/// Attempts in a row without any answer after which nobody is there.
const UNANSWERED: u32 = 10;
/// Pauses before it is half-open. The first ones are short: most outages are a restart.
const PAUSES: [u64; 7] = [1, 2, 5, 10, 20, 40, 60];
/// Opened again within this after it closed, it goes on where it was in [`PAUSES`].
const RELAPSE: Duration = Duration::from_secs(60);
/// Probes at once, and successes that lead on.
const STAGES: [u32; 3] = [1, 3, 5];
/// A wish to wait at least this long gets one probe halfway: it may have been a slip.
const LONG_WISH: Duration = Duration::from_secs(10);
/// Between two probes of a region that answered 410.
const GONE_PROBE: Duration = Duration::from_mins(5);

/// As it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    Closed = 0,
    HalfOpen = 1,
    Open = 2,
    Paused = 3,
}

/// What may start now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    Free,
    /// Probes, at most so many.
    Probes(u32),
}

/// How an attempt without success counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Answer,
    /// No answer came.
    Nothing,
    /// 410.
    Gone,
}

/// An outcome as the breaker sees it.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// None: delivered.
    pub failed: Option<Cause>,
    /// It took nearly all of the time-out.
    pub slow: bool,
    /// It was started as a probe.
    pub probe: bool,
    /// It says something about its parcel only.
    pub suspect: bool,
}

#[derive(Debug, Clone, Copy)]
enum Gate {
    Closed { since: Instant },
    Open { until: Instant, probe_at: Option<Instant> },
    HalfOpen { stage: usize, taken: u32 },
    Paused { probe_at: Instant },
}

/// The breaker of one region.
#[derive(Debug)]
pub struct Breaker {
    gate: Gate,
    recent: VecDeque<(Instant, bool, bool)>,
    /// Of `recent`.
    failed: usize,
    slow: usize,
    unanswered: u32,
    /// Place in [`PAUSES`].
    pause: usize,
}

impl Breaker {
    /// Closed.
    pub fn new(now: Instant) -> Self {
        Self {
            gate: Gate::Closed { since: now },
            recent: VecDeque::with_capacity(LAST),
            failed: 0,
            slow: 0,
            unanswered: 0,
            pause: 0,
        }
    }

    pub fn state(&self) -> State {
        match self.gate {
            Gate::Closed { .. } => State::Closed,
            Gate::Open { .. } => State::Open,
            Gate::HalfOpen { .. } => State::HalfOpen,
            Gate::Paused { .. } => State::Paused,
        }
    }

    /// Since when it has been closed; `None` if it is not.
    pub fn closed_since(&self) -> Option<Instant> {
        match self.gate {
            Gate::Closed { since } => Some(since),
            _ => None,
        }
    }

    /// What may start while `probing` probes are under way.
    pub fn room(&mut self, probing: u32, now: Instant) -> Room {
        if let Gate::Open { until, .. } = self.gate
            && until <= now
        {
            self.gate = Gate::HalfOpen { stage: 0, taken: 0 };
        }
        match self.gate {
            Gate::Closed { .. } => Room::Free,
            Gate::HalfOpen { stage, .. } => Room::Probes(STAGES[stage].saturating_sub(probing)),
            Gate::Open { probe_at, .. } => {
                Room::Probes(u32::from(probing == 0 && probe_at.is_some_and(|at| at <= now)))
            }
            Gate::Paused { probe_at } => Room::Probes(u32::from(probing == 0 && probe_at <= now)),
        }
    }

    /// When [`Breaker::room`] may grow by itself.
    pub fn wake(&self) -> Option<Instant> {
        match self.gate {
            Gate::Closed { .. } | Gate::HalfOpen { .. } => None,
            Gate::Open { until, probe_at } => Some(probe_at.map_or(until, |at| at.min(until))),
            Gate::Paused { probe_at } => Some(probe_at),
        }
    }

    /// An attempt has ended.
    pub fn note(&mut self, outcome: Outcome, rng: &mut Rng, now: Instant) {
        if outcome.probe {
            self.note_probe(outcome, rng, now);
        } else if let Gate::Closed { since } = self.gate
            && (!outcome.suspect || fault::planted("breaker-opens-for-poison"))
        {
            self.look_at(outcome, now);
            let count = self.recent.len();
            let many = count >= LEAST && (self.failed * 2 >= count || self.slow * 2 > count);
            if outcome.failed == Some(Cause::Gone) {
                self.gate = Gate::Paused { probe_at: now + GONE_PROBE };
            } else if (many || self.unanswered >= UNANSWERED) && !fault::planted("breaker-never-opens") {
                if now.saturating_duration_since(since) >= RELAPSE {
                    self.pause = 0;
                }
                self.open(rng, now);
            }
        }
    }

    /// The region asks to be left alone for that long.
    pub fn hold(&mut self, asked: Duration, now: Instant) {
        let wish = wait_asked(asked);
        let until = match self.gate {
            Gate::Paused { .. } => return,
            Gate::Open { until, .. } => until.max(now + wish),
            _ => now + wish,
        };
        let probe_at = (wish >= LONG_WISH).then(|| now + wish / 2);
        self.gate = Gate::Open { until, probe_at };
    }

    fn note_probe(&mut self, outcome: Outcome, rng: &mut Rng, now: Instant) {
        match (self.gate, outcome.failed) {
            (Gate::HalfOpen { stage, taken }, None) => self.taken(stage, taken + 1, now),
            (Gate::Open { .. } | Gate::Paused { .. }, None) => self.taken(0, 1, now),
            // A parcel that everybody else is taken without proves nothing.
            (Gate::Paused { .. }, Some(_)) if outcome.suspect => {
                self.gate = Gate::Paused { probe_at: now + GONE_PROBE }
            }
            (_, Some(_)) if outcome.suspect => {}
            (Gate::HalfOpen { .. }, Some(Cause::Gone)) => {
                self.gate = Gate::Paused { probe_at: now + GONE_PROBE };
            }
            (Gate::HalfOpen { .. }, Some(_)) => self.open(rng, now),
            (Gate::Open { until, .. }, Some(_)) => self.gate = Gate::Open { until, probe_at: None },
            // Silence does not say that it is back.
            (Gate::Paused { .. }, Some(Cause::Gone | Cause::Nothing)) => {
                self.gate = Gate::Paused { probe_at: now + GONE_PROBE };
            }
            (Gate::Paused { .. }, Some(Cause::Answer)) => self.open(rng, now),
            (Gate::Closed { .. }, Some(_) | None) => {}
        }
    }

    /// A probe was taken.
    fn taken(&mut self, stage: usize, taken: u32, now: Instant) {
        let last = stage + 1 == STAGES.len() || fault::planted("closed-by-one-probe");
        self.gate = if taken < STAGES[stage] {
            Gate::HalfOpen { stage, taken }
        } else if !last {
            Gate::HalfOpen { stage: stage + 1, taken: 0 }
        } else {
            self.forget();
            Gate::Closed { since: now }
        };
    }

    fn open(&mut self, rng: &mut Rng, now: Instant) {
        let at = if fault::planted("pauses-do-not-grow") { 0 } else { self.pause.min(PAUSES.len() - 1) };
        let seconds = PAUSES[at];
        self.pause = (self.pause + 1).min(PAUSES.len() - 1);
        let pause = Duration::from_secs(seconds);
        // Up to a quarter more, so that the gateways of a fleet do not probe as one.
        let jitter = Duration::from_nanos(rng.below(pause.as_nanos() as u64 / 4));
        self.gate = Gate::Open { until: now + pause + jitter, probe_at: None };
        self.forget();
    }

    fn forget(&mut self) {
        self.recent.clear();
        (self.failed, self.slow, self.unanswered) = (0, 0, 0);
    }

    fn look_at(&mut self, outcome: Outcome, now: Instant) {
        while let Some(&(at, failed, slow)) = self.recent.front()
            && (self.recent.len() >= LAST || now.saturating_duration_since(at) > YOUNG)
        {
            self.failed -= usize::from(failed);
            self.slow -= usize::from(slow);
            self.recent.pop_front();
        }
        let failed = outcome.failed.is_some();
        self.recent.push_back((now, failed, outcome.slow));
        self.failed += usize::from(failed);
        self.slow += usize::from(outcome.slow);
        self.unanswered = if outcome.failed == Some(Cause::Nothing) { self.unanswered + 1 } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: Outcome = Outcome { failed: None, slow: false, probe: false, suspect: false };
    const BAD: Outcome = Outcome { failed: Some(Cause::Answer), ..FINE };

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    /// Notes `outcomes`, 10 ms apart; the state afterwards.
    fn after(outcomes: impl Iterator<Item = Outcome>) -> State {
        let start = Instant::now();
        let (mut breaker, mut rng) = (Breaker::new(start), Rng::new(1));
        for (n, outcome) in (0..).zip(outcomes) {
            breaker.note(outcome, &mut rng, at(start, n * 10));
        }
        breaker.state()
    }

    fn every(of: usize, bad: Outcome) -> impl Iterator<Item = Outcome> {
        (1..=1_000).map(move |n| if n % of == 0 { bad } else { FINE })
    }

    #[test]
    fn half_of_twenty_failures_open_it_and_fewer_do_not() {
        assert_eq!(after(std::iter::repeat_n(BAD, 19)), State::Closed);
        assert_eq!(after(std::iter::repeat_n(BAD, 20)), State::Open);
        assert_eq!(after(every(2, BAD)), State::Open);
        assert_eq!(after(every(3, BAD)), State::Closed);
        // After much health an outage shows within a moment.
        let outage = std::iter::repeat_n(FINE, 10_000).chain(std::iter::repeat_n(BAD, 64));
        assert_eq!(after(outage), State::Open);
    }

    #[test]
    fn ten_attempts_without_an_answer_open_it() {
        let silence = Outcome { failed: Some(Cause::Nothing), ..FINE };
        assert_eq!(after(std::iter::repeat_n(silence, 9).chain([BAD])), State::Closed);
        assert_eq!(after(std::iter::repeat_n(silence, 10)), State::Open);
    }

    #[test]
    fn slow_answers_open_it_though_all_succeed() {
        let slow = Outcome { slow: true, ..FINE };
        assert_eq!(after(every(2, slow)), State::Closed, "half is not more than half");
        assert_eq!(after(std::iter::repeat_n(slow, 20)), State::Open);
    }

    #[test]
    fn what_is_said_of_a_parcel_alone_neither_opens_nor_keeps_closed() {
        let suspect = Outcome { suspect: true, ..BAD };
        assert_eq!(after(std::iter::repeat_n(suspect, 1_000)), State::Closed);
        let lucky = Outcome { suspect: true, ..FINE };
        assert_eq!(after((0..100).flat_map(|_| [lucky, lucky, lucky, BAD])), State::Open);
    }

    #[test]
    fn old_failures_are_forgotten() {
        let start = Instant::now();
        let (mut breaker, mut rng) = (Breaker::new(start), Rng::new(1));
        for n in 0..100 {
            breaker.note(BAD, &mut rng, at(start, n * 2_000));
        }
        assert_eq!(breaker.state(), State::Closed, "15 failures in 30 s are too few to tell");
    }

    #[test]
    fn pauses_grow_to_a_minute_and_begin_anew_after_a_healthy_one() {
        let mut now = Instant::now();
        let (mut breaker, mut rng) = (Breaker::new(now), Rng::new(1));
        let pause = |breaker: &mut Breaker, rng: &mut Rng, now: &mut Instant| {
            if breaker.state() == State::Closed {
                (0..20).for_each(|_| breaker.note(BAD, rng, *now));
            } else {
                assert_eq!(breaker.room(0, *now), Room::Probes(1));
                breaker.note(Outcome { probe: true, ..BAD }, rng, *now);
            }
            let until = breaker.wake().unwrap();
            let pause = until - *now;
            assert_eq!(breaker.room(0, until - Duration::from_millis(1)), Room::Probes(0));
            *now = until;
            pause.as_secs_f64()
        };
        for expected in [1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0, 60.0] {
            let pause = pause(&mut breaker, &mut rng, &mut now);
            assert!((expected..=expected * 1.25).contains(&pause), "{pause} s, expected {expected}");
        }
        for stage in STAGES {
            assert_eq!(breaker.room(0, now), Room::Probes(stage));
            (0..stage).for_each(|_| breaker.note(Outcome { probe: true, ..FINE }, &mut rng, now));
        }
        assert_eq!((breaker.state(), breaker.closed_since()), (State::Closed, Some(now)));
        let relapsed = pause(&mut breaker, &mut rng, &mut now);
        assert!(relapsed >= 60.0, "{relapsed} s: it relapsed at once");
        breaker.room(0, now);
        (0..9).for_each(|_| breaker.note(Outcome { probe: true, ..FINE }, &mut rng, now));
        now += RELAPSE;
        let first = pause(&mut breaker, &mut rng, &mut now);
        assert!(first < 2.0, "{first} s");
    }
}
