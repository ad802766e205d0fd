//! What a region refuses: one conversation is given up without harm to the others, and nothing is ever
//! given up because the region itself is out.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "plain threads that may wait")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::body::{World, ids};
use support::gateway::Gateway;
use support::ledger::Ledger;
use support::metrics::{ATTEMPTS, BACKLOG, PARCELS, REGION_STATE, RETRIES, SPLIT};
use support::region::{Mode, Region};
use support::sender::{Load, Sender, send_for};
use support::settings::{Rule, Settings};
use support::{alone, eventually};

/// Phone of the first person of [`world`]: in a body it stands in what is theirs alone.
const FIRST: &str = "100000000000";
const SETTLE: Duration = Duration::from_secs(90);

fn world() -> World {
    World::new(&["1"], 30, 100)
}

/// A gateway with one region, with these lines of its own.
fn start(region: &Region, lines: &str) -> Gateway {
    Gateway::start(Settings::of(vec![Rule::new(region, lines)]))
}

fn load(gateway: &Gateway, world: World, rate: u32) -> Load {
    Load {
        address: gateway.listen,
        path: "/webhook".into(),
        world: Arc::new(world),
        connections: 8,
        rate,
        seed: 1,
    }
}

fn parcels(gateway: &Gateway, outcome: &str) -> f64 {
    gateway.metrics().sum(PARCELS, &[("outcome", outcome)])
}

#[test]
fn poison_conversation_becomes_dead_letters_alone_and_the_next_parcel_says_how_many() {
    let _alone = alone();
    let mut region = Region::start("us");
    let gateway = start(&region, "[region.retry]\nattempts = 3");
    region.set(Mode::Against(500, FIRST));
    let sender = Sender::start(&load(&gateway, world().without_batches(), 150));
    eventually("a second parcel is given up", Duration::from_secs(90), || parcels(&gateway, "dead") >= 2.0);
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum(REGION_STATE, &[]), 0.0, "poison is no outage");
    let mut ledger = Ledger::default();
    ledger.add(sender.stop());
    let poisoned =
        ledger.sent().iter().filter(|sent| sent.webhook.events[0].conversation == 0).count() as f64;
    eventually("all others are delivered", Duration::from_secs(10), || {
        gateway.metrics().sum(BACKLOG, &[]) <= poisoned
    });
    region.set(Mode::Ok);
    eventually("nothing waits", SETTLE, || gateway.metrics().sum(BACKLOG, &[]) == 0.0);

    let dead = parcels(&gateway, "dead");
    let report = ledger.assert_kept_but(&gateway, std::slice::from_ref(&region), SETTLE);
    assert_eq!(report.dead.len() as f64, dead);
    let mine = |id: &&String| {
        ledger
            .sent()
            .iter()
            .any(|sent| sent.webhook.events.iter().any(|event| event.id == **id && event.conversation == 0))
    };
    assert!(report.dead.iter().all(|id| mine(&id)), "gave up others: {:?}", report.dead);
    let gaps: Vec<String> = region
        .parcels()
        .iter()
        .filter(|parcel| parcel.delivered())
        .filter_map(|parcel| parcel.head.header("penstock-gap-before").map(str::to_owned))
        .collect();
    assert_eq!(gaps, [dead.to_string()], "told once, with all that were given up");
}

#[test]
fn refusing_everything_and_then_half_gives_up_nothing() {
    let _alone = alone();
    let mut region = Region::start("us");
    let gateway = start(&region, "[region.retry]\nattempts = 2");
    let sender = Sender::start(&load(&gateway, world(), 200));
    std::thread::sleep(Duration::from_secs(2));
    for mode in [Mode::Status(401), Mode::Half(500), Mode::Half(404), Mode::Status(404)] {
        region.set(mode);
        std::thread::sleep(Duration::from_secs(4));
    }
    region.set(Mode::Ok);
    std::thread::sleep(Duration::from_secs(1));
    let mut ledger = Ledger::default();
    ledger.add(sender.stop());
    ledger.assert_kept(&gateway, std::slice::from_ref(&region), SETTLE);
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum(PARCELS, &[("outcome", "dead")]), 0.0);
    let (retries, delivered) = (metrics.total(RETRIES), metrics.sum(PARCELS, &[("outcome", "delivered")]));
    println!("{retries} retries, {delivered} delivered");
    assert!(
        metrics.sum(ATTEMPTS, &[("outcome", "refused")]) > 20.0,
        "nothing was refused: the test tested nothing"
    );
    // 17 s and the drain; what was saved up; and probes.
    assert!(retries <= 0.1 * delivered + 5.0 * 100.0 + 100.0, "{retries} retries for {delivered} parcels");
}

