//! A region comes back and has a backlog to work off: whoever writes to it now does not wait for that, and
//! all arrives once and in order.
//!
//! Where the backlog is longer than what a region knows at once, it is in the journal: for that the gateway is
//! this program itself, started once more with a small window ([`host`]).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "plain threads that may wait")]

mod support;

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use penstock::handoff::Limits;

use support::body::{World, ids};
use support::gateway::{Gateway, serve};
use support::hosted;
use support::ledger::Ledger;
use support::metrics::{LAGGING, REGION_STATE};
use support::region::{Mode, Region};
use support::sender::{Load, Sender, post_one};
use support::settings::{Rule, Settings};
use support::{Random, alone, eventually};

const LIMITS: Limits = Limits { frames: 1024, held_bytes: 64 << 20, window: 512, kept: 64 };
const AHEAD: &str = "penstock_parcels_ahead_total";
/// People who wrote while the region was down, and others who write once it is back.
const PREFIXES: [&str; 2] = ["91", "92"];
const PEOPLE: usize = 300;
/// Messages of others. Shared 70:30 some 22 of the backlog start beside them.
const LATE: usize = 50;
/// One in 3,500 is taken for somebody who has something in the backlog, and waits.
const MOST: usize = LATE * 9 / 10;

#[test]
#[ignore = "is the gateway of the other tests"]
fn host() {
    hosted::run(LIMITS, |_| ());
}

/// How many parcels were said to go ahead, and how many regions lagged.
fn drain(command: fn(&Path) -> Command) -> (f64, f64) {
    let mut regions = [Region::start("back")];
    let rule = Rule::new(&regions[0], "prefixes = [\"91\", \"92\"]\nin_flight = 4");
    let gateway = Gateway::start(Settings { command, ..Settings::of(vec![rule]) });
    let worlds = PREFIXES.map(|prefix| Arc::new(World::new(&[prefix], PEOPLE, 100).without_batches()));
    regions[0].set(Mode::Refuse);
    let world = Arc::clone(&worlds[0]);
    let load =
        Load { address: gateway.listen, path: "/webhook".into(), world, connections: 8, rate: 600, seed: 1 };
    let sender = Sender::start(&load);
    std::thread::sleep(Duration::from_secs(4));
    let mut ledger = Ledger::default();
    ledger.add(sender.stop());
    let backlog = ledger.sent().iter().filter(|sent| sent.acked().is_some()).count();

    // At most 400 a second, and a tenth of that at first.
    regions[0].set(Mode::Slow(Duration::from_millis(10)));
    let closed = || gateway.metrics().total(REGION_STATE) == 0.0;
    eventually("the region is found well", Duration::from_secs(60), closed);
    let lagging = gateway.metrics().total(LAGGING);
    let before = regions[0].count();
    let mut random = Random(7);
    let (mut late, mut sent) = (HashSet::new(), Vec::new());
    for person in 0..LATE {
        let mut webhook = worlds[1].webhook(&[(person, false)]);
        // Each world numbers its people from 0.
        webhook.events[0].conversation += PEOPLE;
        late.insert(webhook.events[0].id.clone());
        sent.push(post_one(gateway.listen, webhook));
        if person % 5 == 0 {
            // These have something before them.
            sent.push(post_one(gateway.listen, worlds[0].next(&mut random)));
        }
    }
    ledger.add(sent);
    let ahead = || {
        let (mut late_ones, mut others) = (0, 0);
        for parcel in regions[0].parcels_from(before).iter().filter(|parcel| parcel.delivered()) {
            let own = ids(parcel.body()).unwrap().iter().any(|id| late.contains(id));
            late_ones += usize::from(own);
            others += usize::from(!own);
            if late_ones >= MOST {
                break;
            }
        }
        (late_ones >= MOST).then_some(others)
    };
    eventually("who writes now is heard", Duration::from_secs(60), || ahead().is_some());
    let others = ahead().unwrap();
    println!(
        "backlog of {backlog}, {before} of it taken before anybody else wrote, and {others} until {MOST} of {LATE} others were heard"
    );
    assert!(backlog - before > 4 * LATE, "only {} were left: the test tested nothing", backlog - before);
    assert!(others < (backlog - before) / 2, "{others} of the backlog came first");
    ledger.assert_kept(&gateway, &regions, Duration::from_secs(120));
    (gateway.metrics().total(AHEAD), lagging)
}

#[test]
fn who_writes_to_a_region_that_came_back_does_not_wait_for_its_backlog() {
    let _alone = alone();
    let (ahead, lagging) = drain(serve);
    assert_eq!((ahead, lagging), (0.0, 0.0), "all of it is known to the region");
}

#[test]
fn who_writes_to_a_region_that_came_back_does_not_wait_for_what_is_in_the_journal() {
    let _alone = alone();
    let (ahead, lagging) = drain(hosted::command);
    assert_eq!(lagging, 1.0, "the backlog is not in the journal");
    assert!(ahead >= MOST as f64, "{ahead} went ahead");
}
