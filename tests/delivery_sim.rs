//! "Nothing acknowledged is lost, doubled or out of order", under a seeded simulation.
//!
//! ```text
//! PENSTOCK_SEED=7 PENSTOCK_TRACE=1 cargo test --test delivery_sim -- --nocapture     one world, told
//! PENSTOCK_SEEDS=1000000 cargo test --release --test delivery_sim -- --nocapture     many
//! ```
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod sim;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn nothing_acknowledged_is_lost_doubled_or_out_of_order() {
    let loud = std::env::var_os("PENSTOCK_TRACE").is_some();
    let (from, count) = match number("PENSTOCK_SEED") {
        Some(seed) => (seed, 1),
        None => (1, number("PENSTOCK_SEEDS").unwrap_or(200)),
    };
    let start = std::time::Instant::now();
    let mut sum = sim::world::Report::default();
    let mut wrong = 0;
    for seed in from..from + count {
        let report = sim::world::run(seed, loud);
        sum.crashes += report.crashes;
        sum.power_cuts += report.power_cuts;
        sum.stops += report.stops;
        sum.outages += report.outages;
        sum.events += report.events;
        sum.acked += report.acked;
        sum.takes += report.takes;
        sum.repeats += report.repeats;
        sum.polls += report.polls;
        sum.time += report.time;
        if !report.violations.is_empty() {
            wrong += 1;
            if wrong < 6 {
                println!("seed {seed}: {:#?}", report.violations);
            }
        }
    }
    println!("{count} seeds in {:?}: {sum:?}", start.elapsed());
    assert_eq!(wrong, 0, "seeds with violations");
}
