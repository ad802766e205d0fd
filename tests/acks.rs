//! A 200 is a promise: it leaves after the commit that holds the webhook, and many webhooks share one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "plain threads that may wait")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use support::alone;
use support::body::World;
use support::gateway::Gateway;
use support::ledger::Ledger;
use support::metrics::{ACK_SECONDS, COMMIT_SECONDS, COMMITS, COMMITTED_ENTRIES, WEBHOOKS};
use support::region::{Mode, Region};
use support::sender::{Load, Sender};
use support::settings::Settings;

const PREFIXES: [&str; 2] = ["1", "91"];

#[test]
fn no_answer_leaves_before_its_commit_and_commits_are_shared() {
    let _alone = alone();
    let regions = [Region::start("us"), Region::start("in")];
    let gateway = Gateway::start(Settings { ingest: 2, ..Settings::new(&regions, &PREFIXES) });
    let world = Arc::new(World::new(&PREFIXES, 50, 100));
    let load =
        Load { address: gateway.listen, path: "/webhook".into(), world, connections: 48, rate: 0, seed: 1 };
    let sender = Sender::start(&load);
    let deadline = Instant::now() + Duration::from_secs(4);
    let mut samples = 0;
    while Instant::now() < deadline {
        // In this order: what was acked before the scrape must be committed in it.
        let acked = sender.acked() as f64;
        let committed = gateway.metrics().total(COMMITTED_ENTRIES);
        assert!(committed >= acked, "{acked} acked, {committed} committed");
        samples += 1;
    }
    let mut ledger = Ledger::default();
    ledger.add(sender.stop());
    let metrics = gateway.metrics();
    let acked = ledger.sent().iter().filter(|sent| sent.acked().is_some()).count() as f64;
    assert_eq!(metrics.sum(WEBHOOKS, &[("outcome", "accepted")]), acked);
    let count = |histogram: &str| metrics.total(&format!("{histogram}_count"));
    assert!(count(ACK_SECONDS) >= acked);
    assert_eq!(count(COMMIT_SECONDS), metrics.total(COMMITS));
    let share = metrics.total(COMMITS) / acked;
    println!("{acked} webhooks over 48 connections, {samples} samples, {share:.3} commits per webhook");
    assert!(samples > 10);
    assert!(share < 0.5, "{share:.3} commits per webhook: commits are not shared");
    ledger.assert_kept(&gateway, &regions, Duration::from_secs(30));
}

#[test]
fn answers_wait_for_no_region() {
    let _alone = alone();
    let mut regions = [Region::start("us"), Region::start("in")];
    regions[0].set(Mode::Hang);
    regions[1].set(Mode::Refuse);
    let gateway = Gateway::start(Settings::new(&regions, &PREFIXES));
    let world = Arc::new(World::new(&PREFIXES, 50, 100));
    let load =
        Load { address: gateway.listen, path: "/webhook".into(), world, connections: 4, rate: 400, seed: 1 };
    let sender = Sender::start(&load);
    std::thread::sleep(Duration::from_secs(3));
    let mut ledger = Ledger::default();
    ledger.add(sender.stop());
    let mut times = ledger.ack_times(ledger.sent()[0].sent, Instant::now());
    times.sort_unstable();
    assert!(times.len() > 300);
    let median = times[times.len() / 2];
    println!("{} acks with no region alive, median {median:.1?}", times.len());
    // The provider's guidance for the median; the goal is some milliseconds on a quiet machine.
    assert!(median < Duration::from_millis(250), "acks wait for a region: median {median:?}");
}
