//! Group commit on a modelled disk: how many webhooks a commit carries and how long an answer waits, for each rate
//! of arrivals and each time that a sync takes; and what the decisions themselves cost.
//!
//! The table is a simulation: the shipped policy, arrivals at random moments, a disk whose every write takes the same.

#![allow(clippy::print_stdout, reason = "a measurement says what it found")]

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use penstock::journal::commit::{CommitPolicy, Decision, Waiting};

/// Arrivals per second, at one core.
const RATES: [u32; 3] = [1_000, 10_000, 100_000];
const SYNCS: [Duration; 4] = [
    Duration::from_micros(50),
    Duration::from_millis(1),
    Duration::from_millis(4),
    Duration::from_millis(10),
];
/// The default of `journal.commit_delay`.
const DELAY: Duration = Duration::from_millis(2);
/// Of a record: head, meta and body of a status.
const BYTES: usize = 1_000;
/// From here on an append has the policy asked again, as the writer does.
const ASK_AGAIN: usize = 256 * 1024;
/// Simulated time of a cell of the table; the first tenth is not counted.
const TIME: Duration = Duration::from_secs(2);

/// Random moments, `rate` a second on average, from a seed.
struct Arrivals {
    state: u64,
    mean: f64,
    next: Duration,
}

impl Arrivals {
    fn new(rate: u32) -> Self {
        Self { state: 1, mean: 1.0 / f64::from(rate), next: Duration::ZERO }
    }

    fn pass(&mut self) -> Duration {
        let now = self.next;
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let uniform = ((self.state >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
        self.next += Duration::from_secs_f64(-uniform.ln() * self.mean);
        now
    }
}

/// What came of it.
#[derive(Default)]
struct Outcome {
    commits: usize,
    /// From the arrival to the end of the write.
    waits: Vec<Duration>,
}

impl Outcome {
    fn wait(&self, share: f64) -> f64 {
        let at = ((self.waits.len() as f64 * share) as usize).min(self.waits.len().saturating_sub(1));
        self.waits.get(at).map_or(0.0, |wait| wait.as_secs_f64() * 1e3)
    }
}

fn simulate(rate: u32, sync: Duration) -> Outcome {
    let (begin, mut now) = (Instant::now(), Duration::ZERO);
    let mut policy = CommitPolicy::new(DELAY);
    let mut arrivals = Arrivals::new(rate);
    let mut waiting = VecDeque::new();
    let mut outcome = Outcome::default();
    while now < TIME {
        while arrivals.next <= now {
            waiting.push_back(arrivals.pass());
        }
        let said = Waiting {
            bytes: waiting.len() * BYTES,
            entries: waiting.len(),
            oldest_entry: waiting.front().map(|at| begin + *at),
            oldest_mark: None,
        };
        match policy.decide(begin + now, &said) {
            decision @ (Decision::Write | Decision::Tick) => {
                let entries = if decision == Decision::Write { waiting.len() } else { 0 };
                policy.started(begin + now, entries);
                now += sync;
                policy.finished(begin + now, entries == 0);
                let written = waiting.drain(..entries);
                if now > TIME / 10 {
                    outcome.commits += 1;
                    outcome.waits.extend(written.map(|at| now - at));
                }
            }
            Decision::Until(at) => {
                let at = at.saturating_duration_since(begin);
                // What is first wakes the writer, and so does what is much; the rest joins in silence.
                let mut first = waiting.is_empty();
                while arrivals.next <= at {
                    let came = arrivals.pass();
                    waiting.push_back(came);
                    now = came;
                    if std::mem::take(&mut first) || waiting.len() * BYTES >= ASK_AGAIN {
                        break;
                    }
                }
                if arrivals.next > at {
                    now = at;
                }
            }
            Decision::Idle => now = arrivals.next,
        }
    }
    outcome.waits.sort_unstable();
    outcome
}

fn table() {
    println!("commit policy, simulated:");
    println!(
        "{:>12} {:>9} {:>10} {:>9} {:>9} {:>9}",
        "webhooks/s", "sync ms", "commits/s", "batch", "p50 ms", "p99 ms"
    );
    for rate in RATES {
        for sync in SYNCS {
            let outcome = simulate(rate, sync);
            println!(
                "{rate:>12} {:>9} {:>10.0} {:>9.1} {:>9.2} {:>9.2}",
                sync.as_secs_f64() * 1e3,
                outcome.commits as f64 / (TIME * 9 / 10).as_secs_f64(),
                outcome.waits.len() as f64 / outcome.commits.max(1) as f64,
                outcome.wait(0.5),
                outcome.wait(0.99),
            );
        }
    }
}

fn commit(c: &mut Criterion) {
    table();
    let mut group = c.benchmark_group("commit policy");
    for sync in SYNCS {
        let (mut policy, mut now) = (CommitPolicy::new(DELAY), Instant::now());
        // What the writer asks for one commit: when it is too early, when it is time, and twice around the write.
        group.bench_function(format!("decide and write/sync={} us", sync.as_micros()), |b| {
            b.iter(|| {
                let waiting =
                    Waiting { bytes: 128 * BYTES, entries: 128, oldest_entry: Some(now), oldest_mark: None };
                let early = policy.decide(black_box(now), black_box(&waiting));
                now += Duration::from_micros(1_400);
                let due = policy.decide(black_box(now), black_box(&waiting));
                policy.started(now, 128);
                now += sync;
                policy.finished(now, false);
                (early, due)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, commit);
criterion_main!(benches);