#[test]
fn gone_region_is_paused_with_one_alarm_and_its_traffic_waits() {
    let _alone = alone();
    let mut region = Region::start("us");
    let mut gateway = start(&region, "");
    region.set(Mode::Status(410));
    let mut ledger = Ledger::default();
    ledger.add(send_for(&load(&gateway, world(), 100), Duration::from_secs(2)));
    let tried = region.count();
    assert!(tried <= 64, "{tried} tries of a region that is gone");
    assert_eq!(gateway.metrics().sum(REGION_STATE, &[]), 3.0);
    assert_eq!(gateway.said().matches("answered 410").count(), 1, "{}", gateway.said());
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(region.count(), tried, "it was left alone");
    region.set(Mode::Ok);
    ledger.killed(gateway.kill9());
    gateway.restart();
    ledger.assert_kept(&gateway, std::slice::from_ref(&region), SETTLE);
}

#[test]
fn region_that_asks_to_wait_is_left_alone_for_that_long() {
    let _alone = alone();
    let mut region = Region::start("us");
    let gateway = start(&region, "in_flight = 4");
    let sender = Sender::start(&load(&gateway, world(), 100));
    std::thread::sleep(Duration::from_secs(1));
    region.set(Mode::Asks(503, 3));
    eventually("it is asked to wait", Duration::from_secs(5), || {
        gateway.metrics().sum(REGION_STATE, &[]) == 2.0
    });
    region.set(Mode::Ok);
    std::thread::sleep(Duration::from_secs(4));
    let mut ledger = Ledger::default();
    ledger.add(sender.stop());
    ledger.assert_kept(&gateway, std::slice::from_ref(&region), SETTLE);
    let parcels = region.parcels();
    let asked = parcels.iter().filter(|parcel| parcel.status == 503).map(|parcel| parcel.done).max().unwrap();
    let next = parcels.iter().map(|parcel| parcel.head.began).filter(|began| *began > asked).min().unwrap();
    println!("asked for 3 s, came again after {:?}", next - asked);
    assert!(next - asked > Duration::from_millis(2_800));
}

#[test]
fn rate_is_kept_while_a_backlog_goes_out() {
    let _alone = alone();
    let region = Region::start("us");
    let gateway = start(&region, "rate = 50");
    let mut ledger = Ledger::default();
    ledger.add(send_for(&load(&gateway, world().without_batches(), 400), Duration::from_secs(1)));
    ledger.assert_kept(&gateway, std::slice::from_ref(&region), SETTLE);
    let began: Vec<Instant> = region.parcels().iter().map(|parcel| parcel.head.began).collect();
    let (first, last) = (began.iter().min().unwrap(), began.iter().max().unwrap());
    let rate = began.len() as f64 / (*last - *first).as_secs_f64();
    let mut seconds: BTreeMap<u64, u32> = BTreeMap::new();
    began.iter().for_each(|at| *seconds.entry((*at - *first).as_secs()).or_default() += 1);
    println!("{} parcels, {rate:.1}/s: {seconds:?}", began.len());
    assert!((40.0..=52.0).contains(&rate), "{rate}/s");
}

#[test]
fn parcel_of_several_conversations_is_cut_once_it_was_refused_twice() {
    let _alone = alone();
    let mut region = Region::start("us");
    let gateway = start(&region, "");
    region.set(Mode::Against(500, FIRST));
    let world = Arc::new(world());
    let mut ledger = Ledger::default();
    let mut post = |people: &[usize]| {
        let parts: Vec<(usize, bool)> = people.iter().map(|person| (*person, false)).collect();
        let webhook = world.webhook(&parts);
        ledger.add(vec![support::sender::post_one(gateway.listen, webhook)]);
    };
    post(&[0, 1, 2]);
    // These wait behind the one above, which waits for its first conversation.
    post(&[1]);
    post(&[0]);
    post(&[2, 3]);
    eventually("the other conversations go on", Duration::from_secs(20), || {
        parcels(&gateway, "delivered") >= 2.0
    });
    assert_eq!(gateway.metrics().total(SPLIT), 1.0);
    assert_eq!(gateway.metrics().sum(BACKLOG, &[]), 2.0, "what holds the refused conversation");
    region.set(Mode::Ok);
    ledger.assert_kept(&gateway, std::slice::from_ref(&region), SETTLE);
    let parts: Vec<(String, usize)> = region
        .parcels()
        .iter()
        .filter(|parcel| parcel.delivered() && parcel.header("webhook-id").len() > 36)
        .map(|parcel| (parcel.header("webhook-id")[37..].to_owned(), ids(parcel.body()).unwrap().len()))
        .collect();
    let mut sorted = parts.clone();
    sorted.sort();
    assert_eq!(sorted, ["1", "2", "3"].map(|number| (number.to_owned(), 1)));
    assert_eq!(parts.last().unwrap().0, "1", "the refused one came last");
}
