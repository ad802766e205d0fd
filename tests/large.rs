//! Large webhooks, which are judged beside the cores: nobody can tell it from their answers or from what regions get.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "plain threads that may wait")]

mod support;

use std::time::Duration;

use support::body::{World, ids};
use support::gateway::Gateway;
use support::http::{Connection, post};
use support::metrics::{COMMITTED_ENTRIES, WEBHOOKS};
use support::region::Region;
use support::settings::Settings;
use support::{SECRET, eventually, signature};

const PATIENCE: Duration = Duration::from_secs(20);
/// Of the panic that a test asks for.
const POISON: &str = "0815-poison-4711";

fn start(environment: &[(&'static str, &str)]) -> (Gateway, [Region; 2], World) {
    let regions = [Region::start("us"), Region::start("in")];
    let mut settings = Settings::new(&regions, &["1", "91"]);
    settings.limits = "body = \"4MiB\"".to_owned();
    settings.environment.extend(environment.iter().map(|(name, value)| (*name, (*value).to_owned())));
    (Gateway::start(settings), regions, World::new(&["1", "91"], 500, 300))
}

fn request(body: &[u8]) -> Vec<u8> {
    post("/webhook", ("x-hub-signature-256", &signature(SECRET, body)), body)
}

/// One event of each of the first `people`, in all regions.
fn batch(world: &World, people: usize) -> Vec<u8> {
    world.webhook(&(0..people).map(|person| (person, false)).collect::<Vec<_>>()).body
}

fn connect(gateway: &Gateway) -> Connection {
    Connection::open(gateway.listen, PATIENCE).unwrap()
}

#[test]
fn large_webhooks_reach_their_regions_as_small_ones_do_and_answers_keep_their_order() {
    let (gateway, regions, world) = start(&[]);
    let mut connection = connect(&gateway);
    let (mut bodies, mut all) = (Vec::new(), Vec::new());
    for people in [1, 1000, 2, 40, 300, 1] {
        let body = batch(&world, people);
        all.extend(request(&body));
        bodies.push(body);
    }
    let text = String::from_utf8(batch(&world, 1)).unwrap();
    let long = text.replacen("{", &format!("{{\"filler\":\"{}\",", "x".repeat(3_000_000)), 1).into_bytes();
    all.extend(request(&long));
    let (opaque, forged) = (vec![b'x'; 100_000], vec![b' '; 100_000]);
    all.extend(request(&opaque));
    all.extend(post("/webhook", ("x-hub-signature-256", &signature("another secret", &forged)), &forged));
    // After the forgery nothing more is taken.
    all.extend(request(&bodies[0]));
    assert!(bodies[1].len() > 300_000, "{} bytes", bodies[1].len());

    connection.send(&all).ok();
    for webhook in 0..8 {
        assert_eq!(connection.answer().unwrap().status(), 200, "webhook {webhook}");
    }
    let answer = connection.answer().unwrap();
    assert!(answer.status() == 401 && answer.closes(), "{answer:?}");
    let metrics = gateway.metrics();
    assert_eq!(metrics.total(COMMITTED_ENTRIES), 8.0);
    assert_eq!(metrics.sum(WEBHOOKS, &[("outcome", "accepted")]), 8.0);
    assert_eq!(metrics.sum(WEBHOOKS, &[("outcome", "bad_signature")]), 1.0);
    assert_eq!(metrics.total("penstock_unparsed_webhooks_total"), 1.0);
    assert_eq!(
        metrics.total("penstock_offloaded_webhooks_total"),
        5.0,
        "1,000 and 300 people, 3 MB, and two of 100 KB"
    );

    bodies.push(long.clone());
    let mut expected: Vec<String> = bodies.iter().flat_map(|body| ids(body).unwrap()).collect();
    expected.sort();
    let seen = || {
        let parcels = regions.iter().flat_map(Region::parcels);
        let mut seen: Vec<String> = parcels.filter_map(|p| ids(p.body()).ok()).flatten().collect();
        seen.sort();
        seen
    };
    eventually("every event is delivered", PATIENCE, || seen().len() >= expected.len());
    assert_eq!(seen(), expected);
    for whole in [&long, &opaque] {
        assert!(regions[0].parcels().iter().any(|parcel| parcel.body() == whole), "not as it was sent");
    }
}

#[test]
fn large_webhooks_that_were_answered_survive_a_kill() {
    let (mut gateway, regions, world) = start(&[]);
    let mut connection = connect(&gateway);
    let mut expected = Vec::new();
    for people in [200, 1, 300, 1] {
        let body = batch(&world, people);
        expected.extend(ids(&body).unwrap());
        connection.send(&request(&body)).unwrap();
        assert_eq!(connection.answer().unwrap().status(), 200);
    }
    gateway.kill9();
    gateway.start_again();
    gateway.wait_ready();
    let mut seen = Vec::new();
    eventually("every event is delivered", PATIENCE, || {
        seen = regions.iter().flat_map(Region::parcels).flat_map(|p| ids(p.body()).unwrap()).collect();
        expected.iter().all(|id| seen.contains(id))
    });
}

#[test]
fn a_panic_over_a_large_webhook_closes_its_connection_and_no_other() {
    let poison = format!("judge:panic:{POISON}");
    let (gateway, _regions, world) = start(&[("PENSTOCK_POISON", &poison)]);
    let poisoned = format!("\"{POISON}{}\"", "x".repeat(100_000)).into_bytes();
    let small = format!("\"{POISON}\"").into_bytes();
    let mut other = connect(&gateway);
    for (round, body) in [&poisoned, &small, &poisoned].into_iter().enumerate() {
        let mut connection = connect(&gateway);
        connection.send(&request(body)).unwrap();
        assert!(connection.answer().is_err(), "it is closed without an answer");
        for people in [1, 200] {
            other.send(&request(&batch(&world, people))).unwrap();
            assert_eq!(other.answer().unwrap().status(), 200);
        }
        assert_eq!(gateway.metrics().total("penstock_panics_total"), round as f64 + 1.0);
    }
}

#[test]
fn who_leaves_while_a_large_webhook_is_judged_leaves_it_whole_and_a_drain_waits_for_who_stays() {
    // Each is judged for a second.
    let (mut gateway, regions, world) = start(&[("PENSTOCK_FAULT", "verified=sleep/1000@1+")]);
    let (left, kept) = (batch(&world, 200), batch(&world, 100));
    let mut leaves = connect(&gateway);
    leaves.send(&request(&left)).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    leaves.reset();
    let mut stays = connect(&gateway);
    stays.send(&request(&kept)).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    gateway.send_term();
    let answer = stays.answer().unwrap();
    assert!(answer.status() == 200 && answer.closes(), "{answer:?}");
    assert!(gateway.wait_exit(PATIENCE).success());
    gateway.start_again();
    gateway.wait_ready();
    let mut expected = [ids(&left).unwrap(), ids(&kept).unwrap()].concat();
    expected.sort();
    eventually("both are delivered", PATIENCE, || {
        let mut seen: Vec<String> =
            regions.iter().flat_map(Region::parcels).flat_map(|p| ids(p.body()).unwrap()).collect();
        seen.sort();
        seen.dedup();
        seen == expected
    });
}
