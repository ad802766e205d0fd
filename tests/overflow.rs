//! Memory between the commit and the delivery made so small that it overflows all the time: channels
//! of two frames, windows of a few parcels. Everything then goes through the journals and back, with
//! kills in between and other numbers of cores behind them, and the promises are the same.
//!
//! The gateway is this program itself, started once more with its limits ([`host`]).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "plain threads that may wait")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock::handoff::Limits;

use support::body::World;
use support::gateway::Gateway;
use support::hosted;
use support::ledger::Ledger;
use support::metrics::{DUPLICATES, HANDOFF_FULL, LAGGING};
use support::region::{Mode, Region};
use support::sender::{Load, Sender};
use support::settings::{Rule, Settings};
use support::{Random, alone, eventually, seed, setting};

const PREFIXES: [&str; 4] = ["1", "91", "55", "49"];
const LIMITS: Limits = Limits { frames: 2, held_bytes: 256 << 10, window: 24, kept: 6 };
/// Ingest and forwarding cores of each start.
const LAYOUTS: [(usize, usize); 5] = [(2, 2), (1, 1), (3, 2), (2, 1), (1, 2)];
/// For all that was acked to arrive after the last start.
const SETTLE: Duration = Duration::from_secs(60);

#[test]
#[ignore = "is the gateway of the other tests"]
fn host() {
    hosted::run(LIMITS, |_| ());
}

/// Steady, one parcel at a time, slow, and one that comes and goes.
fn regions() -> [Region; 4] {
    let mut regions = ["steady", "narrow", "slow", "fickle"].map(Region::start);
    regions[1].set(Mode::Slow(Duration::from_millis(1)));
    regions[2].set(Mode::Slow(Duration::from_millis(40)));
    regions
}

fn start(regions: &[Region], ingest: usize, forward: usize) -> Gateway {
    let in_flight = [64, 1, 16, 64];
    let rule = |((region, prefix), in_flight): ((&Region, &str), usize)| {
        Rule::new(region, &format!("prefixes = [\"{prefix}\"]\nin_flight = {in_flight}"))
    };
    let rules = regions.iter().zip(PREFIXES).zip(in_flight).map(rule).collect();
    Gateway::start(Settings { ingest, forward, command: hosted::command, ..Settings::of(rules) })
}

fn load(gateway: &Gateway, rate: u32, seed: u64) -> Load {
    // Segments of 16 MiB are filled every few seconds, so that readers meet their ends.
    let world = Arc::new(World::new(&PREFIXES, 30, 6 << 10));
    Load { address: gateway.listen, path: "/webhook".into(), world, connections: 12, rate, seed }
}

#[test]
fn nothing_is_lost_or_reordered_while_channels_and_windows_overflow_between_kills() {
    let _alone = alone();
    let (seed, kills) = (seed(), setting("PENSTOCK_KILLS", 5));
    let mut random = Random(seed);
    let mut regions = regions();
    let mut gateway = start(&regions, 2, 2);
    let mut ledger = Ledger::default();
    let sender = Sender::start(&load(&gateway, 900, seed));
    let (mut full, mut lagged) = (0.0, 0.0);
    for kill in 0..kills {
        for mode in [Mode::Refuse, Mode::Ok, Mode::Slow(Duration::from_millis(5)), Mode::Ok] {
            regions[3].set(mode);
            std::thread::sleep(Duration::from_millis(50 + random.below(400) as u64));
            lagged += gateway.metrics().total(LAGGING);
        }
        let metrics = gateway.metrics();
        full += metrics.total(HANDOFF_FULL);
        // Nobody said anything twice, and no kill made it unknown what was delivered.
        assert!(kill > 0 || metrics.total(DUPLICATES) == 0.0, "parcels were taken for repeats of themselves");
        ledger.killed(gateway.kill9());
        let (ingest, forward) = LAYOUTS[(kill as usize + 1) % LAYOUTS.len()];
        gateway.restart_with(ingest, forward);
    }
    std::thread::sleep(Duration::from_millis(500));
    ledger.add(sender.stop());
    println!("{full} times a channel was full, {lagged} regions seen lagging");
    assert!(full > 10.0 && lagged > 10.0, "nothing overflowed: the test tested nothing");
    ledger.assert_kept(&gateway, &regions, SETTLE);
}

#[test]
#[ignore = "measures time, and needs a machine of its own: 0.3 s here, and all of the past (1 to 2 s) without turns"]
fn region_far_behind_does_not_hold_up_one_that_lags_a_little() {
    let _alone = alone();
    let mut regions = ["steady", "behind"].map(Region::start);
    regions[1].set(Mode::Refuse);
    let rules = regions.iter().zip(["1", "91"]);
    let rules =
        rules.map(|(region, prefix)| Rule::new(region, &format!("prefixes = [\"{prefix}\"]\nin_flight = 2")));
    let gateway = Gateway::start(Settings { command: hosted::command, ..Settings::of(rules.collect()) });
    let send = |prefixes: &[&str], padding, rate, millis| {
        let world = Arc::new(World::new(prefixes, 30, padding).without_batches());
        let load =
            Load { address: gateway.listen, path: "/webhook".into(), world, connections: 8, rate, seed: 1 };
        let sender = Sender::start(&load);
        std::thread::sleep(Duration::from_millis(millis));
        sender.stop().iter().filter(|sent| sent.acked().is_some()).count()
    };
    // Two windows for one region, then some hundred MiB that are not for it.
    let few = send(&["91"], 100, 100, 500);
    let mut many = send(&["1"], 128 << 10, 0, 5_000);
    // The other one falls behind a little.
    regions[0].set(Mode::Slow(Duration::from_millis(200)));
    many += send(&["1"], 100, 200, 1_000);
    let before = regions[1].count();
    regions[1].set(Mode::Slow(Duration::from_millis(20)));
    // Near its last parcels it looks for more and finds none.
    eventually("it comes back", Duration::from_secs(10), || regions[1].count() >= before + few - 8);
    let start = Instant::now();
    regions[0].set(Mode::Ok);
    eventually("the steady region has all", Duration::from_secs(30), || regions[0].count() >= many);
    let took = start.elapsed();
    println!("of {many} parcels the steady region had the last {took:?} after it was well again");
    eventually("the other one has all", Duration::from_secs(30), || regions[1].count() >= before + few);
    assert!(took < Duration::from_millis(800), "held up by a region that is far behind: {took:?}");
}
