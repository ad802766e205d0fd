//! A region that is down, hangs or refuses: the others and the provider do not feel it, memory stays
//! flat, and everything arrives in order afterwards.
//!
//! `PENSTOCK_OUTAGE_SECONDS` sets how long (a push: 8; the full form is 60).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "plain threads that may wait")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use support::body::World;
use support::gateway::Gateway;
use support::ledger::Ledger;
use support::metrics::{ATTEMPTS, BACKLOG, MEMORY};
use support::p99;
use support::region::{Mode, Region};
use support::sender::{Load, Sender};
use support::settings::{Rule, Settings};
use support::{alone, setting};

/// The first is steady, the second has the outage.
const PREFIXES: [&str; 2] = ["1", "91"];
const STEADY: usize = 0;
/// Filling of each message. With the rate below, the outage of a push piles up some 50 MiB, which
/// a gateway that kept it in memory could not hide.
const PADDING: usize = 24 << 10;
const RATE: u32 = 600;
/// What memory may grow by during an outage: the bounded channel and buffers, not the backlog.
const GROWTH: f64 = 32.0 * 1024.0 * 1024.0;
/// Two shared cores are noisy: a delay this much above the one before counts as the same.
const NOISE: Duration = Duration::from_millis(100);

struct Outage {
    gateway: Gateway,
    regions: [Region; 2],
    ledger: Ledger,
}

/// Load before, during and after `mode` at the second region; checks what holds for every kind of outage.
fn outage(padding: usize, mode: Mode, seconds: u64) -> Outage {
    let mut regions = [Region::start("steady"), Region::start("failing")];
    let rules = [
        Rule::new(&regions[0], "prefixes = [\"1\"]"),
        Rule::new(&regions[1], "prefixes = [\"91\"]\ntimeout = \"2s\""),
    ];
    let gateway = Gateway::start(Settings { ingest: 1, forward: 2, ..Settings::of(rules.to_vec()) });
    // Without batches: a webhook over both regions is not over before the failing one has its part.
    let world = Arc::new(World::new(&PREFIXES, 100, padding).without_batches());
    let load =
        Load { address: gateway.listen, path: "/webhook".into(), world, connections: 8, rate: RATE, seed: 1 };
    let sender = Sender::start(&load);
    std::thread::sleep(Duration::from_secs(1));

    let calm = Instant::now();
    std::thread::sleep(Duration::from_secs(seconds.min(5)));
    let memory = gateway.metrics().total(MEMORY);
    let down = Instant::now();
    regions[1].set(mode);
    std::thread::sleep(Duration::from_secs(seconds));
    let metrics = gateway.metrics();
    let grown = metrics.total(MEMORY) - memory;
    let backlog = metrics.sum(BACKLOG, &[("region", "failing")]);
    let up = Instant::now();
    regions[1].set(Mode::Ok);
    std::thread::sleep(Duration::from_secs(1));

    let mut ledger = Ledger::default();
    ledger.add(sender.stop());
    ledger.assert_kept(&gateway, &regions, Duration::from_secs(60 + 2 * seconds));
    let again = up.elapsed();
    let acks = [ledger.ack_times(calm, down), ledger.ack_times(down, up)].map(|mut times| p99(&mut times));
    let others =
        [(calm, down), (down, up)].map(|(from, to)| p99(&mut ledger.delays(&regions, STEADY, from, to)));
    println!(
        "{mode:?} for {seconds} s: backlog {backlog} parcels, memory {:+.1} MiB, all delivered {again:.1?} after its end; \
         p99 before/during: acks {acks:.1?}, others' delivery {others:.1?}",
        grown / 1024.0 / 1024.0
    );
    assert!(backlog > 0.0, "the outage did not happen");
    assert!(grown < GROWTH, "memory grew by {grown} bytes while {backlog} parcels waited");
    assert!(acks[1] <= acks[0] * 2 + NOISE, "acks felt the outage: {acks:?}");
    assert!(others[1] <= others[0] * 2 + NOISE, "the other region felt the outage: {others:?}");
    Outage { gateway, regions, ledger }
}

#[test]
fn region_down_is_felt_by_nobody_else_and_gets_everything_in_order_afterwards() {
    let _alone = alone();
    let Outage { gateway, regions, ledger } =
        outage(PADDING, Mode::Refuse, setting("PENSTOCK_OUTAGE_SECONDS", 8));
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum(BACKLOG, &[("region", "failing")]), 0.0);
    let tried = metrics.sum(ATTEMPTS, &[("region", "failing")]);
    let needed = ledger.sent().iter().filter(|sent| sent.webhook.events[0].region == 1).count() as f64;
    // A region that is down is probed, not hammered.
    assert!(tried <= 1.1 * needed + 1_000.0, "{tried} attempts for {needed} parcels");
    assert!(regions[1].count() as f64 >= needed * 0.9);
}

#[test]
fn hanging_region_is_given_up_by_its_timeout_and_felt_by_nobody_else() {
    let _alone = alone();
    let outage = outage(0, Mode::Hang, 6);
    // A parcel that was sent and never answered may have been taken: its next attempt says so.
    let parcels = outage.regions[1].parcels();
    let hung: Vec<&str> =
        parcels.iter().filter(|p| p.status == 0).map(|parcel| parcel.header("webhook-id")).collect();
    assert!(!hung.is_empty());
    for id in hung {
        let delivered = parcels.iter().find(|p| p.delivered() && p.header("webhook-id") == id);
        let delivered = delivered.unwrap_or_else(|| panic!("{id} hung and never arrived"));
        assert_eq!(delivered.head.header("penstock-possible-duplicate"), Some("true"), "{id}");
    }
    assert!(outage.gateway.metrics().sum(ATTEMPTS, &[("region", "failing"), ("outcome", "timeout")]) > 0.0);
}

#[test]
fn region_answering_500_gets_everything_once_it_is_well() {
    let _alone = alone();
    let outage = outage(0, Mode::Status(500), 4);
    assert!(outage.gateway.metrics().sum(ATTEMPTS, &[("region", "failing"), ("outcome", "refused")]) > 0.0);
}

#[test]
fn region_asking_for_patience_gets_everything_once_it_is_well() {
    let _alone = alone();
    outage(0, Mode::Status(429), 4);
}
