//! "Nothing acknowledged is lost, doubled or out of order", under a seeded simulation of the whole gateway.
//!
//! ```text
//! cargo test --test delivery_sim                                                     some worlds
//! PENSTOCK_SEEDS=1000000 cargo test --release --test delivery_sim -- --nocapture     many, on all CPUs
//! PENSTOCK_SEED=7 PENSTOCK_TRACE=1 cargo test --test delivery_sim -- --nocapture     one, told step by step
//! ```
//!
//! `PENSTOCK_FROM` is the first seed of many. What is simulated and what is not: `tests/sim/mod.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it did"
)]
#![allow(clippy::disallowed_types, reason = "worlds on several threads, and wakers that any thread may hold")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use sim::world::{Report, run};

#[allow(dead_code, reason = "the journal's own tests use the disk, too")]
mod sim;

/// The gateway's own allocator: a fifth of a world is memory that comes and goes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Worlds of a plain `cargo test`, without optimisation.
const SEEDS: u64 = 1000;
/// Failing worlds that are told in full.
const TOLD: usize = 5;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// A world that panics is one with a violation.
fn world(seed: u64) -> Report {
    let loud = std::env::var_os("PENSTOCK_TRACE").is_some();
    catch_unwind(AssertUnwindSafe(|| run(seed, loud))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Report { violations: vec![format!("panic: {}", text.unwrap_or_default())], ..Report::default() }
    })
}

#[test]
fn nothing_acknowledged_is_lost_doubled_or_out_of_order() {
    let (from, count) = match number("PENSTOCK_SEED") {
        Some(seed) => (seed, 1),
        None => (number("PENSTOCK_FROM").unwrap_or(1), number("PENSTOCK_SEEDS").unwrap_or(SEEDS)),
    };
    let start = Instant::now();
    let (next, sum, wrong) = (AtomicU64::new(from), Mutex::new(Report::default()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let mut mine = Report::default();
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= from + count {
                        break;
                    }
                    let report = world(seed);
                    if !report.violations.is_empty() {
                        wrong.lock().unwrap().push((seed, report.violations.clone()));
                    }
                    mine.add(&report);
                }
                sum.lock().unwrap().add(&mine);
            });
        }
    });
    let (sum, mut wrong) = (sum.into_inner().unwrap(), wrong.into_inner().unwrap());
    let seconds = start.elapsed().as_secs_f64();
    println!("{count} worlds in {seconds:.1} s, {:.0} a second: {sum}", count as f64 / seconds);
    wrong.sort();
    for (seed, violations) in wrong.iter().take(TOLD) {
        println!("world {seed}: {violations:#?}");
        println!(
            "again: PENSTOCK_SEED={seed} PENSTOCK_TRACE=1 cargo test --test delivery_sim -- --nocapture"
        );
    }
    assert_eq!(wrong.len(), 0, "worlds in which a promise was broken");
    let ahead = sum.ahead_worlds;
    assert!(count < 1000 || ahead * 100 >= count, "in {ahead} worlds something went ahead of a backlog");
}

#[test]
fn a_seed_is_a_world() {
    if number("PENSTOCK_SEED").is_some() {
        return;
    }
    for seed in 1..40 {
        let (first, second) = (run(seed, false), run(seed, false));
        assert_eq!(
            (first.trace, first.polls, first.time),
            (second.trace, second.polls, second.time),
            "seed {seed}"
        );
        assert_ne!(first.trace, run(seed + 1000, false).trace);
    }
}
