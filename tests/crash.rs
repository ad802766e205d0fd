//! kill -9 under load: what was answered 200 is delivered, in order per conversation, by whatever
//! number of cores comes back.
//!
//! `PENSTOCK_KILLS` sets the kills per layout (a push runs 6, the full form is
//! `PENSTOCK_KILLS=50 cargo test --test crash`), `PENSTOCK_SEED` repeats a run's moments and layouts.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "plain threads that may wait")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use support::body::World;
use support::gateway::Gateway;
use support::ledger::Ledger;
use support::region::{Mode, Region};
use support::sender::{Load, Sender, send_for};
use support::settings::Settings;
use support::{Random, alone, seed, setting};

const PREFIXES: [&str; 3] = ["1", "91", "55"];
/// Cores that a restart may come back with; every journal found is adopted whatever their number was.
const LAYOUTS: [(usize, usize); 4] = [(1, 1), (3, 2), (2, 3), (1, 2)];
/// For all that was acked to arrive after the last start.
const SETTLE: Duration = Duration::from_secs(60);

fn regions() -> [Region; 3] {
    [Region::start("us"), Region::start("in"), Region::start("br")]
}

fn load(gateway: &Gateway, seed: u64) -> Load {
    let world = Arc::new(World::new(&PREFIXES, 40, 100));
    Load { address: gateway.listen, path: "/webhook".into(), world, connections: 8, rate: 800, seed }
}

fn start(regions: &[Region], ingest: usize, forward: usize) -> Gateway {
    Gateway::start(Settings { ingest, forward, ..Settings::new(regions, &PREFIXES) })
}

/// Kills at random moments while webhooks come in; `bend` may change the regions before each kill.
fn survive(ingest: usize, forward: usize, mut bend: impl FnMut(&mut Random, &mut [Region])) {
    let _alone = alone();
    let (seed, kills) = (seed(), setting("PENSTOCK_KILLS", 6));
    let mut random = Random(seed);
    let mut regions = regions();
    let mut gateway = start(&regions, ingest, forward);
    let mut ledger = Ledger::default();
    let sender = Sender::start(&load(&gateway, seed));
    for kill in 1..=kills {
        bend(&mut random, &mut regions);
        let acked = sender.acked();
        std::thread::sleep(Duration::from_millis(50 + random.below(900) as u64));
        let acked = sender.acked() - acked;
        ledger.killed(gateway.kill9());
        let (ingest, forward) = match random.below(3) {
            0 => LAYOUTS[random.below(LAYOUTS.len())],
            _ => (gateway.settings.ingest, gateway.settings.forward),
        };
        let start = Instant::now();
        gateway.restart_with(ingest, forward);
        println!(
            "kill {kill}/{kills} after {acked} acks; {ingest}+{forward} ready after {:?}",
            start.elapsed()
        );
    }
    std::thread::sleep(Duration::from_millis(300));
    regions.iter_mut().for_each(|region| region.set(Mode::Ok));
    ledger.add(sender.stop());
    ledger.assert_kept(&gateway, &regions, SETTLE);
    // Once all is settled and a moment has passed, even a kill brings nothing back.
    std::thread::sleep(Duration::from_secs(1));
    let before: Vec<usize> = regions.iter().map(Region::count).collect();
    gateway.kill9();
    gateway.restart();
    std::thread::sleep(Duration::from_secs(1));
    let after: Vec<usize> = regions.iter().map(Region::count).collect();
    assert_eq!(after, before, "settled parcels were sent again");
}

#[test]
fn acked_webhooks_survive_kills_in_order_with_one_core_each() {
    survive(1, 1, |_, _| {});
}

#[test]
fn acked_webhooks_survive_kills_in_order_with_three_and_two_cores() {
    survive(3, 2, |_, _| {});
}

#[test]
fn acked_webhooks_survive_kills_while_regions_come_and_go() {
    survive(2, 2, |random, regions| {
        let region = random.below(regions.len());
        let mode = match random.below(3) {
            0 => Mode::Refuse,
            1 => Mode::Status(503),
            _ => Mode::Ok,
        };
        regions[region].set(mode);
    });
}

#[test]
fn second_process_on_the_same_data_folder_refuses_and_the_first_is_undisturbed() {
    let _alone = alone();
    let regions = regions();
    let gateway = start(&regions, 1, 1);
    let sender = Sender::start(&load(&gateway, 1));
    let (status, said) = gateway.start_rival();
    assert!(!status.success(), "{said}");
    assert!(status.code().is_some_and(|code| code != 101), "it should refuse, not panic: {said}");
    assert!(said.contains("data"), "the cause names the data folder: {said}");
    let before = sender.acked();
    std::thread::sleep(Duration::from_millis(500));
    assert!(sender.acked() > before, "the first process stopped answering");
    let mut ledger = Ledger::default();
    ledger.add(sender.stop());
    assert!(ledger.sent().iter().all(|sent| sent.acked().is_some()), "the first process was disturbed");
    ledger.assert_kept(&gateway, &regions, SETTLE);
}

#[test]
fn kill_during_recovery_changes_nothing() {
    let _alone = alone();
    let seed = seed();
    let mut random = Random(seed);
    let mut regions = regions();
    regions.iter_mut().for_each(|region| region.set(Mode::Refuse));
    let mut gateway = start(&regions, 2, 1);
    let mut ledger = Ledger::default();
    ledger.add(send_for(&load(&gateway, seed), Duration::from_secs(2)));
    ledger.killed(gateway.kill9());
    for _ in 0..5 {
        gateway.start_and_kill_after(Duration::from_millis(random.below(60) as u64));
    }
    gateway.restart_with(1, 2);
    regions.iter_mut().for_each(|region| region.set(Mode::Ok));
    ledger.assert_kept(&gateway, &regions, SETTLE);
}
