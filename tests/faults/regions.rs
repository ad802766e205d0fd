//! Regions that answer in every way but the right one: whoever is well feels nothing of it, memory stays
//! bounded, and once they are well too, everything is there.
//!
//! What the client makes of each answer is `tests/client`; plain outages are `tests/outage.rs`.

use std::time::{Duration, Instant};

use crate::row;
use crate::support::alone;
use crate::support::body::World;
use crate::support::gateway::Gateway;
use crate::support::ledger::Ledger;
use crate::support::metrics::MEMORY;
use crate::support::p99;
use crate::support::region::{Mode, Region, Rude};
use crate::support::sender::{Load, Sender};
use crate::support::settings::{Rule, Settings};

/// The first is steady; each of the others has its own way.
const PREFIXES: [&str; 11] = ["1", "91", "55", "49", "33", "44", "34", "39", "81", "82", "86"];
const STEADY: usize = 0;
const FOR: Duration = Duration::from_secs(6);
/// All of them together.
const GROWTH: f64 = 64.0;
/// Eleven regions and their threads on two shared cores are noisy.
const NOISE: Duration = Duration::from_millis(300);

#[test]
fn rude_regions_harm_nobody_else_and_get_everything_once_they_are_well() {
    let _alone = alone();
    let mut regions: Vec<Region> = (0..PREFIXES.len()).map(|n| Region::start(&format!("r{n}"))).collect();
    let rule = |(region, prefix): (&Region, &str)| {
        Rule::new(region, &format!("prefixes = [\"{prefix}\"]\ntimeout = \"3s\""))
    };
    let rules = regions.iter().zip(PREFIXES).map(rule).collect();
    let gateway = Gateway::start(Settings { forward: 2, ..Settings::of(rules) });
    let world = World::new(&PREFIXES, 10, 100).without_batches().into();
    let load =
        Load { address: gateway.listen, path: "/webhook".into(), world, connections: 8, rate: 300, seed: 1 };
    let sender = Sender::start(&load);
    std::thread::sleep(Duration::from_secs(1));
    let calm = Instant::now();
    std::thread::sleep(Duration::from_secs(2));
    let memory = gateway.metrics().total(MEMORY);
    let modes = Rude::ALL.map(Mode::Rude).into_iter().chain([Mode::Status(302), Mode::Status(404)]);
    let modes: Vec<Mode> = modes.collect();
    let from = Instant::now();
    let before: Vec<usize> = regions.iter().map(Region::count).collect();
    regions[1..].iter_mut().zip(&modes).for_each(|(region, mode)| region.set(*mode));
    std::thread::sleep(FOR);
    let grown = (gateway.metrics().total(MEMORY) - memory) / f64::from(1 << 20);
    let to = Instant::now();
    let tried: Vec<usize> =
        regions.iter().zip(before).map(|(region, before)| region.count() - before).collect();
    regions[1..].iter_mut().for_each(|region| region.set(Mode::Ok));
    std::thread::sleep(Duration::from_secs(1));
    let mut ledger = Ledger::default();
    ledger.add(sender.stop());
    ledger.assert_kept(&gateway, &regions, Duration::from_secs(120));
    let [usual, steady] =
        [(calm, from), (from, to)].map(|(from, to)| p99(&mut ledger.delays(&regions, STEADY, from, to)));
    for (mode, tried) in modes.iter().zip(&tried[1..]) {
        row("rude region", &format!("{mode:?} for {FOR:?}"), *tried, "all delivered once it was well");
        assert!(*tried > 0, "{mode:?} was never met");
    }
    println!("memory {grown:+.1} MiB; the steady region's p99 {steady:.1?}, before {usual:.1?}");
    assert!(grown < GROWTH, "memory grew by {grown} MiB");
    assert!(steady <= usual * 2 + NOISE, "the steady region felt it: {steady:?}, before {usual:?}");
}
