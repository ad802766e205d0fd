//! Regions that answer in every way but the right one: whoever is well feels nothing of it, memory stays
//! bounded, and once they are well too, everything is there.
//!
//! What the client makes of each answer is `tests/client`; plain outages are `tests/outage.rs`.

use std::time::{Duration, Instant};

use crate::row;
use crate::stage::PREFIXES;
use crate::support::alone;
use crate::support::body::World;
use crate::support::gateway::Gateway;
use crate::support::ledger::Ledger;
use crate::support::metrics::MEMORY;
use crate::support::p99;
use crate::support::region::{Mode, Region, Rude};
use crate::support::sender::{Load, Sender};
use crate::support::settings::{Rule, Settings};

const STEADY: usize = 0;
const GROWTH: f64 = 48.0;
const NOISE: Duration = Duration::from_millis(200);

#[test]
fn rude_regions_harm_nobody_else_and_get_everything_once_they_are_well() {
    let _alone = alone();
    let mut regions = ["steady", "rude"].map(Region::start);
    let rules = [
        Rule::new(&regions[0], "prefixes = [\"1\"]"),
        Rule::new(&regions[1], "prefixes = [\"91\"]\ntimeout = \"3s\""),
    ];
    let gateway = Gateway::start(Settings { forward: 2, ..Settings::of(rules.to_vec()) });
    let world = World::new(&PREFIXES[..2], 60, 100).without_batches().into();
    let load =
        Load { address: gateway.listen, path: "/webhook".into(), world, connections: 8, rate: 200, seed: 1 };
    let sender = Sender::start(&load);
    std::thread::sleep(Duration::from_secs(1));
    let calm = Instant::now();
    std::thread::sleep(Duration::from_secs(1));
    let memory = gateway.metrics().total(MEMORY);
    let mut times = Vec::new();
    let modes = Rude::ALL.map(Mode::Rude).into_iter().chain([Mode::Status(302), Mode::Status(404)]);
    for mode in modes {
        let (from, before) = (Instant::now(), regions[1].count());
        regions[1].set(mode);
        std::thread::sleep(Duration::from_secs(2));
        let tried = regions[1].count() - before;
        assert!(tried > 0, "{mode:?} was never met");
        let grown = (gateway.metrics().total(MEMORY) - memory) / f64::from(1 << 20);
        assert!(grown < GROWTH, "{mode:?}: memory grew by {grown} MiB");
        times.push((mode, from, Instant::now(), tried, grown));
        regions[1].set(Mode::Ok);
        std::thread::sleep(Duration::from_millis(700));
    }
    let mut ledger = Ledger::default();
    ledger.add(sender.stop());
    ledger.assert_kept(&regions, Duration::from_secs(90));
    let mut usual = ledger.delays(&regions, STEADY, calm, times[0].1);
    let usual = p99(&mut usual);
    for (mode, from, to, tried, grown) in times {
        let steady = p99(&mut ledger.delays(&regions, STEADY, from, to));
        assert!(
            steady <= usual * 2 + NOISE,
            "{mode:?}: the other region felt it: {steady:?}, usual {usual:?}"
        );
        let result = format!("0 lost; others' p99 {steady:.1?} (usual {usual:.1?}), memory {grown:+.0} MiB");
        row("rude region", &format!("{mode:?}"), tried, &result);
    }
}
